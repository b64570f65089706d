//! How many attempts of a queue may start: governor's GCRA, fed with our time and carried over live changes.
//!
//! The promise: in any window the number of starts is at most the largest burst in force within it plus the integral
//! of the rate over it, across live changes and restarts. From it follows that **a bucket starts empty**, without even
//! one token in it: a process that crashes and starts again would otherwise give one away each time. So a queue that
//! may start one attempt an hour starts its first one an hour after the server did; `explain` says until when.
//!
//! What governor 0.10 does not do by itself, and how it is done here:
//! - Its clock reads the time. Ours shows what it is told ([`Cells`] is its `Clock`).
//! - Its limiter starts full and cannot be asked without spending. Its state is one number, the theoretical arrival
//!   time; [`Cells`] is also its `StateStore`, so that number can be read, and be written on a live change. Tokens are
//!   therefore carried over exactly, fractions of one included, rounded down to the nanosecond.
//! - `period × burst` overflows 64 bit nanoseconds (panics in debug, wraps in release) for a low rate with a large
//!   burst. The burst is cut so that the product stays below [`FILL_NS_MAX`], 146 years of saving up.
//! - `Quota::per_second` rounds the period down and so lets through more than was asked. Ours is rounded up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::task::limits::{BURST_MAX, RATE_PER_SECOND_MAX, RATE_PER_SECOND_MIN};

/// The longest time, in nanoseconds, that filling a bucket may take: a quarter of what 64 bits hold.
const FILL_NS_MAX: u64 = 1 << 62;

/// The limit of one queue on starts per second.
#[derive(Debug, Default)]
pub(super) struct RateLimit(Option<Bucket>);

impl RateLimit {
    /// Changes the limit while it is in force. Tokens are kept as far as the new burst holds them; where there was no
    /// limit before, the bucket starts empty. `rate` is in starts per second, `None` for no limit.
    pub(super) fn set(&mut self, rate: Option<f64>, burst: u32, now: Duration) {
        let Some(rate) = rate else {
            self.0 = None;
            return;
        };
        let shape = Shape::new(rate, burst);
        let saved = self.0.as_ref().map_or(0, |bucket| shape.carried(bucket.saved(now), bucket.shape));
        self.0 = Some(Bucket::new(shape, saved, now));
    }

    /// Takes a token, or says from which moment of the monotonic clock on there will be one.
    pub(super) fn take(&self, now: Duration) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), |bucket| bucket.take(now))
    }

    /// From when on there will be a token; `None`: there is one now. Takes nothing.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let at = self.0.as_ref()?.next_token();
        (at > nanos(now)).then(|| Duration::from_nanos(at))
    }
}

/// Rate and burst as the bucket counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Nanoseconds until one token has accrued.
    period: u64,
    /// Tokens that fit.
    burst: NonZeroU32,
}

impl Shape {
    fn new(rate: f64, burst: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 10^3 and 10^14")]
        let period = (1e9 / rate.clamp(RATE_PER_SECOND_MIN, RATE_PER_SECOND_MAX)).ceil() as u64;
        let period = period.max(1);
        let fits = u32::try_from(FILL_NS_MAX / period).unwrap_or(u32::MAX);
        Self { period, burst: NonZeroU32::new(burst.min(BURST_MAX).min(fits)).unwrap_or(NonZeroU32::MIN) }
    }

    /// A full bucket in nanoseconds of accrual.
    fn full(self) -> u64 {
        self.period.saturating_mul(u64::from(self.burst.get()))
    }

    /// What `saved` nanoseconds of accrual under another shape are worth under this one.
    fn carried(self, saved: u64, before: Self) -> u64 {
        let worth = u128::from(saved) * u128::from(self.period) / u128::from(before.period);
        u64::try_from(worth).unwrap_or(u64::MAX).min(self.full())
    }
}

/// governor's limiter, and the cells through which we see its clock and its state.
#[derive(Debug)]
struct Bucket {
    shape: Shape,
    cells: Cells,
    limiter: RateLimiter<NotKeyed, Cells, Cells, NoOpMiddleware<Nanos>>,
}

impl Bucket {
    /// A bucket that holds `saved` nanoseconds of accrual.
    fn new(shape: Shape, saved: u64, now: Duration) -> Self {
        let cells = Cells::default();
        let quota = quota(shape);
        // The limiter notes the moment it was made at, here 0, so that its times are those of our monotonic clock.
        let limiter = RateLimiter::new(quota, cells.clone(), cells.clone());
        let missing = shape.full().saturating_sub(saved);
        cells.0.arrival.store(nanos(now).saturating_add(missing), Ordering::Relaxed);
        Self { shape, cells, limiter }
    }

    /// Nanoseconds of accrual in the bucket: a token is worth a period.
    fn saved(&self, now: Duration) -> u64 {
        self.shape.full().saturating_sub(self.arrival().saturating_sub(nanos(now)))
    }

