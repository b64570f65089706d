//! `/tasks`: enqueue one, look, wait, cancel, run now.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, http::HeaderName};
use serde::Serialize;
use utoipa::ToSchema;

use crate::queue::command::{Accept, Accepted, Idempotency, TaskAction};
use crate::queue::store::{IdRange, ListQuery, Row, TaskFilter, TaskRecord, digest, idempotency_hash};
use crate::security::scope::Scope;
use crate::task::limits::{
    PAGE_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX, PAGE_ROWS_SCANNED_MAX, PAGE_STEP_ROWS, TASK_ENVELOPE_BYTES_MAX, WAIT_MAX,
};
use crate::task::{Span, Status, TaskId, TaskKey, TaskRef, WallMs};

use super::access::Caller;
use super::cursor;
use super::error::{Code, Problem};
use super::extract::{NoQuery, Prefixed, Query, TaskInPath, idempotency_key, json_body};
use super::openapi::bodies::NewTask;
use super::openapi::parameters;
use super::openapi::words;
use super::state::Api;
use super::wire_task::{Rules, one};
use super::wire_view::{self, TaskView};

/// Says that an answer repeats an earlier one.
pub(super) const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));

/// `POST /tasks`.
#[utoipa::path(
    post, path = "/tasks", operation_id = "create_task", tag = "tasks",
    summary = "Enqueue a task",
    description = "When the answer is 200 or 201 the task is on disk. A repeat (the same `Idempotency-Key`, or the same \
                   `task_id` with the same content) is answered with the first task as it is now.",
    params(parameters::Repeatable),
    request_body = NewTask,
    responses(
        (status = 201, description = "Accepted. Its status may already be `running`.", body = TaskView, headers(
            ("Location" = String, description = "The path of the task."),
        )),
        (status = 200, description = "A repeat: the first task as it is now; what is still known of it, if its record was \
                                      removed.", body = words::RepeatedTask, headers(
            ("Idempotency-Replayed" = words::True, description = "Always `true`."),
        )),
    ),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    at: Prefixed,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let limit = usize::try_from((api.wiring().payload_bytes_max)()).unwrap_or(usize::MAX);
    let raw = json_body(&api, &parts.headers, body, limit.saturating_add(TASK_ENVELOPE_BYTES_MAX)).await?;
    let now = api.clock().now().wall;
    let spec = one(raw.text()?, &rules(&api, now, key.is_some()))?;
    caller.permit_specs(std::slice::from_ref(&spec), false)?;
    let idempotency = idempotency(&caller, &at, key, digest(&raw.bytes));
    let accepted = api.queues().accept(Accept { specs: vec![spec], idempotency }).await;
    match accepted.map_err(|error| caller.not_accepted(error, false))? {
        Accepted::New { first, .. } => {
            let view = wire_view::task(&first, Some(&[]), caller.sight(&first.queue), api.clock().now().wall);
            // Every character of an id stands in a path as it is.
            let location = format!("{}/tasks/{}", at.prefix, view.task_id);
            Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
        }
        Accepted::Repeat { range, ended } => repeat(&api, &caller, range, ended).await,
        Accepted::Existing { .. } => Err(Problem::internal("a single task was answered as a batch".to_owned())),
    }
}

/// What is still known of a task whose record was removed.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemovedTask {
    #[schema(value_type = words::TaskId)]
    task_id: String,
    /// How it ended.
    #[schema(required, value_type = Option<words::TaskStatus>)]
    status: Option<&'static str>,
}

/// The answer to a repeat: the first task as it is now; what is still known of it, if it was removed.
async fn repeat(api: &Api, caller: &Caller, range: IdRange, ended: Option<Status>) -> Result<Response, Problem> {
    let id = TaskId { key: range.first, tail: range.tail };
    let Some(record) = api.queues().get(TaskRef::by_id(id)).await? else {
        let gone = RemovedTask { task_id: id.to_string(), status: ended.map(Status::as_str) };
        return Ok((StatusCode::OK, [REPLAYED], Json(gone)).into_response());
    };
    Ok((StatusCode::OK, [REPLAYED], shown(api, caller, &record)).into_response())
}

