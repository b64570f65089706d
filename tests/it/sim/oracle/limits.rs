//! Rates, slots and pauses: what may run at one time, and how many starts a window may see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sendoff::task::TaskKey;

/// What is in force.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Limits {
    pub(in crate::sim) workers: u32,
    /// What holds for a host that is not named, and for those that are.
    pub(in crate::sim) host: u32,
    pub(in crate::sim) hosts: BTreeMap<String, u32>,
    /// Queues that are not named here are held; somebody may resume them all the same.
    pub(in crate::sim) queues: BTreeMap<String, QueueLimits>,
    pub(in crate::sim) unnamed: QueueLimits,
}

impl Limits {
    fn queue(&self, name: &str) -> QueueLimits {
        *self.queues.get(name).unwrap_or(&self.unnamed)
    }

    fn host(&self, name: &str) -> u32 {
        *self.hosts.get(name).unwrap_or(&self.host)
    }
}

/// What is in force for one queue.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::sim) struct QueueLimits {
    pub(in crate::sim) rate: Option<f64>,
    pub(in crate::sim) burst: u32,
    pub(in crate::sim) concurrent: u32,
}

/// Starts remembered of each queue: windows that reach further back are wide enough to show a fault sooner.
const STARTS_KEPT: usize = 150;

/// What of a queue or host runs, and since when nothing was in its way.
#[derive(Debug, Default)]
struct Use {
    running: u32,
    free_since: i64,
    /// Moments of starts, oldest first.
    starts: VecDeque<i64>,
    /// The rates that were in force, each since when.
    rates: Vec<(i64, Option<f64>, u32)>,
    held: bool,
    paused: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Usage {
    limits: Limits,
    running: BTreeMap<TaskKey, (String, String)>,
    free_since: i64,
    queues: BTreeMap<String, Use>,
    hosts: BTreeMap<String, Use>,
    named: BTreeSet<String>,
}

impl Usage {
    /// A process starts: queues that its configuration does not name are held, whoever resumed them before.
    pub(super) fn opened(&mut self, at: i64, limits: Limits) {
        self.limit(at, limits);
        for (name, queue) in &mut self.queues {
            queue.held = !self.limits.queues.contains_key(name);
            // Its bucket is empty.
            queue.free_since = queue.free_since.max(at + token_ms(self.limits.queue(name).rate));
        }
    }

    pub(super) fn crashed(&mut self) {
        self.running.clear();
        self.queues.values_mut().chain(self.hosts.values_mut()).for_each(|held| held.running = 0);
    }

    /// Other limits are in force.
    pub(super) fn limit(&mut self, at: i64, limits: Limits) {
        for name in limits.queues.keys() {
            self.queues.entry(name.clone()).or_default();
        }
        for (name, used) in &mut self.queues {
            let queue = limits.queue(name);
            if used.rates.last().is_none_or(|(_, rate, burst)| (*rate, *burst) != (queue.rate, queue.burst)) {
                used.rates.push((at, queue.rate, queue.burst));
                used.free_since = used.free_since.max(at + token_ms(queue.rate));
            }
            let named = limits.queues.contains_key(name);
            if named != self.named.contains(name) {
                used.held = !named;
            }
        }
        self.named = limits.queues.keys().cloned().collect();
        self.limits = limits;
    }

    pub(super) fn pause(&mut self, queue: &str, paused: bool) {
        let queue = self.queues.entry(queue.to_owned()).or_default();
        queue.paused = paused;
        queue.held &= paused;
    }

    /// Whatever was in the way since the last look was so until now.
    pub(super) fn look(&mut self, at: i64) {
        if self.running.len() >= self.limits.workers as usize {
            self.free_since = at;
        }
        for (name, queue) in &mut self.queues {
            if queue.held || queue.paused || queue.running >= self.limits.queue(name).concurrent {
                queue.free_since = queue.free_since.max(at);
            }
        }
        for (name, host) in &mut self.hosts {
            if host.running >= self.limits.host(name) {
                host.free_since = at;
            }
        }
    }

    /// Since when nothing was in the way of a task of this queue and host; `None`: something is known to be.
    pub(super) fn free_since(&self, queue: &str, host: &str) -> Option<i64> {
        let queue = self.queues.get(queue).filter(|queue| !queue.held && !queue.paused)?;
        let host = self.hosts.get(host).map_or(0, |host| host.free_since);
        Some(queue.free_since.max(host).max(self.free_since))
    }

    /// A request goes out; answers what it breaks.
    pub(super) fn start(&mut self, at: i64, key: TaskKey, queue: &str, host: &str) -> Vec<String> {
        let mut broken = Vec::new();
        let limits = self.limits.queue(queue);
        let used = self.queues.entry(queue.to_owned()).or_default();
        if used.held || used.paused {
            broken.push(format!("{key:?}: started though `{queue}` is paused or held"));
        }
        if used.running >= limits.concurrent {
            broken.push(format!("{key:?}: more than {} at one time in `{queue}`", limits.concurrent));
        }
        used.running += 1;
        used.starts.push_back(at);
        if used.starts.len() > STARTS_KEPT {
            used.starts.pop_front();
        }
        broken.extend(used.window(at).map(|fault| format!("{key:?}: {fault} in `{queue}`")));
        used.free_since = used.free_since.max(at + token_ms(limits.rate));
        let used = self.hosts.entry(host.to_owned()).or_default();
        let most = self.limits.host(host);
        if used.running >= most {
            broken.push(format!("{key:?}: more than {most} at one time against {host}"));
        }
        used.running += 1;
        if self.running.len() >= self.limits.workers as usize {
            broken.push(format!("{key:?}: more than {} workers", self.limits.workers));
        }
        self.running.insert(key, (queue.to_owned(), host.to_owned()));
        broken
    }

    /// An attempt is over.
    pub(super) fn end(&mut self, key: TaskKey) {
        let Some((queue, host)) = self.running.remove(&key) else { return };
        for used in self.queues.get_mut(&queue).into_iter().chain(self.hosts.get_mut(&host)) {
            used.running -= 1;
        }
    }
}

impl Use {
    /// Looks at every window that ends with the last start: it may see the largest burst in force within it, and the
    /// integral of the rate over it.
    fn window(&self, until: i64) -> Option<String> {
        for (seen, from) in self.starts.iter().rev().enumerate() {
            let most = self.allowed(*from, until)?;
            #[expect(clippy::cast_precision_loss, reason = "a few hundred starts")]
            let seen = (seen + 1) as f64;
            if seen > most + 1e-6 {
                return Some(format!("{seen} starts from {from} to {until}, {most:.2} allowed"));
            }
        }
        None
    }

    /// `None`: no limit in a part of the window.
    fn allowed(&self, from: i64, until: i64) -> Option<f64> {
        let (mut burst_max, mut integral) = (0, 0.0);
        let mut over = i64::MAX;
        for (since, rate, burst) in self.rates.iter().rev() {
            if *since <= until && over >= from {
                #[expect(clippy::cast_precision_loss, reason = "days in milliseconds")]
                let within = (over.min(until) - (*since).max(from)).max(0) as f64 / 1_000.0;
                integral += (*rate)? * within;
                burst_max = burst_max.max(*burst);
            }
            over = *since;
        }
        Some(f64::from(burst_max) + integral)
    }
}

/// How long a token takes, in milliseconds and rounded up.
fn token_ms(rate: Option<f64>) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a rate of the world, not below one in an hour")]
    rate.map_or(0, |rate| (1_000.0 / rate).ceil() as i64 + 1)
}
