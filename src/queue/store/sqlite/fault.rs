//! What SQLite's errors mean to us.

use rusqlite::ErrorCode;

use crate::queue::store::{CommitError, StoreError};
use crate::task::TaskKey;

/// Why a transaction did not go through.
#[derive(Debug)]
pub(super) enum WriteFault {
    /// No space; rolled back.
    Full,
    /// A change expected another epoch; rolled back.
    Fenced { key: TaskKey, expected: u32 },
    /// Anything else: what is on disk is not known.
    Unknown(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteFault {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Unknown(error) }
    }
}

/// A reason in words, where there is no error to pass on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(pub(super) String);

/// Whether the disk (or the file's bound) is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether somebody held a lock for too long.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// An error of a read, or of opening.
pub(super) fn read_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { what: error.to_string(), place: String::from("database file") }
        }
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// A read that cannot be made because of `why`.
pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable(Box::new(Reason(why.into())))
}

/// A commit of which nothing is known because of `why`.
pub(super) fn unknown(why: impl Into<String>) -> CommitError {
    CommitError::Unknown(Box::new(Reason(why.into())))
}
