//! A task without a credential to go with: it waits and is no attempt, for so long and so many refusals, and no longer.

use std::time::Duration;

use futures_util::FutureExt;

use super::tests::{Rig, accept, ends, spec};
use super::*;
use crate::queue::lease::Work;
use crate::queue::store::TaskRecord;
use crate::task::outcome::DeadReason;
use crate::task::{
    Attempt, Header, NoCredential, Outcome, OutcomeClass, RetryOverrides, Span, Status, TaskRef, TaskSpec,
};

const SEC: Duration = Duration::from_secs(1);

/// A rig whose only task says this about retrying, and its first attempt.
fn started(retry: RetryOverrides) -> (Rig, Work) {
    let mut config = Config::default();
    config.workers.max_concurrent = 1;
    let mut rig = Rig::with(&config);
    let retry = RetryOverrides { jitter: Some(0.0), ..retry };
    let work = rig.turn(vec![accept(vec![TaskSpec { retry, ..spec(None, "1") }], None)], Vec::new()).leases.remove(0);
    (rig, work)
}

fn none(work: &Work, refused_by_issuer: bool) -> Settlement {
    let settlement = ends(work, OutcomeClass::AuthUnavailable);
    Settlement { outcome: Outcome { refused_by_issuer, ..settlement.outcome }, ..settlement }
}

fn record(rig: &Rig, work: &Work) -> (Header, Vec<Attempt>) {
    let found = rig.store.record(TaskRef::by_id(work.header.id())).now_or_never().unwrap().unwrap();
    let TaskRecord { row, attempts } = found.expect("it is there");
    (row.header, attempts)
}

/// The next attempt, once this long has passed.
fn after(rig: &mut Rig, wait: Duration) -> Option<Work> {
    rig.hand.advance(wait);
    rig.turn(Vec::new(), Vec::new()).leases.pop()
}

#[test]
fn to_have_no_credential_is_no_attempt_and_is_seen_while_it_lasts() {
    let (mut rig, work) = started(RetryOverrides { max_attempts: Some(1), ..RetryOverrides::default() });
    rig.turn(Vec::new(), vec![none(&work, false)]);
    let (header, attempts) = record(&rig, &work);
    assert_eq!((header.status, header.attempts, header.attempts_total), (Status::Retrying, 0, 0));
    assert_eq!((header.last_class, header.first_dispatched_at), (Some(OutcomeClass::AuthUnavailable), None));
    assert_eq!((attempts.len(), attempts[0].error.as_deref()), (1, Some("over")));

    let again = after(&mut rig, SEC).expect("the first delay");
    assert_eq!((again.header.attempts, again.header.no_credential.waits), (1, 1));
    rig.turn(Vec::new(), vec![none(&again, false)]);
    assert!(after(&mut rig, SEC).is_none(), "delays grow as after failures");
    let third = after(&mut rig, SEC).expect("two seconds");
    rig.turn(Vec::new(), vec![ends(&third, OutcomeClass::Reset)]);
    let (header, attempts) = record(&rig, &work);
    assert_eq!((header.status, header.dead_reason), (Status::Dead, Some(DeadReason::MaxAttempts)), "one is one");
    assert_eq!((header.no_credential, header.attempts), (NoCredential::default(), 1));
    let classes: Vec<_> = attempts.iter().map(|attempt| (attempt.ordinal, attempt.class)).collect();
    assert_eq!(classes, [(1, OutcomeClass::Reset)], "the attempt took the place of the wait");
}

