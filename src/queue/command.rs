//! What can be asked of the engine, and what it answers.

use std::sync::Arc;

use crate::config::{Config, QueueConfig};
use crate::task::outcome::DeadReason;
use crate::task::retry::RetryPolicyError;
use crate::task::{Body, QueueName, Status, TaskId, TaskName, TaskRef, TaskSpec, WallMs};

use super::store::{Damage, IdRange, Row};

/// An `Idempotency-Key` as the engine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of caller, method, path and key: [`crate::queue::store::idempotency_hash`].
    pub hash: u128,
    /// Digest of the raw request body.
    pub digest: u128,
}

/// Tasks to accept, all or none, in one commit.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The tasks, in the order of their ids.
    pub specs: Vec<TaskSpec>,
    /// The key under which a repeat is recognised.
    pub idempotency: Option<Idempotency>,
}

/// Tasks that were accepted, now or by the request that this one repeats.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// Accepted now. For a single task its row as of the commit (it may be running already).
    New {
        /// The ids, in order.
        ids: Vec<PublicId>,
        /// The row of the first task.
        first: Box<Row>,
    },
    /// A batch in which every task repeats a named one that exists: nothing new was accepted.
    Existing {
        /// The ids, in order.
        ids: Vec<PublicId>,
    },
    /// A repeat: nothing new was accepted.
    Repeat {
        /// The tasks of the first request.
        range: IdRange,
        /// How the task had ended, if its record was removed since.
        ended: Option<Status>,
    },
}

/// What a client calls a task: its own name, else the id we gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicId {
    /// The client's own `task_id`.
    Name(TaskName),
    /// Ours.
    Id(TaskId),
}

impl std::fmt::Display for PublicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl PublicId {
    /// The public id of a task with this body.
    pub fn of(id: TaskId, body: &Body) -> Self {
        body.name.clone().map_or(Self::Id(id), Self::Name)
    }
}

impl Row {
    /// What its client calls this task.
    pub fn public_id(&self) -> PublicId {
        self.body.as_ref().map_or(PublicId::Id(self.header.id()), |body| PublicId::of(self.header.id(), body))
    }

    /// See [`crate::task::Header::status_at`].
    pub fn status_at(&self, now: WallMs) -> Status {
        self.header.status_at(now)
    }
}

/// Why tasks were not accepted. `index` is the task's place in the batch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AcceptError {
    /// No such queue.
    #[error("the configuration has no queue `{queue}`")]
    UnknownQueue {
        /// Which task.
        index: usize,
        /// What was asked for.
        queue: QueueName,
        /// The nearest name that exists.
        nearest: Option<QueueName>,
    },
    /// Its retry settings do not fit those of its queue.
    #[error("{source}")]
    RetryPolicy {
        /// Which task.
        index: usize,
        /// What does not fit.
        source: RetryPolicyError,
    },
    /// Another task has this `task_id`.
    #[error("task_id `{name}` is taken by a task with other content")]
    NameTaken {
        /// Which task.
        index: usize,
        /// The name.
        name: TaskName,
    },
    /// The `Idempotency-Key` came with another body before.
    #[error("this Idempotency-Key was used with another request body")]
    IdempotencyMismatch,
    /// The record of the `task_id` or of the `Idempotency-Key` is damaged: whether this repeats a task is not known.
    #[error(transparent)]
    KeyDamaged(Damage),
    /// The queue holds as much as it may.
    #[error("queue `{queue}` is full: {what} is {limit}")]
    QueueFull {
        /// Which queue.
        queue: QueueName,
        /// `max_tasks` or `max_bytes`.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The disk is nearly full.
    #[error("the disk is nearly full: {free} bytes are free, {reserve} are kept in reserve")]
    StorageFull {
        /// Free bytes.
        free: u64,
        /// The reserve.
        reserve: u64,
    },
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why the engine gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Its inbox is full: nothing was done, try again soon.
    #[error("the engine is busy")]
    Busy,
    /// It stops: nothing was done.
    #[error("the server is stopping")]
    Stopping,
    /// Whether it was done is not known: repeat the request.
    #[error("it is not known whether this was done")]
    Unknown,
}

/// What can be done to one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAction {
    /// `DELETE /tasks/{id}`.
    Cancel,
    /// `POST /tasks/{id}/run`.
    Run,
    /// `POST /dlq/{id}/redrive`.
    Redrive,
    /// `DELETE /dlq/{id}`.
    Purge,
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskActionError {
    /// No such task (for dead letters: or it is not one).
    #[error("there is no such task")]
    NotFound,
    /// The record of its name is damaged: which task it names is not known.
    #[error(transparent)]
    KeyDamaged(Damage),
    /// Its state does not allow it.
    #[error("the task is {status}", status = status.as_str())]
    WrongState {
        /// Where it stands.
        status: Status,
    },
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Dead letters to redrive or purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Put back.
    Redrive,
    /// Delete.
    Purge,
}

/// What a bulk call did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BulkReport {
    /// Dead letters that matched.
    pub matched: u64,
    /// Dead letters that were redriven or purged.
    pub done: u64,
}

/// A queue as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its name.
    pub name: QueueName,
    /// Its limits, as in force.
    pub config: Arc<QueueConfig>,
    /// Whether configuration names it: only such queues accept tasks.
    pub configured: bool,
    /// Whether it starts no attempts: paused, or no longer configured and not resumed since.
    pub paused: bool,
    /// Tasks by state ([`Status::index`]).
    pub tasks: [u64; 8],
    /// Payload bytes of tasks that have not ended.
    pub bytes: u64,
    /// When the oldest task that could start became due.
    pub oldest_ready: Option<WallMs>,
    /// Dead letters by reason.
    pub dead: Vec<(DeadReason, u64)>,
}

/// A request to the engine. Pure data: the handle keeps the way back.
#[derive(Debug, Clone)]
pub enum Request {
    /// Accept tasks.
    Accept(Box<Accept>),
    /// Do something to one task.
    Task(TaskAction, TaskRef),
    /// Do something to dead letters, at most [`crate::task::limits::CHUNK_TASKS_MAX`] of them.
    Chunk(BulkAction, Vec<TaskId>),
    /// Pause or resume a queue.
    Pause(QueueName, bool),
    /// Put another configuration in force: queues, workers, hosts.
    Configure(Arc<Config>),
    /// How one queue stands, or all.
    Queues(Option<QueueName>),
}

/// The answer to a [`Request`], of the same kind.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To `Accept`.
    Accept(Result<Accepted, AcceptError>),
    /// To `Task`.
    Task(Result<Box<Row>, TaskActionError>),
    /// To `Chunk`: how many were done.
    Chunk(u64),
    /// To `Pause` and `Queues`; empty when there is no such queue.
    Queues(Vec<QueueView>),
    /// To `Configure`: it is in force.
    Configured,
}
