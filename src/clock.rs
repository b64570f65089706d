//! Time and chance: the only module that reads a clock or the operating system's randomness.
//!
//! Everything else takes a [`Now`] and a [`Chance`] as arguments, so that tests and the simulation can move time and
//! repeat a run from its seed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::task::time::WallMs;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: `run_at`, `expires_at`, retention. May jump.
    pub wall: WallMs,
    /// The monotonic clock, since an arbitrary start: delays, backoff, leases, limits, timeouts. Never goes back.
    pub mono: Duration,
}

impl Now {
    /// Milliseconds of the monotonic clock.
    pub fn mono_ms(&self) -> i64 {
        i64::try_from(self.mono.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A future that ends when the clock has reached a moment.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A cheap handle on the clock: the system's, or one that a test moves.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(std::time::Instant),
    Manual(Arc<watch::Sender<Now>>),
}

impl Clock {
    /// The operating system's clocks; monotonic time starts at this call.
    #[expect(clippy::disallowed_methods, reason = "this is the module whose business it is")]
    pub fn system() -> Self {
        Self(Source::System(std::time::Instant::now()))
    }

    /// A clock that stands still until it is moved, and the handle that moves it.
    pub fn manual(wall: WallMs) -> (Self, ManualClock) {
        let start = Now { wall, mono: Duration::from_secs(1) };
        let sender = Arc::new(watch::channel(start).0);
        (Self(Source::Manual(Arc::clone(&sender))), ManualClock(sender))
    }

    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the module whose business it is")]
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::System(start) => {
                let wall = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
                Now { wall: WallMs::new(wall), mono: start.elapsed() }
            }
            Source::Manual(sender) => *sender.borrow(),
        }
    }

    /// Sleeps for `duration` of the monotonic clock.
    #[expect(clippy::disallowed_methods, reason = "this is the module whose business it is")]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        match &self.0 {
            Source::System(_) => Box::pin(tokio::time::sleep(duration)),
            Source::Manual(sender) => {
                let (mut receiver, sender) = (sender.subscribe(), Arc::clone(sender));
                let until = receiver.borrow().mono.saturating_add(duration);
                Box::pin(async move {
                    // The sender is kept until then, so this cannot end early.
                    drop(receiver.wait_for(|now| now.mono >= until).await);
                    drop(sender);
                })
            }
        }
    }

    /// Sleeps until the monotonic clock shows `mono` (at once when that has passed).
    pub fn sleep_until(&self, mono: Duration) -> Sleep {
        self.sleep(mono.saturating_sub(self.now().mono))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Source::System(_) => f.write_str("Clock::System"),
            Source::Manual(_) => f.write_str("Clock::Manual"),
        }
    }
}

/// Moves a manual [`Clock`].
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Now>>);

impl ManualClock {
    /// Moves both clocks on by `by`, and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| {
            now.mono = now.mono.saturating_add(by);
            now.wall = now.wall.plus(by);
        });
    }

    /// Makes the wall clock jump, leaving the monotonic clock alone.
    pub fn jump_wall(&self, to: WallMs) {
        self.0.send_modify(|now| now.wall = to);
    }
}

/// A stream of random numbers (`SplitMix64`): for jitter, id tails and simulations, never for secrets.
///
/// Same seed, same numbers, on every platform: this is what makes a simulated day repeatable.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// A stream that is determined by `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream seeded from the operating system.
    #[expect(clippy::disallowed_methods, reason = "this is the module whose business it is")]
    pub fn from_system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // A v4 UUID fixes six of its bits; folding both halves leaves none of the seed fixed.
        Self(high.rotate_left(32) ^ low)
    }

    /// The next number, all 64 bits of it.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound` (0 when `bound` is 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number in `[0, 1)`, of 53 random bits.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let bits = (self.draw() >> 11) as f64;
        bits * 2.0_f64.powi(-53)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_reaches_its_moment_and_not_before() {
        let (clock, hand) = Clock::manual(WallMs::new(1_000));
        let mut sleep = clock.sleep(Duration::from_secs(5));
        hand.advance(Duration::from_millis(4_999));
        assert!(futures_util::poll!(&mut sleep).is_pending());
        hand.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!(clock.now().wall, WallMs::new(6_000));
    }

    #[tokio::test]
    async fn a_wall_jump_wakes_nobody() {
        let (clock, hand) = Clock::manual(WallMs::new(1_000));
        let mut sleep = clock.sleep(Duration::from_secs(5));
        hand.jump_wall(WallMs::new(99_000_000));
        assert!(futures_util::poll!(&mut sleep).is_pending());
    }

    #[tokio::test]
    async fn the_system_clock_goes_on() {
        let clock = Clock::system();
        let before = clock.now();
        clock.sleep(Duration::from_millis(2)).await;
        assert!(clock.now().mono >= before.mono + Duration::from_millis(2));
        clock.sleep_until(Duration::ZERO).await;
    }

    #[test]
    fn same_seed_same_numbers_and_bounds_hold() {
        let (mut a, mut b) = (Chance::from_seed(7), Chance::from_seed(7));
        for _ in 0..1_000 {
            assert_eq!(a.draw(), b.draw());
            assert!(a.below(10) < 10);
            let unit = a.unit();
            assert!((0.0..1.0).contains(&unit));
            b.draw();
            b.draw();
        }
        assert_eq!(a.below(0), 0);
    }
}
