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
