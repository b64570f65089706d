//! Credentials that are given to a running server: used at once, kept sealed, never shown again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::support::client::Answer;

const SECRET: &str = "s3cret-given-to-the-api";

/// A home with a key to seal with.
pub(super) fn sealing() -> Home {
    let home = Home::new();
    let key = secret(home.path(), "credentials.key", &STANDARD.encode([7_u8; 32]));
    home.with(|config| config.credentials_key = Some(key))
}

async fn put(server: &TestServer, name: &str, body: &Value) -> Answer {
    server.client.put(&format!("/credentials/{name}"), body).await
}

fn bearer(token: &str) -> Value {
    json!({"kind": "bearer", "hosts": ["127.0.0.1:*"], "token": token})
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default())
}

/// What the target saw of the last call with the credential.
async fn carried(server: &TestServer, target: &Target, auth: &str) -> Option<String> {
    let id = server.create(&target.url("/"), &with_auth(&target.url("/"), auth)).await;
    server.until(&id, "succeeded").await;
    target.requests().last().and_then(|request| request.header("authorization").map(str::to_owned))
}

#[tokio::test]
async fn it_is_used_at_once_survives_a_restart_and_is_never_shown() {
    let (mut server, target) = (sealing().start().await, Target::start().await);
    let made = put(&server, "billing", &bearer(SECRET)).await;
    assert_eq!((made.status.as_u16(), &made.headers["location"]), (201, &"/credentials/billing".parse().unwrap()));
    assert_eq!(carried(&server, &target, "billing").await, Some(format!("Bearer {SECRET}")));
    let expected = json!({
        "name": "billing", "kind": "bearer", "hosts": ["127.0.0.1:*"], "allow_plain_http": false, "also": [],
        "settings": {}, "kept_in": "store", "changed_at": made.body["changed_at"], "unreadable": null,
    });
    assert_eq!(made.body, expected);
    server.reload(|config| config.workers.max_concurrent = 9).await.expect("taken");
    assert_eq!(carried(&server, &target, "billing").await, Some(format!("Bearer {SECRET}")), "a reload keeps it");
    let replaced = put(&server, "billing", &bearer("another")).await;
    assert_eq!(replaced.status.as_u16(), 200);
    assert_eq!(carried(&server, &target, "billing").await, Some("Bearer another".to_owned()));
    put(&server, "billing", &bearer(SECRET)).await;

    let home = server.stop().await;
    let store = std::fs::read_dir(home.path().join("data")).unwrap().map(|file| file.unwrap().path());
    for file in store.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "the secret stands in {}", file.display());
    }
    let server = home.start().await;
    assert_eq!(server.client.get("/credentials/billing").await.body, expected_since(&expected, &server).await);
    assert_eq!(carried(&server, &target, "billing").await, Some(format!("Bearer {SECRET}")));
    let all = server.client.get("/credentials").await;
    assert!(!all.body.to_string().contains(SECRET) && all.body["credentials"][0]["name"] == "billing");
    server.client.delete("/credentials/billing").await;
    assert_eq!(code(&server.client.get("/credentials/billing").await), (404, "not_found"));
    let home = server.stop().await;
    let server = home.start().await;
    assert_eq!(server.client.get("/credentials").await.body, json!({"credentials": []}), "it stays removed");
}

/// The same, with the moment at which it was given last.
async fn expected_since(expected: &Value, server: &TestServer) -> Value {
    let shown = server.client.get("/credentials/billing").await.body;
    let mut expected = expected.clone();
    expected["changed_at"] = shown["changed_at"].clone();
    expected
}

#[tokio::test]
async fn tasks_wait_for_a_credential_that_is_removed_and_go_on_when_it_is_given_again() {
    let (server, target) = (sealing().start().await, Target::start().await);
    put(&server, "billing", &bearer("one")).await;
    let mut delayed = with_auth(&target.url("/"), "billing");
    delayed["delay"] = json!("1s");
    let id = server.create(&target.url("/"), &delayed).await;
    assert_eq!(server.client.delete("/credentials/billing").await.status, 204);
    server.advance(SEC).await;
    server.until_it(&id, |task| task["last_error"]["class"] == "auth_unavailable").await;
    assert_eq!(code(&server.client.delete("/credentials/billing").await), (404, "not_found"));
    put(&server, "billing", &bearer("two")).await;
    server.advance(2 * SEC).await;
    server.until(&id, "succeeded").await;
    assert_eq!(target.requests()[0].header("authorization"), Some("Bearer two"));
}

