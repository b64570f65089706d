//! Another configuration for a machine that runs: what it does then is what one does that was started with it.

use std::time::Duration;

use super::tests::{Rig, accept, accepted, ends, open, spec};
use super::*;
use crate::config::{Bound, Difference, QueueConfig};
use crate::logging::event::QueueHeld;
use crate::queue::command::AcceptError;
use crate::queue::lease::Work;
use crate::queue::store::{ListQuery, TaskFilter};
use crate::task::limits::PAGE_MAX;
use crate::task::{Outcome, OutcomeClass, Span, Status, TaskSpec, When};
use futures_util::FutureExt;
use proptest::prelude::*;

fn name(text: &str) -> QueueName {
    QueueName::parse(text).unwrap()
}

/// The default configuration with these queues besides.
fn config(queues: &[(&str, QueueConfig)]) -> Config {
    let mut config = Config::default();
    config.queues.extend(queues.iter().map(|(queue, limits)| (name(queue), limits.clone())));
    config
}

fn post_to(queue: &str, when: When) -> Request {
    accept(vec![TaskSpec { queue: name(queue), when, ..spec(None, "x") }], None)
}

fn done(work: &Work) -> Settlement {
    Settlement { key: work.header.key, epoch: work.header.epoch, outcome: ok() }
}

fn ok() -> Outcome {
    Outcome::answered(200, bytes::Bytes::new(), Duration::ZERO)
}

impl Rig {
    fn configure(&mut self, config: &Config) -> Step {
        let step = self.turn(vec![Request::Configure(Arc::new(config.clone()))], Vec::new());
        assert!(matches!(step.answers.last(), Some((_, crate::queue::command::Answer::Configured))));
        step
    }

    fn view(&self, queue: &str) -> QueueView {
        self.machine.views(Some(&name(queue))).remove(0)
    }

    fn started(&mut self) -> usize {
        self.turn(Vec::new(), Vec::new()).leases.len()
    }

    /// The tasks that the store holds in this state.
    fn stored(&self, status: Status) -> usize {
        let filter = TaskFilter { status: Some(status), ..TaskFilter::default() };
        let query = ListQuery { filter, before: None, limit: PAGE_MAX, scan_max: 5_000 };
        self.store.list(query).now_or_never().expect("memory never waits").expect("readable").rows.len()
    }
}

fn plain() -> QueueConfig {
    QueueConfig::default()
}

#[test]
fn a_queue_that_is_taken_out_keeps_its_tasks_and_starts_none_until_it_is_named_again() {
    let mut rig = Rig::with(&config(&[("mail", QueueConfig { max_concurrent_dispatches: 1, ..plain() })]));
    let running = rig.turn(vec![post_to("mail", When::Now), post_to("mail", When::Now)], Vec::new()).leases.remove(0);

    let step = rig.configure(&Config::default());
    assert_eq!(step.events, [QueueHeld { queue: name("mail"), tasks: 2 }.into()]);
    let step = rig.turn(vec![post_to("mail", When::Now)], vec![done(&running)]);
    assert!(matches!(accepted(&step)[0], Err(AcceptError::UnknownQueue { .. })), "it takes none");
    assert_eq!((rig.stored(Status::Succeeded), rig.started()), (1, 0), "what ran could end, what waits has to");
    assert!(rig.view("mail").paused);
    assert_eq!(rig.configure(&Config::default()).events, [], "once is enough");

    let step = rig.configure(&config(&[("mail", plain())]));
    assert_eq!(step.leases.len(), 1, "in the same turn");
    assert!(!rig.view("mail").paused);
}

#[test]
fn whoever_resumes_a_queue_that_was_taken_out_is_not_overruled_by_the_next_reload() {
    let mut rig = Rig::with(&config(&[("mail", plain())]));
    rig.turn(vec![post_to("mail", When::Delay(Span::from_secs(9)))], Vec::new());
    rig.configure(&Config::default());
    rig.turn(vec![Request::Pause(name("mail"), false)], Vec::new());
    rig.configure(&Config { payload_bytes_max: 7, ..Config::default() });
    rig.hand.advance(Duration::from_secs(9));
    assert_eq!(rig.started(), 1);
}

