//! The record of a task: a small header that every transition rewrites, and a body that stays as it was accepted.

use bytes::Bytes;

use super::id::{IdTail, TaskId, TaskKey};
use super::name::{LabelName, TaskName, TaskType};
use super::outcome::{DeadReason, OutcomeClass};
use super::priority::Priority;
use super::retry::RetryOverrides;
use super::status::Status;
use super::time::{Span, WallMs};

/// The number under which a name (of a queue, of a lane) is kept in the store and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u32);

/// Who holds the right to the attempt that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// The worker pool of this process: gone when the process is.
    Pool,
}

impl LeaseKind {
    /// Its number in stores.
    pub fn code(self) -> u8 {
        match self {
            Self::Pool => 1,
        }
    }

    /// Reads the number back.
    pub fn from_code(code: u8) -> Option<Self> {
        (code == 1).then_some(Self::Pool)
    }
}

/// How long a task has been without a credential to go with, in this series and since its last counted attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NoCredential {
    /// How often it was to start and had none.
    pub waits: u16,
    /// How many of these times whoever issues it said no (400, 401).
    pub refusals: u8,
}

impl NoCredential {
    /// After one more time.
    #[must_use]
    pub fn once_more(self, refused: bool) -> Self {
        Self { waits: self.waits.saturating_add(1), refusals: self.refusals.saturating_add(u8::from(refused)) }
    }
}

/// The small part of a task that changes: all that is needed to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The row key; its order is the order of acceptance.
    pub key: TaskKey,
    /// The random rest of the public id.
    pub tail: IdTail,
    /// The queue's name.
    pub queue: NameId,
    /// The lane's name: the target host, or the task type.
    pub lane: NameId,
    /// Where it stands.
    pub status: Status,
    /// How urgent.
    pub priority: Priority,
    /// Put ahead of its queue by `POST /tasks/{id}/run`, until it starts.
    pub ahead: bool,
    /// Whether `due` was given as a wall-clock moment (`run_at`) and so follows the wall clock.
    pub due_on_wall: bool,
    /// Which series of attempts this is, from 1; each redrive starts one.
    pub series: u32,
    /// Counted attempts of this series, a running one included.
    pub attempts: u32,
    /// Counted attempts over all series: the number of the last attempt record.
    pub attempts_total: u32,
    /// How many attempts were cut off by a crash or a shutdown.
    pub interruptions: u32,
    /// Grows with every transition; a lease carries the epoch it was given.
    pub epoch: u32,
    /// Who runs it, while it runs.
    pub lease: Option<LeaseKind>,
    /// When the lease passes; `None` for those bound to this process.
    pub lease_until: Option<WallMs>,
    /// From when on it may start (waiting), or might (ended, running).
    pub due: WallMs,
    /// When it expires if it has not ended and is not running.
    pub expires_at: Option<WallMs>,
    /// When the series is over unless an attempt has started (`max_retry_duration`, where it can end the series;
    /// `credential_wait_max`, while there is no credential).
    pub give_up_at: Option<WallMs>,
    /// When the first attempt of this series started.
    pub first_dispatched_at: Option<WallMs>,
    /// When it was accepted.
    pub submitted_at: WallMs,
    /// When it last changed: the start of the running attempt, or the end.
    pub changed_at: WallMs,
    /// The class of the last attempt.
    pub last_class: Option<OutcomeClass>,
    /// The status of the last answer, if the last attempt had one.
    pub last_http_status: Option<u16>,
    /// Whether it waits for a credential, and since how many tries.
    pub no_credential: NoCredential,
    /// Why it is dead, when it is.
    pub dead_reason: Option<DeadReason>,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

impl Header {
    /// The public id.
    pub fn id(&self) -> TaskId {
        TaskId { key: self.key, tail: self.tail }
    }

    /// The header of a task that is accepted at `now`, in this queue and lane: queued, due at once, and nothing has
    /// happened to it yet.
    pub fn accepted(key: TaskKey, tail: IdTail, (queue, lane): (NameId, NameId), now: WallMs) -> Self {
        Self {
            key,
            tail,
            queue,
            lane,
            status: Status::Queued,
            priority: Priority::default(),
            ahead: false,
            due_on_wall: false,
            series: 1,
            attempts: 0,
            attempts_total: 0,
            interruptions: 0,
            epoch: 1,
            lease: None,
            lease_until: None,
            due: now,
            expires_at: None,
            give_up_at: None,
            first_dispatched_at: None,
            submitted_at: now,
            changed_at: now,
            last_class: None,
            last_http_status: None,
            no_credential: NoCredential::default(),
            dead_reason: None,
            payload_bytes: 0,
        }
    }

    /// Where the task stands at `now`: a waiting task whose time has come is `queued`, though its record still says
    /// `scheduled` or `retrying` (moving on costs no commit).
    pub fn status_at(&self, now: WallMs) -> Status {
        let waits = matches!(self.status, Status::Scheduled | Status::Retrying);
        if waits && self.due <= now { Status::Queued } else { self.status }
    }

    /// Retries of this series: attempts after the first (Cloud Tasks' `X-CloudTasks-TaskRetryCount`).
    pub fn retry_count(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }
}

/// The large part of a task, put once at acceptance.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// What runs it.
    pub task_type: TaskType,
    /// The client's own id.
    pub name: Option<TaskName>,
    /// Labels, sorted by key.
    pub labels: Vec<(LabelName, String)>,
    /// Deadline of one attempt.
    pub timeout: Option<Span>,
    /// What it says about retrying.
    pub retry: RetryOverrides,
    /// The hash of the `Idempotency-Key` it came under, so that the key can tell the end after the task was removed.
    pub idempotency: Option<u128>,
    /// The payload: JSON text exactly as it was given.
    pub payload: Bytes,
}

/// The record of one attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number over all series, from 1.
    pub ordinal: u32,
    /// Its series, from 1.
    pub series: u32,
    /// Its number in the series, from 1.
    pub number: u32,
    /// When it started.
    pub started_at: WallMs,
    /// How long it took.
    pub took: Span,
    /// What happened.
    pub class: OutcomeClass,
    /// The answer's status.
    pub http_status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first bytes of the answer's body.
    pub response_head: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(status: Status, attempts: u32) -> Header {
        Header {
            status,
            attempts,
            attempts_total: attempts,
            due: WallMs::new(7),
            ..Header::accepted(TaskKey::MIN, IdTail::new(5), (NameId(0), NameId(0)), WallMs::new(1))
        }
    }

    #[test]
    fn what_waits_for_its_time_is_queued_from_then_on() {
        for status in Status::ALL {
            let moved = matches!(status, Status::Scheduled | Status::Retrying);
            let at = |now| header(status, 1).status_at(WallMs::new(now));
            let from_then_on = if moved { Status::Queued } else { status };
            assert_eq!((at(6), at(7), at(8)), (status, from_then_on, from_then_on), "{status:?}");
        }
    }

    #[test]
    fn retries_are_the_attempts_after_the_first() {
        for (attempts, retries) in [(0, 0), (1, 0), (2, 1), (7, 6)] {
            assert_eq!(header(Status::Running, attempts).retry_count(), retries);
        }
        assert_eq!(header(Status::Running, 1).id(), TaskId { key: TaskKey::MIN, tail: IdTail::new(5) });
    }

    #[test]
    fn lease_kinds_read_back() {
        assert_eq!(LeaseKind::Pool.code(), 1, "it stands in stores");
        assert_eq!(LeaseKind::from_code(LeaseKind::Pool.code()), Some(LeaseKind::Pool));
        assert_eq!(LeaseKind::from_code(0), None);
    }
}
