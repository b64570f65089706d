//! For those who run the server: metrics, alive, ready.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Code, Problem};
use super::extract::NoQuery;
use super::state::Api;

/// What `/metrics` is written in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operations",
    summary = "Metrics", description = "OpenMetrics text, for Prometheus.",
    responses((status = 200, description = "All metrics.", body = String, content_type = OPENMETRICS)),
)]
pub(super) async fn metrics(State(api): State<Api>, _: NoQuery) -> Response {
    // An engine too busy to be asked leaves the gauges as they were; counters are never late.
    let views = api.queues().queues().await.unwrap_or_default();
    let text = (api.wiring().metrics)(&views, api.clock().now().wall);
    ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
}

/// How the server is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`: alive; `ready`: takes new work.
    status: &'static str,
}

/// `GET /healthz`: the process answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_health", tag = "operations", security(),
    summary = "Alive", description = "The process answers. Needs no key.",
    responses((status = 200, description = "Alive.", body = Health)),
)]
pub(super) async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// `GET /readyz`: it takes new work.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness", tag = "operations", security(),
    summary = "Ready", description = "It takes new work. Needs no key.",
    responses((status = 200, description = "Ready.", body = Health)),
)]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Response, Problem> {
    if (api.wiring().ready)() {
        Ok(Json(Health { status: "ready" }).into_response())
    } else {
        Err(Problem::new(Code::NotReady, "the server starts or stops"))
    }
}
