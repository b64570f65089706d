//! One commit as one transaction: each change as its statements.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql};

use crate::queue::store::change::ChangeKind;
use crate::queue::store::{Change, UniqueId, UniqueKind, task_name_hash};
use crate::task::header::NameId;
use crate::task::limits::{ATTEMPTS_KEPT_FIRST, ATTEMPTS_KEPT_LAST};
use crate::task::{Attempt, Body, Header, Status, TaskKey, TaskName};

use super::fault::WriteFault;
use super::names::{Names, kind_code};
use super::read;
use super::record::{self, HeaderCells};
use super::unique;
use super::{api_key, credential};

const INSERT_TASK: &str = "INSERT INTO task VALUES \
     (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25)";
const UPDATE_TASK: &str = "UPDATE task SET tail=?2, queue=?3, lane=?4, status=?5, priority=?6, flags=?7, series=?8, \
     attempts=?9, attempts_total=?10, interruptions=?11, epoch=?12, lease=?13, lease_until=?14, due=?15, \
     expires_at=?16, give_up_at=?17, first_dispatched_at=?18, submitted_at=?19, changed_at=?20, last_class=?21, \
     last_http_status=?22, dead_reason=?23, payload_bytes=?24, checksum=?25 WHERE id=?1";
const UPDATE_TASK_AT_EPOCH: &str = "UPDATE task SET tail=?2, queue=?3, lane=?4, status=?5, priority=?6, flags=?7, \
     series=?8, attempts=?9, attempts_total=?10, interruptions=?11, epoch=?12, lease=?13, lease_until=?14, due=?15, \
     expires_at=?16, give_up_at=?17, first_dispatched_at=?18, submitted_at=?19, changed_at=?20, last_class=?21, \
     last_http_status=?22, dead_reason=?23, payload_bytes=?24, checksum=?25 WHERE id=?1 AND epoch=?26";

/// Runs all changes in one transaction; on a fault nothing of them remains.
pub(super) fn run(conn: &Connection, names: &Names, changes: &[Change]) -> Result<(), WriteFault> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let writing = Writing { conn, names };
    let applied = changes.iter().try_for_each(|change| writing.apply(&change.0));
    let ended = applied.and_then(|()| Ok(conn.prepare_cached("COMMIT")?.execute([]).map(drop)?));
    if ended.is_err() && !conn.is_autocommit() {
        // Without a rollback it is not known what happened, whatever the first fault was.
        conn.execute_batch("ROLLBACK").map_err(WriteFault::Unknown)?;
    }
    ended
}

struct Writing<'a> {
    conn: &'a Connection,
    names: &'a Names,
}

