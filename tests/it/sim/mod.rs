//! Seeded days of virtual time: the real engine over the memory store, with arrivals, targets, disks, clocks and crashes
//! that a seed decides, and an oracle that looks on.
//!
//! Same seed, same trace. A failure prints its seed; `SENDOFF_SIM_SEED=N cargo test --test it sim::replay -- --nocapture`
//! runs that one again and prints its trace (`SENDOFF_SIM_DAYS=1` if it was a day). `SENDOFF_SIM_SEEDS=N` runs N seeds,
//! of which the first `SENDOFF_SIM_DAYS` are days and the rest hours; `SENDOFF_SIM_FIRST=N` begins with another one.
//! Whoever only wants a day to pass runs `World::new(seed, DAY)`.

mod arrivals;
mod faults;
mod oracle;
mod targets;
pub(crate) mod world;

#[cfg(test)]
use crate::support::suites::number;
#[cfg(test)]
use world::{DAY, HOUR, Report, World};

#[test]
fn seeded_worlds_keep_every_invariant() {
    let (seeds, days) = (number("SENDOFF_SIM_SEEDS", 6), number("SENDOFF_SIM_DAYS", 0));
    let first = number("SENDOFF_SIM_FIRST", 1);
    let mut sum = Report::default();
    let mut broken = Vec::new();
    for seed in first..first + seeds {
        let size = if seed < first + days { DAY } else { HOUR };
        let report = World::new(seed, size).run();
        if !report.violations.is_empty() {
            println!("seed {seed} ({} h): {:#?}", size.hours, report.violations);
            broken.push(seed);
        }
        sum.add(report);
    }
    println!(
        "FIGURES simulation: {seeds} seeds from {first} ({days} days, {} hours), {} acknowledged, {} attempts, {} crashes, \
         {} troubled commits, {} clock jumps, {} turns, {} violations",
        seeds - days,
        sum.acknowledged,
        sum.attempts,
        sum.crashes,
        sum.troubles,
        sum.jumps,
        sum.turns,
        sum.violations.len(),
    );
    assert!(broken.is_empty(), "seeds {broken:?} broke a promise");
    assert!(sum.acknowledged > seeds * 300 && sum.attempts > sum.acknowledged, "the worlds did something");
    assert!(sum.crashes >= seeds && sum.troubles >= seeds, "and something was done to them");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| World::new(seed, HOUR).run();
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!((first.trace_hash, first.turns), (again.trace_hash, again.turns));
    assert_eq!(first.acknowledged, again.acknowledged);
    assert_ne!(first.trace_hash, other.trace_hash);
}

#[test]
fn an_engine_that_acknowledges_before_the_commit_is_caught_within_ten_seeds() {
    let caught = (1..=10).find(|seed| {
        let report = World::new(*seed, HOUR).acknowledging_early().run();
        report.violations.iter().any(|violation| violation.contains("acknowledged and lost"))
    });
    println!("acknowledge-before-commit: caught with seed {caught:?}");
    assert!(caught.is_some());
}

#[cfg(feature = "sabotage")]
#[test]
fn an_engine_that_settles_whatever_the_epoch_is_caught_within_ten_seeds() {
    use sendoff::sabotage::{Sin, on_this_thread};
    let caught = (1..=10).find(|seed| {
        let report = on_this_thread(Sin::SettleWithoutEpoch, || World::new(*seed, HOUR).run());
        report.violations.iter().any(|violation| violation.contains("nothing that was seen leads to this"))
    });
    println!("settle-without-epoch: caught with seed {caught:?}");
    assert!(caught.is_some());
}

#[test]
fn replay() {
    let seed = number("SENDOFF_SIM_SEED", 0);
    if seed > 0 {
        let size = if number("SENDOFF_SIM_DAYS", 0) > 0 { DAY } else { HOUR };
        let report = World::new(seed, size).printing().run();
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
    }
}
