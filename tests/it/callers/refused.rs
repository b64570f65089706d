//! Tokens that are not accepted: forged, for somebody else, too early, too late, too long.

use jsonwebtoken::{Algorithm, Header};
use sendoff::task::limits::{JWT_BYTES_MAX, JWT_LEEWAY};
use serde_json::{Value, json};

use crate::support::issuer::{Issuer, KEYS, Signer, document_of};

use super::{Stage, refusal};

/// Asserts that a token is refused for this reason, in the body and as RFC 6750 has it, and that nobody could tell which
/// scopes there are.
async fn assert_refused(stage: &Stage, token: &str, why: &str, what: &str) {
    stage.server.hand().advance(std::time::Duration::from_secs(2));
    let answer = stage.reads(token).await;
    assert_eq!(refusal(&answer), (401, "unauthenticated"), "{what}: {:?}", answer.body);
    let detail = answer.body["detail"].as_str().expect("text");
    assert!(detail.starts_with("this token is not accepted: ") && detail.contains(why), "{what}: {detail}");
    let challenge = answer.headers["www-authenticate"].to_str().expect("text");
    assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{what}: {challenge}");
}

#[tokio::test]
async fn tokens_of_each_kind_of_key_are_accepted() {
    let stage = Stage::set().await;
    let signers =
        [Signer::ec("ec"), Signer::ed("ed"), Signer::rsa("rs", Algorithm::RS256), Signer::rsa("ps", Algorithm::PS256)];
    stage.issuer.publish(&signers.iter().collect::<Vec<_>>());
    for signer in &signers {
        let answer = stage.reads(&signer.sign(&stage.claims(&json!({})), |_| {})).await;
        assert_eq!(answer.status, 200, "{}: {:?}", signer.id, answer.body);
    }
    // A key that does not say what it is for is for what its type can; a token that names no key has the only one.
    let keys = json!({"keys": [signers[2].published(&json!({"alg": null})), signers[0].public]});
    let other = Issuer::start(&[]).await;
    other.target.on(KEYS, [document_of(&keys, &[])]);
    let home = crate::support::server::Home::new();
    let server = home.with(|config| other.trusted_by(config, crate::support::issuer::grants(&["read"]))).start().await;
    let claims = other.claims(server.now(), &json!({"can": "read"}));
    let any = Signer { id: "rs".to_owned(), ..signers[3].clone() };
    for token in [signers[2].sign(&claims, |_| {}), any.sign(&claims, |_| {}), signers[0].sign(&claims, unnamed)] {
        assert_eq!(server.client.with_key(&token).get("/tasks").await.status, 200);
    }
}

