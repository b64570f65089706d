//! The worker pool: one future for each lease, each ended by a settlement.
//!
//! It holds no bound of its own: a lease exists only where the engine has found a free slot.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::attempt;
use super::handler::Handlers;
use crate::clock::Clock;
use crate::queue::lease::{Lease, Settlement};

/// The running pool.
#[derive(Debug)]
#[must_use = "await `ended`, or attempts are cut off without a settlement"]
pub struct Pool {
    feeder: JoinHandle<()>,
    running: TaskTracker,
}

impl Pool {
    /// Starts to run `leases` as they come. Every one of them is settled on `settles`, whatever happens to it; there is
    /// room there for all that run, so this does not wait.
    #[expect(clippy::disallowed_methods, reason = "the pool's own loop; `ended` waits for it")]
    pub fn start(
        handlers: Arc<Handlers>,
        clock: Clock,
        leases: mpsc::Receiver<Lease>,
        settles: mpsc::Sender<Settlement>,
    ) -> Self {
        let running = TaskTracker::new();
        let feeder = tokio::spawn(feed(Shared { handlers, clock, settles }, leases, running.clone()));
        Self { feeder, running }
    }

    /// Attempts running now.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Waits until no more leases can come (their sender is gone) and all attempts have settled. To end attempts
    /// sooner, cancel their leases' `abort`.
    pub async fn ended(self) {
        // The feeder neither panics nor is cancelled; if it were, the attempts it started are still waited for.
        drop(self.feeder.await);
        self.running.close();
        self.running.wait().await;
    }
}

#[derive(Clone)]
struct Shared {
    handlers: Arc<Handlers>,
    clock: Clock,
    settles: mpsc::Sender<Settlement>,
}

async fn feed(shared: Shared, mut leases: mpsc::Receiver<Lease>, running: TaskTracker) {
    while let Some(lease) = leases.recv().await {
        let shared = shared.clone();
        running.spawn(async move {
            let settlement = attempt::run(&shared.handlers, &shared.clock, lease).await;
            // Nobody takes settlements any more once the engine has stopped at an error: its store then still holds
            // the attempt as running, and the next start closes it.
            drop(shared.settles.send(settlement).await);
        });
    }
}
