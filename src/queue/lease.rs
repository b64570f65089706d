//! The exclusive right to one attempt, and the only thing one can do with it: settle it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::task::{Body, Header, LaneName, Outcome, OutcomeClass, QueueName, Span, TaskKey};

/// The exclusive right to one attempt of one task. Durable before it is handed out.
#[derive(Debug)]
#[must_use = "a lease must be settled, or its task stays running until the process stops"]
pub struct Lease {
    /// What is to be done.
    pub work: Work,
    /// Cancelled when the attempt must end now: its task was cancelled, or the server stops. Work not yet handed to
    /// the target is then settled `released`, other work `interrupted`.
    pub abort: CancellationToken,
}

/// What one attempt needs to know.
#[derive(Debug, Clone)]
pub struct Work {
    /// The header as it was committed with the start: `attempts` counts this one, `changed_at` is its start.
    pub header: Header,
    /// The queue.
    pub queue: QueueName,
    /// The lane: the target host, or the task type.
    pub lane: LaneName,
    /// Type, labels, payload.
    pub body: Arc<Body>,
    /// The deadline of this attempt, over connect, headers and body.
    pub timeout: Span,
    /// `max_attempts` of the policy in force.
    pub max_attempts: u32,
    /// How the attempt before this one ended.
    pub previous: Option<(OutcomeClass, Option<u16>)>,
}

/// The end of an attempt, on its way to the engine.
#[derive(Debug)]
pub struct Settlement {
    /// The task.
    pub key: TaskKey,
    /// The epoch of the lease: the engine refuses any other than the task's.
    pub epoch: u32,
    /// What happened.
    pub outcome: Outcome,
}

impl Lease {
    /// Ends the lease with what happened.
    pub fn settle(self, outcome: Outcome) -> Settlement {
        Settlement { key: self.work.header.key, epoch: self.work.header.epoch, outcome }
    }
}
