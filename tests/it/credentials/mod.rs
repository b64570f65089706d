//! What calls carry: named credentials on a real server with a real target, and where they may not go.

mod certificate;
mod documented;
mod id_tokens;
mod stored;
mod tokens;
mod webhook;

use std::path::Path;
use std::time::Duration;

use sendoff::config::{Config, CredentialConfig, CredentialKind, HostPattern, SecretRef};
use sendoff::task::CredentialName;
use serde_json::{Value, json};

use crate::support::server::{Home, TestServer, task};
use crate::support::target::Target;

const SEC: Duration = Duration::from_secs(1);

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).expect("a name")
}

/// A file with a secret in it.
fn secret(dir: &Path, file: &str, text: &str) -> SecretRef {
    let path = dir.join(file);
    std::fs::write(&path, text).expect("written");
    SecretRef::File(path)
}

fn of_kind(kind: CredentialKind, hosts: &[&str]) -> CredentialConfig {
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).expect("a pattern")).collect();
    CredentialConfig { hosts, allow_plain_http: false, also: Vec::new(), kind }
}

/// A home whose configuration has the three kinds that need no token: `billing`, `legacy`, `keyed`.
fn home(hosts: &[&str]) -> Home {
    let home = Home::new();
    let file = |name, text| secret(home.path(), name, text);
    let bearer = CredentialKind::Bearer { token: file("token", "s3cret-token\n") };
    let basic = CredentialKind::Basic { username: "me".to_owned(), password: file("password", "s3cret-pass") };
    let header = CredentialKind::Header { name: "x-api-key".to_owned(), value: file("key", "s3cret-key") };
    let all = [("billing", bearer), ("legacy", basic), ("keyed", header)];
    let all = all.map(|(one, kind)| (name(one), of_kind(kind, hosts)));
    home.with(|config| config.credentials = all.into())
}

/// Status, code and first pointer of what `POST /tasks` answers.
async fn refusal(server: &TestServer, url: &str, payload: Value) -> (u16, String, String) {
    let mut task = task(url, &json!({}));
    task["payload"].as_object_mut().expect("an object").extend(payload.as_object().expect("an object").clone());
    let answer = server.client.post("/tasks", &task).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), text(&answer.body["code"]), text(&answer.body["errors"][0]["pointer"]))
}

fn with_auth(url: &str, auth: &str) -> Value {
    json!({"payload": {"url": url, "auth": auth}})
}

#[tokio::test]
async fn a_named_credential_arrives_at_the_target_and_is_shown_to_nobody() {
    let (server, target) = (home(&["127.0.0.1:*"]).start().await, Target::start().await);
    for (auth, header, value) in [
        ("billing", "authorization", "Bearer s3cret-token"),
        ("legacy", "authorization", "Basic bWU6czNjcmV0LXBhc3M="),
        ("keyed", "x-api-key", "s3cret-key"),
    ] {
        let path = format!("/{auth}");
        let id = server.create(&target.url(&path), &with_auth(&target.url(&path), auth)).await;
        let shown = server.until(&id, "succeeded").await;
        let request = target.requests().into_iter().find(|request| request.path == path).expect("called");
        assert_eq!(request.header(header), Some(value));
        assert_eq!(shown["payload"]["auth"], auth);
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
    }
    let metrics = server.client.request(reqwest::Method::GET, "/metrics").send().await.expect("an answer");
    assert!(!metrics.text().await.expect("text").contains("s3cret"));
}

#[tokio::test]
async fn a_queue_has_a_credential_so_that_producers_name_none() {
    let home = home(&["127.0.0.1:*"]).with_queue("mail", |queue| queue.auth = Some(name("billing")));
    let (server, target) = (home.start().await, Target::start().await);
    let plain = server.create(&target.url("/plain"), &json!({})).await;
    let of_queue = server.create(&target.url("/queue"), &json!({"queue": "mail"})).await;
    let mut own = with_auth(&target.url("/own"), "keyed");
    own["queue"] = json!("mail");
    let own = server.create(&target.url("/own"), &own).await;
    for id in [&plain, &of_queue, &own] {
        server.until(id, "succeeded").await;
    }
    let sent = |path: &str| {
        let request = target.requests().into_iter().find(|request| request.path == path).expect("called");
        (request.header("authorization").map(str::to_owned), request.header("x-api-key").map(str::to_owned))
    };
    assert_eq!(sent("/plain"), (None, None));
    assert_eq!(sent("/queue"), (Some("Bearer s3cret-token".to_owned()), None));
    assert_eq!(sent("/own"), (None, Some("s3cret-key".to_owned())), "the task's own word is stronger");
}

