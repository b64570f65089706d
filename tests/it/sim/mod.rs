//! Seeded days of virtual time: the real engine over the memory store, with arrivals, targets and crashes that a seed
//! decides, and an oracle that looks on.
//!
//! Same seed, same trace. A failure prints its seed; `SENDOFF_SIM_SEED=N cargo test --test it sim::replay -- --nocapture`
//! runs that one again and prints its trace. `SENDOFF_SIM_SEEDS=N` runs N seeds instead of 50.

mod oracle;
mod world;

use world::{Report, World};

/// How long arrivals and faults go on, and how long the world then has to come to rest.
const HOURS: u64 = 1;

fn run(seed: u64) -> Report {
    World::new(seed).run(HOURS)
}

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how a test run is steered")]
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn fifty_seeded_hours_keep_every_invariant() {
    let seeds = number("SENDOFF_SIM_SEEDS").unwrap_or(50);
    let (mut accepted, mut attempts, mut crashes) = (0, 0, 0);
    for seed in 1..=seeds {
        let report = run(seed);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        accepted += report.accepted;
        attempts += report.attempts;
        crashes += report.crashes;
    }
    assert!(accepted > seeds * 100 && attempts > accepted && crashes > seeds, "the world did something");
    println!("{seeds} seeds: {accepted} tasks accepted, {attempts} attempts, {crashes} crashes, no violation");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first.trace_hash, again.trace_hash);
    assert_eq!(first.accepted, again.accepted);
    assert_ne!(first.trace_hash, other.trace_hash);
}

#[test]
fn the_oracle_catches_an_engine_that_acknowledges_before_the_commit() {
    let mut caught = 0;
    for seed in 1..=10 {
        caught += usize::from(!World::new(seed).acknowledging_early().run(HOURS).violations.is_empty());
    }
    assert!(caught >= 8, "lost acknowledgements were noticed in {caught} of 10 seeds only");
}

#[test]
fn replay() {
    let Some(seed) = number("SENDOFF_SIM_SEED") else { return };
    let report = World::new(seed).printing().run(HOURS);
    assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
}
