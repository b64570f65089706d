//! Which problem each error of a lower floor is.

use crate::queue::command::{AcceptError, EngineError, TaskActionError};
use crate::queue::handle::{BulkError, WaitError};
use crate::queue::store::{CommitError, Damage, StoreError};
use crate::security::key_ring::AddError;
use crate::task::Fault;

use super::error::{Code, Problem};
use super::state::KeyChangeError;

impl Problem {
    /// Why tasks were not accepted; `in_batch` says whether pointers start with the task's index.
    pub(super) fn accept(error: AcceptError, in_batch: bool) -> Self {
        let pointer =
            |index: usize, field: &str| if in_batch { format!("/{index}/{field}") } else { format!("/{field}") };
        let text = error.to_string();
        match error {
            AcceptError::UnknownQueue { index, nearest, .. } => {
                let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                Self::faults(Code::UnknownQueue, vec![Fault::new(pointer(index, "queue"), text + &hint)])
            }
            AcceptError::RetryPolicy { index, .. } => {
                Self::faults(Code::InvalidTask, vec![Fault::new(pointer(index, "retry"), text)])
            }
            AcceptError::NameTaken { index, .. } => {
                Self::faults(Code::TaskIdTaken, vec![Fault::new(pointer(index, "task_id"), text)])
            }
            AcceptError::KeyDamaged(damage) => damage.into(),
            AcceptError::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, text),
            AcceptError::QueueFull { .. } => Self::new(Code::QueueFull, text),
            AcceptError::StorageFull { .. } => Self::new(Code::StorageFull, text),
            AcceptError::Engine(error) => error.into(),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Busy => Self::new(Code::Busy, "nothing was done: try again soon"),
            EngineError::Stopping => Self::new(Code::Stopping, "nothing was done: try again when it is back"),
            EngineError::Unknown => Self::new(
                Code::UnknownOutcome,
                "the server stopped before it could tell: repeat the request, with the same Idempotency-Key if it had one",
            ),
        }
    }
}

impl From<TaskActionError> for Problem {
    fn from(error: TaskActionError) -> Self {
        match error {
            TaskActionError::NotFound => Self::no_task(),
            TaskActionError::KeyDamaged(damage) => damage.into(),
            TaskActionError::WrongState { .. } => Self::new(Code::WrongState, error.to_string()),
            TaskActionError::Engine(error) => error.into(),
        }
    }
}

impl From<Damage> for Problem {
    fn from(Damage { what }: Damage) -> Self {
        let text = "the record of this task_id or Idempotency-Key is damaged: see the server's log";
        Self::new(Code::StorageDamaged, text).because(what)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            StoreError::Corrupt { .. } => Self::new(Code::StorageDamaged, "the store is damaged: see the server's log"),
            StoreError::Unavailable(_) | StoreError::InUse { .. } | StoreError::Format { .. } => {
                Self::new(Code::StorageUnavailable, "the store could not be read: see the server's log")
            }
        };
        problem.because(with_sources(&error))
    }
}

impl From<KeyChangeError> for Problem {
    fn from(error: KeyChangeError) -> Self {
        match error {
            KeyChangeError::Add(AddError::Full) => Self::new(Code::TooManyKeys, error.to_string()),
            KeyChangeError::Add(AddError::Taken) => Self::new(Code::Busy, "nothing was done: try again"),
            KeyChangeError::NotFound => Self::no_key(),
            KeyChangeError::Commit(CommitError::Full) => {
                Self::new(Code::StorageFull, "nothing was done: the disk is full")
            }
            KeyChangeError::Commit(error @ (CommitError::Unknown(_) | CommitError::Fenced { .. })) => {
                let detail = "the store failed: look, when the server is back, which keys there are";
                Self::new(Code::UnknownOutcome, detail).because(with_sources(&error))
            }
        }
    }
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Engine(error) => error.into(),
            BulkError::Store(error) => error.into(),
        }
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Engine(error) => error.into(),
            WaitError::Store(error) => error.into(),
        }
    }
}

/// An error with everything that lies behind it, on one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
