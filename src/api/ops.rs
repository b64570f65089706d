//! For those who run the server: metrics, alive, ready.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::{Code, Problem};
use super::extract::NoQuery;
use super::state::Api;

/// `GET /metrics`.
pub(super) async fn metrics(State(api): State<Api>, _: NoQuery) -> Response {
    // An engine too busy to be asked leaves the gauges as they were; counters are never late.
    let views = api.queues().queues().await.unwrap_or_default();
    let text = (api.wiring().metrics)(&views, api.clock().now().wall);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// `GET /readyz`: it takes new work.
pub(super) async fn readyz(State(api): State<Api>) -> Result<Response, Problem> {
    if (api.wiring().ready)() {
        Ok(Json(Health { status: "ready" }).into_response())
    } else {
        Err(Problem::new(Code::NotReady, "the server starts or stops"))
    }
}
