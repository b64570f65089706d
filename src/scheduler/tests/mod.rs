//! The scheduler as its engine sees it: examples here, whole histories against a naive model in [`model`].

mod model;

use std::collections::BTreeMap;

use super::*;
use crate::config::HostConfig;
use crate::task::PriorityOrder;
use crate::task::limits::{WALL_AGREEMENT, WALL_JUMP};

pub(super) const Q: NameId = NameId(10);
pub(super) const R: NameId = NameId(11);
const A: NameId = NameId(20);
const B: NameId = NameId(21);
const START_WALL: i64 = 1_800_000_000_000;
/// No key: what `[]` means, said so that it can only mean that.
const NOTHING: [i64; 0] = [];

pub(super) fn at(ms: u64) -> Now {
    Now { wall: WallMs::new(START_WALL + ms.cast_signed()), mono: Duration::from_millis(ms) }
}

fn jumped(ms: u64, by: i64) -> Now {
    Now { wall: WallMs::new(at(ms).wall.get() + by), ..at(ms) }
}

pub(super) fn hosts(default: u32) -> HostsConfig {
    HostsConfig { defaults: HostConfig { max_concurrent: default }, overrides: BTreeMap::new() }
}

fn scheduler(config: &QueueConfig) -> Scheduler {
    let mut scheduler = Scheduler::new(1_000, hosts(1_000), at(0));
    scheduler.set_queue(Q, config, at(0));
    scheduler
}

fn plain() -> Scheduler {
    scheduler(&QueueConfig::default())
}

/// A task of `Q` in lane `A`, due at `due` ms after the start on the monotonic clock.
pub(super) fn task(key: i64, due: u64) -> Waiting {
    Waiting {
        key: TaskKey::from_i64(key).unwrap(),
        queue: Q,
        lane: A,
        priority: Priority::default(),
        due: at(due).wall,
        due_on_wall: false,
        ahead: false,
        retrying: false,
        deadline: None,
    }
}

pub(super) fn prio(priority: u64) -> Priority {
    Priority::new(priority).unwrap()
}

pub(super) fn picks(scheduler: &mut Scheduler, now: Now) -> Vec<i64> {
    std::iter::from_fn(|| scheduler.pick(now)).map(|pick| pick.key.to_i64()).collect()
}

fn started(scheduler: &mut Scheduler, tasks: &[Waiting], now: Now) -> Vec<i64> {
    for task in tasks {
        scheduler.insert(task, now);
    }
    picks(scheduler, now)
}

#[test]
fn due_time_then_acceptance() {
    let tasks = [task(3, 0), task(2, 5), task(1, 5), task(4, 2)];
    assert_eq!(started(&mut plain(), &tasks, at(10)), [3, 4, 1, 2]);
}

#[test]
fn a_level_of_priority_is_worth_its_aging() {
    let config = QueueConfig { order: PriorityOrder::Aging(Span::from_millis(10)), ..QueueConfig::default() };
    let tasks = [
        Waiting { priority: prio(5), ..task(1, 0) },
        Waiting { priority: prio(6), ..task(2, 11) },
        Waiting { priority: prio(6), ..task(3, 9) },
    ];
    assert_eq!(started(&mut scheduler(&config), &tasks, at(50)), [3, 1, 2]);
}

#[test]
fn strict_puts_priority_first() {
    let config = QueueConfig { order: PriorityOrder::Strict, ..QueueConfig::default() };
    let tasks = [
        Waiting { priority: prio(0), ..task(1, 0) },
        Waiting { priority: prio(9), ..task(2, 40) },
        Waiting { priority: prio(9), ..task(3, 30) },
    ];
    assert_eq!(started(&mut scheduler(&config), &tasks, at(50)), [3, 2, 1]);
}

#[test]
fn a_live_change_of_aging_sorts_what_waits_anew() {
    let mut scheduler = scheduler(&QueueConfig { order: PriorityOrder::Strict, ..QueueConfig::default() });
    scheduler.insert(&Waiting { priority: prio(9), ..task(1, 40) }, at(50));
    scheduler.insert(&Waiting { priority: prio(0), ..task(2, 0) }, at(50));
    let aging = QueueConfig { order: PriorityOrder::Aging(Span::from_millis(1)), ..QueueConfig::default() };
    scheduler.set_queue(Q, &aging, at(50));
    assert_eq!(picks(&mut scheduler, at(50)), [2, 1]);
}

