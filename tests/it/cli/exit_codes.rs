//! Every exit code, and the sentence that goes with it.

use serde_json::json;

use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

use super::here::Here;

#[tokio::test]
async fn zero_and_one_say_whether_it_went_well() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    assert_eq!(here.run(&["healthcheck"]).await.err, format!("{} is ready\n", server.client.url()));
    assert_eq!(here.run(&["queue", "list"]).await.code, 0);
    let target = Target::start().await;
    let stopping =
        br#"{"title":"the server is not ready","status":503,"code":"not_ready","detail":"the server starts or stops"}"#;
    target.on("/readyz", [Reply::with(503, &[("content-type", "application/problem+json")], stopping)]);
    let not_ready = here.run(&["healthcheck", "--url", &target.url("")]).await.failed(1);
    assert!(not_ready.contains("is not ready: the server starts or stops (not_ready)"), "{not_ready}");
}

#[tokio::test]
async fn two_is_a_command_line_that_means_nothing() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    for (words, said) in [
        (["task", "lst"].as_slice(), "a similar subcommand exists: 'list'"),
        (&["tsk"], "a similar subcommand exists: 'task'"),
        (&["task", "list", "-o", "jsn"], "a similar value exists: 'json'"),
        (&["task", "list", "--status", "dade"], "a similar value exists: 'dead'"),
        (&["dlq", "list", "--reason", "max_attempt"], "a similar value exists: 'max_attempts'"),
        (&["task", "list", "--limit", "0"], "0 is not in 1.."),
        (&["task", "list", "--watch", "-o", "json"], "use -o jsonl"),
        (&["task", "list", "--watch", "--interval", "99ms"], "has to be 100ms or more"),
        (&["task", "get", ".."], "no task has this id"),
        (&["task", "get", "no spaces"], "no task has this id"),
        (&["task", "create"], "required arguments were not provided"),
        (&["task", "create", "http://127.0.0.1:9/", "--delay", "soon"], "soon"),
        (&["task", "create", "http://127.0.0.1:9/", "-H", "x"], "NAME: VALUE"),
        (&["task", "create", "http://127.0.0.1:9/", "--label", "x"], "NAME=VALUE"),
        (&["task", "create", "http://127.0.0.1:9/", "-d", "@none"], "failed to read none"),
        (&["task", "create", "--type", "http_request", "--payload", "{"], "--payload is not JSON"),
        (&["task", "cancel", "order:7"], "say it with --yes"),
        (&["dlq", "purge", "order:7"], "say it with --yes"),
        (&["--url", "https://127.0.0.1:1", "task", "list"], "unexpected argument '--url'"),
    ] {
        let err = here.run(words).await.failed(2);
        assert!(err.contains(said), "{words:?} does not say {said}: {err}");
    }
}

#[tokio::test]
async fn two_is_also_a_task_that_is_not_valid_each_fault_on_its_line() {
    let server = TestServer::start().await;
    let here = Here::of(&server);
    let words = ["task", "create", "ftp://127.0.0.1/", "--max-attempts", "0", "--delay", "9999d"];
    let said = here.run(&words).await.failed(2);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("sendoff: the task is not valid (invalid_task)"), "{said}");
    for pointer in ["/payload/url", "/delay", "/retry/max_attempts"] {
        assert!(said.lines().any(|line| line.starts_with(&format!("  {pointer}: "))), "{pointer}: {said}");
    }
    assert!(said.lines().last().is_some_and(|line| line.starts_with("  request id ")), "{said}");
    let refused = here.run(&["task", "create", "http://10.0.0.1/"]).await.failed(2);
    assert!(refused.contains("egress_refused") && refused.contains("egress.allow"), "{refused}");
}

#[tokio::test]
async fn three_is_what_is_not_there() {
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let here = Here::of(&server);
    for (words, said) in [
        (["task", "get", "nobody"].as_slice(), "there is no such task"),
        (&["task", "watch", "nobody"], "there is no such task"),
        (&["dlq", "get", "nobody"], "there is no such task"),
        (&["queue", "get", "mial"], "did you mean `mail`?"),
        (&["queue", "pause", "mial"], "did you mean `mail`?"),
        (&["task", "list", "--queue", "mial"], "there is no queue `mial`; did you mean `mail`?"),
        (&["dlq", "list", "--queue", "mial"], "there is no queue `mial`; did you mean `mail`?"),
        (&["task", "create", "http://127.0.0.1:9/", "--queue", "mial"], "did you mean `mail`?"),
        (&["task", "run", "nobody", "noone"], "0 of 2 done"),
    ] {
        let err = here.run(words).await.failed(3);
        assert!(err.contains(said), "{words:?} does not say {said}: {err}");
    }
}

