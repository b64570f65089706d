//! `/dlq`: the dead letters, each with its whole history; put back or delete one, or all that match.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::queue::command::{BulkAction, QueueView, TaskAction};
use crate::queue::store::TaskFilter;
use crate::task::limits::SMALL_BODY_BYTES_MAX;
use crate::task::{QueueName, Status, TaskType};

use super::error::{Code, Problem};
use super::extract::{NoQuery, Query, TaskInPath, optional_json_body, reason};
use super::state::Api;
use super::tasks::{PageAsked, act, page, shown};
use super::wire::{Findings, Object, boolean, labels, name, string};
use super::wire_view::{self, TaskView};

/// Dead letters of one queue that died for one reason.
#[derive(Serialize)]
struct DeadCount<'a> {
    queue: &'a str,
    reason: &'static str,
    count: u64,
}

/// `GET /dlq`.
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        dead_letters: Vec<TaskView<'a>>,
        next: Option<String>,
        total: u64,
        counts: Vec<DeadCount<'a>>,
    }
    let known = ["queue", "task_type", "reason", "label.", "limit", "cursor"];
    let mut asked = PageAsked::read(Query::read(request.uri().query(), &known))?;
    asked.filter.status = Some(Status::Dead);
    let queues = api.queues().queues().await?;
    let page = page(&api, asked).await?;
    let now = api.clock().now().wall;
    let dead_letters = page.rows.iter().map(|row| wire_view::task(row, None, now)).collect();
    let counts: Vec<DeadCount<'_>> = queues.iter().flat_map(counts_of).collect();
    let total = counts.iter().map(|count| count.count).sum();
    Ok(Json(Body { dead_letters, next: page.next, total, counts }).into_response())
}

fn counts_of(queue: &QueueView) -> impl Iterator<Item = DeadCount<'_>> {
    let given = queue.dead.iter().filter(|(_, count)| *count > 0);
    given.map(|(reason, count)| DeadCount { queue: queue.name.as_str(), reason: reason.as_str(), count: *count })
}

/// `GET /dlq/{id}`.
pub(super) async fn show(
    State(api): State<Api>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    let record = api.queues().get(task).await?.ok_or_else(Problem::no_task)?;
    if record.row.header.status == Status::Dead {
        return Ok(shown(&api, &record));
    }
    let status = record.row.status_at(api.clock().now().wall);
    Err(Problem::new(Code::NotFound, format!("the task is {}, not a dead letter", status.as_str())))
}

/// `POST /dlq/{id}/redrive`.
pub(super) async fn redrive(
    State(api): State<Api>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    act(&api, TaskAction::Redrive, task).await
}

/// `DELETE /dlq/{id}`.
pub(super) async fn purge(
    State(api): State<Api>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    api.queues().act(TaskAction::Purge, task).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /dlq/redrive`.
pub(super) async fn redrive_all(State(api): State<Api>, _: NoQuery, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body {
        matched: u64,
        redriven: u64,
        dry_run: bool,
    }
    let asked = bulk(&api, request).await?;
    let report = api.queues().bulk(BulkAction::Redrive, asked.filter, asked.dry_run).await?;
    Ok(Json(Body { matched: report.matched, redriven: report.done, dry_run: asked.dry_run }).into_response())
}

/// `POST /dlq/purge`.
pub(super) async fn purge_all(State(api): State<Api>, _: NoQuery, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body {
        matched: u64,
        purged: u64,
        dry_run: bool,
    }
    let asked = bulk(&api, request).await?;
    let report = api.queues().bulk(BulkAction::Purge, asked.filter, asked.dry_run).await?;
    Ok(Json(Body { matched: report.matched, purged: report.done, dry_run: asked.dry_run }).into_response())
}

/// What a bulk call asks for.
#[derive(Debug)]
struct Bulk {
    filter: TaskFilter,
    dry_run: bool,
}

async fn bulk(api: &Api, request: Request) -> Result<Bulk, Problem> {
    let (parts, body) = request.into_parts();
    let raw = optional_json_body(api, &parts.headers, body, SMALL_BODY_BYTES_MAX).await?;
    read_bulk(raw.text()?)
}

/// Reads a filter. One that names nothing means all dead letters, and has to say so: `"all": true`.
fn read_bulk(text: &str) -> Result<Bulk, Problem> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    let known = ["queue", "task_type", "reason", "labels", "dry_run", "all"];
    let Some(object) = Object::read(text, "", &known, &mut findings) else {
        return findings.or_problem_as(Code::InvalidFilter, None);
    };
    let filter = TaskFilter {
        queue: object.get("queue", &mut findings, name(QueueName::parse)),
        status: Some(Status::Dead),
        task_type: object.get("task_type", &mut findings, name(TaskType::parse)),
        labels: labels(&object, &mut findings),
        dead_reason: object.get("reason", &mut findings, |text| reason(&string(text)?)),
    };
    let dry_run = object.get("dry_run", &mut findings, boolean).unwrap_or(false);
    let all = object.get("all", &mut findings, boolean).unwrap_or(false);
    let names_nothing = filter == TaskFilter { status: filter.status, ..TaskFilter::default() };
    let means_nothing = ["queue", "task_type", "reason", "labels"].iter().all(|field| object.given(field).is_none());
    if (means_nothing || names_nothing) && !all {
        findings.invalid("/all", "a filter that names nothing means all dead letters: say `\"all\": true`");
    } else if !names_nothing && all {
        findings.invalid("/all", "a filter and `\"all\": true` exclude each other");
    }
    findings.or_problem_as(Code::InvalidFilter, Some(Bulk { filter, dry_run }))
}