#[tokio::test]
async fn what_can_be_seen_is_refused_when_the_task_is_posted() {
    let server = home(&["api.example.com", "127.0.0.1:*"])
        .with_queue("mail", |queue| queue.auth = Some(name("billing")))
        .start()
        .await;
    let told = |status: u16, code: &str, pointer: &str| (status, code.to_owned(), pointer.to_owned());
    let https = "https://api.example.com/";
    for (url, payload, expected) in [
        (https, json!({"auth": "biling"}), told(422, "unknown_credential", "/payload/auth")),
        (https, json!({"auth": 7}), told(422, "invalid_task", "/payload/auth")),
        ("https://evil.example/", json!({"auth": "billing"}), told(422, "credential_not_allowed", "/payload/url")),
        (
            "http://api.example.com/",
            json!({"auth": "billing"}),
            told(422, "credential_over_plain_http", "/payload/url"),
        ),
        (
            https,
            json!({"auth": "billing", "headers": {"Authorization": "x"}}),
            told(422, "invalid_task", "/payload/headers/Authorization"),
        ),
        (
            https,
            json!({"auth": "keyed", "headers": {"X-Api-Key": "x"}}),
            told(422, "invalid_task", "/payload/headers/X-Api-Key"),
        ),
    ] {
        assert_eq!(refusal(&server, url, payload.clone()).await, expected, "{url} {payload}");
    }
    let unknown = server.client.post("/tasks", &task(https, &with_auth(https, "biling"))).await;
    let detail = unknown.body["errors"][0]["detail"].as_str().expect("text").to_owned();
    assert_eq!(detail, "there is no credential `biling`; did you mean `billing`?");
    let by_queue = json!({"queue": "mail", "payload": {"url": "https://evil.example/"}});
    let by_queue = server.client.post("/tasks", &task("https://evil.example/", &by_queue)).await;
    assert_eq!((by_queue.status.as_u16(), &by_queue.body["code"]), (422, &json!("credential_not_allowed")));
    let mut other = with_auth(https, "keyed");
    other["payload"]["headers"] = json!({"authorization": "mine"});
    other["delay"] = json!("1h");
    let other = server.client.post("/tasks", &task(https, &other)).await;
    assert_eq!(other.status, 201, "a header that the credential does not set: {:?}", other.body);
}

#[tokio::test]
async fn what_has_changed_since_is_refused_before_any_request_and_names_the_rule() {
    let (mut server, target) = (home(&["127.0.0.1:*"]).start().await, Target::start().await);
    let mut delayed = with_auth(&target.url("/"), "billing");
    delayed["delay"] = json!("10s");
    let id = server.create(&target.url("/"), &delayed).await;
    let elsewhere = |config: &mut Config| {
        let credential = config.credentials.get_mut(&name("billing")).expect("it is there");
        credential.hosts = vec![HostPattern::parse("elsewhere.example").expect("a pattern")];
    };
    server.reload(elsewhere).await.expect("taken");
    server.advance(10 * SEC).await;
    let dead = server.until(&id, "dead").await;
    assert_eq!(
        (&dead["dead_reason"], &dead["last_error"]["class"]),
        (&json!("credential_refused"), &json!("credential_refused"))
    );
    let error = dead["last_error"]["error"].as_str().expect("text");
    assert!(error.contains("credentials.billing.hosts"), "{error}");
    assert!(target.requests().is_empty());
    let letters = server.client.get("/dlq?reason=credential_refused").await;
    assert_eq!(letters.body["dead_letters"][0]["task_id"], id.as_str(), "{:?}", letters.body);
}

#[tokio::test]
async fn a_rotated_secret_is_taken_over_by_a_reload_that_tells_so_and_a_bad_one_is_refused() {
    let home = home(&["127.0.0.1:*"]);
    let dir = home.path().to_owned();
    let (mut server, target) = (home.start().await, Target::start().await);
    secret(&dir, "token", "another");
    let changed = server.reload(|_| {}).await.expect("taken");
    assert_eq!(sendoff::config::one_line(&changed.live), "credentials.billing: what was there → another secret");
    secret(&dir, "token", "no token at all");
    let refused = server.reload(|_| {}).await.expect_err("refused").to_string();
    assert!(refused.contains("credentials.billing.token: a bearer token has no blanks"), "{refused}");
    let id = server.create(&target.url("/"), &with_auth(&target.url("/"), "billing")).await;
    server.until(&id, "succeeded").await;
    assert_eq!(target.requests()[0].header("authorization"), Some("Bearer another"));
}