/// What tasks are checked against.
pub(super) fn rules(api: &Api, now: WallMs, keyed: bool) -> Rules<'_> {
    let wiring = api.wiring();
    Rules { now, payload_bytes_max: (wiring.payload_bytes_max)(), check: &wiring.check_payload, keyed }
}

/// The key as the engine knows it, with the digest of the raw body: its scope is caller, method, and path without `/v1`.
pub(super) fn idempotency(caller: &Caller, at: &Prefixed, key: Option<&str>, digest: u128) -> Option<Idempotency> {
    key.map(|key| Idempotency { hash: idempotency_hash(&caller.id, "POST", &at.path, key), digest })
}

/// A task with its history, as an answer; of both what the caller may see.
pub(super) fn shown(api: &Api, caller: &Caller, record: &TaskRecord) -> Response {
    let sight = caller.sight(&record.row.queue);
    Json(wire_view::task(&record.row, Some(&record.attempts), sight, api.clock().now().wall)).into_response()
}

/// The parameters of a list; `label.` stands for all labels.
pub(super) const LIST_PARAMETERS: [&str; 6] = ["queue", "status", "task_type", "label.", "limit", "cursor"];

/// A page of tasks, as an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskPage)]
pub(super) struct Listed<'a> {
    /// Newest first by acceptance, without their attempts.
    tasks: Vec<TaskView<'a>>,
    /// The `cursor` of the page after; `null` when there is none.
    #[schema(required)]
    next: Option<String>,
}

/// `GET /tasks`.
#[utoipa::path(
    get, path = "/tasks", operation_id = "list_tasks", tag = "tasks",
    summary = "List tasks", description = "Newest first by acceptance.",
    params(parameters::TaskFilter),
    responses((status = 200, description = "A page. It may be short, or empty, while `next` is not null.", body = Listed)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let mut asked = PageAsked::read(Query::read(request.uri().query(), &LIST_PARAMETERS))?;
    caller.narrow(Scope::Read, &mut asked.filter);
    // What is asked for is what is shown, also of tasks whose time comes meanwhile.
    let now = api.clock().now().wall;
    asked.filter.at = Some(now);
    let page = page(&api, asked).await?;
    let tasks = page.rows.iter().map(|row| wire_view::task(row, None, caller.sight(&row.queue), now)).collect();
    Ok(Json(Listed { tasks, next: page.next }).into_response())
}

/// Which page is asked for.
pub(super) struct PageAsked {
    /// Which tasks.
    pub(super) filter: TaskFilter,
    limit: u32,
    before: Option<TaskKey>,
}

impl PageAsked {
    /// Reads filter, `limit` and `cursor`.
    pub(super) fn read(mut query: Query<'_>) -> Result<Self, Problem> {
        let filter = query.filter();
        let limit = query.get("limit", |text| {
            let number = text.parse::<u32>().ok().filter(|number| (1..=PAGE_MAX).contains(number));
            number.ok_or_else(|| format!("has to be a whole number from 1 to {PAGE_MAX}"))
        });
        let before = query.get("cursor", |text| cursor::read(text).ok_or("is not a cursor that this server gave"));
        query.finish(|_| Self { filter, limit: limit.unwrap_or(PAGE_DEFAULT), before })
    }
}

/// A page of tasks.
pub(super) struct Page {
    /// The tasks, newest first.
    pub(super) rows: Vec<Row>,
    /// The cursor of the next page, if there is one.
    pub(super) next: Option<String>,
}

