//! `expires_at`: a task that has not ended by then is not started any more, and nothing that runs is cut.

use std::time::Duration;

use sendoff::task::WallMs;
use serde_json::{Value, json};

use crate::support::server::{Home, NOON, TestServer, task};
use crate::support::story::{TICK, secs, settled, story};
use crate::support::target::{Gate, Reply, Target};

fn noon_plus(by: Duration) -> String {
    WallMs::parse(NOON).unwrap().plus(by).to_string()
}

/// A task that expires so many seconds after noon, with `more` laid over.
async fn expiring(server: &TestServer, url: &str, seconds: u64, more: Value) -> String {
    let mut fields = json!({"expires_at": noon_plus(secs(seconds))});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.create(url, &fields).await
}

async fn pause(server: &TestServer, what: &str) {
    let answer = server.client.post(&format!("/queues/default/{what}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
}

/// Moves to the last moment before, when the task still has this status, and then to the moment when it has expired.
async fn check_expires_after(server: &TestServer, id: &str, after: Duration, before: &str) {
    server.advance(after.saturating_sub(TICK)).await;
    assert_eq!(server.task(id).await["status"], before);
    server.advance(TICK).await;
    let task = server.task(id).await;
    assert_eq!(task["status"], "expired");
    assert_eq!(task["processed_at"], server.now().to_string());
}

#[tokio::test]
async fn a_task_behind_another_expires_unsent() {
    let server = Home::new().with_queue("one", |queue| queue.max_concurrent_dispatches = 1).start().await;
    let (target, gate) = (Target::start().await, Gate::new());
    target.on("/first", [Reply::default().wait(&gate).and(Reply::status(200))]);
    let queue = json!({"queue": "one", "timeout": "1h"});
    let first = server.create(&target.url("/first"), &queue).await;
    let id = expiring(&server, &target.url("/late"), 60, queue).await;
    check_expires_after(&server, &id, secs(60), "queued").await;
    gate.open();
    server.until(&first, "succeeded").await;
    assert_eq!(story(&server.task(&id).await), "expired");
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn a_task_in_a_paused_queue_expires() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    pause(&server, "pause").await;
    let queued = expiring(&server, &target.url("/"), 60, json!({})).await;
    let scheduled = expiring(&server, &target.url("/"), 90, json!({"delay": "89s"})).await;
    check_expires_after(&server, &queued, secs(60), "queued").await;
    check_expires_after(&server, &scheduled, secs(30), "queued").await;
    pause(&server, "resume").await;
    server.advance(secs(3_600)).await;
    assert_eq!(target.requests(), []);
}

#[tokio::test]
async fn a_retry_that_waits_for_a_paused_queue_expires() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    target.on("/", [Reply::status(500)]);
    let id = expiring(&server, &target.url("/"), 60, json!({"retry": {"min_backoff": "10s"}})).await;
    server.until(&id, "retrying").await;
    pause(&server, "pause").await;
    check_expires_after(&server, &id, secs(60), "queued").await;
    assert_eq!(story(&server.task(&id).await), "0s 500 · expired");
}

#[tokio::test]
async fn an_attempt_that_runs_is_not_cut() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let gate = Gate::new();
    for (path, status) in [("/ok", 200), ("/failing", 500), ("/refusing", 404)] {
        target.on(path, [Reply::default().wait(&gate).and(Reply::status(status))]);
    }
    let long = || json!({"timeout": "1h"});
    let ok = expiring(&server, &target.url("/ok"), 60, long()).await;
    let failing = expiring(&server, &target.url("/failing"), 60, long()).await;
    let refusing = expiring(&server, &target.url("/refusing"), 60, long()).await;
    target.requests_at_least(3).await;
    server.advance(secs(120)).await;
    for id in [&ok, &failing, &refusing] {
        assert_eq!(server.task(id).await["status"], "running");
    }
    gate.open();
    for (id, expected) in
        [(&ok, "0s 200 · succeeded"), (&failing, "0s 500 · expired"), (&refusing, "0s 404 · dead permanent_status")]
    {
        let task = settled(&server, id).await;
        assert_eq!(story(&task), expected);
        assert_eq!(task["attempts"][0]["took_ms"], 120_000);
    }
    server.advance(secs(3_600)).await;
    assert_eq!(target.requests().len(), 3);
}

#[tokio::test]
async fn a_retry_that_would_fall_after_it_ends_at_once() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    target.on("/", [Reply::status(500)]);
    let retry = json!({"min_backoff": "10s", "jitter": 0});
    let at = expiring(&server, &target.url("/"), 10, json!({"retry": retry})).await;
    assert_eq!(story(&settled(&server, &at).await), "0s 500 · expired");
    let fields = json!({"retry": retry, "expires_at": noon_plus(secs(10) + TICK)});
    let after = server.create(&target.url("/"), &fields).await;
    assert_eq!(settled(&server, &after).await["status"], "retrying");
    server.advance(secs(10)).await;
    assert_eq!(story(&settled(&server, &after).await), "0s 500 · 10s 500 · expired");
}

#[tokio::test]
async fn nothing_can_expire_before_it_is_due() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let run_at = noon_plus(secs(60));
    for (expires_at, status) in [(run_at.clone(), 422), (noon_plus(secs(60) + TICK), 201)] {
        let fields = json!({"run_at": run_at, "expires_at": expires_at});
        let answer = server.client.post("/tasks", &task(&target.url("/"), &fields)).await;
        assert_eq!(answer.status, status, "{:?}", answer.body);
    }
}

#[tokio::test]
async fn a_clock_that_jumped_expires_nothing_for_a_minute() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    pause(&server, "pause").await;
    let id = expiring(&server, &target.url("/"), 600, json!({})).await;
    server.hand().jump_wall(WallMs::parse("2026-11-24T13:00:00Z").unwrap());
    server.turn().await;
    assert_eq!(server.task(&id).await["status"], "queued", "the clock may be wrong");
    check_expires_after(&server, &id, secs(60), "queued").await;
}

#[tokio::test]
async fn a_clock_that_jumps_back_in_time_has_expired_nothing() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    pause(&server, "pause").await;
    let id = expiring(&server, &target.url("/"), 600, json!({})).await;
    server.hand().jump_wall(WallMs::parse("2026-11-24T13:00:00Z").unwrap());
    server.advance(secs(30)).await;
    server.hand().jump_wall(WallMs::parse("2026-11-24T12:00:30Z").unwrap());
    server.turn().await;
    for _second in 0..120 {
        server.advance(secs(1)).await;
    }
    assert_eq!(server.task(&id).await["status"], "queued");
    check_expires_after(&server, &id, secs(450), "queued").await;
}

#[tokio::test]
async fn a_task_is_started_rather_than_expired_by_a_clock_that_jumped() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    pause(&server, "pause").await;
    let id = expiring(&server, &target.url("/"), 600, json!({})).await;
    server.hand().jump_wall(WallMs::parse("2026-11-24T13:00:00Z").unwrap());
    pause(&server, "resume").await;
    assert_eq!(settled(&server, &id).await["status"], "succeeded");
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn a_small_step_of_the_clock_is_taken_as_it_is() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    pause(&server, "pause").await;
    let id = expiring(&server, &target.url("/"), 300, json!({})).await;
    server.hand().jump_wall(WallMs::parse("2026-11-24T12:05:00Z").unwrap());
    server.turn().await;
    assert_eq!(server.task(&id).await["status"], "expired", "five minutes are no jump");
}
