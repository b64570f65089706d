//! The queues: what of each is ready, its limits, and whether it stands in line, waits for a token, or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hosts::Turned;
use super::lanes::ReadyTasks;
use super::rate_limit::RateLimit;
use super::turn::Turns;
use crate::config::QueueConfig;
use crate::task::header::NameId;

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) ready: ReadyTasks,
    pub(super) limit: RateLimit,
    pub(super) paused: bool,
    pub(super) running: u32,
    pub(super) concurrent_max: u32,
    /// Tasks that wait for their first due time.
    pub(super) scheduled: u64,
    /// Tasks that failed and wait for their next due time.
    pub(super) retrying: u64,
    /// The moment, on the monotonic clock, before which the rate limit lets nothing through.
    token_at: Option<Duration>,
}

impl Queue {
    /// A queue that nobody has set yet: keeps what it is given and starts nothing.
    fn unset() -> Self {
        Self {
            ready: ReadyTasks::new(QueueConfig::default().order),
            limit: RateLimit::default(),
            paused: false,
            running: 0,
            concurrent_max: 0,
            scheduled: 0,
            retrying: 0,
            token_at: None,
        }
    }

    /// The counter of waiting tasks that this one belongs to.
    pub(super) fn waiting(&mut self, retrying: bool) -> &mut u64 {
        if retrying { &mut self.retrying } else { &mut self.scheduled }
    }
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queues {
    map: BTreeMap<NameId, Queue>,
    turns: Turns,
    /// Queues that only a token keeps from standing in line, by when there will be one.
    tokens: BTreeSet<(Duration, NameId)>,
}

impl Queues {
    /// Creates a queue or changes it; what runs goes on.
    pub(super) fn set(&mut self, id: NameId, config: &QueueConfig, now: Duration) {
        self.turns.set_weight(id, config.weight);
        self.change(id, |queue| {
            queue.concurrent_max = config.max_concurrent_dispatches;
            queue.ready.set_order(config.order);
            queue.limit.set(config.max_dispatches_per_second, config.max_burst_size, now);
        });
        self.ask_again(id);
    }

    pub(super) fn get(&self, id: NameId) -> Option<&Queue> {
        self.map.get(&id)
    }

    /// Changes a queue, created if need be, and puts it where it then belongs.
    pub(super) fn change<T>(&mut self, id: NameId, change: impl FnOnce(&mut Queue) -> T) -> T {
        let answer = change(self.map.entry(id).or_insert_with(Queue::unset));
        self.relist(id);
        answer
    }

    /// A host of these queues has opened or closed a lane.
    pub(super) fn turn_lane(&mut self, queues: impl Iterator<Item = NameId>, lane: NameId, turned: Turned) {
        for id in queues {
            if let Some(queue) = self.map.get_mut(&id) {
                queue.ready.set_open(lane, turned == Turned::Open);
            }
            self.relist(id);
        }
    }

    /// The queue whose turn it is, and the lane of its next task. Queues that have no token leave the line.
    pub(super) fn take_turn(&mut self, now: Duration) -> Option<(NameId, NameId)> {
        while let Some((_, id)) = self.tokens.first().copied().filter(|(at, _)| *at <= now) {
            self.ask_again(id);
        }
        loop {
            let id = self.turns.next()?;
            let Some((queue, lane)) = self.map.get_mut(&id).and_then(|queue| {
                let lane = queue.ready.next_lane()?;
                Some((queue, lane))
            }) else {
                // Cannot be: a queue without an open lane does not stand in line.
                self.turns.leave(id);
                continue;
            };
            match queue.limit.take(now) {
                Ok(()) => {
                    self.turns.charge(id);
                    return Some((id, lane));
                }
                Err(at) => {
                    queue.token_at = Some(at);
                    self.relist(id);
                }
            }
        }
    }

    /// Whether a queue stands in line: it may lack a token, but nothing else.
    pub(super) fn any_in_line(&self) -> bool {
        self.turns.next().is_some()
    }

    /// When the next queue gets its token.
    pub(super) fn next_token(&self) -> Option<Duration> {
        self.tokens.first().map(|(at, _)| *at)
    }

    /// Forgets when the queue's token will come, so that its limit is asked again.
    fn ask_again(&mut self, id: NameId) {
        if let Some(queue) = self.map.get_mut(&id)
            && let Some(at) = queue.token_at.take()
        {
            self.tokens.remove(&(at, id));
        }
        self.relist(id);
    }

    /// Puts a queue in line, among those that wait for a token, or in neither.
    fn relist(&mut self, id: NameId) {
        let Some(queue) = self.map.get(&id) else { return };
        let could = !queue.paused && queue.running < queue.concurrent_max && queue.ready.next_lane().is_some();
        if could && queue.token_at.is_none() {
            self.turns.join(id);
        } else {
            self.turns.leave(id);
        }
        if let Some(at) = queue.token_at {
            if could {
                self.tokens.insert((at, id));
            } else {
                self.tokens.remove(&(at, id));
            }
        }
    }
}