#[test]
fn ahead_comes_before_all_others_even_when_not_due() {
    let tasks = [
        Waiting { priority: prio(9), ..task(1, 0) },
        Waiting { priority: prio(0), ahead: true, ..task(2, 60) },
        Waiting { priority: prio(9), ahead: true, ..task(3, 61) },
    ];
    assert_eq!(started(&mut plain(), &tasks, at(50)), [2, 3, 1]);
}

#[test]
fn nothing_starts_early_on_either_clock() {
    let mut scheduler = plain();
    scheduler.insert(&task(1, 1_000), at(0));
    scheduler.insert(&Waiting { due_on_wall: true, ..task(2, 1_000) }, at(0));
    let just_before = Now { mono: Duration::from_nanos(999_999_999), ..at(999) };
    assert_eq!(scheduler.look(just_before), Look::default());
    assert!(scheduler.pick(just_before).is_none());
    assert_eq!(scheduler.next_look(at(0)), Some(Duration::from_secs(1)));
    assert_eq!(scheduler.look(at(1_000)).promoted, 2);
    assert_eq!(picks(&mut scheduler, at(1_000)), [1, 2]);
}

#[test]
fn what_is_due_after_a_delay_starts_after_that_delay() {
    let mut scheduler = plain();
    let now = Now { mono: Duration::from_nanos(1_500_001), ..at(1) };
    let due = scheduler.due_after(Span::from_millis(20), now);
    scheduler.insert(&Waiting { due, ..task(1, 0) }, now);
    let wakes = scheduler.next_look(now).unwrap();
    assert!(wakes >= now.mono + Duration::from_millis(20) && wakes < now.mono + Duration::from_millis(21));
    assert_eq!(scheduler.look(Now { mono: wakes, ..now }).promoted, 1);
}

#[test]
fn a_jump_moves_what_waits_on_the_wall_and_nothing_else() {
    let day = 86_400_000;
    for by in [day, -day] {
        let mut scheduler = plain();
        scheduler.insert(&task(1, 10_000), at(0));
        scheduler.insert(&Waiting { due_on_wall: true, ..task(2, 10_000) }, at(0));
        let look = scheduler.look(jumped(1_000, by));
        assert_eq!(look.jumped, Some(by));
        assert_eq!(look.promoted, u64::from(by > 0), "the wall says it is tomorrow");
        // A delay written after the jump is as long as one written before.
        let due = scheduler.due_after(Span::from_millis(9_000), jumped(1_000, by));
        scheduler.insert(&Waiting { due, ..task(3, 0) }, jumped(1_000, by));
        assert_eq!(scheduler.look(jumped(9_999, by)).promoted, 0);
        assert_eq!(scheduler.look(jumped(10_000, by)).promoted, 2);
    }
}

#[test]
fn what_waited_from_before_a_jump_can_be_taken_out_after_it() {
    let mut scheduler = plain();
    let old = task(1, 10_000);
    scheduler.insert(&old, at(0));
    scheduler.look(jumped(1, 86_400_000));
    let due = scheduler.due_after(Span::from_secs(10), jumped(1, 86_400_000));
    let new = Waiting { due, ..task(2, 0) };
    scheduler.insert(&new, jumped(1, 86_400_000));
    assert!(scheduler.remove(&old) && scheduler.remove(&new));
    assert_eq!(scheduler.next_look(jumped(2, 86_400_000)), None);
}

#[test]
fn deadlines_wait_until_the_clock_is_trusted_again() {
    let mut scheduler = plain();
    let deadline = Some(at(5_000).wall);
    scheduler.insert(&Waiting { deadline, ..task(1, 600_000) }, at(0));
    let limit = WALL_JUMP.as_millis().cast_signed();
    let agreement = WALL_AGREEMENT.as_millis();
    assert_eq!(scheduler.overdue(jumped(0, limit + 1), 10), [], "not even before the jump was looked at");
    assert_eq!(scheduler.look(jumped(0, limit + 1)).jumped, Some(limit + 1));
    assert!(!scheduler.clock_trusted());
    assert_eq!(scheduler.next_look(jumped(0, limit + 1)), Some(WALL_AGREEMENT.to_duration()));
    scheduler.look(jumped(agreement - 1, limit + 1));
    assert_eq!(scheduler.overdue(jumped(agreement - 1, limit + 1), 10), []);
    scheduler.look(jumped(agreement, limit + 1));
    assert!(scheduler.clock_trusted());
    assert_eq!(scheduler.overdue(jumped(agreement, limit + 1), 10), [TaskKey::from_i64(1).unwrap()]);
}

