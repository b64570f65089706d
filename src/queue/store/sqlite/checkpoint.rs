//! The thread that writes the log back into the database file, and looks after the ballast.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::Shared;
use super::fault::{is_busy, is_full};
use super::schema::{Checkpoint, checkpoint};

/// How often a missing ballast is tried again.
const BALLAST_RETRY: Duration = Duration::from_secs(1);

/// What the writer asks of the checkpointer, and what has been done of it.
#[derive(Debug, Default)]
pub(super) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: u64,
    done: u64,
    stopped: bool,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a checkpoint, unless one is asked for already.
    pub(super) fn ask(&self) {
        let mut state = self.lock();
        if state.asked == state.done {
            state.asked += 1;
            self.changed.notify_all();
        }
    }

    /// Asks for a checkpoint of everything written so far, and waits for its end.
    pub(super) fn ask_and_wait(&self) {
        let mut state = self.lock();
        state.asked += 1;
        let ticket = state.asked;
        self.changed.notify_all();
        let waited = self.changed.wait_while(state, |state| state.done < ticket && !state.stopped);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the thread, and every wait for it.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits for the next request. `None` when stopped; a request already done means that only time has passed.
    fn next(&self, look_again: bool) -> Option<u64> {
        let state = self.lock();
        let idle = |state: &mut State| state.asked == state.done && !state.stopped;
        let state = if look_again {
            let waited = self.changed.wait_timeout_while(state, BALLAST_RETRY, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
        };
        (!state.stopped).then_some(state.asked)
    }

    fn finish(&self, ticket: u64) {
        self.lock().done = ticket;
        self.changed.notify_all();
    }

    fn is_open(&self, ticket: u64) -> bool {
        self.lock().done < ticket
    }
}

/// The thread's body.
///
/// A failed sync is never tried again: what the failed one left in the page cache counts as written from then on. So
/// the store fails as a whole; only a full disk and a lock held by others are worth another try.
pub(super) fn run(conn: &Connection, shared: &Arc<Shared>) {
    while let Some(ticket) = shared.requests.next(!shared.disk.has_ballast()) {
        if shared.requests.is_open(ticket) {
            match checkpoint(conn, Checkpoint::Passive) {
                Err(error) if !is_full(&error) && !is_busy(&error) => {
                    shared.fail(format!("a checkpoint failed: {error}"));
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
            shared.fail(String::from("a checkpoint failed: disk I/O error"));
        });
        let ending = std::mem::replace(&mut store.open.lock().unwrap().as_mut().unwrap().checkpointer, failing);
        let closed = store.close().await;
        assert!(closed.is_err_and(|error| format!("{error:?}").contains("a checkpoint failed")));
        ending.join().unwrap();
        let again = SqliteStore::open(dir.path(), options).unwrap();
        assert!(!again.recover(&mut |_| {}).unwrap().clean, "the next start knows of it");
    }
}
