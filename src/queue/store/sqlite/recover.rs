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
    let mut statement = conn.prepare("SELECT id FROM queue WHERE paused ORDER BY id").map_err(read_error)?;
    for id in statement.query_map([], |row| row.get(0)).map_err(read_error)? {
        sink(Recovered::Paused(NameId(id.map_err(read_error)?)));
    }
    let sql = format!("SELECT {TASK_COLUMNS} FROM task ORDER BY id");
    let mut statement = conn.prepare(&sql).map_err(read_error)?;
    let mut rows = statement.query([]).map_err(read_error)?;
    while let Some(row) = rows.next().map_err(read_error)? {
        let (header, damage) = record::read_header(row).map_err(read_error)?;
        sink(Recovered::Task { header: Box::new(header), damage });
    }
    Ok(())
}

fn each_name(conn: &Connection, sink: &mut dyn FnMut(Recovered)) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT kind, id, text FROM name ORDER BY kind, id").map_err(read_error)?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, NameId(row.get(1)?), row.get::<_, String>(2)?)));
    for row in rows.map_err(read_error)? {
        let (code, id, text) = row.map_err(read_error)?;
        let kind = kind_from_code(code).ok_or_else(|| StoreError::Corrupt {
            what: format!("names have no kind {code}"),
            place: format!("table name, id {}", id.0),
        })?;
        sink(Recovered::Name { kind, id, text: Arc::from(text) });
    }
    Ok(())
}
