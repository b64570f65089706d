//! The URL space on one screen.

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::security::scope::Scope;

use super::openapi::openapi;
use super::state::Api;
use super::{audit, batch, credentials, dlq, docs, keys, layers, ops, queues, tasks, well_known};

/// The paths that need no key (also under `/v1`).
const PUBLIC: [&str; 6] =
    ["/healthz", "/readyz", "/openapi.json", "/docs", "/.well-known/openid-configuration", "/.well-known/jwks.json"];

/// Whether a path (without `/v1`) needs no key. The files of the page `/docs` are part of it.
pub(super) fn is_public(path: &str) -> bool {
    PUBLIC.contains(&path) || docs::PARTS.iter().any(|(part, _)| *part == path)
}

/// The scope that each operation needs. What is not listed here cannot be called; `HEAD` is `GET`.
///
/// Scopes of queues are needed of the queue that is asked about: handlers see to that (`access`).
const NEEDS: [(Method, &str, Scope); 25] = [
    (Method::POST, "/tasks", Scope::Enqueue),
    (Method::GET, "/tasks", Scope::Read),
    (Method::POST, "/tasks/batch", Scope::Enqueue),
    (Method::GET, "/tasks/{id}", Scope::Read),
    (Method::DELETE, "/tasks/{id}", Scope::Manage),
    (Method::POST, "/tasks/{id}/run", Scope::Manage),
    (Method::GET, "/queues", Scope::Read),
    (Method::GET, "/queues/{queue}", Scope::Read),
    (Method::POST, "/queues/{queue}/pause", Scope::Manage),
    (Method::POST, "/queues/{queue}/resume", Scope::Manage),
    (Method::GET, "/dlq", Scope::Read),
    (Method::POST, "/dlq/redrive", Scope::Redrive),
    (Method::POST, "/dlq/purge", Scope::Redrive),
    (Method::GET, "/dlq/{id}", Scope::Read),
    (Method::DELETE, "/dlq/{id}", Scope::Redrive),
    (Method::POST, "/dlq/{id}/redrive", Scope::Redrive),
    (Method::GET, "/metrics", Scope::Metrics),
    (Method::GET, "/keys", Scope::Admin),
    (Method::POST, "/keys", Scope::Admin),
    (Method::GET, "/keys/{id}", Scope::Admin),
    (Method::DELETE, "/keys/{id}", Scope::Admin),
    (Method::GET, "/credentials", Scope::Admin),
    (Method::GET, "/credentials/{name}", Scope::Admin),
    (Method::PUT, "/credentials/{name}", Scope::Admin),
    (Method::DELETE, "/credentials/{name}", Scope::Admin),
];

/// The scope that an operation needs; the route is without `/v1`.
pub(super) fn needs(method: &Method, route: &str) -> Option<Scope> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    NEEDS.iter().find(|(known, path, _)| known == method && *path == route).map(|(_, _, scope)| *scope)
}

/// Operations with an administrative scope that are about one task of many: what became of it is in its own history.
const OF_TASKS: [(Method, &str); 2] = [(Method::DELETE, "/tasks/{id}"), (Method::POST, "/tasks/{id}/run")];

/// When an operation is written to the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audited {
    /// Whatever comes of it.
    Always,
    /// When the caller may not do it.
    WhenForbidden,
}

/// Whether an operation is an administrative act. It follows from the scope that it needs, so that no operation can be
/// added to [`NEEDS`] and forgotten here; the route is without `/v1`.
pub(super) fn audited(method: &Method, route: &str) -> Option<Audited> {
    let scope = needs(method, route)?;
    if !matches!(scope, Scope::Manage | Scope::Redrive | Scope::Admin) {
        return None;
    }
    let is_of_a_task = OF_TASKS.iter().any(|(known, path)| known == method && *path == route);
    let only_looks = matches!(*method, Method::GET | Method::HEAD);
    Some(if is_of_a_task || only_looks { Audited::WhenForbidden } else { Audited::Always })
}

/// The methods of a route, as `Allow` names them.
pub(super) fn methods(route: &str) -> String {
    let of_route = NEEDS.iter().filter(|(_, path, _)| *path == route);
    let methods = of_route.map(|(method, _, _)| if method == Method::GET { "GET,HEAD" } else { method.as_str() });
    methods.collect::<Vec<_>>().join(",")
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
        .route("/keys", post(keys::create).get(keys::list))
        .route("/keys/{id}", get(keys::show).delete(keys::revoke))
        .route("/credentials", get(credentials::list))
        .route("/credentials/{name}", get(credentials::show).put(credentials::put).delete(credentials::remove))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs::page))
        .route("/.well-known/openid-configuration", get(well_known::configuration))
        .route("/.well-known/jwks.json", get(well_known::keys))
        .merge(docs::parts())
        .method_not_allowed_fallback(layers::no_such_method);
    Router::new()
        .merge(space.clone())
        .nest("/v1", space)
        .fallback(layers::no_such_route)
        .layer(from_fn(layers::authorize))
        .layer(from_fn_with_state(api.clone(), audit::audit))
        .layer(from_fn_with_state(api.clone(), layers::authenticate))
        .layer(from_fn_with_state(api.clone(), layers::answer))
        .with_state(api)
}
