//! What sendoff promises, written as naively as it can be: plain lists, looked through from the start, everything worked
//! out anew at each step. It knows nothing of commits, indexes, caches or stores.

use std::collections::BTreeMap;

use sendoff::queue::command::{BulkAction, TaskAction};
use sendoff::task::Status;

use super::steps::{Came, Draft, MOST, QUEUES, Reply, Seen, Slip, Step, When};

struct Task {
    draft: Draft,
    seen: Seen,
    due: i64,
    ahead: bool,
    gone: bool,
}

/// One attempt that holds a slot of its queue.
#[derive(Clone, Copy)]
struct Held {
    number: usize,
    total: u32,
    cancelled: bool,
}

#[derive(Default)]
pub(super) struct Naive {
    slip: Option<Slip>,
    tasks: Vec<Task>,
    held: Vec<Held>,
    keys: BTreeMap<u8, (Vec<Draft>, Vec<usize>, i64)>,
    paused: [bool; QUEUES],
    slots: [usize; QUEUES],
}

impl Naive {
    pub(super) fn new(slots: [usize; QUEUES], slip: Option<Slip>) -> Self {
        Self { slip, slots, ..Self::default() }
    }

    /// What happens at `now`; and which tasks start, in the order of acceptance.
    pub(super) fn step(&mut self, step: &Step, now: i64) -> (Reply, Vec<usize>) {
        let mut reply = match step {
            Step::Accept(drafts, key) => self.accept(drafts, *key, now),
            Step::One(action, of) if !self.tasks.is_empty() => self.one(*action, of % self.tasks.len(), now),
            Step::Several(action, of) => self.several(*action, of, now),
            Step::Ends(of, came) if !self.held.is_empty() => self.ends(of % self.held.len(), *came, now),
            Step::Crash => self.crash(now),
            Step::Pause(queue, paused) => {
                self.paused[*queue] = *paused;
                Reply::Nothing
            }
            Step::Configure(slots) => {
                self.slots = *slots;
                Reply::Nothing
            }
            Step::One(..) | Step::Ends(..) | Step::Late(..) | Step::Pass(_) => Reply::Nothing,
        };
        self.expire(now);
        let started = self.start(now);
        if let Reply::Task(number, status) = &mut reply
            && started.contains(number)
        {
            *status = Status::Running;
        }
        (reply, started)
    }

    fn accept(&mut self, drafts: &[Draft], key: Option<u8>, now: i64) -> Reply {
        if let Some((first, numbers, until)) = key.and_then(|key| self.keys.get(&key))
            && *until > now
            && self.slip != Some(Slip::KeysAreForgotten)
        {
            let gone = numbers.first().filter(|_| numbers.len() == 1).map(|number| &self.tasks[*number]);
            let ended = gone.filter(|task| task.gone).map(|task| task.seen.status);
            return if first == drafts { Reply::Repeat(numbers.clone(), ended) } else { Reply::Refused("key") };
        }
        let mut plan = Vec::new();
        for (place, draft) in drafts.iter().enumerate() {
            let holder = self.tasks.iter().position(|task| !task.gone && named(draft, &task.draft));
            let twice = drafts[..place].iter().any(|other| named(draft, other));
            let may_repeat = drafts.len() == 1 || key.is_none();
            match holder {
                Some(number) if self.tasks[number].draft == *draft && may_repeat => plan.push(Some(number)),
                None if !twice => plan.push(None),
                Some(_) | None => return Reply::Refused("name"),
            }
        }
        if let [Some(number)] = plan[..] {
            return Reply::Repeat(vec![number], None);
        }
        for queue in 0..QUEUES {
            let new = plan.iter().zip(drafts).filter(|(known, draft)| known.is_none() && draft.queue == queue).count();
            let live =
                self.tasks.iter().filter(|task| task.draft.queue == queue && !task.seen.status.has_ended()).count();
            if new > 0 && queue == 2 && live + new > MOST {
                return Reply::Refused("full");
            }
        }
        let numbers = plan.iter().zip(drafts).map(|(known, draft)| known.unwrap_or_else(|| self.insert(draft, now)));
        let numbers: Vec<usize> = numbers.collect();
        if plan.iter().any(Option::is_none)
            && let Some(key) = key
        {
            self.keys.insert(key, (drafts.to_vec(), numbers.clone(), now + 24 * 3_600_000));
        }
        Reply::Accepted(numbers)
    }

