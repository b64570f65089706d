//! Damage beside the tasks, met by the real process: it says so, and serves everybody else.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::process::{Process, log_of};

#[tokio::test(flavor = "multi_thread")]
async fn damaged_keys_and_lanes_refuse_or_end_their_own_tasks_only() {
    let dir = tempfile::tempdir().unwrap();
    let target = super::target::Target::start().await;
    let task = |name: &str| json!({"task_id": name, "task_type": "http_request", "payload": {"url": target.url()}, "delay": "1h"});
    let process = Process::start(dir.path(), &[]);
    let accepted = process.client.post("/tasks", &task("mine")).await;
    assert!(accepted.status.is_success(), "{:?}", accepted.body);
    process.terminate(dir.path());
    let meddling = rusqlite::Connection::open(dir.path().join("data/sendoff.db")).unwrap();
    let flip = "UPDATE unique_key SET tail = tail + 1 - 2 * (tail & 1)";
    assert_eq!(meddling.execute(flip, []).unwrap(), 1);
    assert_eq!(meddling.execute("UPDATE name SET text = 'i' || substr(text, 2) WHERE kind = 1", []).unwrap(), 1);
    drop(meddling);

    let process = Process::start(dir.path(), &[]);
    let client = &process.client;
    let same = client.post("/tasks", &task("mine")).await;
    let cancel = client.send(client.request(Method::DELETE, "/tasks/mine")).await.unwrap();
    for refused in [same, client.get("/tasks/mine").await, cancel] {
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{:?}", refused.body);
        assert_eq!(refused.body["code"], "storage_damaged");
    }
    let other = client.post("/tasks", &task("other")).await;
    assert!(other.status.is_success(), "the engine goes on: {:?}", other.body);
    let dead = client.all_tasks().await.into_iter().find(|task| task["status"] == "dead").expect("it is not lost");
    assert_eq!(dead["dead_reason"], "corrupt", "{dead}");
    process.terminate(dir.path());
    let log = log_of(dir.path());
    assert!(log.contains("the record in table unique_key"), "{log}");
}
