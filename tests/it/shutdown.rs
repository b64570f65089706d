//! Stopping in the middle of everything: nothing new starts, everything that runs is settled, nobody is left without
//! an answer.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::process::{Process, log_of};
use crate::support::server::{TestServer, task};
use crate::support::target::{Gate, Reply, Target};

const MS: Duration = Duration::from_millis(1);

async fn status(client: &Client, id: &str) -> Value {
    client.get(&format!("/tasks/{id}")).await.body["status"].clone()
}

async fn create(client: &Client, url: &str, more: &Value) -> (String, Value) {
    let answer = client.post("/tasks", &task(url, more)).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    (answer.body["task_id"].as_str().expect("an id").to_owned(), answer.body["status"].clone())
}

/// Not ready, but well.
async fn drains(client: &Client) {
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.body["code"]), (503, &json!("not_ready")));
    assert_eq!(client.get("/healthz").await.status, 200);
}

/// A target whose `/held` answers 200 once the gate is open.
async fn held() -> (Target, Gate) {
    let (target, gate) = (Target::start().await, Gate::new());
    target.on("/held", [Reply::default().wait(&gate).and(Reply::status(200))]);
    (target, gate)
}

#[tokio::test]
async fn during_the_drain_tasks_are_taken_but_none_is_started() {
    let (target, gate) = held().await;
    let server = TestServer::start().await;
    let running = server.create(&target.url("/held"), &json!({})).await;
    let due_soon = server.create(&target.url("/soon"), &json!({"delay": "5s"})).await;
    target.requests_at_least(1).await;

    let (stopped, client, hand) = server.stopping();
    let meanwhile = async {
        drains(&client).await;
        let (taken, state) = create(&client, &target.url("/taken"), &json!({})).await;
        assert_eq!(state, "queued", "there is room, but nothing starts any more");
        hand.advance(Duration::from_secs(5));
        assert_eq!(client.get("/queues/default").await.body["tasks"]["queued"], 2, "what comes due waits as well");
        assert_eq!(status(&client, &running).await, "running");
        gate.open();
        taken
    };
    let (home, taken) = tokio::join!(stopped, meanwhile);
    assert_eq!(target.requests().len(), 1);

    let server = home.start().await;
    let ended = server.task(&running).await;
    assert_eq!(
        (&ended["status"], &ended["attempt_count"]),
        (&json!("succeeded"), &json!(1)),
        "it ended within the grace"
    );
    server.until(&taken, "succeeded").await;
    server.until(&due_soon, "succeeded").await;
    assert_eq!(target.requests().len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_failure_within_the_grace_is_settled_and_retried_after_the_restart() {
    let (target, gate) = (Target::start().await, Gate::new());
    target.on("/", [Reply::default().wait(&gate).and(Reply::status(500)), Reply::status(200)]);
    let server = TestServer::start().await;
    let retry = json!({"retry": {"min_backoff": "0s", "max_backoff": "0s"}});
    let id = server.create(&target.url("/"), &retry).await;
    target.requests_at_least(1).await;
    let (stopped, _client, _hand) = server.stopping();
    let (home, ()) = tokio::join!(stopped, async { gate.open() });
    assert_eq!(target.requests().len(), 1, "a retry is a new start");
    let server = home.start().await;
    let task = server.until(&id, "succeeded").await;
    assert_eq!((&task["attempts"][0]["http_status"], &task["attempt_count"]), (&json!(500), &json!(2)));
    server.stop().await;
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_and_counts_as_interrupted() {
    let target = Target::start().await;
    target.on("/", [Reply::hang()]);
    let server = TestServer::start().await;
    let grace = server.config().server.shutdown_grace.to_duration();
    let kept = server.create(&target.url("/"), &json!({"timeout": "10m", "retry": {"min_backoff": "1h"}})).await;
    let last = server.create(&target.url("/"), &json!({"timeout": "10m", "retry": {"max_attempts": 1}})).await;
    target.requests_at_least(2).await;

    let (stopped, client, hand) = server.stopping();
    let meanwhile = async {
        hand.advance(grace.saturating_sub(MS));
        drains(&client).await;
        assert_eq!(status(&client, &kept).await, "running", "a millisecond is left");
        hand.advance(MS);
        target.closed_at_least(2).await;
    };
    let (home, ()) = tokio::join!(stopped, meanwhile);

    let server = home.start().await;
    for (id, status) in [(&kept, "retrying"), (&last, "dead")] {
        let task = server.task(id).await;
        assert_eq!((&task["status"], &task["attempt_count"]), (&json!(status), &json!(1)), "{task}");
        assert_eq!(task["attempts"][0]["class"], "interrupted");
        assert_eq!(task["attempts"][0]["took_ms"], json!(grace.as_millis()), "it was settled, not found left open");
    }
    server.turn().await;
    assert_eq!(target.requests().len(), 2);
    server.stop().await;
}

async fn poll(client: &Client, id: &str) -> Answer {
    client.get(&format!("/tasks/{id}?wait=60s")).await
}

/// Long polls are on their way before these requests on the same connection; whether they wait already cannot be seen.
async fn open_later(client: &Client, gate: &Gate) {
    for _ in 0..10 {
        drains(client).await;
    }
    gate.open();
}

#[tokio::test]
async fn long_polls_are_answered() {
    let (target, gate) = held().await;
    let server = TestServer::start().await;
    let running = server.create(&target.url("/held"), &json!({})).await;
    let waiting = server.create(&target.url("/"), &json!({"delay": "1h"})).await;
    target.requests_at_least(1).await;
    let (stopped, client, _hand) = server.stopping();
    let polls = async {
        let polls = [&running, &waiting, &waiting, &waiting].map(|id| poll(&client, id));
        tokio::join!(join_all(polls), open_later(&client, &gate)).0
    };
    let (home, answers) = tokio::join!(stopped, polls);
    assert_eq!((answers[0].status.as_u16(), &answers[0].body["status"]), (200, &json!("succeeded")));
    for answer in &answers[1..] {
        let (status, body) = (answer.status.as_u16(), &answer.body);
        let answered = status == 200 && body["status"] == "scheduled";
        assert!(answered || (status == 503 && body["code"] == "stopping"), "{status} {body}");
    }
    home.start().await.stop().await;
}

#[tokio::test]
async fn an_idle_server_stops_without_its_clock_moving() {
    let server = TestServer::start().await;
    let id = server.create("http://127.0.0.1:9/", &json!({"delay": "1h"})).await;
    let server = server.stop().await.start().await;
    assert_eq!(server.task(&id).await["status"], "scheduled");
    server.stop().await;
}

/// Asks until the server says that it is not ready any more.
async fn until_drain(client: &Client) {
    while client.get("/readyz").await.status == 200 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_the_binary_finish_what_runs_and_exit_with_0() {
    let (dir, (target, gate)) = (tempfile::tempdir().unwrap(), held().await);
    let process = Process::start(dir.path(), &[]);
    let client = process.client.clone();
    let (running, _) = create(&client, &target.url("/held"), &json!({})).await;
    target.requests_at_least(1).await;
    process.signal("TERM");
    until_drain(&client).await;
    drains(&client).await;
    let (taken, state) = create(&client, &target.url("/taken"), &json!({})).await;
    assert_eq!(state, "queued");
    gate.open();
    let ended = process.wait();
    assert_eq!(ended.code(), Some(0), "{}", log_of(dir.path()));
    assert_eq!(target.requests().len(), 1);

    let process = Process::start(dir.path(), &[]);
    assert_eq!(status(&process.client, &running).await, "succeeded");
    let ended = process.client.get(&format!("/tasks/{taken}?wait=60s")).await.body;
    assert_eq!((&ended["status"], &ended["attempt_count"]), (&json!("succeeded"), &json!(1)));
    process.terminate(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_grace_the_binary_cuts_what_runs_and_still_exits_with_0() {
    let (dir, (target, _gate)) = (tempfile::tempdir().unwrap(), held().await);
    let no_grace = [("SENDOFF_SERVER__SHUTDOWN_GRACE", "0s")];
    let process = Process::start(dir.path(), &no_grace);
    let (id, _) = create(&process.client, &target.url("/held"), &json!({"retry": {"min_backoff": "1h"}})).await;
    target.requests_at_least(1).await;
    process.terminate(dir.path());
    target.closed_at_least(1).await;
    let process = Process::start(dir.path(), &no_grace);
    let task = process.client.get(&format!("/tasks/{id}")).await.body;
    assert_eq!((&task["status"], &task["attempts"][0]["class"]), (&json!("retrying"), &json!("interrupted")));
    process.terminate(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_stops_at_once_and_loses_nothing() {
    let (dir, (target, _gate)) = (tempfile::tempdir().unwrap(), held().await);
    let process = Process::start(dir.path(), &[("SENDOFF_SERVER__SHUTDOWN_GRACE", "1h")]);
    let client = process.client.clone();
    let (running, _) = create(&client, &target.url("/held"), &json!({"retry": {"min_backoff": "1h"}})).await;
    let (waiting, _) = create(&client, &target.url("/"), &json!({"delay": "1h"})).await;
    target.requests_at_least(1).await;
    process.signal("TERM");
    until_drain(&client).await;
    let (taken, _) = create(&client, &target.url("/taken"), &json!({})).await;
    process.signal("TERM");
    let ended = process.wait();
    assert_eq!(ended.code(), Some(1), "{}", log_of(dir.path()));
    assert!(log_of(dir.path()).contains("stopping at once"), "{}", log_of(dir.path()));

    let process = Process::start(dir.path(), &[]);
    let client = &process.client;
    let task = client.get(&format!("/tasks/{running}")).await.body;
    assert_eq!((&task["status"], &task["attempts"][0]["class"]), (&json!("retrying"), &json!("interrupted")));
    assert_eq!(status(client, &waiting).await, "scheduled");
    assert_eq!(client.get(&format!("/tasks/{taken}?wait=60s")).await.body["status"], "succeeded");
    assert_eq!(target.requests().len(), 2);
    process.terminate(dir.path());
}
