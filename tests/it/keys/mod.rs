//! API keys and scopes on a real server: who may do what, what is seen, and what becomes of wrong keys.

pub(crate) mod matrix;

use std::time::Duration;

use reqwest::Method;
use sendoff::config::SecretRef;
use serde_json::{Value, json};

use crate::cli::here::Here;
use crate::support::client::{Answer, Client};
use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

/// A server with the queues `default`, `mail` and `other`.
pub(crate) async fn server() -> TestServer {
    home().start().await
}

fn home() -> Home {
    let home = Home::new().with_queue("mail", |_| {}).with_queue("other", |_| {});
    let key = home.path().join("credentials.key");
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").expect("written");
    home.with(|config| {
        config.credentials_key = Some(SecretRef::File(key));
        config.server.public_url = Some("https://queue.example".to_owned());
    })
}

/// Makes a key with these scopes; gives its id and the key itself.
pub(crate) async fn key(server: &TestServer, scopes: &[&str]) -> (String, String) {
    made(server, &json!({"name": "test", "scopes": scopes})).await
}

async fn made(server: &TestServer, asked: &Value) -> (String, String) {
    let made = server.client.post("/keys", asked).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_eq!(made.headers["x-content-type-options"], "nosniff");
    let text = |field: &str| made.body[field].as_str().expect("text").to_owned();
    (text("id"), text("key"))
}

/// A client with a key of these scopes.
async fn holder(server: &TestServer, scopes: &[&str]) -> Client {
    server.client.with_key(&key(server, scopes).await.1)
}

