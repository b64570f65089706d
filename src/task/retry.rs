//! The retry policy: how long to wait after a failure, and when to stop.
//!
//! Names and growth follow Cloud Tasks (`min_backoff`, `max_backoff`, `max_doublings`, `max_retry_duration`): the delay
//! doubles `max_doublings` times, then grows linearly, then stays at `max_backoff`.

use super::header::NoCredential;
use super::limits::{ISSUER_REFUSALS_MAX, LOOK_AGAIN};
use super::outcome::{DeadReason, OnStatus};
use super::time::Span;

/// Which bound ends a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWhen {
    /// The first bound that is reached.
    Any,
    /// Only both together, as Cloud Tasks does.
    All,
}

impl StopWhen {
    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::All => "all",
        }
    }

    /// Reads the public word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Any, Self::All].into_iter().find(|stop| stop.as_str() == text)
    }
}

/// A whole retry policy, with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts of a series at most (1 = never retried).
    pub max_attempts: u32,
    /// The first delay, and the shortest.
    pub min_backoff: Span,
    /// The longest delay.
    pub max_backoff: Span,
    /// How often the delay doubles before it grows linearly.
    pub max_doublings: u32,
    /// How long after its first dispatch a series may still start attempts; no bound when `None`.
    pub max_retry_duration: Option<Span>,
    /// The delay is multiplied by a random factor in `[1 - jitter, 1]`.
    pub jitter: f64,
    /// Which bound ends the series.
    pub stop_when: StopWhen,
    /// How long a task may wait for a credential before it is dead.
    pub credential_wait_max: Span,
    /// Statuses treated otherwise than the outcome table does.
    pub on_status: OnStatus,
}

impl Default for RetryPolicy {
    /// 20 attempts, 1 s to 1 h, 16 doublings, jitter 0.2, no bound on duration: about eight hours.
    fn default() -> Self {
        Self {
            max_attempts: 20,
            min_backoff: Span::from_secs(1),
            max_backoff: Span::from_secs(3_600),
            max_doublings: 16,
            max_retry_duration: None,
            jitter: 0.2,
            stop_when: StopWhen::Any,
            credential_wait_max: Span::from_secs(3_600),
            on_status: OnStatus::new(),
        }
    }
}

/// What a task (or handler, or queue) says otherwise than the layer below it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryOverrides {
    /// See [`RetryPolicy::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`RetryPolicy::min_backoff`].
    pub min_backoff: Option<Span>,
    /// See [`RetryPolicy::max_backoff`].
    pub max_backoff: Option<Span>,
    /// See [`RetryPolicy::max_doublings`].
    pub max_doublings: Option<u32>,
    /// See [`RetryPolicy::max_retry_duration`].
    pub max_retry_duration: Option<Span>,
    /// See [`RetryPolicy::jitter`].
    pub jitter: Option<f64>,
    /// See [`RetryPolicy::stop_when`].
    pub stop_when: Option<StopWhen>,
    /// See [`RetryPolicy::credential_wait_max`].
    pub credential_wait_max: Option<Span>,
    /// Added to [`RetryPolicy::on_status`], and stronger where both name a status.
    pub on_status: OnStatus,
}

impl RetryOverrides {
    /// Whether nothing is overridden.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a policy makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryPolicyError {
    /// The shortest delay is longer than the longest.
    #[error("min_backoff ({min}) must not be longer than max_backoff ({max})")]
    BackoffsCrossed {
        /// `min_backoff`.
        min: Span,
        /// `max_backoff`.
        max: Span,
    },
    /// `all` needs both bounds.
    #[error("stop_when: all needs max_retry_duration as well as max_attempts, or the series would have only one bound")]
    AllNeedsDuration,
}

/// How far a series has come when a failure is looked at.
#[derive(Debug, Clone, Copy)]
pub struct SeriesState {
    /// Counted attempts of the series so far, this one included (≥ 1).
    pub attempts: u32,
    /// Since the first dispatch of the series.
    pub elapsed: Span,
    /// Until `expires_at`, if the task has one.
    pub expires_in: Option<Span>,
}

/// How far a task has come that has no credential to go with.
#[derive(Debug, Clone, Copy)]
pub struct WaitState {
    /// How often it had none, this time included (≥ 1), and how often its issuer said no.
    pub so_far: NoCredential,
    /// Until it may wait no longer.
    pub left: Span,
    /// Until `expires_at`, if the task has one.
    pub expires_in: Option<Span>,
}

