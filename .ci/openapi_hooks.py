"""Bends what schemathesis sends, so that it gets past the door and nothing leaves the machine. Loaded by .ci/openapi.

What a schema cannot say (a time that lies ahead, a queue that is configured, a backoff shorter than another) is made
true here. Then schema-valid requests have to be accepted, all of them, and a refusal is a finding. Schema-invalid ones
are left as they are, but for their targets.
"""

import json
import os
import re
import zlib

import schemathesis
from schemathesis import GenerationMode

# Nothing listens there: tasks die at once, which is what the dead-letter operations need.
TARGET = os.environ["SENDOFF_CHECK_TARGET"]
# task_ids that .ci/openapi created, dead ones and waiting ones.
DEAD = os.environ["SENDOFF_CHECK_DEAD"].split()
WAITING = os.environ["SENDOFF_CHECK_WAITING"].split()


def number(value):
    """The same number for the same value, in every run."""
    return zlib.crc32(repr(value).encode("utf-8", "replace"))


def aim(task):
    """Every call goes to loopback."""
    if isinstance(task, dict) and isinstance(task.get("payload"), dict) and ":" in str(task["payload"].get("url")):
        return {**task, "payload": {**task["payload"], "url": TARGET}}
    return task


def settle(task):
    """Makes true what a schema cannot say of a task."""
    task, payload = dict(task), dict(task["payload"])
    if payload.get("method", "").upper() == "CONNECT":
        payload["method"] = "PATCH"
    if payload.get("method", "").upper() in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        payload["method"] = payload["method"].upper()
    if "body_base64" in payload:
        payload["body_base64"] = "AP8="
    if "headers" in payload:
        payload["headers"] = {f"x-{index}": "v" for index, _ in enumerate(payload["headers"])}
    # This server has no credentials: whichever is named is refused, rightly.
    payload.pop("auth", None)
    task["payload"] = payload
    if task.get("queue") is not None:
        task["queue"] = "default"
    if task.get("run_at") is not None:
        task["run_at"] = "2029-12-31T23:00:00Z"
    if task.get("expires_at") is not None:
        task["expires_at"] = "2030-01-01T00:00:00Z"
        if task.get("delay") is not None:
            task["delay"] = "90s"
    for at, durations in ((task, ("delay", "timeout")), (task.get("retry") or {}, ("max_retry_duration", "credential_wait_max"))):
        for field in durations:
            # A text of this pattern can mean more than its bound, a number be finer than a millisecond.
            if isinstance(at.get(field), str):
                at[field] = "1h30m"
            elif isinstance(at.get(field), float):
                at[field] = round(at[field], 3)
    if task.get("retry") is not None:
        retry = task["retry"] = dict(task["retry"])
        for field, value in (("min_backoff", "1s"), ("max_backoff", "1h")):
            if retry.get(field) is not None:
                retry[field] = value
        if retry.get("stop_when") == "all":
            retry.update(max_attempts=3, max_retry_duration="1h")
    return task


@schemathesis.hook
def before_call(context, case, kwargs):
    path, valid = case.operation.path, case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    if path in ("/tasks", "/tasks/batch") and case.media_type == "application/json":
        bend = (lambda task: settle(aim(task))) if valid else aim
        if isinstance(case.body, list):
            case.body = [bend(task) for task in case.body]
        elif isinstance(case.body, dict):
            case.body = bend(case.body)
        if valid and path == "/tasks/batch" and isinstance(case.body, list):
            # No name twice in a batch.
            case.body = [{**task, "task_id": None} for task in case.body]
    if valid and path == "/keys" and isinstance(case.body, dict) and case.body.get("expires_at") is not None:
        case.body = {**case.body, "expires_at": "2029-12-31T23:00:00Z"}
    if valid and case.media_type == "application/x-ndjson":
        lines = 1 + number(case.body) % 3
        case.body = json.dumps({"task_type": "http_request", "payload": {"url": TARGET}}) + "\n"
        case.body *= lines
    if valid and path in ("/dlq/redrive", "/dlq/purge") and isinstance(case.body, dict):
        spare(case.body)
    if valid:
        find(case)
    if re.match(r"^[0-9.]+(s|m)?$", str((case.query or {}).get("wait"))):
        case.query["wait"] = "20ms"
    key = (case.headers or {}).get("Idempotency-Key")
    if key and re.match(r"^[!-~]{1,256}$", str(key)):
        # The same key with another body is refused, rightly.
        case.headers["Idempotency-Key"] = f"{key[:240]}-{number((path, case.media_type, case.body))}"


def spare(filter):
    """A bulk call that does something does it to a few, or there would be nothing left for the others."""
    if filter.get("all") or number(filter) % 2:
        filter["dry_run"] = True
    else:
        filter["labels"] = {"seed": str(number(filter) % 40)}


def find(case):
    """Names things that exist, mostly."""
    parameters = case.path_parameters or {}
    # Keys are those that stateful tests made: a task's id in their place would be none.
    if "id" in parameters and not case.operation.path.startswith("/keys") and number(parameters["id"]) % 4:
        known = DEAD if case.operation.path.startswith("/dlq") else WAITING
        # Stateful tests bring ids of tasks that they created; those are UUIDs.
        if not re.match(r"^[0-9a-f]{8}-", parameters["id"]):
            parameters["id"] = known[number(parameters["id"]) % len(known)]
    if "queue" in parameters and number(parameters["queue"]) % 4:
        parameters["queue"] = "default"
    query = case.query or {}
    if "cursor" in query and not re.match(r"^A[Q-X][A-Za-z0-9_-]{10}$", str(query["cursor"])):
        query["cursor"] = "AQAAAAAAAAAB"

@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A batch as lines: the text itself, or something that is none."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else repr(value).encode()
