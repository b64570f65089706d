//! The life of a task: what may follow what, and what must have happened before.

use sendoff::task::retry::StopWhen;
use sendoff::task::{Status, TaskKey};

use super::times::{NotBefore, backoff};
use super::{Heard, Moment, Oracle, Record, Wish};

/// What is known of one task.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) not_before: NotBefore,
    /// Since when it could have started, if nothing else was in its way.
    pub(super) ripe_since: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) queue: String,
    pub(super) host: String,
    ask: u64,
    /// Requests of the present series that targets got.
    requests: u32,
    /// The start of the first attempt of the series, and how often the clock had jumped by then.
    first: Option<(Moment, u32)>,
    /// The epoch of the request that a target is at.
    running: Option<u32>,
    /// What the wall clock showed when the record last changed for another reason than being put ahead.
    pub(super) wrote: i64,
    /// What the engine was told of the attempt of this epoch.
    heard: Option<(u32, Heard)>,
}

impl Seen {
    pub(super) fn is_due(&mut self, now: Moment) {
        self.not_before = NotBefore::Reached;
        self.ripe_since.get_or_insert(now.at);
    }

    /// The process died: nothing it held is held any more, and what ran in it was cut off.
    pub(super) fn crashed(&mut self, now: Moment) {
        self.running = None;
        if self.record.status == Status::Running {
            self.heard = Some((self.record.epoch, Heard::Retry(0)));
        }
        if let NotBefore::Delay { at, .. } = self.not_before
            && at <= now.at
        {
            self.not_before = NotBefore::Reached;
        }
    }

    /// By the wall clock, since the first attempt of the series started.
    fn elapsed(&self, now: Moment) -> Option<i64> {
        self.first.map(|(first, _)| now.wall - first.wall)
    }

    fn is_early(&self, now: Moment) -> bool {
        match self.not_before {
            NotBefore::Reached => false,
            NotBefore::Delay { at, .. } => now.at < at,
            NotBefore::Wall(wall) => now.wall < wall,
        }
    }
}

impl Oracle {
    /// A commit wrote a task: was it asked for, and may this follow what was there?
    pub(super) fn written(&mut self, now: Moment, record: Record) {
        let key = record.key;
        let Some(mut seen) = self.tasks.remove(&key) else { return self.accepted(now, record) };
        let old = std::mem::replace(&mut seen.record, record);
        self.live -= usize::from(!old.status.has_ended());
        if let Some(fault) = self.unlawful(now, &old, &seen) {
            self.violated([format!("{key:?}: {fault} ({} → {})", old.status.as_str(), seen.record.status.as_str())]);
        }
        self.went_on(now, &old, &mut seen);
        self.keep(seen);
    }

    fn keep(&mut self, seen: Seen) {
        let (key, status) = (seen.record.key, seen.record.status);
        self.live += usize::from(!status.has_ended());
        if status.is_waiting() {
            self.waiting.insert(key);
        } else {
            self.waiting.remove(&key);
        }
        self.tasks.insert(key, seen);
    }

    fn accepted(&mut self, now: Moment, record: Record) {
        let key = record.key;
        let Some((ask, asked)) = record.ask.and_then(|ask| Some((ask, self.asks.get(&ask)?.clone()))) else {
            return self.violated([format!("{key:?}: invented: nobody asked for it")]);
        };
        if self.refused.contains(&ask) {
            self.violated([format!("{key:?}: wish {ask} was refused, and accepted all the same")]);
        }
        // A repeat is known by its key for a day by the server's clock.
        if let Some((before, wall)) = self.accepted.insert(ask, (key, now.wall))
            && now.wall - wall < 24 * 3_600_000
            && !(asked.by_name && self.removed.contains(&before))
        {
            self.violated([format!("{key:?}: invented: wish {ask} is {before:?} already")]);
        }
        if record.status.has_ended() || record.status == Status::Running || record.series != 1 || record.attempts != 0 {
            self.violated([format!("{key:?}: accepted as {record:?}")]);
        }
        let mut seen = Seen {
            record,
            not_before: NotBefore::Reached,
            ripe_since: None,
            expires_at: asked.expires_at,
            queue: asked.queue,
            host: asked.host,
            ask,
            requests: 0,
            first: None,
            running: None,
            wrote: now.wall,
            heard: None,
        };
        self.watch.wait(now, &mut seen, asked.when);
        self.keep(seen);
    }

