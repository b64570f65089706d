//! Unique keys as rows, each under its own checksum.
//!
//! A damaged key is never taken for a key that is free, nor for another task's: whoever asks for it is refused
//! (`storage_damaged`), and everybody else is served.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use crate::queue::store::{Damage, IdRange, UniqueId, UniqueKind, UniqueRecord};
use crate::task::{IdTail, Status, TaskKey, WallMs};

use super::record::{self, Sum};

/// The number of a kind of unique key in the tables.
pub(super) fn kind_code(kind: UniqueKind) -> i64 {
    match kind {
        UniqueKind::TaskName => 0,
        UniqueKind::Idempotency => 1,
    }
}

/// Writes a key, in the place of an older one of the same id.
pub(super) fn put(conn: &Connection, record: &UniqueRecord) -> rusqlite::Result<()> {
    let (key, range) = (record.id, record.range);
    let row = (
        kind_code(key.kind),
        key.hash.to_be_bytes(),
        range.first.to_i64(),
        range.count,
        range.tail.get().cast_signed(),
        range.until.map(WallMs::get),
        record.digest.to_be_bytes(),
        record.ended.map(record::status_code),
        checksum(record),
    );
    let sql = "INSERT OR REPLACE INTO unique_key VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    conn.prepare_cached(sql)?.execute(row).map(drop)
}

/// Reads a key; nothing when nobody has taken it.
pub(super) fn get(conn: &Connection, id: UniqueId) -> rusqlite::Result<Option<Result<UniqueRecord, Damage>>> {
    let sql = "SELECT first, count, tail, until, digest, ended, checksum FROM unique_key WHERE kind = ?1 AND hash = ?2";
    let row = (kind_code(id.kind), id.hash.to_be_bytes());
    let read = |row: &SqlRow<'_>| {
        let found = record_of(id, row)?;
        let named = format!("{:?} {:032x}", id.kind, id.hash);
        Ok(found.ok_or_else(|| record::damage("unique_key", named, "its checksum does not match")))
    };
    conn.prepare_cached(sql)?.query_row(row, read).optional()
}

/// Remembers how the only task of a key ended, as long as the key stands for that task. A damaged one stays damaged:
/// a checksum written over it would vouch for what nobody knows.
pub(super) fn note_ended(conn: &Connection, id: UniqueId, task: i64, ended: Status) -> rusqlite::Result<()> {
    match get(conn, id)? {
        Some(Ok(found)) if found.range.first.to_i64() == task && found.range.count == 1 => {
            put(conn, &UniqueRecord { ended: Some(ended), ..found })
        }
        Some(_) | None => Ok(()),
    }
}

fn checksum(record: &UniqueRecord) -> i64 {
    let range = record.range;
    let mut sum = Sum::of("unique_key", kind_code(record.id.kind));
    sum.bytes(Some(&record.id.hash.to_be_bytes()));
    sum.number(Some(range.first.to_i64()));
    sum.number(Some(i64::from(range.count)));
    sum.number(Some(range.tail.get().cast_signed()));
    sum.number(range.until.map(WallMs::get));
    sum.number(record.ended.map(record::status_code));
    sum.end(&record.digest.to_be_bytes())
}

/// `None` when the row is damaged, in whichever cell.
fn record_of(id: UniqueId, row: &SqlRow<'_>) -> rusqlite::Result<Option<UniqueRecord>> {
    let integer = |index: usize| match row.get_ref(index) {
        Ok(ValueRef::Integer(number)) => Ok(Some(Some(number))),
        Ok(ValueRef::Null) => Ok(Some(None)),
        Ok(ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(Some(first)), Some(Some(count)), Some(Some(tail))) = (integer(0)?, integer(1)?, integer(2)?) else {
        return Ok(None);
    };
    let (Some(until), Some(ended), Some(Some(sum))) = (integer(3)?, integer(5)?, integer(6)?) else { return Ok(None) };
    let digest = row.get_ref(4)?.as_blob().ok().and_then(|digest| digest.try_into().ok());
    let (Some(first), Ok(count), Some(digest)) = (TaskKey::from_i64(first), u32::try_from(count), digest) else {
        return Ok(None);
    };
    let range = IdRange { first, count, tail: IdTail::new(tail.cast_unsigned()), until: until.map(WallMs::new) };
    let ended = ended.and_then(record::status_from_code);
    let found = UniqueRecord { id, range, digest: u128::from_be_bytes(digest), ended };
    Ok(Some(found).filter(|found| checksum(found) == sum))
}
