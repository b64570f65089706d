//! Every limit on starting and on accepting, one below and one above, on a clock that the test moves.
//!
//! Starts are counted by tasks that never end: the target holds on to them, so what has started is what runs.

use std::time::Duration;

use reqwest::StatusCode;
use sendoff::config::HostConfig;
use serde_json::{Value, json};

use crate::support::server::{Home, TestServer, task};
use crate::support::target::{Gate, Recorded, Reply, Target};

const MS: Duration = Duration::from_millis(1);
/// An address that nothing is ever sent to in these tests.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// How many tasks of a queue are in this state.
async fn count(server: &TestServer, queue: &str, status: &str) -> u64 {
    let answer = server.client.get(&format!("/queues/{queue}")).await;
    answer.body["tasks"][status].as_u64().unwrap_or_else(|| panic!("no count of {status}: {:?}", answer.body))
}

/// A target that takes every request and never answers.
async fn black_hole() -> Target {
    let target = Target::start().await;
    target.on("/", [Reply::hang()]);
    target
}

async fn create_many(server: &TestServer, target: &Target, queue: &str, tasks: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..tasks {
        ids.push(server.create(&target.url("/"), &json!({"queue": queue, "timeout": "24h"})).await);
    }
    ids
}

async fn resume(server: &TestServer, queue: &str) {
    let answer = server.client.post(&format!("/queues/{queue}/resume"), &json!({})).await;
    assert_eq!((answer.status, &answer.body["paused"]), (StatusCode::OK, &json!(false)));
}

async fn pause(server: &TestServer, queue: &str) {
    let answer = server.client.post(&format!("/queues/{queue}/pause"), &json!({})).await;
    assert_eq!((answer.status, &answer.body["paused"]), (StatusCode::OK, &json!(true)));
}

/// A queue of this rate in starts per second, and this burst.
fn at_rate(rate: f64, burst: u32) -> Home {
    Home::new().with_queue("slow", |queue| {
        queue.max_dispatches_per_second = Some(rate);
        queue.max_burst_size = burst;
    })
}

/// Moves the clock by `step` again and again; gives how many had started after each step, the beginning included.
async fn starts_over(server: &TestServer, step: Duration, steps: usize) -> Vec<u64> {
    let mut starts = vec![count(server, "slow", "running").await];
    for _ in 0..steps {
        server.advance(step).await;
        starts.push(count(server, "slow", "running").await);
    }
    starts
}