#[test]
fn it_waits_as_long_as_it_may_and_is_tried_at_the_very_end() {
    let wait = RetryOverrides { credential_wait_max: Some(Span::from_secs(4)), ..RetryOverrides::default() };
    let (mut rig, work) = started(wait);
    rig.turn(Vec::new(), vec![none(&work, false)]);
    let second = after(&mut rig, SEC).expect("after 1 s");
    rig.turn(Vec::new(), vec![none(&second, false)]);
    let third = after(&mut rig, 2 * SEC).expect("after 3 s");
    rig.turn(Vec::new(), vec![none(&third, false)]);
    let last = after(&mut rig, SEC).expect("after 4 s, though the delay would be longer");
    rig.turn(Vec::new(), vec![none(&last, false)]);
    let (header, attempts) = record(&rig, &work);
    assert_eq!((header.status, header.dead_reason), (Status::Dead, Some(DeadReason::AuthUnavailable)));
    assert_eq!((header.attempts, header.attempts_total), (0, 1), "what it died of has a place of its own");
    assert_eq!(attempts[0].class, OutcomeClass::AuthUnavailable);

    let redrive = Request::Task(crate::queue::command::TaskAction::Redrive, TaskRef::by_id(work.header.id()));
    let again = rig.turn(vec![redrive], Vec::new()).leases.remove(0);
    assert_eq!((again.header.no_credential, again.header.attempts_total), (NoCredential::default(), 2));
    rig.turn(Vec::new(), vec![ends(&again, OutcomeClass::Reset)]);
    assert_eq!(record(&rig, &work).1.len(), 2);
}

#[test]
fn a_wait_that_something_else_prolongs_ends_all_the_same() {
    let wait = RetryOverrides { credential_wait_max: Some(Span::from_secs(30)), ..RetryOverrides::default() };
    let (mut rig, work) = started(wait);
    rig.turn(Vec::new(), vec![none(&work, false)]);
    rig.turn(vec![Request::Pause(crate::task::QueueName::parse("default").unwrap(), true)], Vec::new());
    assert!(after(&mut rig, 29 * SEC).is_none());
    assert_eq!(record(&rig, &work).0.status, Status::Retrying);
    after(&mut rig, 3 * SEC);
    let (header, _) = record(&rig, &work);
    assert_eq!((header.status, header.dead_reason), (Status::Dead, Some(DeadReason::AuthUnavailable)));
}

#[test]
fn the_issuers_own_no_ends_it_at_the_third_time_and_a_restart_forgets_neither() {
    let (mut rig, work) = started(RetryOverrides::default());
    rig.turn(Vec::new(), vec![none(&work, true)]);
    let second = after(&mut rig, SEC).expect("after 1 s");
    rig.turn(Vec::new(), vec![none(&second, true)]);
    let header = record(&rig, &work).0;
    assert_eq!((header.status, header.no_credential), (Status::Retrying, NoCredential { waits: 2, refusals: 2 }));
    rig.machine = super::tests::open(&rig.store, &Config::default(), &rig.clock);
    let third = after(&mut rig, 3 * SEC).expect("after 3 s");
    assert_eq!(third.header.give_up_at, header.give_up_at, "the wait goes on, and does not begin anew");
    rig.turn(Vec::new(), vec![none(&third, true)]);
    let header = record(&rig, &work).0;
    assert_eq!((header.status, header.dead_reason), (Status::Dead, Some(DeadReason::AuthUnavailable)));
}

#[test]
fn the_end_of_the_series_ends_its_wait_too_and_attempts_made_stay_made() {
    let retry = RetryOverrides { max_retry_duration: Some(Span::from_secs(10)), ..RetryOverrides::default() };
    let (mut rig, work) = started(retry);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    let second = after(&mut rig, SEC).expect("after 1 s");
    rig.turn(Vec::new(), vec![none(&second, false)]);
    let (header, attempts) = record(&rig, &work);
    assert_eq!((header.attempts, header.attempts_total, attempts.len()), (1, 1, 2));
    assert!(header.first_dispatched_at.is_some());
    let left = header.give_up_at.expect("a bound").since(rig.clock.now().wall);
    assert!(left <= 11 * SEC && left > 8 * SEC, "{left:?}: of ten seconds, not of the hour that a credential has");
}