    /// Why this must not follow what was there.
    fn unlawful(&self, now: Moment, old: &Record, seen: &Seen) -> Option<&'static str> {
        let new = &seen.record;
        let wished = |wish| self.wished.contains(&(new.key, wish));
        let told = seen.heard.filter(|(epoch, _)| *epoch == old.epoch).map(|(_, heard)| heard);
        let redriven = old.status == Status::Dead && new.status == Status::Queued && new.series == old.series + 1;
        if old.status.has_ended() && !(redriven && wished(Wish::Redrive)) {
            return Some("changed after its end, and nobody redrove it");
        }
        if new.epoch <= old.epoch || new.ask != old.ask {
            return Some("became another task");
        }
        if !old.status.has_ended() && new.series != old.series {
            return Some("began a new series before it had ended");
        }
        let lawful = match (old.status, new.status) {
            _ if self.is_put_right(now, old, seen) => true,
            (Status::Dead, _) | (Status::Scheduled | Status::Queued | Status::Retrying, Status::Running) => true,
            (_, Status::Cancelled) => wished(Wish::Cancel),
            (Status::Running, Status::Succeeded) => told == Some(Heard::Done),
            (Status::Running, Status::Retrying) => matches!(told, Some(Heard::Retry(_))),
            (Status::Running, Status::Queued) => told == Some(Heard::Released),
            (Status::Running, Status::Dead) => match told {
                Some(Heard::Retry(asked)) => self.may_give_up(now, seen, Some(asked)),
                Some(Heard::Permanent) => true,
                Some(Heard::Done | Heard::Released) | None => false,
            },
            (Status::Running, Status::Expired) => match told {
                Some(Heard::Retry(asked)) => self.may_expire(now, seen, asked),
                Some(_) | None => false,
            },
            (_, Status::Queued) => wished(Wish::Run),
            (_, Status::Expired) => self.may_expire(now, seen, -1),
            (_, Status::Dead) => self.may_give_up(now, seen, None),
            (_, _) => false,
        };
        (!lawful).then_some("nothing that was seen leads to this")
    }

    /// Whether this is a start that puts right what a clock wrote that was ahead: what was given as a delay is waited for
    /// again, to the millisecond, and what was given as a moment stays.
    fn is_put_right(&self, now: Moment, old: &Record, seen: &Seen) -> bool {
        let (new, wrote) = (&seen.record, seen.wrote);
        let again = if old.due > wrote { now.wall + (old.due - wrote) } else { old.due.min(now.wall) };
        let due = if old.on_wall { old.due } else { again };
        let waits = old.status.is_waiting() && new.status == old.status && new.ahead == old.ahead;
        self.opening && waits && now.wall < wrote && new.due == due
    }

    /// Whether a wait from now, if there is one (`asked` is not negative), reaches `expires_at`.
    fn may_expire(&self, now: Moment, seen: &Seen, asked: i64) -> bool {
        let wait = if asked < 0 { 0 } else { self.wait_most(seen, asked) };
        self.watch.trusts(now) && seen.expires_at.is_some_and(|at| now.wall + wait >= at)
    }

    /// Whether the bounds of the series allow to give up: after a failure, or (`None`) while it waits.
    fn may_give_up(&self, now: Moment, seen: &Seen, asked: Option<i64>) -> bool {
        let Some(policy) = self.asks.get(&seen.ask).map(|ask| &ask.policy) else { return false };
        let wait = asked.map_or(0, |asked| self.wait_most(seen, asked));
        let tried = seen.record.attempts >= policy.max_attempts;
        let jumped = seen.first.is_none_or(|(_, jumps)| jumps != self.watch.jumps());
        let lasted = policy.max_retry_duration.is_some_and(|most| {
            jumped || seen.elapsed(now).is_some_and(|ms| ms + wait >= i64::try_from(most.as_millis()).unwrap())
        });
        match policy.stop_when {
            StopWhen::Any => tried || lasted,
            StopWhen::All => tried && lasted,
        }
    }

    fn wait_most(&self, seen: &Seen, asked: i64) -> i64 {
        self.asks.get(&seen.ask).map_or(0, |ask| backoff(&ask.policy, seen.record.attempts.max(1), asked).1)
    }

    /// Takes over what a lawful transition means for the future.
    fn went_on(&mut self, now: Moment, old: &Record, seen: &mut Seen) {
        if self.is_put_right(now, old, seen) {
            seen.wrote = now.wall;
            return self.watch.put_right(now, seen);
        }
        if !(old.status.is_waiting() && seen.record.status == Status::Queued) {
            seen.wrote = now.wall;
        }
        let told = seen.heard.take_if(|(epoch, _)| *epoch == old.epoch).map(|(_, heard)| heard);
        match seen.record.status {
            Status::Running => {
                if seen.record.attempts == 1 {
                    seen.first = Some((now, self.watch.jumps()));
                }
                return;
            }
            Status::Retrying => {
                let asked = if let Some(Heard::Retry(asked)) = told { asked } else { 0 };
                let Some(ask) = self.asks.get(&seen.ask) else { return };
                let bounds = backoff(&ask.policy, seen.record.attempts.max(1), asked);
                self.watch.delay(now, seen, bounds);
                if !self.watch.trusts(now) {
                    // A clock that has just jumped ends no series: its age was not looked at, and tells nothing here.
                    seen.first = seen.first.map(|(first, _)| (first, u32::MAX));
                }
            }
            Status::Queued | Status::Scheduled => {
                seen.ripe_since = None;
                seen.is_due(now);
            }
            Status::Succeeded | Status::Dead | Status::Cancelled | Status::Expired => seen.ripe_since = None,
        }
        if seen.record.series != old.series {
            self.wished.remove(&(seen.record.key, Wish::Redrive));
            (seen.requests, seen.first) = (0, None);
            seen.expires_at = seen.expires_at.filter(|at| *at > now.wall);
        }
    }

    /// A commit removed a task: only a dead letter, and only if somebody purged it.
    pub(super) fn removed(&mut self, key: TaskKey) {
        let purged = self.wished.contains(&(key, Wish::Purge));
        match self.tasks.remove(&key) {
            Some(seen) if purged && seen.record.status == Status::Dead => {}
            seen => self.violated([format!("{key:?}: removed, though it was {seen:?}")]),
        }
        self.waiting.remove(&key);
        self.removed.insert(key);
    }

    /// A target gets a request.
    pub(super) fn started(&mut self, now: Moment, key: TaskKey, epoch: u32) {
        let jumps = self.watch.jumps();
        let trusted = self.watch.trusts(now);
        let Some(mut seen) = self.tasks.remove(&key) else {
            return self.violated([format!("{key:?}: started, but no commit wrote it")]);
        };
        let mut broken = self.usage.start(now.at, key, &seen.queue, &seen.host);
        if let Some(before) = seen.running.replace(epoch) {
            broken.push(format!("{key:?}: two live leases, of epochs {before} and {epoch}"));
        }
        if seen.record.status != Status::Running || seen.record.epoch != epoch {
            broken.push(format!("{key:?}: started, but its record says {:?}", seen.record));
        }
        if seen.is_early(now) {
            broken.push(format!("{key:?}: started at {now:?}, early: {:?}", seen.not_before));
        }
        if trusted && seen.expires_at.is_some_and(|at| at <= now.wall) {
            broken.push(format!("{key:?}: started after it had expired"));
        }
        let steady = seen.first.filter(|(_, then)| *then == jumps && trusted).map(|(first, _)| now.wall - first.wall);
        if let Some(ask) = self.asks.get(&seen.ask) {
            let policy = &ask.policy;
            let tried = seen.requests >= policy.max_attempts;
            // One that is due at the very end may be as late as the engine's longest sleep.
            let over = |most: sendoff::task::Span, ms: i64| ms > i64::try_from(most.as_millis()).unwrap() + 1_000;
            let lasted = policy.max_retry_duration.is_some_and(|most| steady.is_some_and(|ms| over(most, ms)));
            let stop = match policy.stop_when {
                StopWhen::Any => tried || lasted,
                StopWhen::All => tried && lasted,
            };
            if stop {
                let (requests, most) = (seen.requests, policy.max_attempts);
                broken.push(format!("{key:?}: request after {requests} of {most}, {steady:?} ms after the first"));
            }
        }
        seen.requests += 1;
        self.tasks.insert(key, seen);
        self.violated(broken);
    }

    /// What came of an attempt was told to the engine, by whoever held its lease.
    pub(super) fn settled(&mut self, key: TaskKey, epoch: u32, heard: Heard) {
        self.usage.end(key);
        let Some(seen) = self.tasks.get_mut(&key) else { return };
        seen.running = None;
        seen.heard = Some((epoch, heard));
        seen.requests -= u32::from(heard == Heard::Released && seen.requests > 0);
    }
}
