//! What can be asked of the tables, each in short statements.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use crate::queue::store::change::UniqueKind;
use crate::queue::store::{
    Damage, Gathered, IdRange, ListPage, ListQuery, OldestEnded, Row, StoreError, TaskRecord, UniqueId, UniqueRecord,
    task_name_hash,
};
use crate::security::api_key::KeyRecord;
use crate::task::header::NameId;
use crate::task::{Body, Header, IdTail, Status, TaskKey, TaskName, TaskRef, WallMs};

use super::api_key;
use super::commit::unique_kind_code;
use super::fault::{read_error, unavailable};
use super::names::{Known, Names};
use super::record::{self, ATTEMPT_COLUMNS, PAYLOAD_COLUMNS, TASK_COLUMNS};

/// Reads on one connection.
pub(super) struct Reading<'a> {
    conn: &'a Connection,
    names: &'a Names,
}

/// A header as stored; nothing when there is no such row.
pub(super) fn header(conn: &Connection, key: TaskKey) -> rusqlite::Result<Option<(Header, Option<Damage>)>> {
    let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE id = ?1");
    conn.prepare_cached(&sql)?.query_row([key.to_i64()], record::read_header).optional()
}

impl<'a> Reading<'a> {
    /// Runs `read` within one snapshot of the tables.
    pub(super) fn run<T>(
        conn: &'a Connection,
        names: &'a Names,
        read: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let snapshot = conn.unchecked_transaction().map_err(read_error)?;
        let found = read(&Self { conn, names });
        snapshot.finish().map_err(read_error)?;
        found
    }

    /// See [`crate::queue::store::Store::gather`].
    pub(super) fn gather(&self, rows: &[TaskRef], unique: &[UniqueId]) -> Result<Gathered, StoreError> {
        let known = self.names.read();
        let row = |task: &TaskRef| match self.find(task)? {
            Some(found) => self.row(&known, found).map(Some),
            None => Ok(None),
        };
        Ok(Gathered {
            rows: rows.iter().map(row).collect::<Result<_, _>>()?,
            unique: unique.iter().map(|id| self.unique(*id)).collect::<Result<_, _>>()?,
        })
    }

    /// See [`crate::queue::store::Store::rows`].
    pub(super) fn rows(&self, keys: &[TaskKey]) -> Result<Vec<Option<Row>>, StoreError> {
        let known = self.names.read();
        let row = |key: &TaskKey| {
            let found = header(self.conn, *key).map_err(read_error)?;
            found.map(|found| self.row(&known, found)).transpose()
        };
        keys.iter().map(row).collect()
    }

    /// See [`crate::queue::store::Store::record`].
    pub(super) fn record(&self, task: &TaskRef) -> Result<Option<TaskRecord>, StoreError> {
        let Some(found) = self.find(task)? else { return Ok(None) };
        let row = self.row(&self.names.read(), found)?;
        let id = row.header.key.to_i64();
        let sql = format!("SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE id = ?1 ORDER BY n");
        let mut statement = self.conn.prepare_cached(&sql).map_err(read_error)?;
        let attempts = statement.query_map([id], |row| record::read_attempt(row, id)).map_err(read_error)?;
        let attempts = attempts.collect::<Result<_, _>>().map_err(read_error)?;
        Ok(Some(TaskRecord { row, attempts }))
    }

