// A small program over the client that is generated from docs/openapi.json. tests/it/openapi.rs compiles it, which shows
// that the types are usable, and runs it against a real server, which shows that they are true.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

const [url, key] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

const task: components["schemas"]["NewTask"] = {
  task_type: "http_request",
  payload: { url: "http://127.0.0.1:9/", method: "POST", body: { order: 7 } },
  task_id: "typed",
  delay: "1h",
  priority: 9,
  labels: { tenant: "42" },
  retry: { max_attempts: 3, min_backoff: 0.5, on_status: { "404": "retry" } },
};

const created = await client.POST("/tasks", { body: task, params: { header: { "Idempotency-Key": "typed-1" } } });
check(created.response.status === 201 && created.data !== undefined, "it is created");
check(created.data.task_id === "typed", "it has its name");

const seen = await client.GET("/tasks/{id}", { params: { path: { id: "typed" }, query: { wait: "20ms" } } });
const status: components["schemas"]["TaskStatus"] | undefined = seen.data?.status;
check(status === "scheduled" && seen.data?.retry.min_backoff === "500ms", "it waits");

const page = await client.GET("/tasks", {
  params: { query: { status: "scheduled", limit: 10, labels: { "label.tenant": "42" } } },
  // The fields of `labels` are parameters of their own.
  querySerializer: { object: { style: "form", explode: true } },
});
check(page.data?.tasks.length === 1 && page.data.next === null, "it is on a page");

const cancelled = await client.DELETE("/tasks/{id}", { params: { path: { id: "typed" } } });
check(cancelled.data?.status === "cancelled", "it is cancelled");

const again = await client.POST("/tasks/{id}/run", { params: { path: { id: "typed" } } });
check(again.error?.code === "wrong_state", "a refusal has its code");

const purged = await client.POST("/dlq/purge", { body: { all: true, dry_run: true } });
check(purged.data?.purged === 0, "nothing was dead");

const queues = await client.GET("/queues");
check(queues.data?.queues.some((queue) => queue.tasks.cancelled === 1) === true, "the queue counts it");

// What is wrong does not compile: each line below would be an error without the note above it.
// @ts-expect-error a priority is a number
const wrongPriority: components["schemas"]["NewTask"] = { ...task, priority: "high" };
// @ts-expect-error there is no such field
const wrongField: components["schemas"]["NewTask"] = { ...task, quue: "default" };
// @ts-expect-error there is no such code
const wrongCode = again.error?.code === "wrong_stat";
// @ts-expect-error there is no such path
const wrongPath = () => client.GET("/task");
void [wrongPriority, wrongField, wrongCode, wrongPath];
console.log("the client works");
