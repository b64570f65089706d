//! What `Sendoff-Redelivery` says where earlier tries never became requests.

use sendoff::task::{Header, NoCredential, OutcomeClass};
use serde_json::json;

use super::{Rig, work};
use crate::support::target::Target;

#[tokio::test]
async fn an_attempt_refused_before_any_request_makes_no_redelivery() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let mut second = work("http_request", &json!({"url": target.url("/")}).to_string());
    second.header.attempts_total = 2;
    second.previous = Some((OutcomeClass::EgressRefused, None));
    rig.run(second).await;
    assert_eq!(target.requests()[0].header("sendoff-redelivery"), Some("false"));
}

#[tokio::test]
async fn waiting_for_a_credential_makes_no_redelivery_and_hides_none() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let none = Some((OutcomeClass::AuthUnavailable, None));
    let waited = NoCredential { waits: 3, refusals: 0 };
    for (attempts, attempts_total, no_credential, expected) in [
        (1, 1, waited, "false"),
        // What an earlier series died of was the same, and was no request.
        (1, 2, NoCredential::default(), "false"),
        // An attempt before the wait, in this series or another, may have been seen.
        (2, 2, waited, "true"),
        (1, 2, waited, "true"),
    ] {
        let mut work = work("http_request", &json!({"url": target.url("/")}).to_string());
        work.header = Header { attempts, attempts_total, no_credential, ..work.header };
        work.previous = none;
        rig.run(work).await;
        let requests = target.requests();
        assert_eq!(
            requests.last().unwrap().header("sendoff-redelivery"),
            Some(expected),
            "{attempts} {attempts_total}"
        );
    }
}
