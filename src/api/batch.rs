//! `POST /tasks/batch`: many tasks, all or none, in one commit.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use crate::queue::command::{Accept, Accepted, PublicId};
use crate::task::limits::BATCH_BYTES_MAX;

use super::error::Problem;
use super::extract::{NoQuery, Prefixed, idempotency_key, json_body};
use super::state::{Api, Caller};
use super::tasks::{REPLAYED, idempotency, rules};
use super::wire_task::batch;

#[derive(Serialize)]
struct Body {
    task_ids: Vec<String>,
}

impl Body {
    fn of(ids: &[PublicId]) -> Json<Self> {
        Json(Self { task_ids: ids.iter().map(PublicId::to_string).collect() })
    }
}

/// `POST /tasks/batch`.
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    at: Prefixed,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?.map(str::to_owned);
    let raw = json_body(&api, &parts.headers, body, BATCH_BYTES_MAX).await?;
    let (checker, now) = (api.clone(), api.clock().now().wall);
    // Reading 32 MiB takes long enough to hold up other requests of this thread. The body goes along, and with it its
    // share of the budget, until the specs (which hold copies) are there.
    let read = tokio::task::spawn_blocking(move || {
        let specs = batch(raw.text()?, &rules(&checker, now, key.is_some()))?;
        Ok(Accept { specs, idempotency: idempotency(&caller, &at, key.as_deref(), &raw.bytes) })
    });
    let accept: Result<Accept, Problem> =
        read.await.map_err(|panic| Problem::internal(format!("reading a batch failed: {panic}")))?;
    let accepted = api.queues().accept(accept?).await;
    match accepted.map_err(|error| Problem::accept(error, true))? {
        Accepted::New { ids, .. } => Ok((StatusCode::CREATED, Body::of(&ids)).into_response()),
        Accepted::Existing { ids } => Ok((StatusCode::OK, [REPLAYED], Body::of(&ids)).into_response()),
        Accepted::Repeat { range, .. } => {
            let ids = api.queues().public_ids(range).await?;
            Ok((StatusCode::OK, [REPLAYED], Body::of(&ids)).into_response())
        }
    }
}
