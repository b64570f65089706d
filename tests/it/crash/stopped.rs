//! SIGSTOP and SIGCONT: a process that stands still for longer than its timeouts holds nothing up and nothing twice.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::process::{Process, log_of};
use crate::support::target::{Gate, Reply, Target};

/// How long it stands still: longer than the timeout of the attempts and than their backoff.
const STILL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_goes_on_and_calls_nobody_twice_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let gate = Gate::new();
    target.on("/held", [Reply::default().wait(&gate).and(Reply::status(200)), Reply::status(200)]);
    let process = Process::start(dir.path(), &[]);
    let task = |path: &str, delay: &str| {
        json!({
            "task_type": "http_request", "payload": {"url": target.url(path)}, "delay": delay, "timeout": "300ms",
            "retry": {"max_attempts": 3, "min_backoff": "100ms", "max_backoff": "100ms"},
        })
    };
    let held = process.client.post("/tasks", &task("/held", "0s")).await.body;
    let waits = process.client.post("/tasks", &task("/waits", "200ms")).await.body;
    target.requests_at_least(1).await;

    process.stand_still();
    let once = || {
        let request = process.client.request(Method::POST, "/tasks").header("idempotency-key", "once");
        let request = request.header("content-type", "application/json");
        process.client.send(request.body(task("/unknown", "0s").to_string()))
    };
    let answer = tokio::time::timeout(STILL, once()).await;
    assert!(answer.is_err(), "nobody answers");
    assert_eq!(target.requests().len(), 1, "and nobody calls");
    process.signal("CONT");

    let again = once().await.unwrap();
    assert!(again.status.is_success(), "{again:?}");
    let mut attempts = 0;
    for id in [&held, &waits, &again.body].map(|task| task["task_id"].as_str().unwrap().to_owned()) {
        let ended = process.client.get(&format!("/tasks/{id}?wait=30s")).await.body;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        assert!(
            ended["attempts"].as_array().unwrap().iter().all(|attempt| attempt["class"] != "interrupted"),
            "{ended}"
        );
        attempts += ended["attempts"].as_array().unwrap().len();
    }
    assert_eq!(target.requests().len(), attempts, "every request is an attempt, and every attempt one request");
    let tasks = process.client.all_tasks().await;
    assert_eq!(tasks.len(), 3, "the repeat is no second task: {tasks:?}");
    gate.open();
    process.terminate(dir.path());
    assert!(!log_of(dir.path()).contains("stale_settle"), "no lease outlived its attempt");
}
