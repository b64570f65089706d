//! `queue wait`, and progress on a terminal.

use serde_json::json;

use super::{lines, write};
use crate::cli::here::Here;
use crate::cli::terminal::{Terminal, on_terminal};
use crate::support::server::{Home, TestServer};
use crate::support::target::{Gate, Reply, Target};

#[tokio::test]
async fn waiting_ends_when_nothing_is_left() {
    let target = Target::start().await;
    let gate = Gate::new();
    target.on("/held", [Reply::default().wait(&gate).and(Reply::status(200))]);
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let here = Here::of(&server);
    server.create(&target.url("/held"), &json!({"queue": "mail"})).await;
    server.create(&target.url("/later"), &json!({"delay": "1h"})).await;

    let said = here.run(&["queue", "wait", "mail", "default", "--timeout", "1ms"]).await;
    assert_eq!(said.failed(1), "sendoff: still 2 tasks left (1 scheduled, 1 running)\n");
    let said = here.run(&["queue", "wait", "--all", "--timeout", "0s", "-o", "json"]).await;
    assert_eq!((said.code, said.out.as_str()), (1, "{\"drained\":false,\"left\":2}\n"));

    let mut terminal = Terminal::start(&here, &["queue", "wait", "mail"], 100);
    let ended = tokio::task::spawn_blocking(move || {
        terminal.until("1 task left (1 running)");
        gate.open();
        terminal.end()
    });
    let (shown, code) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.ends_with("nothing left to do\n"), "{shown:?}");
    assert_eq!(here.run(&["queue", "wait", "mail"]).await.ok(), "nothing left to do\n");
    let err = here.run(&["queue", "wait", "mial"]).await.failed(3);
    assert!(err.contains("did you mean `mail`?"), "{err}");
    server.stop().await;
}

#[tokio::test]
async fn a_paused_queue_is_told() {
    let server = TestServer::start().await;
    assert_eq!(server.client.post("/queues/default/pause", &json!({})).await.status, 200);
    server.create("http://127.0.0.1:9/", &json!({})).await;
    let here = Here::of(&server);
    let err = here.run(&["queue", "wait", "--all", "--timeout", "0s"]).await.failed(1);
    assert!(
        err.contains("queue default is paused: nothing of it starts until `sendoff queue resume default`"),
        "{err}"
    );
    server.stop().await;
}

#[tokio::test]
async fn progress_is_for_terminals_and_never_among_the_data() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    write(&here, "t.ndjson", lines(0..10_001));
    let (shown, code) = on_terminal(&here, &["task", "create", "-f", "t.ndjson"], 100).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("%  ") && shown.contains(" left") && shown.contains(" tasks created, "), "{shown:?}");
    assert!(shown.ends_with("10,001 tasks created\n"), "{shown:?}");
    let widest = shown.split(['\r', '\n']).map(|line| line.replace("\u{1b}[2K", "").chars().count()).max();
    assert!(widest <= Some(100), "{shown:?}");
    let quiet = ["task", "create", "-f", "t.ndjson", "--quiet"];
    let (shown, code) = on_terminal(&here, &quiet, 100).await;
    assert_eq!((shown.as_str(), code), ("no new task, 10,001 already there\n", Some(0)));
    let piped = here.run(&["task", "create", "-f", "t.ndjson", "--salt", "2", "-o", "json"]).await;
    assert_eq!((piped.code, piped.err.as_str()), (0, ""));
}
