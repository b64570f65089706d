//! The store of a real server: SQLite in WAL mode, synced at every commit, one directory a process.
//!
//! One thread writes (`writer` → `commit`), one writes the log back (`checkpoint`), a few connections read on blocking
//! threads (`read`). Rows carry their own checksums (`record`), because SQLite's pages carry none.

mod api_key;
mod checkpoint;
mod commit;
mod disk;
mod fault;
mod files;
mod meta;
mod names;
mod read;
mod record;
mod recover;
mod schema;
mod writer;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::clock::Clock;
use crate::security::api_key::KeyRecord;
use crate::task::{TaskKey, TaskRef};

use super::{
    Change, CommitError, Damage, Gathered, Later, ListPage, ListQuery, OldestEnded, Pressure, Recovered, Recovery, Row,
    Store, StoreError, TaskRecord, UniqueId,
};
use checkpoint::Requests;
use disk::Disk;
use fault::{read_error, unavailable, unknown};
use files::{DirLock, Files};
use names::Names;
use read::Reading;
use schema::{Checkpoint, Role, connect};
use writer::{CLEAN, Command};

/// Commits handed over and not yet begun. The engine has one under way at a time; a caller with more waits.
const COMMITS_QUEUED_MAX: usize = 64;
/// Connections that read.
const READERS: usize = 3;

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
    failed: OnceLock<String>,
}

impl Shared {
    /// Why nothing may be committed any more.
    fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// From now on no commit is acknowledged. The first reason is kept.
    fn fail(&self, why: String) {
        self.failed.get_or_init(|| why);
    }
}

/// A [`Store`] in a directory. Dropped without [`Store::close`], it leaves what a crash leaves.
pub struct SqliteStore {
    shared: Arc<Shared>,
    files: Files,
    found: Recovery,
    readers: Arc<Readers>,
    open: Mutex<Option<Open>>,
}

/// What ends when the store is closed.
struct Open {
    commands: SyncSender<Command>,
    threads: Vec<JoinHandle<()>>,
    /// Released last: nobody else opens the directory before everything has ended.
    _lock: DirLock,
}

struct Readers {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
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
        let found = take_over(&conn)?;
        files.sync().map_err(io_error)?;

        let shared = Arc::new(Shared {
            names: Names::default(),
            disk: Disk::new(files.clone(), options.reserve, options.clock).map_err(io_error)?,
            requests: Requests::default(),
            failed: OnceLock::new(),
        });
        recover::load_names(&conn, &shared.names)?;
        shared.disk.make_ballast();
        let idle = (0..READERS).map(|_| connection(Role::Reader)).collect::<Result<_, _>>()?;
        let readers = Arc::new(Readers { permits: Arc::new(Semaphore::new(READERS)), idle: Mutex::new(idle) });
        let (commands, inbox) = sync_channel(COMMITS_QUEUED_MAX);
        let threads = start_threads(conn, connection(Role::Checkpointer)?, &shared, inbox).map_err(io_error)?;
        let open = Mutex::new(Some(Open { commands, threads, _lock: lock }));
        Ok(Self { shared, files, found, readers, open })
    }

    fn send(&self, command: Command) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = open.as_ref().map(|open| open.commands.clone());
        drop(open);
        commands.is_some_and(|commands| commands.send(command).is_ok())
    }

    /// Runs a read on a blocking thread, when a connection is free.
    fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Later<'_, Result<T, StoreError>> {
        let (readers, shared) = (Arc::clone(&self.readers), Arc::clone(&self.shared));
        Box::pin(async move {
            let closed = |_| unavailable("it is closed");
            // The permit goes with the work, which goes on even when nobody waits for it any more.
            let permit = Arc::clone(&readers.permits).acquire_owned().await.map_err(closed)?;
            let work = move || {
                let conn = readers.take().ok_or_else(|| unavailable("it is closed"))?;
                let answer = Reading::run(&conn, &shared.names, ask);
                readers.put(conn);
                drop(permit);
                answer
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
        })
    }
}

impl Readers {
    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, conn: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}

impl Store for SqliteStore {
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        let conn = connect(&self.files.database(), Role::Reader).map_err(read_error)?;
        recover::run(&conn, sink)?;
        Ok(self.found)
    }

    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        let (reply, done) = oneshot::channel();
        let sent = self.send(Command::Commit { changes, reply });
        Box::pin(async move {
            if !sent {
                return Err(unknown("it is closed"));
            }
            done.await.unwrap_or_else(|_gone| Err(unknown("the writing thread has gone")))
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

    fn pressure(&self) -> Pressure {
        self.shared.disk.pressure()
    }

    fn close(&self) -> Later<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // Reads under way end first, or they would keep the log from being emptied.
            let readers = u32::try_from(READERS).unwrap_or(u32::MAX);
            let waited = self.readers.permits.acquire_many(readers).await;
            let closed = |_| unavailable("it is closed already");
            drop(waited.map_err(closed)?);
            self.readers.permits.close();
            while self.readers.take().is_some() {}
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
            let open = open.ok_or_else(|| unavailable("it is closed already"))?;
            let requests = Arc::clone(&self.shared);
            let ended = tokio::task::spawn_blocking(move || {
                requests.requests.stop();
                let answer = open.close();
                open.join();
                answer
            });
            ended.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
        })
    }
}

impl Open {
    fn close(&self) -> Result<(), StoreError> {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).is_err() {
            return Err(unavailable("the writing thread has gone"));
        }
        done.blocking_recv().unwrap_or_else(|_gone| Err(unavailable("the writing thread has gone")))
    }

    fn join(self) {
        drop(self.commands);
        for thread in self.threads {
            // A thread that panicked has told so already.
            drop(thread.join());
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            self.shared.requests.stop();
            open.join();
        }
    }
}

/// Checks the tables (made if there are none), brings what a crash left into order, and takes the clean mark away.
fn take_over(conn: &Connection) -> Result<Recovery, StoreError> {
    let clean = schema::meta(conn, CLEAN).map_err(read_error)? == Some(1);
    // What is in the log may never have been synced by the process that died: written again, and synced. Whatever the mark
    // says: it is in the log too, and its own sync may be the one that failed. A log that is empty costs nothing.
    let done = schema::checkpoint(conn, Checkpoint::Truncate).map_err(read_error)?;
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
    inbox: Receiver<Command>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (for_writer, for_checkpointer) = (Arc::clone(shared), Arc::clone(shared));
    let writing =
        Builder::new().name(String::from("store-writer")).spawn(move || writer::run(writer, &for_writer, &inbox))?;
    let checkpointing = Builder::new()
        .name(String::from("store-checkpoint"))
        .spawn(move || checkpoint::run(&checkpointer, &for_checkpointer))?;
    Ok(vec![writing, checkpointing])
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
