//! API keys as rows, each under its checksum: a key whose row is damaged lets nobody in.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as SqlRow};
use twox_hash::XxHash3_64;

use crate::queue::store::Damage;
use crate::security::api_key::{KeyDigest, KeyRecord};
use crate::security::scope::Scopes;
use crate::task::WallMs;
use crate::task::name::KeyName;

/// Columns of `api_key`, in the order of [`read`].
pub(super) const COLUMNS: &str = "id, name, digest, scopes, created_at, expires_at, last_used_at, checksum";

/// Adds a row.
pub(super) fn insert(conn: &Connection, record: &KeyRecord) -> rusqlite::Result<()> {
    let sql = "INSERT INTO api_key VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    write(conn, sql, record)
}

/// Writes a row anew, if it is there.
pub(super) fn update(conn: &Connection, record: &KeyRecord) -> rusqlite::Result<()> {
    let sql = "UPDATE api_key SET name=?2, digest=?3, scopes=?4, created_at=?5, expires_at=?6, last_used_at=?7, \
               checksum=?8 WHERE id=?1";
    write(conn, sql, record)
}

fn write(conn: &Connection, sql: &str, record: &KeyRecord) -> rusqlite::Result<()> {
    let scopes = scopes_text(&record.scopes);
    let row = (
        record.id.as_ref(),
        record.name.as_str(),
        record.digest.to_bytes(),
        &scopes,
        record.created_at.get(),
        record.expires_at.map(WallMs::get),
        record.last_used_at.map(WallMs::get),
        checksum(record, &scopes),
    );
    conn.prepare_cached(sql)?.execute(row).map(drop)
}

/// Reads a row ([`COLUMNS`]).
pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Result<KeyRecord, Damage>> {
    let id = match row.get_ref(0)? {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => "?".to_owned(),
    };
    let damage = |wrong: &str| Damage { what: format!("API key {id}: {wrong}") };
    let Some((record, scopes)) = decode(row, &id) else { return Ok(Err(damage("it cannot be read"))) };
    if row.get_ref(7)? != ValueRef::Integer(checksum(&record, &scopes)) {
        return Ok(Err(damage("its checksum does not match")));
    }
    Ok(Ok(record))
}

/// The record and the text of its scopes; `None` when a cell is not what it should be.
fn decode(row: &SqlRow<'_>, id: &str) -> Option<(KeyRecord, String)> {
    let moment = |index| row.get::<_, Option<i64>>(index).ok().map(|at| at.map(WallMs::new));
    let scopes: String = row.get(3).ok()?;
    let record = KeyRecord {
        id: Arc::from(id),
        name: KeyName::parse(&row.get::<_, String>(1).ok()?).ok()?,
        digest: KeyDigest::from_bytes(row.get(2).ok()?),
        scopes: Arc::new(Scopes::parse(scopes.split(' ')).ok()?),
        created_at: WallMs::new(row.get(4).ok()?),
        expires_at: moment(5)?,
        last_used_at: moment(6)?,
    };
    Some((record, scopes))
}

fn scopes_text(scopes: &Scopes) -> String {
    scopes.texts().collect::<Vec<_>>().join(" ")
}

/// Over everything, each part preceded by its length or by whether it is there. It finds accidents, not attackers, as
/// those of the other tables do.
fn checksum(record: &KeyRecord, scopes: &str) -> i64 {
    let mut bytes = b"api_key".to_vec();
    let digest = record.digest.to_bytes();
    for part in [record.id.as_bytes(), record.name.as_str().as_bytes(), &digest, scopes.as_bytes()] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    for moment in [Some(record.created_at), record.expires_at, record.last_used_at] {
        bytes.push(u8::from(moment.is_some()));
        bytes.extend_from_slice(&moment.map_or(0, WallMs::get).to_le_bytes());
    }
    XxHash3_64::oneshot(&bytes).cast_signed()
}
