//! ID tokens that we issue ourselves, verified as a handler would: from our discovery document to our keys over HTTPS,
//! with a library and nothing of ours.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use reqwest::Method;
use sendoff::config::{CredentialConfig, CredentialKind};
use serde_json::{Value, json};

use super::{SEC, name, of_kind, with_auth};
use crate::support::client::Answer;
use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/.well-known/jwks.json";
const DAY: Duration = Duration::from_secs(86_400);

fn oidc(audience: Option<&str>) -> CredentialConfig {
    of_kind(CredentialKind::Oidc { audience: audience.map(str::to_owned) }, &["127.0.0.1:*"])
}

/// A server that issues tokens under its own address, and a target: `own` for the target's origin, `orders` for `orders`.
struct Stage {
    server: TestServer,
    target: Target,
    issuer: String,
}

impl Stage {
    async fn set() -> Self {
        let (mut server, target) = (TestServer::start().await, Target::start().await);
        let issuer = server.client.url().to_owned();
        let all = [(name("own"), oidc(None)), (name("orders"), oidc(Some("orders")))];
        let taken = server.reload(|config| {
            config.server.public_url = Some(issuer.clone());
            config.credentials = all.into();
        });
        taken.await.expect("taken");
        Self { server, target, issuer }
    }

    /// The token with which a new task reaches the target.
    async fn token(&self, auth: &str) -> String {
        let id = self.server.create(&self.target.url("/"), &with_auth(&self.target.url("/"), auth)).await;
        self.server.until(&id, "succeeded").await;
        self.seen().pop().expect("a call")
    }

    /// Every token that the target has seen.
    fn seen(&self) -> Vec<String> {
        let token = |value: &str| value.strip_prefix("Bearer ").expect("a bearer token").to_owned();
        self.target.requests().iter().map(|request| token(request.header("authorization").expect("it"))).collect()
    }

    async fn verified(&self, token: &str, audience: &str) -> Result<Value, String> {
        verified(&self.server, &self.issuer, token, audience).await
    }
}

async fn bare(server: &TestServer, path: &str) -> Answer {
    server.client.send(server.client.bare(Method::GET, path)).await.expect("an answer")
}

/// The ids of the published keys.
async fn published(server: &TestServer) -> Vec<String> {
    let keys = bare(server, KEYS).await.body["keys"].as_array().expect("keys").clone();
    keys.iter().map(|key| key["kid"].as_str().expect("an id").to_owned()).collect()
}

fn kid(token: &str) -> String {
    decode_header(token).expect("a header").kid.expect("a kid")
}

/// What a handler does with a token. Its clock is the server's.
async fn verified(server: &TestServer, issuer: &str, token: &str, audience: &str) -> Result<Value, String> {
    let discovery = bare(server, DISCOVERY).await.body;
    assert_eq!(discovery["issuer"], issuer);
    let keys = discovery["jwks_uri"].as_str().and_then(|uri| uri.strip_prefix(issuer)).expect("below the issuer");
    let keys: JwkSet = serde_json::from_value(bare(server, keys).await.body).expect("a key set");
    let key = keys.find(&kid(token)).ok_or("an unknown key")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    // The library looks at the clock of the machine.
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(key).expect("a key");
    let claims = decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?.claims;
    let now = server.now().get() / 1_000;
    if claims["exp"].as_i64().expect("exp") <= now { Err("it is over".to_owned()) } else { Ok(claims) }
}