#[test]
fn a_pause_is_state_and_outlives_every_configuration_and_a_restart() {
    let both = config(&[("mail", plain())]);
    let mut rig = Rig::with(&both);
    rig.turn(vec![Request::Pause(name("mail"), true), post_to("mail", When::Now)], Vec::new());
    let faster = QueueConfig { max_dispatches_per_second: Some(1_000.0), ..plain() };
    for next in [&config(&[("mail", faster)]), &Config::default(), &both] {
        rig.configure(next);
        rig.hand.advance(Duration::from_secs(1));
        assert!(rig.view("mail").paused && rig.started() == 0);
    }
    rig.machine = open(&rig.store, &both, &rig.clock);
    assert!(rig.view("mail").paused);
    assert_eq!(rig.turn(vec![Request::Pause(name("mail"), false)], Vec::new()).leases.len(), 1);
}

#[test]
fn pausing_a_queue_that_is_held_is_remembered() {
    let both = config(&[("mail", plain())]);
    let mut rig = Rig::with(&both);
    rig.turn(vec![post_to("mail", When::Delay(Span::from_secs(1)))], Vec::new());
    rig.configure(&Config::default());
    rig.turn(vec![Request::Pause(name("mail"), true)], Vec::new());
    rig.configure(&both);
    assert!(rig.view("mail").paused, "somebody wanted it so, whatever the configuration says");
}

#[test]
fn a_new_queue_takes_tasks_at_once_and_is_known_after_a_restart() {
    let mut rig = Rig::with(&Config::default());
    let step = rig.turn(vec![post_to("mail", When::Now)], Vec::new());
    assert!(matches!(accepted(&step)[0], Err(AcceptError::UnknownQueue { .. })));
    let both = config(&[("mail", plain())]);
    // Behind it in the same turn, even.
    let step = rig.turn(vec![Request::Configure(Arc::new(both.clone())), post_to("mail", When::Now)], Vec::new());
    assert_eq!((accepted(&step)[0].is_ok(), step.leases.len()), (true, 1));
    rig.machine = open(&rig.store, &both, &rig.clock);
    assert_eq!(rig.view("mail").tasks.iter().sum::<u64>(), 1);
}

#[test]
fn more_slots_of_every_kind_are_used_in_the_turn_that_brings_them() {
    let limited = |workers, host, queue| {
        let mut config = config(&[("mail", QueueConfig { max_concurrent_dispatches: queue, ..plain() })]);
        config.workers.max_concurrent = workers;
        config.hosts.defaults.max_concurrent = host;
        config
    };
    for from in [limited(1, 9, 9), limited(9, 1, 9), limited(9, 9, 1)] {
        let mut rig = Rig::with(&from);
        let first = rig
            .turn(vec![post_to("mail", When::Now), post_to("mail", When::Now), post_to("mail", When::Now)], Vec::new());
        assert_eq!(first.leases.len(), 1);
        assert_eq!(rig.configure(&limited(9, 9, 9)).leases.len(), 2);
        // And back: what runs goes on, and none follows before there is room again.
        rig.configure(&from);
        let step = rig.turn(vec![post_to("mail", When::Now)], vec![done(&first.leases[0])]);
        assert_eq!((rig.machine.in_flight(), step.leases.len()), (2, 0));
    }
}

