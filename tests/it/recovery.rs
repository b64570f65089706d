//! What a restart finds, at every stage of a task's life: after a clean stop and after `kill -9` of the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use sendoff::clock::Clock;
use sendoff::task::TaskId;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::process::{Process, command};
use crate::support::server::{Home, TestServer, task};
use crate::support::target::{Reply, Target};

/// One queue that is paused before anything is put in; attempts in flight get no grace.
const SETTINGS: [(&str, &str); 2] = [("SENDOFF_QUEUES", "held: {}"), ("SENDOFF_SERVER__SHUTDOWN_GRACE", "0s")];

fn start(dir: &Path) -> Process {
    Process::start(dir, &SETTINGS)
}

/// Ends a process cleanly, or not.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Terminate,
    Kill,
}

impl End {
    fn restart(self, process: Process, dir: &Path) -> Process {
        match self {
            Self::Terminate => process.terminate(dir),
            Self::Kill => process.kill(),
        }
        start(dir)
    }
}

async fn create(client: &Client, url: &str, more: &Value) -> String {
    let answer = client.post("/tasks", &task(url, more)).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    answer.body["task_id"].as_str().expect("an id").to_owned()
}

async fn look(client: &Client, id: &str) -> Value {
    client.get(&format!("/tasks/{id}")).await.body
}

/// Waits until the task has ended in this state; no task ends twice, so another end fails the test.
async fn ended(client: &Client, id: &str, status: &str) -> Value {
    loop {
        let task = client.get(&format!("/tasks/{id}?wait=60s")).await.body;
        if !task["processed_at"].is_null() {
            assert_eq!(task["status"], status, "{task}");
            return task;
        }
    }
}

async fn until(client: &Client, id: &str, status: &str) -> Value {
    loop {
        let task = look(client, id).await;
        if task["status"] == status {
            return task;
        }
        assert!(task["processed_at"].is_null(), "it has ended otherwise: {task}");
    }
}

fn classes(task: &Value) -> Vec<&str> {
    task["attempts"].as_array().expect("attempts").iter().map(|attempt| attempt["class"].as_str().unwrap()).collect()
}

async fn act(client: &Client, path: &str) {
    let answer = client.post(path, &json!({})).await;
    assert!(answer.status.is_success(), "{path}: {:?}", answer.body);
}

/// How many requests came for a path. Whoever asks has seen the task's end, so none is on its way.
fn calls(target: &Target, path: &str) -> usize {
    target.requests().iter().filter(|request| request.path == path).count()
}

/// A task in every state, by the name of the state.
async fn one_in_every_state(client: &Client, target: &Target) -> BTreeMap<&'static str, String> {
    target.on("/running", [Reply::hang(), Reply::status(200)]);
    target.on("/last_try", [Reply::hang(), Reply::status(200)]);
    target.on("/retrying", [Reply::status(500), Reply::status(200)]);
    target.on("/dead", [Reply::status(404), Reply::status(200)]);
    act(client, "/queues/held/pause").await;
    let url = |path: &str| target.url(path);
    let soon = Clock::system().now().wall.plus(Duration::from_millis(500)).to_string();
    let slow = json!({"min_backoff": "1h"});
    let tasks = [
        ("scheduled", "/scheduled", json!({"delay": "1h", "labels": {"a": "b"}, "task_id": "my-own"})),
        ("queued", "/queued", json!({"queue": "held", "priority": 7})),
        ("running", "/running", json!({"retry": slow})),
        ("last_try", "/last_try", json!({"retry": {"max_attempts": 1}})),
        ("retrying", "/retrying", json!({"retry": slow})),
        ("succeeded", "/succeeded", json!({})),
        ("dead", "/dead", json!({})),
        ("cancelled", "/cancelled", json!({"delay": "1h"})),
        ("expired", "/expired", json!({"queue": "held", "expires_at": soon})),
    ];
    let mut ids = BTreeMap::new();
    for (state, path, more) in tasks {
        ids.insert(state, create(client, &url(path), &more).await);
    }
    assert_eq!(client.delete(&format!("/tasks/{}", ids["cancelled"])).await.status, 200);
    for state in ["succeeded", "dead", "cancelled", "expired"] {
        ended(client, &ids[state], state).await;
    }
    until(client, &ids["retrying"], "retrying").await;
    target.requests_at_least(5).await;
    for state in ["running", "last_try"] {
        assert_eq!(look(client, &ids[state]).await["status"], "running");
    }
    ids
}

