//! Priority and the order in which ready tasks start.

use super::time::{Span, WallMs};

/// How urgent a task is: 0 to 9, 9 most urgent, 5 when nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);

    /// A priority, if it is one of 0 to 9.
    pub fn new(value: u64) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| *value <= Self::MAX.0).map(Self)
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// How a queue weighs priority against waiting (`priority_aging`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorityOrder {
    /// One level of priority is worth this much waiting: no priority starves another.
    Aging(Span),
    /// Priority comes first, then due time: low priorities can starve.
    Strict,
}

/// The static key that sorts ready tasks: smaller starts earlier, ties go by order of acceptance.
pub type OrderKey = i64;

impl PriorityOrder {
    /// The key of a task with this priority, due at `due`.
    ///
    /// Aging: `due − priority × aging`. Strict: `(9 − priority, due)`. Both leave room below for [`ahead_key`].
    pub fn key(self, priority: Priority, due: WallMs) -> OrderKey {
        match self {
            Self::Aging(span) => {
                let lead = i64::try_from(span.as_millis()).unwrap_or(i64::MAX).saturating_mul(i64::from(priority.0));
                due.get().saturating_sub(lead).max(AHEAD_LIMIT)
            }
            Self::Strict => {
                let level = i64::from(Priority::MAX.0 - priority.0);
                (level << STRICT_SHIFT) + due.get().clamp(0, (1 << STRICT_SHIFT) - 1)
            }
        }
    }
}

/// The key of a task that somebody put ahead of its queue (`POST /tasks/{id}/run`) at `asked`: before every other.
pub fn ahead_key(asked: WallMs) -> OrderKey {
    (i64::MIN + asked.get().max(0)).min(AHEAD_LIMIT - 1)
}

const STRICT_SHIFT: u32 = 56;
/// Ordinary keys stay at or above this, keys of tasks put ahead below it.
const AHEAD_LIMIT: i64 = i64::MIN / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn priority(value: u64) -> Priority {
        Priority::new(value).unwrap()
    }

    #[test]
    fn a_level_is_worth_its_aging_exactly() {
        let order = PriorityOrder::Aging(Span::from_secs(600));
        let urgent = order.key(priority(6), WallMs::new(600_000));
        assert_eq!(urgent, order.key(priority(5), WallMs::new(0)));
        assert!(urgent > order.key(priority(5), WallMs::new(-1)));
        assert!(urgent < order.key(priority(5), WallMs::new(1)));
    }

    #[test]
    fn bounds_of_priority() {
        assert_eq!(Priority::new(9), Some(Priority::MAX));
        assert_eq!(Priority::new(10), None);
        assert_eq!(Priority::default().get(), 5);
    }

    #[test]
    fn no_moment_is_so_far_that_it_leaves_its_place() {
        let (first, last) = (WallMs::new(i64::MIN), WallMs::new(i64::MAX));
        assert!(PriorityOrder::Strict.key(priority(9), last) < PriorityOrder::Strict.key(priority(8), first));
        assert_eq!(PriorityOrder::Strict.key(priority(9), last), (1 << STRICT_SHIFT) - 1);
        assert_eq!(ahead_key(last), AHEAD_LIMIT - 1);
        assert_eq!(ahead_key(first), i64::MIN);
        assert_eq!(PriorityOrder::Aging(Span::from_millis(u64::MAX)).key(priority(9), first), AHEAD_LIMIT);
    }

    proptest! {
        #[test]
        fn strict_puts_priority_first_then_due(a in 0u64..10, b in 0u64..10, due_a in 0i64..1 << 45, due_b in 0i64..1 << 45) {
            let (ka, kb) = (
                PriorityOrder::Strict.key(priority(a), WallMs::new(due_a)),
                PriorityOrder::Strict.key(priority(b), WallMs::new(due_b)),
            );
            prop_assert_eq!(ka.cmp(&kb), (9 - a, due_a).cmp(&(9 - b, due_b)));
        }

        #[test]
        fn ahead_is_before_everything_and_in_order_of_asking(p in 0u64..10, due in any::<i64>(), aging in any::<u64>(), asked in 0i64..1 << 45) {
            let ahead = ahead_key(WallMs::new(asked));
            prop_assert!(ahead < PriorityOrder::Aging(Span::from_millis(aging)).key(priority(p), WallMs::new(due)));
            prop_assert!(ahead < PriorityOrder::Strict.key(priority(p), WallMs::new(due)));
            prop_assert!(ahead < ahead_key(WallMs::new(asked + 1)));
        }
    }
}
