//! The store of a real server: SQLite in WAL mode, synced at every commit, one directory a process.
//!
//! One thread writes (`writer` → `commit`), one writes the log back (`checkpoint`), a few connections read on blocking
//! threads (`read`). Rows carry their own checksums (`record`), because SQLite's pages carry none.

mod api_key;
mod checkpoint;
mod commit;
mod credential;
mod disk;
mod fault;
mod files;
mod line;
mod meta;
mod names;
mod read;
mod readers;
mod record;
mod recover;
mod requests;
mod schema;
mod sync;
mod unique;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use crate::clock::Clock;
use crate::sabotage::{Sin, commits};
use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::task::{TaskKey, TaskRef};

use super::{
    Change, CommitError, Damage, Gathered, Later, ListPage, ListQuery, OldestEnded, Pressure, Recovered, Recovery, Row,
    Store, StoreError, TaskRecord, UniqueId,
};
use disk::Disk;
use fault::{read_error, unavailable, unknown};
use files::{DirLock, Files};
use line::{Command, Failure, Line, line};
use names::Names;
use read::Reading;
use readers::Readers;
use requests::Requests;
use schema::{Checkpoint, Role, connect};
use sync::{Mutex, PoisonError, Receiver};
use writer::CLEAN;

/// Connections that read.
const READERS: u32 = 3;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Free space below which no new task is taken, in bytes. `None`: the smaller of 256 MiB and 5 % of the volume.
    /// Never below [`crate::task::limits::RESERVE_BYTES_MIN`].
    pub reserve: Option<u64>,
    /// How large the database file may grow, in bytes (rounded up to a page); a commit beyond it is [`CommitError::Full`].
    /// `None`: as large as the disk lets it.
    pub file_bytes_max: Option<u64>,
    /// Says how old a reading of the free space is.
    pub clock: Clock,
}

impl SqliteOptions {
    /// The default reserve, no bound on the file.
    pub fn new(clock: Clock) -> Self {
        Self { reserve: None, file_bytes_max: None, clock }
    }
}

/// What the threads of one store share.
struct Shared {
    names: Names,
    disk: Disk,
    requests: Requests,
    failure: Failure,
}

/// A [`Store`] in a directory. Dropped without [`Store::close`], it leaves what a crash leaves.
pub struct SqliteStore {
    shared: Arc<Shared>,
    files: Files,
    found: Recovery,
    readers: Arc<Readers<Connection>>,
    line: Line<Vec<Change>, Ending>,
    checkpointer: Mutex<Option<JoinHandle<()>>>,
}

/// What ends when the store is closed.
struct Ending {
    writer: JoinHandle<()>,
    /// Released last: nobody else opens the directory before everything has ended.
    _lock: DirLock,
}

impl SqliteStore {
    /// Opens the store in `dir`, made if it is not there, and starts its threads.
    ///
    /// Whatever the last process left in the log is written back and synced before this returns.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when a process has it open, [`StoreError::Format`] when it is of another format,
    /// [`StoreError::Corrupt`] when it is no store, [`StoreError::Unavailable`] when the disk says no or another program
    /// keeps reading the database.
    pub fn open(dir: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let io_error = |error: io::Error| StoreError::Unavailable(Box::new(error));
        let files = Files::of(dir);
        let lock = files.claim()?;
        let path = files.database();
        let connection = |role| connect(&path, role).map_err(read_error);
        let conn = connection(Role::Writer)?;
        if let Some(bytes) = options.file_bytes_max {
            bound_file(&conn, bytes).map_err(read_error)?;
        }
        // All files of a store that is not new are there by now. SQLite syncs the directory too when it first syncs the
        // log, and tells nobody when that fails: so it must have been done before.
        files.sync().map_err(io_error)?;
        let found = take_over(&conn)?;
        if found.created {
            // The log was made only now.
            files.sync().map_err(io_error)?;
        }

        let shared = Arc::new(Shared {
            names: Names::default(),
            disk: Disk::new(files.clone(), options.reserve, options.clock).map_err(io_error)?,
            requests: Requests::default(),
            failure: Failure::default(),
        });
        recover::load_names(&conn, &shared.names)?;
        shared.disk.make_ballast();
        let idle = (0..READERS).map(|_| connection(Role::Reader)).collect::<Result<_, _>>()?;
        let readers = Arc::new(Readers::new(idle));
        let (commands, inbox) = line();
        let (writer, checkpointer) =
            start_threads(conn, connection(Role::Checkpointer)?, &shared, inbox).map_err(io_error)?;
        let line = Line::new(commands, Ending { writer, _lock: lock });
        Ok(Self { shared, files, found, readers, line, checkpointer: Mutex::new(Some(checkpointer)) })
    }

