//! `dlq redrive` and `dlq purge` by filter.

use serde_json::{Value, json};

use crate::cli::here::Here;
use crate::cli::terminal::on_terminal;
use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

/// Three dead letters: two of the queue `mail`, of which one has the label `tenant=42`.
async fn three_dead(target: &Target) -> TestServer {
    target.on("/", [Reply::status(404)]);
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    for (id, queue, tenant) in [("a", "mail", "42"), ("b", "mail", "7"), ("c", "default", "42")] {
        let more = json!({"task_id": id, "queue": queue, "labels": {"tenant": tenant}});
        server.create(&target.url("/"), &more).await;
        server.until(id, "dead").await;
    }
    server
}

async fn dead(server: &TestServer) -> Vec<String> {
    let page = server.client.get("/dlq").await.body;
    let mut ids: Vec<_> = page["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["task_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn many_are_counted_and_then_done() {
    let target = Target::start().await;
    let server = three_dead(&target).await;
    let here = Here::of(&server);
    let counted = here.run(&["dlq", "redrive", "--queue", "mail", "--dry-run"]).await.ok();
    assert_eq!(counted, "would redrive 2 dead letters\n");
    assert_eq!(dead(&server).await, ["a", "b", "c"]);

    target.on("/", [Reply::status(200)]);
    let done = here.run(&["dlq", "redrive", "--queue", "mail", "--label", "tenant=42", "--yes"]).await;
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "1 dead letter redriven\n", ""));
    server.until("a", "succeeded").await;
    assert_eq!(dead(&server).await, ["b", "c"]);

    let none = here.run(&["dlq", "purge", "--reason", "max_attempts", "--yes"]).await.ok();
    assert_eq!(none, "no dead letter matches\n");
    let done = here.run(&["dlq", "purge", "--all", "--yes", "-o", "json"]).await.ok();
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done, json!({"matched": 2, "purged": 2, "dry_run": false}));
    assert_eq!(dead(&server).await, [""; 0]);
}

#[tokio::test]
async fn what_is_meant_has_to_be_said() {
    let target = Target::start().await;
    let server = three_dead(&target).await;
    let here = Here::of(&server);
    for (words, expected) in [
        (["dlq", "purge"].as_slice(), "say which dead letters: by ID, or all that match"),
        (&["dlq", "redrive", "a", "--queue", "mail"], "either by id or by a filter"),
        (&["dlq", "redrive", "--queue", "mail"], "nobody can be asked here, so say it with --yes"),
        (&["dlq", "purge", "--all", "--queue", "mail", "--yes"], "cannot be used with"),
        (&["dlq", "purge", "--reason", "bored"], "permanent_status"),
    ] {
        let err = here.run(words).await.failed(2);
        assert!(err.contains(expected), "{words:?}: {err}");
    }
    let err = here.run(&["dlq", "redrive", "--queue", "mial", "--yes"]).await.failed(3);
    assert!(err.contains("did you mean `mail`?"), "{err}");
    assert_eq!(dead(&server).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn on_a_terminal_it_asks_and_shows_no_more_than_the_result_when_it_was_quick() {
    let target = Target::start().await;
    let server = three_dead(&target).await;
    let here = Here::of(&server);
    let (shown, code) = on_terminal(&here, &["dlq", "purge", "--queue", "mail", "--yes"], 100).await;
    assert_eq!(code, Some(0));
    assert!(shown.ends_with("2 dead letters purged\n"), "{shown:?}");
    assert_eq!(dead(&server).await, ["c"]);
}
