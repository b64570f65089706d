//! What may start now, and what may not yet: pure policy, without async, I/O or a clock of its own.
//!
//! ```text
//!             insert                     look                       pick                 finish
//!   task ──┬─────────▶ waiting (due.rs) ──────▶ ready (lanes.rs) ─────────▶ running ───────────────▶ gone
//!          └───────────────── due already ────────▶ ▲               │
//!                                                             queue in line (queues.rs), its turn (turn.rs),
//!                                                             worker, queue and host slots (hosts.rs), and last a
//!                                                             token (rate_limit.rs)
//! ```
//!
//! The engine owns the one [`Scheduler`] and calls it in this order: [`Scheduler::look`] first in every step, so that a
//! jump of the wall clock is known before anything is written or put in with that `now`; then [`Scheduler::overdue`];
//! then [`Scheduler::pick`] until there is none; then [`Scheduler::next_look`] for how long to sleep.

mod due;
mod hosts;
mod lanes;
mod queues;
mod rate_limit;
mod turn;

use std::time::Duration;

use crate::clock::Now;
use crate::config::{HostsConfig, QueueConfig};
use crate::task::header::NameId;
use crate::task::{Header, LaneName, Priority, Span, Status, TaskKey, WallMs};

use due::{Deadline, Deadlines, Entry, Timers};
use hosts::{Hosts, Turned};
use lanes::{Level, Ready};
use queues::Queues;

/// A task that waits, as far as order and time need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The row key: the order of acceptance.
    pub key: TaskKey,
    /// Its queue.
    pub queue: NameId,
    /// Its lane in the queue: the target host, or the task type.
    pub lane: NameId,
    /// How urgent.
    pub priority: Priority,
    /// From when on it may start.
    pub due: WallMs,
    /// Whether `due` follows the wall clock (`run_at`) or the monotonic clock (delay, backoff).
    pub due_on_wall: bool,
    /// Put ahead of its queue: ready at once, before all that are not.
    pub ahead: bool,
    /// Whether it waits for another attempt rather than for its first.
    pub retrying: bool,
    /// When it ends if it has not started, on the wall clock.
    pub deadline: Option<WallMs>,
}

impl Waiting {
    /// What the record of a waiting task says. The deadline is the earlier of `expires_at` and `give_up_at`.
    pub fn of(header: &Header) -> Self {
        Self {
            key: header.key,
            queue: header.queue,
            lane: header.lane,
            priority: header.priority,
            due: header.due,
            due_on_wall: header.due_on_wall,
            ahead: header.ahead,
            retrying: header.status == Status::Retrying,
            deadline: header.expires_at.into_iter().chain(header.give_up_at).min(),
        }
    }

    fn level(&self) -> Level {
        if self.ahead { Level::Ahead } else { Level::Of(self.priority) }
    }

    fn ready(&self) -> Ready {
        Ready { due: self.due, key: self.key, deadline: Deadline::of(self.deadline) }
    }
}

/// A task that starts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub key: TaskKey,
    /// Its queue, to be told to [`Scheduler::finish`].
    pub queue: NameId,
    /// Its lane, to be told to [`Scheduler::finish`].
    pub lane: NameId,
}

/// The figures of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting for their first due time.
    pub scheduled: u64,
    /// Due, waiting for their turn; those that were retrying before are among them.
    pub queued: u64,
    /// Failed and waiting for their next due time.
    pub retrying: u64,
    /// Picked and not finished.
    pub running: u64,
    /// The earliest due time among the queued.
    pub oldest_ready: Option<WallMs>,
}

/// Why nothing of a queue starts now: the first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// The queue is paused.
    Paused,
    /// No task is due.
    NoneReady,
    /// `max_concurrent_dispatches` are running (or more, when it was lowered; or nobody has set the queue).
    Concurrency,
    /// The rate limit has no token.
    Rate {
        /// When there will be one, on the monotonic clock.
        until: Duration,
    },
    /// The hosts of all its ready tasks are at their caps.
    Hosts,
    /// All worker slots are taken.
    Workers,
}

