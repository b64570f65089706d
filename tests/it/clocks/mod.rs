//! Wrong wall clocks: the real server under libfaketime, whose clock jumps by ±1 h, ±1 day, to 1970 and to 2038, while
//! it runs and over a restart.
//!
//! Nothing with `run_at` is early by the server's clock; nothing without stalls or is early; timeouts and leases do not
//! notice; nothing expires or is removed by a clock in doubt; nothing is lost.
//!
//! `SENDOFF_CLOCKS_ROUNDS=N` runs more than the first two scenarios (there are 18), `SENDOFF_CLOCKS_SEED=N` repeats
//! a run, `SENDOFF_CLOCKS_MINUTE=1` waits for the minute of agreement too.

mod faked;
mod target;

use std::path::Path;
use std::time::Duration;

use sendoff::clock::{Chance, Clock};
use serde_json::json;

use crate::support::suites::{number, skipped};
use faked::{Faked, library};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// 2038-01-19T03:14:08Z, where 32-bit seconds end, and some minutes past 1970, in Unix seconds.
const IN_2038: i64 = 2_147_483_648;
const IN_1970: i64 = 10_000;

/// Where a clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    By(i64),
    At(i64),
}

const WRONG: [Wrong; 6] =
    [Wrong::By(HOUR), Wrong::At(IN_2038), Wrong::By(-HOUR), Wrong::At(IN_1970), Wrong::By(DAY), Wrong::By(-DAY)];

impl Wrong {
    /// In seconds off the machine's clock; not to the second the same each time.
    fn offset(self, chance: &mut Chance) -> i64 {
        let some = i64::try_from(chance.below(600)).unwrap();
        match self {
            Self::By(seconds) => seconds + seconds.signum() * some,
            Self::At(seconds) => seconds + some - Clock::system().now().wall.get() / 1_000,
        }
    }
}

/// When the clock is wrong.
#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// It jumps while the server runs, and is set right again.
    Jump(Wrong),
    /// It is right at first, and wrong after a restart.
    IntoWrong(Wrong),
    /// It is wrong at first, and right after a restart.
    IntoRight(Wrong),
}

/// All of them, those first that a short run should not miss.
fn scenarios() -> Vec<Scenario> {
    let each = |scenario: fn(Wrong) -> Scenario| WRONG.map(scenario);
    let [jumps, into_wrong, mut into_right] =
        [each(Scenario::Jump), each(Scenario::IntoWrong), each(Scenario::IntoRight)];
    into_right.rotate_left(1);
    (0..WRONG.len()).flat_map(|n| [jumps[n], into_right[n], into_wrong[n]]).collect()
}

/// What one scenario showed.
struct Report {
    acknowledged: usize,
    faults: Vec<String>,
}

async fn run(library: &Path, scenario: Scenario, chance: &mut Chance, sin: Option<&str>) -> Report {
    let faked = match scenario {
        Scenario::Jump(wrong) => jump(library, wrong.offset(chance), sin).await,
        Scenario::IntoWrong(wrong) => restart(library, (0, wrong.offset(chance)), chance.below(2) == 0).await,
        Scenario::IntoRight(wrong) => restart(library, (wrong.offset(chance), 0), chance.below(2) == 0).await,
    };
    let faults = faked.faults.iter().map(|fault| format!("{scenario:?}: {fault}")).collect();
    Report { acknowledged: faked.acknowledged.len(), faults }
}

/// The clock of a running server jumps, and is set right again.
async fn jump(library: &Path, offset: i64, sin: Option<&str>) -> Faked {
    let two = Duration::from_secs(2);
    let mut f = Faked::new(library, 0, sin).await;
    f.start();
    f.act("/queues/held/pause").await;
    let old = f.create("/ok", json!({})).await;
    f.until("a task before the jump", &old, "succeeded").await;
    let (soon, far) = (f.wall_plus(3), f.wall_plus(HOUR / 2));
    let at_soon = f.create("/ok", json!({"run_at": soon})).await;
    let at_far = f.create("/ok", json!({"run_at": far})).await;
    let expires = json!({"queue": "held", "expires_at": f.wall_plus(HOUR / 6)});
    let expiring = f.create("/ok", expires).await;
    let long = f.create("/ok", json!({"delay": "30m"})).await;
    let posted = f.clock.now().mono;
    let delayed = f.create("/ok", json!({"delay": "2s"})).await;
    let retried = f.create("/flaky", json!({"retry": {"min_backoff": "2s", "jitter": 0}})).await;
    let hanging = f.create("/hang", json!({"timeout": "2s", "retry": {"max_attempts": 1}})).await;

    f.set_clock(offset);
    let at_once = f.create("/ok", json!({})).await;
    f.until("a task during the jump", &at_once, "succeeded").await;
    f.until("a delay", &delayed, "succeeded").await;
    f.until("a backoff", &retried, "succeeded").await;
    f.expect_calls("a delay", &delayed, 1, (posted, two));
    f.expect_calls("a backoff", &retried, 2, (posted, two));
    let timed_out = f.until("a timeout", &hanging, "dead").await;
    if timed_out["attempts"][0]["class"] != "timeout_before_headers" {
        f.faults.push(format!("a timeout: {}", timed_out["attempts"]));
    }
    f.expect_calls("a lease", &hanging, 1, (posted, Duration::ZERO));
    if offset > HOUR / 2 {
        f.until("a run_at that the jump reached", &at_far, "succeeded").await;
    }
    f.expect_not_called("a long delay", &long);
    f.expect("an expiry on a clock in doubt", &expiring, &["queued"]).await;
    f.expect("retention on a clock in doubt", &old, &["succeeded"]).await;
    f.expect_jump_told().await;

    f.set_clock(0);
    f.until("a run_at that has come", &at_soon, "succeeded").await;
    f.expect_not_called("a long delay, set right", &long);
    f.act("/queues/held/resume").await;
    f.until("an expiry that has not come", &expiring, "succeeded").await;
    f.expect_not_early("run_at soon", &at_soon, &soon);
    f.expect_not_early("run_at in half an hour", &at_far, &far);
    f.expect_nothing_lost().await;
    f.stop(false);
    f
}

