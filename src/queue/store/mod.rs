//! The seam between the engine and the disk: domain words, no SQL, no files.
//!
//! The order of tasks lives *above* this seam, in the engine's index; a store never chooses what runs next. Every
//! implementation passes one conformance suite (`tests/it/store.rs`).

pub mod change;
mod filter;
pub mod memory;
pub mod sqlite;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::security::scope::QueueGlobs;
use crate::task::id::TaskRef;
use crate::task::name::LabelName;
use crate::task::outcome::DeadReason;
use crate::task::{Attempt, Body, Header, IdTail, LaneName, QueueName, Status, TaskKey, TaskName, TaskType, WallMs};

pub use change::{Change, NameKind, UniqueId, UniqueKind, UniqueRecord};
pub use memory::MemoryStore;
pub use sqlite::{SqliteOptions, SqliteStore};

/// A boxed future, so that the trait can be used as an object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps tasks and API keys. One process owns a store at a time; one engine commits tasks to it, API keys are committed
/// beside it, any number of readers read.
pub trait Store: Send + Sync + 'static {
    /// Reads everything the engine's index needs: names first, then every header in order of keys, one
    /// [`Recovered`] at a time. Called once, before anything else, on a thread that may block.
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError>;

    /// Makes all changes durable, atomically, in the order given. Returns only after they are synced.
    ///
    /// The commit is begun when this is called (not when the future is first polled).
    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>>;

    /// The rows and keys that commands named; one answer for each, in order.
    fn gather(&self, rows: Vec<TaskRef>, unique: Vec<UniqueId>) -> Later<'_, Result<Gathered, StoreError>>;

    /// The rows of these keys; one answer for each, in order.
    fn rows(&self, keys: Vec<TaskKey>) -> Later<'_, Result<Vec<Option<Row>>, StoreError>>;

    /// One task with its attempts.
    fn record(&self, task: TaskRef) -> Later<'_, Result<Option<TaskRecord>, StoreError>>;

    /// A page of tasks, newest first by acceptance.
    fn list(&self, query: ListQuery) -> Later<'_, Result<ListPage, StoreError>>;

    /// The ended tasks of one queue that ended first, oldest first, at most `limit`: what retention looks at.
    fn oldest_ended(&self, query: OldestEnded) -> Later<'_, Result<Vec<Row>, StoreError>>;

    /// Every API key, by id; of a damaged one what is wrong with it.
    fn api_keys(&self) -> Later<'_, Result<Vec<Result<KeyRecord, Damage>>, StoreError>>;

    /// All credentials that are kept, by name; of a damaged one, what is wrong with it.
    fn credentials(&self) -> Later<'_, Result<Vec<Result<SealedCredential, Damage>>, StoreError>>;

    /// How full the disk is.
    fn pressure(&self) -> Pressure;

    /// Says that the stop is a clean one, writes the log back and closes. Nothing may be called afterwards.
    fn close(&self) -> Later<'_, Result<(), StoreError>>;
}

/// What [`Store::recover`] hands over, one at a time.
#[derive(Debug, Clone)]
pub enum Recovered {
    /// A name and its number. All names come before the first header.
    Name {
        /// Its kind.
        kind: NameKind,
        /// Its number.
        id: crate::task::header::NameId,
        /// The name.
        text: Arc<str>,
    },
    /// A queue that was paused, or whose pause is damaged.
    Paused(crate::task::header::NameId),
    /// A name or a pause is damaged: told only so that it is counted.
    Damaged,
    /// A task, live or ended. `damage` says what is wrong with its record, when something is; the header then holds
    /// what could still be read.
    Task {
        /// Its header.
        header: Box<Header>,
        /// What is wrong with it.
        damage: Option<Damage>,
    },
}

/// How the last process stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the last process closed the store.
    pub clean: bool,
    /// Whether the store was made just now.
    pub created: bool,
}

/// A damaged record: what does not match, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Damage {
    /// Which record, and what is wrong with it.
    pub what: String,
}

/// One task as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The header.
    pub header: Header,
    /// Its queue.
    pub queue: QueueName,
    /// Its lane.
    pub lane: LaneName,
    /// The body, or what is wrong with the record.
    pub body: Result<Arc<Body>, Damage>,
}

/// One task with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The task.
    pub row: Row,
    /// The attempts kept, oldest first.
    pub attempts: Vec<Attempt>,
}

/// What [`Store::gather`] found, in the order asked.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// The rows.
    pub rows: Vec<Option<Row>>,
    /// The keys; `None` for a damaged one too.
    pub unique: Vec<Option<UniqueRecord>>,
    /// Keys asked for, and the keys of names asked for, whose record is damaged: nobody knows what they stand for.
    pub damaged: BTreeMap<UniqueId, Damage>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Of this queue.
    pub queue: Option<QueueName>,
    /// In this state.
    pub status: Option<Status>,
    /// The moment at which it is in that state: a waiting task whose time has come by then is `queued`, whatever its
    /// record says. `None`: as the record says.
    pub at: Option<WallMs>,
    /// Of this type.
    pub task_type: Option<TaskType>,
    /// With all of these labels.
    pub labels: Vec<(LabelName, String)>,
    /// Dead for this reason.
    pub dead_reason: Option<DeadReason>,
    /// Only of queues that these admit: what the caller may see.
    pub visible: Option<QueueGlobs>,
}

