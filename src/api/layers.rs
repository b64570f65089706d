//! What surrounds every handler: a request id, the key, an answer even after a panic, one access event.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::task::limits::REQUEST_ID_LEN_MAX;

use super::error::{Code, Problem};
use super::extract::{Prefixed, one_header};
use super::router::is_public;
use super::state::{Access, Api, Caller};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer: gives the request its id, turns a panic and every [`Problem`] into an answer, tells of it.
pub(super) async fn answer(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = api.clock().now().mono;
    let request_id = request_id(&api, request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = outcome.unwrap_or_else(|panic| Problem::internal(panic_text(&*panic)).into_response());
    let problem = response.extensions_mut().remove::<Problem>();
    let caller = response.extensions_mut().remove::<Caller>();
    if let Some(problem) = problem.as_ref().filter(|_| method != Method::HEAD) {
        let body = problem.render(&request_id);
        // What was there was empty, and said so.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    (api.wiring().on_access)(&Access {
        request_id,
        method,
        route,
        status: response.status(),
        code: problem.as_ref().map(|problem| problem.code().as_str()),
        cause: problem.as_ref().and_then(Problem::cause).map(str::to_owned),
        caller,
        took: api.clock().now().mono.saturating_sub(started),
    });
    response
}

/// Lets through who holds a key. A few paths need none ([`is_public`]); whether any other path exists is not told to
/// strangers.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if is_public(&Prefixed::split(request.uri().path()).path) {
        return next.run(request).await;
    }
    let presented = bearer(request.headers());
    let Some(caller) = presented.and_then(|key| (api.wiring().authenticate)(key)) else {
        return Problem::unauthenticated(request.headers().contains_key(header::AUTHORIZATION)).into_response();
    };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = one_header(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller's own id where it is short and plain, else a new one.
fn request_id(api: &Api, headers: &HeaderMap) -> Arc<str> {
    let plain = |id: &&str| {
        (1..=REQUEST_ID_LEN_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/+=@-".contains(&b))
    };
    one_header(headers, &REQUEST_ID).filter(plain).map_or_else(|| api.request_id(), Arc::from)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", text.as_deref().unwrap_or("without a message"))
}

/// The answer at a path that does not exist.
pub(super) async fn no_such_route() -> Problem {
    Problem::new(Code::NoSuchRoute, "see docs/api.md for what there is")
}

/// The answer to a method that a path does not have; the router adds `Allow`. `OPTIONS` asks for just that.
pub(super) async fn no_such_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return axum::http::StatusCode::NO_CONTENT.into_response();
    }
    let shown: String = method.as_str().chars().take(20).collect();
    Problem::new(Code::MethodNotAllowed, format!("{shown} is not among the methods in the Allow header"))
        .into_response()
}