#[test]
fn a_lifted_rate_lets_go_at_once_and_a_new_one_gives_no_burst_away() {
    let rate =
        |rate| config(&[("mail", QueueConfig { max_dispatches_per_second: rate, max_burst_size: 50, ..plain() })]);
    let mut rig = Rig::with(&rate(Some(0.001)));
    let waiting = rig.turn((0..9).map(|_| post_to("mail", When::Now)).collect(), Vec::new());
    assert_eq!((accepted(&waiting).len(), waiting.leases.len()), (9, 0));
    assert_eq!(rig.configure(&rate(None)).leases.len(), 9);
    rig.configure(&rate(Some(1.0)));
    let step = rig.turn((0..9).map(|_| post_to("mail", When::Now)).collect(), Vec::new());
    assert_eq!(step.leases.len(), 0, "a bucket starts empty");
    rig.hand.advance(Duration::from_secs(2));
    rig.configure(&rate(Some(2.0)));
    assert_eq!(rig.started(), 0, "two tokens were saved, and are spent by the turn of the change");
    rig.hand.advance(Duration::from_millis(500));
    assert_eq!(rig.started(), 1, "then one every half second");
}

#[test]
fn a_shorter_retention_removes_what_ended_long_ago_though_younger_tasks_end_meanwhile() {
    let kept = |age| {
        let retention = Bound { age: Some(Span::from_secs(age)), count: None, bytes: None };
        Config { queues: [(name("default"), QueueConfig { retention, ..plain() })].into(), ..Config::default() }
    };
    let mut rig = Rig::with(&kept(3_600));
    let work = rig.turn(vec![post_to("default", When::Now)], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![done(&work)]);
    rig.hand.advance(Duration::from_secs(100));
    let work = rig.turn(vec![post_to("default", When::Now)], Vec::new()).leases.remove(0);
    // One ends between the new bound and the look at it, which could hide that an older one has come of age.
    rig.configure(&kept(50));
    rig.turn(Vec::new(), vec![done(&work)]);
    assert_eq!(rig.stored(Status::Succeeded), 2);
    rig.hand.advance(Duration::from_secs(1));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.stored(Status::Succeeded), 1);
    // Longer again: the younger one, which was to go after 50 s, stays.
    rig.configure(&kept(3_600));
    rig.hand.advance(Duration::from_secs(60));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.stored(Status::Succeeded), 1);
}

#[test]
fn a_bound_where_none_was_is_obeyed_by_what_is_there() {
    let dead = |count| {
        let mut queue = plain();
        queue.dead_letters.count = count;
        queue.retry.max_attempts = 1;
        Config { queues: [(name("default"), queue)].into(), ..Config::default() }
    };
    let mut rig = Rig::with(&dead(None));
    for _ in 0..3 {
        let work = rig.turn(vec![post_to("default", When::Now)], Vec::new()).leases.remove(0);
        rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    }
    rig.configure(&dead(Some(1)));
    rig.hand.advance(Duration::from_secs(1));
    rig.turn(Vec::new(), Vec::new());
    assert_eq!(rig.stored(Status::Dead), 1);
}

#[test]
fn a_task_that_waits_for_a_retry_follows_the_new_policy_at_its_next_failure() {
    let retry = |attempts, backoff| {
        let mut queue = plain();
        queue.retry.max_attempts = attempts;
        queue.retry.min_backoff = Span::from_secs(backoff);
        queue.retry.jitter = 0.0;
        Config { queues: [(name("default"), queue)].into(), ..Config::default() }
    };
    let mut rig = Rig::with(&retry(9, 10));
    let work = rig.turn(vec![post_to("default", When::Now)], Vec::new()).leases.remove(0);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    rig.configure(&retry(2, 1));
    assert_eq!(rig.started(), 0, "its next attempt was fixed by then");
    rig.hand.advance(Duration::from_secs(10));
    let work = rig.turn(Vec::new(), Vec::new()).leases.remove(0);
    assert_eq!(work.max_attempts, 2);
    rig.turn(Vec::new(), vec![ends(&work, OutcomeClass::Reset)]);
    assert_eq!(rig.stored(Status::Dead), 1);
}

#[test]
fn the_same_again_writes_nothing_and_moves_nothing() {
    let limited = config(&[("mail", QueueConfig { max_dispatches_per_second: Some(1.0), ..plain() })]);
    let mut rig = Rig::with(&limited);
    rig.turn(vec![post_to("mail", When::Now)], Vec::new());
    rig.turn(Vec::new(), Vec::new());
    let now = rig.clock.now();
    let next = rig.machine.next_look(now);
    let step = rig.configure(&limited);
    assert!(step.events.is_empty() && step.changes.is_empty() && step.leases.is_empty());
    assert_eq!(rig.machine.next_look(now), next);
}

