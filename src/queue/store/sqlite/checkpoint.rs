//! The thread that writes the log back into the database file, and looks after the ballast.

use std::sync::Arc;

use rusqlite::Connection;

use super::Shared;
use super::fault::{is_busy, is_full};
use super::schema::{Checkpoint, checkpoint};

/// The thread's body.
///
/// A failed sync is never tried again: what the failed one left in the page cache counts as written from then on. So
/// the store fails as a whole; only a full disk and a lock held by others are worth another try.
pub(super) fn run(conn: &Connection, shared: &Arc<Shared>) {
    // A missing ballast is tried again every second.
    while let Some(ticket) = shared.requests.next(!shared.disk.has_ballast()) {
        if shared.requests.is_open(ticket) {
            match checkpoint(conn, Checkpoint::Passive) {
                Err(error) if !is_full(&error) && !is_busy(&error) => {
                    shared.failure.note(format!("a checkpoint failed: {error}"));
                    shared.requests.stop();
                }
                Ok(_) | Err(_) => shared.requests.finish(ticket),
            }
        }
        shared.disk.make_ballast();
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;
    use crate::queue::store::Store;
    use crate::queue::store::sqlite::{SqliteOptions, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn a_stop_is_not_clean_when_the_last_checkpoint_fails_while_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(Clock::system());
        let store = SqliteStore::open(dir.path(), options.clone()).unwrap();
        let shared = Arc::clone(&store.shared);
        let failing = std::thread::spawn(move || {
            assert_eq!(shared.requests.next(false), None, "nothing is asked for but the end");
            shared.failure.note(String::from("a checkpoint failed: disk I/O error"));
        });
        let ending = store.checkpointer.lock().unwrap().replace(failing);
        let closed = store.close().await;
        assert!(closed.is_err_and(|error| format!("{error:?}").contains("a checkpoint failed")));
        ending.unwrap().join().unwrap();
        let again = SqliteStore::open(dir.path(), options).unwrap();
        assert!(!again.recover(&mut |_| {}).unwrap().clean, "the next start knows of it");
    }
}
