//! The tables, and how a connection to them is set up. Readable with any `sqlite3`.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::queue::store::StoreError;
use crate::sabotage::{Sin, commits};

use super::fault::read_error;

/// The format of tables and encodings. Whatever changes either changes this number.
pub(super) const FORMAT: i64 = 3;
/// The format before, of which this one is an extension: a store of it is taken over as it is, and older servers, which
/// would take what is new for damage, then refuse it.
const FORMAT_BEFORE: i64 = 2;

/// How long a statement waits for a lock. Nobody of ours ever holds one against another: this is for people who look
/// in with `sqlite3`.
const BUSY_WAIT: Duration = Duration::from_secs(30);
/// Prepared statements kept per connection; there are fewer than this.
const STATEMENTS_CACHED: usize = 64;
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Page cache of each other connection, in KiB.
const READER_CACHE_KIB: i64 = 4 * 1024;

/// Live tasks are indexed in memory only: beside its rows, a task costs one entry of `finished` once it has ended.
/// `task_dead` holds dead letters alone, so that a few of them are found among millions of others.
const TABLES: &str = "
    CREATE TABLE task (
        id INTEGER PRIMARY KEY, tail, queue, lane, status, priority, flags, series, attempts, attempts_total,
        interruptions, epoch, lease, lease_until, due, expires_at, give_up_at, first_dispatched_at, submitted_at,
        changed_at, last_class, last_http_status, dead_reason, payload_bytes, checksum);
    CREATE INDEX task_dead ON task (status) WHERE status = 5;
    CREATE TABLE payload (id INTEGER PRIMARY KEY, type, name, idempotency, meta, body, checksum);
    CREATE TABLE attempt (
        id, n, series, number, started_at, took_ms, class, http_status, error, head, checksum,
        PRIMARY KEY (id, n)) WITHOUT ROWID;
    CREATE TABLE finished (
        queue, status, finished_at, id, PRIMARY KEY (queue, status, finished_at, id)) WITHOUT ROWID;
    CREATE TABLE unique_key (
        kind, hash, first, count, tail, until, digest, ended, checksum, PRIMARY KEY (kind, hash)) WITHOUT ROWID;
    CREATE INDEX unique_key_until ON unique_key (until) WHERE until IS NOT NULL;
    CREATE TABLE name (kind, id, text, checksum, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE queue (id INTEGER PRIMARY KEY, paused, checksum);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
";

/// Came later than the other tables: made where it is missing.
const KEY_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS api_key (
        id TEXT PRIMARY KEY, name, digest, scopes, created_at, expires_at, last_used_at, checksum) WITHOUT ROWID;
";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The only one that writes.
    Writer,
    /// Writes the log back.
    Checkpointer,
    /// Reads.
    Reader,
}

/// Opens a connection and sets it up for its role. The file must exist.
pub(super) fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // The log is written back when we say so: never as a side effect of closing after a failed sync.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Before the first page is written, or it has no effect; later it would write to the log, which connecting must not:
    // the directory is not known to be synced yet.
    if role == Role::Writer && conn.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))? == 0 {
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    let synchronous = if commits(Sin::SynchronousNormal) { "NORMAL" } else { "FULL" };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    let cache_kib = if role == Role::Writer { WRITER_CACHE_KIB } else { READER_CACHE_KIB };
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "query_only", role == Role::Reader)?;
    Ok(conn)
}

/// Makes the tables if there are none, and checks the format if there are. Says whether they were made.
pub(super) fn prepare(conn: &Connection) -> Result<bool, StoreError> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(read_error)?;
    if tables == 0 {
        let script =
            format!("BEGIN IMMEDIATE; {TABLES} {KEY_TABLE} INSERT INTO meta VALUES ('format', {FORMAT}); COMMIT;");
        conn.execute_batch(&script).map_err(read_error)?;
        return Ok(true);
    }
    let found = meta(conn, "format").map_err(read_error)?.ok_or_else(|| StoreError::Corrupt {
        what: String::from("there is no format number: this is no store of sendoff"),
        place: String::from("table meta"),
    })?;
    if found == FORMAT_BEFORE {
        put_meta(conn, "format", FORMAT).map_err(read_error)?;
    } else if found != FORMAT {
        return Err(StoreError::Format { found, expected: FORMAT });
    }
    conn.execute_batch(KEY_TABLE).map_err(read_error)?;
    Ok(false)
}

/// Reads a number of the table `meta`; a missing table is a missing number.
pub(super) fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    let known = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    if conn.query_row(known, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Writes a number of the table `meta`, durably.
pub(super) fn put_meta(conn: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", (key, value)).map(drop)
}

/// How a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalFrames {
    /// Whether somebody else's lock kept it from doing all that it was to do: that is no error to SQLite.
    pub(super) busy: bool,
    /// Frames in the log.
    pub(super) logged: i64,
    /// Of these, frames that are in the database file too.
    pub(super) written_back: i64,
}

/// What a checkpoint may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Only tells how long the log is.
    Look,
    /// Writes back what it can without waiting for anybody.
    Passive,
    /// Writes everything back and empties the log.
    Truncate,
}

/// Runs a checkpoint.
pub(super) fn checkpoint(conn: &Connection, how: Checkpoint) -> rusqlite::Result<WalFrames> {
    let sql = match how {
        Checkpoint::Look => "PRAGMA wal_checkpoint(NOOP)",
        Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(WalFrames {
            busy: row.get::<_, i64>(0)? != 0,
            logged: row.get::<_, i64>(1)?.max(0),
            written_back: row.get(2)?,
        })
    })
}
