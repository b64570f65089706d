//! A target that counts requests by task, and outlives every server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use tokio::task::JoinSet;

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// See the module.
pub(super) struct Target {
    url: String,
    counts: Counts,
    _server: JoinSet<()>,
}

impl Target {
    /// `/flaky` answers 500 to the first request for a task, `/hang` nothing; `/broken` answers 404 to all. Every other
    /// answer is 200.
    pub(super) async fn start() -> Self {
        let counts = Counts::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&counts));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, counts, _server: server }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Requests by task.
    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        self.counts.lock().expect("not poisoned").clone()
    }
}

async fn answer(State(counts): State<Counts>, uri: Uri, headers: HeaderMap) -> StatusCode {
    let id = headers.get("sendoff-task-id").and_then(|id| id.to_str().ok()).unwrap_or("?").to_owned();
    let first = {
        let mut counts = counts.lock().expect("not poisoned");
        let requests = counts.entry(id).or_default();
        *requests += 1;
        *requests == 1
    };
    match uri.path() {
        "/flaky" if first => StatusCode::INTERNAL_SERVER_ERROR,
        "/hang" if first => std::future::pending().await,
        "/broken" => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}