    /// See [`crate::queue::store::Store::list`]. Of dead letters only dead letters are looked at.
    pub(super) fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let known = self.names.read();
        let mut page = ListPage { rows: Vec::new(), next: None };
        let queue = query.filter.queue.as_ref().map(|queue| known.number(queue));
        if queue == Some(None) {
            return Ok(page);
        }
        let dead_only = query.filter.status == Some(Status::Dead) || query.filter.dead_reason.is_some();
        let only = if dead_only { "status = 5 AND" } else { "" };
        let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE {only} id < ?1 ORDER BY id DESC LIMIT ?2");
        let before = query.before.unwrap_or(TaskKey::MAX).to_i64();
        let mut statement = self.conn.prepare_cached(&sql).map_err(read_error)?;
        // One more than is looked at tells whether there is another page.
        let mut rows = statement.query((before, i64::from(query.scan_max) + 1)).map_err(read_error)?;
        let (mut scanned, mut last) = (0, None);
        while let Some(sql_row) = rows.next().map_err(read_error)? {
            if scanned == query.scan_max || page.rows.len() >= query.limit as usize {
                page.next = last;
                break;
            }
            scanned += 1;
            let found = record::read_header(sql_row).map_err(read_error)?;
            last = Some(found.0.key);
            if query.filter.admits_header(&found.0, queue.flatten(), |id| known.queue(id)) {
                let row = self.row(&known, found)?;
                page.rows.extend(Some(row).filter(|row| query.filter.admits_body(row)));
            }
        }
        Ok(page)
    }

    /// See [`crate::queue::store::Store::oldest_ended`].
    pub(super) fn oldest_ended(&self, query: &OldestEnded) -> Result<Vec<Row>, StoreError> {
        let known = self.names.read();
        let statuses: &[Status] =
            if query.dead { &[Status::Dead] } else { &[Status::Succeeded, Status::Cancelled, Status::Expired] };
        let mut found = Vec::new();
        for status in statuses {
            found.extend(self.ended(query, *status).map_err(read_error)?);
        }
        found.sort_by_key(|(header, _)| (header.changed_at, header.key));
        found.truncate(query.limit as usize);
        found.into_iter().map(|found| self.row(&known, found)).collect()
    }

    /// See [`crate::queue::store::Store::api_keys`].
    pub(super) fn api_keys(&self) -> Result<Vec<Result<KeyRecord, Damage>>, StoreError> {
        let sql = format!("SELECT {} FROM api_key ORDER BY id", api_key::COLUMNS);
        let mut statement = self.conn.prepare_cached(&sql).map_err(read_error)?;
        let keys = statement.query_map([], api_key::read).map_err(read_error)?;
        keys.collect::<Result<_, _>>().map_err(read_error)
    }

    fn ended(&self, query: &OldestEnded, status: Status) -> rusqlite::Result<Vec<(Header, Option<Damage>)>> {
        let NameId(queue) = query.queue;
        let columns = TASK_COLUMNS.split(", ").map(|column| format!("task.{column}")).collect::<Vec<_>>().join(", ");
        // A place whose task has moved on is the trace of a damaged row.
        let sql = format!(
            "SELECT {columns} FROM finished CROSS JOIN task ON task.id = finished.id AND task.status = finished.status \
             WHERE finished.queue = ?1 AND finished.status = ?2 ORDER BY finished.finished_at, finished.id LIMIT ?3"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        statement.query_map((queue, record::status_code(status), query.limit), record::read_header)?.collect()
    }

    /// The row that somebody named: by the id we gave (its tail compared), else by its own name.
    fn find(&self, task: &TaskRef) -> Result<Option<(Header, Option<Damage>)>, StoreError> {
        let find = |key: TaskKey, tail: IdTail| {
            let found = header(self.conn, key).map_err(read_error)?;
            Ok(found.filter(|(header, _)| header.tail == tail))
        };
        if let Some(id) = task.id
            && let Some(found) = find(id.key, id.tail)?
        {
            return Ok(Some(found));
        }
        let Some(name) = &task.name else { return Ok(None) };
        match self.named(name)? {
            Some(record) => find(record.range.first, record.range.tail),
            None => Ok(None),
        }
    }

    fn named(&self, name: &TaskName) -> Result<Option<UniqueRecord>, StoreError> {
        self.unique(UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) })
    }

    fn unique(&self, id: UniqueId) -> Result<Option<UniqueRecord>, StoreError> {
        let sql = "SELECT first, count, tail, until, digest, ended FROM unique_key WHERE kind = ?1 AND hash = ?2";
        let mut statement = self.conn.prepare_cached(sql).map_err(read_error)?;
        let row = (unique_kind_code(id.kind), id.hash.to_be_bytes());
        let found = statement.query_row(row, |row| unique_record(id, row)).optional().map_err(read_error)?;
        match found {
            Some(None) => Err(StoreError::Corrupt {
                what: String::from("a unique key cannot be read"),
                place: format!("table unique_key, kind {:?}, hash {:032x}", id.kind, id.hash),
            }),
            Some(found) => Ok(found),
            None => Ok(None),
        }
    }

    fn row(&self, known: &Known, (header, damage): (Header, Option<Damage>)) -> Result<Row, StoreError> {
        let queue = known.queue(header.queue).ok_or_else(|| unavailable("a queue has no name"))?;
        let lane = known.lane(header.lane);
        let body = damage.map_or_else(|| self.body(header.key), |damage| Ok(Err(damage)))?;
        Ok(Row { header, queue, lane, body })
    }

    fn body(&self, key: TaskKey) -> Result<Result<Arc<Body>, Damage>, StoreError> {
        let id = key.to_i64();
        let sql = format!("SELECT {PAYLOAD_COLUMNS} FROM payload WHERE id = ?1");
        let mut statement = self.conn.prepare_cached(&sql).map_err(read_error)?;
        let body = statement.query_row([id], |row| record::read_body(row, id)).optional();
        Ok(body.map_err(read_error)?.unwrap_or_else(|| Err(record::body_missing(id))))
    }
}

/// `None` when the row cannot be read.
fn unique_record(id: UniqueId, row: &SqlRow<'_>) -> rusqlite::Result<Option<UniqueRecord>> {
    let (Some(first), Ok(tail)) = (TaskKey::from_i64(row.get(0)?), u64::try_from(row.get::<_, i64>(2)?)) else {
        return Ok(None);
    };
    let range = IdRange {
        first,
        count: row.get(1)?,
        tail: IdTail::new(tail),
        until: row.get::<_, Option<i64>>(3)?.map(WallMs::new),
    };
    let digest = u128::from_be_bytes(row.get(4)?);
    let ended = row.get::<_, Option<i64>>(5)?.and_then(record::status_from_code);
    Ok(Some(UniqueRecord { id, range, digest, ended }))
}
