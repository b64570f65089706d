//! How headers, bodies and attempts become rows and are read back, each under its own checksum.
//!
//! A checksum covers table, row id and content, so that damage is noticed, and a row served from the wrong place too
//! (SQLite does not check its pages). Decoding never fails: it tells what could be read, and what is wrong.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row as SqlRow;
use rusqlite::types::ValueRef;
use twox_hash::XxHash3_64;

use crate::queue::store::Damage;
use crate::task::header::NameId;
use crate::task::outcome::DeadReason;
use crate::task::{
    Attempt, Body, Header, IdTail, LeaseKind, NoCredential, OutcomeClass, Priority, Span, Status, TaskKey, TaskName,
    TaskType, WallMs,
};

use super::meta;

/// The columns of `task`, in the order of [`header_cells`].
pub(super) const TASK_COLUMNS: &str = "id, tail, queue, lane, status, priority, flags, series, attempts, \
     attempts_total, interruptions, epoch, lease, lease_until, due, expires_at, give_up_at, first_dispatched_at, \
     submitted_at, changed_at, last_class, last_http_status, dead_reason, payload_bytes, checksum";
/// Columns of `task` between `id` and `checksum`.
pub(super) const CELLS: usize = 23;
/// The columns of `payload` that [`read_body`] reads.
pub(super) const PAYLOAD_COLUMNS: &str = "type, name, idempotency, meta, body, checksum";
/// The columns of `attempt` that [`read_attempt`] reads.
pub(super) const ATTEMPT_COLUMNS: &str =
    "n, series, number, started_at, took_ms, class, http_status, error, head, checksum";

const FLAG_AHEAD: i64 = 1;
const FLAG_DUE_ON_WALL: i64 = 2;
/// Above the flags in their column: how often the issuer of the credential said no, then how often there was none.
const REFUSALS_SHIFT: u32 = 8;
const WAITS_SHIFT: u32 = 16;

/// The values of a header's columns.
pub(super) type HeaderCells = [Option<i64>; CELLS];

/// A header as columns.
pub(super) fn header_cells(header: &Header) -> HeaderCells {
    let wall = |time: Option<WallMs>| time.map(WallMs::get);
    let flag = |set: bool, flag: i64| if set { flag } else { 0 };
    [
        Some(header.tail.get().cast_signed()),
        Some(i64::from(header.queue.0)),
        Some(i64::from(header.lane.0)),
        Some(status_code(header.status)),
        Some(i64::from(header.priority.get())),
        Some(
            flag(header.ahead, FLAG_AHEAD)
                | flag(header.due_on_wall, FLAG_DUE_ON_WALL)
                | i64::from(header.no_credential.refusals) << REFUSALS_SHIFT
                | i64::from(header.no_credential.waits) << WAITS_SHIFT,
        ),
        Some(i64::from(header.series)),
        Some(i64::from(header.attempts)),
        Some(i64::from(header.attempts_total)),
        Some(i64::from(header.interruptions)),
        Some(i64::from(header.epoch)),
        header.lease.map(|lease| i64::from(lease.code())),
        wall(header.lease_until),
        Some(header.due.get()),
        wall(header.expires_at),
        wall(header.give_up_at),
        wall(header.first_dispatched_at),
        Some(header.submitted_at.get()),
        Some(header.changed_at.get()),
        header.last_class.map(|class| i64::from(class.code())),
        header.last_http_status.map(i64::from),
        header.dead_reason.map(|reason| i64::from(reason.code())),
        Some(i64::from(header.payload_bytes)),
    ]
}

/// The number of a status in the tables.
pub(super) fn status_code(status: Status) -> i64 {
    // At most 7.
    i64::try_from(status.index()).unwrap_or(i64::MAX)
}

/// Reads the number of a status back.
pub(super) fn status_from_code(code: i64) -> Option<Status> {
    usize::try_from(code).ok().and_then(|index| Status::ALL.get(index).copied())
}

/// The checksum of a header.
pub(super) fn header_checksum(id: i64, cells: &HeaderCells) -> i64 {
    let mut sum = Sum::of("task", id);
    for cell in cells {
        sum.number(*cell);
    }
    sum.end(&[])
}

