//! A target that answers 200 and counts its requests by task. It outlives every server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use tokio::task::JoinSet;

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// See the module.
pub(crate) struct Counter {
    url: String,
    counts: Counts,
    _server: JoinSet<()>,
}

impl Counter {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let counts = Counts::default();
        let router = Router::new().fallback(count).with_state(Arc::clone(&counts));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, counts, _server: server }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How often it was called for this task.
    pub(crate) fn calls(&self, task: &str) -> u64 {
        self.counts.lock().expect("not poisoned").get(task).copied().unwrap_or(0)
    }
}

async fn count(State(counts): State<Counts>, headers: HeaderMap) {
    let task = headers.get("sendoff-task-id").and_then(|id| id.to_str().ok()).unwrap_or("?").to_owned();
    *counts.lock().expect("not poisoned").entry(task).or_default() += 1;
}
