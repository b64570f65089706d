//! What may be written: one legal transition of a task, with the epoch it expects. One constructor each, nothing else
//! can be said.

use std::sync::Arc;

use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::task::header::NameId;
use crate::task::{Attempt, Body, CredentialName, Header, Status, TaskKey, WallMs};

use super::IdRange;

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A queue.
    Queue,
    /// A lane.
    Lane,
}

/// What a unique key is of; the kinds never collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UniqueKind {
    /// A client's own `task_id`.
    TaskName,
    /// An `Idempotency-Key` within its scope.
    Idempotency,
}

/// A unique key: its kind and the 128-bit hash of scope and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueId {
    /// The kind.
    pub kind: UniqueKind,
    /// The hash.
    pub hash: u128,
}

/// What is kept under a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueRecord {
    /// The key.
    pub id: UniqueId,
    /// The task or tasks it stands for; `until` says when it is forgotten (`None`: with its task).
    pub range: IdRange,
    /// Digest of what was sent.
    pub digest: u128,
    /// How the task had ended when its record was removed.
    pub ended: Option<Status>,
}

/// One transition, or one fact beside the tasks.
#[derive(Debug, Clone)]
pub struct Change(pub(super) ChangeKind);

/// The cases of a [`Change`], for the implementations of the store.
#[derive(Debug, Clone)]
pub(super) enum ChangeKind {
    /// A new name.
    Name { kind: NameKind, id: NameId, text: Arc<str> },
    /// A new task.
    Insert { header: Box<Header>, body: Arc<Body> },
    /// A new unique key; it replaces one of the same id that was forgotten already.
    Unique(UniqueRecord),
    /// A task moved on: the whole new header, the status and epoch it had, the attempt that ended with it.
    Move { header: Box<Header>, was: Status, epoch: u32, attempt: Option<Box<Attempt>> },
    /// An ended task is removed, with its attempts, its `task_id` and its place among the ended. Its idempotency key
    /// stays and remembers how it ended.
    Remove { key: TaskKey, epoch: u32 },
    /// A queue was paused or resumed.
    Pause { queue: NameId, paused: bool },
    /// Unique keys whose time was over before `now` are forgotten, at most `limit` of them.
    Forget { now: WallMs, limit: u32 },
    /// A new API key.
    KeyCreated(Box<KeyRecord>),
    /// An API key was used. Nothing happens if it was revoked meanwhile.
    KeyUsed(Box<KeyRecord>),
    /// An API key is void.
    KeyRevoked(Arc<str>),
    /// A credential is kept, in the place of another of its name.
    CredentialPut(Box<SealedCredential>),
    /// A credential is gone.
    CredentialRemoved(CredentialName),
}

impl Change {
    /// A name gets a number.
    pub fn name(kind: NameKind, id: NameId, text: Arc<str>) -> Self {
        Self(ChangeKind::Name { kind, id, text })
    }

    /// A task is accepted.
    pub fn insert(header: Header, body: Arc<Body>) -> Self {
        Self(ChangeKind::Insert { header: Box::new(header), body })
    }

    /// A unique key is taken.
    pub fn unique(record: UniqueRecord) -> Self {
        Self(ChangeKind::Unique(record))
    }

    /// An attempt starts: waiting → running.
    pub fn start(old: &Header, new: Header) -> Self {
        debug_assert!(old.status.is_waiting() && new.status == Status::Running, "start: {old:?} → {new:?}");
        Self::moved(old, new, None)
    }

    /// An attempt ended, and the task with it or not: running → succeeded, dead, expired, retrying.
    pub fn settle(old: &Header, new: Header, attempt: Attempt) -> Self {
        debug_assert!(old.status == Status::Running && new.status != Status::Running, "settle: {old:?} → {new:?}");
        Self::moved(old, new, Some(attempt))
    }

    /// An attempt that was never handed over goes back to its place: running → queued.
    pub fn release(old: &Header, new: Header) -> Self {
        debug_assert!(old.status == Status::Running && new.status.is_waiting(), "release: {old:?} → {new:?}");
        Self::moved(old, new, None)
    }

    /// A task ends without an attempt: cancelled, expired, given up while it waited, or found damaged.
    pub fn end(old: &Header, new: Header, attempt: Option<Attempt>) -> Self {
        debug_assert!(!old.status.has_ended() && new.status.has_ended(), "end: {old:?} → {new:?}");
        Self::moved(old, new, attempt)
    }

    /// A waiting task is put ahead of its queue.
    pub fn put_ahead(old: &Header, new: Header) -> Self {
        debug_assert!(old.status.is_waiting() && new.status == Status::Queued, "run: {old:?} → {new:?}");
        Self::moved(old, new, None)
    }

    /// The times of a waiting task were written by a clock that was wrong: they are put right, and it goes on waiting.
    pub fn put_right(old: &Header, new: Header) -> Self {
        debug_assert!(old.status.is_waiting() && new.status == old.status, "put right: {old:?} → {new:?}");
        Self::moved(old, new, None)
    }

    /// A dead letter is put back: dead → queued.
    pub fn redrive(old: &Header, new: Header) -> Self {
        debug_assert!(old.status == Status::Dead && new.status.is_waiting(), "redrive: {old:?} → {new:?}");
        Self::moved(old, new, None)
    }

    /// An ended task is removed (retention, purge).
    pub fn remove(old: &Header) -> Self {
        debug_assert!(old.status.has_ended(), "remove: {old:?}");
        Self(ChangeKind::Remove { key: old.key, epoch: old.epoch })
    }

    /// A queue is paused or resumed.
    pub fn pause(queue: NameId, paused: bool) -> Self {
        Self(ChangeKind::Pause { queue, paused })
    }

    /// Unique keys whose time is over are forgotten.
    pub fn forget(now: WallMs, limit: u32) -> Self {
        Self(ChangeKind::Forget { now, limit })
    }

    /// An API key is made.
    pub fn key_created(record: KeyRecord) -> Self {
        Self(ChangeKind::KeyCreated(Box::new(record)))
    }

    /// The last use of an API key is written down, if it has not been revoked meanwhile.
    pub fn key_used(record: KeyRecord) -> Self {
        Self(ChangeKind::KeyUsed(Box::new(record)))
    }

    /// An API key is revoked: nothing of it stays.
    pub fn key_revoked(id: Arc<str>) -> Self {
        Self(ChangeKind::KeyRevoked(id))
    }

    /// A credential is kept, in the place of another of its name.
    pub fn credential_put(credential: SealedCredential) -> Self {
        Self(ChangeKind::CredentialPut(Box::new(credential)))
    }

    /// A credential is removed.
    pub fn credential_removed(name: CredentialName) -> Self {
        Self(ChangeKind::CredentialRemoved(name))
    }

    fn moved(old: &Header, new: Header, attempt: Option<Attempt>) -> Self {
        debug_assert!(new.epoch > old.epoch && new.key == old.key, "epochs grow: {old:?} → {new:?}");
        Self(ChangeKind::Move {
            header: Box::new(new),
            was: old.status,
            epoch: old.epoch,
            attempt: attempt.map(Box::new),
        })
    }
}
