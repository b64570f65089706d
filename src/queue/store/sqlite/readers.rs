//! The connections that read: each lent to one read at a time, none left when the store is closed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sync::{Mutex, PoisonError};

/// A few connections, and who may take one.
pub(super) struct Readers<C> {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<C>>,
}

/// A connection on loan. Given back when dropped, however the read ended.
pub(super) struct Lent<C> {
    readers: Arc<Readers<C>>,
    conn: Option<C>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Readers<C> {
    /// All connections there are.
    pub(super) fn new(idle: Vec<C>) -> Self {
        Self { permits: Arc::new(Semaphore::new(idle.len())), idle: Mutex::new(idle) }
    }

    /// Lends a connection when one is free. `None` when closed.
    pub(super) async fn lend(self: Arc<Self>) -> Option<Lent<C>> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let conn = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Lent { readers: self, conn: Some(conn), _permit: permit })
    }

    /// Waits for the reads under way, lets the connections go, and refuses every read from then on. False when that was
    /// done before.
    pub(super) async fn close(&self, all: u32) -> bool {
        let Ok(waited) = self.permits.acquire_many(all).await else { return false };
        self.permits.close();
        drop(waited);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        true
    }
}

impl<C> Lent<C> {
    /// The connection.
    pub(super) fn conn(&self) -> Option<&C> {
        self.conn.as_ref()
    }
}

impl<C> Drop for Lent<C> {
    fn drop(&mut self) {
        // Before the permit goes: whoever gets that finds a connection.
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.conn.take());
    }
}