#[tokio::test]
async fn five_a_second_is_one_every_fifth_of_a_second_while_there_is_a_backlog() {
    let (server, target) = (at_rate(5.0, 3).start().await, black_hole().await);
    create_many(&server, &target, "slow", 8).await;
    // A bucket starts empty: the first start is one period after the server's.
    assert_eq!(starts_over(&server, 199 * MS, 1).await, [0, 0]);
    assert_eq!(starts_over(&server, MS, 1).await, [0, 1]);
    assert_eq!(starts_over(&server, 199 * MS, 1).await, [1, 1]);
    assert_eq!(starts_over(&server, MS, 1).await, [1, 2]);
    assert_eq!(starts_over(&server, 200 * MS, 4).await, [2, 3, 4, 5, 6]);
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_queue_that_was_idle_starts_its_burst_at_once_and_no_more() {
    let (server, target) = (at_rate(5.0, 3).start().await, black_hole().await);
    server.advance(Duration::from_secs(60)).await;
    create_many(&server, &target, "slow", 9).await;
    assert_eq!(starts_over(&server, 199 * MS, 1).await, [3, 3], "the burst, and not one more within a period");
    assert_eq!(starts_over(&server, MS, 1).await, [3, 4]);
    server.stop_at_once().await;
}

#[tokio::test]
async fn no_window_sees_more_than_the_burst_and_what_accrues_within_it() {
    const STEP_MS: u64 = 50;
    let (server, target) = (at_rate(5.0, 3).start().await, black_hole().await);
    let mut starts = Vec::new();
    // Idle, a backlog, idle again, a backlog again: every way in which a burst could be had twice.
    for (idle_steps, tasks, busy_steps) in [(20, 6, 10), (9, 6, 20), (30, 12, 40)] {
        starts.extend(starts_over(&server, Duration::from_millis(STEP_MS), idle_steps).await);
        create_many(&server, &target, "slow", tasks).await;
        starts.extend(starts_over(&server, Duration::from_millis(STEP_MS), busy_steps).await);
    }
    assert_eq!(starts.last(), Some(&24), "everything has started in the end");
    // The lists overlap by one reading at the same moment; counting it as a step would only loosen the bound.
    let at: Vec<u64> = moments(&starts, &[20, 10, 9, 20, 30, 40]);
    for (from, before) in starts.iter().enumerate() {
        for (to, after) in starts.iter().enumerate().skip(from) {
            let window_ms = (at[to] - at[from]) * STEP_MS;
            assert!(after - before <= 3 + window_ms / 200, "{} starts in {window_ms} ms", after - before);
        }
    }
    server.stop_at_once().await;
}

/// The step at which each reading was taken: the first reading of a phase is at the last moment of the one before.
fn moments(readings: &[u64], phases: &[u64]) -> Vec<u64> {
    let mut at = Vec::new();
    let mut now = 0;
    for steps in phases {
        at.extend(now..=now + steps);
        now += steps;
    }
    assert_eq!(at.len(), readings.len());
    at
}

#[tokio::test]
async fn a_fifth_a_second_is_one_in_five_seconds() {
    let (server, target) = (at_rate(0.2, 1).start().await, black_hole().await);
    create_many(&server, &target, "slow", 3).await;
    assert_eq!(starts_over(&server, Duration::from_millis(4_999), 1).await, [0, 0]);
    assert_eq!(starts_over(&server, MS, 1).await, [0, 1]);
    assert_eq!(starts_over(&server, Duration::from_millis(4_999), 1).await, [1, 1]);
    assert_eq!(starts_over(&server, MS, 1).await, [1, 2]);
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_restart_gives_no_token_away() {
    let target = black_hole().await;
    let server = at_rate(0.2, 10).start().await;
    create_many(&server, &target, "slow", 3).await;
    server.advance(Duration::from_millis(4_999)).await;
    let server = server.stop().await.start().await;
    assert_eq!(starts_over(&server, Duration::from_millis(4_999), 1).await, [0, 0]);
    assert_eq!(starts_over(&server, MS, 1).await, [0, 1]);
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_rate_of_one_queue_holds_no_other_back() {
    let (server, target) = (at_rate(0.2, 1).start().await, black_hole().await);
    create_many(&server, &target, "slow", 1).await;
    create_many(&server, &target, "default", 5).await;
    assert_eq!((count(&server, "slow", "running").await, count(&server, "default", "running").await), (0, 5));
    server.stop_at_once().await;
}

/// A target where every path `/0`, `/1`, … waits for a gate of its own.
async fn gated(paths: usize) -> (Target, Vec<Gate>) {
    let target = Target::start().await;
    let gates: Vec<Gate> = (0..paths).map(|_| Gate::new()).collect();
    for (path, gate) in gates.iter().enumerate() {
        target.on(&format!("/{path}"), [Reply::default().wait(gate).and(Reply::status(200))]);
    }
    (target, gates)
}

fn paths(requests: &[Recorded]) -> Vec<&str> {
    requests.iter().map(|request| request.path.as_str()).collect()
}

#[tokio::test]
async fn a_queue_runs_as_many_at_a_time_as_it_may_and_fills_up_when_one_ends() {
    let (target, gates) = gated(4).await;
    let server = Home::new().with_queue("narrow", |queue| queue.max_concurrent_dispatches = 2).start().await;
    let mut ids = Vec::new();
    for path in 0..4 {
        ids.push(server.create(&target.url(&format!("/{path}")), &json!({"queue": "narrow"})).await);
    }
    assert_eq!((count(&server, "narrow", "running").await, count(&server, "narrow", "queued").await), (2, 2));
    target.requests_at_least(2).await;
    gates[1].open();
    server.until(&ids[1], "succeeded").await;
    assert_eq!((count(&server, "narrow", "running").await, count(&server, "narrow", "queued").await), (2, 1));
    assert_eq!(paths(&target.requests_at_least(3).await)[2], "/2");
    gates.iter().for_each(Gate::open);
    for id in &ids {
        server.until(id, "succeeded").await;
    }
    assert_eq!(target.requests().len(), 4);
    server.stop().await;
}

#[tokio::test]
async fn queues_share_the_worker_slots_by_weight() {
    let (target, gates) = gated(1).await;
    let server = Home::new()
        .with(|config| config.workers.max_concurrent = 1)
        .with_queue("heavy", |queue| queue.weight = 3)
        .with_queue("light", |queue| queue.weight = 1)
        .start()
        .await;
    server.create(&target.url("/0"), &json!({})).await;
    for _ in 0..12 {
        server.create(&target.url("/heavy"), &json!({"queue": "heavy"})).await;
        server.create(&target.url("/light"), &json!({"queue": "light"})).await;
    }
    assert_eq!((count(&server, "heavy", "queued").await, count(&server, "light", "queued").await), (12, 12));
    gates[0].open();
    let requests = target.requests_at_least(25).await;
    // One slot: the order of the requests is the order of the starts.
    let order = &paths(&requests)[1..];
    for turns in 1..=4 {
        let heavy = order[..4 * turns].iter().filter(|path| **path == "/heavy").count();
        assert_eq!(heavy, 3 * turns, "three of every four: {order:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn all_queues_together_run_no_more_than_there_are_workers() {
    let target = black_hole().await;
    let server = Home::new()
        .with(|config| config.workers.max_concurrent = 3)
        .with_queue("a", |_| {})
        .with_queue("b", |_| {})
        .start()
        .await;
    create_many(&server, &target, "a", 2).await;
    create_many(&server, &target, "b", 4).await;
    assert_eq!((count(&server, "a", "running").await, count(&server, "b", "running").await), (2, 1));
    assert_eq!(count(&server, "b", "queued").await, 3);
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_black_hole_never_holds_more_than_its_cap_while_other_hosts_go_on() {
    let (hole, kind) = (black_hole().await, Target::start().await);
    let server =
        Home::new().with(|config| config.hosts.defaults = HostConfig { max_concurrent: 2 }).start().await;
    let mut lost = Vec::new();
    for _ in 0..6 {
        lost.push(server.create(&hole.url("/"), &json!({"timeout": "10s", "labels": {"to": "hole"}})).await);
    }
    for _ in 0..10 {
        let id = server.create(&kind.url("/"), &json!({})).await;
        server.until(&id, "succeeded").await;
    }
    assert_eq!(count(&server, "default", "running").await, 2);
    assert_eq!(hole.requests_at_least(2).await.len(), 2, "the cap, and not one more");
    // Their time is over: two others take their places.
    server.advance(Duration::from_secs(10)).await;
    for id in &lost[..2] {
        server.until(id, "retrying").await;
    }
    hole.closed_at_least(2).await;
    assert_eq!(hole.requests_at_least(4).await.len(), 4);
    let running = server.client.get("/tasks?status=running&label.to=hole").await.body["tasks"].clone();
    assert_eq!(running.as_array().map(Vec::len), Some(2));
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_host_named_in_the_configuration_has_its_own_cap() {
    let target = black_hole().await;
    let lane = format!("http://{}", target.addr());
    let server = Home::new()
        .with(|config| {
            let cap = HostConfig { max_concurrent: 1 };
            config.hosts.overrides.insert(sendoff::task::LaneName::new(&lane), cap);
        })
        .start()
        .await;
    create_many(&server, &target, "default", 3).await;
    assert_eq!((count(&server, "default", "running").await, count(&server, "default", "queued").await), (1, 2));
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_until_resumed_and_a_restart_changes_nothing() {
    let (target, gates) = gated(1).await;
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let running = server.create(&target.url("/0"), &json!({"queue": "mail"})).await;
    target.requests_at_least(1).await;
    pause(&server, "mail").await;
    gates[0].open();
    server.until(&running, "succeeded").await;
    let waiting = server.create(&target.url("/next"), &json!({"queue": "mail"})).await;
    server.advance(Duration::from_secs(3_600)).await;
    assert_eq!(server.task(&waiting).await["status"], "queued");

    let server = server.stop().await.start().await;
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], true);
    server.turn().await;
    assert_eq!(server.task(&waiting).await["status"], "queued");
    let elsewhere = server.create(&target.url("/elsewhere"), &json!({})).await;
    server.until(&elsewhere, "succeeded").await;

    resume(&server, "mail").await;
    server.until(&waiting, "succeeded").await;
    assert_eq!(paths(&target.requests()), ["/0", "/elsewhere", "/next"]);
    let server = server.stop().await.start().await;
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], false, "resumed survives, too");
    server.stop().await;
}

/// Posts a task to a queue; gives the status and the code of the problem, if it is one.
async fn post(server: &TestServer, queue: &str, payload: &Value) -> (u16, Option<String>) {
    let body = json!({"task_type": "http_request", "payload": payload, "queue": queue});
    let answer = server.client.post("/tasks", &body).await;
    let code = answer.body["code"].as_str().map(str::to_owned);
    assert_eq!(answer.headers.contains_key("retry-after"), answer.status == StatusCode::TOO_MANY_REQUESTS);
    (answer.status.as_u16(), code)
}

fn accepted() -> (u16, Option<String>) {
    (201, None)
}

fn full() -> (u16, Option<String>) {
    (429, Some("queue_full".to_owned()))
}

#[tokio::test]
async fn a_queue_holds_max_tasks_and_refuses_the_next_until_one_ends() {
    let payload = json!({"url": NOWHERE});
    let server = Home::new().with_queue("small", |queue| queue.max_tasks = Some(3)).start().await;
    pause(&server, "small").await;
    let first = server.create(NOWHERE, &json!({"queue": "small"})).await;
    assert_eq!(post(&server, "small", &payload).await, accepted());

    let one = task(NOWHERE, &json!({"queue": "small"}));
    let batch = server.client.post("/tasks/batch", &json!([one, one])).await;
    assert_eq!((batch.status.as_u16(), &batch.body["code"]), (429, &json!("queue_full")), "all or nothing");
    assert_eq!(count(&server, "small", "queued").await, 2);

    assert_eq!(post(&server, "small", &payload).await, accepted());
    assert_eq!(post(&server, "small", &payload).await, full());
    assert_eq!(post(&server, "default", &payload).await, accepted(), "the limit is the queue's own");
    assert_eq!(server.client.delete(&format!("/tasks/{first}")).await.status, StatusCode::OK);
    assert_eq!(post(&server, "small", &payload).await, accepted());

    let server = server.stop().await.start().await;
    assert_eq!(post(&server, "small", &payload).await, full(), "what it holds is counted again at start");
    server.stop_at_once().await;
}

/// A payload of exactly so many bytes as it is stored.
fn payload_of(bytes: usize) -> Value {
    let bare = json!({"url": NOWHERE, "body_text": ""}).to_string().len();
    let payload = json!({"url": NOWHERE, "body_text": "x".repeat(bytes - bare)});
    assert_eq!(payload.to_string().len(), bytes);
    payload
}

#[tokio::test]
async fn a_queue_holds_max_bytes_and_not_one_more() {
    let server = Home::new().with_queue("small", |queue| queue.max_bytes = Some(1_000)).start().await;
    pause(&server, "small").await;
    assert_eq!(post(&server, "small", &payload_of(600)).await, accepted());
    assert_eq!(post(&server, "small", &payload_of(401)).await, full());
    assert_eq!(post(&server, "small", &payload_of(400)).await, accepted());
    assert_eq!(post(&server, "small", &json!({"url": NOWHERE})).await, full());
    assert_eq!(server.client.get("/queues/small").await.body["bytes"], 1_000);
    server.stop().await;
}

#[tokio::test]
async fn a_payload_of_one_mebibyte_is_taken_and_one_byte_more_is_refused() {
    const MIB: usize = 1024 * 1024;
    let server = Home::new().with_queue("held", |_| {}).start().await;
    pause(&server, "held").await;
    assert_eq!(post(&server, "held", &payload_of(MIB)).await, accepted());
    assert_eq!(post(&server, "held", &payload_of(MIB + 1)).await, (422, Some("invalid_task".to_owned())));
    let far_above = post(&server, "held", &payload_of(2 * MIB)).await;
    assert_eq!(far_above, (413, Some("body_too_large".to_owned())), "refused before it is read");
    server.stop().await;
}

#[tokio::test]
async fn the_payload_limit_is_what_the_configuration_says() {
    let server = Home::new().with(|config| config.payload_bytes_max = 500).with_queue("held", |_| {}).start().await;
    pause(&server, "held").await;
    assert_eq!(post(&server, "held", &payload_of(500)).await, accepted());
    assert_eq!(post(&server, "held", &payload_of(501)).await, (422, Some("invalid_task".to_owned())));
    server.stop().await;
}
