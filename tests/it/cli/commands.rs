//! What the commands print for programs and for people, against a real server.

use serde_json::{Value, json};

use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

use super::here::Here;

/// A server with two queues and tasks in several states, all with ids of their own, and its clock at noon.
async fn populated(target: &Target) -> TestServer {
    target.on("/no", [Reply::with(503, &[], b"try \x1b[31mlater")]);
    let server = Home::new().with_queue("mail", |queue| queue.max_dispatches_per_second = Some(10.0)).start().await;
    server.create(&target.url("/later"), &json!({"task_id": "later:1", "queue": "mail", "delay": "90s"})).await;
    server.create(&target.url("/yes"), &json!({"task_id": "done:1", "labels": {"tenant": "42"}})).await;
    server.until("done:1", "succeeded").await;
    server.create(&target.url("/no"), &json!({"task_id": "dead:1", "retry": {"max_attempts": 1}})).await;
    server.until("dead:1", "dead").await;
    server
}

/// What is different in every run: where the target is.
fn settled(text: &str, target: &Target) -> String {
    text.replace(target.url("").trim_end_matches('/'), "http://target")
}

#[tokio::test]
async fn lists_are_lines_with_tabs_where_no_person_looks_on() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let mut shown = String::new();
    for words in [
        ["task", "list"].as_slice(),
        &["task", "list", "--status", "succeeded", "--label", "tenant=42"],
        &["task", "get", "dead:1"],
        &["dlq", "list"],
        &["queue", "list"],
        &["task", "list", "-o", "name"],
        &["queue", "list", "-o", "name"],
        &["task", "list", "--queue", "mail", "-o", "table"],
    ] {
        let said = here.run(words).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
        shown.extend(["$ sendoff ", &words.join(" "), "\n", &settled(&said.out, &target), "\n"]);
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn json_is_what_the_server_says() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(parse(&here.run(&["task", "get", "dead:1", "-o", "json"]).await.ok()), server.task("dead:1").await);
    let listed = server.client.get("/tasks").await.body["tasks"].clone();
    assert_eq!(parse(&here.run(&["task", "list", "-o", "json"]).await.ok()), listed);
    let lines = here.run(&["task", "list", "-o", "jsonl"]).await.ok();
    assert_eq!(lines.lines().map(parse).collect::<Vec<_>>(), *listed.as_array().unwrap());
    let both = here.run(&["dlq", "get", "dead:1", "dead:1", "-o", "json"]).await.ok();
    assert_eq!(parse(&both).as_array().map(Vec::len), Some(2), "several are an array");
    let none = here.run(&["task", "list", "--status", "expired", "-o", "json"]).await;
    assert_eq!((none.out.as_str(), none.err.as_str()), ("[]\n", "No tasks\n"));
    assert_eq!(parse(&here.run(&["queue", "get", "mail", "-o", "json"]).await.ok())["paused"], false);
}

#[tokio::test]
async fn text_of_others_does_not_act_on_a_terminal() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let hostile = json!({"task_type": "http_request", "task_id": "hostile", "delay": "1h",
        "payload": {"url": target.url("/"), "method": "GET", "body": "\u{9b}31m\u{202e}\u{7f}"},
        "labels": {"a": "\u{1b}]0;title\u{7}"}});
    assert_eq!(server.client.post("/tasks", &hostile).await.status, 201);
    let here = Here::of(&server);
    for words in [
        ["task", "get", "hostile", "-o", "table"],
        ["task", "get", "hostile", "-o", "json"],
        ["task", "get", "hostile", "-o", "jsonl"],
        ["task", "get", "dead:1", "-o", "table"],
        ["task", "get", "dead:1", "-o", "tsv"],
    ] {
        let shown = here.run(&[words.as_slice(), &["--color", "never"]].concat()).await.ok();
        let acts = |c: &char| (c.is_control() && !"\n\t".contains(*c)) || *c == '\u{202e}';
        assert_eq!(shown.chars().find(acts), None, "{words:?}: {shown:?}");
    }
    let shown = here.run(&["task", "get", "dead:1", "-o", "table"]).await.ok();
    assert!(shown.contains("try \\u{1b}[31mlater"), "{shown}");
}

