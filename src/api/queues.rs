//! `/queues`: how they stand, pause, resume. Their definitions are configuration.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::queue::command::QueueView;
use crate::security::scope::Scope;
use crate::task::QueueName;

use super::access::Caller;
use super::audit::Telling;
use super::error::Problem;
use super::extract::{NoQuery, QueueInPath};
use super::openapi::parameters;
use super::state::Api;
use super::wire_view::{self, QueueShown};

/// Every queue that the caller may see.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueList)]
pub(super) struct Listed<'a> {
    queues: Vec<QueueShown<'a>>,
}

/// `GET /queues`.
#[utoipa::path(
    get, path = "/queues", operation_id = "list_queues", tag = "queues",
    summary = "List queues", description = "How each stands, and its limits as in force.",
    responses((status = 200, description = "Every queue that the caller may see.", body = Listed)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let mut views = api.queues().queues().await?;
    views.retain(|view| caller.sees(&view.name));
    Ok(Json(Listed { queues: views.iter().map(wire_view::queue).collect() }).into_response())
}

/// `GET /queues/{queue}`.
#[utoipa::path(
    get, path = "/queues/{queue}", operation_id = "get_queue", tag = "queues",
    summary = "Look at a queue", description = "How it stands, and its limits as in force.",
    params(parameters::QueueInPath),
    responses((status = 200, description = "The queue.", body = QueueShown)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    QueueInPath(queue): QueueInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.permit(Scope::Read, &queue, Problem::no_queue)?;
    shown(api.queues().queue(queue).await?)
}

/// `POST /queues/{queue}/pause`: starts no more attempts, across restarts, until resumed.
#[utoipa::path(
    post, path = "/queues/{queue}/pause", operation_id = "pause_queue", tag = "queues",
    summary = "Pause a queue",
    description = "It accepts tasks and starts none; what runs, runs on. The pause survives restarts.",
    params(parameters::QueueInPath),
    responses((status = 200, description = "The queue, paused.", body = QueueShown)),
)]
pub(super) async fn pause(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    QueueInPath(queue): QueueInPath,
    telling: Telling,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.permit(Scope::Manage, &queue, Problem::no_queue)?;
    set_paused(&api, queue, true, &telling).await
}

/// `POST /queues/{queue}/resume`.
#[utoipa::path(
    post, path = "/queues/{queue}/resume", operation_id = "resume_queue", tag = "queues",
    summary = "Resume a queue", description = "It starts attempts again.",
    params(parameters::QueueInPath),
    responses((status = 200, description = "The queue, not paused.", body = QueueShown)),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    QueueInPath(queue): QueueInPath,
    telling: Telling,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.permit(Scope::Manage, &queue, Problem::no_queue)?;
    set_paused(&api, queue, false, &telling).await
}

async fn set_paused(api: &Api, queue: QueueName, paused: bool, telling: &Telling) -> Result<Response, Problem> {
    let before = api.queues().queue(queue.clone()).await?.ok_or_else(Problem::no_queue)?;
    telling.before(json!({"paused": before.paused}));
    let after = api.queues().pause(queue, paused).await?;
    telling.after(json!({"paused": after.as_ref().map(|view| view.paused)}));
    shown(after)
}

fn shown(view: Option<QueueView>) -> Result<Response, Problem> {
    Ok(Json(wire_view::queue(&view.ok_or_else(Problem::no_queue)?)).into_response())
}
