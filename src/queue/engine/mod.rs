//! The engine: the single owner of all queue state. Take what has piled up, gather, decide, commit, act.
//!
//! [`Machine`] is one turn of it, without channels or clocks of its own: the loop in [`shell`] drives it in the server,
//! the simulation drives it from a seed.

mod accept;
mod act;
mod configure;
#[cfg(test)]
mod configure_tests;
mod core;
mod draft;
#[cfg(test)]
mod no_credential_tests;
mod queue_state;
mod recent;
mod reckon;
#[cfg(test)]
mod reckon_tests;
mod recover;
mod retention;
mod settle;
pub mod shell;
#[cfg(test)]
mod shell_tests;
mod start;
mod step;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Chance, Clock, Now};
use crate::config::Config;
use crate::logging::event::{ClockTrusted, Event, Interrupted, PressureEased, Recovered, StorePressure, WallJump};
use crate::scheduler::Pick;
use crate::task::limits::{CHUNK_TASKS_MAX, COMMIT_STARTS_MAX};
use crate::task::{QueueName, TaskKey};

use super::command::{QueueView, Request};
use super::lease::Settlement;
use super::store::{Change, CommitError, Pressure, Store, StoreError};
use core::{Core, Turn};
use draft::Draft;
use recent::Recent;
use recover::Recovering;

pub use step::{Step, Ticket};

/// What has piled up since the last turn.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Requests; their places are their tickets.
    pub requests: Vec<Request>,
    /// Attempts that have ended.
    pub settlements: Vec<Settlement>,
}

impl Inputs {
    /// Whether nothing has piled up.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.settlements.is_empty()
    }
}

/// Why the engine stops by itself.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A commit failed, or may have: nothing may be acknowledged any more.
    #[error("a commit failed, or may have; nothing is acknowledged any more")]
    Commit(#[source] CommitError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Read(#[source] StoreError),
    /// The stop came to nothing at its very end: what was committed is on the disk, the rest of the order is not.
    #[error("the store could not be closed in order")]
    Close(#[source] StoreError),
    /// A fault of ours.
    #[error("the engine panicked: {0}")]
    Panicked(String),
}

/// The engine's state and its store: one turn at a time.
pub struct Machine {
    core: Core,
    store: Arc<dyn Store>,
    chance: Chance,
    recent: Recent,
    forget_at: Duration,
    sweep_at: Duration,
    /// Whether the last turn left bulk work behind, so that the next should not wait.
    unfinished: bool,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("core", &self.core).finish_non_exhaustive()
    }
}

/// How often forgotten keys are looked for, and retention looked at when nothing is over its bounds.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Unique keys forgotten in one commit.
const FORGET_MAX: u32 = 50_000;

