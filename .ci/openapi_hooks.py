"""What schemathesis sends is bent here so that it gets past the door, and so that nothing leaves the machine.

Loaded by .ci/openapi. A generated URL is some name in the world and a generated queue one that is not configured: every
call would be a 422, or a DNS query. So tasks get a target on loopback and, mostly, the queue that exists.
"""

import os

import schemathesis

TARGET = os.environ["SENDOFF_CHECK_TARGET"]


def settle(task):
    if not isinstance(task, dict):
        return task
    payload = task.get("payload")
    if isinstance(payload, dict) and str(payload.get("url", "")).lower().startswith(("http:", "https:")):
        task = {**task, "payload": {**payload, "url": TARGET}}
    # One in four keeps the queue that was made up.
    if isinstance(task.get("queue"), str) and len(task["queue"]) % 4:
        task = {**task, "queue": "default"}
    return task


@schemathesis.hook
def map_body(context, body):
    if context.operation.path == "/tasks":
        return settle(body)
    if context.operation.path == "/tasks/batch" and isinstance(body, list):
        return [settle(task) for task in body]
    return body
