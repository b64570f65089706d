//! The audit log of a real server: what has a line, what is in it, and what becomes of a server that cannot write it.

mod verify;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use sendoff::task::limits::AUTH_FAILURE_EVERY;
use serde_json::{Value, json};

use crate::cli::here::Here;
use crate::keys::matrix::{Operation, SCOPES, Stage, operations};
use crate::keys::{key, refusal, server};
use crate::support::client::Answer;
use crate::support::server::{Home, TestServer, task};
use crate::support::target::{Reply, Target};

/// How long a test waits for an event before it is taken to have failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn path(server: &TestServer) -> PathBuf {
    server.config().data_dir.join("audit.log")
}

fn lines(server: &TestServer) -> Vec<Value> {
    let text = fs::read_to_string(path(server)).expect("there is a log");
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The lines that this answer's request has.
fn lines_of(server: &TestServer, answer: &Answer) -> Vec<Value> {
    let id = answer.headers["x-request-id"].to_str().expect("text");
    lines(server).into_iter().filter(|line| line["request_id"] == id).collect()
}

fn operations_told(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["operation"].as_str().expect("text")).collect()
}

/// `sendoff audit verify` on this server's log: all of it fits together.
async fn verified(server: &TestServer) -> String {
    let path = path(server);
    Here::alone().run(&["audit", "verify", path.to_str().expect("text")]).await.ok()
}

fn is_administrative(operation: &Operation) -> bool {
    operation.scope.as_deref().is_some_and(|scope| ["manage", "redrive", "admin"].contains(&scope))
}

