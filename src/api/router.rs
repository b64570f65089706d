//! The URL space on one screen.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::openapi::openapi;
use super::state::Api;
use super::{batch, dlq, docs, layers, ops, queues, tasks};

/// The paths that need no key (also under `/v1`).
const PUBLIC: [&str; 4] = ["/healthz", "/readyz", "/openapi.json", "/docs"];

/// Whether a path (without `/v1`) needs no key. The files of the page `/docs` are part of it.
pub(super) fn is_public(path: &str) -> bool {
    PUBLIC.contains(&path) || docs::PARTS.iter().any(|(part, _)| *part == path)
}

/// `/metrics` alone, and without a key: for a listener of its own, which configuration keeps on loopback.
pub fn metrics_only(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(ops::metrics))
        .method_not_allowed_fallback(layers::no_such_method)
        .fallback(layers::no_such_route)
        .layer(from_fn_with_state(api.clone(), layers::answer))
        .with_state(api)
}

/// All of the API, without sockets and TLS.
pub fn router(api: Api) -> Router {
    let space = Router::new()
        .route("/tasks", post(tasks::create).get(tasks::list))
        .route("/tasks/batch", post(batch::create))
        .route("/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/tasks/{id}/run", post(tasks::run))
        .route("/queues", get(queues::list))
        .route("/queues/{queue}", get(queues::show))
        .route("/queues/{queue}/pause", post(queues::pause))
        .route("/queues/{queue}/resume", post(queues::resume))
        .route("/dlq", get(dlq::list))
        .route("/dlq/redrive", post(dlq::redrive_all))
        .route("/dlq/purge", post(dlq::purge_all))
        .route("/dlq/{id}", get(dlq::show).delete(dlq::purge))
        .route("/dlq/{id}/redrive", post(dlq::redrive))
        .route("/metrics", get(ops::metrics))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs::page))
        .merge(docs::parts())
        .method_not_allowed_fallback(layers::no_such_method);
    Router::new()
        .merge(space.clone())
        .nest("/v1", space)
        .fallback(layers::no_such_route)
        .layer(from_fn_with_state(api.clone(), layers::authenticate))
        .layer(from_fn_with_state(api.clone(), layers::answer))
        .with_state(api)
}
