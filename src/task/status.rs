//! The states of a task.

/// Where a task stands.
///
/// ```text
///  enqueue ──┬─▶ scheduled ──due──▶ queued ──lease──▶ running ──done──────▶ succeeded
///            └──────────────────────▶ ▲ ▲                │ ├──give up─────▶ dead ──redrive──▶ queued
///                                     │ └──due─ retrying◀┤ └──snooze──▶ scheduled
///                                     └──────released────┘
///         cancel: from any state that has not ended;  expiry: from waiting states
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Waits for its first due time (`run_at`, `delay`). The engine moves it on when that comes.
    Scheduled,
    /// Due; waits for its turn, a slot, a token. The engine leases it.
    Queued,
    /// Leased to one attempt. The settle of that attempt moves it on.
    Running,
    /// Failed and waits for its next attempt. The engine moves it on when that is due.
    Retrying,
    /// Ended well. Stays until retention removes it.
    Succeeded,
    /// Given up. Stays until somebody redrives or purges it.
    Dead,
    /// Cancelled by a caller. Stays until retention removes it.
    Cancelled,
    /// Its `expires_at` passed before it ended. Stays until retention removes it.
    Expired,
}

impl Status {
    /// Every state, in the order of the drawing.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Whether the task has ended: nothing but a redrive changes it then.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled | Self::Expired)
    }

    /// Whether it waits: not running, not ended.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Queued | Self::Retrying)
    }

    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads the public word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Its place in [`Status::ALL`]: for stores and arrays of counters. Never renumber.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back() {
        for (index, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(status.index(), index);
            assert_eq!(
                u8::from(status.has_ended()) + u8::from(status.is_waiting()) + u8::from(status == Status::Running),
                1,
                "{status:?} is exactly one of waiting, running, ended"
            );
        }
        assert_eq!(Status::parse("done"), None);
    }
}