    fn insert(&mut self, draft: &Draft, now: i64) -> usize {
        let due = match draft.when {
            When::Now => now,
            When::Delay(ms) => now + ms,
            When::At(ms) => now.max(now + ms),
        };
        let number = self.tasks.len();
        let seen = Seen {
            number,
            queue: draft.queue,
            status: Status::Scheduled,
            due: None,
            series: 1,
            attempts: 0,
            attempts_total: 0,
            expires_at: draft.expires_in.map(|ms| now + ms),
            reason: None,
        };
        self.tasks.push(Task { draft: draft.clone(), seen, due, ahead: false, gone: false });
        number
    }

    fn one(&mut self, action: TaskAction, number: usize, now: i64) -> Reply {
        let task = &mut self.tasks[number];
        let status = task.seen.status;
        let dead_letter = status == Status::Dead;
        match action {
            _ if task.gone => return Reply::Refused("not found"),
            TaskAction::Cancel if status == Status::Cancelled => {}
            TaskAction::Cancel if !status.has_ended() => {
                task.seen.status = Status::Cancelled;
                let freed = self.slip == Some(Slip::CancelledFreesItsSlot);
                self.held.retain_mut(|held| {
                    held.cancelled |= held.number == number;
                    !(freed && held.number == number)
                });
            }
            TaskAction::Run if !status.has_ended() && status != Status::Running => {
                if !task.ahead {
                    (task.ahead, task.due) = (true, now);
                }
            }
            TaskAction::Redrive if dead_letter => self.redrive(number, now),
            TaskAction::Purge if dead_letter => task.gone = true,
            TaskAction::Cancel | TaskAction::Run | TaskAction::Redrive | TaskAction::Purge => {
                return Reply::Refused("state");
            }
        }
        Reply::Task(number, self.status(number, now))
    }

    fn redrive(&mut self, number: usize, now: i64) {
        let slip = self.slip == Some(Slip::RedriveCountsOn);
        let task = &mut self.tasks[number];
        let seen = &mut task.seen;
        (seen.status, seen.reason) = (Status::Queued, None);
        (seen.series, seen.attempts) = (seen.series + 1, if slip { seen.attempts } else { 0 });
        seen.expires_at = seen.expires_at.filter(|at| *at > now);
        (task.due, task.ahead) = (now, false);
    }

    fn several(&mut self, action: BulkAction, of: &[usize], now: i64) -> Reply {
        let mut done = 0;
        for number in of.iter().filter(|_| !self.tasks.is_empty()).map(|of| of % self.tasks.len()).collect::<Vec<_>>() {
            let one = if action == BulkAction::Redrive { TaskAction::Redrive } else { TaskAction::Purge };
            done += u64::from(matches!(self.one(one, number, now), Reply::Task(..)));
        }
        Reply::Done(done)
    }

    /// An attempt comes to its end.
    fn ends(&mut self, of: usize, came: Came, now: i64) -> Reply {
        let held = self.held.remove(of);
        if !held.cancelled {
            self.settle(held.number, came, now);
        }
        Reply::Nothing
    }

