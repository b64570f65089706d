//! Starts on another clock than the last, over the memory store: what is held back, put right, and kept.

use std::time::Duration;

use futures_util::FutureExt;

use super::tests::{Rig, accept, accepted, ends, open, spec};
use super::*;
use crate::queue::command::{Accepted, Answer, TaskAction};
use crate::queue::lease::Work;
use crate::queue::store::Row;
use crate::task::{Outcome, OutcomeClass, Span, Status, TaskRef, TaskSpec, WallMs, When};

const IN_2038: WallMs = WallMs::new(2_147_483_648_000);
const IN_1970: WallMs = WallMs::new(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn restart(rig: &mut Rig) {
    rig.machine = open(&rig.store, &Config::default(), &rig.clock);
}

fn delayed(content: &str, delay: Duration) -> Request {
    let delay = Span::from_millis(u64::try_from(delay.as_millis()).unwrap());
    accept(vec![TaskSpec { when: When::Delay(delay), ..spec(None, content) }], None)
}

fn contents(leases: &[Work]) -> Vec<&[u8]> {
    leases.iter().map(|work| work.body.payload.as_ref()).collect()
}

fn row(rig: &Rig, key: TaskKey) -> Option<Row> {
    rig.store.rows(vec![key]).now_or_never().expect("memory never waits").expect("readable").remove(0)
}

/// Goes on by this much, a second at a time, as the engine's loop would; tells what started.
fn pass(rig: &mut Rig, time: Duration) -> Vec<Work> {
    let mut started = Vec::new();
    for _second in 0..time.as_secs() {
        rig.hand.advance(Duration::from_secs(1));
        started.extend(rig.turn(Vec::new(), Vec::new()).leases);
    }
    started
}

#[test]
fn what_a_wrong_clock_took_in_starts_after_a_restart_on_the_right_one_in_its_order() {
    for wrong in [IN_2038, IN_1970] {
        let mut rig = Rig::with(&Config::default());
        let right = rig.clock.now().wall;
        rig.hand.jump_wall(wrong);
        restart(&mut rig);
        rig.machine.stop_starting();
        let at_once = |content| accept(vec![spec(None, content)], None);
        rig.turn(vec![delayed("later", MINUTE * 2), at_once("1"), at_once("2"), delayed("soon", MINUTE)], Vec::new());
        rig.hand.jump_wall(right);
        restart(&mut rig);
        let step = rig.turn(vec![at_once("3")], Vec::new());
        assert_eq!(contents(&step.leases), [b"1", b"2", b"3"], "{wrong}");
        assert_eq!(contents(&pass(&mut rig, Duration::from_secs(59))), Vec::<&[u8]>::new(), "{wrong}: early");
        assert_eq!(contents(&pass(&mut rig, MINUTE * 2)), [b"soon".as_slice(), b"later"], "{wrong}");
    }
}

#[test]
fn a_task_whose_times_were_put_right_can_be_cancelled_and_waits_on_over_another_restart() {
    let mut rig = Rig::with(&Config::default());
    let right = rig.clock.now().wall;
    rig.hand.jump_wall(IN_2038);
    restart(&mut rig);
    let step = rig.turn(vec![delayed("cancelled", MINUTE), delayed("kept", MINUTE)], Vec::new());
    let Some(Ok(Accepted::New { first, .. })) = accepted(&step).into_iter().next() else { panic!("accepted") };
    rig.hand.jump_wall(right);
    restart(&mut rig);
    let cancel = Request::Task(TaskAction::Cancel, TaskRef::by_id(first.header.id()));
    let step = rig.turn(vec![cancel], Vec::new());
    assert!(matches!(&step.answers[0].1, Answer::Task(Ok(row)) if row.header.status == Status::Cancelled));
    pass(&mut rig, MINUTE / 2);
    restart(&mut rig);
    assert_eq!(contents(&pass(&mut rig, MINUTE / 2 + Duration::from_secs(1))), [b"kept"]);
}

#[test]
fn a_backoff_that_a_wrong_clock_wrote_is_waited_for_from_the_restart() {
    let mut rig = Rig::with(&Config::default());
    let right = rig.clock.now().wall;
    rig.hand.jump_wall(IN_2038);
    restart(&mut rig);
    let work = rig.turn(vec![accept(vec![spec(None, "1")], None)], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    rig.hand.jump_wall(right);
    restart(&mut rig);
    // The first backoff is a second.
    let again = pass(&mut rig, Duration::from_secs(2)).remove(0);
    assert_eq!(again.header.attempts, 2);
}

/// A task that ended, and one that waits for a paused queue with this expiry; then the server is started by this clock.
fn started_by(wall: WallMs) -> (Rig, TaskKey, TaskKey, Vec<Event>) {
    let mut rig = Rig::with(&Config::default());
    let work = rig.turn(vec![accept(vec![spec(None, "ended")], None)], Vec::new()).leases.remove(0);
    let outcome = Outcome::answered(200, bytes::Bytes::new(), Duration::ZERO);
    rig.turn(Vec::new(), vec![Settlement { outcome, ..ends(&work, OutcomeClass::Ok) }]);
    let expires_at = Some(rig.clock.now().wall.plus(MINUTE * 60));
    let waits = TaskSpec { expires_at, ..spec(None, "waits") };
    let pause = Request::Pause(waits.queue.clone(), true);
    let step = rig.turn(vec![pause, accept(vec![waits], None)], Vec::new());
    let Some(Ok(Accepted::New { first, .. })) = accepted(&step).into_iter().next() else { panic!("accepted") };
    rig.hand.jump_wall(wall);
    let opened = Machine::open(rig.store.clone(), &Config::default(), &rig.clock, Chance::from_seed(1)).now_or_never();
    let (machine, events) = opened.expect("memory never waits").expect("it opens");
    rig.machine = machine;
    (rig, work.header.key, first.header.key, events)
}

#[test]
fn a_start_in_2038_expires_and_removes_nothing_until_a_minute_of_agreement_has_passed() {
    let (mut rig, ended, waits, events) = started_by(IN_2038);
    assert!(events.iter().any(|event| matches!(event, Event::WallJump(_))), "{events:?}");
    pass(&mut rig, Duration::from_secs(59));
    assert!(row(&rig, ended).is_some(), "removed on a clock in doubt");
    assert_eq!(row(&rig, waits).map(|row| row.header.status), Some(Status::Queued));
    pass(&mut rig, Duration::from_secs(3));
    assert!(row(&rig, ended).is_none(), "what has agreed for a minute is believed");
    assert_eq!(row(&rig, waits).map(|row| row.header.status), Some(Status::Expired));
}

#[test]
fn a_start_in_2038_that_is_set_right_within_the_minute_has_lost_nothing() {
    let (mut rig, ended, waits, _) = started_by(IN_2038);
    pass(&mut rig, MINUTE / 2);
    rig.hand.jump_wall(WallMs::new(1_790_000_100_000));
    pass(&mut rig, MINUTE * 3);
    assert!(row(&rig, ended).is_some());
    assert_eq!(row(&rig, waits).map(|row| row.header.status), Some(Status::Queued));
}

#[test]
fn a_start_in_1970_is_told_as_a_jump_and_a_start_after_a_week_is_a_start() {
    let jump = |events: &[Event]| events.iter().any(|event| matches!(event, Event::WallJump(_)));
    assert!(jump(&started_by(IN_1970).3));
    let (mut rig, ended, waits, events) = started_by(WallMs::new(1_790_000_000_000).plus(MINUTE * 60 * 24 * 7));
    assert!(!jump(&events));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(row(&rig, waits).map(|row| row.header.status), Some(Status::Expired), "an expiry during a stop");
    assert!(row(&rig, ended).is_some(), "but nothing is removed at once");
    pass(&mut rig, MINUTE + Duration::from_secs(2));
    assert!(row(&rig, ended).is_none());
}
