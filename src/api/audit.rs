//! Administrative acts and their lines in the audit log: one layer for all of them. Which operations are such acts follows
//! from the router's table ([`audited`]); what a handler knows about its act it tells by way of [`Telling`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::logging::audit::{Act, Outcome, Who};
use crate::security::api_key::is_id;
use crate::task::CredentialName;

use super::access::Caller;
use super::error::{Code, Problem};
use super::extract::Prefixed;
use super::layers::{RequestId, panic_text};
use super::router::{Audited, audited};
use super::state::{Api, NotAdmitted};

/// What a handler has to say about the act it does. A handler of anything else may say it too: nobody listens then.
#[derive(Debug, Clone, Default)]
pub(super) struct Telling(Arc<Mutex<Told>>);

#[derive(Debug, Clone, Default)]
struct Told {
    object: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
    in_steps: bool,
}

impl Telling {
    /// To what it is done; else it is what the path names.
    pub(super) fn object(&self, object: String) {
        self.with(|told| told.object = Some(object));
    }

    /// How that was. Never a secret.
    pub(super) fn before(&self, before: Value) {
        self.with(|told| told.before = Some(before));
    }

    /// How it is now, or before it is done, what is asked for. Never a secret.
    pub(super) fn after(&self, after: Value) {
        self.with(|told| told.after = Some(after));
    }

    /// From here on part of it may be done, whatever comes of the whole.
    pub(super) fn goes_in_steps(&self) {
        self.with(|told| told.in_steps = true);
    }

    fn with(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn told(&self) -> Told {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Telling {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// What is known of an act before it is done.
struct Asked {
    who: Who,
    from: Option<SocketAddr>,
    operation: String,
    object: String,
    request_id: Option<Arc<str>>,
}

impl Asked {
    fn of(api: &Api, caller: &Caller, request: &Request, route: &str) -> Self {
        let keys = &api.wiring().keys;
        let name = if *keys.admin().id == *caller.id {
            Some("admin.key".to_owned())
        } else {
            keys.record(&caller.id).map(|record| record.name.as_str().to_owned())
        };
        Self {
            who: Who::Key { id: Arc::clone(&caller.id), name },
            from: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer),
            operation: format!("{} {route}", request.method()),
            object: named(route, &Prefixed::split(request.uri().path()).path),
            request_id: request.extensions().get::<RequestId>().map(|RequestId(id)| Arc::clone(id)),
        }
    }

    fn answered(self, response: &Response, told: Told) -> Act {
        let code = response.extensions().get::<Problem>().map_or("none", |problem| problem.code().as_str());
        let status = response.status();
        let is_refusal = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
        let outcome = match () {
            () if status.is_success() => Outcome::Done,
            () if is_refusal && !told.in_steps => Outcome::Refused(code),
            () => Outcome::Unknown(code),
        };
        Act {
            who: self.who,
            from: self.from,
            operation: Cow::Owned(self.operation),
            object: Some(told.object.unwrap_or(self.object)),
            before: told.before,
            after: told.after,
            outcome,
            request_id: self.request_id,
        }
    }
}

/// The path up to the last part of it that names something: `/queues/mail` of `/queues/mail/pause`. What stands in the
/// place of a key's id may be the whole key, which somebody pasted there.
fn named(route: &str, path: &str) -> String {
    if let Some(id) = path.strip_prefix("/keys/")
        && !is_id(id)
    {
        return "/keys/…".to_owned();
    }
    // Whatever is no name may be a secret that somebody has pasted there.
    if let Some(name) = path.strip_prefix("/credentials/")
        && CredentialName::parse(name).is_err()
    {
        return "/credentials/…".to_owned();
    }
    let parts: Vec<_> = route.split('/').collect();
    let count = parts.iter().rposition(|part| part.starts_with('{')).map_or(parts.len(), |at| at + 1);
    path.split('/').take(count).collect::<Vec<_>>().join("/")
}

impl From<NotAdmitted> for Problem {
    fn from(error: NotAdmitted) -> Self {
        match error {
            NotAdmitted::Busy => {
                Self::new(Code::Busy, "nothing was done: too many administrative acts are under way, try again soon")
            }
            NotAdmitted::Unwritable(cause) => {
                let detail = "nothing was done, because it could not be written down: see the server's log";
                Self::new(Code::AuditUnavailable, detail).because(cause)
            }
        }
    }
}

/// Writes down administrative acts: each one before its answer leaves, and none is done while that is not possible. An
/// act goes on to its end, and to its line, when the caller has gone.
pub(super) async fn audit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| Prefixed::split(path.as_str()).path);
    let (Some(caller), Some(route)) = (request.extensions().get::<Caller>(), route) else {
        return next.run(request).await;
    };
    let Some(kind) = audited(request.method(), &route) else { return next.run(request).await };
    let asked = Asked::of(&api, caller, &request, &route);
    let trail = Arc::clone(&api.wiring().audit);
    if kind == Audited::WhenForbidden {
        let response = next.run(request).await;
        if response.status() == StatusCode::FORBIDDEN {
            trail.record(asked.answered(&response, Told::default())).await;
        }
        return response;
    }
    let admitted = match trail.admit().await {
        Ok(admitted) => admitted,
        Err(refusal) => return Problem::from(refusal).into_response(),
    };
    let telling = Telling::default();
    request.extensions_mut().insert(telling.clone());
    let (answer, answered) = oneshot::channel();
    let writing = Arc::clone(&trail);
    trail.see_through(Box::pin(async move {
        let done = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = done.unwrap_or_else(|panic| Problem::internal(panic_text(&*panic)).into_response());
        writing.record(asked.answered(&response, telling.told())).await;
        drop(admitted);
        if answer.send(response).is_err() {
            tracing::debug!("whoever asked for an administrative act has gone; it is done and written down");
        }
    }));
    answered.await.unwrap_or_else(|_cut| Problem::internal("an administrative act was cut off").into_response())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_object_is_what_the_path_names() {
        for (route, path, object) in [
            ("/queues/{queue}/pause", "/queues/mail/pause", "/queues/mail"),
            ("/dlq/{id}", "/dlq/order:7", "/dlq/order:7"),
            ("/dlq/purge", "/dlq/purge", "/dlq/purge"),
            ("/keys", "/keys", "/keys"),
            ("/keys/{id}", "/keys/7fK2pQx0", "/keys/7fK2pQx0"),
            ("/keys/{id}", "/keys/so_7fK2pQx0_secret", "/keys/…"),
            ("/keys/{id}", "/keys/%73o_7fK2pQx0_secret", "/keys/…"),
            ("/credentials/{name}", "/credentials/billing", "/credentials/billing"),
            ("/credentials/{name}", "/credentials/a%20secret", "/credentials/…"),
        ] {
            assert_eq!(named(route, path), object);
        }
    }
}