/// Reads a row of `task` (all of [`TASK_COLUMNS`]): the header, as far as it can be read, and what is wrong with it.
pub(super) fn read_header(row: &SqlRow<'_>) -> rusqlite::Result<(Header, Option<Damage>)> {
    let id: i64 = row.get(0)?;
    let mut decoder = Decoder { wrong: None };
    let mut cells: HeaderCells = [None; CELLS];
    for (index, cell) in cells.iter_mut().enumerate() {
        *cell = decoder.integer(row.get_ref(index + 1)?);
    }
    let checksum = decoder.integer(row.get_ref(CELLS + 1)?);
    let header = decoder.header(id, &cells);
    if checksum != Some(header_checksum(id, &cells)) {
        decoder.wrong.get_or_insert("its checksum does not match");
    }
    Ok((header, decoder.wrong.map(|wrong| damage("task", id, wrong))))
}

pub(super) fn damage(table: &str, id: impl fmt::Display, wrong: &str) -> Damage {
    Damage { what: format!("the record in table {table}, row {id}, is damaged: {wrong}") }
}

/// Turns columns into words, and remembers the first that could not be.
struct Decoder {
    wrong: Option<&'static str>,
}

impl Decoder {
    fn integer(&mut self, value: ValueRef<'_>) -> Option<i64> {
        match value {
            ValueRef::Integer(number) => Some(number),
            ValueRef::Null => None,
            ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
                self.wrong.get_or_insert("a number is none");
                None
            }
        }
    }

    fn some<T>(&mut self, cell: Option<i64>, read: impl Fn(i64) -> Option<T>) -> Option<T> {
        let number = cell?;
        let word = read(number);
        if word.is_none() {
            self.wrong.get_or_insert("a number is out of range");
        }
        word
    }

    fn must<T>(&mut self, cell: Option<i64>, read: impl Fn(i64) -> Option<T>, otherwise: T) -> T {
        if cell.is_none() {
            self.wrong.get_or_insert("a number is missing");
        }
        self.some(cell, read).unwrap_or(otherwise)
    }

    fn count(&mut self, cell: Option<i64>) -> u32 {
        self.must(cell, |number| u32::try_from(number).ok(), 0)
    }

    fn wall(cell: Option<i64>) -> Option<WallMs> {
        cell.map(WallMs::new)
    }

    fn header(&mut self, id: i64, cells: &HeaderCells) -> Header {
        let [
            tail,
            queue,
            lane,
            status,
            priority,
            flags,
            series,
            attempts,
            attempts_total,
            interruptions,
            epoch,
            lease,
            lease_until,
            due,
            expires_at,
            give_up_at,
            first_dispatched_at,
            submitted_at,
            changed_at,
            last_class,
            last_http_status,
            dead_reason,
            payload_bytes,
        ] = *cells;
        let flags = self.must(flags, Some, 0);
        Header {
            key: self.must(Some(id), TaskKey::from_i64, TaskKey::MIN),
            tail: IdTail::new(self.must(tail, |bits| u64::try_from(bits).ok(), 0)),
            queue: NameId(self.count(queue)),
            lane: NameId(self.count(lane)),
            status: self.must(status, status_from_code, Status::Queued),
            priority: self.must(priority, |n| u64::try_from(n).ok().and_then(Priority::new), Priority::default()),
            ahead: flags & FLAG_AHEAD != 0,
            due_on_wall: flags & FLAG_DUE_ON_WALL != 0,
            series: self.count(series),
            attempts: self.count(attempts),
            attempts_total: self.count(attempts_total),
            interruptions: self.count(interruptions),
            epoch: self.count(epoch),
            lease: self.some(lease, |code| u8::try_from(code).ok().and_then(LeaseKind::from_code)),
            lease_until: Self::wall(lease_until),
            due: WallMs::new(self.must(due, Some, 0)),
            expires_at: Self::wall(expires_at),
            give_up_at: Self::wall(give_up_at),
            first_dispatched_at: Self::wall(first_dispatched_at),
            submitted_at: WallMs::new(self.must(submitted_at, Some, 0)),
            changed_at: WallMs::new(self.must(changed_at, Some, 0)),
            last_class: self.some(last_class, class_from_code),
            last_http_status: self.some(last_http_status, |status| u16::try_from(status).ok()),
            no_credential: NoCredential {
                waits: u16::try_from(flags >> WAITS_SHIFT & i64::from(u16::MAX)).unwrap_or(0),
                refusals: u8::try_from(flags >> REFUSALS_SHIFT & i64::from(u8::MAX)).unwrap_or(0),
            },
            dead_reason: self.some(dead_reason, |code| u8::try_from(code).ok().and_then(DeadReason::from_code)),
            payload_bytes: self.count(payload_bytes),
        }
    }
}