/// A page to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Which tasks.
    pub filter: TaskFilter,
    /// Only tasks accepted before this key; `None` starts with the newest.
    pub before: Option<TaskKey>,
    /// Tasks on the page at most.
    pub limit: u32,
    /// Rows looked at at most ([`crate::task::limits::PAGE_ROWS_SCANNED_MAX`]).
    pub scan_max: u32,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPage {
    /// The tasks, newest first.
    pub rows: Vec<Row>,
    /// Where the next page goes on ([`ListQuery::before`]); `None` when there are no more.
    pub next: Option<TaskKey>,
}

/// Which ended tasks retention looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestEnded {
    /// Of this queue.
    pub queue: crate::task::header::NameId,
    /// Dead letters, or the other ended ones.
    pub dead: bool,
    /// At most so many.
    pub limit: u32,
}

/// How full the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// New tasks may be accepted.
    Normal,
    /// Below the reserve: no new tasks, outcomes are still recorded.
    BelowReserve {
        /// Free bytes.
        free: u64,
        /// The reserve.
        reserve: u64,
    },
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full, even without the ballast. Rolled back: the same batch may be committed again.
    #[error("the disk is full; nothing of this batch was written")]
    Full,
    /// The outcome is not known: the process must stop (a failed fsync is never tried again).
    #[error("the outcome of a commit is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A change expected another epoch than the store holds. Rolled back; a fault of the engine.
    #[error("task {key:?} is at another epoch than {expected}")]
    Fenced {
        /// The task.
        key: TaskKey,
        /// The epoch that was expected.
        expected: u32,
    },
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("{what}")]
    InUse {
        /// Who or what, for people.
        what: String,
    },
    /// The store is of another format.
    #[error("the store has format {found}, this sendoff reads {expected}")]
    Format {
        /// What the store says.
        found: i64,
        /// What we read.
        expected: i64,
    },
    /// The store itself is damaged.
    #[error("damaged: {what} ({place})")]
    Corrupt {
        /// What is wrong.
        what: String,
        /// Where.
        place: String,
    },
    /// Reading failed, or the store is closed.
    #[error("the store cannot be read")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a batch's ids are found again: the first key, how many, and their shared tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first key.
    pub first: TaskKey,
    /// How many consecutive keys.
    pub count: u32,
    /// Their tail.
    pub tail: IdTail,
    /// For how long the range is remembered.
    pub until: Option<WallMs>,
}

/// The name that a queue or a lane has as long as its own is damaged.
pub fn placeholder(id: crate::task::header::NameId) -> String {
    format!("damaged.{}", id.0)
}

/// The hash under which a client's own `task_id` is kept: unique in the whole server.
pub fn task_name_hash(name: &TaskName) -> u128 {
    hash128(&[b"task_id", name.as_str().as_bytes()])
}

/// The hash under which an `Idempotency-Key` is kept: scope is caller, method and path (without `/v1`).
pub fn idempotency_hash(caller: &str, method: &str, path: &str, key: &str) -> u128 {
    hash128(&[b"idempotency", caller.as_bytes(), method.as_bytes(), path.as_bytes(), key.as_bytes()])
}

/// A digest of what was sent, to tell a repeat from a conflict.
pub fn digest(content: &[u8]) -> u128 {
    hash128(&[b"content", content])
}

/// The first 128 bits of SHA-256 over the parts, each preceded by its length: no two lists of parts read the same.
fn hash128(parts: &[&[u8]]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    first_128_bits(hash)
}

fn first_128_bits(hash: Sha256) -> u128 {
    hash.finalize().iter().take(16).fold(0, |bits, byte| (bits << 8) | u128::from(*byte))
}

/// The digest of content whose length is not known when it begins. Never the [`digest`] of the same content.
#[derive(Debug, Clone)]
pub struct RunningDigest(Sha256);

impl Default for RunningDigest {
    fn default() -> Self {
        const TAG: &[u8] = b"stream";
        let mut hash = Sha256::new();
        hash.update((TAG.len() as u64).to_be_bytes());
        hash.update(TAG);
        Self(hash)
    }
}

impl RunningDigest {
    /// Takes the next piece: how content is cut into pieces does not matter.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of everything so far.
    pub fn finish(self) -> u128 {
        first_128_bits(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_kinds_and_parts_apart() {
        let name = TaskName::parse("a").unwrap();
        assert_ne!(task_name_hash(&name), digest(b"a"));
        assert_ne!(idempotency_hash("ab", "c", "d", "e"), idempotency_hash("a", "bc", "d", "e"));
        assert_eq!(digest(b"x"), digest(b"x"));
        assert_ne!(digest(b"x"), digest(b"y"));
    }

    #[test]
    fn a_running_digest_is_of_the_content_however_it_is_cut() {
        let of = |pieces: &[&[u8]]| {
            let mut running = RunningDigest::default();
            for piece in pieces {
                running.update(piece);
            }
            running.finish()
        };
        assert_eq!(of(&[b"ab", b"", b"c"]), of(&[b"abc"]));
        assert_ne!(of(&[b"abc"]), of(&[b"abcd"]));
        assert_ne!(of(&[]), of(&[b"\0"]));
        assert_ne!(of(&[b"abc"]), digest(b"abc"));
    }
}