fn unnamed(header: &mut Header) {
    header.kid = None;
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let stage = Stage::set().await;
    let (rsa, twin) = (Signer::rsa("rsa", Algorithm::PS256), Signer::ec("one"));
    stage.issuer.publish(&[&stage.signer, &rsa]);
    let claims = stage.claims(&json!({}));
    let good = stage.signer.sign(&claims, |_| {});
    assert_eq!(stage.reads(&good).await.status, 200);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = signed.split_once('.').expect("two parts");
    let other_claims = stage.token(&json!({"can": ["read", "enqueue"]}));
    let other_claims = other_claims.split('.').nth(1).expect("claims");
    let rs256 = Signer { algorithm: Algorithm::RS256, ..rsa.clone() };
    let modulus = rsa.public["n"].as_str().expect("text").as_bytes();
    let (algorithm, shape) = ("an algorithm that is not allowed for its key", "no signed JSON Web Token");
    let forged = [
        ("none", stage.signer.unsigned(&claims, "none"), shape),
        ("None", stage.signer.unsigned(&claims, "None"), shape),
        ("no signature", stage.signer.unsigned(&claims, "ES256"), "signature is wrong"),
        ("the public key as a secret", rsa.sign_as_secret(&claims, rsa.pem.as_bytes()), algorithm),
        ("the modulus as a secret", rsa.sign_as_secret(&claims, modulus), algorithm),
        ("a curve's key as a secret", stage.signer.sign_as_secret(&claims, stage.signer.pem.as_bytes()), algorithm),
        ("an empty secret", stage.signer.sign_as_secret(&claims, b""), algorithm),
        ("another algorithm of the same key", rs256.sign(&claims, |_| {}), algorithm),
        ("the id of a key of another type", rs256.sign(&claims, |header| header.kid = Some("one".into())), algorithm),
        (
            "an algorithm that is not configured",
            Signer { algorithm: Algorithm::RS512, ..rsa.clone() }.sign(&claims, |_| {}),
            algorithm,
        ),
        ("another key of the same id", twin.sign(&claims, |_| {}), "signature is wrong"),
        ("other claims", format!("{header}.{other_claims}.{signature}"), "signature is wrong"),
        ("half a signature", format!("{signed}.{}", &signature[..signature.len() / 2]), "signature is wrong"),
        (
            "an extension to be understood",
            stage.signer.sign(&claims, |header| {
                header.crit = Some(vec!["exp".to_owned()]);
            }),
            shape,
        ),
        ("made for a logout", stage.signer.sign(&claims, |header| header.typ = Some("logout+jwt".to_owned())), shape),
        (
            "its own key",
            twin.sign(&claims, |header| {
                (header.kid, header.jwk) = (None, serde_json::from_value(twin.public.clone()).ok());
            }),
            "signature is wrong",
        ),
        ("an unknown key", stage.signer.sign(&claims, |header| header.kid = Some("x".to_owned())), "no key that its"),
        ("two dots", "..".to_owned(), shape),
        ("nonsense", "a.b.c".to_owned(), shape),
    ];
    for (what, token, why) in forged {
        assert_refused(&stage, &token, why, what).await;
    }
    assert!(stage.reads_well().await);
}

#[tokio::test]
async fn tokens_for_others_and_for_another_time_are_refused() {
    let stage = Stage::set().await;
    let elsewhere = Issuer::start(&[&stage.signer]).await;
    for (changes, why) in [
        (json!({"aud": null}), "have to be in it"),
        (json!({"aud": []}), "have to be in it"),
        (json!({"aud": "another"}), "its audience is not"),
        (json!({"aud": ["another", "Sendoff"]}), "its audience is not"),
        (json!({"iss": null}), "have to be in it"),
        (json!({"iss": elsewhere.url()}), "its issuer is none"),
        (json!({"iss": format!("{}/", stage.issuer.url())}), "its issuer is none"),
        (json!({"sub": null}), "have to be in it"),
        (json!({"exp": null}), "have to be in it"),
        (json!({"exp": "tomorrow"}), "have to be in it"),
        (json!({"exp": 1}), "it has expired"),
        (json!({"nbf": 99_999_999_999_u64}), "not valid yet"),
    ] {
        assert_refused(&stage, &stage.token(&changes), why, &changes.to_string()).await;
    }
    assert!(elsewhere.target.requests().is_empty(), "nobody asks an issuer that is not configured");
    let leeway = i64::try_from(JWT_LEEWAY.as_millis() / 1_000).unwrap();
    let now = stage.server.now().get() / 1_000;
    let at = |changes: Value| stage.token(&changes);
    assert_eq!(stage.reads(&at(json!({"exp": now - leeway + 1}))).await.status, 200);
    assert_eq!(stage.reads(&at(json!({"exp": now - leeway}))).await.status, 401);
    assert_eq!(stage.reads(&at(json!({"nbf": now + leeway}))).await.status, 200);
    assert_eq!(stage.reads(&at(json!({"nbf": now + leeway + 1}))).await.status, 401);
    assert_eq!(stage.reads(&at(json!({"aud": ["another", "sendoff"]}))).await.status, 200);
}

#[tokio::test]
async fn the_longest_token_is_accepted_and_a_longer_one_is_not_looked_at() {
    let stage = Stage::set().await;
    let padded = |len: usize| stage.token(&json!({"pad": "x".repeat(len)}));
    let longest = (5_000..7_000).take_while(|len| padded(*len).len() <= JWT_BYTES_MAX).last().expect("one fits");
    assert!(padded(longest).len() + 2 > JWT_BYTES_MAX);
    assert_eq!(stage.reads(&padded(longest)).await.status, 200);
    assert_refused(&stage, &padded(longest + 1), "more than 8192 bytes", "too long").await;
}
