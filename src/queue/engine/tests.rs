//! The machine over the memory store, one turn at a time: what cannot be reached from outside without chance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::clock::ManualClock;
use crate::logging::event::Event;
use crate::queue::command::{Accept, AcceptError, Accepted, Answer, Idempotency, TaskAction, TaskActionError};
use crate::queue::lease::Work;
use crate::queue::store::memory::CommitFault;
use crate::queue::store::{MemoryStore, digest};
use crate::task::{
    LaneName, Outcome, OutcomeClass, Priority, QueueName, RetryOverrides, Status, TaskName, TaskRef, TaskSpec,
    TaskType, WallMs, When,
};

/// A machine, its store and its clock.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) store: Arc<MemoryStore>,
    pub(super) clock: Clock,
    pub(super) hand: ManualClock,
}

impl Rig {
    /// With one slot for everything.
    fn with_one_slot() -> Self {
        let mut config = Config::default();
        config.workers.max_concurrent = 1;
        Self::with(&config)
    }

    /// With this configuration.
    pub(super) fn with(config: &Config) -> Self {
        let (clock, hand) = Clock::manual(WallMs::new(1_790_000_000_000));
        let store = Arc::new(MemoryStore::new());
        let machine = open(&store, config, &clock);
        Self { machine, store, clock, hand }
    }

    fn decide(&mut self, requests: Vec<Request>, settlements: Vec<Settlement>) -> Step {
        // Not a whole millisecond: real clocks never show one.
        self.hand.advance(Duration::from_micros(1_300));
        let inputs = Inputs { requests, settlements };
        self.machine.decide(self.clock.now(), inputs).now_or_never().expect("memory never waits").expect("readable")
    }

    fn commit(&mut self, step: &mut Step) -> Result<(), CommitError> {
        self.machine.commit(step).now_or_never().expect("memory never waits")
    }

    pub(super) fn turn(&mut self, requests: Vec<Request>, settlements: Vec<Settlement>) -> Step {
        let mut step = self.decide(requests, settlements);
        self.commit(&mut step).expect("it commits");
        step
    }

    pub(super) fn status(&self, id: crate::task::TaskId) -> (Status, u32) {
        let rows = self.store.rows(vec![id.key]).now_or_never().expect("memory never waits").expect("readable");
        let header = &rows[0].as_ref().expect("it is there").header;
        (header.status, header.attempts)
    }
}

pub(super) fn open(store: &Arc<MemoryStore>, config: &Config, clock: &Clock) -> Machine {
    let opened = Machine::open(store.clone(), config, clock, Chance::from_seed(1)).now_or_never();
    let (machine, _events) = opened.expect("memory never waits").expect("it opens");
    machine
}

pub(super) fn spec(name: Option<&str>, content: &str) -> TaskSpec {
    TaskSpec {
        name: name.map(|name| TaskName::parse(name).unwrap()),
        task_type: TaskType::parse("http_request").unwrap(),
        queue: QueueName::parse("default").unwrap(),
        lane: LaneName::new("http://host:80"),
        priority: Priority::default(),
        when: When::Now,
        expires_at: None,
        timeout: None,
        labels: Vec::new(),
        retry: RetryOverrides::default(),
        payload: Bytes::copy_from_slice(content.as_bytes()),
        digest: digest(content.as_bytes()),
    }
}

pub(super) fn accept(specs: Vec<TaskSpec>, idempotency: Option<Idempotency>) -> Request {
    Request::Accept(Box::new(Accept { specs, idempotency }))
}

fn post(content: &str) -> Request {
    accept(vec![spec(None, content)], None)
}

pub(super) fn ends(work: &Work, class: OutcomeClass) -> Settlement {
    let outcome = Outcome::without_answer(class, "over", Duration::ZERO);
    Settlement { key: work.header.key, epoch: work.header.epoch, outcome }
}

pub(super) fn accepted(step: &Step) -> Vec<Result<Accepted, AcceptError>> {
    let answers = step.answers.iter().map(|(_, answer)| answer.clone());
    answers.filter_map(|answer| if let Answer::Accept(accepted) = answer { Some(accepted) } else { None }).collect()
}