#[tokio::test]
async fn every_administrative_operation_has_one_line_and_no_other_has_any() {
    let (server, target) = (server().await, Target::start().await);
    let stage = Stage { server: &server, target: &target };
    let (id, key) = key(&server, &SCOPES).await;
    let document = server.client.get("/openapi.json").await.body;
    let mut acts = 0;
    for operation in operations(&document) {
        // What became of one task is in its own history.
        let is_of_a_task = ["cancel_task", "run_task"].contains(&&*operation.id);
        let is_act = is_administrative(&operation) && operation.method != "GET" && !is_of_a_task;
        assert_eq!(operation.audited, is_act, "{}: an administrative act has to be audited", operation.id);
        let answer = stage.call(&operation, |request| request.bearer_auth(&key)).await;
        let lines = lines_of(&server, &answer);
        assert_eq!(lines.len(), usize::from(is_act), "{}: {:?}", operation.id, answer.body);
        for line in lines {
            assert_eq!(line["operation"], format!("{} {}", operation.method, operation.path));
            assert_eq!((&line["who"], &line["name"], &line["result"]), (&json!(id), &json!("test"), &json!("ok")));
            assert!(line["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{line}");
            assert!(line["before"].is_object() || line["after"].is_object(), "{line}: nothing is told of it");
            acts += 1;
        }
    }
    assert!(acts >= 8, "{acts}");
    verified(&server).await;
}

#[tokio::test]
async fn a_refused_attempt_at_any_of_them_has_a_line_and_one_without_a_key_has_none() {
    let (server, target) = (server().await, Target::start().await);
    let stage = Stage { server: &server, target: &target };
    let (id, key) = key(&server, &["metrics"]).await;
    let document = server.client.get("/openapi.json").await.body;
    for operation in operations(&document) {
        let refused = stage.call(&operation, |request| request.bearer_auth(&key)).await;
        let told = lines_of(&server, &refused);
        assert_eq!(told.len(), usize::from(is_administrative(&operation)), "{}", operation.id);
        for line in told {
            let said = ["who", "result", "code"].map(|member| line[member].as_str().expect("text"));
            assert_eq!(said, [&id, "refused", "insufficient_scope"], "{}", operation.id);
        }
        server.hand().advance(AUTH_FAILURE_EVERY.to_duration());
        let unknown = stage.call(&operation, |request| request).await;
        assert_eq!(lines_of(&server, &unknown), [Value::Null; 0], "{}", operation.id);
    }
    let limited = server.client.with_key(&crate::keys::key(&server, &["read", "redrive:other"]).await.1);
    let id = stage.dead().await;
    let refused = limited.delete(&format!("/dlq/{id}")).await;
    assert_eq!(refusal(&refused), (403, "insufficient_scope"));
    assert_eq!(lines_of(&server, &refused)[0]["object"], format!("/dlq/{id}"));
    let unknown = server.client.delete("/dlq/none").await;
    assert_eq!(lines_of(&server, &unknown)[0]["code"], "not_found", "who may, and finds nothing, has tried as well");
}

#[tokio::test]
async fn lines_tell_how_it_was_and_how_it_is() {
    let (server, target) = (server().await, Target::start().await);
    let stage = Stage { server: &server, target: &target };
    let last = || lines(&server).pop().expect("a line");
    server.client.post("/queues/mail/pause", &json!({})).await;
    let line = last();
    assert_eq!((&line["object"], &line["name"]), (&json!("/queues/mail"), &json!("admin.key")));
    assert_eq!((&line["before"]["paused"], &line["after"]["paused"]), (&json!(false), &json!(true)));
    server.client.post("/v1/queues/mail/resume", &json!({})).await;
    let line = last();
    assert_eq!((&line["before"]["paused"], &line["after"]["paused"]), (&json!(true), &json!(false)));
    let (id, _) = key(&server, &["enqueue:mail"]).await;
    let kept = json!({"name": "test", "scopes": ["enqueue:mail"], "expires_at": null});
    let line = last();
    assert_eq!((&line["object"], &line["after"]), (&json!(format!("/keys/{id}")), &kept));
    server.client.delete(&format!("/keys/{id}")).await;
    assert_eq!((&last()["before"], &last()["result"]), (&kept, &json!("ok")));
    let id = stage.dead().await;
    server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    let line = last();
    assert_eq!((&line["before"]["status"], &line["after"]["series"]), (&json!("dead"), &json!(2)));
    server.until(&id, "dead").await;
    let filter = json!({"queue": "mail", "reason": "permanent_status"});
    server.client.post("/dlq/purge", &filter).await;
    let done = json!({"queue": "mail", "reason": "permanent_status", "dry_run": false, "matched": 1, "done": 1});
    assert_eq!(last()["after"], done);
}

#[tokio::test]
async fn start_stop_reload_and_certificates_have_lines_and_the_chain_goes_on_over_restarts() {
    let mut server = server().await;
    let first = lines(&server).remove(0);
    assert_eq!(
        (&first["operation"], &first["who"], &first["seq"]),
        (&json!("server_start"), &json!("local"), &json!(1))
    );
    assert_eq!(first["after"]["admin_key"], "created");
    server.reload(|config| config.workers.max_concurrent = 7).await.expect("it is taken");
    let line = lines(&server).pop().expect("a line");
    assert_eq!((&line["operation"], &line["result"]), (&json!("config_reload"), &json!("ok")));
    assert_eq!(line["after"]["changed"], "workers.max_concurrent: 1024 → 7");
    let bad = server.config().data_dir.join("none.pem");
    server.reload(|config| config.egress.ca_files = vec![bad]).await.expect_err("there is no such file");
    let line = lines(&server).pop().expect("a line");
    assert_eq!(
        (&line["result"], &line["code"], &line["after"]),
        (&json!("refused"), &json!("config_refused"), &Value::Null)
    );

    let config = server.config();
    sendoff::security::certificate::renew(&config.server, &config.certs_dir, server.now()).expect("it is renewed");
    let told = async {
        while !operations_told(&lines(&server)).contains(&"certificate_replaced") {
            server.advance(Duration::from_secs(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, told).await.is_ok(), "no line: {:?}", lines(&server));

    let home = server.stop().await;
    let server = home.start().await;
    let lines = lines(&server);
    let operations = operations_told(&lines);
    assert_eq!(operations[operations.len() - 2..], ["server_stop", "server_start"]);
    assert_eq!(lines[lines.len() - 2]["after"]["by"], "the test");
    assert_eq!(lines[lines.len() - 1]["seq"], lines.len());
    verified(&server).await;
}

#[tokio::test]
async fn acts_at_one_time_keep_the_chain() {
    let server = server().await;
    let acts = (0..24).map(|n| {
        let (server, verb) = (&server, ["pause", "resume"][n % 2]);
        async move { server.client.post(&format!("/queues/mail/{verb}"), &json!({})).await }
    });
    let answers = join_all(acts).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), lines_of(&server, answer).len()), (200, 1));
    }
    let seqs: Vec<_> = lines(&server).iter().map(|line| line["seq"].as_u64().expect("a number")).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert!(verified(&server).await.contains(&format!("{} lines fit together", seqs.len())));
}