    /// The theoretical arrival time: when the bucket will be full.
    fn arrival(&self) -> u64 {
        self.cells.0.arrival.load(Ordering::Relaxed)
    }

    fn next_token(&self) -> u64 {
        self.arrival().saturating_sub(self.shape.full() - self.shape.period)
    }

    fn take(&self, now: Duration) -> Result<(), Duration> {
        self.cells.0.now.store(nanos(now), Ordering::Relaxed);
        self.limiter.check().map_err(|refused| refused.earliest_possible().into())
    }
}

fn quota(shape: Shape) -> Quota {
    Quota::with_period(Duration::from_nanos(shape.period))
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(shape.burst)
}

fn nanos(mono: Duration) -> u64 {
    u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX)
}

/// What governor reads and writes: its clock and its state, in nanoseconds of our monotonic clock.
///
/// Atomics because governor asks for `&self`; only one thread ever comes here, so no ordering is needed.
#[derive(Debug, Clone, Default)]
struct Cells(Arc<CellPair>);

#[derive(Debug, Default)]
struct CellPair {
    now: AtomicU64,
    arrival: AtomicU64,
}

impl Clock for Cells {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.now.load(Ordering::Relaxed))
    }
}

impl StateStore for Cells {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (answer, arrival) = decide(Some(Nanos::new(self.0.arrival.load(Ordering::Relaxed))))?;
        self.0.arrival.store(arrival.as_u64(), Ordering::Relaxed);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NANO: Duration = Duration::from_nanos(1);

    fn limit(rate: f64, burst: u32, now: Duration) -> RateLimit {
        let mut limit = RateLimit::default();
        limit.set(Some(rate), burst, now);
        limit
    }

    fn just_before(at: Duration) -> Duration {
        at.saturating_sub(NANO)
    }

    /// Takes what there is at `now`.
    fn drain(limit: &RateLimit, now: Duration) -> usize {
        std::iter::repeat_with(|| limit.take(now)).take(2_000_000).take_while(Result::is_ok).count()
    }

