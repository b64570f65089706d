//! What an issuer is asked, and when; and what becomes of its tokens when it does not answer as it should.

use std::time::Duration;

use futures_util::future::join_all;
use sendoff::task::limits::{
    ISSUER_ANSWER_MAX, ISSUER_DOCUMENT_BYTES_MAX, ISSUER_FAILURE_KEPT, ISSUER_KEYS_FRESH_DEFAULT,
    ISSUER_KEYS_STALE_MAX, ISSUER_UNKNOWN_KEY_EVERY,
};
use serde_json::json;

use crate::support::issuer::{KEYS, Signer, document_of, keys_of};
use crate::support::target::{Gate, Reply, Target};

use super::{Stage, refusal};

/// Has an issuer publish something wrong.
type Plant = fn(&Stage, &Reply);

const SEC: Duration = Duration::from_secs(1);
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asserts that nobody could tell, and that it is worth a repeat after so many seconds.
async fn assert_unavailable(stage: &Stage, after: &str) {
    let answer = stage.reads(&stage.token(&json!({}))).await;
    assert_eq!(refusal(&answer), (503, "issuer_unavailable"), "{:?}", answer.body);
    assert_eq!(answer.headers["retry-after"], after);
}

/// Waits until a good token of this signer is answered so.
async fn until(stage: &Stage, signer: &Signer, status: u16) {
    let looking =
        async { while stage.reads(&signer.sign(&stage.claims(&json!({})), |_| {})).await.status != status {} };
    tokio::time::timeout(PATIENCE, looking).await.expect("in time");
}