/// The server is stopped under one clock and started under another.
async fn restart(library: &Path, (first, second): (i64, i64), kill: bool) -> Faked {
    let mut f = Faked::new(library, first, None).await;
    f.start();
    f.act("/queues/held/pause").await;
    let old = f.create("/ok", json!({})).await;
    f.until("a task before the restart", &old, "succeeded").await;
    let far = f.wall_plus(HOUR / 2);
    let at_far = f.create("/ok", json!({"run_at": far})).await;
    let expires = json!({"queue": "held", "expires_at": f.wall_plus(HOUR / 6)});
    let expiring = f.create("/ok", expires).await;
    let held = f.create("/ok", json!({"queue": "held"})).await;
    let delayed = f.create("/ok", json!({"queue": "held", "delay": "2s"})).await;
    let long = f.create("/ok", json!({"delay": "30m"})).await;
    let retried = f.create("/flaky", json!({"retry": {"min_backoff": "2s", "jitter": 0}})).await;
    f.stop(kill);

    f.set_clock(second);
    f.start();
    f.expect("retention at a start", &old, &["succeeded"]).await;
    // Hours and days ahead cannot be told from a stop of that length: then a delay is over, and an expiry has come.
    let ahead = second - first;
    let like_a_stop = ahead > 0 && ahead < 30 * DAY;
    if !like_a_stop {
        f.expect("an expiry on a clock in doubt", &expiring, &["queued"]).await;
        f.expect_jump_told().await;
    }
    f.act("/queues/held/resume").await;
    for (what, id) in [("a task at once", &held), ("a delay", &delayed), ("a backoff", &retried)] {
        f.until(what, id, "succeeded").await;
    }
    if ahead < 0 || first < -30 * DAY {
        f.expect_not_called("a long delay", &long);
    }
    f.expect_not_early("run_at in half an hour", &at_far, &far);
    f.expect_nothing_lost().await;
    f.stop(false);
    f
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clocks_make_nothing_early_stall_nothing_and_lose_nothing() {
    let Some(library) = library() else { return skipped("clocks", "there is no libfaketime") };
    let (rounds, seed) = (number("SENDOFF_CLOCKS_ROUNDS", 2), number("SENDOFF_CLOCKS_SEED", 1));
    let mut chance = Chance::from_seed(seed);
    let (mut acknowledged, mut faults) = (0, Vec::new());
    let scenarios = scenarios();
    for (_, scenario) in (0..rounds).zip(scenarios.iter().cycle()) {
        let report = run(&library, *scenario, &mut chance, None).await;
        acknowledged += report.acknowledged;
        faults.extend(report.faults);
    }
    let lost = faults.iter().filter(|fault| fault.ends_with("is lost")).count();
    println!("FIGURES clocks: {rounds} wrong clocks, {acknowledged} acknowledged, {lost} lost, seed {seed}");
    assert_eq!(faults, Vec::<String>::new());
}

/// The negative control: delays that are waited for on the wall clock must be caught by the very same suite.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn delays_on_the_wall_clock_are_caught() {
    let Some(library) = library() else { return skipped("clocks", "there is no libfaketime") };
    let sin = Some(sendoff::sabotage::Sin::WallClockSleep.as_str());
    let report = run(&library, Scenario::Jump(Wrong::By(HOUR)), &mut Chance::from_seed(1), sin).await;
    let caught = report.faults.iter().any(|fault| fault.contains("a long delay"));
    assert!(caught, "the suite would not notice delays on the wall clock: {:?}", report.faults);
}

/// A minute after a jump the clock is believed: what has expired by it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_agrees_for_a_minute_is_believed() {
    let Some(library) = library() else { return skipped("clocks", "there is no libfaketime") };
    if number("SENDOFF_CLOCKS_MINUTE", 0) == 0 {
        return eprintln!("SKIPPED: the minute of agreement: SENDOFF_CLOCKS_MINUTE=1 waits for it");
    }
    let mut f = Faked::new(&library, 0, None).await;
    f.start();
    f.act("/queues/held/pause").await;
    let expires = json!({"queue": "held", "expires_at": f.wall_plus(HOUR / 6)});
    let expiring = f.create("/ok", expires).await;
    let jumped = f.clock.now().mono;
    f.set_clock(HOUR);
    while f.status(&expiring).await == "queued" {
        f.wait(&expiring).await;
    }
    let took = f.clock.now().mono.saturating_sub(jumped);
    assert!(took >= Duration::from_secs(60), "it expired {took:?} after the jump");
    f.expect("an expiry", &expiring, &["expired"]).await;
    assert_eq!(f.faults, Vec::<String>::new());
    f.stop(false);
}