#[test]
fn a_released_attempt_is_none_and_its_task_is_first_again() {
    let mut rig = Rig::with_one_slot();
    let work = rig.turn(vec![post("1"), post("2")], Vec::new()).leases.remove(0);
    assert_eq!((work.body.payload.as_ref(), work.header.attempts), (&b"1"[..], 1));
    rig.machine.stop_starting();
    let step = rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Released)]);
    assert!(step.leases.is_empty());
    assert_eq!(rig.status(work.header.id()), (Status::Queued, 0));
    rig.machine.core.starting = true;
    let again = rig.turn(Vec::new(), Vec::new()).leases.remove(0);
    assert_eq!((again.body.payload.as_ref(), again.header.attempts), (&b"1"[..], 1));
    assert!(again.header.epoch > work.header.epoch);
}

#[test]
fn an_outcome_of_a_lease_that_is_over_is_refused_and_told() {
    let mut rig = Rig::with_one_slot();
    let work = rig.turn(vec![post("1")], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    let step = rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Ok)]);
    assert!(matches!(step.events.as_slice(), [Event::StaleSettle(_)]), "{:?}", step.events);
    assert_eq!(rig.status(work.header.id()), (Status::Retrying, 1));
}

#[test]
fn a_cancelled_attempt_holds_its_slot_until_it_has_really_ended() {
    let mut rig = Rig::with_one_slot();
    let work = rig.turn(vec![post("1"), post("2")], Vec::new()).leases.remove(0);
    let cancel = Request::Task(TaskAction::Cancel, TaskRef::by_id(work.header.id()));
    let step = rig.turn(vec![cancel], Vec::new());
    assert_eq!((step.aborts.as_slice(), step.leases.len()), (&[work.header.key][..], 0));
    assert_eq!((rig.status(work.header.id()).0, rig.machine.in_flight()), (Status::Cancelled, 1));
    let step = rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Interrupted)]);
    assert_eq!((step.leases.len(), rig.machine.in_flight()), (1, 1));
    assert_eq!(rig.status(work.header.id()).0, Status::Cancelled);
}

#[test]
fn a_full_disk_takes_nothing_back_and_the_same_batch_is_committed_again() {
    let mut rig = Rig::with_one_slot();
    let mut step = rig.decide(vec![post("1")], Vec::new());
    rig.store.fail_next(CommitFault::Full);
    assert!(matches!(rig.commit(&mut step), Err(CommitError::Full)));
    assert!(!step.changes.is_empty() && !step.leases.is_empty());
    rig.commit(&mut step).expect("there is room again");
    assert_eq!(rig.status(step.leases[0].header.id()), (Status::Running, 1));
}

#[test]
fn within_one_batch_of_requests_later_ones_see_what_earlier_ones_did() {
    let mut rig = Rig::with_one_slot();
    let name = TaskRef::parse("mine").unwrap();
    let twice = || accept(vec![spec(Some("mine"), "same")], None);
    let other = accept(vec![spec(Some("mine"), "other")], None);
    let run = Request::Task(TaskAction::Run, name.clone());
    let cancel = || Request::Task(TaskAction::Cancel, name.clone());
    let step = rig.turn(vec![twice(), twice(), other, run, cancel(), cancel()], Vec::new());
    let answers = accepted(&step);
    assert!(matches!(answers[0], Ok(Accepted::New { .. })), "{:?}", answers[0]);
    assert!(matches!(answers[1], Ok(Accepted::Repeat { .. })), "{:?}", answers[1]);
    assert!(matches!(answers[2], Err(AcceptError::NameTaken { index: 0, .. })), "{:?}", answers[2]);
    let ends: Vec<_> = step.answers.iter().filter_map(|(_, answer)| status_of(answer)).collect();
    assert_eq!(ends, [Ok(Status::Queued), Ok(Status::Cancelled), Ok(Status::Cancelled)]);
    assert!(step.leases.is_empty(), "cancelled before it could start");
}