/// What a look at the clock brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// How many tasks became due.
    pub promoted: u64,
    /// By how many milliseconds the wall clock jumped, negative for back; `None`: it did not.
    pub jumped: Option<i64>,
}

/// The order of all tasks that wait, and every limit on starting them.
#[derive(Debug)]
pub struct Scheduler {
    workers_max: u32,
    running: u32,
    queues: Queues,
    hosts: Hosts,
    timers: Timers,
    deadlines: Deadlines,
}

impl Scheduler {
    /// A scheduler without queues. `now` is where the clocks are taken to agree.
    pub fn new(workers_max: u32, hosts: HostsConfig, now: Now) -> Self {
        Self {
            workers_max,
            running: 0,
            queues: Queues::default(),
            hosts: Hosts::new(hosts),
            timers: Timers::new(now),
            deadlines: Deadlines::default(),
        }
    }

    /// Changes the number of worker slots; what runs goes on.
    pub fn set_workers(&mut self, max: u32) {
        self.workers_max = max;
    }

    /// Changes the caps of hosts; what runs goes on.
    pub fn set_hosts(&mut self, hosts: HostsConfig) {
        for (lane, turned) in self.hosts.set_config(hosts) {
            self.turn_lane(lane, turned);
        }
    }

    /// Says what a lane is called, which decides its cap: `https://h:443` is a host and has that of
    /// `hosts.overrides` or `hosts.defaults`; a task type is none and has no cap. Until then the default holds.
    pub fn name_lane(&mut self, lane: NameId, name: &LaneName) {
        if let Some(turned) = self.hosts.name(lane, name) {
            self.turn_lane(lane, turned);
        }
    }

    /// Creates a queue or changes it live: what runs goes on, tokens are kept as far as the new burst holds them, a
    /// new `priority_aging` holds for all that wait. A new queue's bucket is empty, as after a restart.
    pub fn set_queue(&mut self, queue: NameId, config: &QueueConfig, now: Now) {
        self.queues.set(queue, config, now.mono);
    }

    /// Pauses a queue or resumes it; what runs goes on. Tokens accrue meanwhile.
    pub fn set_paused(&mut self, queue: NameId, paused: bool) {
        self.queues.change(queue, |queue| queue.paused = paused);
    }

    /// The wall moment to write for a task that is due `delay` from now by the monotonic clock.
    pub fn due_after(&self, delay: Span, now: Now) -> WallMs {
        self.timers.due_after(delay, now)
    }

    /// Puts a task in: among the ready if it is due or put ahead, else to wait for its time. Twice the same is once.
    ///
    /// A `due` that is not on the wall is read under the current anchor, so it has to come from [`Self::due_after`]
    /// since the last jump; a task that goes back to its place was due, and stays so only if its `due` is not later
    /// than `due_after(0)`. A queue that was never set keeps the task and starts nothing.
    pub fn insert(&mut self, task: &Waiting, now: Now) {
        let added = if task.ahead || self.timers.is_due(task, now) {
            self.make_ready(task.queue, task.lane, task.level(), task.ready())
        } else {
            let added = self.timers.insert(task);
            self.queues.change(task.queue, |queue| *queue.waiting(task.retrying) += u64::from(added));
            added
        };
        if added {
            self.deadlines.insert(Deadline::of(task.deadline), task.key);
        }
    }

