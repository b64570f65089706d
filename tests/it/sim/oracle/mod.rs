//! The oracle: what clients, targets and the disk saw, one fact after the other, held against the promise.
//!
//! It knows what clients asked for, what targets answered and what commits wrote, and takes nothing of the engine's word
//! but its answers: how long a retry must wait, when a window is full and what may follow what is worked out here anew.

mod life;
mod limits;
#[cfg(test)]
mod tests;
mod times;

use std::collections::{BTreeMap, BTreeSet};

use sendoff::task::{RetryPolicy, Status, TaskKey, When};

pub(super) use limits::{Limits, QueueLimits};

use life::Seen;
use limits::Usage;
use times::Watch;

/// How long a due, unblocked task may wait once nothing disturbs, in milliseconds.
const PATIENCE: i64 = 60_000;
/// Turns without time moving, and idle turns within a second, above which the engine spins.
const TURNS_AT_ONCE_MAX: u32 = 100;
const IDLE_TURNS_MAX: u32 = 400;
/// A broken engine breaks many promises; the first ones tell.
const VIOLATIONS_KEPT: usize = 20;

/// A moment of the world, and what the server's wall clock shows in it; both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: i64,
    pub(super) wall: i64,
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) queue: String,
    pub(super) host: String,
    pub(super) when: When,
    pub(super) policy: RetryPolicy,
    pub(super) expires_at: Option<i64>,
    /// Whether a repeat is known by the task's own name, which is free again once its record was removed.
    pub(super) by_name: bool,
}

/// A task as a commit wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: TaskKey,
    /// Which wish of a client this is; `None`: nobody's.
    pub(super) ask: Option<u64>,
    pub(super) status: Status,
    pub(super) series: u32,
    pub(super) attempts: u32,
    pub(super) epoch: u32,
    /// From when on it may start, as a moment of the wall clock.
    pub(super) due: i64,
    /// Whether `due` was given as a moment (`run_at`), and so follows the wall clock.
    pub(super) on_wall: bool,
    pub(super) ahead: bool,
}

/// What a target made of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Done,
    /// It may be tried again, not before so many milliseconds.
    Retry(i64),
    Permanent,
    /// It was never sent.
    Released,
}

/// What clients do to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    Cancel,
    Run,
    Redrive,
    Purge,
}

/// Something that somebody saw.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    /// A process has opened the store, under these limits.
    Opened(Limits),
    /// It died.
    Crashed,
    /// What the store holds after a crash.
    Found(Vec<Record>),
    /// The engine looks at the clock.
    Turn,
    /// It found nothing to do.
    Idle,
    /// Other limits are in force.
    Limits(Limits),
    /// A queue was paused or resumed.
    Paused(String, bool),
    /// The disk made trouble.
    Trouble,
    /// A client asks, for the first time or again.
    Asked(u64, Box<Ask>),
    /// It was told no.
    Refused(u64),
    /// It was told yes.
    Acknowledged(u64, TaskKey),
    /// A client wishes something for a task.
    Wished(Wish, TaskKey),
    /// A commit wrote a task.
    Written(Record),
    /// A commit removed it.
    Removed(TaskKey),
    /// A target gets a request.
    Started(TaskKey, u32),
    /// What came of it was told to the engine.
    Settled(TaskKey, u32, Heard),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    asks: BTreeMap<u64, Ask>,
    refused: BTreeSet<u64>,
    acknowledged: BTreeMap<u64, TaskKey>,
    /// The tasks of each wish, and what the wall clock showed when it was accepted.
    accepted: BTreeMap<u64, (TaskKey, i64)>,
    wished: BTreeSet<(TaskKey, Wish)>,
    tasks: BTreeMap<TaskKey, Seen>,
    waiting: BTreeSet<TaskKey>,
    removed: BTreeSet<TaskKey>,
    /// Tasks that were found to wait too long: told once.
    forgotten: BTreeSet<TaskKey>,
    live: usize,
    /// Whether a process is just starting.
    opening: bool,
    usage: Usage,
    watch: Watch,
    turns_at_once: u32,
    idle: (i64, u32),
    looked_at: i64,
    violations: Vec<String>,
}

impl Oracle {
    /// Tasks that have not ended.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Takes in one fact.
    pub(super) fn hear(&mut self, now: Moment, fact: Fact) {
        match fact {
            Fact::Opened(limits) => self.opened(now, limits),
            Fact::Crashed => self.crashed(now),
            Fact::Found(records) => self.compare(&records),
            Fact::Turn => self.turn(now),
            Fact::Idle => self.idle(now),
            Fact::Limits(limits) => {
                self.usage.limit(now.at, limits);
                self.watch.disturbed(now);
            }
            Fact::Paused(queue, paused) => {
                self.usage.pause(&queue, paused);
                self.watch.disturbed(now);
            }
            Fact::Trouble => self.watch.disturbed(now),
            Fact::Asked(ask, asked) => {
                self.refused.remove(&ask);
                self.asks.insert(ask, *asked);
            }
            Fact::Refused(ask) => {
                self.refused.insert(ask);
            }
            Fact::Acknowledged(ask, key) => self.acknowledged(ask, key),
            Fact::Wished(wish, key) => {
                self.wished.insert((key, wish));
            }
            Fact::Written(record) => self.written(now, record),
            Fact::Removed(key) => self.removed(key),
            Fact::Started(key, epoch) => self.started(now, key, epoch),
            Fact::Settled(key, epoch, heard) => self.settled(key, epoch, heard),
        }
    }