fn any_config() -> impl Strategy<Value = Config> {
    let limits = (proptest::option::of(1_u32..5), 1_u32..4, 1_u32..3, proptest::option::of(1_u64..3));
    let queue = limits.prop_map(|(rate, concurrent, attempts, dead)| {
        let mut queue = plain();
        queue.max_dispatches_per_second = rate.map(f64::from);
        queue.max_concurrent_dispatches = concurrent;
        queue.retry.max_attempts = attempts;
        queue.dead_letters.count = dead;
        queue
    });
    let queues = proptest::collection::btree_map("default|mail|slow|other", queue, 1..4);
    (queues, 1_u32..4, 1_u32..4).prop_map(|(queues, workers, host)| {
        let mut config = Config::default();
        config.queues.extend(queues.into_iter().map(|(queue, limits)| (name(&queue), limits)));
        config.workers.max_concurrent = workers;
        config.hosts.defaults.max_concurrent = host;
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever configurations came before, live: queues stand as after a start with the last one.
    #[test]
    fn a_changed_machine_stands_as_one_that_was_started_so(
        configs in proptest::collection::vec(any_config(), 2..6),
        posts in proptest::collection::vec((0_usize..4, 0_u64..3), 1..20),
    ) {
        let mut rig = Rig::with(&configs[0]);
        let mut posts = posts.into_iter();
        for config in &configs[1..] {
            let some: Vec<Request> = posts
                .by_ref()
                .take(4)
                .map(|(queue, delay)| post_to(["default", "mail", "slow", "other"][queue], When::Delay(Span::from_secs(delay))))
                .collect();
            let leases = rig.turn(some, Vec::new()).leases;
            rig.hand.advance(Duration::from_secs(1));
            rig.turn(Vec::new(), leases.iter().map(|work| ends(work, OutcomeClass::Reset)).collect());
            let before = rig.machine.core.running.len();
            let step = rig.configure(config);
            // No more than there is room for has started.
            let room = (config.workers.max_concurrent as usize).saturating_sub(before);
            prop_assert!(step.leases.len() <= room, "{} of {room}", step.leases.len());
            rig.machine.stop_starting();
            let running: Vec<_> = rig.machine.core.running.values().map(|running| running.row.header.clone()).collect();
            let ended = running.into_iter().map(|header| Settlement { key: header.key, epoch: header.epoch, outcome: ok() });
            rig.turn(Vec::new(), ended.collect());
            rig.hand.advance(Duration::from_secs(2));
            rig.turn(Vec::new(), Vec::new());
            let restarted = open(&rig.store, config, &rig.clock);
            for (live, restarted) in rig.machine.views(None).into_iter().zip(restarted.views(None)) {
                prop_assert_eq!(&live.name, &restarted.name);
                prop_assert_eq!((&live.config, live.paused), (&restarted.config, restarted.paused), "{}", live.name);
                prop_assert_eq!((live.bytes, live.dead), (restarted.bytes, restarted.dead), "{}", live.name);
                prop_assert_eq!(live.tasks.iter().sum::<u64>(), restarted.tasks.iter().sum::<u64>(), "{}", live.name);
            }
            rig.machine.core.starting = true;
        }
    }
}

#[test]
fn what_the_engine_takes_over_is_what_a_reload_calls_live() {
    // The engine's own view of a queue is what `GET /queues` shows: nothing of it may lag behind the event.
    let from = config(&[("mail", plain())]);
    let to = config(&[("mail", QueueConfig { weight: 3, max_tasks: Some(5), ..plain() })]);
    let mut rig = Rig::with(&from);
    rig.configure(&to);
    assert_eq!(*rig.view("mail").config, to.queues[&name("mail")]);
    assert_eq!(Difference::between(&from, &to).restart, []);
}