    /// Puts many tasks in at once, as at start: the same as inserting each, but sets are built whole from what was
    /// sorted. None of them may have been put in before.
    pub fn load(&mut self, mut tasks: Vec<Waiting>, now: Now) {
        tasks.sort_unstable_by_key(|task| (task.queue, task.lane, task.level(), task.due, task.key));
        tasks.dedup_by_key(|task| task.key);
        let mut deadlines: Vec<_> = tasks.iter().map(|task| (Deadline::of(task.deadline), task.key)).collect();
        deadlines.sort_unstable();
        self.deadlines.extend(deadlines);

        let (ready, waiting): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| task.ahead || self.timers.is_due(task, now));
        for run in ready.chunk_by(|a, b| (a.queue, a.lane, a.level()) == (b.queue, b.lane, b.level())) {
            let Some(first) = run.first() else { continue };
            let open = self.hosts.is_open(first.lane);
            self.hosts.wanted_by(first.lane, first.queue);
            self.queues.change(first.queue, |queue| {
                queue.ready.extend(first.lane, first.level(), run.iter().map(Waiting::ready), open);
            });
        }
        for run in waiting.chunk_by(|a, b| (a.queue, a.retrying) == (b.queue, b.retrying)) {
            let Some(first) = run.first() else { continue };
            self.queues.change(first.queue, |queue| *queue.waiting(first.retrying) += run.len() as u64);
        }
        let (on_wall, on_mono): (Vec<_>, Vec<_>) = waiting.iter().partition(|task| task.due_on_wall);
        self.timers.extend(entries(on_wall), entries(on_mono));
    }

    /// Takes a task out wherever it is, and its deadline; false when it was nowhere. `task` has to say what it said
    /// when it was put in (deadline and `retrying` aside).
    pub fn remove(&mut self, task: &Waiting) -> bool {
        let waited = if task.ahead { None } else { self.timers.remove(task) };
        if let Some(entry) = waited {
            self.deadlines.remove(entry.deadline(), entry.key);
            self.queues.change(entry.queue, |queue| *queue.waiting(entry.retrying()) -= 1);
            return true;
        }
        // A queue nobody knows has no tasks; it is not worth creating.
        if self.queues.get(task.queue).is_none() {
            return false;
        }
        let (taken, lane_left) = self.queues.change(task.queue, |queue| {
            let taken = queue.ready.remove(task.lane, task.level(), &task.ready());
            (taken, queue.ready.has_lane(task.lane))
        });
        if let Some(ready) = taken {
            self.gone(task.queue, task.lane, &ready, lane_left);
        }
        taken.is_some()
    }

    /// Compares the clocks and moves what has become due into its lane.
    pub fn look(&mut self, now: Now) -> Look {
        let jumped = self.timers.watch(now);
        let mut promoted = 0;
        while let Some(entry) = self.timers.pop_due(now) {
            promoted += 1;
            self.queues.change(entry.queue, |queue| *queue.waiting(entry.retrying()) -= 1);
            let ready = Ready { due: entry.due, key: entry.key, deadline: entry.deadline() };
            self.make_ready(entry.queue, entry.lane, Level::Of(entry.priority()), ready);
        }
        Look { promoted, jumped }
    }

    /// Distrusts the wall clock as after a jump, until it has agreed with the monotonic clock for a minute.
    pub fn distrust(&mut self, now: Now) {
        self.timers.distrust(now);
    }

    /// At most `max` tasks whose deadline has passed, earliest first; none while the wall clock is distrusted.
    ///
    /// Each is told once: it stays in its place until the engine removes it.
    pub fn overdue(&mut self, now: Now, max: usize) -> Vec<TaskKey> {
        if !self.timers.trusts(now) {
            return Vec::new();
        }
        std::iter::from_fn(|| self.deadlines.pop(now)).take(max).collect()
    }

    /// Whether the wall clock may be acted on: false from a jump until [`Self::look`] has seen a minute of agreement
    /// ([`crate::task::limits::WALL_AGREEMENT`]).
    pub fn clock_trusted(&self) -> bool {
        self.timers.distrusted_until().is_none()
    }

    /// Takes the next task that may start, and with it a worker slot, a queue slot, a host slot and a token.
    pub fn pick(&mut self, now: Now) -> Option<Pick> {
        if self.running >= self.workers_max {
            return None;
        }
        let (queue, lane) = self.queues.take_turn(now.mono)?;
        let (ready, lane_left) = self.queues.change(queue, |queue| {
            let ready = queue.ready.take(lane)?;
            queue.running += 1;
            Some((ready, queue.ready.has_lane(lane)))
        })?;
        self.running += 1;
        self.gone(queue, lane, &ready, lane_left);
        if let Some(turned) = self.hosts.start(lane) {
            self.turn_lane(lane, turned);
        }
        Some(Pick { key: ready.key, queue, lane })
    }

    /// An attempt is over, or a pick is undone: frees its slots. Its token stays spent.
    pub fn finish(&mut self, queue: NameId, lane: NameId) {
        self.running = self.running.saturating_sub(1);
        self.queues.change(queue, |queue| queue.running = queue.running.saturating_sub(1));
        if let Some(turned) = self.hosts.finish(lane) {
            self.turn_lane(lane, turned);
        }
    }

    /// When, on the monotonic clock, the next due time, token or deadline comes; not before `now`, and `now` itself
    /// while there is something to pick. `None`: nothing will happen by itself.
    pub fn next_look(&self, now: Now) -> Option<Duration> {
        let trusted = self.timers.distrusted_until().unwrap_or(Duration::ZERO);
        let deadline = self.deadlines.next(now).map(|at| at.max(trusted));
        let start = if self.running >= self.workers_max {
            None
        } else if self.queues.any_in_line() {
            Some(now.mono)
        } else {
            self.queues.next_token()
        };
        let first = self.timers.next(now).into_iter().chain(deadline).chain(start).min();
        first.map(|at| at.max(now.mono))
    }

    /// The figures of a queue; zeros for one that is not known.
    pub fn counts(&self, queue: NameId) -> Counts {
        self.queues.get(queue).map_or_else(Counts::default, |queue| Counts {
            scheduled: queue.scheduled,
            queued: queue.ready.len(),
            retrying: queue.retrying,
            running: u64::from(queue.running),
            oldest_ready: queue.ready.oldest(),
        })
    }

    /// Why nothing of this queue starts now; `None`: something can.
    pub fn blocked(&self, queue: NameId, now: Now) -> Option<Blocked> {
        let Some(queue) = self.queues.get(queue) else { return Some(Blocked::NoneReady) };
        if queue.paused {
            return Some(Blocked::Paused);
        }
        if queue.ready.len() == 0 {
            return Some(Blocked::NoneReady);
        }
        if queue.running >= queue.concurrent_max {
            return Some(Blocked::Concurrency);
        }
        if let Some(until) = queue.limit.wait(now.mono) {
            return Some(Blocked::Rate { until });
        }
        if queue.ready.next_lane().is_none() {
            return Some(Blocked::Hosts);
        }
        (self.running >= self.workers_max).then_some(Blocked::Workers)
    }

    /// False when it was there.
    fn make_ready(&mut self, queue: NameId, lane: NameId, level: Level, ready: Ready) -> bool {
        let open = self.hosts.is_open(lane);
        self.hosts.wanted_by(lane, queue);
        self.queues.change(queue, |queue| queue.ready.insert(lane, level, ready, open))
    }

    /// A task has left the ready ones.
    fn gone(&mut self, queue: NameId, lane: NameId, ready: &Ready, lane_left: bool) {
        self.deadlines.remove(ready.deadline, ready.key);
        if !lane_left {
            self.hosts.unwanted_by(lane, queue);
        }
    }

    fn turn_lane(&mut self, lane: NameId, turned: Turned) {
        self.queues.turn_lane(self.hosts.queues(lane), lane, turned);
    }
}

/// Sorted, as the sets want them.
fn entries(tasks: Vec<&Waiting>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = tasks.into_iter().map(Entry::of).collect();
    entries.sort_unstable();
    entries
}

#[cfg(test)]
mod tests;