    /// The world has come to rest: what the store holds is held against what was promised.
    pub(super) fn finish(mut self, stored: &[Record]) -> Vec<String> {
        self.compare(stored);
        let waits: Vec<String> = (self.tasks.values())
            .filter(|seen| !seen.record.status.has_ended())
            .map(|seen| format!("{:?}: still {} in the end", seen.record.key, seen.record.status.as_str()))
            .collect();
        self.violated(waits);
        self.violations
    }

    fn violated(&mut self, violations: impl IntoIterator<Item = String>) {
        let room = VIOLATIONS_KEPT - self.violations.len();
        self.violations.extend(violations.into_iter().take(room));
    }

    fn opened(&mut self, now: Moment, limits: Limits) {
        self.opening = true;
        self.watch.opened(now, self.tasks.values().map(|seen| seen.wrote).max());
        self.usage.opened(now.at, limits);
        let waiting: Vec<TaskKey> = self.waiting.iter().copied().collect();
        for key in waiting {
            if let Some(seen) = self.tasks.get_mut(&key) {
                self.watch.wait_again(now, seen);
            }
        }
    }

    fn crashed(&mut self, now: Moment) {
        self.usage.crashed();
        self.watch.disturbed(now);
        for seen in self.tasks.values_mut() {
            seen.crashed(now);
        }
    }

    fn turn(&mut self, now: Moment) {
        self.opening = false;
        self.turns_at_once = if now.at == self.looked_at { self.turns_at_once + 1 } else { 0 };
        if self.turns_at_once == TURNS_AT_ONCE_MAX {
            self.violated([format!("spins: {TURNS_AT_ONCE_MAX} turns at {} without time moving", now.at)]);
        }
        self.usage.look(now.at);
        self.watch.look(now, &mut self.tasks);
        if self.looked_at / 5_000 != now.at / 5_000 {
            self.look_for_forgotten(now);
        }
        self.looked_at = now.at;
    }

    fn idle(&mut self, now: Moment) {
        let (since, turns) = self.idle;
        self.idle = if now.at - since < 1_000 { (since, turns + 1) } else { (now.at, 1) };
        if self.idle.1 == IDLE_TURNS_MAX {
            self.violated([format!("spins: {IDLE_TURNS_MAX} idle turns within a second of {}", now.at)]);
        }
    }

    /// Every due, unblocked task starts within a minute; every overdue one ends within one.
    fn look_for_forgotten(&mut self, now: Moment) {
        let calm = self.watch.calm_since();
        let mut found = Vec::new();
        let waiting = self.waiting.difference(&self.forgotten);
        for (key, seen) in waiting.filter_map(|key| Some((*key, self.tasks.get(key)?))) {
            let free = self.usage.free_since(&seen.queue, &seen.host);
            if let (Some(ripe), Some(free)) = (seen.ripe_since, free)
                && now.at - ripe.max(free).max(calm) > PATIENCE
            {
                found.push((key, format!("{key:?}: due since {ripe}, free since {free}, not started")));
            }
            let overdue = seen.expires_at.is_some_and(|at| now.wall - at > PATIENCE);
            if overdue && now.at - self.watch.trusted_since().max(calm) > PATIENCE {
                found.push((key, format!("{key:?}: expired a minute ago, still {}", seen.record.status.as_str())));
            }
        }
        self.forgotten.extend(found.iter().map(|(key, _)| *key));
        self.violated(found.into_iter().map(|(_, violation)| violation));
    }

    fn acknowledged(&mut self, ask: u64, key: TaskKey) {
        match self.acknowledged.insert(ask, key) {
            Some(before) if before != key && self.accepted.get(&ask).is_none_or(|(last, _)| *last != key) => {
                self.violated([format!("wish {ask}: acknowledged as {before:?} and as {key:?}")]);
            }
            _ => {}
        }
    }

    /// What is there is what was written last, and nothing that was acknowledged is missing.
    fn compare(&mut self, stored: &[Record]) {
        let stored: BTreeMap<TaskKey, &Record> = stored.iter().map(|record| (record.key, record)).collect();
        let mut found = Vec::new();
        for (ask, key) in self.acknowledged.iter().filter(|(_, key)| !self.removed.contains(*key)) {
            if stored.get(key).is_none_or(|record| record.ask != Some(*ask)) {
                found.push(format!("{key:?} (wish {ask}): acknowledged and lost"));
            }
        }
        for (key, seen) in &self.tasks {
            match stored.get(key) {
                None => found.push(format!("{key:?}: committed and lost")),
                Some(record) if **record != seen.record => {
                    found.push(format!("{key:?}: written as {:?}, found as {record:?}", seen.record));
                }
                Some(_) => {}
            }
        }
        for key in stored.keys().filter(|key| !self.tasks.contains_key(key)) {
            found.push(format!("{key:?}: invented: stored, but no commit wrote it"));
        }
        self.violated(found);
    }
}