    fn take_checkpointer(&self) -> Option<JoinHandle<()>> {
        self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a read on a blocking thread, when a connection is free.
    fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Later<'_, Result<T, StoreError>> {
        let (readers, shared) = (Arc::clone(&self.readers), Arc::clone(&self.shared));
        Box::pin(async move {
            // The loan goes with the work, which goes on even when nobody waits for it any more.
            let lent = readers.lend().await.ok_or_else(|| unavailable("it is closed"))?;
            let work = move || {
                let conn = lent.conn().ok_or_else(|| unavailable("it is closed"))?;
                Reading::run(conn, &shared.names, ask)
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
        })
    }
}

impl Store for SqliteStore {
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        let conn = connect(&self.files.database(), Role::Reader).map_err(read_error)?;
        recover::run(&conn, sink)?;
        Ok(self.found)
    }

    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        let answer = self.line.commit(changes);
        Box::pin(async move {
            let Some(answer) = answer else {
                return Err(unknown("it is closed"));
            };
            answer.await.unwrap_or_else(|_gone| Err(unknown("the writing thread has gone")))
        })
    }

    fn gather(&self, rows: Vec<TaskRef>, unique: Vec<UniqueId>) -> Later<'_, Result<Gathered, StoreError>> {
        self.read(move |reading| reading.gather(&rows, &unique))
    }

    fn rows(&self, keys: Vec<TaskKey>) -> Later<'_, Result<Vec<Option<Row>>, StoreError>> {
        self.read(move |reading| reading.rows(&keys))
    }

    fn record(&self, task: TaskRef) -> Later<'_, Result<Option<TaskRecord>, StoreError>> {
        self.read(move |reading| reading.record(&task))
    }

    fn list(&self, query: ListQuery) -> Later<'_, Result<ListPage, StoreError>> {
        self.read(move |reading| reading.list(&query))
    }

    fn oldest_ended(&self, query: OldestEnded) -> Later<'_, Result<Vec<Row>, StoreError>> {
        self.read(move |reading| reading.oldest_ended(&query))
    }

    fn api_keys(&self) -> Later<'_, Result<Vec<Result<KeyRecord, Damage>>, StoreError>> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method itself is of one lifetime, and this is for all"
        )]
        self.read(|reading| reading.api_keys())
    }

    fn credentials(&self) -> Later<'_, Result<Vec<Result<SealedCredential, Damage>>, StoreError>> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method itself is of one lifetime, and this is for all"
        )]
        self.read(|reading| reading.credentials())
    }

    fn pressure(&self) -> Pressure {
        self.shared.disk.pressure()
    }

    fn close(&self) -> Later<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // Reads under way end first, or they would keep the log from being emptied.
            if !self.readers.close(READERS).await {
                return Err(unavailable("it is closed already"));
            }
            let open = self.line.take().ok_or_else(|| unavailable("it is closed already"))?;
            let (shared, checkpointer) = (Arc::clone(&self.shared), self.take_checkpointer());
            let ended = tokio::task::spawn_blocking(move || {
                shared.requests.stop();
                // The checkpointer first: a stop is not clean when the last thing that it did has failed.
                checkpointer.into_iter().for_each(end);
                let gone = || Err(unavailable("the writing thread has gone"));
                let closed = open.close().and_then(|answer| answer.blocking_recv().ok());
                open.cut().join(None);
                closed.unwrap_or_else(gone)
            });
            ended.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
        })
    }
}

