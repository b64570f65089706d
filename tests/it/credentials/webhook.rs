//! Signed webhooks at a real target, checked by a hand that is not the server's.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::support::target::{Recorded, Reply};

const SECRET: [u8; 32] = [7; 32];
const NEXT_SECRET: [u8; 32] = [8; 32];

fn whsec(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// Whether one of the request's signatures is this secret's.
fn is_signed_by(secret: &[u8], request: &Recorded) -> bool {
    let header = |name| request.header(name).expect("a signed request has it");
    let content = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    let content = [content.as_bytes(), &request.body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signatures = header("webhook-signature").split(' ').filter_map(|one| one.strip_prefix("v1,"));
    signatures.map(|one| STANDARD.decode(one).expect("base64")).any(|one| hmac::verify(&key, &content, &one).is_ok())
}

/// A home with `signed` (two secrets) and `billing`, a token that goes along with it.
fn signing() -> Home {
    let home = Home::new();
    let secrets =
        vec![secret(home.path(), "whsec-1", &whsec(&SECRET)), secret(home.path(), "whsec-2", &whsec(&NEXT_SECRET))];
    let signed = of_kind(CredentialKind::StandardWebhooks { secrets }, &["127.0.0.1:*"]);
    let token = secret(home.path(), "token", "s3cret-token");
    let billing = CredentialConfig {
        also: vec![name("signed")],
        ..of_kind(CredentialKind::Bearer { token }, &["127.0.0.1:*", "api.example.com"])
    };
    home.with(|config| config.credentials = [(name("signed"), signed), (name("billing"), billing)].into())
}

#[tokio::test]
async fn what_is_signed_is_what_arrives_and_every_attempt_has_the_same_id_and_its_own_time() {
    let (server, target) = (signing().start().await, Target::start().await);
    target.on("/", [Reply::status(503), Reply::status(200)]);
    let mut task = with_auth(&target.url("/"), "signed");
    task["payload"]["body_text"] = json!("{\"order\" : 7}\u{e9}");
    // A full stop in the client's own name could shift what is signed, were it part of the id.
    task["task_id"] = json!("order.7");
    task["retry"] = json!({"jitter": 0});
    let id = server.create(&target.url("/"), &task).await;
    server.until(&id, "retrying").await;
    server.advance(SEC).await;
    server.until(&id, "succeeded").await;
    let requests = target.requests();
    let [first, second] = &requests[..] else { panic!("{requests:?}") };
    for request in [first, second] {
        assert!(is_signed_by(&SECRET, request) && is_signed_by(&NEXT_SECRET, request), "{request:?}");
        assert!(!is_signed_by(&[9; 32], request), "the check can say no");
        assert!(!request.header("webhook-id").expect("it is there").contains('.'));
    }
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    let seconds = |request: &Recorded| request.header("webhook-timestamp").expect("a time").parse::<i64>().unwrap();
    assert_eq!(seconds(second) - seconds(first), 1);
    let mut tampered = first.clone();
    tampered.body.push(b' ');
    assert!(!is_signed_by(&SECRET, &tampered));
}

#[tokio::test]
async fn a_signature_goes_along_with_a_token_and_only_where_both_may_go() {
    let (server, target) = (signing().start().await, Target::start().await);
    let id = server.create(&target.url("/"), &with_auth(&target.url("/"), "billing")).await;
    server.until(&id, "succeeded").await;
    let request = &target.requests()[0];
    assert_eq!(request.header("authorization"), Some("Bearer s3cret-token"));
    assert!(is_signed_by(&SECRET, request), "{request:?}");
    let elsewhere = refusal(&server, "https://api.example.com/", json!({"auth": "billing"})).await;
    assert_eq!(elsewhere, (422, "credential_not_allowed".to_owned(), "/payload/url".to_owned()));
}
