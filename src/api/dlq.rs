//! `/dlq`: the dead letters, each with its whole history; put back or delete one, or all that match.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::queue::command::{BulkAction, BulkReport, QueueView, TaskAction};
use crate::queue::store::TaskFilter;
use crate::security::scope::Scope;
use crate::task::limits::SMALL_BODY_BYTES_MAX;
use crate::task::{QueueName, Status, TaskType};

use super::access::Caller;
use super::audit::Telling;
use super::error::{Code, Problem};
use super::extract::{NoQuery, Query, TaskInPath, optional_json_body, reason};
use super::openapi::{bodies, parameters, words};
use super::state::Api;
use super::tasks::{PageAsked, acted, now_seen, page, shown};
use super::wire::{Findings, Object, boolean, labels, name, string};
use super::wire_view::{self, TaskView};

/// Dead letters of one queue that died for one reason.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterCount)]
struct DeadCount<'a> {
    #[schema(value_type = words::QueueName)]
    queue: &'a str,
    #[schema(value_type = words::DeadLetterReason)]
    reason: &'static str,
    count: u64,
}

/// The parameters of a list; `label.` stands for all labels.
pub(super) const LIST_PARAMETERS: [&str; 6] = ["queue", "task_type", "reason", "label.", "limit", "cursor"];

/// A page of dead letters, as an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterPage)]
pub(super) struct Listed<'a> {
    /// Newest first by acceptance, without their attempts.
    dead_letters: Vec<TaskView<'a>>,
    /// The `cursor` of the page after; `null` when there is none.
    #[schema(required)]
    next: Option<String>,
    /// Of all dead letters that the caller may see, whatever the filter.
    total: u64,
    /// Of all dead letters that the caller may see, whatever the filter.
    counts: Vec<DeadCount<'a>>,
}

/// `GET /dlq`.
#[utoipa::path(
    get, path = "/dlq", operation_id = "list_dead_letters", tag = "dead letters",
    summary = "List dead letters", description = "Newest first by acceptance.",
    params(parameters::DeadLetterFilter),
    responses((status = 200, description = "A page. It may be short, or empty, while `next` is not null.", body = Listed)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let mut asked = PageAsked::read(Query::read(request.uri().query(), &LIST_PARAMETERS))?;
    asked.filter.status = Some(Status::Dead);
    caller.narrow(Scope::Read, &mut asked.filter);
    let mut queues = api.queues().queues().await?;
    queues.retain(|queue| caller.sees(&queue.name));
    let page = page(&api, asked).await?;
    let now = api.clock().now().wall;
    let dead_letters = page.rows.iter().map(|row| wire_view::task(row, None, caller.sight(&row.queue), now)).collect();
    let counts: Vec<DeadCount<'_>> = queues.iter().flat_map(counts_of).collect();
    let total = counts.iter().map(|count| count.count).sum();
    Ok(Json(Listed { dead_letters, next: page.next, total, counts }).into_response())
}

fn counts_of(queue: &QueueView) -> impl Iterator<Item = DeadCount<'_>> {
    let given = queue.dead.iter().filter(|(_, count)| *count > 0);
    given.map(|(reason, count)| DeadCount { queue: queue.name.as_str(), reason: reason.as_str(), count: *count })
}

/// `GET /dlq/{id}`.
#[utoipa::path(
    get, path = "/dlq/{id}", operation_id = "get_dead_letter", tag = "dead letters",
    summary = "Look at a dead letter", description = "With its attempts. 404 if the task is no dead letter.",
    params(parameters::TaskInPath),
    responses((status = 200, description = "The task.", body = TaskView)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    let record = api.queues().get(task).await?.ok_or_else(Problem::no_task)?;
    caller.permit(Scope::Read, &record.row.queue, Problem::no_task)?;
    if record.row.header.status == Status::Dead {
        return Ok(shown(&api, &caller, &record));
    }
    let status = record.row.status_at(api.clock().now().wall);
    Err(Problem::new(Code::NotFound, format!("the task is {}, not a dead letter", status.as_str())))
}

/// `POST /dlq/{id}/redrive`.
#[utoipa::path(
    post, path = "/dlq/{id}/redrive", operation_id = "redrive_dead_letter", tag = "dead letters",
    summary = "Put back a dead letter",
    description = "It keeps its id and history; `series` grows by one, its attempts start anew.",
    params(parameters::TaskInPath),
    responses((status = 200, description = "The task, put back.", body = TaskView)),
)]
pub(super) async fn redrive(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    telling: Telling,
    _: NoQuery,
) -> Result<Response, Problem> {
    let row = acted(&api, &caller, (Scope::Redrive, TaskAction::Redrive), task).await?;
    let (queue, header) = (row.queue.as_str(), &row.header);
    telling.before(json!({"queue": queue, "status": Status::Dead.as_str()}));
    telling.after(json!({"queue": queue, "status": header.status.as_str(), "series": header.series}));
    Ok(now_seen(&api, &caller, &row).await)
}

