//! In which order tasks start: with one slot and a task that holds it until everything is there, the order of requests
//! is the order of starts.

use std::time::Duration;

use sendoff::config::QueueConfig;
use sendoff::task::PriorityOrder;
use serde_json::{Value, json};

use crate::support::server::{Home, TestServer};
use crate::support::target::{Gate, Reply, Target};

const MS: Duration = Duration::from_millis(1);
/// `priority_aging` unless a test says otherwise.
const AGING: Duration = Duration::from_secs(600);

/// A queue with one slot, which a first task holds.
struct Line {
    server: TestServer,
    target: Target,
    gate: Gate,
    waiting: usize,
}

impl Line {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut QueueConfig)) -> Self {
        let home = Home::new().with_queue("default", |queue| {
            queue.max_concurrent_dispatches = 1;
            change(queue);
        });
        let (server, target, gate) = (home.start().await, Target::start().await, Gate::new());
        target.on("/first", [Reply::default().wait(&gate).and(Reply::status(200))]);
        server.create(&target.url("/first"), &json!({"timeout": "24h"})).await;
        target.requests_at_least(1).await;
        Self { server, target, gate, waiting: 0 }
    }

    /// Puts a task at the end; its name is the path that it calls.
    async fn join(&mut self, name: &str, more: &Value) -> String {
        self.waiting += 1;
        self.server.create(&self.target.url(&format!("/{name}")), more).await
    }

    async fn pass(&self, time: Duration) {
        self.server.advance(time).await;
    }

    async fn run(&self, id: &str) -> Value {
        let answer = self.server.client.post(&format!("/tasks/{id}/run"), &json!({})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.body
    }

    /// Frees the slot, and gives the names of all that waited in the order in which they were called.
    async fn order(self) -> String {
        self.gate.open();
        let requests = self.target.requests_at_least(1 + self.waiting).await;
        let names: Vec<&str> = requests[1..].iter().map(|request| request.path.trim_start_matches('/')).collect();
        let order = names.join(" ");
        self.server.stop().await;
        order
    }
}

#[tokio::test]
async fn equal_tasks_start_in_the_order_of_their_acceptance() {
    let mut line = Line::start().await;
    for name in ["a", "b", "c", "d"] {
        line.join(name, &json!({})).await;
    }
    assert_eq!(line.order().await, "a b c d");
}

#[tokio::test]
async fn a_batch_starts_in_its_order() {
    let mut line = Line::start().await;
    let tasks: Vec<Value> = ["a", "b", "c"]
        .map(|name| crate::support::server::task(&line.target.url(&format!("/{name}")), &json!({})))
        .into();
    let answer = line.server.client.post("/tasks/batch", &json!(tasks)).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    line.waiting = 3;
    assert_eq!(line.order().await, "a b c");
}

#[tokio::test]
async fn the_more_urgent_come_first() {
    let mut line = Line::start().await;
    for (name, priority) in [("five", 5), ("zero", 0), ("nine", 9), ("six", 6)] {
        line.join(name, &json!({"priority": priority})).await;
    }
    line.join("unsaid", &json!({})).await;
    assert_eq!(line.order().await, "nine six five unsaid zero");
}

#[tokio::test]
async fn a_level_is_worth_exactly_its_aging_of_waiting() {
    for (waited, order) in
        [(AGING.saturating_sub(MS), "urgent patient"), (AGING, "patient urgent"), (AGING + MS, "patient urgent")]
    {
        let mut line = Line::start().await;
        line.join("patient", &json!({"priority": 4})).await;
        line.pass(waited).await;
        line.join("urgent", &json!({"priority": 5})).await;
        assert_eq!(line.order().await, order, "after {waited:?}");
    }
}

#[tokio::test]
async fn nine_levels_are_worth_nine_agings_of_the_queue() {
    let aging = Duration::from_secs(7);
    for (waited, order) in [((9 * aging).saturating_sub(MS), "top bottom"), (9 * aging, "bottom top")] {
        let mut line = Line::with(|queue| {
            queue.priority_aging(aging);
        })
        .await;
        line.join("bottom", &json!({"priority": 0})).await;
        line.pass(waited).await;
        line.join("top", &json!({"priority": 9})).await;
        assert_eq!(line.order().await, order, "after {waited:?}");
    }
}