fn status_of(answer: &Answer) -> Option<Result<Status, TaskActionError>> {
    if let Answer::Task(result) = answer { Some(result.clone().map(|row| row.header.status)) } else { None }
}

#[test]
fn a_batch_may_repeat_named_tasks_unless_a_key_stands_for_its_ids() {
    let mut rig = Rig::with_one_slot();
    let batch = |key| accept(vec![spec(Some("a"), "a"), spec(Some("b"), "b")], key);
    let key = Some(Idempotency { hash: 1, digest: 2 });
    rig.turn(vec![accept(vec![spec(Some("a"), "a")], None)], Vec::new());
    let answers = accepted(&rig.turn(vec![batch(key), batch(None), batch(None)], Vec::new()));
    assert!(matches!(answers[0], Err(AcceptError::NameTaken { index: 0, .. })), "{:?}", answers[0]);
    assert!(matches!(&answers[1], Ok(Accepted::New { ids, .. }) if ids.len() == 2), "{:?}", answers[1]);
    assert!(matches!(&answers[2], Ok(Accepted::Existing { ids }) if ids.len() == 2), "{:?}", answers[2]);
}

#[test]
fn a_key_with_another_body_is_refused_and_forgotten_after_its_window() {
    let mut rig = Rig::with_one_slot();
    let with = |digest| accept(vec![spec(None, "x")], Some(Idempotency { hash: 7, digest }));
    let answers = accepted(&rig.turn(vec![with(1), with(1), with(2)], Vec::new()));
    assert!(matches!(answers[0], Ok(Accepted::New { .. })));
    assert!(matches!(answers[1], Ok(Accepted::Repeat { .. })));
    assert!(matches!(answers[2], Err(AcceptError::IdempotencyMismatch)));
    let window = crate::task::limits::IDEMPOTENCY_WINDOW.to_duration();
    // The next turn moves the wall clock on by one millisecond, the one after it by another.
    rig.hand.advance(window.saturating_sub(Duration::from_millis(2)));
    let last = accepted(&rig.turn(vec![with(1)], Vec::new()));
    assert!(matches!(last[0], Ok(Accepted::Repeat { .. })), "{last:?}");
    let over = accepted(&rig.turn(vec![with(2)], Vec::new()));
    assert!(matches!(over[0], Ok(Accepted::New { .. })), "{over:?}");
}

#[test]
fn a_task_that_can_start_at_once_is_leased_in_the_commit_that_accepts_it_and_says_so() {
    let mut rig = Rig::with_one_slot();
    let step = rig.turn(vec![post("1"), post("2")], Vec::new());
    assert_eq!(step.leases.len(), 1);
    let rows = accepted(&step).into_iter().map(|accepted| match accepted {
        Ok(Accepted::New { first, .. }) => first.header.status,
        other => panic!("{other:?}"),
    });
    assert_eq!(rows.collect::<Vec<_>>(), [Status::Running, Status::Queued]);
}

#[test]
fn an_id_with_a_wrong_tail_names_nothing_and_harms_nothing() {
    let mut rig = Rig::with_one_slot();
    let later = accept(vec![TaskSpec { when: When::Delay(crate::task::Span::from_secs(1)), ..spec(None, "1") }], None);
    let step = rig.turn(vec![later], Vec::new());
    let Some(Ok(Accepted::New { first, .. })) = accepted(&step).pop() else { panic!("accepted") };
    let mut forged = first.header.id();
    forged.tail = crate::task::IdTail::new(forged.tail.get() ^ 1);
    // It comes due in the very turn in which somebody asks for the forged id.
    rig.hand.advance(Duration::from_secs(1));
    let step = rig.turn(vec![Request::Task(TaskAction::Cancel, TaskRef::by_id(forged))], Vec::new());
    assert!(matches!(step.answers[0].1, Answer::Task(Err(TaskActionError::NotFound))));
    assert_eq!(step.leases.len(), 1, "{:?}", step.events);
}