impl Ending {
    fn join(self, checkpointer: Option<JoinHandle<()>>) {
        end(self.writer);
        checkpointer.into_iter().for_each(end);
    }
}

fn end(thread: JoinHandle<()>) {
    // A thread that panicked has told so already.
    drop(thread.join());
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Some(open) = self.line.take() {
            self.shared.requests.stop();
            open.cut().join(self.take_checkpointer());
        }
    }
}

/// Checks the tables (made if there are none), brings what a crash left into order, and takes the clean mark away.
fn take_over(conn: &Connection) -> Result<Recovery, StoreError> {
    let clean = schema::meta(conn, CLEAN).map_err(read_error)? == Some(1);
    // What is in the log may never have been synced by the process that died: written again, and synced. Whatever the mark
    // says: it is in the log too, and its own sync may be the one that failed. A log that is empty costs nothing.
    let how = if commits(Sin::KeepLogAtStart) { Checkpoint::Look } else { Checkpoint::Truncate };
    let done = schema::checkpoint(conn, how).map_err(read_error)?;
    if done.busy {
        return Err(unavailable("another program reads the database, so that the log cannot be written back"));
    }
    let created = schema::prepare(conn)?;
    schema::put_meta(conn, CLEAN, 0).map_err(read_error)?;
    Ok(Recovery { clean: clean || created, created })
}

fn bound_file(conn: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page_bytes: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = bytes.div_ceil(u64::try_from(page_bytes).unwrap_or(1).max(1));
    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
}

fn start_threads(
    writer: Connection,
    checkpointer: Connection,
    shared: &Arc<Shared>,
    inbox: Receiver<Command<Vec<Change>>>,
) -> io::Result<(JoinHandle<()>, JoinHandle<()>)> {
    let (for_writer, for_checkpointer) = (Arc::clone(shared), Arc::clone(shared));
    let writing =
        Builder::new().name(String::from("store-writer")).spawn(move || writer::run(writer, &for_writer, &inbox))?;
    let checkpointing = Builder::new()
        .name(String::from("store-checkpoint"))
        .spawn(move || checkpoint::run(&checkpointer, &for_checkpointer))?;
    Ok((writing, checkpointing))
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("dir", &self.files.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;

    #[test]
    fn the_log_of_an_old_store_is_there_as_soon_as_a_connection_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, log) = (dir.path().join("sendoff.db"), dir.path().join("sendoff.db-wal"));
        std::fs::File::create(&path).unwrap();
        let conn = connect(&path, Role::Writer).unwrap();
        take_over(&conn).unwrap();
        schema::checkpoint(&conn, Checkpoint::Truncate).unwrap();
        drop(conn);
        std::fs::remove_file(&log).unwrap();
        let _conn = connect(&path, Role::Writer).unwrap();
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0, "there, so that its directory can be synced; and empty");
    }

    #[test]
    fn a_start_does_not_go_on_with_a_log_that_somebody_keeps_from_being_written_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sendoff.db");
        std::fs::File::create(&path).unwrap();
        let conn = connect(&path, Role::Writer).unwrap();
        schema::prepare(&conn).unwrap();
        conn.busy_timeout(std::time::Duration::ZERO).unwrap();
        let other = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        other.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
        let refused = take_over(&conn);
        assert!(matches!(&refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        let wal = std::fs::metadata(dir.path().join("sendoff.db-wal")).unwrap().len();
        assert!(wal > 0, "it is still there");
        other.execute_batch("COMMIT").unwrap();
        assert!(take_over(&conn).is_ok());
    }
}
