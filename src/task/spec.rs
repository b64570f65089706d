//! What a caller asks for: a task before it is accepted, with every part already checked.

use bytes::Bytes;

use super::name::{LabelName, LaneName, QueueName, TaskName, TaskType};
use super::priority::Priority;
use super::retry::RetryOverrides;
use super::time::{Span, WallMs};

/// When a task is first due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// After a delay, on the monotonic clock.
    Delay(Span),
    /// At a moment of the wall clock (`run_at`).
    At(WallMs),
}

/// A task as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// The client's own `task_id`.
    pub name: Option<TaskName>,
    /// What runs it.
    pub task_type: TaskType,
    /// The queue it goes to.
    pub queue: QueueName,
    /// What its handler found it shares with others: the target host, or the task type.
    pub lane: LaneName,
    /// How urgent.
    pub priority: Priority,
    /// When first due.
    pub when: When,
    /// When it expires.
    pub expires_at: Option<WallMs>,
    /// Deadline of one attempt.
    pub timeout: Option<Span>,
    /// Labels, sorted by key.
    pub labels: Vec<(LabelName, String)>,
    /// What it says about retrying.
    pub retry: RetryOverrides,
    /// The payload: JSON text exactly as it was given.
    pub payload: Bytes,
    /// Digest of the task's JSON text as it was sent: tells a repeat from a conflict when the `task_id` is taken.
    pub digest: u128,
}