/// What follows a failure that may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Try again after `delay`.
    Retry {
        /// From now.
        delay: Span,
        /// The attempt must start within this time from now, or the series is over: wherever `max_retry_duration` can
        /// end it (always with `any`, past `max_attempts` with `all`), also while something else holds it back.
        start_within: Option<Span>,
    },
    /// The series is over.
    Dead(DeadReason),
    /// The next try would fall after `expires_at`.
    Expired,
}

impl RetryPolicy {
    /// This policy with what `over` says otherwise.
    #[must_use]
    pub fn with(&self, over: &RetryOverrides) -> Self {
        let mut on_status = self.on_status.clone();
        on_status.extend(over.on_status.iter().map(|(status, action)| (*status, *action)));
        Self {
            max_attempts: over.max_attempts.unwrap_or(self.max_attempts),
            min_backoff: over.min_backoff.unwrap_or(self.min_backoff),
            max_backoff: over.max_backoff.unwrap_or(self.max_backoff),
            max_doublings: over.max_doublings.unwrap_or(self.max_doublings),
            max_retry_duration: over.max_retry_duration.or(self.max_retry_duration),
            jitter: over.jitter.unwrap_or(self.jitter),
            stop_when: over.stop_when.unwrap_or(self.stop_when),
            credential_wait_max: over.credential_wait_max.unwrap_or(self.credential_wait_max),
            on_status,
        }
    }

    /// Whether the parts fit each other.
    pub fn check(&self) -> Result<(), RetryPolicyError> {
        if self.min_backoff > self.max_backoff {
            return Err(RetryPolicyError::BackoffsCrossed { min: self.min_backoff, max: self.max_backoff });
        }
        if self.stop_when == StopWhen::All && self.max_retry_duration.is_none() {
            return Err(RetryPolicyError::AllNeedsDuration);
        }
        Ok(())
    }

    /// The delay after the `failures`-th failure (≥ 1) of a series, before jitter. Saturates, at any count.
    pub fn backoff(&self, failures: u32) -> Span {
        let n = u64::from(failures.max(1));
        let doublings = u64::from(self.max_doublings);
        let power = (n - 1).min(doublings);
        let doubled = u32::try_from(power).ok().and_then(|power| 1_u64.checked_shl(power)).unwrap_or(u64::MAX);
        let factor = if n - 1 <= doublings { doubled } else { doubled.saturating_mul(n - doublings) };
        Span::from_millis(self.min_backoff.as_millis().saturating_mul(factor)).min(self.max_backoff)
    }

