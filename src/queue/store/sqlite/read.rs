//! What can be asked of the tables, each in short statements.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use crate::queue::store::change::UniqueKind;
use crate::queue::store::{
    Damage, Gathered, ListPage, ListQuery, OldestEnded, Row, StoreError, TaskRecord, UniqueId, UniqueRecord,
    task_name_hash,
};
use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::task::header::NameId;
use crate::task::{Body, Header, IdTail, Status, TaskKey, TaskName, TaskRef};

use super::fault::{read_error, unavailable};
use super::names::{Known, Names};
use super::record::{self, ATTEMPT_COLUMNS, PAYLOAD_COLUMNS, TASK_COLUMNS};
use super::unique;
use super::{api_key, credential};

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
        let mut gathered = Gathered::default();
        for id in unique.iter().copied().chain(rows.iter().filter_map(|task| task.name.as_ref().map(name_id))) {
            if let Some(Err(damage)) = unique::get(self.conn, id).map_err(read_error)? {
                gathered.damaged.insert(id, damage);
            }
        }
        for task in rows {
            let found = match self.find(task) {
                // By its name, which is among the damaged ones: said there, and the other commands go on.
                Err(StoreError::Corrupt { .. }) => None,
                found => found?,
            };
            gathered.rows.push(found.map(|found| self.row(&known, found)).transpose()?);
        }
        for id in unique {
            let found = unique::get(self.conn, *id).map_err(read_error)?;
            gathered.unique.push(found.and_then(Result::ok));
        }
        Ok(gathered)
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

    /// See [`crate::queue::store::Store::credentials`].
    pub(super) fn credentials(&self) -> Result<Vec<Result<SealedCredential, Damage>>, StoreError> {
        let sql = format!("SELECT {} FROM credential ORDER BY name", credential::COLUMNS);
        let mut statement = self.conn.prepare_cached(&sql).map_err(read_error)?;
        let credentials = statement.query_map([], credential::read).map_err(read_error)?;
        credentials.collect::<Result<_, _>>().map_err(read_error)
    }

    fn ended(&self, query: &OldestEnded, status: Status) -> rusqlite::Result<Vec<(Header, Option<Damage>)>> {
        let NameId(queue) = query.queue;
        let columns = TASK_COLUMNS.split(", ").map(|column| format!("task.{column}")).collect::<Vec<_>>().join(", ");
        // A place whose task has moved on is the trace of a damaged row.
        let sql = format!(
            "SELECT {columns} FROM finished CROSS JOIN task ON task.id = finished.id AND task.status = finished.status \
             AND task.queue = finished.queue WHERE finished.queue = ?1 AND finished.status = ?2 ORDER BY finished.finished_at, finished.id LIMIT ?3"
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
        let found = unique::get(self.conn, name_id(name)).map_err(read_error)?;
        found
            .transpose()
            .map_err(|Damage { what }| StoreError::Corrupt { what, place: String::from("table unique_key") })
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

fn name_id(name: &TaskName) -> UniqueId {
    UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) }
}