impl Machine {
    /// Opens: rebuilds the index, closes the attempts of the dead process, commits that, and is ready for a first turn.
    pub async fn open(
        store: Arc<dyn Store>,
        config: &Config,
        clock: &Clock,
        mut chance: Chance,
    ) -> Result<(Self, Vec<Event>), Fatal> {
        let now = clock.now();
        let mut recovering = Recovering::new(config, now);
        let recovery = store.recover(&mut |recovered| recovering.take(recovered)).map_err(Fatal::Read)?;
        let took = clock.now().mono.saturating_sub(now.mono);
        let open = std::mem::take(&mut recovering.open);
        let attempts = open.len() as u64 - recovering.damaged;
        let (tasks, damaged) = (recovering.tasks, recovering.damaged + recovering.beside);
        let placeholders = std::mem::take(&mut recovering.placeholders);
        let (jumped, removals_from) = (recovering.seen.jumped(now), now.mono + recovering.seen.removals_wait(now));
        let (mut core, mut changes) = recovering.finish();
        while !changes.is_empty() {
            let later = changes.split_off(changes.len().min(CHUNK_TASKS_MAX as usize));
            store.commit(std::mem::replace(&mut changes, later)).await.map_err(Fatal::Commit)?;
        }
        let mut events = vec![Recovered { tasks, damaged, clean: recovery.clean, took }.into()];
        if let Some(by_ms) = jumped {
            core.scheduler.distrust(now);
            events.push(WallJump { by_ms }.into());
        }
        if attempts > 0 {
            events.push(Interrupted { attempts }.into());
        }
        for keys in open.chunks(CHUNK_TASKS_MAX as usize) {
            let rows = store.rows(keys.to_vec()).await.map_err(Fatal::Read)?;
            let (mut draft, mut step) = (Draft::default(), Step::default());
            let mut turn = Turn { now, chance: &mut chance, draft: &mut draft, step: &mut step };
            for row in rows.into_iter().flatten() {
                let nameless = recover::nameless(&placeholders, &row.header);
                core.close_left_open(&mut turn, row, nameless);
            }
            store.commit(step.changes).await.map_err(Fatal::Commit)?;
            events.extend(step.events);
        }
        if !placeholders.is_empty() {
            store.commit(Recovering::placeholder_names(&placeholders)).await.map_err(Fatal::Commit)?;
        }
        core.pressure = store.pressure();
        Ok((
            Self {
                core,
                store,
                chance,
                recent: Recent::default(),
                forget_at: removals_from,
                sweep_at: removals_from,
                unfinished: false,
            },
            events,
        ))
    }

    /// Decides on what has piled up, on what has come due, and on what may start. Nothing of the step may leave before
    /// [`Machine::commit`] has returned.
    pub async fn decide(&mut self, now: Now, inputs: Inputs) -> Result<Step, Fatal> {
        let (mut draft, mut step) = (Draft::default(), Step::default());
        self.unfinished = false;
        self.look(now, &mut step);
        self.gather_for(&inputs, &mut draft).await?;
        // First, while what the store shows is what the counts say.
        self.retain(now, &mut draft, &mut step).await?;
        let mut turn = Turn { now, chance: &mut self.chance, draft: &mut draft, step: &mut step };
        for settlement in inputs.settlements {
            self.core.settle(&mut turn, settlement);
        }
        for (ticket, request) in inputs.requests.into_iter().enumerate() {
            self.core.apply(&mut turn, ticket, request);
        }
        self.end_overdue(now, &mut draft, &mut step).await?;
        self.start(now, &mut draft, &mut step).await?;
        step.show(&draft);
        self.recent.learn(draft, now.wall);
        Ok(step)
    }

    /// Makes the step's changes durable.
    pub async fn commit(&mut self, step: &mut Step) -> Result<(), CommitError> {
        if step.changes.is_empty() {
            return Ok(());
        }
        // The batch is kept until it is known to be durable: a full disk is a rollback, and the same batch comes again.
        self.store.commit(step.changes.clone()).await?;
        step.changes.clear();
        Ok(())
    }

    /// When something may happen by itself, on the monotonic clock.
    pub fn next_look(&self, now: Now) -> Option<Duration> {
        if self.unfinished {
            Some(now.mono)
        } else if self.core.starting {
            self.core.scheduler.next_look(now)
        } else {
            // Whatever comes due will not start any more; expiry can wait for the next look at the clock.
            None
        }
    }

    /// Attempts that hold a slot.
    pub fn in_flight(&self) -> usize {
        self.core.running.len() + self.core.aborting.len()
    }

    /// From now on no attempt starts.
    pub fn stop_starting(&mut self) {
        self.core.starting = false;
    }

    /// How one queue stands, or all.
    pub fn views(&self, queue: Option<&QueueName>) -> Vec<QueueView> {
        self.core.views(queue)
    }

    /// How full the disk is.
    pub fn pressure(&self) -> Pressure {
        self.store.pressure()
    }

