//! The life of a task as a line to read: played on a moved clock, told from what the API says of it afterwards.

use std::time::Duration;

use sendoff::task::WallMs;
use serde_json::Value;

use super::server::TestServer;

/// The last moment before.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// A number of seconds.
pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A field that holds a time.
pub(crate) fn moment(value: &Value) -> WallMs {
    WallMs::parse(value.as_str().expect("a time")).expect("RFC 3339")
}

/// A field that holds a list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Waits until the running attempt of a task is over.
pub(crate) async fn settled(server: &TestServer, id: &str) -> Value {
    server.until_it(id, |task| task["status"] != "queued" && task["status"] != "running").await
}

/// Moves the clock to each retry of the task until it has ended: to the last moment before, where nothing may have
/// happened yet, and to the moment itself, where the attempt has to be started.
pub(crate) async fn play(server: &TestServer, id: &str) -> Value {
    loop {
        let task = settled(server, id).await;
        if task["status"] != "retrying" {
            return task;
        }
        let count = task["attempt_count"].as_u64().expect("a number");
        let delay = moment(&task["run_at"]).since(server.now());
        if let Some(before) = delay.checked_sub(TICK) {
            server.advance(before).await;
            let early = server.task(id).await;
            assert_eq!((&early["status"], &early["attempt_count"]), (&task["status"], &task["attempt_count"]), "early");
            server.advance(TICK).await;
        }
        server.turn().await;
        assert_eq!(server.task(id).await["attempt_count"], count + 1, "not called when it was due: {task}");
    }
}

/// Each attempt of a task that has ended, after how long it came and what it brought; then how the task ended:
/// `0s 500 · 10s connect · 20s 200 · succeeded`.
pub(crate) fn story(task: &Value) -> String {
    let mut words = Vec::new();
    let mut before = moment(&task["submitted_at"]);
    for attempt in list(&task["attempts"]) {
        let started = moment(&attempt["started_at"]);
        let gap = sendoff::task::Span::from_millis(u64::try_from(started.since(before).as_millis()).expect("small"));
        words.push(format!("{gap} {}", brought(attempt)));
        before = started;
    }
    words.push(ending(task));
    words.join(" · ")
}

/// The state of a task, and why it died if it did.
pub(crate) fn ending(task: &Value) -> String {
    let status = task["status"].as_str().expect("a status");
    match task["dead_reason"].as_str() {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_owned(),
    }
}

fn brought(attempt: &Value) -> String {
    match (attempt["class"].as_str().expect("a class"), attempt["http_status"].as_u64()) {
        ("ok" | "http_status", Some(status)) => status.to_string(),
        (class, _) => class.to_owned(),
    }
}
