//! Tokens of a real issuer on loopback, slow, busy, broken and strict: what tasks do meanwhile, and what is asked of it.

use std::path::Path;
use std::time::Duration;

use sendoff::config::{
    ClientAuth, ClientCredentials, Config, CredentialConfig, CredentialKind, HostPattern, SecretRef, Wanted,
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{SEC, name, of_kind, secret, with_auth};
use crate::support::server::{Home, TestServer};
use crate::support::target::{Gate, Recorded, Reply, Target};

/// An issuer and a target, and a server between them with the credential `billing`.
pub(super) struct Stage {
    pub(super) server: TestServer,
    pub(super) issuer: Target,
    pub(super) target: Target,
}

/// A token that lives so long.
pub(super) fn token(text: &str, seconds: u64) -> Reply {
    let body = json!({"access_token": text, "token_type": "Bearer", "expires_in": seconds}).to_string();
    Reply::with(200, &[("content-type", "application/json")], body.as_bytes())
}

fn refusal(status: u16, code: &str) -> Reply {
    let body = json!({"error": code, "error_description": "s3cret"}).to_string();
    Reply::with(status, &[("content-type", "application/json")], body.as_bytes())
}

fn client(issuer: &Target, dir: &Path) -> ClientCredentials {
    ClientCredentials {
        token_url: issuer.url("/token").parse().expect("a URL"),
        client_id: "so:me".to_owned(),
        auth: ClientAuth::SecretBasic(secret(dir, "client-secret", "s3cret/+ü")),
        scopes: vec!["charge".to_owned(), "refund".to_owned()],
        audience: None,
    }
}

impl Stage {
    pub(super) async fn with(kind: impl FnOnce(&Target, &Path) -> CredentialKind) -> Self {
        let (issuer, target, home) = (Target::start().await, Target::start().await, Home::new());
        let credential = of_kind(kind(&issuer, home.path()), &["127.0.0.1:*"]);
        let all = [(name("billing"), credential)].into();
        let server = home.with(|config| config.credentials = all).start().await;
        Self { server, issuer, target }
    }

    /// With a client that shows its secret as the standard prefers.
    async fn set() -> Self {
        Self::with(|issuer, dir| CredentialKind::ClientCredentials(Box::new(client(issuer, dir)))).await
    }

    /// A task with the credential, without jitter in its retries; gives its id.
    pub(super) async fn post(&self, retry: Value) -> String {
        let mut task = with_auth(&self.target.url("/"), "billing");
        task["retry"] = retry;
        task["retry"]["jitter"] = json!(0);
        self.server.create(&self.target.url("/"), &task).await
    }

    async fn done(&self) -> Value {
        let id = self.post(json!({})).await;
        self.server.until(&id, "succeeded").await
    }

    /// Waits until it waits for the credential, for the so-many-th time.
    async fn waits(&self, id: &str, asked: usize) -> Value {
        self.issuer.requests_at_least(asked).await;
        let waits = |task: &Value| task["status"] == "retrying" && task["last_error"]["class"] == "auth_unavailable";
        self.server.until_it(id, waits).await
    }

    /// The credentials that the target has seen, in order.
    fn seen(&self) -> Vec<String> {
        let value = |request: &Recorded| request.header("authorization").unwrap_or("none").to_owned();
        self.target.requests().iter().map(value).collect()
    }

    async fn metrics(&self) -> String {
        let request = self.server.client.request(reqwest::Method::GET, "/metrics");
        request.send().await.expect("an answer").text().await.expect("text")
    }
}

/// The fields of a form.
fn form(request: &Recorded) -> Vec<(String, String)> {
    form_urlencoded::parse(&request.body).into_owned().collect()
}

pub(super) fn field<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_until_it_is_old() {
    let stage = Stage::set().await;
    stage.issuer.on("/token", [token("one", 100), token("two", 100)]);
    stage.done().await;
    stage.done().await;
    stage.server.advance(81 * SEC).await;
    stage.done().await;
    assert_eq!(stage.seen(), ["Bearer one", "Bearer one", "Bearer two"]);
    let asked = stage.issuer.requests();
    assert_eq!(asked.len(), 2);
    // RFC 6749 section 2.3.1: both parts form-encoded, then Basic.
    assert_eq!(asked[0].header("authorization"), Some("Basic c28lM0FtZTpzM2NyZXQlMkYlMkIlQzMlQkM="));
    assert_eq!(asked[0].header("user-agent"), Some(concat!("sendoff/", env!("CARGO_PKG_VERSION"))));
    let form = form(&asked[0]);
    assert_eq!(field(&form, "grant_type"), Some("client_credentials"));
    assert_eq!((field(&form, "scope"), field(&form, "audience")), (Some("charge refund"), None));
    let metrics = stage.metrics().await;
    for line in [
        r#"sendoff_token_fetches_total{credential="billing",result="ok"} 2"#,
        r#"sendoff_token_cache_hits_total{credential="billing"} 1"#,
        "sendoff_token_wait_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_client_may_show_its_secret_in_the_form_and_name_an_audience() {
    let stage = Stage::with(|issuer, dir| {
        let mut client = client(issuer, dir);
        client.auth = ClientAuth::SecretPost(secret(dir, "client-secret", "s3cret"));
        client.audience = Some("https://api.example".to_owned());
        CredentialKind::ClientCredentials(Box::new(client))
    })
    .await;
    stage.issuer.on("/token", [token("one", 100)]);
    stage.done().await;
    let asked = &stage.issuer.requests()[0];
    let form = form(asked);
    assert_eq!(asked.header("authorization"), None);
    assert_eq!((field(&form, "client_id"), field(&form, "client_secret")), (Some("so:me"), Some("s3cret")));
    assert_eq!(field(&form, "audience"), Some("https://api.example"));
}

#[tokio::test]
async fn a_slow_issuer_is_waited_for_and_one_that_never_answers_makes_no_attempt() {
    let stage = Stage::set().await;
    let gate = Gate::new();
    stage.issuer.on("/token", [Reply::default().wait(&gate).and(token("one", 1)), Reply::hang(), token("two", 100)]);
    let id = stage.post(json!({})).await;
    stage.issuer.requests_at_least(1).await;
    assert_eq!(stage.server.task(&id).await["status"], "running");
    gate.open();
    stage.server.until(&id, "succeeded").await;

    stage.server.advance(SEC).await;
    let late = stage.post(json!({"max_attempts": 1})).await;
    stage.issuer.requests_at_least(2).await;
    stage.server.advance(10 * SEC).await;
    let shown = stage.waits(&late, 2).await;
    assert_eq!((&shown["attempt_count"], &shown["retry_count"]), (&json!(0), &json!(0)));
    let error = shown["last_error"]["error"].as_str().expect("text");
    assert_eq!(error, "there is no token for the credential `billing`: the token issuer did not answer within 10s");
    stage.server.advance(SEC).await;
    let done = stage.server.until(&late, "succeeded").await;
    assert_eq!(done["attempt_count"], 1, "the first that was made");
    assert_eq!(stage.seen(), ["Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn a_busy_issuer_is_asked_again_when_it_says_and_not_before() {
    let stage = Stage::set().await;
    let busy = Reply::with(429, &[("retry-after", "30")], b"");
    stage.issuer.on("/token", [busy, token("one", 100)]);
    let first = stage.post(json!({})).await;
    stage.waits(&first, 1).await;
    let second = stage.post(json!({})).await;
    let shown = stage.waits(&second, 1).await;
    assert!(shown["last_error"]["error"].as_str().expect("text").ends_with("the token issuer answered 429"));
    stage.server.advance(Duration::from_millis(29_990)).await;
    assert_eq!(stage.server.task(&first).await["status"], "retrying");
    assert_eq!(stage.issuer.requests().len(), 1, "left alone, by both");
    stage.server.advance(SEC).await;
    for id in [&first, &second] {
        assert_eq!(stage.server.until(id, "succeeded").await["attempt_count"], 1);
    }
    assert_eq!(stage.issuer.requests().len(), 2);
}

#[tokio::test]
async fn a_broken_issuer_is_tried_as_long_as_the_task_may_wait() {
    let stage = Stage::set().await;
    stage.issuer.on("/token", [Reply::status(500)]);
    let id = stage.post(json!({"credential_wait_max": "4s"})).await;
    for (asked, wait) in [(1, 1), (2, 2), (3, 1)] {
        stage.waits(&id, asked).await;
        stage.server.advance(wait * SEC).await;
    }
    // The last question would come while the issuer is left alone; what is known of it is told again.
    let dead = stage.server.until(&id, "dead").await;
    assert_eq!(dead["dead_reason"], "auth_unavailable");
    assert_eq!((&dead["attempt_count"], stage.target.requests().len()), (&json!(0), 0));
    assert_eq!(dead["attempts"][0]["class"], "auth_unavailable");
    let metrics = stage.metrics().await;
    assert!(metrics.contains(r#"sendoff_token_fetches_total{credential="billing",result="http_status"}"#), "{metrics}");
    assert!(metrics.contains(r#"sendoff_attempts_total{queue="default",class="auth_unavailable"} 4"#), "{metrics}");

    stage.issuer.on("/token", [token("one", 100)]);
    stage.server.advance(10 * SEC).await;
    let redriven = stage.server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    assert_eq!(redriven.status, 200, "{:?}", redriven.body);
    let done = stage.server.until(&id, "succeeded").await;
    assert_eq!(stage.target.requests()[0].header("sendoff-redelivery"), Some("false"), "{done}");
}

#[tokio::test]
async fn the_issuers_own_no_is_final_at_the_third_time_and_what_it_says_is_not_repeated() {
    for (status, code) in [(400, "invalid_scope"), (401, "invalid_client")] {
        let stage = Stage::set().await;
        stage.issuer.on("/token", [refusal(status, code)]);
        let id = stage.post(json!({})).await;
        stage.waits(&id, 1).await;
        stage.server.advance(SEC).await;
        stage.waits(&id, 2).await;
        stage.server.advance(2 * SEC).await;
        let dead = stage.server.until(&id, "dead").await;
        assert_eq!((&dead["dead_reason"], stage.issuer.requests().len()), (&json!("auth_unavailable"), 3));
        let error = dead["last_error"]["error"].as_str().expect("text");
        assert!(error.ends_with(&format!("the token issuer answered {status}: {code}")), "{error}");
        assert!(!dead.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_secret_rotated_at_the_issuer_is_taken_over_by_a_reload_and_the_tasks_go_on() {
    let mut stage = Stage::set().await;
    stage.issuer.on("/token", [refusal(401, "invalid_client"), token("one", 100)]);
    let id = stage.post(json!({})).await;
    stage.waits(&id, 1).await;
    let CredentialKind::ClientCredentials(client) = &stage.server.config().credentials[&name("billing")].kind else {
        panic!("another kind");
    };
    let ClientAuth::SecretBasic(SecretRef::File(path)) = client.auth.clone() else { panic!("another way") };
    std::fs::write(path, "new").expect("written");
    stage.server.reload(|_| {}).await.expect("taken");
    stage.server.advance(SEC).await;
    stage.server.until(&id, "succeeded").await;
    assert_eq!(stage.issuer.requests()[1].header("authorization"), Some("Basic c28lM0FtZTpuZXc="));
}

#[tokio::test]
async fn a_401_to_a_token_of_before_costs_an_attempt_and_the_token_and_a_second_one_is_dead() {
    let stage = Stage::set().await;
    stage.issuer.on("/token", [token("one", 1_000), token("two", 1_000), token("three", 1_000)]);
    stage.done().await;
    stage.target.on("/", [Reply::status(401), Reply::status(200), Reply::status(401)]);
    let id = stage.post(json!({})).await;
    let waits = |task: &Value| task["status"] == "retrying";
    let shown = stage.server.until_it(&id, waits).await;
    assert_eq!((&shown["last_error"]["class"], &shown["attempt_count"]), (&json!("auth"), &json!(1)));
    stage.server.advance(SEC).await;
    assert_eq!(stage.server.until(&id, "succeeded").await["attempt_count"], 2);
    assert_eq!(stage.seen(), ["Bearer one", "Bearer one", "Bearer two"]);
    assert_eq!(stage.issuer.requests().len(), 2, "one question more");

    // The target now refuses every token: the cached one is forgiven once, the fresh one is not.
    let strict = stage.post(json!({})).await;
    stage.server.until_it(&strict, waits).await;
    stage.server.advance(SEC).await;
    let dead = stage.server.until(&strict, "dead").await;
    assert_eq!((&dead["dead_reason"], &dead["attempt_count"]), (&json!("permanent_status"), &json!(2)));
    assert_eq!(dead["last_error"]["error"], "the target refused a fresh token");
    assert_eq!(stage.seen()[3..], ["Bearer two", "Bearer three"]);
}

#[tokio::test]
async fn with_a_fresh_token_a_401_is_what_the_table_says_of_it() {
    let stage = Stage::set().await;
    stage.issuer.on("/token", [token("one", 100)]);
    stage.target.on("/", [Reply::status(401)]);
    let id = stage.post(json!({})).await;
    assert_eq!(stage.server.until(&id, "dead").await["dead_reason"], "permanent_status");
    let forgiven = stage.post(json!({"on_status": {"401": "done"}})).await;
    stage.server.until(&forgiven, "succeeded").await;
}

#[tokio::test]
async fn a_thousand_tasks_at_the_moment_of_expiry_ask_once() {
    let home = Home::new();
    let (issuer, target) = (Target::start().await, Target::start().await);
    let kind = CredentialKind::ClientCredentials(Box::new(client(&issuer, home.path())));
    let all = [(name("billing"), of_kind(kind, &["127.0.0.1:*"]))].into();
    let server = home
        .with(|config: &mut Config| {
            config.credentials = all;
            config.hosts.defaults.max_concurrent = 1_000;
        })
        .start()
        .await;
    let stage = Stage { server, issuer, target };
    let gate = Gate::new();
    let gated = Reply::default().wait(&gate).and(token("two", 1_000));
    stage.issuer.on("/token", [token("one", 100), gated]);
    stage.done().await;
    stage.server.advance(100 * SEC).await;
    let mut task = with_auth(&stage.target.url("/"), "billing");
    task["task_type"] = json!("http_request");
    let batch: Vec<Value> = vec![task; 1_000];
    let accepted = stage.server.client.post("/tasks/batch", &json!(batch)).await;
    assert_eq!(accepted.status, 201, "{:?}", accepted.body);
    stage.issuer.requests_at_least(2).await;
    let running = |queue: &Value| queue["tasks"]["running"] == 1_000;
    let mut queue = stage.server.client.get("/queues/default").await.body;
    while !running(&queue) {
        queue = stage.server.client.get("/queues/default").await.body;
    }
    assert_eq!(stage.issuer.requests().len(), 2, "all of them wait for one answer");
    gate.open();
    stage.target.requests_at_least(1_001).await;
    assert_eq!(stage.issuer.requests().len(), 2);
    assert!(stage.seen()[1..].iter().all(|seen| seen == "Bearer two"));
}

#[tokio::test]
async fn what_is_forbidden_while_a_token_is_waited_for_is_not_done_when_it_comes() {
    let narrower = |config: &mut Config| {
        let credential = config.credentials.get_mut(&name("billing")).expect("it is there");
        credential.hosts = vec![HostPattern::parse("elsewhere.example").expect("a pattern")];
    };
    let denied = |config: &mut Config| config.egress.deny_nets = vec!["127.0.0.1/32".parse().expect("a network")];
    let changes = [(narrower as fn(&mut Config), "credential_refused"), (denied, "egress_refused")];
    for (change, reason) in changes {
        let mut stage = Stage::set().await;
        let gate = Gate::new();
        stage.issuer.on("/token", [Reply::default().wait(&gate).and(token("one", 100))]);
        let id = stage.post(json!({})).await;
        stage.issuer.requests_at_least(1).await;
        stage.server.reload(change).await.expect("taken");
        gate.open();
        assert_eq!(stage.server.until(&id, "dead").await["dead_reason"], reason);
        assert!(stage.target.requests().is_empty(), "{reason}");
    }
}

#[tokio::test]
async fn an_issuer_is_called_through_the_guarded_client() {
    let (issuer, elsewhere) = (Target::start().await, Target::start().await);
    issuer.on("/token", [Reply::with(302, &[("location", &elsewhere.url("/"))], b"")]);
    let (home, target) = (Home::new(), Target::start().await);
    let mut private = client(&issuer, home.path());
    private.token_url = "https://10.0.0.7/token".parse().expect("a URL");
    let one = |client| of_kind(CredentialKind::ClientCredentials(Box::new(client)), &["127.0.0.1:*"]);
    let all = [(name("moved"), one(client(&issuer, home.path()))), (name("private"), one(private))].into();
    let server = home.with(|config| config.credentials = all).start().await;
    for (auth, told) in [("moved", "the token issuer answered 302"), ("private", "the token issuer may not be called")]
    {
        let id = server.create(&target.url("/"), &with_auth(&target.url("/"), auth)).await;
        let waits = |task: &Value| task["status"] == "retrying";
        let error = server.until_it(&id, waits).await["last_error"]["error"].as_str().expect("text").to_owned();
        assert!(error.contains(told), "{error}");
    }
    assert!(elsewhere.requests().is_empty(), "redirects are not followed");
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_none_and_is_not_repeated() {
    let json = [("content-type", "application/json")];
    for body in [
        r#"{"access_token":"s3cret"}"#,
        r#"{"access_token":"s3cret","token_type":"mac"}"#,
        r#"{"access_token":"s3cret x","token_type":"Bearer"}"#,
        r#"{"access_token":"a","token_type":"Bearer","expires_in":"s3cret"}"#,
        "s3cret",
        "",
    ] {
        let stage = Stage::set().await;
        stage.issuer.on("/token", [Reply::with(200, &json, body.as_bytes())]);
        let id = stage.post(json!({})).await;
        let shown = stage.waits(&id, 1).await;
        assert!(shown["last_error"]["error"].as_str().expect("text").contains("answered 200 without"), "{shown}");
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn a_credential_that_a_reload_took_out_is_waited_for_and_may_come_back() {
    let mut stage = Stage::set().await;
    stage.issuer.on("/token", [token("one", 1_000)]);
    let mut delayed = with_auth(&stage.target.url("/"), "billing");
    delayed["delay"] = json!("1s");
    let id = stage.server.create(&stage.target.url("/"), &delayed).await;
    let kept: CredentialConfig = stage.server.config().credentials[&name("billing")].clone();
    stage.server.reload(|config| config.credentials.clear()).await.expect("taken");
    stage.server.advance(SEC).await;
    let waits = |task: &Value| task["last_error"]["class"] == "auth_unavailable";
    let shown = stage.server.until_it(&id, waits).await;
    assert_eq!(shown["last_error"]["error"], "there is no credential `billing`");
    stage.server.reload(|config| drop(config.credentials.insert(name("billing"), kept))).await.expect("taken");
    stage.server.advance(SEC).await;
    stage.server.until(&id, "succeeded").await;
}

#[tokio::test]
async fn tokens_are_kept_over_a_reload_that_does_not_concern_them() {
    let mut stage = Stage::set().await;
    stage.issuer.on("/token", [token("one", 1_000), token("two", 1_000)]);
    stage.done().await;
    stage.server.reload(|config| config.workers.max_concurrent = 9).await.expect("taken");
    stage.done().await;
    stage
        .server
        .reload(|config| {
            let credential = config.credentials.get_mut(&name("billing")).expect("it is there");
            credential.hosts.push(HostPattern::parse("a.example").expect("a pattern"));
        })
        .await
        .expect("taken");
    stage.done().await;
    assert_eq!(stage.seen(), ["Bearer one", "Bearer one", "Bearer two"]);
}

mod signed;

/// What a service account asks for, as its tests need it.
fn service_account(issuer: &Target, dir: &Path, wanted: Wanted, pem: &str) -> CredentialKind {
    let file = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": pem,
        "client_email": "me@p.example", "token_uri": issuer.url("/token"),
    });
    CredentialKind::ServiceAccount { key: secret(dir, "key.json", &file.to_string()), wanted }
}
