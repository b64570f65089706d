//! Facts of the engine, its store and its clock.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{Fact, ms};
use crate::logging::metrics::Metrics;
use crate::task::QueueName;

/// A queue starts nothing until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePaused {
    /// Which queue.
    pub queue: QueueName,
}

impl Fact for QueuePaused {
    fn log(&self) {
        info!(event = "queue_paused", queue = self.queue.as_str(), "queue paused");
    }

    fn count(&self, _: &Metrics) {}
}

/// A paused queue goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueResumed {
    /// Which queue.
    pub queue: QueueName,
}

impl Fact for QueueResumed {
    fn log(&self) {
        info!(event = "queue_resumed", queue = self.queue.as_str(), "queue resumed");
    }

    fn count(&self, _: &Metrics) {}
}

/// A queue that still has tasks was taken out of the configuration: it starts nothing until it is named again, or
/// resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueHeld {
    /// Which queue.
    pub queue: QueueName,
    /// Its tasks that have not ended.
    pub tasks: u64,
}

impl Fact for QueueHeld {
    fn log(&self) {
        warn!(
            event = "queue_held",
            queue = self.queue.as_str(),
            tasks = self.tasks,
            "a queue that still has tasks was taken out of the configuration: they wait until it is named again, or \
             resumed"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// The wall clock jumped against the monotonic clock: expiry and retention wait until it is trusted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WallJump {
    /// By how many milliseconds; negative: back.
    pub by_ms: i64,
}

impl Fact for WallJump {
    fn log(&self) {
        warn!(event = "wall_jump", by_ms = self.by_ms, "the wall clock jumped: expiry and retention wait");
    }

    fn count(&self, metrics: &Metrics) {
        metrics.wall_jumps.inc();
    }
}

/// The clocks have agreed for long enough after a jump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockTrusted;

impl Fact for ClockTrusted {
    fn log(&self) {
        info!(event = "clock_trusted", "the wall clock is trusted again: expiry and retention go on");
    }

    fn count(&self, _: &Metrics) {}
}

/// Attempts of a process that is no more were closed at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// How many.
    pub attempts: u64,
}

impl Fact for Interrupted {
    fn log(&self) {
        warn!(
            event = "interrupted",
            attempts = self.attempts,
            "attempts cut off by the last stop are closed as interrupted, and retried by policy"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// The store was read and the index rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks found, ended ones included.
    pub tasks: u64,
    /// Damaged records found.
    pub damaged: u64,
    /// Whether the last process stopped cleanly.
    pub clean: bool,
    /// How long it took.
    pub took: Duration,
}

impl Fact for Recovered {
    fn log(&self) {
        let took_ms = ms(self.took);
        if self.damaged == 0 {
            info!(event = "recovered", tasks = self.tasks, damaged = 0, clean = self.clean, took_ms, "store recovered");
        } else {
            warn!(
                event = "recovered",
                tasks = self.tasks,
                damaged = self.damaged,
                clean = self.clean,
                took_ms,
                "store recovered with damaged records, which are dead letters now"
            );
        }
    }

    fn count(&self, _: &Metrics) {}
}

/// Less disk space than the reserve: new tasks are refused, outcomes are still recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePressure {
    /// Free bytes.
    pub free_bytes: u64,
    /// The reserve, in bytes.
    pub reserve_bytes: u64,
}

impl Fact for StorePressure {
    fn log(&self) {
        warn!(
            event = "store_pressure",
            free_bytes = self.free_bytes,
            reserve_bytes = self.reserve_bytes,
            "little disk space: new tasks are refused, outcomes are still recorded"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.accepting.set(0);
    }
}

/// There is disk space for new tasks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PressureEased;

impl Fact for PressureEased {
    fn log(&self) {
        info!(event = "pressure_eased", "disk space is back: new tasks are accepted");
    }

    fn count(&self, metrics: &Metrics) {
        metrics.accepting.set(1);
    }
}

/// A commit found no space and was rolled back; it is tried again on the ballast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFull;

impl Fact for StoreFull {
    fn log(&self) {
        error!(event = "store_full", "the disk is full: new tasks are refused until space returns");
    }

    fn count(&self, metrics: &Metrics) {
        metrics.accepting.set(0);
    }
}

/// A batch is durable. Counted, not logged: there are thousands a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitDone {
    /// How long it took.
    pub took: Duration,
    /// Changes in it.
    pub changes: usize,
}

impl Fact for CommitDone {
    fn log(&self) {}

    fn count(&self, metrics: &Metrics) {
        metrics.commit_duration.observe(self.took.as_secs_f64());
        metrics.commit_changes.observe(f64::from(u32::try_from(self.changes).unwrap_or(u32::MAX)));
    }
}

/// Nobody knows whether a commit is on disk: the process stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitUnknown {
    /// What the store said, its causes included.
    pub error: String,
}

impl Fact for CommitUnknown {
    fn log(&self) {
        error!(
            event = "commit_unknown",
            error = self.error.as_str(),
            "a commit failed with an unknown outcome: stopping, so that the next start reads what is on disk"
        );
    }

    fn count(&self, _: &Metrics) {}
}