    #[test]
    fn the_same_limit_once_more_changes_nothing() {
        let start = Duration::from_secs(7);
        let mut limit = limit(1.0, 3, start);
        limit.set(Some(1.0), 3, start + Duration::from_millis(999));
        assert!(limit.take(just_before(start + Duration::from_secs(1))).is_err());
        assert_eq!(limit.take(start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_bucket_starts_empty_and_fills_to_its_burst() {
        let start = Duration::from_secs(7);
        let limit = limit(2.0, 3, start);
        let first = start + Duration::from_millis(500);
        assert_eq!(limit.take(start), Err(first));
        assert_eq!(limit.wait(start), Some(first));
        assert_eq!(limit.take(just_before(first)), Err(first));
        assert_eq!(limit.wait(first), None);
        assert_eq!(limit.take(first), Ok(()));
        assert_eq!(drain(&limit, start + Duration::from_secs(3_600)), 3);
    }

    #[test]
    fn no_limit_lets_all_through() {
        let mut limit = limit(1.0, 1, Duration::ZERO);
        limit.set(None, 1, Duration::ZERO);
        assert_eq!(limit.take(Duration::ZERO), Ok(()));
        assert_eq!(limit.wait(Duration::ZERO), None);
        // And a limit put where none was starts empty again.
        limit.set(Some(1.0), 5, Duration::from_secs(9));
        assert_eq!(limit.take(Duration::from_secs(9)), Err(Duration::from_secs(10)));
    }

    #[test]
    fn less_than_one_a_second() {
        let limit = limit(1.0 / 3_600.0, 1, Duration::ZERO);
        let hour = Duration::from_secs(3_600);
        assert_eq!(limit.take(just_before(hour)).map_err(|at| at.as_secs()), Err(3_600));
        assert_eq!(limit.take(hour + NANO), Ok(()));
        assert!(limit.take(just_before(hour * 2)).is_err());
    }

    #[test]
    fn the_ends_of_what_may_be_configured_neither_overflow_nor_lock() {
        let years = Duration::from_secs(200 * 366 * 86_400);
        for (rate, burst) in [
            (RATE_PER_SECOND_MIN, BURST_MAX),
            (RATE_PER_SECOND_MIN, 0),
            (RATE_PER_SECOND_MAX, BURST_MAX),
            (RATE_PER_SECOND_MAX, 1),
            (f64::MIN_POSITIVE, u32::MAX),
            (f64::MAX, u32::MAX),
        ] {
            let limit = limit(rate, burst, years);
            assert!(limit.take(years).is_err(), "{rate} {burst}");
            let next = limit.wait(years).unwrap();
            assert_eq!(limit.take(next), Ok(()), "{rate} {burst}");
        }
        let slow = Shape::new(RATE_PER_SECOND_MIN, BURST_MAX);
        assert_eq!(slow.burst.get(), 46_116, "cut to what 146 years save up");
        assert_eq!(Shape::new(RATE_PER_SECOND_MAX, BURST_MAX).burst.get(), BURST_MAX);
    }

    #[test]
    fn tokens_are_carried_over_a_live_change() {
        let at = Duration::from_secs(100);
        let full = || limit(1.0, 10, Duration::ZERO);

        let mut lower_burst = full();
        lower_burst.set(Some(1.0), 4, at);
        assert_eq!(drain(&lower_burst, at), 4);

        let mut higher_burst = full();
        higher_burst.set(Some(1.0), 50, at);
        assert_eq!(drain(&higher_burst, at), 10, "what fitted before, not a full new bucket");

        let mut other_rate = full();
        assert_eq!(other_rate.take(at), Ok(()));
        other_rate.set(Some(0.001), 10, at);
        assert_eq!(drain(&other_rate, at), 9, "tokens are counted in tokens, not in seconds");

        let mut half = full();
        assert_eq!(drain(&half, at), 10);
        half.set(Some(2.0), 10, at + Duration::from_millis(500));
        assert_eq!(half.wait(at), Some(at + Duration::from_millis(750)), "half a token, the other half twice as fast");
    }

    #[test]
    fn setting_the_same_again_changes_nothing() {
        let mut limit = limit(3.0, 2, Duration::ZERO);
        let before = limit.wait(Duration::ZERO);
        for ms in 0..100 {
            limit.set(Some(3.0), 2, Duration::from_millis(ms));
        }
        assert_eq!(limit.wait(Duration::ZERO), before);
    }

    /// What was in force from a moment on.
    type InForce = Vec<(Duration, Option<f64>, u32)>;

    #[derive(Debug, Clone)]
    enum Step {
        Wait(u64),
        WaitForToken,
        Take(usize),
        Change(f64, u32),
        Lift,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let rate = || prop_oneof![0.01_f64..2.0, 1.0_f64..5_000.0];
        prop_oneof![
            4 => (0_u64..3_000_000_000).prop_map(Step::Wait),
            3 => Just(Step::WaitForToken),
            6 => (1_usize..40).prop_map(Step::Take),
            2 => (rate(), 1_u32..30).prop_map(|(rate, burst)| Step::Change(rate, burst)),
            1 => Just(Step::Lift),
            1 => Just(Step::Restart),
        ]
    }

    /// Most starts that a closed window may see; infinite when there was no limit for a part of it.
    fn allowed(in_force: &InForce, from: Duration, until: Duration) -> f64 {
        let (mut burst_max, mut integral) = (0_u32, 0.0);
        for (index, (since, rate, burst)) in in_force.iter().enumerate() {
            let over = in_force.get(index + 1).map_or(Duration::MAX, |next| next.0);
            if over < from || *since > until {
                continue;
            }
            let Some(rate) = rate else { return f64::INFINITY };
            burst_max = burst_max.max(*burst);
            integral += rate * over.min(until).saturating_sub((*since).max(from)).as_secs_f64();
        }
        f64::from(burst_max) + integral
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_burst_and_rate_allow(
            rate in 0.01_f64..100.0,
            burst in 1_u32..30,
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let mut now = Duration::from_secs(1);
            let (mut rate, mut burst) = (Some(rate), burst);
            let mut limit = RateLimit::default();
            limit.set(rate, burst, now);
            let mut in_force: InForce = vec![(now, rate, burst)];
            let mut starts = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ns) => now += Duration::from_nanos(ns),
                    Step::WaitForToken => {
                        if let Some(at) = limit.wait(now) {
                            prop_assert_eq!(limit.take(just_before(at)), Err(at), "not before");
                            now = at;
                            prop_assert_eq!(limit.take(now), Ok(()), "and then surely");
                            starts.push(now);
                        }
                    }
                    Step::Take(most) => {
                        let got = std::iter::repeat_with(|| limit.take(now)).take(most).take_while(Result::is_ok).count();
                        starts.extend(std::iter::repeat_n(now, got));
                    }
                    Step::Change(to, size) => (rate, burst) = (Some(to), size),
                    Step::Lift => rate = None,
                    Step::Restart => {
                        limit = RateLimit::default();
                    }
                }
                limit.set(rate, burst, now);
                in_force.push((now, rate, burst));
            }
            for (first, from) in starts.iter().enumerate() {
                for (last, until) in starts.iter().enumerate().skip(first) {
                    #[expect(clippy::cast_precision_loss, reason = "a few hundred starts")]
                    let seen = (last - first + 1) as f64;
                    let most = allowed(&in_force, *from, *until);
                    prop_assert!(seen <= most + 1e-6, "{seen} starts from {from:?} to {until:?}, {most} allowed");
                }
            }
        }
    }
}