/// `DELETE /dlq/{id}`.
#[utoipa::path(
    delete, path = "/dlq/{id}", operation_id = "purge_dead_letter", tag = "dead letters",
    summary = "Delete a dead letter", description = "For good.",
    params(parameters::TaskInPath),
    responses((status = 204, description = "It is deleted.")),
)]
pub(super) async fn purge(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    TaskInPath(task): TaskInPath,
    telling: Telling,
    _: NoQuery,
) -> Result<Response, Problem> {
    let row = acted(&api, &caller, (Scope::Redrive, TaskAction::Purge), task).await?;
    telling.before(json!({"queue": row.queue.as_str(), "status": Status::Dead.as_str()}));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a bulk redrive did.
#[derive(Serialize, ToSchema)]
pub(super) struct RedriveReport {
    /// Dead letters that the filter names.
    matched: u64,
    /// Dead letters that were put back; 0 in a dry run.
    redriven: u64,
    dry_run: bool,
}

/// What a bulk purge did.
#[derive(Serialize, ToSchema)]
pub(super) struct PurgeReport {
    /// Dead letters that the filter names.
    matched: u64,
    /// Dead letters that were deleted; 0 in a dry run.
    purged: u64,
    dry_run: bool,
}

/// `POST /dlq/redrive`.
#[utoipa::path(
    post, path = "/dlq/redrive", operation_id = "redrive_dead_letters", tag = "dead letters",
    summary = "Put back all dead letters that match",
    description = "Done in steps: if the call breaks off, what was done stays done; repeat it.",
    request_body = bodies::DeadLetterFilter,
    responses((status = 200, description = "What was done.", body = RedriveReport)),
)]
pub(super) async fn redrive_all(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    telling: Telling,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let asked = bulk(&api, &caller, request).await?;
    let report = done(&api, BulkAction::Redrive, &asked, &telling).await?;
    Ok(Json(RedriveReport { matched: report.matched, redriven: report.done, dry_run: asked.dry_run }).into_response())
}

/// `POST /dlq/purge`.
#[utoipa::path(
    post, path = "/dlq/purge", operation_id = "purge_dead_letters", tag = "dead letters",
    summary = "Delete all dead letters that match",
    description = "For good. Done in steps: if the call breaks off, what was done stays done; repeat it.",
    request_body = bodies::DeadLetterFilter,
    responses((status = 200, description = "What was done.", body = PurgeReport)),
)]
pub(super) async fn purge_all(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    telling: Telling,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let asked = bulk(&api, &caller, request).await?;
    let report = done(&api, BulkAction::Purge, &asked, &telling).await?;
    Ok(Json(PurgeReport { matched: report.matched, purged: report.done, dry_run: asked.dry_run }).into_response())
}

/// What a bulk call asks for.
#[derive(Debug)]
pub(super) struct Bulk {
    filter: TaskFilter,
    dry_run: bool,
}

/// Reads what is asked for, of the queues that the caller may redrive.
async fn bulk(api: &Api, caller: &Caller, request: Request) -> Result<Bulk, Problem> {
    let (parts, body) = request.into_parts();
    let raw = optional_json_body(api, &parts.headers, body, SMALL_BODY_BYTES_MAX).await?;
    let mut asked = read_bulk(raw.text()?)?;
    caller.narrow(Scope::Redrive, &mut asked.filter);
    Ok(asked)
}

/// Does it, and tells the audit log: before, what is asked for, since it is done in steps; then how many it were.
async fn done(api: &Api, action: BulkAction, asked: &Bulk, telling: &Telling) -> Result<BulkReport, Problem> {
    let mut told = asked.told();
    telling.after(Value::Object(told.clone()));
    if !asked.dry_run {
        telling.goes_in_steps();
    }
    let report = api.queues().bulk(action, asked.filter.clone(), asked.dry_run).await?;
    told.insert("matched".to_owned(), json!(report.matched));
    told.insert("done".to_owned(), json!(report.done));
    telling.after(Value::Object(told));
    Ok(report)
}

impl Bulk {
    /// What it names, as it was asked for.
    fn told(&self) -> Map<String, Value> {
        let TaskFilter { queue, task_type, dead_reason, labels, .. } = &self.filter;
        let labels: Map<_, _> = labels.iter().map(|(name, value)| (name.as_str().to_owned(), json!(value))).collect();
        let fields = [
            ("queue", queue.as_ref().map(|queue| json!(queue.as_str()))),
            ("task_type", task_type.as_ref().map(|task_type| json!(task_type.as_str()))),
            ("reason", dead_reason.map(|reason| json!(reason.as_str()))),
            ("labels", (!labels.is_empty()).then_some(Value::Object(labels))),
            ("dry_run", Some(json!(self.dry_run))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// The fields of a filter.
pub(super) const FILTER_FIELDS: [&str; 6] = ["queue", "task_type", "reason", "labels", "dry_run", "all"];

/// Reads a filter. One that names nothing means all dead letters, and has to say so: `"all": true`.
pub(super) fn read_bulk(text: &str) -> Result<Bulk, Problem> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    let Some(object) = Object::read(text, "", &FILTER_FIELDS, &mut findings) else {
        return findings.or_problem_as(Code::InvalidFilter, None);
    };
    let filter = TaskFilter {
        queue: object.get("queue", &mut findings, name(QueueName::parse)),
        status: Some(Status::Dead),
        at: None,
        task_type: object.get("task_type", &mut findings, name(TaskType::parse)),
        labels: labels(&object, &mut findings),
        dead_reason: object.get("reason", &mut findings, |text| reason(&string(text)?)),
        visible: None,
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