#[tokio::test]
async fn a_handler_verifies_our_token_by_our_discovery_document_and_no_other_token() {
    let stage = Stage::set().await;
    let token = stage.token("own").await;
    let audience = stage.target.url("");
    let claims = stage.verified(&token, &audience).await.expect("it verifies");
    let task = stage.target.requests()[0].header("sendoff-task-id").map(str::to_owned);
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(stage.issuer), &json!("own")));
    assert_eq!(claims["aud"], audience);
    assert_eq!(claims["sendoff"], json!({"task_id": task, "queue": "default", "attempt": 1}));
    let now = stage.server.now().get() / 1_000;
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(now), &json!(now + 300)));

    assert_eq!(stage.verified(&token, "https://other.example").await, Err("InvalidAudience".to_owned()));
    let other_issuer = decode::<Value>(&token, &DecodingKey::from_secret(b"x"), &Validation::new(Algorithm::HS256));
    assert!(other_issuer.is_err(), "the algorithm is that of the key");
    let parts: Vec<&str> = token.split('.').collect();
    let mut forged = claims.clone();
    forged["sub"] = json!("orders");
    let forged = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(forged.to_string()), parts[2]);
    assert_eq!(stage.verified(&forged, &audience).await, Err("InvalidSignature".to_owned()));
    stage.server.advance(301 * SEC).await;
    assert_eq!(stage.verified(&token, &audience).await, Err("it is over".to_owned()));
}

#[tokio::test]
async fn the_audience_is_the_targets_origin_or_the_credentials_own() {
    let stage = Stage::set().await;
    let other = Target::start().await;
    let id = stage.server.create(&other.url("/a?b"), &with_auth(&other.url("/a?b"), "own")).await;
    stage.server.until(&id, "succeeded").await;
    let token = other.requests()[0].header("authorization").expect("it").replace("Bearer ", "");
    assert_ne!(other.url(""), stage.target.url(""));
    stage.verified(&token, &other.url("")).await.expect("for its target");
    assert_eq!(stage.verified(&token, &stage.target.url("")).await, Err("InvalidAudience".to_owned()));
    let token = stage.token("orders").await;
    assert_eq!(stage.verified(&token, "orders").await.expect("its own")["sub"], "orders");
    assert_eq!(stage.verified(&token, &stage.target.url("")).await, Err("InvalidAudience".to_owned()));
}

#[tokio::test]
async fn every_call_has_a_token_of_its_own() {
    let stage = Stage::set().await;
    stage.target.on("/", [Reply::status(500), Reply::status(200)]);
    let mut task = with_auth(&stage.target.url("/"), "own");
    task["task_id"] = json!("order:7");
    let id = stage.server.create(&stage.target.url("/"), &task).await;
    stage.server.until_it(&id, |task| task["status"] == "retrying").await;
    stage.server.advance(SEC).await;
    stage.server.until(&id, "succeeded").await;
    let mut claims = Vec::new();
    for token in stage.seen() {
        claims.push(stage.verified(&token, &stage.target.url("")).await.expect("it verifies"));
    }
    let about = |attempt: u32| json!({"task_id": "order:7", "queue": "default", "attempt": attempt});
    assert_eq!((&claims[0]["sendoff"], &claims[1]["sendoff"]), (&about(1), &about(2)));
    assert_ne!(claims[0]["jti"], claims[1]["jti"]);
    assert!(!stage.server.task(&id).await.to_string().contains(&stage.seen()[0]), "shown to nobody");
}

#[tokio::test]
async fn a_401_is_what_the_table_says_of_it_because_every_token_is_fresh() {
    let stage = Stage::set().await;
    stage.target.on("/", [Reply::status(401)]);
    let id = stage.server.create(&stage.target.url("/"), &with_auth(&stage.target.url("/"), "own")).await;
    let dead = stage.server.until(&id, "dead").await;
    assert_eq!((&dead["dead_reason"], &dead["attempt_count"]), (&json!("permanent_status"), &json!(1)));
}

#[tokio::test]
async fn a_restart_keeps_the_key_and_its_tokens_hold() {
    let stage = Stage::set().await;
    let token = stage.token("own").await;
    let keys = published(&stage.server).await;
    let (audience, issuer) = (stage.target.url(""), stage.issuer.clone());
    let home = stage.server.stop().await;
    let file = home.path().join("data/oidc-keys.json");
    assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    // It listens elsewhere now, behind the same name.
    let server = home.with(|config| config.server.public_url = Some(issuer.clone())).start().await;
    assert_eq!(published(&server).await, keys);
    verified(&server, &issuer, &token, &audience).await.expect("it still holds");
}