fn class_from_code(code: i64) -> Option<OutcomeClass> {
    u8::try_from(code).ok().and_then(OutcomeClass::from_code)
}

/// A body as columns, all but the payload itself.
pub(super) struct BodyCells {
    /// The idempotency key's hash, big-endian.
    pub(super) idempotency: Option<[u8; 16]>,
    /// Labels, deadline and retry; `None` when there is nothing to say.
    pub(super) meta: Option<Vec<u8>>,
    /// Over everything.
    pub(super) checksum: i64,
}

/// A body as columns.
pub(super) fn body_cells(id: i64, body: &Body) -> BodyCells {
    let idempotency = body.idempotency.map(u128::to_be_bytes);
    let meta = meta::encode(body);
    let name = body.name.as_ref().map(|name| name.as_str().as_bytes());
    let checksum = body_checksum(
        id,
        [
            Some(body.task_type.as_str().as_bytes()),
            name,
            idempotency.as_ref().map(<[u8; 16]>::as_slice),
            meta.as_deref(),
        ],
        &body.payload,
    );
    BodyCells { idempotency, meta, checksum }
}

fn body_checksum(id: i64, parts: [Option<&[u8]>; 4], payload: &[u8]) -> i64 {
    let mut sum = Sum::of("payload", id);
    for part in parts {
        sum.bytes(part);
    }
    sum.end(payload)
}

/// Reads a row of `payload` ([`PAYLOAD_COLUMNS`]).
pub(super) fn read_body(row: &SqlRow<'_>, id: i64) -> rusqlite::Result<Result<Arc<Body>, Damage>> {
    let (task_type, name, idempotency) = (row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?);
    let (meta, payload, checksum) = (row.get_ref(3)?, row.get_ref(4)?, row.get_ref(5)?);
    let parts = [task_type, name, idempotency, meta].map(raw_bytes);
    let Some(payload) = raw_bytes(payload) else {
        return Ok(Err(damage("payload", id, "the payload is missing")));
    };
    if checksum != ValueRef::Integer(body_checksum(id, parts, payload)) {
        return Ok(Err(damage("payload", id, "its checksum does not match")));
    }
    Ok(decode_body(parts, payload).map(Arc::new).ok_or_else(|| damage("payload", id, "it cannot be read")))
}

/// The record of a payload that is not there.
pub(super) fn body_missing(id: i64) -> Damage {
    damage("payload", id, "it is missing")
}

fn decode_body(parts: [Option<&[u8]>; 4], payload: &[u8]) -> Option<Body> {
    let [task_type, name, idempotency, meta] = parts;
    let meta = meta::decode(meta)?;
    Some(Body {
        task_type: TaskType::parse(std::str::from_utf8(task_type?).ok()?).ok()?,
        name: match name {
            Some(name) => Some(TaskName::parse(std::str::from_utf8(name).ok()?).ok()?),
            None => None,
        },
        labels: meta.labels,
        timeout: meta.timeout,
        retry: meta.retry,
        idempotency: match idempotency {
            Some(bytes) => Some(u128::from_be_bytes(bytes.try_into().ok()?)),
            None => None,
        },
        payload: Bytes::copy_from_slice(payload),
    })
}

fn raw_bytes(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    }
}

/// The numbers of an attempt in the order of [`ATTEMPT_COLUMNS`].
pub(super) fn attempt_cells(attempt: &Attempt) -> [Option<i64>; 7] {
    [
        Some(i64::from(attempt.ordinal)),
        Some(i64::from(attempt.series)),
        Some(i64::from(attempt.number)),
        Some(attempt.started_at.get()),
        Some(i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX)),
        Some(i64::from(attempt.class.code())),
        attempt.http_status.map(i64::from),
    ]
}

