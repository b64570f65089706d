//! Facts of a task's life.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::{Fact, ms};
use crate::logging::metrics::{ClassLabels, Metrics, OutcomeLabels, RemovalLabels};
use crate::task::outcome::DeadReason;
use crate::task::{OutcomeClass, QueueName, Span, Status, TaskId, TaskKey, TaskType};

/// A task is on disk and its caller is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskAccepted {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Its type.
    pub task_type: TaskType,
    /// It was there already: the request repeats an earlier one.
    pub repeat: bool,
}

impl Fact for TaskAccepted {
    fn log(&self) {
        debug!(
            event = "task_accepted",
            task_id = %self.id, queue = self.queue.as_str(), task_type = self.task_type.as_str(), repeat = self.repeat,
            "task accepted"
        );
    }

    fn count(&self, metrics: &Metrics) {
        if !self.repeat {
            metrics.created.get_or_create(&(&self.queue).into()).inc();
        }
    }
}

/// An attempt has started: its record is on disk, its lease handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptStarted {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Which attempt of the series, from 1.
    pub attempt: u32,
    /// From the moment it was due.
    pub lag: Duration,
}

impl Fact for AttemptStarted {
    fn log(&self) {
        debug!(
            event = "attempt_started",
            task_id = %self.id, queue = self.queue.as_str(), attempt = self.attempt, lag_ms = ms(self.lag),
            "attempt started"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.dispatch_lag.observe(self.lag.as_secs_f64());
    }
}

/// An attempt has ended; what follows from it is a fact of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFinished {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// What happened.
    pub class: OutcomeClass,
    /// The answer's status, if there was an answer.
    pub http_status: Option<u16>,
    /// From hand-over to the end.
    pub took: Duration,
    /// Which attempt of the series, from 1.
    pub attempt: u32,
    /// Which series, from 1.
    pub series: u32,
}

impl Fact for AttemptFinished {
    fn log(&self) {
        debug!(
            event = "attempt_finished",
            task_id = %self.id, queue = self.queue.as_str(), class = self.class.as_str(),
            http_status = self.http_status, took_ms = ms(self.took), attempt = self.attempt, series = self.series,
            "attempt finished"
        );
    }

    fn count(&self, metrics: &Metrics) {
        let labels = ClassLabels { queue: (&self.queue).into(), class: self.class.as_str() };
        metrics.attempts.get_or_create(&labels).inc();
        metrics.attempt_duration.observe(self.took.as_secs_f64());
    }
}

/// An attempt failed and another will follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryScheduled {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// The attempt that failed, from 1.
    pub attempt: u32,
    /// How many there may be in this series.
    pub max_attempts: u32,
    /// From now to the next.
    pub delay: Span,
    /// What happened.
    pub class: OutcomeClass,
    /// The answer's status, if there was an answer.
    pub http_status: Option<u16>,
    /// What went wrong, for people.
    pub error: Option<String>,
}

impl Fact for RetryScheduled {
    fn log(&self) {
        info!(
            event = "retry_scheduled",
            task_id = %self.id, queue = self.queue.as_str(), attempt = self.attempt,
            max_attempts = self.max_attempts, delay_ms = self.delay.as_millis(), class = self.class.as_str(),
            http_status = self.http_status, error = self.error.as_deref(),
            "attempt failed, will be tried again"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// A task was given up: it waits among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLettered {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Why.
    pub reason: DeadReason,
    /// Attempts of this series.
    pub attempts: u32,
    /// How many there might have been.
    pub max_attempts: u32,
    /// Which series, from 1.
    pub series: u32,
    /// What happened last, if there was an attempt.
    pub class: Option<OutcomeClass>,
    /// The last answer's status, if there was one.
    pub http_status: Option<u16>,
    /// What went wrong last, for people.
    pub error: Option<String>,
}

impl Fact for DeadLettered {
    fn log(&self) {
        warn!(
            event = "dead_lettered",
            task_id = %self.id, queue = self.queue.as_str(), reason = self.reason.as_str(), attempts = self.attempts,
            max_attempts = self.max_attempts, series = self.series, class = self.class.map(OutcomeClass::as_str),
            http_status = self.http_status, error = self.error.as_deref(),
            "task given up, now a dead letter"
        );
    }

    fn count(&self, metrics: &Metrics) {
        finished(metrics, &self.queue, Status::Dead);
    }
}

/// A task has ended otherwise than dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnded {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// How: succeeded, cancelled or expired.
    pub status: Status,
    /// Attempts of this series.
    pub attempts: u32,
}

impl Fact for TaskEnded {
    fn log(&self) {
        let (queue, status) = (self.queue.as_str(), self.status.as_str());
        if self.status == Status::Succeeded {
            debug!(event = "task_ended", task_id = %self.id, queue, status, attempts = self.attempts, "task ended");
        } else {
            info!(event = "task_ended", task_id = %self.id, queue, status, attempts = self.attempts, "task ended");
        }
    }

