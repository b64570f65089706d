//! What the writer asks of the checkpointer, and how each waits for the other.

use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How often the checkpointer looks again, where it is to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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

    /// Waits for the next request, for a second at most where it is to `look_again`. `None` when stopped; a request already done means that only time has passed.
    pub(super) fn next(&self, look_again: bool) -> Option<u64> {
        let state = self.lock();
        let idle = |state: &mut State| state.asked == state.done && !state.stopped;
        let state = if look_again {
            let waited = self.changed.wait_timeout_while(state, LOOK_AGAIN, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
        };
        (!state.stopped).then_some(state.asked)
    }

    /// That request, and those before it, have been done.
    pub(super) fn finish(&self, ticket: u64) {
        self.lock().done = ticket;
        self.changed.notify_all();
    }

    /// Whether that request has not been done yet.
    pub(super) fn is_open(&self, ticket: u64) -> bool {
        self.lock().done < ticket
    }
}
