//! Clients of every kind, each until its server is gone, and the ledger of what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::client::{Answer, Client};

pub(super) const MAX_ATTEMPTS: u64 = 4;
/// Twice of each of the kinds in [`run`].
pub(super) const CLIENTS: u64 = 24;

/// What the clients were told.
#[derive(Default)]
pub(super) struct Ledger {
    said: Mutex<Said>,
    count: AtomicU64,
    grew: Notify,
}

/// See [`Ledger`].
#[derive(Default, Clone)]
pub(super) struct Said {
    /// Ids that were acknowledged.
    pub(super) acknowledged: Vec<String>,
    /// Those whose cancelling was acknowledged.
    pub(super) cancelled: Vec<String>,
    /// Those whose redrive was acknowledged.
    pub(super) redriven: Vec<String>,
    /// Requests with an `Idempotency-Key` that nobody answered yet, by lane.
    unanswered: BTreeMap<u64, (String, Value)>,
    /// Requests that were repeated, because no answer had come to the first.
    pub(super) repeated: u64,
}

impl Ledger {
    fn acknowledge(&self, ids: impl IntoIterator<Item = String>) {
        let mut said = self.said.lock().unwrap();
        let before = said.acknowledged.len();
        said.acknowledged.extend(ids);
        let more = said.acknowledged.len() - before;
        drop(said);
        self.count.fetch_add(more as u64, Ordering::AcqRel);
        self.grew.notify_waiters();
    }

    /// So many acknowledgements have been read.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until so many acknowledgements have been read in all.
    pub(super) async fn reaches(&self, count: u64) {
        loop {
            let grew = self.grew.notified();
            if self.count() >= count {
                return;
            }
            grew.await;
        }
    }

    pub(super) fn said(&self) -> Said {
        self.said.lock().unwrap().clone()
    }
}

/// A client among many.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) ledger: Arc<Ledger>,
    pub(super) target: String,
    pub(super) cycle: u64,
    pub(super) lane: u64,
}

impl Caller {
    /// Goes on until the server is gone: two thirds of them post plain tasks, of which some fail at first or hang; the
    /// others post batches, repeat what was not answered, cancel, or redrive.
    pub(super) async fn run(self) {
        for n in 0.. {
            let gone = match self.lane % 12 {
                8 => self.batch(n).await,
                9 => self.once(n).await,
                10 => self.cancel(n).await,
                11 => self.redrive(n).await,
                _ => self.plain(n).await,
            };
            if gone.is_none() {
                return;
            }
        }
    }

    fn task(&self, path: &str, n: u64) -> Value {
        let (target, lane) = (&self.target, self.lane);
        json!({
            "task_type": "http_request",
            "payload": {"url": format!("{target}/{path}"), "body": {"n": n, "lane": lane}},
            "retry": {"max_attempts": MAX_ATTEMPTS, "min_backoff": "100ms", "max_backoff": "1s"},
        })
    }

    /// Posts one; the ids that were acknowledged, none when it was refused, nothing when the server is gone.
    async fn post(&self, task: &Value) -> Option<Option<String>> {
        let answer = self.client.try_post("/tasks", task).await.ok()?;
        let id = acknowledged(&answer);
        self.ledger.acknowledge(id.clone());
        Some(id)
    }

    async fn plain(&self, n: u64) -> Option<()> {
        let mut task = self.task(if (n + self.lane).is_multiple_of(10) { "flaky" } else { "ok" }, n);
        if (n + self.lane).is_multiple_of(50) {
            task = self.task("hang", n);
            task["timeout"] = json!("200ms");
        }
        self.post(&task).await.map(drop)
    }

    async fn batch(&self, n: u64) -> Option<()> {
        let tasks: Vec<_> = (0..3).map(|one| self.task("ok", n * 3 + one)).collect();
        let answer = self.client.try_post("/tasks/batch", &json!(tasks)).await.ok()?;
        if answer.status.is_success() {
            let ids = answer.body["task_ids"].as_array().expect("ids");
            assert_eq!(ids.len(), tasks.len(), "{:?}", answer.body);
            self.ledger.acknowledge(ids.iter().map(|id| id.as_str().expect("an id").to_owned()));
        }
        Some(())
    }

    /// What was not answered before is sent again with its key; the key is in the label, so that two tasks of one key
    /// are found out.
    async fn once(&self, n: u64) -> Option<()> {
        let before = self.ledger.said.lock().unwrap().unanswered.remove(&self.lane);
        let repeated = before.is_some();
        let (key, task) = before.unwrap_or_else(|| {
            let key = format!("{}-{}-{n}", self.cycle, self.lane);
            let mut task = self.task("ok", n);
            task["labels"] = json!({"key": key});
            (key, task)
        });
        let request = self.client.request(Method::POST, "/tasks").header("idempotency-key", &key);
        let request = request.header("content-type", "application/json").body(task.to_string());
        let answer = self.client.send(request).await.ok().filter(|answer| !answer.status.is_server_error());
        let Some(answer) = answer else {
            self.ledger.said.lock().unwrap().unanswered.insert(self.lane, (key, task));
            return None;
        };
        self.ledger.said.lock().unwrap().repeated += u64::from(repeated);
        self.ledger.acknowledge(acknowledged(&answer));
        Some(())
    }

    async fn cancel(&self, n: u64) -> Option<()> {
        let mut task = self.task("later", n);
        task["delay"] = json!("1h");
        let Some(id) = self.post(&task).await? else { return Some(()) };
        let answer = self.client.send(self.client.request(Method::DELETE, &format!("/tasks/{id}"))).await.ok()?;
        if answer.status.is_success() {
            self.ledger.said.lock().unwrap().cancelled.push(id);
        }
        Some(())
    }

    async fn redrive(&self, n: u64) -> Option<()> {
        let Some(id) = self.post(&self.task("broken", n)).await? else { return Some(()) };
        let look = self.client.request(Method::GET, &format!("/tasks/{id}?wait=30s"));
        let seen = self.client.send(look).await.ok()?;
        if seen.body["status"] == "dead" {
            let answer = self.client.try_post(&format!("/dlq/{id}/redrive"), &json!({})).await.ok()?;
            if answer.status.is_success() {
                self.ledger.said.lock().unwrap().redriven.push(id);
            }
        }
        Some(())
    }
}

fn acknowledged(answer: &Answer) -> Option<String> {
    answer.body["task_id"].as_str().filter(|_| answer.status.is_success()).map(str::to_owned)
}
