//! Servers that stand in for sendoff where it cannot be made to misbehave, and what is seen of a command there.

use serde_json::json;

use super::{line, lines, write};
use crate::cli::here::Here;
use crate::cli::terminal::Terminal;
use crate::support::target::{Gate, Reply, Target};

/// The answer to a batch of so many tasks.
fn accepted(count: usize) -> Reply {
    let ids: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    Reply::with(201, &[], json!({"task_ids": ids}).to_string().as_bytes())
}

fn problem(status: u16, code: &str) -> Reply {
    let body = json!({"status": status, "code": code, "title": code, "detail": "this once"});
    Reply::with(status, &[("content-type", "application/problem+json")], body.to_string().as_bytes())
}

/// A place where that target is the server.
fn beside(target: &Target) -> Here {
    Here::alone().with("SENDOFF_URL", target.url("").trim_end_matches('/')).with("SENDOFF_KEY", "so_a_b")
}

#[tokio::test]
async fn what_passes_is_tried_again_with_the_same_key_and_body() {
    let target = Target::start().await;
    let here = beside(&target);
    write(&here, "t.ndjson", lines(0..3));
    let bad = [
        problem(503, "busy"),
        problem(429, "queue_full"),
        problem(500, "unknown_outcome"),
        Reply::with(502, &[("content-type", "text/html")], b"<html>Bad Gateway"),
        Reply::close(),
        Reply::reset(),
        accepted(3),
    ];
    target.on("/tasks/batch", bad);
    let said = here.run(&["task", "create", "-f", "t.ndjson"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "3 tasks created\n"), "{}", said.err);
    assert!(said.err.contains("; trying again"), "{}", said.err);
    let requests = target.requests();
    assert_eq!(requests.len(), 7);
    for request in &requests {
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(String::from_utf8_lossy(&request.body), lines(0..3));
    }
    assert!(requests[0].header("idempotency-key").is_some_and(|key| key.starts_with("bulk-")));
}

#[tokio::test]
async fn four_requests_are_in_flight_and_no_fifth() {
    let target = Target::start().await;
    let here = beside(&target);
    write(&here, "t.ndjson", lines(0..6 * 5_000));
    let gate = Gate::new();
    let held = || Reply::default().wait(&gate).and(accepted(5_000));
    target.on("/tasks/batch", [held(), held(), held(), held(), held(), held()]);
    let running = here.run(&["task", "create", "-f", "t.ndjson"]);
    let watch = async {
        target.requests_at_least(4).await;
        // A fifth would come at once: another command starts and ends meanwhile.
        here.run(&["version"]).await.ok();
        assert_eq!(target.requests().len(), 4);
        gate.open();
    };
    let (said, ()) = tokio::join!(running, watch);
    assert_eq!((said.code, said.out.as_str()), (0, "30,000 tasks created\n"), "{}", said.err);
    assert_eq!(target.requests().len(), 6);
}

#[tokio::test]
async fn what_does_not_pass_is_not_tried_again() {
    for (reply, code) in [
        (problem(401, "unauthenticated"), 4),
        (problem(409, "task_id_taken"), 5),
        (problem(415, "unsupported_media_type"), 2),
        (Reply::with(200, &[], b"<html>"), 1),
        (accepted(2), 1),
    ] {
        let target = Target::start().await;
        let here = beside(&target);
        write(&here, "t.ndjson", line(0));
        target.on("/tasks/batch", [reply]);
        here.run(&["task", "create", "-f", "t.ndjson"]).await.failed(code);
        assert_eq!(target.requests().len(), 1);
    }
}

#[tokio::test]
async fn without_a_server_it_ends_at_once_and_without_an_answer_it_says_that_it_does_not_know() {
    let target = Target::start().await;
    let nobody = Here::alone().with("SENDOFF_URL", "http://127.0.0.1:9").with("SENDOFF_KEY", "so_a_b");
    write(&nobody, "t.ndjson", line(0));
    let err = nobody.run(&["task", "create", "-f", "t.ndjson"]).await.failed(6);
    assert!(
        err.starts_with("sendoff: no server answers at http://127.0.0.1:9") && err.contains("Nothing was accepted"),
        "{err}"
    );

    let here = beside(&target);
    write(&here, "t.ndjson", lines(0..2));
    target.on("/tasks/batch", [problem(503, "busy"), Reply::close()]);
    let said = here.run(&["task", "create", "-f", "t.ndjson", "--retry-for", "2s", "-o", "json"]).await;
    assert!(said.out.contains("\"unknown_lines\"") && said.out.contains("\"go_on_at_line\": 1"), "{}", said.out);
    let err = said.failed(6);
    assert!(err.contains("Not known, for want of an answer: (lines 1 to 2)"), "{err}");
    assert!(
        err.contains("Run the same command again within 24 h: it goes on at line 1 and creates nothing twice"),
        "{err}"
    );
}

#[tokio::test]
async fn a_long_redrive_shows_how_the_count_falls() {
    let target = Target::start().await;
    let gate = Gate::new();
    let json = |body: serde_json::Value| Reply::with(200, &[], body.to_string().as_bytes());
    let count = |count: u64| json(json!({"counts": [{"queue": "mail", "reason": "corrupt", "count": count}]}));
    let counted = json(json!({"matched": 10, "redriven": 0, "dry_run": true}));
    let done = json(json!({"matched": 10, "redriven": 10, "dry_run": false}));
    target.on("/dlq/redrive", [counted, Reply::default().wait(&gate).and(done)]);
    target.on("/dlq", [count(30), count(24)]);
    let here = beside(&target);
    let mut terminal = Terminal::start(&here, &["dlq", "redrive", "--reason", "corrupt"], 100);
    let ended = tokio::task::spawn_blocking(move || {
        terminal.until("About to redrive 10 dead letters. Go on? [y/N] ");
        terminal.type_in("y\n");
        terminal.until(" 60%  6 of 10 redriven, ");
        gate.open();
        terminal.end()
    });
    let (shown, code) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(shown.ends_with("10 dead letters redriven\n"), "{shown:?}");
    let bodies = target.requests().into_iter().filter(|request| request.path == "/dlq/redrive");
    let bodies: Vec<_> = bodies.map(|request| String::from_utf8(request.body).unwrap()).collect();
    assert_eq!(bodies, [r#"{"dry_run":true,"reason":"corrupt"}"#, r#"{"dry_run":false,"reason":"corrupt"}"#]);
}
