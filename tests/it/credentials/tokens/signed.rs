//! Assertions that we sign, read by the library that issuers would use: `private_key_jwt` and service accounts.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sendoff::config::{ClientAuth, CredentialKind, Wanted};
use serde_json::{Value, json};

use super::{Stage, client, field, form, service_account, token};
use crate::credentials::{SEC, secret};
use crate::support::target::{Reply, Target};

/// A key pair: the private key in PEM, and what its assertions are verified with.
fn pair(algorithm: Algorithm) -> (String, DecodingKey) {
    let kind = if algorithm == Algorithm::RS256 { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
    let pair = rcgen::KeyPair::generate_for(kind).expect("a key pair");
    let public = pair.public_key_pem();
    let verify = if algorithm == Algorithm::RS256 {
        DecodingKey::from_rsa_pem(public.as_bytes())
    } else {
        DecodingKey::from_ec_pem(public.as_bytes())
    };
    (pair.serialize_pem(), verify.expect("a public key"))
}

/// The claims of an assertion that verifies. Its times are those of the server's clock, which stands in the past.
fn claims(assertion: &str, algorithm: Algorithm, key: &DecodingKey, audience: &str) -> Value {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    decode::<Value>(assertion, key, &validation).expect("it verifies").claims
}

#[tokio::test]
async fn a_client_may_show_who_it_is_by_a_signature() {
    let (pem, public) = pair(Algorithm::ES256);
    let stage = Stage::with(|issuer, dir| {
        let mut client = client(issuer, dir);
        client.auth = ClientAuth::PrivateKeyJwt { key: secret(dir, "key.pem", &pem), key_id: Some("k1".to_owned()) };
        CredentialKind::ClientCredentials(Box::new(client))
    })
    .await;
    stage.issuer.on("/token", [token("one", 10)]);
    stage.done().await;
    stage.server.advance(10 * SEC).await;
    stage.done().await;
    let asked: Vec<_> = stage.issuer.requests().iter().map(form).collect();
    assert_eq!(
        field(&asked[0], "client_assertion_type"),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    assert_eq!((field(&asked[0], "client_id"), field(&asked[0], "client_secret")), (Some("so:me"), None));
    let assertion = |n: usize| field(&asked[n], "client_assertion").expect("an assertion").to_owned();
    assert_eq!(decode_header(assertion(0)).expect("a header").kid.as_deref(), Some("k1"));
    let read = |n: usize| claims(&assertion(n), Algorithm::ES256, &public, &stage.issuer.url("/token"));
    assert_eq!((&read(0)["iss"], &read(0)["sub"]), (&json!("so:me"), &json!("so:me")));
    assert_eq!(read(0)["exp"].as_u64(), read(0)["iat"].as_u64().map(|iat| iat + 300));
    assert_ne!(read(0)["jti"], read(1)["jti"], "each is used once");
}

#[tokio::test]
async fn a_service_account_gets_access_tokens_for_its_scopes() {
    let (pem, public) = pair(Algorithm::RS256);
    let wanted = Wanted::Scopes(vec!["https://scope.example/a".to_owned(), "b".to_owned()]);
    let stage = Stage::with(|issuer, dir| service_account(issuer, dir, wanted, &pem)).await;
    // Google's answers name the type, others may not.
    stage.issuer.on("/token", [Reply::with(200, &[], br#"{"access_token":"ya29.x","expires_in":3599}"#)]);
    stage.done().await;
    stage.done().await;
    assert_eq!(stage.seen(), ["Bearer ya29.x", "Bearer ya29.x"]);
    assert_eq!(stage.issuer.requests().len(), 1);
    let asked = form(&stage.issuer.requests()[0]);
    assert_eq!(field(&asked, "grant_type"), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    let assertion = field(&asked, "assertion").expect("an assertion");
    assert_eq!(decode_header(assertion).expect("a header").kid.as_deref(), Some("k1"));
    let claims = claims(assertion, Algorithm::RS256, &public, &stage.issuer.url("/token"));
    assert_eq!((&claims["iss"], &claims["scope"]), (&json!("me@p.example"), &json!("https://scope.example/a b")));
    assert_eq!(claims.get("target_audience"), None);
}

#[tokio::test]
async fn a_service_account_gets_an_id_token_for_each_targets_origin() {
    use base64::Engine;
    let (pem, public) = pair(Algorithm::ES256);
    let stage = Stage::with(|issuer, dir| service_account(issuer, dir, Wanted::Audience(None), &pem)).await;
    let noon = stage.server.now().get() / 1_000;
    let encoded = |exp: i64| {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
        format!("h.{claims}.s")
    };
    let answer = |exp: i64| {
        Reply::with(
            200,
            &[("content-type", "application/json")],
            json!({"id_token": encoded(exp)}).to_string().as_bytes(),
        )
    };
    stage.issuer.on("/token", [answer(noon + 100), answer(noon + 100), answer(noon + 300)]);
    let other = Target::start().await;
    stage.done().await;
    let id = stage.server.create(&other.url("/"), &crate::credentials::with_auth(&other.url("/"), "billing")).await;
    stage.server.until(&id, "succeeded").await;
    stage.done().await;
    assert_eq!(stage.issuer.requests().len(), 2, "one for each audience");
    let audience = |n: usize| {
        let asked = form(&stage.issuer.requests()[n]);
        let assertion = field(&asked, "assertion").expect("an assertion").to_owned();
        claims(&assertion, Algorithm::ES256, &public, &stage.issuer.url("/token"))["target_audience"].clone()
    };
    assert_eq!((audience(0), audience(1)), (json!(stage.target.url("")), json!(other.url(""))));
    stage.server.advance(81 * SEC).await;
    stage.done().await;
    let last = stage.seen().pop().expect("a call");
    assert_eq!(last, format!("Bearer {}", encoded(noon + 300)), "by its own word it was old");
}