    fn settle(&mut self, number: usize, came: Came, now: i64) {
        let more = u32::from(self.slip == Some(Slip::OneAttemptMore));
        let task = &mut self.tasks[number];
        let (draft, seen) = (&task.draft, &mut task.seen);
        if came == Came::Released {
            (seen.attempts, seen.attempts_total) = (seen.attempts - 1, seen.attempts_total - 1);
            (seen.status, task.due) = (Status::Queued, task.due.min(now));
            return;
        }
        task.ahead = false;
        let doublings = (seen.attempts - 1).min(draft.doublings);
        let mut wait = draft.min_backoff << doublings;
        if seen.attempts - 1 > draft.doublings {
            wait = (draft.min_backoff << draft.doublings) * i64::from(seen.attempts - draft.doublings);
        }
        wait = wait.min(draft.max_backoff);
        if let Came::Busy(secs) = came {
            wait = wait.max((secs * 1_000).min(draft.max_backoff));
        }
        let end = match came {
            Came::Well => Some((Status::Succeeded, None)),
            Came::Refused => Some((Status::Dead, Some("permanent_status"))),
            _ if seen.attempts >= draft.attempts + more => Some((Status::Dead, Some("max_attempts"))),
            _ if seen.expires_at.is_some_and(|at| now + wait >= at) => Some((Status::Expired, None)),
            Came::Badly | Came::Busy(_) | Came::Cut | Came::Released => None,
        };
        (seen.status, seen.reason) = end.unwrap_or((Status::Retrying, None));
        if seen.status == Status::Retrying {
            task.due = now + wait;
        }
    }

    /// What ran was cut off; whoever starts again knows nothing of slots.
    fn crash(&mut self, now: i64) -> Reply {
        for held in std::mem::take(&mut self.held) {
            if !held.cancelled {
                self.settle(held.number, Came::Cut, now);
            }
        }
        Reply::Nothing
    }

    fn expire(&mut self, now: i64) {
        for task in self.tasks.iter_mut().filter(|task| !task.gone) {
            let waits = !task.seen.status.has_ended() && task.seen.status != Status::Running;
            if waits && task.seen.expires_at.is_some_and(|at| at <= now) {
                task.seen.status = Status::Expired;
            }
        }
    }

    fn start(&mut self, now: i64) -> Vec<usize> {
        let mut started = Vec::new();
        for queue in (0..QUEUES).filter(|queue| !self.paused[*queue]) {
            let mut ready: Vec<usize> = (0..self.tasks.len())
                .filter(|number| {
                    self.tasks[*number].draft.queue == queue && self.status(*number, now) == Status::Queued
                })
                .collect();
            ready.sort_by_key(|number| self.rank(*number));
            let taken = self.held.iter().filter(|held| self.tasks[held.number].draft.queue == queue).count();
            started.extend(ready.into_iter().take(self.slots[queue].saturating_sub(taken)));
        }
        started.sort_unstable();
        for number in &started {
            let seen = &mut self.tasks[*number].seen;
            seen.status = Status::Running;
            (seen.attempts, seen.attempts_total) = (seen.attempts + 1, seen.attempts_total + 1);
            self.held.push(Held { number: *number, total: seen.attempts_total, cancelled: false });
        }
        self.held.sort_by_key(|held| (held.number, held.total));
        started
    }

    /// Who starts first: whoever was put ahead; then by due time, a level of priority being worth ten minutes (in queue
    /// 1, priority alone); then by acceptance.
    fn rank(&self, number: usize) -> (bool, i64, i64, usize) {
        let task = &self.tasks[number];
        let level = if self.slip == Some(Slip::PriorityIsNothing) { 0 } else { i64::from(task.draft.priority) };
        match (task.ahead, task.draft.queue) {
            (true, _) => (false, task.due, 0, number),
            (false, 1) => (true, -level, task.due, number),
            (false, _) => (true, task.due - level * 600_000, 0, number),
        }
    }

    fn status(&self, number: usize, now: i64) -> Status {
        let task = &self.tasks[number];
        let waits = matches!(task.seen.status, Status::Scheduled | Status::Retrying);
        if waits && task.due <= now { Status::Queued } else { task.seen.status }
    }

    /// Every task there is.
    pub(super) fn all(&self, now: i64) -> Vec<Seen> {
        let there = self.tasks.iter().filter(|task| !task.gone);
        let seen = there.map(|task| {
            let status = self.status(task.seen.number, now);
            let waits = !status.has_ended() && status != Status::Running;
            Seen { status, due: waits.then_some(task.due), ..task.seen.clone() }
        });
        seen.collect()
    }

    pub(super) fn held(&self) -> Vec<(usize, u32)> {
        self.held.iter().map(|held| (held.number, held.total)).collect()
    }
}

fn named(one: &Draft, other: &Draft) -> bool {
    one.name.is_some() && one.name == other.name
}
