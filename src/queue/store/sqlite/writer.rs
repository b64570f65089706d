//! The thread that owns the only writing connection: takes commits one by one, and answers after `COMMIT` returned.

use std::sync::Arc;

use rusqlite::Connection;

use crate::queue::store::{Change, CommitError, StoreError};

use super::Shared;
use super::commit;
use super::fault::{Reason, WriteFault, is_full, read_error};
use super::line::{Command, Work, serve};
use super::schema::{Checkpoint, checkpoint, put_meta};
use super::sync::Receiver;

/// Meta key: whether the store was closed.
pub(super) const CLEAN: &str = "clean";

/// Frames of the log not yet written back, from which on the checkpointer is asked to (4 KiB each).
const WAL_FRAMES_SOFT: i64 = 4 * 1024;
/// Frames of the log from which on the writer waits until it can begin again at its start (64 MiB).
const WAL_FRAMES_MAX: i64 = 16 * 1024;
/// Bytes of a frame: a page and its header.
const FRAME_BYTES: i64 = 4096 + 24;

/// Pages given back in one transaction.
const VACUUM_STEP_PAGES: i64 = 256;
/// Free pages that are kept for the next tasks, at least (8 MiB).
const FREE_PAGES_KEPT: i64 = 2 * 1024;
/// Free pages that are kept, as one of so many parts of the file.
const FREE_PAGES_KEPT_PARTS: i64 = 4;

/// The thread's body.
pub(super) fn run(conn: Connection, shared: &Arc<Shared>, commands: &Receiver<Command<Vec<Change>>>) {
    let mut writer = Writer { conn, shared, wal_frames: 0, wal_frames_max: WAL_FRAMES_MAX, freed: true };
    let closed = serve(&mut writer, &shared.failure, commands);
    if !closed {
        // Dropped without being closed: like a crash, but in good order.
        shared.requests.stop();
    }
}

struct Writer<'a> {
    conn: Connection,
    shared: &'a Arc<Shared>,
    /// Length of the log after the last commit.
    wal_frames: i64,
    /// When to wait for a checkpoint next: put up when somebody's long read keeps the log from beginning again.
    wal_frames_max: i64,
    /// Whether there may be pages to give back.
    freed: bool,
}

impl Work<Vec<Change>> for Writer<'_> {
    fn commit(&mut self, changes: &Vec<Change>) -> Result<(), CommitError> {
        let mut ended = commit::run(&self.conn, &self.shared.names, changes);
        if matches!(ended, Err(WriteFault::Full)) && self.shared.disk.drop_ballast() {
            ended = commit::run(&self.conn, &self.shared.names, changes);
        }
        match ended {
            Ok(()) => Ok(()),
            Err(WriteFault::Full) => {
                self.shared.disk.note_full();
                Err(CommitError::Full)
            }
            Err(WriteFault::Fenced { key, expected }) => Err(CommitError::Fenced { key, expected }),
            Err(WriteFault::Unknown(error)) => Err(CommitError::Unknown(Box::new(error))),
        }
    }

    fn after_commit(&mut self) {
        if self.shared.failure.why().is_some() {
            return;
        }
        self.freed = true;
        let Ok(wal) = checkpoint(&self.conn, Checkpoint::Look) else {
            self.shared.requests.ask();
            return;
        };
        // A log that is shorter than before has begun again.
        let begun = if wal.logged < self.wal_frames { 0 } else { self.wal_frames };
        let written = (wal.logged - begun).saturating_mul(FRAME_BYTES);
        self.wal_frames = wal.logged;
        self.shared.disk.note_written(u64::try_from(written).unwrap_or(0));
        if wal.logged < WAL_FRAMES_MAX {
            self.wal_frames_max = WAL_FRAMES_MAX;
        }
        if wal.logged >= self.wal_frames_max {
            self.shared.requests.ask_and_wait();
            self.wal_frames_max = wal.logged + WAL_FRAMES_MAX / 4;
        } else if wal.logged - wal.written_back >= WAL_FRAMES_SOFT {
            self.shared.requests.ask();
        }
    }

    fn has_idle_work(&self) -> bool {
        self.freed
    }

    /// Gives some free pages back to the file system, if there are many.
    fn idle(&mut self) {
        if self.shared.failure.why().is_some() {
            self.freed = false;
            return;
        }
        match self.vacuum_step() {
            Ok(more) => self.freed = more,
            // No space to make space: another time.
            Err(error) if is_full(&error) => self.freed = false,
            Err(error) => self.shared.failure.note(format!("an incremental vacuum failed: {error}")),
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        put_meta(&self.conn, CLEAN, 1).map_err(|error| {
            let why = Reason(format!("the clean stop could not be recorded: {error}"));
            StoreError::Unavailable(Box::new(why))
        })?;
        // The mark is synced in the log already; this only spares the next start some work.
        checkpoint(&self.conn, Checkpoint::Truncate).map(drop).map_err(read_error)
    }
}

impl Writer<'_> {
    fn vacuum_step(&self) -> rusqlite::Result<bool> {
        let number = |sql: &str| self.conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        let pages = number("PRAGMA page_count")?;
        let free = number("PRAGMA freelist_count")?;
        if free - VACUUM_STEP_PAGES < FREE_PAGES_KEPT.max(pages / FREE_PAGES_KEPT_PARTS) {
            return Ok(false);
        }
        self.conn.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})"))?;
        Ok(true)
    }
}