#[test]
fn a_scheduler_that_is_told_to_distrusts_its_clock() {
    let mut scheduler = plain();
    scheduler.insert(&Waiting { deadline: Some(at(5).wall), ..task(1, 0) }, at(0));
    scheduler.distrust(at(10));
    assert!(!scheduler.clock_trusted());
    assert_eq!(scheduler.overdue(at(10), 10), []);
}

#[test]
fn overdue_tells_each_task_once_earliest_first_and_at_most_so_many() {
    let mut scheduler = plain();
    for key in 1..=5 {
        let deadline = Some(at(100 - key).wall);
        scheduler.insert(&Waiting { deadline, ..task(key.cast_signed(), 1_000) }, at(0));
    }
    let keys = |keys: Vec<TaskKey>| keys.into_iter().map(TaskKey::to_i64).collect::<Vec<_>>();
    assert_eq!(scheduler.next_look(at(0)), Some(Duration::from_millis(95)));
    assert_eq!(keys(scheduler.overdue(at(94), 10)), NOTHING);
    assert_eq!(keys(scheduler.overdue(at(99), 3)), [5, 4, 3]);
    assert_eq!(keys(scheduler.overdue(at(99), 3)), [2, 1]);
    assert_eq!(keys(scheduler.overdue(at(99), 3)), NOTHING);
    assert_eq!(scheduler.counts(Q).scheduled, 5, "they wait until they are removed");
}

#[test]
fn a_task_is_taken_out_of_every_place_with_its_deadline() {
    let deadline = Some(at(9_000).wall);
    let on_mono = Waiting { deadline, ..task(1, 1_000) };
    let places = [
        on_mono,
        Waiting { due_on_wall: true, ..on_mono },
        Waiting { due: at(0).wall, ..on_mono },
        Waiting { ahead: true, ..on_mono },
        Waiting { retrying: true, ..on_mono },
    ];
    for place in places {
        for promoted in [false, true] {
            let mut scheduler = plain();
            scheduler.insert(&place, at(0));
            scheduler.insert(&place, at(0));
            let now = at(if promoted { 2_000 } else { 0 });
            scheduler.look(now);
            assert!(scheduler.remove(&place), "{place:?} {promoted}");
            assert!(!scheduler.remove(&place));
            assert_eq!(scheduler.counts(Q), Counts::default());
            assert_eq!(scheduler.next_look(now), None);
            assert_eq!(scheduler.blocked(Q, now), Some(Blocked::NoneReady));
        }
    }
    assert!(!plain().remove(&Waiting { queue: R, ..on_mono }));
}

#[test]
fn a_picked_task_has_no_deadline_left() {
    let mut scheduler = plain();
    scheduler.insert(&Waiting { deadline: Some(at(5).wall), ..task(1, 0) }, at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [1]);
    assert_eq!(scheduler.overdue(at(10), 10), []);
    assert_eq!(scheduler.next_look(at(0)), None);
}

#[test]
fn concurrency_is_lowered_live_and_nothing_running_is_cut() {
    let config = |max| QueueConfig { max_concurrent_dispatches: max, ..QueueConfig::default() };
    let mut scheduler = scheduler(&config(3));
    assert_eq!(started(&mut scheduler, &[1, 2, 3, 4, 5].map(|key| task(key, 0)), at(0)), [1, 2, 3]);
    scheduler.set_queue(Q, &config(1), at(0));
    assert_eq!(scheduler.counts(Q).running, 3);
    for _ in 0..2 {
        scheduler.finish(Q, A);
        assert_eq!(scheduler.blocked(Q, at(0)), Some(Blocked::Concurrency));
        assert!(scheduler.pick(at(0)).is_none());
    }
    scheduler.finish(Q, A);
    assert_eq!(picks(&mut scheduler, at(0)), [4]);
}

#[test]
fn workers_are_shared_and_can_be_lowered() {
    let mut scheduler = plain();
    scheduler.set_workers(2);
    assert_eq!(started(&mut scheduler, &[1, 2, 3].map(|key| task(key, 0)), at(0)), [1, 2]);
    assert_eq!(scheduler.blocked(Q, at(0)), Some(Blocked::Workers));
    assert_eq!(scheduler.next_look(at(0)), None, "only a finish can help");
    scheduler.set_workers(1);
    scheduler.finish(Q, A);
    assert!(scheduler.pick(at(0)).is_none());
    scheduler.finish(Q, A);
    assert_eq!(scheduler.next_look(at(0)), Some(Duration::ZERO));
    assert_eq!(picks(&mut scheduler, at(0)), [3]);
}