    /// The delay with jitter (`unit` is a random number in `[0, 1)`) and the target's own `Retry-After`.
    pub fn delay(&self, failures: u32, retry_after: Option<Span>, unit: f64) -> Span {
        let plain = self.backoff(failures);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "delays are far below 2^53 ms, and jitter need not be exact"
        )]
        let jittered = (plain.as_millis() as f64 * (1.0 - self.jitter * unit)).round() as u64;
        let asked = retry_after.unwrap_or_default().min(self.max_backoff);
        Span::from_millis(jittered).max(self.min_backoff).max(asked)
    }

    /// What follows a failure: the only place where a series is ended by its bounds.
    pub fn after_failure(&self, series: SeriesState, retry_after: Option<Span>, unit: f64) -> AfterFailure {
        let delay = self.delay(series.attempts, retry_after, unit);
        let starts_at = series.elapsed.as_millis().saturating_add(delay.as_millis());
        let attempts_reached = series.attempts >= self.max_attempts;
        let mut start_within = None;
        match (self.stop_when, self.max_retry_duration) {
            (StopWhen::All, Some(bound)) if attempts_reached => {
                if starts_at >= bound.as_millis() {
                    return AfterFailure::Dead(DeadReason::MaxRetryDuration);
                }
                start_within = Some(Span::from_millis(bound.as_millis() - series.elapsed.as_millis()));
            }
            (StopWhen::All, Some(_)) => {}
            (StopWhen::Any | StopWhen::All, bound) => {
                if attempts_reached {
                    return AfterFailure::Dead(DeadReason::MaxAttempts);
                }
                if bound.is_some_and(|bound| starts_at > bound.as_millis()) {
                    return AfterFailure::Dead(DeadReason::MaxRetryDuration);
                }
                // One that is due at the very end is not given up because this server is a moment late.
                let left = |bound: Span| bound.as_millis() - series.elapsed.as_millis();
                start_within = bound.map(|bound| Span::from_millis(left(bound) + LOOK_AGAIN.as_millis()));
            }
        }
        if series.expires_in.is_some_and(|left| delay >= left) {
            return AfterFailure::Expired;
        }
        AfterFailure::Retry { delay, start_within }
    }

    /// What follows when there was no credential: the task is tried again with the delays of failures, the last time at
    /// the very end of its wait.
    pub fn without_credential(&self, wait: WaitState, ask_again_in: Option<Span>, unit: f64) -> AfterFailure {
        let WaitState { so_far, left, expires_in } = wait;
        if left == Span::default() || so_far.refusals >= ISSUER_REFUSALS_MAX {
            return AfterFailure::Dead(DeadReason::AuthUnavailable);
        }
        let asked = ask_again_in.unwrap_or_default();
        let delay = self.delay(u32::from(so_far.waits), None, unit).max(asked).min(left);
        if expires_in.is_some_and(|left| delay >= left) {
            return AfterFailure::Expired;
        }
        let start_within = Some(Span::from_millis(left.as_millis().saturating_add(LOOK_AGAIN.as_millis())));
        AfterFailure::Retry { delay, start_within }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            min_backoff: Span::from_secs(10),
            max_backoff: Span::from_secs(300),
            max_doublings: 3,
            jitter: 0.0,
            ..RetryPolicy::default()
        }
    }

    fn series(attempts: u32, elapsed_s: u64) -> SeriesState {
        SeriesState { attempts, elapsed: Span::from_secs(elapsed_s), expires_in: None }
    }

    fn retry(delay_s: u64) -> AfterFailure {
        AfterFailure::Retry { delay: Span::from_secs(delay_s), start_within: None }
    }

    #[test]
    fn the_documented_timetable() {
        let delays: Vec<u64> = (1..=8).map(|n| policy().backoff(n).as_millis() / 1_000).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 240, 300, 300]);
    }

    #[test]
    fn no_doubling_grows_linearly_from_the_start() {
        let policy = RetryPolicy { max_doublings: 0, ..policy() };
        let delays: Vec<u64> = (1..=4).map(|n| policy.backoff(n).as_millis() / 1_000).collect();
        assert_eq!(delays, [10, 20, 30, 40]);
    }

    #[test]
    fn the_default_policy_gives_about_eight_hours() {
        let policy = RetryPolicy::default();
        let total: u64 = (1..policy.max_attempts).map(|n| policy.backoff(n).as_millis()).sum();
        assert!((7 * 3_600_000..9 * 3_600_000).contains(&total), "{total}");
        assert_eq!(policy.check(), Ok(()));
    }

    #[test]
    fn attempts_one_below_and_at_the_bound() {
        assert_eq!(policy().after_failure(series(19, 0), None, 0.0), retry(300));
        assert_eq!(policy().after_failure(series(20, 0), None, 0.0), AfterFailure::Dead(DeadReason::MaxAttempts));
    }

    #[test]
    fn with_any_a_retry_that_would_fall_after_the_duration_ends_now() {
        let policy = RetryPolicy { max_retry_duration: Some(Span::from_secs(100)), ..policy() };
        let in_time = AfterFailure::Retry { delay: Span::from_secs(10), start_within: Some(Span::from_secs(11)) };
        assert_eq!(policy.after_failure(series(1, 90), None, 0.0), in_time);
        let over = SeriesState { elapsed: Span::from_millis(90_001), ..series(1, 0) };
        assert_eq!(policy.after_failure(over, None, 0.0), AfterFailure::Dead(DeadReason::MaxRetryDuration));
    }

    #[test]
    fn with_all_both_bounds_must_be_reached() {
        let policy = RetryPolicy {
            max_attempts: 2,
            max_retry_duration: Some(Span::from_secs(1_000)),
            stop_when: StopWhen::All,
            ..policy()
        };
        assert_eq!(policy.after_failure(series(1, 5_000), None, 0.0), retry(10), "time alone does not end it");
        assert_eq!(
            policy.after_failure(series(2, 979), None, 0.0),
            AfterFailure::Retry { delay: Span::from_secs(20), start_within: Some(Span::from_secs(21)) }
        );
        assert_eq!(policy.after_failure(series(2, 980), None, 0.0), AfterFailure::Dead(DeadReason::MaxRetryDuration));
        let half = RetryPolicy { max_retry_duration: None, ..policy };
        assert_eq!(half.check(), Err(RetryPolicyError::AllNeedsDuration));
    }

    #[test]
    fn retry_after_delays_at_most_to_max_backoff() {
        let policy = policy();
        assert_eq!(policy.delay(1, Some(Span::from_secs(60)), 0.0), Span::from_secs(60));
        assert_eq!(policy.delay(1, Some(Span::from_secs(86_400)), 0.0), Span::from_secs(300));
        assert_eq!(policy.delay(3, Some(Span::from_secs(1)), 0.0), Span::from_secs(40));
    }

    #[test]
    fn a_retry_at_or_after_expiry_ends_expired_now() {
        let left = |secs| SeriesState { expires_in: Some(Span::from_secs(secs)), ..series(1, 0) };
        assert_eq!(policy().after_failure(left(10), None, 0.0), AfterFailure::Expired);
        assert_eq!(policy().after_failure(left(11), None, 0.0), retry(10));
    }

    #[test]
    fn crossed_backoffs_are_refused() {
        let crossed = RetryPolicy { min_backoff: Span::from_secs(301), ..policy() };
        assert!(crossed.check().unwrap_err().to_string().starts_with("min_backoff (5m1s)"));
        let level = RetryPolicy { min_backoff: crossed.max_backoff, ..crossed };
        assert_eq!(level.check(), Ok(()), "a constant backoff");
    }

    #[test]
    fn overrides_lie_over_the_policy() {
        let over = RetryOverrides { max_attempts: Some(3), jitter: Some(0.5), ..RetryOverrides::default() };
        let merged = policy().with(&over);
        assert_eq!((merged.max_attempts, merged.min_backoff), (3, Span::from_secs(10)));
        assert!(!over.is_empty() && RetryOverrides::default().is_empty());
        assert_eq!(StopWhen::parse("all"), Some(StopWhen::All));
        assert_eq!(StopWhen::parse("none"), None);
    }

    #[test]
    fn without_a_credential_it_waits_to_the_end_of_its_wait_and_no_longer() {
        let wait = |waits, refusals, left_s| WaitState {
            so_far: NoCredential { waits, refusals },
            left: Span::from_secs(left_s),
            expires_in: None,
        };
        let after = |wait, again: Option<u64>| policy().without_credential(wait, again.map(Span::from_secs), 0.0);
        let retry = |delay_s, within_s| AfterFailure::Retry {
            delay: Span::from_secs(delay_s),
            start_within: Some(Span::from_secs(within_s)),
        };
        assert_eq!(after(wait(1, 0, 3_600), None), retry(10, 3_601));
        assert_eq!(after(wait(2, 0, 3_600), None), retry(20, 3_601), "as after failures");
        assert_eq!(after(wait(1, 0, 3_600), Some(900)), retry(900, 3_601), "not before it makes sense to ask");
        assert_eq!(after(wait(9, 0, 5), Some(60)), retry(5, 6), "the last time at the very end");
        assert_eq!(after(wait(9, 0, 0), None), AfterFailure::Dead(DeadReason::AuthUnavailable));
        assert_eq!(after(wait(2, ISSUER_REFUSALS_MAX - 1, 3_600), None), retry(20, 3_601));
        assert_eq!(after(wait(3, ISSUER_REFUSALS_MAX, 3_600), None), AfterFailure::Dead(DeadReason::AuthUnavailable));
        let expiring = WaitState { expires_in: Some(Span::from_secs(10)), ..wait(1, 0, 3_600) };
        assert_eq!(after(expiring, None), AfterFailure::Expired);
    }

    proptest! {
        #[test]
        fn delays_never_overflow_never_shrink_and_stay_in_bounds(
            min in 0u64..1 << 40, extra in 0u64..1 << 40, doublings in 0u32..=64, n in 1u32..=1_000_000, unit in 0.0f64..1.0
        ) {
            let policy = RetryPolicy {
                min_backoff: Span::from_millis(min),
                max_backoff: Span::from_millis(min + extra),
                max_doublings: doublings,
                ..RetryPolicy::default()
            };
            let delay = policy.delay(n, None, unit);
            prop_assert!(delay >= policy.min_backoff && delay <= policy.max_backoff);
            prop_assert!(policy.backoff(n + 1) >= policy.backoff(n));
        }

        #[test]
        fn the_formula_of_the_design(min in 1u64..10_000, d in 0u32..10, n in 1u32..60) {
            let policy = RetryPolicy {
                min_backoff: Span::from_millis(min), max_backoff: Span::from_millis(u64::MAX / 4), max_doublings: d,
                ..RetryPolicy::default()
            };
            let expected = if n - 1 <= d { min << (n - 1) } else { (min << d) * u64::from(n - d) };
            prop_assert_eq!(policy.backoff(n).as_millis(), expected);
        }
    }
}
