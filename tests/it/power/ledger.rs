//! What the clients of one cycle were told before the power went, and whether the server stands by it afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::iter;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::client::{Answer, Client};
use crate::support::counter::Counter;

/// Acknowledged requests of a cycle that are repeated after it, the last ones: they had the least time to reach the
/// disk.
const REPEATED: usize = 16;
/// Questions asked at once.
const ASKED_AT_ONCE: usize = 16;

/// What one cycle's clients know.
#[derive(Default)]
pub(super) struct Ledger {
    /// Set before the cut begins: what is read from then on acknowledges nothing.
    cut: AtomicBool,
    told: Mutex<Told>,
    count: AtomicU64,
    grew: Notify,
}

#[derive(Default)]
struct Told {
    acknowledged: Vec<(Order, String)>,
    unknown: Vec<Order>,
    /// Tasks that were seen as succeeded, and how often they had been called by then.
    succeeded: BTreeMap<String, u64>,
}

/// A request that can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) key: String,
    pub(crate) body: Value,
}

/// What a whole suite has shown.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) cuts: u64,
    pub(super) starts_cut: u64,
    pub(super) acknowledged: u64,
    pub(super) succeeded: u64,
    pub(super) repeated: u64,
    /// Acknowledged, and not there any more.
    pub(super) lost: Vec<String>,
    /// Had succeeded, and does so no longer or was called again.
    pub(super) undone: Vec<String>,
    /// Repeats that were answered with another id, or not at all.
    pub(super) mistaken: Vec<String>,
}

impl Order {
    /// A task for the target.
    pub(crate) fn new(key: String, target: &str) -> Self {
        let body = json!({
            "task_type": "http_request",
            "payload": {"url": target, "body": {"key": key}},
            "retry": {"min_backoff": "100ms", "max_backoff": "1s"},
        });
        Self { key, body }
    }

    /// Sends it, for the first time or again.
    pub(crate) async fn send(&self, client: &Client) -> Result<Answer, reqwest::Error> {
        let request = client.request(Method::POST, "/tasks").header("content-type", "application/json");
        client.send(request.header("idempotency-key", &self.key).body(self.body.to_string())).await
    }
}

/// The id of the task that an answer acknowledges.
pub(crate) fn id_of(answer: &Answer) -> Option<String> {
    let id = answer.body["task_id"].as_str().filter(|_| answer.status.is_success());
    id.map(str::to_owned)
}

impl Ledger {
    /// Sends an order. Gives the id of the task if it was acknowledged before the cut; an error when nobody answers any
    /// more.
    pub(super) async fn place(&self, client: &Client, order: Order) -> Result<Option<String>, reqwest::Error> {
        let answer = order.send(client).await;
        // The answer was read before this looks; a cut begins after it was set.
        let in_time = !self.cut.load(Ordering::SeqCst);
        let id = answer.as_ref().ok().and_then(id_of).filter(|_| in_time);
        let mut told = self.told.lock().unwrap();
        match &id {
            Some(id) => told.acknowledged.push((order, id.clone())),
            None => told.unknown.push(order),
        }
        drop(told);
        if id.is_some() {
            self.count.fetch_add(1, Ordering::AcqRel);
            self.grew.notify_waiters();
        }
        answer.map(|_| id)
    }

    /// Waits for the end of a task, and remembers it if it was seen before the cut.
    pub(super) async fn follow(&self, client: &Client, id: &str, target: &Counter) -> Result<(), reqwest::Error> {
        let request = client.request(Method::GET, &format!("/tasks/{id}?wait=5s"));
        let answer = client.send(request).await?;
        if answer.body["status"] == "succeeded" && !self.cut.load(Ordering::SeqCst) {
            self.told.lock().unwrap().succeeded.insert(id.to_owned(), target.calls(id));
        }
        Ok(())
    }

    /// Waits until so many orders are acknowledged.
    pub(super) async fn reaches(&self, count: u64) {
        loop {
            let grew = self.grew.notified();
            if self.count.load(Ordering::Acquire) >= count {
                return;
            }
            grew.await;
        }
    }

    /// From now on nothing counts that is read.
    pub(super) fn close(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Holds the server that came after the cut against what was told before it, and repeats what is not known.
    pub(super) async fn compare(&self, client: &Client, report: &mut Report) {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let statuses = iter(told.acknowledged.iter().map(|(_, id)| async move {
            let answer = client.get(&format!("/tasks/{id}")).await;
            (id, answer.status.as_u16(), answer.body["status"].as_str().unwrap_or_default().to_owned())
        }));
        let statuses: Vec<_> = statuses.buffer_unordered(ASKED_AT_ONCE).collect().await;
        for (id, answered, status) in statuses {
            if answered != 200 {
                report.lost.push(format!("{id}: answered with {answered}"));
            } else if told.succeeded.contains_key(id) && status != "succeeded" {
                report.undone.push(format!("{id}: had succeeded, is {status}"));
            }
        }
        let known = told.acknowledged.iter().rev().take(REPEATED).map(|(order, id)| (order, Some(id)));
        let repeats = known.chain(told.unknown.iter().map(|order| (order, None)));
        let answers = iter(repeats.map(|(order, id)| async move { (order, id, order.send(client).await) }));
        let answers: Vec<_> = answers.buffer_unordered(ASKED_AT_ONCE).collect().await;
        for (order, id, answer) in answers {
            let again = answer.as_ref().ok().and_then(id_of);
            report.repeated += 1;
            if again.is_none() || id.is_some_and(|id| again.as_ref() != Some(id)) {
                report.mistaken.push(format!("{}: {id:?} became {answer:?}", order.key));
            }
        }
        report.acknowledged += told.acknowledged.len() as u64;
        report.succeeded += told.succeeded.len() as u64;
        // For the last comparison, when everything has ended.
        *self.told.lock().unwrap() = told;
    }

    /// The last comparison: of everything that the server holds, and of every call that the target has got.
    pub(super) fn settle(&self, tasks: &BTreeMap<String, Value>, target: &Counter, report: &mut Report) {
        let told = self.told.lock().unwrap();
        for (_, id) in &told.acknowledged {
            match tasks.get(id).map(|task| &task["status"]) {
                None => report.lost.push(format!("{id}: not listed at the end")),
                Some(status) if status == "succeeded" => {}
                Some(status) => report.undone.push(format!("{id}: ended as {status}")),
            }
        }
        for (id, calls) in &told.succeeded {
            if target.calls(id) != *calls {
                report.undone.push(format!("{id}: called {} times, {calls} when it had succeeded", target.calls(id)));
            }
        }
    }
}