/// What was running has been interrupted, which counts; what had no attempt left is a dead letter.
async fn interrupted_attempts_were_closed(client: &Client, ids: &BTreeMap<&str, String>) {
    let running = look(client, &ids["running"]).await;
    assert_eq!((&running["status"], &running["attempt_count"]), (&json!("retrying"), &json!(1)), "{running}");
    assert_eq!((classes(&running), &running["last_error"]["class"]), (vec!["interrupted"], &json!("interrupted")));
    let last = client.get(&format!("/dlq/{}", ids["last_try"])).await.body;
    assert_eq!((&last["status"], &last["dead_reason"]), (&json!("dead"), &json!("max_attempts")), "{last}");
    assert_eq!(classes(&last), ["interrupted"]);
}

/// Everything that has not ended can still be brought to its end.
async fn everything_goes_on(client: &Client, ids: &BTreeMap<&str, String>) {
    assert_eq!(client.get("/queues/held").await.body["paused"], true);
    act(client, "/queues/held/resume").await;
    for state in ["scheduled", "running", "retrying"] {
        act(client, &format!("/tasks/{}/run", ids[state])).await;
    }
    act(client, &format!("/dlq/{}/redrive", ids["dead"])).await;
    for state in ["scheduled", "queued", "running", "retrying", "dead"] {
        ended(client, &ids[state], "succeeded").await;
    }
    assert_eq!(classes(&look(client, &ids["running"]).await), ["interrupted", "ok"]);
    let redriven = look(client, &ids["dead"]).await;
    assert_eq!((classes(&redriven), &redriven["series"]), (vec!["http_status", "ok"], &json!(2)));
}

