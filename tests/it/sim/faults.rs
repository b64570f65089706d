//! What goes wrong, and what is changed under way: when, how often and how badly the seed decides.

use std::collections::BTreeMap;

use sendoff::clock::Chance;
use sendoff::config::{Bound, Config, HostConfig, QueueConfig};
use sendoff::queue::store::Pressure;
use sendoff::task::{LaneName, PriorityOrder, Span};

use super::arrivals::{QUEUES, queue};
use super::oracle::{Limits, QueueLimits};
use super::targets::{HOSTS, Targets};

/// What the disk does to the next commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// It takes so many milliseconds.
    Slow(i64),
    /// It is full, and still is when it is tried again so many times.
    Full(u64),
    /// Whether it took place is not known to the server, which stops; to us it is.
    Unknown { applied: bool },
}

/// Something that goes wrong, or is changed.
#[derive(Debug)]
pub(super) enum Fault {
    Crash,
    Trouble(Trouble),
    Pressure(Pressure),
    /// The wall clock jumps by so many milliseconds.
    Jump(i64),
    Configure(Box<Config>),
}

/// How often things go wrong in one hour of the world.
const CRASHES: u64 = 5;
const TROUBLES: u64 = 12;

/// Everything that goes wrong until `until`, each with its moment.
pub(super) fn plan(mut chance: Chance, until: i64, day: bool) -> Vec<(i64, Fault)> {
    let mut faults = Vec::new();
    let bound = u64::try_from(until).unwrap();
    let moment = |chance: &mut Chance| i64::try_from(chance.below(bound)).unwrap();
    let more = if day { 4 } else { 1 };
    for _ in 0..=chance.below(CRASHES * more) {
        faults.push((moment(&mut chance), Fault::Crash));
    }
    for _ in 0..chance.below(TROUBLES * more) {
        let trouble = match chance.below(8) {
            0..=3 => Trouble::Slow(1 + ms(&mut chance, 4_000)),
            4 | 5 => Trouble::Full(1 + chance.below(8)),
            kind => Trouble::Unknown { applied: kind == 6 },
        };
        faults.push((moment(&mut chance), Fault::Trouble(trouble)));
    }
    for _ in 0..chance.below(3) {
        let at = moment(&mut chance);
        let short = Pressure::BelowReserve { free: 1, reserve: 2 };
        faults.push((at, Fault::Pressure(short)));
        faults.push(((at + ms(&mut chance, 300_000)).min(until), Fault::Pressure(Pressure::Normal)));
    }
    for _ in 0..20 {
        faults.push((moment(&mut chance), Fault::Configure(Box::new(other_config(&mut chance)))));
    }
    // Two worlds of three have a clock that goes as it should.
    if chance.below(3) == 0 {
        for _ in 0..=chance.below(4) {
            let at = moment(&mut chance);
            faults.push((at, Fault::Jump(jump(&mut chance))));
        }
    }
    faults
}

fn jump(chance: &mut Chance) -> i64 {
    let far = match chance.below(4) {
        0 => ms(chance, 2_000),
        1 => 3_600_000,
        2 => 24 * 3_600_000,
        _ => 301_000 + ms(chance, 3_600_000),
    };
    if chance.below(2) == 0 { far } else { -far }
}

fn ms(chance: &mut Chance, below: u64) -> i64 {
    i64::try_from(chance.below(below)).unwrap()
}

/// What holds in the beginning and in the end.
pub(super) fn config() -> Config {
    let mut config = Config::default();
    // Everything is kept: the oracle looks at all of it in the end.
    let keep = Bound { age: None, count: None, bytes: None };
    let defaults = QueueConfig { max_concurrent_dispatches: 20, retention: keep, ..QueueConfig::default() };
    config.workers.max_concurrent = 60;
    config.hosts.defaults.max_concurrent = 12;
    config.queue_defaults = defaults.clone();
    let slow = QueueConfig { max_dispatches_per_second: Some(0.5), max_burst_size: 3, ..defaults.clone() };
    let strict = QueueConfig { order: PriorityOrder::Strict, weight: 3, ..defaults.clone() };
    let narrow = QueueConfig { max_concurrent_dispatches: 4, ..defaults.clone() };
    config.queues = BTreeMap::from(QUEUES.map(|name| {
        let limits = match name {
            "slow" => &slow,
            "strict" => &strict,
            "narrow" => &narrow,
            _ => &defaults,
        };
        (queue(name), limits.clone())
    }));
    config
}

/// Other limits than those of the beginning, and sometimes a queue less.
fn other_config(chance: &mut Chance) -> Config {
    let mut config = config();
    let mut some = |below: u64| 1 + u32::try_from(chance.below(below)).unwrap();
    config.workers.max_concurrent = some(60);
    config.hosts.defaults.max_concurrent = some(12);
    for limits in config.queues.values_mut() {
        limits.max_concurrent_dispatches = some(20);
        limits.weight = some(5);
        limits.max_burst_size = some(12);
        limits.max_dispatches_per_second = [None, Some(0.3), Some(2.0), Some(20.0)][some(4) as usize - 1];
        limits.order =
            [PriorityOrder::Strict, PriorityOrder::Aging(Span::from_secs(some(600).into()))][some(2) as usize - 1];
    }
    if some(2) == 1 {
        let lane = LaneName::new(&Targets::lane(u64::from(some(HOSTS)) - 1));
        config.hosts.overrides.insert(lane, HostConfig { max_concurrent: some(3) });
    }
    if some(4) == 1 {
        config.queues.remove(&queue(QUEUES[some(4) as usize - 1]));
    }
    config
}

/// The same as the oracle wants to know it.
pub(super) fn limits(config: &Config) -> Limits {
    let of = |queue: &QueueConfig| QueueLimits {
        rate: queue.max_dispatches_per_second,
        burst: queue.max_burst_size,
        concurrent: queue.max_concurrent_dispatches,
    };
    Limits {
        workers: config.workers.max_concurrent,
        host: config.hosts.defaults.max_concurrent,
        hosts: (config.hosts.overrides.iter())
            .map(|(lane, host)| (lane.as_str().to_owned(), host.max_concurrent))
            .collect(),
        queues: config.queues.iter().map(|(name, queue)| (name.as_str().to_owned(), of(queue))).collect(),
        unnamed: of(&config.queue_defaults),
    }
}