#[tokio::test]
async fn a_task_of_words_is_the_task_that_was_meant() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    here.write("body.bin", "{\"from\": \"file\"}\n");
    let url = target.url("/hook");
    let create = |words: &[&'static str]| {
        let words: Vec<_> = ["task", "create", &url, "-o", "json", "--queue", "mail", "--delay", "1h"]
            .into_iter()
            .map(str::to_owned)
            .chain(words.iter().map(|word| (*word).to_owned()))
            .collect();
        let here = &here;
        async move {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            serde_json::from_str::<Value>(&here.run(&words).await.ok()).expect("a task")
        }
    };
    let task = create(&[
        "-X",
        "PUT",
        "-H",
        "X-Plan: pro",
        "-d",
        "{\"order\":7}",
        "--priority",
        "9",
        "--timeout",
        "10s",
        "--label",
        "tenant=42",
        "--label",
        "shop=a=b",
        "--max-attempts",
        "3",
        "--id",
        "order:7",
        "--expires-at",
        "2026-12-01T00:00:00Z",
    ])
    .await;
    let payload = json!({"url": url, "method": "PUT", "headers": {"X-Plan": "pro"}, "body": {"order": 7}});
    for (field, expected) in [
        ("task_id", json!("order:7")),
        ("payload", payload),
        ("queue", json!("mail")),
        ("priority", json!(9)),
        ("timeout", json!("10s")),
        ("labels", json!({"tenant": "42", "shop": "a=b"})),
        ("retry", json!({"max_attempts": 3})),
        ("expires_at", json!("2026-12-01T00:00:00.000Z")),
        ("run_at", json!("2026-11-24T13:00:00.000Z")),
    ] {
        assert_eq!(task[field], expected, "{field}");
    }
    assert_eq!(create(&["-d", "hello"]).await["payload"]["body_text"], "hello");
    assert_eq!(create(&["-d", "-5"]).await["payload"]["body"], -5);
    assert_eq!(create(&["-d", "@body.bin"]).await["payload"]["body"]["from"], "file");
    let piped = format!("printf hi | sendoff task create {url} -d @- --delay 1h -o jsonl");
    assert!(here.sh(&piped).await.ok().contains(r#""body_text":"hi""#));
    let payload = ["--type", "http_request", "--payload", r#"{"url":"http://127.0.0.1:9/"}"#, "--delay", "1h"];
    let said = here.run(&[["task", "create", "-o", "jsonl"].as_slice(), &payload].concat()).await.ok();
    assert!(said.contains("http://127.0.0.1:9/"), "{said}");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_told_and_creates_nothing() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let url = target.url("/");
    let words = ["task", "create", &url, "--delay", "1h", "--idempotency-key", "order-7", "-o", "name"];
    let (first, again) = (here.run(&words).await, here.run(&words).await);
    assert_eq!((first.err.as_str(), again.err.as_str()), ("", "A repeat: nothing new was created\n"));
    assert_eq!(first.ok(), again.ok());
    let other = here.run(&[words.as_slice(), &["--priority", "1"]].concat()).await;
    assert!(other.failed(5).contains("idempotency_mismatch"));
}

#[tokio::test]
async fn lists_go_over_pages_and_say_when_there_is_more() {
    let server = TestServer::start().await;
    let batch: Vec<_> = (0..1_203)
        .map(|n| json!({"task_type": "http_request", "payload": {"url": "http://127.0.0.1:9/"}, "delay": "1h", "task_id": format!("t:{n}")}))
        .collect();
    assert_eq!(server.client.post("/tasks/batch", &json!(batch)).await.status, 201);
    let here = Here::of(&server);
    let some = here.run(&["task", "list", "-o", "name", "--limit", "1001"]).await;
    assert_eq!(some.err, "1,001 tasks shown, there are more: --limit N, or --all\n");
    assert_eq!(some.ok().lines().count(), 1_001);
    let all = here.run(&["task", "list", "-o", "name", "--all"]).await;
    assert_eq!(all.err, "");
    let ids: std::collections::BTreeSet<_> = all.out.lines().collect();
    assert_eq!(ids.len(), 1_203);
    assert_eq!(here.run(&["task", "list", "-q"]).await.ok().lines().count(), 101, "a head and a hundred");
    let head = here.sh("sendoff task list --all | head -n 2; echo ended").await;
    assert_eq!((head.out.lines().count(), head.err.as_str()), (3, ""), "a reader who leaves is no failure");
}

#[tokio::test]
async fn queues_are_paused_and_resumed_and_tasks_put_ahead_cancelled_redriven_purged() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    assert_eq!(here.run(&["queue", "pause", "mail", "-o", "name"]).await.ok(), "mail\n");
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], true);
    here.run(&["task", "run", "later:1"]).await.ok();
    assert_eq!(server.task("later:1").await["status"], "queued");
    here.run(&["queue", "resume", "mail", "default"]).await.ok();
    // Its rate begins with an empty bucket.
    server.advance(std::time::Duration::from_secs(1)).await;
    server.until("later:1", "succeeded").await;
    let id = server.create(&target.url("/later"), &json!({"delay": "1h"})).await;
    here.run(&["task", "cancel", &id, "--yes"]).await.ok();
    assert_eq!(server.task(&id).await["status"], "cancelled");
    target.on("/no", [Reply::status(200)]);
    here.run(&["dlq", "redrive", "dead:1"]).await.ok();
    server.until("dead:1", "succeeded").await;
    let dead = server.create("http://127.0.0.1:9/", &json!({"retry": {"max_attempts": 1}})).await;
    server.until(&dead, "dead").await;
    let purged = here.run(&["dlq", "purge", &dead, "--yes"]).await;
    assert_eq!((purged.err.clone(), purged.ok()), (format!("{dead}: deleted\n"), String::new()));
    assert_eq!(server.client.get(&format!("/tasks/{dead}")).await.status, 404);
}

