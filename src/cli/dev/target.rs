//! The built-in target: something to call on this machine that succeeds, fails, is slow or is flaky.
//!
//! It keeps nothing: how often a task has been tried is in the request (`Sendoff-Attempt`), so `/flaky` needs no memory
//! of the tasks it has seen.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::task::limits::{ECHO_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// How long `/slow` takes.
const SLOW: Duration = Duration::from_secs(3);
/// How often `/flaky` fails first.
const FLAKY_FAILURES: u32 = 2;
/// Headers whose values are not echoed: an answer's beginning is kept with the task, and credentials are not.
const UNECHOED: [header::HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// What it serves, and in what order it says so.
pub(super) const PATHS: [(&str, &str); 4] =
    [("/ok", "200"), ("/fail", "500, always"), ("/slow", "200 after 3 s"), ("/flaky", "500 twice, then 200")];

/// The routes.
pub(super) fn router(clock: Clock) -> Router {
    Router::new()
        .route("/", any(list))
        .route("/ok", any(ok))
        .route("/fail", any(fail))
        .route("/slow", any(slow))
        .route("/flaky", any(flaky))
        .fallback(nothing)
        // A task's payload, text that was a JSON string included, is never longer as a body.
        .layer(DefaultBodyLimit::max(usize::try_from(PAYLOAD_BYTES_MAX).unwrap_or(usize::MAX)))
        .with_state(clock)
}

/// What came in.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl<S: Send + Sync> axum::extract::FromRequest<S> for Request {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Response> {
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { method, uri, headers, body })
    }
}

impl Request {
    /// An answer that says why, and what it answers.
    fn answer(&self, status: StatusCode, why: &str) -> Response {
        let got = json!({
            "method": self.method.as_str(), "path": self.uri.to_string(), "headers": self.shown_headers(),
            "body": self.shown_body(),
        });
        let text = format!("{:#}\n", json!({"status": status.as_u16(), "why": why, "got": got}));
        (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }

    fn shown_headers(&self) -> Map<String, Value> {
        let shown = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), if UNECHOED.contains(name) { "(not echoed)".into() } else { text.into_owned().into() })
        };
        self.headers.iter().map(shown).collect()
    }

    /// The body as JSON if it is some, else as text; only its beginning when it is long.
    fn shown_body(&self) -> Value {
        if self.body.len() > ECHO_BODY_BYTES_MAX {
            let start = self.body.slice(..ECHO_BODY_BYTES_MAX);
            return format!("{}… ({} bytes in all)", String::from_utf8_lossy(&start), self.body.len()).into();
        }
        let text = || String::from_utf8_lossy(&self.body).into_owned().into();
        serde_json::from_slice(&self.body).unwrap_or_else(|_no_json| text())
    }

    /// Which attempt of a task this is; a request by hand is a first one.
    fn attempt(&self) -> u32 {
        let attempt = self.headers.get("sendoff-attempt").and_then(|value| value.to_str().ok());
        attempt.and_then(|text| text.parse().ok()).unwrap_or(1)
    }
}

async fn list() -> String {
    let lines = PATHS.iter().map(|(path, does)| format!("  {path:<8} {does}\n"));
    format!("sendoff's built-in target: it answers, and echoes what it got\n{}", lines.collect::<String>())
}

async fn ok(request: Request) -> Response {
    request.answer(StatusCode::OK, "ok")
}

async fn fail(request: Request) -> Response {
    request.answer(StatusCode::INTERNAL_SERVER_ERROR, "it always fails")
}

async fn slow(State(clock): State<Clock>, request: Request) -> Response {
    clock.sleep(SLOW).await;
    request.answer(StatusCode::OK, "took its time")
}

async fn flaky(request: Request) -> Response {
    let attempt = request.attempt();
    if attempt <= FLAKY_FAILURES {
        let why = format!("flaky: fails {FLAKY_FAILURES} times, and this is attempt {attempt}");
        return request.answer(StatusCode::INTERNAL_SERVER_ERROR, &why);
    }
    request.answer(StatusCode::OK, &format!("flaky: attempt {attempt} works"))
}

async fn nothing(uri: Uri) -> Response {
    let known: Vec<&str> = PATHS.iter().map(|(path, _)| *path).collect();
    let text = format!("there is nothing at {}; there is {}\n", uri.path(), known.join(", "));
    (StatusCode::NOT_FOUND, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;
    use crate::task::WallMs;

    async fn ask(path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut request = axum::http::Request::builder().method("POST").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = router(Clock::system()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_does_what_its_list_says() {
        let (status, list) = ask("/", &[], "").await;
        assert_eq!(status, 200);
        for (path, _) in PATHS {
            assert!(list.contains(path), "{list}");
        }
        assert_eq!(ask("/ok", &[], "").await.0, 200);
        assert_eq!(ask("/fail", &[("sendoff-attempt", "9")], "").await.0, 500);
        for (attempt, status) in [("1", 500), ("2", 500), ("3", 200), ("x", 500)] {
            assert_eq!(ask("/flaky", &[("sendoff-attempt", attempt)], "").await.0, status, "{attempt}");
        }
        assert_eq!(ask("/flaky", &[], "").await.0, 500, "by hand it is a first attempt");
        let (status, said) = ask("/oops", &[], "").await;
        assert!(status == 404 && said.contains("/flaky"), "{said}");
    }

    #[tokio::test]
    async fn slow_answers_after_its_time_and_not_before() {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let request = axum::http::Request::get("/slow").body(Body::empty()).unwrap();
        let mut answer = Box::pin(router(clock).oneshot(request));
        assert!(futures_util::poll!(&mut answer).is_pending());
        hand.advance(SLOW.saturating_sub(Duration::from_millis(1)));
        assert!(futures_util::poll!(&mut answer).is_pending());
        hand.advance(Duration::from_millis(1));
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn it_echoes_what_it_got_but_no_credentials() {
        let headers = [("x-a", "b"), ("authorization", "Bearer secret-1"), ("cookie", "secret-2")];
        let (_, said) = ask("/ok?c=d", &headers, "{\"order\":7}").await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["got"]["body"], json!({"order": 7}));
        assert_eq!(said["got"]["path"], "/ok?c=d");
        assert_eq!(said["got"]["headers"]["x-a"], "b");
        assert!(!said.to_string().contains("secret"), "{said}");
        let (_, said) = ask("/ok", &[], "no json").await;
        assert!(said.contains("\"no json\""), "{said}");
    }

    #[tokio::test]
    async fn of_a_long_body_it_echoes_the_beginning() {
        for (len, whole) in [(ECHO_BODY_BYTES_MAX, true), (ECHO_BODY_BYTES_MAX + 1, false)] {
            let (_, said) = ask("/ok", &[], &"x".repeat(len)).await;
            assert_eq!(!said.contains("bytes in all"), whole, "{len}");
        }
    }
}
