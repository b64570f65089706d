//! What surrounds every handler: a request id, who asks and their scope, an answer even after a panic, one access event.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_server::tls::TlsInfo;
use futures_util::FutureExt;

use crate::security::jwt;
use crate::task::limits::REQUEST_ID_LEN_MAX;

use super::access::Caller;
use super::error::{Code, Problem};
use super::extract::{Prefixed, one_header};
use super::router::{is_public, methods, needs};
use super::state::{Access, Api, Authentication};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for the layers within.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// The outermost layer: gives the request its id, turns a panic and every [`Problem`] into an answer, tells of it.
pub(super) async fn answer(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = api.clock().now().mono;
    let request_id = request_id(&api, request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(Arc::clone(&request_id)));
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
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
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

/// Lets through who is known, and says who that is. A few paths need nobody ([`is_public`]); whether any other path exists
/// is not told to strangers.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if is_public(&Prefixed::split(request.uri().path()).path) {
        return next.run(request).await;
    }
    let caller = match caller(&api, &presented(&request)).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

/// Lets through who holds the scope that the operation needs: the innermost layer, so that the audit log is told of whom
/// it refuses.
pub(super) async fn authorize(request: Request, next: Next) -> Response {
    if is_public(&Prefixed::split(request.uri().path()).path) {
        return next.run(request).await;
    }
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Problem::unauthenticated(false).into_response();
    };
    match refusal(caller, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// What a request brings to say who asks.
struct Presented {
    /// What stands in `Authorization`, if there is any. What is no token is a wrong one: it is compared, and counted, like
    /// any other.
    secret: Option<String>,
    /// The connection, if it is over TLS, with the certificate that its client has shown.
    tls: Option<Arc<TlsInfo>>,
    address: IpAddr,
}

fn presented(request: &Request) -> Presented {
    let headers = request.headers();
    let secret = headers.contains_key(header::AUTHORIZATION).then(|| bearer(headers).unwrap_or_default().to_owned());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map_or(IpAddr::from(Ipv6Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
    Presented { secret, tls: request.extensions().get().cloned(), address }
}

/// Who asks. `Authorization` is what counts where there is one. Without any nothing was guessed, so nothing is counted: a
/// bad certificate has ended the handshake.
async fn caller(api: &Api, presented: &Presented) -> Result<Caller, Problem> {
    let Some(secret) = &presented.secret else {
        let chain = presented.tls.as_ref().map(|tls| &tls.peer_certificates).filter(|chain| !chain.is_empty());
        let caller = chain.and_then(|chain| (api.wiring().authenticate_certificate)(chain));
        return caller.ok_or_else(|| Problem::unauthenticated(false));
    };
    let authentication = if jwt::is_shaped(secret) {
        (api.wiring().authenticate_token)(secret.clone(), presented.address).await
    } else {
        (api.wiring().authenticate)(secret, presented.address)
    };
    match authentication {
        Authentication::Granted(caller) => Ok(caller),
        Authentication::Refused => Err(Problem::unauthenticated(true)),
        Authentication::TokenRefused(fault) => Err(Problem::token_refused(fault)),
        Authentication::IssuerUnavailable(again) => Err(Problem::issuer_unavailable(again)),
        Authentication::Limited => Err(Problem::new(
            Code::AuthRateLimited,
            "too many wrong API keys or tokens came from this address: a correct one is accepted all the same",
        )),
    }
}

/// The refusal of a caller that does not hold the scope that the operation needs, not even of some queues. An operation
/// that `router` names no scope for does not exist; where there is no route at all, the router says so.
fn refusal(caller: &Caller, request: &Request) -> Option<Response> {
    let route = request.extensions().get::<MatchedPath>().map(|path| Prefixed::split(path.as_str()).path);
    let route = route.filter(|_| request.method() != Method::OPTIONS)?;
    match needs(request.method(), &route) {
        Some(scope) if caller.scopes.has(scope) => None,
        Some(scope) => Some(Problem::insufficient_scope(scope).into_response()),
        None => {
            let mut refusal = method_not_allowed(request.method()).into_response();
            if let Ok(allow) = HeaderValue::from_str(&methods(&route)) {
                refusal.headers_mut().insert(header::ALLOW, allow);
            }
            Some(refusal)
        }
    }
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

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
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
    method_not_allowed(&method).into_response()
}

fn method_not_allowed(method: &Method) -> Problem {
    let shown: String = method.as_str().chars().take(20).collect();
    Problem::new(Code::MethodNotAllowed, format!("{shown} is not among the methods in the Allow header"))
}