#[tokio::test]
async fn with_another_key_it_is_told_to_be_unreadable_and_can_be_given_again() {
    let (server, target) = (sealing().start().await, Target::start().await);
    put(&server, "billing", &bearer(SECRET)).await;
    let home = server.stop().await;
    std::fs::write(home.path().join("credentials.key"), STANDARD.encode([8_u8; 32])).unwrap();
    let server = home.start().await;
    let shown = server.client.get("/credentials/billing").await.body;
    assert_eq!(shown["unreadable"], "it was sealed with another key than the one in credentials_key");
    assert_eq!((&shown["kind"], &shown["kept_in"]), (&Value::Null, &json!("store")));
    let refused = refusal(&server, &target.url("/"), json!({"auth": "billing"})).await;
    assert_eq!(refused, (422, "unknown_credential".to_owned(), "/payload/auth".to_owned()));
    assert_eq!(put(&server, "billing", &bearer("again")).await.status, 200);
    assert_eq!(carried(&server, &target, "billing").await, Some("Bearer again".to_owned()));
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place_and_never_repeated() {
    let server = sealing().start().await;
    for (body, pointer) in [
        (json!({"kind": "bearer", "token": format!("{SECRET} {SECRET}")}), "/token"),
        (json!({"kind": "bearer", "token": [SECRET]}), "/token"),
        (json!({"kind": "bearer"}), "/token"),
        (json!({"kind": SECRET, "token": "a"}), "/kind"),
        (json!({"kind": "bearer", "token": "a", "hosts": ["https://a"]}), "/hosts/0"),
        (json!({"kind": "bearer", "token": "a", "also": ["nobody"]}), "/also"),
        (json!({"kind": "bearer", "tokn": SECRET}), "/tokn"),
        (json!({"kind": "mtls", "certificate": SECRET, "private_key": SECRET}), "/private_key"),
        (json!({"kind": "standard_webhooks", "secrets": [SECRET]}), "/secrets"),
        (json!({"kind": "service_account", "key": SECRET}), "/key"),
        (json!({"kind": "oidc"}), "/kind"),
        (json!(SECRET), ""),
    ] {
        let answer = put(&server, "billing", &body).await;
        assert_eq!(code(&answer), (422, "invalid_credential"), "{body}: {:?}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}: {:?}", answer.body);
        // Only what stands where a word is expected is repeated.
        assert!(body["kind"] == SECRET || !answer.body.to_string().contains(SECRET), "{body}: {:?}", answer.body);
    }
    assert_eq!(code(&put(&server, "no%20name", &bearer("a")).await), (404, "not_found"));
    assert_eq!(server.client.get("/credentials").await.body, json!({"credentials": []}));
}

#[tokio::test]
async fn what_the_configuration_says_is_shown_and_changed_there() {
    let configured = home(&["127.0.0.1:*"]);
    let server = configured.start().await;
    let shown = server.client.get("/credentials/legacy").await.body;
    assert_eq!((&shown["kind"], &shown["kept_in"]), (&json!("basic"), &json!("configuration")));
    assert_eq!((&shown["settings"], &shown["changed_at"]), (&json!({"username": "me"}), &Value::Null));
    assert_eq!(code(&put(&server, "legacy", &bearer("a")).await), (409, "credential_in_configuration"));
    assert_eq!(code(&server.client.delete("/credentials/legacy").await), (409, "credential_in_configuration"));
    let no_key = put(&server, "other", &bearer("a")).await;
    assert_eq!(code(&no_key), (409, "no_credentials_key"));
    assert!(no_key.body["detail"].as_str().expect("text").contains("credentials_key"), "{:?}", no_key.body);
}

#[tokio::test]
async fn a_given_one_may_go_along_with_a_configured_one_and_a_queue_may_name_it() {
    let home = sealing().with_queue("mail", |queue| queue.auth = Some(name("billing")));
    let (server, target) = (home.start().await, Target::start().await);
    let secrets = json!({
        "kind": "standard_webhooks", "hosts": ["127.0.0.1:*"],
        "secrets": [format!("whsec_{}", STANDARD.encode([1_u8; 24]))],
    });
    put(&server, "signed", &secrets).await;
    let mut also = bearer("one");
    also["also"] = json!(["signed"]);
    assert_eq!(put(&server, "billing", &also).await.status, 201);
    let id = server.create(&target.url("/"), &json!({"queue": "mail"})).await;
    server.until(&id, "succeeded").await;
    let request = &target.requests()[0];
    assert_eq!(request.header("authorization"), Some("Bearer one"));
    assert!(request.header("webhook-signature").is_some());
}

#[tokio::test]
async fn one_that_goes_along_and_comes_to_set_the_same_keeps_both_from_being_sent() {
    let (server, target) = (sealing().start().await, Target::start().await);
    let inner = json!({"kind": "header", "name": "x-key", "value": "k", "hosts": ["127.0.0.1:*"]});
    put(&server, "inner", &inner).await;
    let mut outer = bearer("one");
    outer["also"] = json!(["inner"]);
    assert_eq!(put(&server, "outer", &outer).await.status, 201);
    let mut delayed = with_auth(&target.url("/"), "outer");
    delayed["delay"] = json!("1s");
    let id = server.create(&target.url("/"), &delayed).await;
    assert_eq!(put(&server, "inner", &bearer("two")).await.status, 200);
    let refused = refusal(&server, &target.url("/"), json!({"auth": "outer"})).await;
    assert_eq!(refused, (422, "credential_not_allowed".to_owned(), "/payload/auth".to_owned()));
    server.advance(SEC).await;
    let dead = server.until(&id, "dead").await;
    assert_eq!(dead["dead_reason"], "credential_refused");
    let error = dead["last_error"]["error"].as_str().expect("text");
    assert!(error.contains("takes `inner` along, which sets authorization too"), "{error}");
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn the_audit_log_says_what_it_was_and_what_it_is_and_no_secret() {
    let server = sealing().start().await;
    put(&server, "billing", &bearer(SECRET)).await;
    let mut wider = bearer(SECRET);
    wider["allow_plain_http"] = json!(true);
    put(&server, "billing", &wider).await;
    let log = std::fs::read_to_string(server.config().data_dir.join("audit.log")).expect("the log");
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["object"], &last["result"]), (&json!("/credentials/billing"), &json!("ok")));
    let plain = |side: &str| last[side]["allow_plain_http"].clone();
    assert_eq!((plain("before"), plain("after")), (json!(false), json!(true)), "{last}");
    server.client.put(&format!("/credentials/{SECRET}%20x"), &wider).await;
    let log = std::fs::read_to_string(server.config().data_dir.join("audit.log")).expect("the log");
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn an_id_token_follows_the_url_that_the_server_has() {
    let home = sealing().with(|config| config.server.public_url = Some("https://one.example".to_owned()));
    let (mut server, target) = (home.start().await, Target::start().await);
    let oidc = json!({"kind": "oidc", "hosts": ["127.0.0.1:*"]});
    assert_eq!(put(&server, "own", &oidc).await.status, 201);
    let issuer = |authorization: Option<String>| {
        let token = authorization.expect("a token");
        let claims = token.split('.').nth(1).expect("claims").to_owned();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64");
        serde_json::from_slice::<Value>(&claims).expect("JSON")["iss"].clone()
    };
    assert_eq!(issuer(carried(&server, &target, "own").await), "https://one.example");
    let plain = |config: &mut Config| config.server.public_url = Some("http://one.example".to_owned());
    server.reload(plain).await.expect("taken");
    let refused = put(&server, "another", &oidc).await;
    assert_eq!((refused.status.as_u16(), &refused.body["errors"][0]["pointer"]), (422, &json!("/kind")));
    assert!(refused.body["detail"].as_str().expect("text").contains("needs https"), "{:?}", refused.body);
    let other = |config: &mut Config| config.server.public_url = Some("https://two.example".to_owned());
    server.reload(other).await.expect("taken");
    assert_eq!(issuer(carried(&server, &target, "own").await), "https://two.example");
    for url in [Some("http://queue.example".to_owned()), None] {
        server.reload(|config| config.server.public_url = url).await.expect("taken");
        without_an_issuer(&server, &target).await;
    }
}

/// There is no issuer that handlers could believe, so nothing is sent.
async fn without_an_issuer(server: &TestServer, target: &Target) {
    let sent = target.requests().len();
    let id = server.create(&target.url("/"), &with_auth(&target.url("/"), "own")).await;
    let waits = |task: &Value| task["last_error"]["class"] == "auth_unavailable";
    let shown = server.until_it(&id, waits).await;
    assert!(shown["last_error"]["error"].as_str().expect("text").contains("server.public_url"), "{shown}");
    assert_eq!(target.requests().len(), sent);
}

#[tokio::test]
async fn a_key_that_is_none_keeps_the_server_from_starting_and_is_not_repeated() {
    let home = sealing();
    std::fs::write(home.path().join("credentials.key"), SECRET).unwrap();
    let error = home.refused().await;
    assert_eq!(error.exit_code(), 78);
    let told = error.to_string();
    assert!(told.contains("openssl rand -base64 32") && !told.contains(SECRET), "{told}");
}