#[tokio::test]
async fn a_line_that_a_crash_cut_short_is_cut_off_and_one_that_somebody_changed_is_told() {
    let server = server().await;
    server.client.post("/queues/mail/pause", &json!({})).await;
    let path = path(&server);
    let home = server.stop().await;
    let text = fs::read_to_string(&path).expect("a log");
    fs::write(&path, &text[..text.len() - 20]).expect("written");
    let server = home.start().await;
    let found = lines(&server);
    assert_eq!(operations_told(&found)[2..], ["audit_log_repaired", "server_start"]);
    verified(&server).await;

    let home = server.stop().await;
    let text = fs::read_to_string(&path).expect("a log");
    fs::write(&path, text.replace("/queues/mail", "/queues/maul")).expect("written");
    let server = home.start().await;
    let found = lines(&server);
    assert_eq!(operations_told(&found)[found.len() - 2..], ["audit_log_broken", "server_start"]);
    assert_eq!(server.client.post("/queues/mail/resume", &json!({})).await.status, 200, "it goes on all the same");
    let said = Here::alone().run(&["audit", "verify", path.to_str().expect("text")]).await.failed(1);
    assert!(said.contains("line 2: its text does not fit its `hash`"), "{said}");
}

#[tokio::test]
async fn nothing_is_done_that_cannot_be_written_down_and_tasks_go_on() {
    let home = Home::new().with_queue("mail", |_| {});
    let log = home.path().join("data/audit.log");
    fs::create_dir_all(&log).expect("a directory in its place");
    let mut server = home.start().await;
    let target = Target::start().await;
    let paused = server.client.post("/queues/mail/pause", &json!({})).await;
    assert_eq!(refusal(&paused), (503, "audit_unavailable"));
    let made = server.client.post("/keys", &json!({"name": "a", "scopes": ["read"]})).await;
    assert_eq!(refusal(&made), (503, "audit_unavailable"));
    let reload = server.reload(|config| config.workers.max_concurrent = 7).await.expect_err("not written down");
    assert!(reload.to_string().contains("could not be written down"), "{reload}");
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], false);
    assert_eq!(server.client.get("/keys").await.body["keys"].as_array().map(Vec::len), Some(1));
    let metrics = server.client.get("/metrics").await.body;
    assert!(metrics.as_str().expect("text").contains("sendoff_audit_failures_total"), "{metrics}");
    let id = server.create(&target.url("/"), &json!({})).await;
    server.until(&id, "succeeded").await;

    fs::remove_dir(&log).expect("it is empty");
    assert_eq!(server.client.post("/queues/mail/pause", &json!({})).await.status, 200);
    assert_eq!(operations_told(&lines(&server)), ["POST /queues/{queue}/pause"]);
    verified(&server).await;
}

#[tokio::test]
async fn no_secret_and_no_payload_is_in_it() {
    const CANARY: &str = "canary-5b1f";
    let (mut server, target) = (server().await, Target::start().await);
    target.on("/", [Reply::with(404, &[], CANARY.as_bytes())]);
    let (id, secret) = key(&server, &SCOPES).await;
    let holder = server.client.with_key(&secret);
    let headers = json!({"authorization": CANARY, "x-own": CANARY});
    let payload = json!({"url": target.url("/"), "headers": headers, "body": CANARY});
    let mut dead = task(&target.url("/"), &json!({"queue": "mail", "retry": {"max_attempts": 1}}));
    dead["payload"] = payload;
    let made = holder.post("/tasks", &dead).await.body["task_id"].as_str().expect("an id").to_owned();
    server.until(&made, "dead").await;
    holder.post(&format!("/dlq/{made}/redrive?x={CANARY}"), &json!({})).await;
    holder.post("/dlq/redrive", &json!({"queue": "mail"})).await;
    server.until(&made, "dead").await;
    holder.post("/dlq/purge", &json!({"queue": "mail", "reason": CANARY})).await;
    holder.post("/keys", &json!({"name": "x", "scopes": ["read"], "secret": CANARY})).await;
    holder.delete(&format!("/keys/{secret}")).await;
    server.client.with_key(&format!("so_{CANARY}")).delete("/dlq/x").await;
    server.reload(|config| config.workers.max_concurrent = 7).await.expect("it is taken");
    holder.delete(&format!("/keys/{id}")).await;
    let text = fs::read_to_string(path(&server)).expect("a log");
    assert!(text.lines().count() >= 8, "{text}");
    let admin = fs::read_to_string(server.config().data_dir.join("admin.key")).expect("a key");
    for secret in [CANARY, secret.rsplit('_').next().expect("it"), admin.trim().rsplit('_').next().expect("it")] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}