#[tokio::test]
async fn a_task_is_followed_to_its_end() {
    let target = Target::start().await;
    let server = populated(&target).await;
    let here = Here::of(&server);
    let dead = here.run(&["task", "watch", "dead:1"]).await;
    assert_eq!(dead.err, "dead:1: dead: max_attempts after 1 attempt\n");
    assert_eq!(dead.code, 1);
    let attempt = "1\t1\t2026-11-24T12:00:00.000Z\t0\thttp_status 503\ttry \\u{1b}[31mlater\n";
    assert_eq!(dead.out, format!("series\tattempt\tstarted_at\ttook_ms\tresult\tanswer\n{attempt}"));
    let id = here.run(&["task", "create", &target.url("/yes"), "--wait", "-o", "name"]).await;
    assert!(id.err.contains("succeeded after 1 attempt"), "{id:?}");
    assert_eq!(server.task(id.ok().trim()).await["status"], "succeeded");
    let late = here.run(&["task", "watch", "later:1", "--within", "0s"]).await;
    assert!(late.failed(1).contains("later:1: still scheduled, not waited for any longer"));
}

#[tokio::test]
async fn a_task_is_followed_over_a_restart_and_each_attempt_is_told_once() {
    let target = Target::start().await;
    let attempt = |number: u32, class: &str| {
        json!({"ordinal": number, "series": 1, "number": number, "started_at": "2026-11-24T12:00:00.000Z", "took_ms": 5,
            "class": class, "http_status": null, "error": null, "response": null})
    };
    let task = |status: &str, attempts: Value| {
        let task = json!({"task_id": "t", "status": status, "attempt_count": 2, "attempts": attempts});
        Reply::with(200, &[("content-type", "application/json")], task.to_string().as_bytes())
    };
    let stopping = br#"{"title":"the server is stopping","status":503,"code":"stopping","detail":"it stops"}"#;
    target.on(
        "/tasks/t",
        [
            task("retrying", json!([attempt(1, "connect")])),
            Reply::with(503, &[], stopping),
            task("retrying", json!([attempt(1, "connect")])),
            task("succeeded", json!([attempt(1, "connect"), attempt(2, "ok")])),
        ],
    );
    let here = Here::alone().with("SENDOFF_URL", &target.url("")).with("SENDOFF_KEY", "so_x_y");
    let said = here.run(&["task", "watch", "t"]).await;
    assert!(said.err.contains("it stops (stopping)") && said.err.contains("Still trying, for 30s"), "{said:?}");
    assert!(said.err.ends_with("t: succeeded after 2 attempts\n"), "{said:?}");
    let rows: Vec<_> = said.out.lines().map(|line| line.split('\t').nth(4).unwrap_or_default()).collect();
    assert_eq!((said.code, rows.as_slice()), (0, ["result", "connect", "ok"].as_slice()));
    assert_eq!(target.requests()[0].header("authorization"), Some("Bearer so_x_y"));
}