#[test]
fn a_pause_stops_starts_only() {
    let mut scheduler = plain();
    scheduler.set_paused(Q, true);
    assert_eq!(started(&mut scheduler, &[task(1, 0)], at(0)), NOTHING);
    assert_eq!(scheduler.blocked(Q, at(0)), Some(Blocked::Paused));
    scheduler.set_paused(Q, false);
    assert_eq!(scheduler.blocked(Q, at(0)), None);
    assert_eq!(picks(&mut scheduler, at(0)), [1]);
}

#[test]
fn a_queue_nobody_set_keeps_its_tasks_and_starts_none() {
    let mut scheduler = plain();
    assert_eq!(started(&mut scheduler, &[Waiting { queue: R, ..task(1, 0) }], at(0)), NOTHING);
    assert_eq!(scheduler.blocked(R, at(0)), Some(Blocked::Concurrency));
    scheduler.set_queue(R, &QueueConfig::default(), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [1]);
    assert_eq!(scheduler.blocked(NameId(99), at(0)), Some(Blocked::NoneReady));
    assert_eq!(scheduler.counts(NameId(99)), Counts::default());
}

#[test]
fn a_queue_without_a_token_holds_up_no_other_and_says_until_when() {
    let limited = QueueConfig { max_dispatches_per_second: Some(2.0), max_burst_size: 1, ..QueueConfig::default() };
    let mut scheduler = scheduler(&limited);
    scheduler.set_queue(R, &QueueConfig::default(), at(0));
    let tasks = [task(1, 0), task(2, 0), Waiting { queue: R, ..task(3, 0) }];
    assert_eq!(started(&mut scheduler, &tasks, at(0)), [3], "the bucket starts empty");
    let half = Duration::from_millis(500);
    assert_eq!(scheduler.blocked(Q, at(0)), Some(Blocked::Rate { until: half }));
    assert_eq!(scheduler.next_look(at(0)), Some(half));
    assert_eq!(picks(&mut scheduler, at(499)), NOTHING);
    assert_eq!(picks(&mut scheduler, at(500)), [1]);
    // An undone pick gives its slots back, not its token.
    scheduler.finish(Q, A);
    scheduler.insert(&task(1, 0), at(500));
    assert_eq!(picks(&mut scheduler, at(999)), NOTHING);
    assert_eq!(picks(&mut scheduler, at(1_000)), [1]);
    // Paused, it waits for no token; lifted, it asks again.
    scheduler.set_paused(Q, true);
    assert_eq!(scheduler.next_look(at(1_000)), None);
    scheduler.set_paused(Q, false);
    scheduler.set_queue(Q, &QueueConfig::default(), at(1_000));
    assert_eq!(picks(&mut scheduler, at(1_000)), [2]);
}

#[test]
fn no_token_is_spent_where_another_limit_blocks() {
    let limited = QueueConfig { max_dispatches_per_second: Some(1.0), max_burst_size: 1, ..QueueConfig::default() };
    let mut scheduler = scheduler(&limited);
    scheduler.set_hosts(hosts(0));
    assert_eq!(started(&mut scheduler, &[task(1, 0)], at(5_000)), NOTHING);
    assert_eq!(scheduler.blocked(Q, at(5_000)), Some(Blocked::Hosts));
    scheduler.set_workers(0);
    scheduler.set_hosts(hosts(1));
    assert_eq!(picks(&mut scheduler, at(5_000)), NOTHING);
    scheduler.set_workers(1);
    assert_eq!(picks(&mut scheduler, at(5_000)), [1]);
}

#[test]
fn a_host_cap_holds_over_all_queues_and_by_name() {
    let mut scheduler = plain();
    scheduler.set_queue(R, &QueueConfig::default(), at(0));
    let b = LaneName::new("https://b:443");
    let overrides = BTreeMap::from([(b.clone(), HostConfig { max_concurrent: 3 })]);
    scheduler.set_hosts(HostsConfig { overrides, ..hosts(2) });
    scheduler.name_lane(A, &LaneName::new("https://a:443"));
    scheduler.name_lane(B, &b);
    let tasks: Vec<Waiting> = (0..20_u32)
        .map(|n| Waiting {
            queue: if n % 2 == 0 { Q } else { R },
            lane: if n < 10 { A } else { B },
            ..task(n.into(), 0)
        })
        .collect();
    assert_eq!(started(&mut scheduler, &tasks, at(0)), [0, 1, 10, 11, 12]);
    assert_eq!(scheduler.blocked(Q, at(0)), Some(Blocked::Hosts));
    scheduler.finish(Q, A);
    assert_eq!(picks(&mut scheduler, at(0)), [3], "R's turn");
}