/// The checksum of an attempt.
pub(super) fn attempt_checksum(id: i64, cells: &[Option<i64>; 7], error: Option<&[u8]>, head: &[u8]) -> i64 {
    let mut sum = Sum::of("attempt", id);
    for cell in cells {
        sum.number(*cell);
    }
    sum.bytes(error);
    sum.end(head)
}

/// Reads a row of `attempt` ([`ATTEMPT_COLUMNS`]). A damaged one is still shown: class `corrupt`, and why.
pub(super) fn read_attempt(row: &SqlRow<'_>, id: i64) -> rusqlite::Result<Attempt> {
    let mut decoder = Decoder { wrong: None };
    let mut cells = [None; 7];
    for (index, cell) in cells.iter_mut().enumerate() {
        *cell = decoder.integer(row.get_ref(index)?);
    }
    let error = raw_bytes(row.get_ref(7)?);
    let head = raw_bytes(row.get_ref(8)?).unwrap_or_default();
    let checksum = decoder.integer(row.get_ref(9)?);
    if checksum != Some(attempt_checksum(id, &cells, error, head)) {
        decoder.wrong.get_or_insert("its checksum does not match");
    }
    let [ordinal, series, number, started_at, took, class, http_status] = cells;
    let mut attempt = Attempt {
        ordinal: decoder.count(ordinal),
        series: decoder.count(series),
        number: decoder.count(number),
        started_at: WallMs::new(decoder.must(started_at, Some, 0)),
        took: Span::from_millis(decoder.must(took, |ms| u64::try_from(ms).ok(), 0)),
        class: decoder.must(class, class_from_code, OutcomeClass::Corrupt),
        http_status: decoder.some(http_status, |status| u16::try_from(status).ok()),
        error: error.map(|text| String::from_utf8_lossy(text).into_owned()),
        response_head: Bytes::copy_from_slice(head),
    };
    if let Some(wrong) = decoder.wrong {
        attempt.class = OutcomeClass::Corrupt;
        attempt.error = Some(damage("attempt", id, wrong).what);
    }
    Ok(attempt)
}

/// The checksum of a name.
pub(super) fn name_checksum(kind: i64, id: i64, text: &[u8]) -> i64 {
    let mut sum = Sum::of("name", id);
    sum.number(Some(kind));
    sum.end(text)
}

/// The checksum of a queue's pause.
pub(super) fn pause_checksum(id: i64, paused: i64) -> i64 {
    let mut sum = Sum::of("queue", id);
    sum.number(Some(paused));
    sum.end(&[])
}

/// A checksum in the making: XXH3, 64 bits. It finds accidents, not attackers; who can write the file can do anything.
pub(super) struct Sum(Vec<u8>);

impl Sum {
    pub(super) fn of(table: &str, id: i64) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(table.as_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
        Self(bytes)
    }

    pub(super) fn number(&mut self, number: Option<i64>) {
        self.0.push(u8::from(number.is_some()));
        self.0.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.number(bytes.map(|bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX)));
        self.0.extend_from_slice(bytes.unwrap_or_default());
    }

    /// Ends with the large part, which is not copied: it is hashed with the hash of the rest as its seed.
    pub(super) fn end(self, large: &[u8]) -> i64 {
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&self.0), large).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_knows_table_row_and_what_is_missing() {
        let cells = [None; 7];
        let mut zero = cells;
        zero[3] = Some(0);
        let sums = [
            attempt_checksum(1, &cells, None, b""),
            attempt_checksum(2, &cells, None, b""),
            attempt_checksum(1, &zero, None, b""),
            attempt_checksum(1, &cells, Some(b""), b""),
            attempt_checksum(1, &cells, Some(b"a"), b""),
            attempt_checksum(1, &cells, None, b"a"),
        ];
        let distinct: std::collections::BTreeSet<_> = sums.into_iter().collect();
        assert_eq!(distinct.len(), sums.len());
        assert_ne!(body_checksum(1, [None; 4], b""), Sum::of("task", 1).end(b""));
    }

    #[test]
    fn statuses_read_back_from_their_numbers() {
        for status in Status::ALL {
            assert_eq!(status_from_code(status_code(status)), Some(status));
        }
        assert_eq!(status_code(Status::Dead), 5, "the index task_dead names this number");
        assert_eq!(status_from_code(8), None);
        assert_eq!(status_from_code(-1), None);
    }
}
