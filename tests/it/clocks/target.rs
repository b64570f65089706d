//! A target that remembers when it was called for which task, by clocks that nobody fakes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use sendoff::clock::{Clock, Now};
use tokio::task::JoinSet;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) task: String,
    pub(super) at: Now,
}

#[derive(Clone)]
struct Shared {
    clock: Clock,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// See the module.
pub(super) struct Target {
    url: String,
    shared: Shared,
    _server: JoinSet<()>,
}

impl Target {
    /// `/ok` answers 200, `/flaky` 500 to the first request for a task and 200 to all others, `/hang` nothing.
    pub(super) async fn start(clock: Clock) -> Self {
        let shared = Shared { clock, calls: Arc::default() };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, shared, _server: server }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The calls for one task, in order.
    pub(super) fn calls(&self, task: &str) -> Vec<Call> {
        let calls = self.shared.calls.lock().expect("not poisoned");
        calls.iter().filter(|call| call.task == task).cloned().collect()
    }
}

async fn answer(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> StatusCode {
    let task = headers.get("sendoff-task-id").and_then(|id| id.to_str().ok()).unwrap_or("?").to_owned();
    let first = {
        let mut calls = shared.calls.lock().expect("not poisoned");
        let first = !calls.iter().any(|call| call.task == task);
        calls.push(Call { task, at: shared.clock.now() });
        first
    };
    match uri.path() {
        "/hang" => std::future::pending().await,
        "/flaky" if first => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    }
}
