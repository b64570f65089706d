//! What went wrong elsewhere, as the problem that a caller is told.

use super::{Code, Problem};
use crate::api::state::{CredentialChangeError, KeyChangeError};
use crate::logging::chain;
use crate::queue::command::{EngineError, TaskActionError};
use crate::queue::handle::{BulkError, WaitError};
use crate::queue::store::{CommitError, Damage, StoreError};
use crate::security::key_ring::AddError;

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
        Self { cause: Some(what), ..Self::new(Code::StorageDamaged, text) }
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
        Self { cause: Some(chain(&error)), ..problem }
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
            KeyChangeError::Commit(error @ (CommitError::Unknown(_) | CommitError::Fenced { .. })) => Self {
                cause: Some(chain(&error)),
                ..Self::new(
                    Code::UnknownOutcome,
                    "the store failed: look, when the server is back, which keys there are",
                )
            },
        }
    }
}

impl From<CredentialChangeError> for Problem {
    fn from(error: CredentialChangeError) -> Self {
        let text = error.to_string();
        match error {
            CredentialChangeError::NoKey => Self::new(Code::NoCredentialsKey, text),
            CredentialChangeError::InConfiguration => Self::new(Code::CredentialInConfiguration, text),
            CredentialChangeError::Full => Self::new(Code::TooManyCredentials, text),
            CredentialChangeError::NotFound => Self::no_credential(),
            CredentialChangeError::Faults(faults) => Self::faults(Code::InvalidCredential, faults),
            CredentialChangeError::Busy => EngineError::Busy.into(),
            CredentialChangeError::Stopping => EngineError::Stopping.into(),
            CredentialChangeError::NotSealed(_) => Self::internal(text),
            CredentialChangeError::Commit(CommitError::Full) => {
                Self::new(Code::StorageFull, "nothing was done: the disk is full")
            }
            CredentialChangeError::Commit(error @ (CommitError::Unknown(_) | CommitError::Fenced { .. })) => Self {
                cause: Some(chain(&error)),
                ..Self::new(
                    Code::UnknownOutcome,
                    "the store failed: look, when the server is back, which credentials there are",
                )
            },
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
