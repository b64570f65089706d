//! Deliberate sins, for negative controls: a suite that promises to catch a sin is run against it.
//!
//! Compiled in only with the feature `sabotage`, chosen at run time, and never part of a release. Each place that can sin
//! asks `commits`; `docs/RELIABILITY.md` says which suite catches which.

/// What an implementation of the promise could get wrong unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sin {
    /// Answers leave before their commit.
    AcknowledgeBeforeCommit,
    /// `SQLite` syncs at checkpoints only (`synchronous=NORMAL`).
    SynchronousNormal,
    /// A settlement counts although its lease is no longer the task's.
    SettleWithoutEpoch,
    /// Delays are waited for on the wall clock.
    WallClockSleep,
    /// After an unclean stop the write-ahead log is read, but not written and synced again.
    KeepLogAtStart,
    /// Of an answer everything is read and kept, however long it is.
    NoBodyCap,
}

impl Sin {
    /// Every sin.
    pub const ALL: [Self; 6] = [
        Self::AcknowledgeBeforeCommit,
        Self::SynchronousNormal,
        Self::SettleWithoutEpoch,
        Self::WallClockSleep,
        Self::KeepLogAtStart,
        Self::NoBodyCap,
    ];

    /// The word by which `SENDOFF_SABOTAGE` chooses it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeCommit => "acknowledge-before-commit",
            Self::SynchronousNormal => "synchronous-normal",
            Self::SettleWithoutEpoch => "settle-without-epoch",
            Self::WallClockSleep => "wall-clock-sleep",
            Self::KeepLogAtStart => "keep-log-at-start",
            Self::NoBodyCap => "no-body-cap",
        }
    }
}

#[cfg(feature = "sabotage")]
mod chosen {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Sin;

    static SIN: OnceLock<Sin> = OnceLock::new();

    thread_local! {
        static HERE: Cell<Option<Sin>> = const { Cell::new(None) };
    }

    /// Chooses the sin of this process by its name, once; a second choice and unknown names are refused.
    pub fn choose(name: &str) -> bool {
        Sin::ALL.into_iter().find(|sin| sin.as_str() == name).is_some_and(|sin| SIN.set(sin).is_ok())
    }

    /// Commits `sin` on this thread as long as `during` runs: for suites that keep to one thread.
    pub fn on_this_thread<T>(sin: Sin, during: impl FnOnce() -> T) -> T {
        struct Repentance;
        impl Drop for Repentance {
            fn drop(&mut self) {
                HERE.set(None);
            }
        }
        HERE.set(Some(sin));
        let _repentance = Repentance;
        during()
    }

    pub(crate) fn commits(sin: Sin) -> bool {
        HERE.get() == Some(sin) || SIN.get() == Some(&sin)
    }
}

#[cfg(feature = "sabotage")]
pub(crate) use chosen::commits;
#[cfg(feature = "sabotage")]
pub use chosen::{choose, on_this_thread};

/// Whether this sin is to be committed. Never, without the feature.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn commits(_sin: Sin) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sin_has_a_word_of_its_own_and_none_is_committed_unasked() {
        let mut words: Vec<_> = Sin::ALL.iter().map(|sin| sin.as_str()).collect();
        assert!(Sin::ALL.into_iter().all(|sin| !commits(sin)));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Sin::ALL.len(), "{words:?}");
    }
}