#[tokio::test]
async fn a_hundred_first_tokens_cause_one_fetch() {
    let stage = Stage::set().await;
    let gate = Gate::new();
    stage.issuer.target.on(KEYS, [Reply::default().wait(&gate).and(keys_of(&[&stage.signer]))]);
    let token = stage.token(&json!({}));
    let calls = join_all((0..100).map(|_| stage.reads(&token)));
    let opened = async {
        stage.issuer.target.requests_at_least(2).await;
        gate.open();
    };
    let (answers, ()) = tokio::join!(calls, opened);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((stage.issuer.fetches(), stage.issuer.target.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_key_that_is_new_is_found_and_one_that_is_gone_is_refused() {
    let mut stage = Stage::set().await;
    assert!(stage.reads_well().await);
    let second = Signer::ec("two");
    stage.issuer.publish(&[&second]);
    let token = second.sign(&stage.claims(&json!({})), |_| {});
    assert_eq!(stage.reads(&token).await.status, 401, "the issuer was asked a moment ago");
    stage.later(ISSUER_UNKNOWN_KEY_EVERY.to_duration());
    assert_eq!(stage.reads(&token).await.status, 200);
    assert!(!stage.reads_well().await, "the first key is gone");
    assert_eq!(stage.issuer.fetches(), 2);
    // Nobody has a new key; the old one is withdrawn all the same.
    stage.issuer.publish(&[]);
    stage.later(ISSUER_KEYS_FRESH_DEFAULT.to_duration().checked_sub(SEC).unwrap());
    until(&stage, &second, 200).await;
    assert_eq!(stage.issuer.fetches(), 2, "still fresh");
    stage.later(SEC);
    until(&stage, &second, 401).await;
}

#[tokio::test]
async fn a_new_key_is_not_called_unknown_because_the_issuer_failed_a_moment_ago() {
    let mut stage = Stage::set().await;
    assert!(stage.reads_well().await);
    let second = Signer::ec("two");
    stage.later(ISSUER_UNKNOWN_KEY_EVERY.to_duration());
    stage.issuer.target.on(KEYS, [Reply::status(503), keys_of(&[&stage.signer, &second])]);
    let token = second.sign(&stage.claims(&json!({})), |_| {});
    let asks = async |stage: &Stage| stage.reads(&token).await.status.as_u16();
    assert_eq!(asks(&stage).await, 503);
    stage.later(ISSUER_FAILURE_KEPT.to_duration().checked_sub(SEC).unwrap());
    assert_eq!(asks(&stage).await, 503, "it is left alone");
    stage.later(SEC);
    assert_eq!(asks(&stage).await, 200, "it is asked again");
}

#[tokio::test]
async fn a_storm_of_tokens_with_unknown_keys_causes_one_fetch() {
    let stage = Stage::set().await;
    assert!(stage.reads_well().await);
    let storm = async |round: usize| {
        let tokens = (0..200).map(|n| {
            let id = Some(format!("{round}.{n}"));
            stage.signer.sign(&stage.claims(&json!({})), |header| header.kid = id)
        });
        let tokens: Vec<String> = tokens.collect();
        join_all(tokens.iter().map(|token| stage.reads(token))).await.iter().all(|answer| answer.status != 200)
    };
    assert!(storm(0).await);
    assert_eq!(stage.issuer.fetches(), 1, "it was asked a moment ago");
    for round in 1..=2 {
        stage.server.hand().advance(ISSUER_UNKNOWN_KEY_EVERY.to_duration());
        assert!(storm(round).await);
        assert_eq!(stage.issuer.fetches(), 1 + round);
    }
    assert!(stage.reads_well().await);
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_waited_for_so_long_and_then_left_alone() {
    let stage = Stage::set().await;
    stage.issuer.target.on(KEYS, [Reply::hang(), keys_of(&[&stage.signer])]);
    let late = async {
        stage.issuer.target.requests_at_least(2).await;
        stage.server.hand().advance(ISSUER_ANSWER_MAX.to_duration());
    };
    tokio::join!(assert_unavailable(&stage, "10"), late);
    assert_unavailable(&stage, "10").await;
    stage.server.hand().advance(ISSUER_FAILURE_KEPT.to_duration().checked_sub(SEC).unwrap());
    assert_unavailable(&stage, "1").await;
    assert_eq!(stage.issuer.fetches(), 1);
    stage.server.hand().advance(SEC);
    assert!(stage.reads_well().await);
    let metrics = stage.server.client.get("/metrics").await.body;
    for line in [
        r#"sendoff_issuer_fetches_total{issuer="company",result="no_answer"} 1"#,
        r#"sendoff_issuer_fetches_total{issuer="company",result="ok"} 1"#,
        r#"sendoff_authentication_failures_total{answer="unauthenticated"} 0"#,
    ] {
        assert!(metrics.as_str().expect("text").lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_busy_issuer_is_asked_again_when_it_says() {
    let stage = Stage::set().await;
    let busy = Reply::with(429, &[("retry-after", "30")], b"");
    stage.issuer.target.on(KEYS, [busy, Reply::status(500), keys_of(&[&stage.signer])]);
    assert_unavailable(&stage, "30").await;
    stage.server.hand().advance(29 * SEC);
    assert_unavailable(&stage, "1").await;
    assert_eq!(stage.issuer.fetches(), 1);
    stage.server.hand().advance(SEC);
    assert_unavailable(&stage, "10").await;
    assert_eq!(stage.issuer.fetches(), 2);
    stage.server.hand().advance(10 * SEC);
    assert!(stage.reads_well().await);
}

#[tokio::test]
async fn known_keys_go_on_for_a_day_without_their_issuer_and_no_longer() {
    let mut stage = Stage::set().await;
    assert!(stage.reads_well().await);
    stage.issuer.target.on(KEYS, [Reply::status(503)]);
    stage.later(ISSUER_KEYS_FRESH_DEFAULT.to_duration());
    assert!(stage.reads_well().await);
    stage.issuer.target.requests_at_least(4).await;
    let stranger = Signer::ec("two").sign(&stage.claims(&json!({})), |_| {});
    // Perhaps it is a new key; who could say that it is not?
    let answer = stage.reads(&stranger).await;
    assert_eq!(refusal(&answer), (503, "issuer_unavailable"), "{:?}", answer.body);
    let day = ISSUER_KEYS_STALE_MAX.to_duration().checked_sub(ISSUER_KEYS_FRESH_DEFAULT.to_duration()).unwrap();
    stage.later(day.checked_sub(SEC).unwrap());
    assert!(stage.reads_well().await);
    stage.later(SEC);
    let answer = stage.reads(&stage.token(&json!({}))).await;
    assert_eq!(refusal(&answer), (503, "issuer_unavailable"), "{:?}", answer.body);
    stage.issuer.publish(&[&stage.signer]);
    stage.later(ISSUER_FAILURE_KEPT.to_duration());
    assert!(stage.reads_well().await);
}

#[tokio::test]
async fn documents_that_cannot_be_believed_are_not() {
    let elsewhere = Target::start().await;
    let moved = Reply::with(302, &[("location", &elsewhere.url("/"))], b"");
    let plants: [(&str, &str, Plant); 7] = [
        ("another issuer's document", "issuer", |stage, _| {
            stage.issuer.discover(&json!({"issuer": "http://127.0.0.1"}));
        }),
        ("keys on a line that others are on", "answer", |stage, _| {
            stage.issuer.discover(&json!({"jwks_uri": "http://keys.example/"}));
        }),
        ("keys where nobody may call", "egress", |stage, _| {
            stage.issuer.discover(&json!({"jwks_uri": "https://10.0.0.7/keys"}));
        }),
        ("no keys", "answer", |stage, _| stage.issuer.discover(&json!({"jwks_uri": null}))),
        ("no document", "answer", |stage, _| stage.issuer.target.on(KEYS, [Reply::with(200, &[], b"<html>")])),
        ("moved", "http_status", |stage, moved| stage.issuer.target.on(KEYS, [moved.clone()])),
        ("an endless document", "answer", |stage, _| stage.issuer.target.on(KEYS, [Reply::endless()])),
    ];
    for (what, result, plant) in plants {
        let stage = Stage::set().await;
        plant(&stage, &moved);
        assert_unavailable(&stage, "10").await;
        let metrics = stage.server.client.get("/metrics").await.body;
        let counted = format!("sendoff_issuer_fetches_total{{issuer=\"company\",result=\"{result}\"}} 1");
        assert!(metrics.as_str().expect("text").contains(&counted), "{what}: {metrics}");
    }
    assert!(elsewhere.requests().is_empty(), "redirects are not followed");
}

#[tokio::test]
async fn the_longest_document_is_read_and_a_longer_one_is_not() {
    for (bytes, read) in [(ISSUER_DOCUMENT_BYTES_MAX, true), (ISSUER_DOCUMENT_BYTES_MAX + 1, false)] {
        let stage = Stage::set().await;
        let keys = json!({"keys": [stage.signer.public]}).to_string();
        let padded = format!("{}{keys}", " ".repeat(bytes - keys.len()));
        stage.issuer.target.on(KEYS, [Reply::with(200, &[], padded.as_bytes())]);
        assert_eq!(stage.reads_well().await, read, "{bytes}");
    }
}

#[tokio::test]
async fn keys_are_asked_for_as_often_as_the_issuer_says() {
    let mut stage = Stage::set().await;
    let keys = json!({"keys": [stage.signer.public]});
    stage.issuer.target.on(KEYS, [document_of(&keys, &[("cache-control", "public, max-age=1800")])]);
    assert!(stage.reads_well().await);
    stage.later(1_799 * SEC);
    assert!(stage.reads_well().await);
    assert_eq!(stage.issuer.fetches(), 1);
    stage.later(SEC);
    assert!(stage.reads_well().await);
    stage.issuer.target.requests_at_least(4).await;
    assert_eq!(stage.issuer.fetches(), 2);
}
