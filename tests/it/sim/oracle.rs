//! The oracle: what clients and targets saw, held against the promise.

use std::collections::BTreeMap;

use sendoff::task::{Status, TaskKey, WallMs};

/// What the world knows of one task, told by clients and targets alone.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: bool,
    /// Not before this moment of the monotonic clock may the next attempt start (ms since the start of the world).
    not_before: i64,
    max_attempts: u32,
    series: u32,
    /// Requests of the present series that targets got.
    requests: u32,
    /// The attempt that runs, by the number of the process it runs in.
    live: Option<u32>,
    /// A final 2xx reached the server before a crash could hide it, and was recorded.
    done: bool,
    end: Option<Status>,
}

/// Five invariants: nothing lost, one end, attempts bounded, one lease, never early.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    tasks: BTreeMap<TaskKey, Seen>,
    violations: Vec<String>,
}

impl Oracle {
    /// A task was committed: it is due at `not_before` and has so many attempts.
    pub(super) fn committed(&mut self, key: TaskKey, not_before: i64, max_attempts: u32) {
        let seen = self.tasks.entry(key).or_default();
        seen.not_before = seen.not_before.max(not_before);
        seen.max_attempts = max_attempts;
        seen.series = 1;
    }

    /// A client read the acknowledgement of a task.
    pub(super) fn acknowledged(&mut self, key: TaskKey, not_before: i64, max_attempts: u32) {
        self.committed(key, not_before, max_attempts);
        if let Some(seen) = self.tasks.get_mut(&key) {
            seen.acknowledged = true;
        }
    }

    /// An attempt was leased to `process`; if it was `sent`, a target got a request.
    pub(super) fn leased(&mut self, at: i64, key: TaskKey, series: u32, (process, sent): (u32, bool)) {
        let Some(seen) = self.tasks.get_mut(&key) else {
            self.violations.push(format!("{key:?} was started but never accepted"));
            return;
        };
        if series != seen.series {
            seen.series = series;
            seen.requests = 0;
        }
        seen.requests += u32::from(sent);
        if seen.requests > seen.max_attempts {
            self.violations.push(format!("{key:?}: request {} of at most {}", seen.requests, seen.max_attempts));
        }
        if at < seen.not_before {
            self.violations.push(format!("{key:?}: started at {at}, not due before {}", seen.not_before));
        }
        if seen.live.replace(process) == Some(process) {
            self.violations.push(format!("{key:?}: two live leases"));
        }
        if seen.done || seen.end.is_some_and(|end| end != Status::Dead) {
            self.violations.push(format!("{key:?}: started after its end"));
        }
    }

    /// An attempt is over for the target.
    pub(super) fn over(&mut self, key: TaskKey) {
        if let Some(seen) = self.tasks.get_mut(&key) {
            seen.live = None;
        }
    }

    /// A retry was committed: not before `at`.
    pub(super) fn retry_not_before(&mut self, key: TaskKey, at: i64) {
        if let Some(seen) = self.tasks.get_mut(&key) {
            seen.not_before = at;
        }
    }

    /// Somebody asked for the task at once.
    pub(super) fn asked_at_once(&mut self, key: TaskKey) {
        self.retry_not_before(key, 0);
    }

    /// A redrive was committed.
    pub(super) fn redriven(&mut self, key: TaskKey) {
        if let Some(seen) = self.tasks.get_mut(&key) {
            seen.end = None;
            seen.done = false;
            seen.not_before = 0;
        }
    }

    /// An end was committed.
    pub(super) fn ended(&mut self, key: TaskKey, status: Status) {
        let Some(seen) = self.tasks.get_mut(&key) else { return };
        if let Some(before) = seen.end.replace(status) {
            self.violations.push(format!("{key:?}: ended {} and then {}", before.as_str(), status.as_str()));
        }
        seen.done = status == Status::Succeeded;
    }

    /// The process died: nothing it held is held any more.
    pub(super) fn crashed(&mut self) {
        for seen in self.tasks.values_mut() {
            seen.live = None;
        }
    }

    /// The world has come to rest: what the store holds is held against what was promised.
    pub(super) fn finish(mut self, stored: &BTreeMap<TaskKey, Status>, at: WallMs) -> Vec<String> {
        for (key, seen) in &self.tasks {
            match stored.get(key) {
                None if seen.acknowledged => self.violations.push(format!("{key:?}: acknowledged and lost")),
                Some(status) if !status.has_ended() => {
                    self.violations.push(format!("{key:?}: still {} at {at}", status.as_str()));
                }
                Some(status) if seen.end.is_some_and(|end| end != *status) => {
                    self.violations.push(format!("{key:?}: ended {:?}, stored as {}", seen.end, status.as_str()));
                }
                None | Some(_) => {}
            }
        }
        for key in stored.keys().filter(|key| !self.tasks.contains_key(key)) {
            self.violations.push(format!("{key:?}: stored, but nobody asked for it"));
        }
        self.violations
    }
}