async fn survives_at_every_stage(end: End) {
    let (dir, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    let process = start(dir.path());
    let ids = one_in_every_state(&process.client, &target).await;
    let still = ["scheduled", "queued", "retrying", "succeeded", "dead", "cancelled", "expired"];
    let mut before = Vec::new();
    for state in still {
        before.push(look(&process.client, &ids[state]).await);
    }

    let process = end.restart(process, dir.path());
    let client = &process.client;
    for (state, before) in still.iter().zip(&before) {
        assert_eq!(&look(client, &ids[state]).await, before, "{state}: not a word of it has changed");
    }
    interrupted_attempts_were_closed(client, &ids).await;

    // Nothing is closed twice.
    let running = look(client, &ids["running"]).await;
    let process = end.restart(process, dir.path());
    let client = &process.client;
    assert_eq!(look(client, &ids["running"]).await, running);
    everything_goes_on(client, &ids).await;
    for (path, requests) in [
        ("/scheduled", 1),
        ("/queued", 1),
        ("/running", 2),
        ("/last_try", 1),
        ("/retrying", 2),
        ("/succeeded", 1),
        ("/dead", 2),
        ("/cancelled", 0),
        ("/expired", 0),
    ] {
        assert_eq!(calls(&target, path), requests, "requests to {path}");
    }
    process.terminate(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_restart_changes_nothing_at_any_stage() {
    survives_at_every_stage(End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_changes_nothing_at_any_stage() {
    survives_at_every_stage(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_the_server_ends_by_itself() {
    let (dir, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    target.on("/", [Reply::hang()]);
    let mut process = start(dir.path());
    let retry = json!({"retry": {"max_attempts": 3, "min_backoff": "1ms", "max_backoff": "1ms"}});
    let id = create(&process.client, &target.url("/"), &retry).await;
    for crash in 1..=3 {
        let requests = target.requests_at_least(crash).await;
        let attempt = crash.to_string();
        assert_eq!(requests[crash - 1].header("sendoff-attempt"), Some(attempt.as_str()));
        process = End::Kill.restart(process, dir.path());
    }
    let task = ended(&process.client, &id, "dead").await;
    assert_eq!((classes(&task), &task["dead_reason"]), (vec!["interrupted"; 3], &json!("max_attempts")));
    assert_eq!(target.requests().len(), 3);
    process.terminate(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_refuses_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let id = create(&process.client, "http://127.0.0.1:9/", &json!({"delay": "1h"})).await;
    let second = command(dir.path()).output().expect("it starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(74), "{said}");
    assert!(said.contains("is in use by process"), "{said}");
    assert_eq!(second.stdout, b"", "it was never ready");
    assert_eq!(look(&process.client, &id).await["status"], "scheduled", "the first one goes on");
    process.terminate(dir.path());
}

async fn post_once(client: &Client, key: &str, body: &Value) -> Answer {
    let request = client.request(Method::POST, "/tasks").header("content-type", "application/json");
    client.send(request.header("idempotency-key", key).body(body.to_string())).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_and_a_task_id_are_still_taken_after_a_crash() {
    let (dir, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    let process = start(dir.path());
    let (keyed, other) = (task(&target.url("/keyed"), &json!({})), task(&target.url("/other"), &json!({})));
    let named = task(&target.url("/named"), &json!({"task_id": "order-7"}));
    let first = post_once(&process.client, "key-1", &keyed).await;
    assert_eq!(first.status, 201);
    assert_eq!(process.client.post("/tasks", &named).await.status, 201);
    let id = first.body["task_id"].as_str().unwrap().to_owned();
    for id in [id.as_str(), "order-7"] {
        ended(&process.client, id, "succeeded").await;
    }

    let process = End::Kill.restart(process, dir.path());
    let repeat = post_once(&process.client, "key-1", &keyed).await;
    assert_eq!((repeat.status.as_u16(), &repeat.body["task_id"]), (200, &json!(id)), "{:?}", repeat.body);
    assert_eq!(repeat.headers["idempotency-replayed"], "true");
    let misuse = post_once(&process.client, "key-1", &other).await;
    assert_eq!((misuse.status.as_u16(), &misuse.body["code"]), (422, &json!("idempotency_mismatch")));
    let again = process.client.post("/tasks", &named).await;
    assert_eq!((again.status.as_u16(), &again.body["task_id"]), (200, &json!("order-7")));
    let taken = task(&target.url("/other"), &json!({"task_id": "order-7"}));
    assert_eq!(process.client.post("/tasks", &taken).await.status, 409);
    assert_eq!(target.requests().len(), 2, "nothing was called twice");
    process.terminate(dir.path());
}

/// Changes the store of a stopped server behind its back; exactly one row.
fn damage(home: &Home, sql: &str, id: &str) {
    let key = TaskId::parse(id).expect("an id of ours").key.to_i64();
    let store = rusqlite::Connection::open(home.path().join("data/sendoff.db")).expect("the store opens");
    assert_eq!(store.execute(sql, [key]).expect("it is a table of ours"), 1);
}

/// Three tasks in a paused queue, a server that has stopped, and the one in the middle damaged; then it starts again.
async fn restart_with_damage(target: &Target, sql: &str) -> (TestServer, [String; 3]) {
    let server = Home::new().with_queue("held", |_| {}).start().await;
    act(&server.client, "/queues/held/pause").await;
    let more = json!({"queue": "held"});
    let mut ids = [const { String::new() }; 3];
    for (id, path) in ids.iter_mut().zip(["/first", "/damaged", "/third"]) {
        *id = server.create(&target.url(path), &more).await;
    }
    let home = server.stop().await;
    damage(&home, sql, &ids[1]);
    let server = home.start().await;
    act(&server.client, "/queues/held/resume").await;
    (server, ids)
}

/// The damaged one is a dead letter that says why; its neighbours were called and it was not.
async fn only_that_one_is_lost(server: &TestServer, target: &Target, ids: &[String; 3]) {
    server.until(&ids[0], "succeeded").await;
    server.until(&ids[2], "succeeded").await;
    let dead = server.until(&ids[1], "dead").await;
    assert_eq!((&dead["dead_reason"], &dead["attempt_count"]), (&json!("corrupt"), &json!(0)), "{dead}");
    let letters = server.client.get("/dlq?reason=corrupt").await.body;
    assert_eq!(letters["dead_letters"].as_array().map(Vec::len), Some(1), "{letters}");
    assert_eq!(letters["counts"], json!([{"queue": "held", "reason": "corrupt", "count": 1}]));
    let mut called: Vec<String> = target.requests().into_iter().map(|request| request.path).collect();
    called.sort();
    assert_eq!(called, ["/first", "/third"]);
}

#[tokio::test]
async fn a_damaged_payload_is_a_dead_letter_and_nothing_else_is_touched() {
    let target = Target::start().await;
    // The last byte of the payload: still of the right length, and no longer what was accepted.
    let flip = "UPDATE payload SET body = CAST(substr(body, 1, length(body) - 1) || '!' AS BLOB) WHERE id = ?1";
    let (server, ids) = restart_with_damage(&target, flip).await;
    only_that_one_is_lost(&server, &target, &ids).await;
    assert!(server.task(&ids[1]).await["damaged"].as_str().is_some_and(|what| what.contains("checksum")));
    let server = server.stop().await.start().await;
    only_that_one_is_lost(&server, &target, &ids).await;
    server.stop().await;
}

#[tokio::test]
async fn a_damaged_header_is_a_dead_letter_and_nothing_else_is_touched() {
    let target = Target::start().await;
    let flip = "UPDATE task SET priority = priority + 1 WHERE id = ?1";
    let (server, ids) = restart_with_damage(&target, flip).await;
    only_that_one_is_lost(&server, &target, &ids).await;
    let server = server.stop().await.start().await;
    only_that_one_is_lost(&server, &target, &ids).await;
    server.stop().await;
}

#[tokio::test]
async fn a_missing_payload_is_a_dead_letter_and_nothing_else_is_touched() {
    let target = Target::start().await;
    let (server, ids) = restart_with_damage(&target, "DELETE FROM payload WHERE id = ?1").await;
    only_that_one_is_lost(&server, &target, &ids).await;
    server.stop().await;
}

#[tokio::test]
async fn a_delay_goes_on_while_the_server_is_down() {
    let target = Target::start().await;
    let server = TestServer::start().await;
    let id = server.create(&target.url("/"), &json!({"delay": "1h"})).await;
    server.advance(Duration::from_secs(600)).await;
    let hand = server.hand().clone();
    let home = server.stop().await;
    hand.advance(Duration::from_millis(50 * 60_000 - 1));
    let server = home.start().await;
    server.turn().await;
    assert_eq!(server.task(&id).await["status"], "scheduled");
    server.advance(Duration::from_millis(1)).await;
    server.until(&id, "succeeded").await;
    server.stop().await;
}

#[tokio::test]
async fn what_came_due_while_the_server_was_down_starts_with_it_and_what_expired_does_not() {
    let target = Target::start().await;
    let server = TestServer::start().await;
    let due = server.create(&target.url("/due"), &json!({"delay": "1m"})).await;
    let late = server
        .create(&target.url("/late"), &json!({"run_at": "2026-11-24T12:01:00Z", "expires_at": "2026-11-24T12:02:00Z"}))
        .await;
    let hand = server.hand().clone();
    let home = server.stop().await;
    hand.advance(Duration::from_secs(120));
    let server = home.start().await;
    server.until(&due, "succeeded").await;
    server.until(&late, "expired").await;
    assert_eq!(target.requests().len(), 1);
    server.stop().await;
}