/// Reads a page in steps, so that large payloads end it early instead of filling the memory. All steps together look at
/// no more than [`PAGE_ROWS_SCANNED_MAX`] rows.
pub(super) async fn page(api: &Api, asked: PageAsked) -> Result<Page, Problem> {
    let steps = asked.limit.div_ceil(PAGE_STEP_ROWS).max(1);
    let (mut rows, mut bytes, mut before) = (Vec::new(), 0_usize, asked.before);
    for _ in 0..steps {
        let left = asked.limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let query = ListQuery {
            filter: asked.filter.clone(),
            before,
            limit: left.min(PAGE_STEP_ROWS),
            scan_max: PAGE_ROWS_SCANNED_MAX / steps,
        };
        let step = api.queues().list(query).await?;
        before = step.next;
        let mut step_rows = step.rows.into_iter().peekable();
        while let Some(row) = step_rows.next() {
            bytes = bytes.saturating_add(row.body.as_ref().map_or(0, |body| body.payload.len()));
            let key = row.header.key;
            rows.push(row);
            if bytes >= PAGE_BYTES_MAX && (step_rows.peek().is_some() || before.is_some()) {
                return Ok(Page { rows, next: Some(cursor::text(key)) });
            }
        }
        if before.is_none() || rows.len() >= asked.limit as usize {
            break;
        }
    }
    Ok(Page { rows, next: before.map(cursor::text) })
}

/// `GET /tasks/{id}`, `?wait=30s`.
#[utoipa::path(
    get, path = "/tasks/{id}", operation_id = "get_task", tag = "tasks",
    summary = "Look at a task",
    description = "With its attempts. With `wait` the answer comes when the task has ended or the time is over.",
    params(parameters::TaskInPath, parameters::Waiting),
    responses((status = 200, description = "The task.", body = TaskView)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    request: Request,
) -> Result<Response, Problem> {
    let mut query = Query::read(request.uri().query(), &["wait"]);
    let wait = query.get("wait", |text| match Span::parse(text) {
        Ok(span) if span > WAIT_MAX => Err(format!("at most {WAIT_MAX}, not {span}")),
        Ok(span) => Ok(span),
        Err(error) => Err(error.to_string()),
    });
    let wait = query.finish(|_| wait)?.filter(|wait| *wait > Span::default());
    let task = caller.permit_task(&api, Scope::Read, task).await?;
    let record = match wait {
        None => api.queues().get(task).await?,
        Some(wait) => {
            let _waiter = api.waiters().try_acquire().map_err(|_all_taken| {
                Problem::new(Code::Busy, "too many requests wait for the end of a task: ask without `wait`")
            })?;
            api.queues().wait(task, wait.to_duration()).await?
        }
    };
    Ok(shown(&api, &caller, &record.ok_or_else(Problem::no_task)?))
}

/// `DELETE /tasks/{id}`.
#[utoipa::path(
    delete, path = "/tasks/{id}", operation_id = "cancel_task", tag = "tasks",
    summary = "Cancel a task",
    description = "A running call is aborted; whether its target acted on it is not known. A repeat is answered with 200.",
    params(parameters::TaskInPath),
    responses((status = 200, description = "The task, cancelled.", body = TaskView)),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    act(&api, &caller, (Scope::Manage, TaskAction::Cancel), task).await
}

/// `POST /tasks/{id}/run`.
#[utoipa::path(
    post, path = "/tasks/{id}/run", operation_id = "run_task", tag = "tasks",
    summary = "Run a task now",
    description = "It is due now and ahead of its queue; pause, rate and concurrency still hold.",
    params(parameters::TaskInPath),
    responses((status = 200, description = "The task.", body = TaskView)),
)]
pub(super) async fn run(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    act(&api, &caller, (Scope::Manage, TaskAction::Run), task).await
}

/// Does something to one task, if the caller holds the scope of its queue, and answers with the task as it is then.
pub(super) async fn act(
    api: &Api,
    caller: &Caller,
    (scope, action): (Scope, TaskAction),
    task: TaskRef,
) -> Result<Response, Problem> {
    let task = caller.permit_task(api, scope, task).await?;
    let row = api.queues().act(action, task).await?;
    // It is done, whatever reading the history says: without it the answer has no `attempts`.
    let record = api.queues().get(TaskRef::by_id(row.header.id())).await.ok().flatten();
    let attempts = record.map(|record| record.attempts);
    let sight = caller.sight(&row.queue);
    Ok(Json(wire_view::task(&row, attempts.as_deref(), sight, api.clock().now().wall)).into_response())
}
