//! Callers that hold no API key: with the token of an issuer that runs beside the test, or with a client certificate. What
//! is accepted, what it allows, and what the issuer notices of it.

pub(crate) mod certificates;
mod documented;
mod keys;
mod refused;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::issuer::{Issuer, Signer, grants};
use crate::support::server::{Home, TestServer, task};

const SCOPES: [&str; 4] = ["read", "enqueue", "metrics", "manage:mail"];

/// A server that trusts an issuer, which has a key.
struct Stage {
    server: TestServer,
    issuer: Issuer,
    signer: Signer,
}

impl Stage {
    async fn set() -> Self {
        let signer = Signer::ec("one");
        let issuer = Issuer::start(&[&signer]).await;
        let home = Home::new().with(|config| issuer.trusted_by(config, grants(&SCOPES)));
        Self { server: home.with_queue("mail", |_| {}).start().await, issuer, signer }
    }

    /// Claims that are good at this moment, with something changed.
    fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({"can": ["read"]});
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        self.issuer.claims(self.server.now(), &claims)
    }

    /// A token by which may be read, with some of its claims changed.
    fn token(&self, changes: &Value) -> String {
        self.signer.sign(&self.claims(changes), |_| {})
    }

    /// Moves the clock so far that the server closes idle connections: its client has new ones then.
    fn later(&mut self, by: Duration) {
        self.server.hand().advance(by);
        let (url, config) = (self.server.client.url().to_owned(), self.server.config());
        self.server.client = Client::of(&url, &config.certs_dir.join("ca.pem"), &config.data_dir.join("admin.key"));
    }

    fn client(&self, token: &str) -> Client {
        self.server.client.with_key(token)
    }

    /// What whoever has this token is answered when they want to read.
    async fn reads(&self, token: &str) -> Answer {
        self.client(token).get("/tasks").await
    }

    /// The same with a token that is good now.
    async fn reads_well(&self) -> bool {
        self.reads(&self.token(&json!({}))).await.status == 200
    }
}

/// Status and code.
fn refusal(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_token_may_do_what_the_grants_that_fit_its_claims_allow_and_nothing_else() {
    let stage = Stage::set().await;
    let reader = stage.client(&stage.token(&json!({})));
    assert_eq!(reader.get("/tasks").await.status, 200);
    assert_eq!(reader.get("/queues/mail").await.status, 200);
    let refused = reader.post("/tasks", &task("http://127.0.0.1:9/", &json!({}))).await;
    assert_eq!(refusal(&refused), (403, "insufficient_scope"));
    assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"insufficient_scope\", scope=\"enqueue\"");
    let limited = stage.client(&stage.token(&json!({"can": ["read", "manage:mail"]})));
    assert_eq!(limited.post("/queues/mail/pause", &json!({})).await.status, 200);
    assert_eq!(refusal(&limited.post("/queues/default/pause", &json!({})).await), (403, "insufficient_scope"));
    // A good token that no grant fits.
    for can in [json!([]), json!("nothing"), json!(null), json!({"read": true}), json!("admin"), json!("rea")] {
        let nobody = stage.token(&json!({"can": can}));
        assert_eq!(refusal(&stage.reads(&nobody).await), (403, "insufficient_scope"), "{can}");
        assert_eq!(refusal(&stage.client(&nobody).get("/keys").await), (403, "insufficient_scope"), "{can}");
    }
    assert_eq!(stage.issuer.fetches(), 1, "one fetch for all of them");
}

/// Who the last administrative act in the audit log was by.
fn last_act_by(server: &TestServer) -> String {
    let log = std::fs::read_to_string(server.config().data_dir.join("audit.log")).expect("the log");
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    last["who"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn the_audit_log_names_issuer_and_subject() {
    let stage = Stage::set().await;
    let client = stage.client(&stage.token(&json!({"can": "manage:mail"})));
    assert_eq!(client.post("/queues/mail/pause", &json!({})).await.status, 200);
    assert_eq!(last_act_by(&stage.server), format!("{}#robot", stage.issuer.url()));
}

#[tokio::test]
async fn an_idempotency_key_is_the_subjects_own_whatever_token_it_has() {
    let stage = Stage::set().await;
    let task = task("http://127.0.0.1:9/", &json!({"delay": "1h"})).to_string();
    let mut ids = Vec::new();
    for (subject, repeats) in [("robot", false), ("robot", true), ("human", false)] {
        let token = stage.token(&json!({"can": "enqueue", "sub": subject, "jti": ids.len()}));
        let client = stage.client(&token);
        let request = client.request(reqwest::Method::POST, "/tasks").header("content-type", "application/json");
        let answer = client.send(request.header("idempotency-key", "one").body(task.clone())).await.unwrap();
        assert_eq!(answer.status.as_u16(), if repeats { 200 } else { 201 }, "{subject}: {:?}", answer.body);
        ids.push(answer.body["task_id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn wrong_tokens_and_wrong_keys_are_limited_together_and_a_good_one_is_never_locked_out() {
    let stage = Stage::set().await;
    let expired = stage.token(&json!({"exp": 1}));
    for _ in 0..15 {
        assert_eq!(refusal(&stage.reads(&expired).await), (401, "unauthenticated"));
        assert_eq!(refusal(&stage.reads("so_nobody00_nothing").await), (401, "unauthenticated"));
    }
    for wrong in [expired.as_str(), "so_nobody00_nothing"] {
        let limited = stage.reads(wrong).await;
        assert_eq!(
            (refusal(&limited), limited.headers.contains_key("retry-after")),
            ((429, "auth_rate_limited"), true)
        );
    }
    assert!(stage.reads_well().await, "from the same address");
}

#[tokio::test]
async fn grants_and_issuers_change_with_a_reload_and_keys_are_kept() {
    let mut stage = Stage::set().await;
    let token = stage.token(&json!({}));
    assert_eq!(stage.reads(&token).await.status, 200);
    let company = sendoff::task::CallerName::parse("company").unwrap();
    let changed = stage
        .server
        .reload(|config| config.callers.jwt.get_mut(&company).expect("it is there").grants.clear())
        .await
        .unwrap();
    assert!(changed.live.iter().all(|change| change.path.starts_with("callers.jwt.company.grants.")), "{changed:?}");
    assert_eq!(refusal(&stage.reads(&token).await), (403, "insufficient_scope"));
    assert_eq!(stage.issuer.fetches(), 1);
    stage.server.reload(|config| config.callers.jwt.clear()).await.unwrap();
    let stranger = stage.reads(&token).await;
    assert_eq!(refusal(&stranger), (401, "unauthenticated"));
    assert_eq!(stranger.body["detail"], stage.reads("so_nobody00_nothing").await.body["detail"], "a wrong key");
    stage.server.reload(|config| stage.issuer.trusted_by(config, grants(&SCOPES))).await.unwrap();
    assert_eq!(stage.reads(&token).await.status, 200);
    assert_eq!(stage.issuer.fetches(), 2, "it came back as a new one");
}
