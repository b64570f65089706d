//! `/queues`: how they stand, pause, resume. Their definitions are configuration.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::queue::command::QueueView;

use super::error::Problem;
use super::extract::{NoQuery, QueueInPath};
use super::state::Api;
use super::wire_view::{self, QueueShown};

/// `GET /queues`.
pub(super) async fn list(State(api): State<Api>, _: NoQuery) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        queues: Vec<QueueShown<'a>>,
    }
    let views = api.queues().queues().await?;
    Ok(Json(Body { queues: views.iter().map(wire_view::queue).collect() }).into_response())
}

/// `GET /queues/{queue}`.
pub(super) async fn show(
    State(api): State<Api>,
    QueueInPath(queue): QueueInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    shown(api.queues().queue(queue).await?)
}

/// `POST /queues/{queue}/pause`: starts no more attempts, across restarts, until resumed.
pub(super) async fn pause(
    State(api): State<Api>,
    QueueInPath(queue): QueueInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    shown(api.queues().pause(queue, true).await?)
}

/// `POST /queues/{queue}/resume`.
pub(super) async fn resume(
    State(api): State<Api>,
    QueueInPath(queue): QueueInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    shown(api.queues().pause(queue, false).await?)
}

fn shown(view: Option<QueueView>) -> Result<Response, Problem> {
    Ok(Json(wire_view::queue(&view.ok_or_else(Problem::no_queue)?)).into_response())
}
