//! What a start reads: names, paused queues, every header.

use std::sync::Arc;

use rusqlite::Connection;

use crate::queue::store::{Recovered, StoreError};
use crate::task::header::NameId;

use super::fault::read_error;
use super::names::{Names, kind_from_code};
use super::record::{self, TASK_COLUMNS};

/// Reads the names into `names`.
pub(super) fn load_names(conn: &Connection, names: &Names) -> Result<(), StoreError> {
    each_name(conn, &mut |found| {
        if let Recovered::Name { kind, id, text } = found {
            names.learn(kind, id, &text);
        }
    })
}

/// Hands over everything that the engine's index needs.
pub(super) fn run(conn: &Connection, sink: &mut dyn FnMut(Recovered)) -> Result<(), StoreError> {
    each_name(conn, sink)?;
    each_pause(conn, sink).map_err(read_error)?;
    let sql = format!("SELECT {TASK_COLUMNS} FROM task ORDER BY id");
    let mut statement = conn.prepare(&sql).map_err(read_error)?;
    let mut rows = statement.query([]).map_err(read_error)?;
    while let Some(row) = rows.next().map_err(read_error)? {
        let (header, damage) = record::read_header(row).map_err(read_error)?;
        sink(Recovered::Task { header: Box::new(header), damage });
    }
    Ok(())
}

/// A damaged name is counted and not handed over: the engine gives its tasks a placeholder when it meets them.
fn each_name(conn: &Connection, sink: &mut dyn FnMut(Recovered)) -> Result<(), StoreError> {
    let sql = "SELECT kind, id, text, checksum FROM name ORDER BY kind, id";
    let mut statement = conn.prepare(sql).map_err(read_error)?;
    let mut rows = statement.query([]).map_err(read_error)?;
    while let Some(row) = rows.next().map_err(read_error)? {
        let cells = (|| {
            let (code, id) = (row.get_ref(0).ok()?.as_i64().ok()?, row.get_ref(1).ok()?.as_i64().ok()?);
            let (text, sum) = (row.get_ref(2).ok()?.as_bytes().ok()?, row.get_ref(3).ok()?.as_i64().ok()?);
            let name = (kind_from_code(code)?, NameId(u32::try_from(id).ok()?), std::str::from_utf8(text).ok()?);
            Some(name).filter(|_| record::name_checksum(code, id, text) == sum)
        })();
        sink(match cells {
            Some((kind, id, text)) => Recovered::Name { kind, id, text: Arc::from(text) },
            None => Recovered::Damaged,
        });
    }
    Ok(())
}

/// A queue whose pause is damaged counts as paused: to wait is safe, to call somebody is not.
fn each_pause(conn: &Connection, sink: &mut dyn FnMut(Recovered)) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("SELECT id, paused, checksum FROM queue ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (paused, sum) = (row.get_ref(1)?.as_i64().ok(), row.get_ref(2)?.as_i64().ok());
        let whole = paused.filter(|paused| sum == Some(record::pause_checksum(id, *paused)));
        if whole.is_none() {
            sink(Recovered::Damaged);
        }
        if whole != Some(0)
            && let Ok(id) = u32::try_from(id)
        {
            sink(Recovered::Paused(NameId(id)));
        }
    }
    Ok(())
}