#[tokio::test]
async fn four_is_a_key_that_does_not_open() {
    let server = TestServer::start().await;
    let here = Here::of(&server).with("SENDOFF_KEY", "so_nobody_nothing");
    let said = here.run(&["task", "list"]).await.failed(4);
    assert!(said.contains("The key came from SENDOFF_KEY") && said.contains("request id"), "{said}");
    assert!(!said.contains("so_nobody"), "a key is not repeated: {said}");
    let several = here.run(&["task", "run", "a", "b", "c"]).await.failed(4);
    assert_eq!(several.matches("unauthenticated").count(), 1, "the rest is not tried: {several}");
    let empty = Here::of(&server).with("SENDOFF_KEY", "file:none");
    assert!(empty.run(&["task", "list"]).await.failed(4).contains("failed to read none"));
}

#[tokio::test]
async fn five_is_a_conflict_and_seven_is_only_some() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let here = Here::of(&server);
    server.create(&target.url("/"), &json!({"task_id": "done:1"})).await;
    server.until("done:1", "succeeded").await;
    server.create(&target.url("/"), &json!({"task_id": "later:1", "delay": "1h"})).await;
    assert!(here.run(&["task", "cancel", "done:1", "--yes"]).await.failed(5).contains("wrong_state"));
    let taken = here.run(&["task", "create", &target.url("/other"), "--id", "done:1"]).await;
    assert!(taken.failed(5).contains("task_id_taken"));
    let some = here.run(&["task", "cancel", "done:1", "later:1", "nobody", "--yes", "-o", "name"]).await;
    assert_eq!(some.out, "later:1\n", "what was done is data");
    let err = some.failed(7);
    for part in ["sendoff: done:1: ", "sendoff: nobody: ", "sendoff: 1 of 3 done"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert_eq!(server.task("later:1").await["status"], "cancelled");
}

#[tokio::test]
async fn six_is_no_answer_and_says_where_it_was_sought() {
    let server = TestServer::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let here = Here::of(&server).with("SENDOFF_URL", &url);
    let said = here.run(&["task", "list"]).await.failed(6);
    assert!(said.contains(&format!("no server answers at {url} (from SENDOFF_URL)")), "{said}");
    assert!(said.contains("--url"), "it says what to do: {said}");
    here.run(&["healthcheck"]).await.failed(6);
    let target = Target::start().await;
    target.on("/readyz", [Reply::hang()]);
    let silent = here.run(&["healthcheck", "--timeout", "50ms", "--url", &target.url("")]).await.failed(6);
    assert!(silent.contains("it took too long"), "{silent}");
    let plain = server.client.url().replace("https:", "http:");
    let here = Here::of(&server).with("SENDOFF_URL", &plain);
    let said = here.run(&["task", "list"]).await.failed(6);
    assert!(said.contains("does not speak plain HTTP") && said.contains("begins with https://"), "{said}");
}

#[tokio::test]
async fn seventy_eight_is_a_configuration_that_is_not_valid() {
    let here = Here::alone();
    here.write("config.yaml", "server: { listne: 1 }\n");
    for words in [["task", "list"].as_slice(), &["healthcheck"], &["config", "check"], &["serve"]] {
        assert!(here.run(words).await.failed(78).contains("did you mean `listen`?"), "{words:?}");
    }
    assert_eq!(here.run(&["limits"]).await.code, 0, "what needs no configuration reads none");
}

#[test]
fn every_code_is_documented() {
    let docs = include_str!("../../../docs/cli.md");
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_sendoff")).arg("help").output().expect("it starts");
    let help = String::from_utf8(help.stdout).expect("text");
    for (code, meaning) in [
        (0, "done"),
        (1, "failed"),
        (2, "wrong usage"),
        (3, "not found"),
        (4, "no or unknown API key"),
        (5, "conflict"),
        (6, "no answer from the server"),
        (7, "only partly done"),
        (74, "the store: disk failed, damaged, or in use"),
        (78, "the configuration is not valid"),
    ] {
        assert!(docs.contains(&format!("| {code} | {meaning} |")), "docs/cli.md: {code} {meaning}");
        assert!(help.contains(&format!("{code} {meaning}")), "help: {code} {meaning}");
    }
}