/// A task with an expiry in an hour and a bound on its series of an hour; it runs, and the wall clock jumps two hours.
#[test]
fn a_wall_clock_that_jumped_ends_no_series_and_opens_no_window() {
    let mut rig = Rig::with_one_slot();
    let hour = crate::task::Span::from_secs(3_600);
    let expires_at = Some(rig.clock.now().wall.plus(hour.to_duration()));
    let retry = RetryOverrides { max_retry_duration: Some(hour), ..RetryOverrides::default() };
    let bounded = TaskSpec { expires_at, retry, ..spec(None, "1") };
    let keyed = |digest| accept(vec![spec(None, "x")], Some(Idempotency { hash: 7, digest }));
    let work = rig.turn(vec![accept(vec![bounded], None), keyed(1)], Vec::new()).leases.remove(0);
    rig.hand.jump_wall(rig.clock.now().wall.plus(Duration::from_secs(25 * 3_600)));
    let step = rig.turn(vec![keyed(1)], vec![ends(&work, OutcomeClass::Reset)]);
    assert!(matches!(accepted(&step)[0], Ok(Accepted::Repeat { .. })), "{:?}", accepted(&step));
    assert_eq!(rig.status(work.header.id()), (Status::Retrying, 1));
}

#[test]
fn with_retention_zero_a_task_that_ends_after_a_quiet_time_is_removed_too() {
    let mut rig = Rig::with_one_slot();
    for queue in rig.machine.core.queues.values_mut() {
        let now = crate::config::Bound { age: Some(crate::task::Span::default()), count: None, bytes: None };
        queue.config = Arc::new(crate::config::QueueConfig { retention: now, ..(*queue.config).clone() });
    }
    let work = rig.turn(vec![post("1")], Vec::new()).leases.remove(0);
    rig.hand.advance(Duration::from_secs(5));
    let outcome = Outcome::answered(200, Bytes::new(), Duration::ZERO);
    rig.turn(Vec::new(), vec![Settlement { outcome, ..ends(&work, OutcomeClass::Ok) }]);
    assert_eq!(rig.status(work.header.id()).0, Status::Succeeded);
    rig.hand.advance(Duration::from_secs(1));
    rig.turn(Vec::new(), Vec::new());
    let rows = rig.store.rows(vec![work.header.key]).now_or_never().unwrap().unwrap();
    assert_eq!(rows, [None]);
}

#[test]
fn a_retry_that_is_held_back_past_its_duration_is_given_up() {
    let mut rig = Rig::with_one_slot();
    let bound = crate::task::Span::from_secs(30);
    let retry = RetryOverrides { max_retry_duration: Some(bound), ..RetryOverrides::default() };
    let work = rig.turn(vec![accept(vec![TaskSpec { retry, ..spec(None, "1") }], None)], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    rig.turn(vec![Request::Pause(QueueName::parse("default").unwrap(), true)], Vec::new());
    rig.hand.advance(Duration::from_secs(29));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.status(work.header.id()).0, Status::Retrying);
    rig.hand.advance(Duration::from_secs(3));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.status(work.header.id()), (Status::Dead, 1));
}

#[test]
fn a_released_attempt_keeps_the_end_of_its_series() {
    let mut rig = Rig::with_one_slot();
    let retry = RetryOverrides {
        max_attempts: Some(1),
        max_retry_duration: Some(crate::task::Span::from_secs(3_600)),
        stop_when: Some(crate::task::StopWhen::All),
        ..RetryOverrides::default()
    };
    let work = rig.turn(vec![accept(vec![TaskSpec { retry, ..spec(None, "1") }], None)], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    rig.hand.advance(Duration::from_secs(2));
    let second = rig.turn(Vec::new(), Vec::new()).leases.remove(0);
    rig.machine.stop_starting();
    rig.turn(Vec::new(), vec![ends(&second, OutcomeClass::Released)]);
    rig.hand.advance(Duration::from_secs(3_600));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.status(work.header.id()).0, Status::Dead);
}