/// Status and code.
pub(crate) fn refusal(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn payloads_and_what_targets_answered_are_for_those_who_may_read_payloads() {
    let (server, target) = (server().await, Target::start().await);
    target.on("/", [Reply::with(200, &[], b"the answer")]);
    let sender = holder(&server, &["enqueue:mail"]).await;
    let task = crate::support::server::task(&target.url("/"), &json!({"queue": "mail", "labels": {"a": "b"}}));
    let accepted = sender.post("/tasks", &task).await;
    assert_eq!((accepted.status.as_u16(), &accepted.body["payload"]), (201, &Value::Null));
    assert!(accepted.body.get("attempts").is_none(), "who may only enqueue sees no history");
    let id = accepted.body["task_id"].as_str().expect("an id").to_owned();
    server.until(&id, "succeeded").await;
    let of = |client: Client, path: String| async move { client.get(&path).await.body };
    let (reader, trusted) = (holder(&server, &["read:mail"]).await, holder(&server, &["read_payload:mail"]).await);
    let seen = of(reader.clone(), format!("/tasks/{id}")).await;
    assert_eq!((&seen["payload"], &seen["attempts"][0]["response"]), (&Value::Null, &Value::Null));
    assert_eq!((&seen["attempts"][0]["http_status"], &seen["labels"]["a"]), (&json!(200), &json!("b")));
    let seen = of(trusted.clone(), format!("/tasks/{id}")).await;
    assert_eq!(seen["payload"], task["payload"]);
    assert_eq!(seen["attempts"][0]["response"], json!({"text": "the answer"}));
    for (client, payload) in [(reader, Value::Null), (trusted, task["payload"].clone())] {
        let listed = of(client, "/tasks?queue=mail".to_owned()).await;
        assert_eq!(listed["tasks"][0]["payload"], payload);
    }
}

#[tokio::test]
async fn lists_have_what_the_caller_may_see_page_by_page() {
    let server = server().await;
    for n in 0..6 {
        let queue = ["default", "mail", "other"][n % 3];
        server
            .create("http://127.0.0.1:9/", &json!({"queue": queue, "delay": "1h", "task_id": format!("t:{n}")}))
            .await;
    }
    let client = holder(&server, &["read:mail*", "read:default"]).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/tasks?limit=1{cursor}")).await.body;
        let tasks = page["tasks"].as_array().expect("tasks");
        assert!(tasks.len() <= 1);
        seen.extend(tasks.iter().map(|task| task["task_id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["t:4", "t:3", "t:1", "t:0"]);
    assert_eq!(client.get("/tasks?queue=other").await.body["tasks"], json!([]));
    let queues = client.get("/queues").await.body;
    let names: Vec<_> = queues["queues"].as_array().expect("queues").iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["default", "mail"]);
}

#[tokio::test]
async fn who_may_see_is_refused_and_who_may_not_is_told_nothing() {
    let server = server().await;
    let id = server.create("http://127.0.0.1:9/", &json!({"queue": "mail", "delay": "1h"})).await;
    let client = holder(&server, &["read", "manage:other"]).await;
    let refused = client.delete(&format!("/tasks/{id}")).await;
    assert_eq!(refusal(&refused), (403, "insufficient_scope"));
    assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"insufficient_scope\", scope=\"manage\"");
    assert_eq!(refusal(&client.post("/queues/mail/pause", &json!({})).await), (403, "insufficient_scope"));
    let blind = holder(&server, &["manage:other"]).await;
    assert_eq!(refusal(&blind.delete(&format!("/tasks/{id}")).await), (404, "not_found"));
    let sender = holder(&server, &["enqueue:other"]).await;
    let task = |queue: &str| crate::support::server::task("http://127.0.0.1:9/", &json!({"queue": queue}));
    let (known, unknown) = (sender.post("/tasks", &task("mail")).await, sender.post("/tasks", &task("mael")).await);
    assert_eq!((refusal(&known), refusal(&unknown)), ((422, "unknown_queue"), (422, "unknown_queue")));
    assert_eq!(
        known.body["detail"].as_str().unwrap().replace("mail", "mael"),
        unknown.body["detail"].as_str().unwrap()
    );
    let batch = sender.post("/tasks/batch", &json!([task("other"), task("mail")])).await;
    assert_eq!((refusal(&batch), &batch.body["errors"][0]["pointer"]), ((422, "unknown_queue"), &json!("/1/queue")));
}

#[tokio::test]
async fn a_key_is_rotated_over_a_restart_and_its_last_use_is_kept() {
    let server = server().await;
    let (first_id, first) = key(&server, &["read"]).await;
    let (second_id, second) = key(&server, &["read"]).await;
    for key in [&first, &second] {
        assert_eq!(server.client.with_key(key).get("/tasks").await.status, 200);
    }
    assert_eq!(server.client.delete(&format!("/keys/{first_id}")).await.status, 204);
    assert_eq!(server.client.delete(&format!("/keys/{first_id}")).await.status, 404);
    assert_eq!(server.client.with_key(&first).get("/tasks").await.status, 401);
    let home = server.stop().await;
    let files = std::fs::read_dir(home.path().join("data")).expect("it is there");
    for file in files.map(|file| file.expect("a file").path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).expect("it can be read");
        let secret = second.rsplit('_').next().expect("a secret").as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{} has a secret", file.display());
    }
    let server = home.start().await;
    assert_eq!(server.client.with_key(&first).get("/tasks").await.status, 401);
    let seen = server.client.get(&format!("/keys/{second_id}")).await.body;
    assert_eq!((&seen["last_used_at"], &seen["scopes"]), (&json!("2026-11-24T12:00:00.000Z"), &json!(["read"])));
    assert!(seen.get("key").is_none());
    assert_eq!(server.client.with_key(&second).get("/tasks").await.status, 200);
    let listed = server.client.get("/keys").await.body;
    let ids: Vec<_> = listed["keys"].as_array().expect("keys").iter().map(|key| &key["kept_in"]).collect();
    assert_eq!(ids, ["file", "store"]);
}

#[tokio::test]
async fn guessing_is_slowed_down_and_a_correct_key_is_never_locked_out() {
    let server = server().await;
    let stranger = server.client.with_key("so_nobody00_nothing");
    for _ in 0..30 {
        assert_eq!(refusal(&stranger.get("/tasks").await), (401, "unauthenticated"));
    }
    let limited = stranger.get("/tasks").await;
    assert_eq!(
        (refusal(&limited), &limited.headers["retry-after"]),
        ((429, "auth_rate_limited"), &"2".parse().unwrap())
    );
    assert_eq!(server.client.get("/tasks").await.status, 200, "from the same address");
    server.hand().advance(Duration::from_secs(2));
    assert_eq!(stranger.get("/tasks").await.status, 401, "Retry-After keeps its word");
    assert_eq!(stranger.get("/tasks").await.status, 429);
    let metrics = server.client.get("/metrics").await.body;
    let counted = "sendoff_authentication_failures_total{answer=\"unauthenticated\"} 31";
    assert!(metrics.as_str().expect("text").lines().any(|line| line == counted));
}

#[tokio::test]
async fn an_idempotency_key_is_the_callers_own() {
    let server = server().await;
    let task = crate::support::server::task("http://127.0.0.1:9/", &json!({"delay": "1h"})).to_string();
    let mut ids = Vec::new();
    for client in [holder(&server, &["enqueue"]).await, holder(&server, &["enqueue"]).await, server.client.clone()] {
        let send = || {
            let request = client.request(Method::POST, "/tasks").header("content-type", "application/json");
            client.send(request.header("idempotency-key", "one").body(task.clone()))
        };
        let (first, again) = (send().await.unwrap(), send().await.unwrap());
        assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
        assert_eq!(first.body["task_id"], again.body["task_id"]);
        ids.push(first.body["task_id"].as_str().expect("an id").to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn what_is_no_key_is_refused_with_every_fault() {
    let server = server().await;
    let refused = server.client.post("/keys", &json!({"name": "a b", "scopes": ["read", "write"], "expires": 1})).await;
    assert_eq!(refusal(&refused), (422, "invalid_key"));
    let faults: Vec<_> = refused.body["errors"].as_array().unwrap().iter().map(|fault| &fault["pointer"]).collect();
    assert_eq!(faults, ["/expires", "/name", "/scopes/1"]);
    for (asked, pointer) in [
        (json!({"name": "a"}), "/scopes"),
        (json!({"name": "a", "scopes": []}), "/scopes"),
        (json!({"name": "a", "scopes": "read"}), "/scopes"),
        (json!({"scopes": ["read"]}), "/name"),
        (json!({"name": "a", "scopes": ["admin:mail"]}), "/scopes/0"),
        (json!({"name": "a", "scopes": ["read"], "expires_at": "2026-11-24T12:00:00Z"}), "/expires_at"),
    ] {
        let refused = server.client.post("/keys", &asked).await;
        assert_eq!((refusal(&refused), &refused.body["errors"][0]["pointer"]), ((422, "invalid_key"), &json!(pointer)));
    }
    let admin = server.client.get("/keys").await.body["keys"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(refusal(&server.client.delete(&format!("/keys/{admin}")).await), (409, "key_in_file"));
    assert_eq!(server.client.get(&format!("/keys/{admin}")).await.body["kept_in"], "file");
}

#[tokio::test]
async fn the_command_line_makes_uses_lists_and_revokes_keys() {
    let server = server().await;
    let here = Here::of(&server);
    let made = here.run(&["key", "create", "ci", "--scope", "enqueue:mail", "--scope", "read:mail"]).await;
    assert!(made.err.contains("may enqueue:mail, read:mail. It is shown only now"), "{}", made.err);
    let key = made.ok();
    assert_eq!(key.lines().count(), 1, "the key alone, for a file");
    here.write("ci.key", &key);
    let with_key = |words: &[&'static str]| [words, &["--key", "file:ci.key"]].concat();
    let create = with_key(&["task", "create", "http://127.0.0.1:9/", "--queue", "mail", "--delay", "1h"]);
    assert_eq!(here.run(&create).await.code, 0);
    let refused = here.run(&with_key(&["key", "list"])).await.failed(4);
    assert!(refused.contains("scope `admin`") && refused.contains("ci.key"), "{refused}");
    let listed = here.run(&["key", "list"]).await.ok();
    assert!(listed.starts_with("id\tname\tscopes\texpires_at\tlast_used_at\tcreated_at\n"), "{listed}");
    assert!(listed.contains("\tci\tenqueue:mail read:mail\t"), "{listed}");
    let secret = key.trim().rsplit('_').next().expect("a secret");
    assert!(!listed.contains(secret) && !here.run(&["key", "list", "-o", "json"]).await.ok().contains(secret));
    let id = key.split('_').nth(1).expect("an id");
    let admin = here.run(&["key", "list", "-o", "name"]).await.ok().lines().next().expect("one").to_owned();
    assert!(here.run(&["key", "revoke", id]).await.failed(2).contains("--yes"));
    assert!(here.run(&["key", "revoke", key.trim(), "--yes"]).await.failed(2).contains("the part in the middle"));
    assert!(here.run(&["key", "revoke", &admin, "--yes"]).await.failed(5).contains("key_in_file"));
    assert_eq!(here.run(&["key", "revoke", id, "--yes"]).await.code, 0);
    here.run(&["key", "revoke", id, "--yes"]).await.failed(3);
    here.run(&with_key(&["task", "list"])).await.failed(4);
    let json = here.run(&["key", "create", "ci", "--scope", "metrics", "--expires-in", "90d", "-o", "json"]).await.ok();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(json["key"].as_str().is_some_and(|key| key.starts_with("so_")) && json["expires_at"].is_string());
    here.run(&["key", "create", "ci", "--scope", "everything"]).await.failed(2);
}