    fn look(&mut self, now: Now, step: &mut Step) {
        let trusted_before = self.core.scheduler.clock_trusted();
        if let Some(by_ms) = self.core.scheduler.look(now).jumped {
            step.events.push(WallJump { by_ms }.into());
        } else if !trusted_before && self.core.scheduler.clock_trusted() {
            step.events.push(ClockTrusted.into());
        }
        let pressure = self.store.pressure();
        if (pressure == Pressure::Normal) != (self.core.pressure == Pressure::Normal) {
            step.events.push(match pressure {
                Pressure::Normal => PressureEased.into(),
                Pressure::BelowReserve { free, reserve } => {
                    StorePressure { free_bytes: free, reserve_bytes: reserve }.into()
                }
            });
        }
        self.core.pressure = pressure;
    }

    async fn gather_for(&self, inputs: &Inputs, draft: &mut Draft) -> Result<(), Fatal> {
        let (mut refs, mut unique) = (Vec::new(), Vec::new());
        for request in &inputs.requests {
            Core::needs(request, &mut refs, &mut unique);
        }
        if !refs.is_empty() || !unique.is_empty() {
            let found = self.store.gather(refs.clone(), unique.clone()).await.map_err(Fatal::Read)?;
            draft.absorb(&refs, &unique, found);
        }
        Ok(())
    }

    async fn end_overdue(&mut self, now: Now, draft: &mut Draft, step: &mut Step) -> Result<(), Fatal> {
        let overdue = self.core.scheduler.overdue(now, CHUNK_TASKS_MAX as usize);
        self.unfinished |= overdue.len() == CHUNK_TASKS_MAX as usize;
        self.gather_keys(overdue.iter().copied(), draft).await?;
        let mut turn = Turn { now, chance: &mut self.chance, draft, step };
        for key in overdue {
            if let Some(row) = turn.draft.row(key).cloned() {
                self.core.end_overdue(&mut turn, row);
            }
        }
        Ok(())
    }

    async fn retain(&mut self, now: Now, draft: &mut Draft, step: &mut Step) -> Result<(), Fatal> {
        if now.mono >= self.sweep_at {
            match self.core.retention_due(now.wall) {
                Some(look) => {
                    let rows = self.store.oldest_ended(look.clone()).await.map_err(Fatal::Read)?;
                    let mut turn = Turn { now, chance: &mut self.chance, draft, step };
                    self.unfinished |= self.core.sweep(&mut turn, &look, rows);
                }
                None => self.sweep_at = now.mono.saturating_add(SWEEP_EVERY),
            }
        }
        if now.mono >= self.forget_at && self.core.scheduler.clock_trusted() {
            self.forget_at = now.mono.saturating_add(FORGET_EVERY);
            step.changes.push(Change::forget(now.wall, FORGET_MAX));
        }
        Ok(())
    }

    async fn start(&mut self, now: Now, draft: &mut Draft, step: &mut Step) -> Result<(), Fatal> {
        let mut picks: Vec<Pick> = Vec::new();
        let turn = Turn { now, chance: &mut self.chance, draft, step };
        while picks.len() < COMMIT_STARTS_MAX
            && let Some(pick) = self.core.pick(&turn)
        {
            picks.push(pick);
        }
        self.unfinished |= picks.len() == COMMIT_STARTS_MAX;
        self.gather_keys(picks.iter().map(|pick| pick.key), draft).await?;
        let mut turn = Turn { now, chance: &mut self.chance, draft, step };
        for pick in picks {
            self.core.start(&mut turn, &pick);
        }
        Ok(())
    }

    async fn gather_keys(&mut self, keys: impl Iterator<Item = TaskKey>, draft: &mut Draft) -> Result<(), Fatal> {
        let mut missing: Vec<TaskKey> = keys.filter(|key| !draft.knows(*key)).collect();
        missing.retain(|key| {
            let Some(row) = self.recent.take(*key) else { return true };
            draft.put(row);
            false
        });
        if missing.is_empty() {
            return Ok(());
        }
        let rows = self.store.rows(missing.clone()).await.map_err(Fatal::Read)?;
        draft.absorb_rows(&missing, rows);
        Ok(())
    }
}