    fn count(&self, metrics: &Metrics) {
        finished(metrics, &self.queue, self.status);
    }
}

/// A dead letter was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// The series that begins.
    pub series: u32,
}

impl Fact for Redriven {
    fn log(&self) {
        info!(
            event = "redriven",
            task_id = %self.id, queue = self.queue.as_str(), series = self.series,
            "dead letter put back"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.redriven.get_or_create(&(&self.queue).into()).inc();
    }
}

/// Ended tasks of one queue were removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The queue.
    pub queue: QueueName,
    /// How many.
    pub count: u64,
    /// Why.
    pub why: Removal,
}

/// Why ended tasks are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Removal {
    /// Succeeded, cancelled or expired, and a bound of `retention` was reached.
    Retention,
    /// Dead letters, and a bound of `dead_letters` that somebody set was reached.
    DeadLetterBound,
    /// Somebody asked for it.
    Purge,
}

impl Removal {
    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::DeadLetterBound => "dead_letter_bound",
            Self::Purge => "purge",
        }
    }
}

impl Fact for Removed {
    fn log(&self) {
        let (queue, why) = (self.queue.as_str(), self.why.as_str());
        match self.why {
            Removal::Retention => debug!(event = "removed", queue, count = self.count, why, "ended tasks removed"),
            Removal::Purge => info!(event = "removed", queue, count = self.count, why, "ended tasks removed"),
            Removal::DeadLetterBound => {
                warn!(event = "removed", queue, count = self.count, why, "dead letters removed");
            }
        }
    }

    fn count(&self, metrics: &Metrics) {
        let labels = RemovalLabels { queue: (&self.queue).into(), why: self.why.as_str() };
        metrics.removed.get_or_create(&labels).inc_by(self.count);
    }
}

/// An outcome came for a lease that is no longer the task's; it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleSettle {
    /// The task, if it is still there.
    pub id: Option<TaskId>,
    /// The epoch of the outcome's lease.
    pub epoch: u32,
    /// The task's own epoch, if it is still there.
    pub current: Option<u32>,
}

impl Fact for StaleSettle {
    fn log(&self) {
        warn!(
            event = "stale_settle",
            task_id = self.id.map(tracing::field::display),
            epoch = self.epoch,
            current = self.current,
            "outcome refused: its lease was no longer the task's"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.stale_settles.inc();
    }
}

/// Somebody put a waiting task ahead of its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAhead {
    /// Its public id.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
}

impl Fact for PutAhead {
    fn log(&self) {
        info!(event = "put_ahead", task_id = %self.id, queue = self.queue.as_str(), "task put ahead of its queue");
    }

    fn count(&self, _: &Metrics) {}
}

/// An attempt was aborted before its request was handed over: the task went back to its place, uncounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Its public id.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
}

impl Fact for Released {
    fn log(&self) {
        info!(event = "released", task_id = %self.id, queue = self.queue.as_str(), "attempt released before it was sent");
    }

    fn count(&self, _: &Metrics) {}
}

/// The index named a task whose record says otherwise: a fault of ours, and harmless, because the record wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMismatch {
    /// The row key.
    pub key: TaskKey,
}

impl Fact for IndexMismatch {
    fn log(&self) {
        warn!(event = "index_mismatch", key = self.key.to_i64(), "the index named a task that does not wait");
    }

    fn count(&self, _: &Metrics) {}
}

fn finished(metrics: &Metrics, queue: &QueueName, status: Status) {
    metrics.finished.get_or_create(&OutcomeLabels { queue: queue.into(), outcome: status.as_str() }).inc();
}