trait Aging {
    fn priority_aging(&mut self, aging: Duration);
}

impl Aging for QueueConfig {
    fn priority_aging(&mut self, aging: Duration) {
        let millis = u64::try_from(aging.as_millis()).expect("it fits");
        self.order = PriorityOrder::Aging(sendoff::task::Span::from_millis(millis));
    }
}

#[tokio::test]
async fn in_a_strict_queue_no_waiting_makes_up_for_priority() {
    let mut line = Line::with(|queue| queue.order = PriorityOrder::Strict).await;
    line.join("old", &json!({"priority": 4})).await;
    line.pass(Duration::from_secs(12 * 3_600)).await;
    line.join("new", &json!({"priority": 5})).await;
    line.join("same", &json!({"priority": 4})).await;
    line.join("least", &json!({"priority": 0})).await;
    assert_eq!(line.order().await, "new old same least");
}

#[tokio::test]
async fn put_ahead_comes_before_every_priority() {
    let mut line = Line::start().await;
    line.join("urgent", &json!({"priority": 9})).await;
    line.join("plain", &json!({})).await;
    let chosen = line.join("chosen", &json!({"priority": 0})).await;
    line.run(&chosen).await;
    assert_eq!(line.order().await, "chosen urgent plain");
}

#[tokio::test]
async fn put_ahead_does_not_wait_for_its_time_either() {
    let mut line = Line::start().await;
    line.join("plain", &json!({"priority": 9})).await;
    let later = line.join("later", &json!({"delay": "1h"})).await;
    assert_eq!(line.server.task(&later).await["status"], "scheduled");
    assert_eq!(line.run(&later).await["status"], "queued");
    assert_eq!(line.order().await, "later plain");
}

#[tokio::test]
async fn delayed_tasks_start_in_the_order_of_their_due_times() {
    let mut line = Line::start().await;
    line.join("thirty", &json!({"delay": "30s"})).await;
    line.join("ten", &json!({"delay": "10s"})).await;
    line.join("twenty", &json!({"run_at": "2026-11-24T12:00:20Z"})).await;
    line.pass(Duration::from_secs(15)).await;
    line.join("fifteen", &json!({})).await;
    line.pass(Duration::from_secs(15)).await;
    assert_eq!(line.order().await, "ten fifteen twenty thirty");
}

#[tokio::test]
async fn nothing_starts_before_its_time() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let delayed = server.create(&target.url("/delayed"), &json!({"delay": "10s"})).await;
    let timed = server.create(&target.url("/timed"), &json!({"run_at": "2026-11-24T12:00:20Z"})).await;
    server.advance(Duration::from_millis(9_999)).await;
    assert_eq!(server.task(&delayed).await["status"], "scheduled");
    server.advance(MS).await;
    server.until(&delayed, "succeeded").await;
    server.advance(Duration::from_millis(9_999)).await;
    assert_eq!(server.task(&timed).await["status"], "scheduled");
    server.advance(MS).await;
    server.until(&timed, "succeeded").await;
    server.stop().await;
}

#[tokio::test]
async fn the_order_survives_a_restart() {
    let target = Target::start().await;
    let server = Home::new().with_queue("default", |queue| queue.max_concurrent_dispatches = 1).start().await;
    server.client.post("/queues/default/pause", &json!({})).await;
    for (name, more) in [
        ("low", json!({"priority": 4})),
        ("second", json!({})),
        ("third", json!({})),
        ("first", json!({"priority": 8})),
        ("last", json!({"delay": "2h"})),
    ] {
        server.create(&target.url(&format!("/{name}")), &more).await;
    }
    let ahead = server.create(&target.url("/ahead"), &json!({"delay": "3h"})).await;
    server.client.post(&format!("/tasks/{ahead}/run"), &json!({})).await;
    let server = server.stop().await.start().await;
    server.advance(Duration::from_secs(2 * 3_600)).await;
    server.client.post("/queues/default/resume", &json!({})).await;
    let requests = target.requests_at_least(6).await;
    let order: Vec<&str> = requests.iter().map(|request| request.path.trim_start_matches('/')).collect();
    assert_eq!(order, ["ahead", "first", "second", "third", "low", "last"]);
    server.stop().await;
}