#[tokio::test]
async fn keys_are_rotated_published_before_they_sign_and_until_their_tokens_are_over() {
    let stage = Stage::set().await;
    let first = kid(&stage.token("own").await);
    assert_eq!(published(&stage.server).await, std::slice::from_ref(&first));
    stage.server.advance(29 * DAY).await;
    let mut both = published(&stage.server).await;
    while both.len() == 1 {
        both = published(&stage.server).await;
    }
    let second = both[1].clone();
    assert_eq!(kid(&stage.token("own").await), first, "published, and it does not sign yet");
    stage.server.advance(DAY.saturating_sub(SEC)).await;
    let last = stage.token("own").await;
    assert_eq!(kid(&last), first);
    stage.server.advance(SEC).await;
    let token = stage.token("own").await;
    assert_eq!(kid(&token), second);
    for token in [&last, &token] {
        stage.verified(token, &stage.target.url("")).await.expect("both hold");
    }
    stage.server.advance(Duration::from_secs(3_600)).await;
    assert_eq!(published(&stage.server).await, [second]);
}

#[tokio::test]
async fn without_a_public_url_there_is_no_issuer_and_with_one_anybody_may_look() {
    let mut server = TestServer::start().await;
    for path in [DISCOVERY, KEYS, &format!("/v1{KEYS}")] {
        let answer = bare(&server, path).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (404, &json!("no_issuer")), "{path}");
        assert!(answer.body["detail"].as_str().expect("text").contains("server.public_url"), "{:?}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let refused = server.reload(|config| drop(config.credentials.insert(name("own"), oidc(None)))).await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("credentials.own.kind: the kind oidc needs server.public_url"), "{refused}");
    let url = |config: &mut sendoff::config::Config| {
        config.server.public_url = Some("https://queue.example/behind/a/proxy/".to_owned());
    };
    server.reload(url).await.expect("taken");
    for path in [DISCOVERY, KEYS, &format!("/v1{DISCOVERY}"), &format!("/v1{KEYS}")] {
        let answer = bare(&server, path).await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        assert_eq!(answer.headers["cache-control"], "public, max-age=3600");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let discovery = bare(&server, DISCOVERY).await.body;
    assert_eq!(discovery["issuer"], "https://queue.example/behind/a/proxy");
    assert_eq!(discovery["jwks_uri"], "https://queue.example/behind/a/proxy/.well-known/jwks.json");
    assert!(!bare(&server, KEYS).await.body.to_string().contains("\"d\""), "public parts only");
    server.reload(|config| config.server.public_url = None).await.expect("taken");
    assert_eq!(bare(&server, KEYS).await.status, 404);
}

#[tokio::test]
async fn another_public_url_is_another_issuer_with_the_same_keys() {
    let mut stage = Stage::set().await;
    let before = stage.token("own").await;
    let moved =
        |config: &mut sendoff::config::Config| config.server.public_url = Some("https://queue.example".to_owned());
    stage.server.reload(moved).await.expect("taken");
    let token = stage.token("own").await;
    assert_eq!(kid(&token), kid(&before));
    let audience = stage.target.url("");
    verified(&stage.server, "https://queue.example", &token, &audience).await.expect("the new one");
    let old = verified(&stage.server, "https://queue.example", &before, &audience).await;
    assert_eq!(old, Err("InvalidIssuer".to_owned()));
}

#[tokio::test]
async fn a_server_whose_keys_are_damaged_does_not_start_and_says_what_to_do() {
    let home = Home::new().with(|config| config.server.public_url = Some("https://queue.example".to_owned()));
    let file = home.path().join("data/oidc-keys.json");
    let home = home.start().await.stop().await;
    let whole = std::fs::read_to_string(&file).expect("text");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    let told = home.refused().await.to_string();
    assert!(
        told.starts_with("failed to set up credentials: ") && told.contains("oidc-keys.json does not hold"),
        "{told}"
    );
    assert!(told.contains("restore it from a copy, or move it away") && !told.contains("PRIVATE"), "{told}");
}