#[test]
fn a_lane_that_is_a_task_type_has_no_host_cap() {
    let mut scheduler = plain();
    scheduler.set_hosts(hosts(1));
    scheduler.insert(&task(1, 0), at(0));
    scheduler.insert(&task(2, 0), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [1]);
    scheduler.name_lane(A, &LaneName::new("thumbnail"));
    assert_eq!(picks(&mut scheduler, at(0)), [2]);
}

#[test]
fn queues_share_the_worker_slots_by_weight() {
    let mut scheduler = scheduler(&QueueConfig { weight: 3, ..QueueConfig::default() });
    scheduler.set_queue(R, &QueueConfig::default(), at(0));
    scheduler.set_workers(1);
    for key in 0..400 {
        scheduler.insert(&task(key, 0), at(0));
        scheduler.insert(&Waiting { queue: R, ..task(1_000 + key, 0) }, at(0));
    }
    let mut got = [0_u32; 2];
    for _ in 0..400 {
        let pick = scheduler.pick(at(0)).unwrap();
        assert!(scheduler.pick(at(0)).is_none());
        got[usize::from(pick.queue == R)] += 1;
        scheduler.finish(pick.queue, pick.lane);
        assert!(got[0].abs_diff(3 * got[1]) <= 3, "{got:?}");
    }
    assert_eq!(got, [300, 100]);
}

#[test]
fn a_dead_host_with_200_000_tasks_costs_the_others_nothing() {
    let mut scheduler = plain();
    scheduler.set_hosts(hosts(1));
    scheduler.load((0..200_000).map(|key| task(key, 0)).collect(), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [0], "one hangs there for ever");
    for key in 0..100 {
        scheduler.insert(&Waiting { lane: B, ..task(1_000_000 + key, 1) }, at(1));
    }
    let compared = || lanes::tests::COMPARED.with(std::cell::Cell::get);
    let before = compared();
    for key in 0..100 {
        let pick = scheduler.pick(at(1)).unwrap();
        assert_eq!((pick.key.to_i64(), pick.lane), (1_000_000 + key, B), "though all 200,000 were due before");
        assert!(scheduler.pick(at(1)).is_none());
        scheduler.finish(Q, B);
    }
    assert!(compared() - before <= 100 * 20, "{} comparisons for 100 starts", compared() - before);
    assert_eq!(scheduler.counts(Q).queued, 199_999);
}

#[test]
fn counts_follow_a_task_through_its_life() {
    let mut scheduler = plain();
    let tasks = [task(1, 100), Waiting { retrying: true, ..task(2, 50) }, task(3, 0)];
    for task in &tasks {
        scheduler.insert(task, at(0));
    }
    let counts = |scheduled, queued, retrying, running, oldest: Option<u64>| Counts {
        scheduled,
        queued,
        retrying,
        running,
        oldest_ready: oldest.map(|ms| at(ms).wall),
    };
    assert_eq!(scheduler.counts(Q), counts(1, 1, 1, 0, Some(0)));
    assert_eq!(picks(&mut scheduler, at(0)), [3]);
    assert_eq!(scheduler.counts(Q), counts(1, 0, 1, 1, None));
    scheduler.look(at(60));
    assert_eq!(scheduler.counts(Q), counts(1, 1, 0, 1, Some(50)));
    scheduler.look(at(100));
    scheduler.finish(Q, A);
    assert_eq!(scheduler.counts(Q), counts(0, 2, 0, 0, Some(50)));
}

#[test]
fn the_record_says_what_waits() {
    use crate::task::{IdTail, KeyCounter};
    let key = KeyCounter::after(None, 0).next(WallMs::new(START_WALL));
    let header = Header {
        status: Status::Retrying,
        priority: prio(7),
        due_on_wall: true,
        attempts: 1,
        attempts_total: 1,
        epoch: 3,
        due: WallMs::new(5),
        expires_at: Some(WallMs::new(9)),
        give_up_at: Some(WallMs::new(8)),
        changed_at: WallMs::new(2),
        ..Header::accepted(key, IdTail::new(1), (Q, B), WallMs::new(1))
    };
    let expected = Waiting {
        key,
        queue: Q,
        lane: B,
        priority: prio(7),
        due: WallMs::new(5),
        due_on_wall: true,
        ahead: false,
        retrying: true,
        deadline: Some(WallMs::new(8)),
    };
    assert_eq!(Waiting::of(&header), expected);
    let queued = Header { status: Status::Queued, give_up_at: None, ..header };
    assert_eq!(Waiting::of(&queued), Waiting { retrying: false, deadline: Some(WallMs::new(9)), ..expected });
}