impl Writing<'_> {
    fn apply(&self, change: &ChangeKind) -> Result<(), WriteFault> {
        match change {
            ChangeKind::Name { kind, id, text } => {
                self.names.learn(*kind, *id, text);
                let code = kind_code(*kind);
                let checksum = record::name_checksum(code, i64::from(id.0), text.as_bytes());
                let row = (code, id.0, text.as_ref(), checksum);
                self.execute("INSERT OR REPLACE INTO name VALUES (?1, ?2, ?3, ?4)", row)
            }
            ChangeKind::Insert { header, body } => self.insert(header, body),
            ChangeKind::Unique(record) => Ok(unique::put(self.conn, record)?),
            ChangeKind::Move { header, was, epoch, attempt } => {
                self.advance(header, *was, *epoch)?;
                attempt.as_ref().map_or(Ok(()), |attempt| self.append(header.key, attempt))
            }
            ChangeKind::Remove { key, epoch } => self.remove(*key, *epoch),
            ChangeKind::Pause { queue, paused } => {
                let checksum = record::pause_checksum(i64::from(queue.0), i64::from(*paused));
                self.execute("INSERT OR REPLACE INTO queue VALUES (?1, ?2, ?3)", (queue.0, paused, checksum))
            }
            ChangeKind::Forget { now, limit } => self.execute(
                "DELETE FROM unique_key WHERE (kind, hash) IN \
                 (SELECT kind, hash FROM unique_key WHERE until <= ?1 ORDER BY until LIMIT ?2)",
                (now.get(), limit),
            ),
            ChangeKind::KeyCreated(record) => Ok(api_key::insert(self.conn, record)?),
            ChangeKind::KeyUsed(record) => Ok(api_key::update(self.conn, record)?),
            ChangeKind::KeyRevoked(id) => self.execute("DELETE FROM api_key WHERE id = ?1", [id.as_ref()]),
            ChangeKind::CredentialPut(credential) => Ok(credential::put(self.conn, credential)?),
            ChangeKind::CredentialRemoved(name) => {
                self.execute("DELETE FROM credential WHERE name = ?1", [name.as_str()])
            }
        }
    }

    fn execute(&self, sql: &str, row: impl rusqlite::Params) -> Result<(), WriteFault> {
        self.conn.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn insert(&self, header: &Header, body: &Body) -> Result<(), WriteFault> {
        let id = header.key.to_i64();
        let mut statement = self.conn.prepare_cached(INSERT_TASK)?;
        bind_header(&mut statement, id, &record::header_cells(header))?;
        statement.raw_execute()?;
        if header.status.has_ended() {
            self.place_ended(header)?;
        }
        let cells = record::body_cells(id, body);
        let name = body.name.as_ref().map(TaskName::as_str);
        let row =
            (id, body.task_type.as_str(), name, cells.idempotency, cells.meta, body.payload.as_ref(), cells.checksum);
        self.execute("INSERT INTO payload VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", row)
    }

    /// A task moves on, if it is where the engine believes it to be.
    fn advance(&self, new: &Header, was: Status, expected: u32) -> Result<(), WriteFault> {
        if was.has_ended() {
            // Its place among the ended is under the moment it ended, which only the old row knows.
            let old = self.current(new.key, expected)?;
            self.unplace_ended(&old)?;
        }
        let (id, cells) = (new.key.to_i64(), record::header_cells(new));
        let mut statement = self.conn.prepare_cached(UPDATE_TASK_AT_EPOCH)?;
        bind_header(&mut statement, id, &cells)?;
        statement.raw_bind_parameter(record::CELLS + 3, expected)?;
        if statement.raw_execute()? == 0 {
            // A damaged epoch is read as what is left of it, and its task must be able to end.
            self.current(new.key, expected)?;
            let mut statement = self.conn.prepare_cached(UPDATE_TASK)?;
            bind_header(&mut statement, id, &cells)?;
            statement.raw_execute()?;
        }
        if new.status.has_ended() { self.place_ended(new) } else { Ok(()) }
    }

    /// The header as stored, if it is at the epoch expected.
    fn current(&self, key: TaskKey, expected: u32) -> Result<Header, WriteFault> {
        let found = read::header(self.conn, key)?.map(|(header, _)| header);
        found.filter(|header| header.epoch == expected).ok_or(WriteFault::Fenced { key, expected })
    }

    fn place_ended(&self, header: &Header) -> Result<(), WriteFault> {
        self.execute("INSERT OR IGNORE INTO finished VALUES (?1, ?2, ?3, ?4)", place(header))
    }

    fn unplace_ended(&self, header: &Header) -> Result<(), WriteFault> {
        let sql = "DELETE FROM finished WHERE queue = ?1 AND status = ?2 AND finished_at = ?3 AND id = ?4";
        self.execute(sql, place(header))
    }

    /// Appends an attempt; beyond the first and the last few, the oldest of the last few makes room.
    fn append(&self, key: TaskKey, attempt: &Attempt) -> Result<(), WriteFault> {
        let (id, cells) = (key.to_i64(), record::attempt_cells(attempt));
        let error = attempt.error.as_deref();
        let checksum = record::attempt_checksum(id, &cells, error.map(str::as_bytes), &attempt.response_head);
        let mut statement =
            self.conn.prepare_cached("INSERT OR REPLACE INTO attempt VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)")?;
        statement.raw_bind_parameter(1, id)?;
        for (index, cell) in cells.iter().enumerate() {
            statement.raw_bind_parameter(index + 2, cell)?;
        }
        statement.raw_bind_parameter(cells.len() + 2, error)?;
        statement.raw_bind_parameter(cells.len() + 3, attempt.response_head.as_ref())?;
        statement.raw_bind_parameter(cells.len() + 4, checksum)?;
        statement.raw_execute()?;
        if attempt.ordinal <= ATTEMPTS_KEPT_FIRST + ATTEMPTS_KEPT_LAST {
            return Ok(());
        }
        self.execute("DELETE FROM attempt WHERE id = ?1 AND n = ?2", (id, attempt.ordinal - ATTEMPTS_KEPT_LAST))
    }

    fn remove(&self, key: TaskKey, expected: u32) -> Result<(), WriteFault> {
        let header = self.current(key, expected)?;
        let id = key.to_i64();
        self.free_keys(id, header.status)?;
        self.unplace_ended(&header)?;
        self.execute("DELETE FROM attempt WHERE id = ?1", [id])?;
        self.execute("DELETE FROM payload WHERE id = ?1", [id])?;
        self.execute("DELETE FROM task WHERE id = ?1", [id])
    }

    /// Frees a task's own name; its idempotency key stays and learns how the task ended. Both only while they stand
    /// for this very task.
    fn free_keys(&self, id: i64, ended: Status) -> Result<(), WriteFault> {
        let mut statement = self.conn.prepare_cached("SELECT name, idempotency FROM payload WHERE id = ?1")?;
        let keys = statement.query_row([id], |row| {
            let name = match row.get_ref(0)? {
                ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| TaskName::parse(text).ok()),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
            };
            let idempotency = row.get_ref(1)?.as_blob_or_null().unwrap_or_default().map(<[u8]>::to_vec);
            Ok((name, idempotency))
        });
        let Some((name, idempotency)) = keys.optional()? else { return Ok(()) };
        if let Some(name) = name {
            let row = (unique::kind_code(UniqueKind::TaskName), task_name_hash(&name).to_be_bytes(), id);
            self.execute("DELETE FROM unique_key WHERE kind = ?1 AND hash = ?2 AND first = ?3", row)?;
        }
        let Some(hash) = idempotency else { return Ok(()) };
        let Ok(hash) = <[u8; 16]>::try_from(hash) else { return Ok(()) };
        let key = UniqueId { kind: UniqueKind::Idempotency, hash: u128::from_be_bytes(hash) };
        Ok(unique::note_ended(self.conn, key, id, ended)?)
    }
}

fn place(header: &Header) -> (u32, i64, i64, i64) {
    let NameId(queue) = header.queue;
    (queue, record::status_code(header.status), header.changed_at.get(), header.key.to_i64())
}

fn bind_header(statement: &mut CachedStatement<'_>, id: i64, cells: &HeaderCells) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, id)?;
    for (index, cell) in cells.iter().enumerate() {
        statement.raw_bind_parameter(index + 2, cell as &dyn ToSql)?;
    }
    statement.raw_bind_parameter(record::CELLS + 2, record::header_checksum(id, cells))
}
