//! Credentials as rows, sealed before they come here, each under its checksum: damage is told from another key.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as SqlRow};
use twox_hash::XxHash3_64;

use crate::queue::store::Damage;
use crate::security::credential::sealed::SealedCredential;
use crate::task::{CredentialName, WallMs};

/// Columns of `credential`, in the order of [`read`].
pub(super) const COLUMNS: &str = "name, changed_at, sealed, checksum";

/// Writes a row, in the place of another of its name.
pub(super) fn put(conn: &Connection, credential: &SealedCredential) -> rusqlite::Result<()> {
    let SealedCredential { name, changed_at, sealed } = credential;
    let row = (name.as_str(), changed_at.get(), sealed, checksum(credential));
    conn.prepare_cached("INSERT OR REPLACE INTO credential VALUES (?1, ?2, ?3, ?4)")?.execute(row).map(drop)
}

/// Reads a row ([`COLUMNS`]).
pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Result<SealedCredential, Damage>> {
    let name = match row.get_ref(0)? {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => "?".to_owned(),
    };
    let damage = |wrong: &str| Damage { what: format!("credential {name}: {wrong}") };
    let Some(credential) = decode(row, &name) else { return Ok(Err(damage("it cannot be read"))) };
    if row.get_ref(3)? != ValueRef::Integer(checksum(&credential)) {
        return Ok(Err(damage("its checksum does not match")));
    }
    Ok(Ok(credential))
}

fn decode(row: &SqlRow<'_>, name: &str) -> Option<SealedCredential> {
    let name = CredentialName::parse(name).ok()?;
    Some(SealedCredential { name, changed_at: WallMs::new(row.get(1).ok()?), sealed: row.get(2).ok()? })
}

fn checksum(credential: &SealedCredential) -> i64 {
    let mut bytes = b"credential".to_vec();
    for part in [credential.name.as_str().as_bytes(), &credential.sealed] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&credential.changed_at.get().to_le_bytes());
    XxHash3_64::oneshot(&bytes).cast_signed()
}
