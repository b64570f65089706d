//! The end of an attempt: what is made of its outcome.

use crate::logging::event::{AttemptFinished, DeadLettered, Event, Released, RetryScheduled, StaleSettle};
use crate::queue::lease::Settlement;
use crate::queue::store::{Change, Row};
use crate::sabotage::Sin;
use crate::task::limits::LOOK_AGAIN;
use crate::task::outcome::{DeadReason, OutcomeClass, verdict};
use crate::task::retry::{AfterFailure, SeriesState, WaitState};
use crate::task::{Attempt, Header, NoCredential, Outcome, RetryPolicy, Span, Status, Verdict, WallMs};

use super::act::{keep, next};
use super::core::{Core, Running, Turn};

/// Where a task goes after an attempt.
enum Goes {
    /// It ended.
    Ends(Status, Option<DeadReason>),
    /// It is tried again.
    Waits { delay: Span, start_within: Option<Span> },
}

impl Core {
    /// Records the end of an attempt; refused (and counted) when the lease is not the task's current one.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, settlement: Settlement) {
        let Settlement { key, epoch, outcome } = settlement;
        if let Some((queue, lane)) = self.aborting.remove(&(key, epoch)) {
            // The task was cancelled; only its slots were still held.
            self.scheduler.finish(queue, lane);
            return;
        }
        let current = self.running.get(&key).map(|running| &running.row.header);
        let blind = crate::sabotage::commits(Sin::SettleWithoutEpoch);
        if current.is_none_or(|header| header.epoch != epoch && !blind) {
            let (id, current) = (current.map(Header::id), current.map(|header| header.epoch));
            turn.step.events.push(StaleSettle { id, epoch, current }.into());
            return;
        }
        let Some(running) = self.running.remove(&key) else { return };
        self.scheduler.finish(running.row.header.queue, running.row.header.lane);
        self.settle_running(turn, running, &outcome);
    }

    /// Makes of the outcome what the policy says. Also used for attempts that a dead process left open.
    pub(super) fn settle_running(&mut self, turn: &mut Turn<'_>, running: Running, outcome: &Outcome) {
        let Running { row, body } = running;
        let old = &row.header.clone();
        let policy = self.policy(old.queue, &body);
        let goes = match verdict(outcome, &policy.on_status) {
            Verdict::Done => Goes::Ends(Status::Succeeded, None),
            Verdict::GiveUp(reason) => Goes::Ends(Status::Dead, Some(reason)),
            Verdict::Retry => self.after_failure(turn, old, &policy, outcome),
            Verdict::Wait => self.without_credential(turn, old, &policy, outcome),
            Verdict::Release => return self.release(turn, row, old),
        };
        let mut new = next(old, old.status, turn.now.wall);
        new.ahead = false;
        new.last_class = Some(outcome.class);
        new.last_http_status = outcome.http_status;
        new.interruptions += u32::from(outcome.class == OutcomeClass::Interrupted);
        if outcome.class == OutcomeClass::AuthUnavailable {
            uncount(&mut new, &goes, outcome);
        } else {
            new.no_credential = NoCredential::default();
        }
        let attempt = record(old, outcome);
        let finished = AttemptFinished {
            id: old.id(),
            queue: row.queue.clone(),
            class: outcome.class,
            http_status: outcome.http_status,
            took: outcome.took,
            attempt: old.attempts,
            series: old.series,
        };
        turn.step.events.push(finished.into());
        match goes {
            Goes::Ends(status, reason) => {
                new.status = status;
                new.dead_reason = reason;
                new.give_up_at = None;
                turn.step.changes.push(Change::settle(old, new.clone(), attempt));
                if let Some(reason) = reason {
                    turn.step.events.push(dead_letter(
                        &row,
                        &new,
                        (reason, policy.max_attempts),
                        outcome.error.clone(),
                    ));
                }
                self.ended(turn, row, new);
            }
            Goes::Waits { delay, start_within } => {
                new.status = Status::Retrying;
                new.due = self.scheduler.due_after(delay, turn.now);
                new.due_on_wall = false;
                new.give_up_at = start_within.map(|within| turn.now.wall.plus(within.to_duration()));
                turn.step.changes.push(Change::settle(old, new.clone(), attempt));
                let retry = RetryScheduled {
                    id: new.id(),
                    queue: row.queue.clone(),
                    attempt: new.attempts,
                    max_attempts: policy.max_attempts,
                    delay,
                    class: outcome.class,
                    http_status: outcome.http_status,
                    error: outcome.error.clone(),
                };
                turn.step.events.push(retry.into());
                self.wait(turn.now, &new);
                keep(turn, row, new);
            }
        }
    }

    /// What follows a failure that may be retried. A wall clock that has jumped ends nothing: while it is not trusted
    /// the series counts as young, and the deadlines are looked at again when it is.
    fn after_failure(&self, turn: &mut Turn<'_>, old: &Header, policy: &RetryPolicy, outcome: &Outcome) -> Goes {
        let first = old.first_dispatched_at.unwrap_or(old.changed_at);
        let trusted = self.scheduler.clock_trusted();
        let series = SeriesState {
            attempts: old.attempts,
            elapsed: if trusted { span_between(first, turn.now.wall) } else { Span::default() },
            expires_in: old.expires_at.filter(|_| trusted).map(|at| span_between(turn.now.wall, at)),
        };
        goes(policy.after_failure(series, outcome.retry_after, turn.chance.unit()))
    }

    /// What follows when there was no credential to go with. How long the task may still wait is kept as the moment at
    /// which it is given up, so that a restart does not begin the wait anew.
    fn without_credential(&self, turn: &mut Turn<'_>, old: &Header, policy: &RetryPolicy, outcome: &Outcome) -> Goes {
        let trusted = self.scheduler.clock_trusted();
        let until = |at: WallMs| {
            let left = span_between(turn.now.wall, at).as_millis();
            Span::from_millis(left.saturating_sub(LOOK_AGAIN.as_millis()))
        };
        let given_up_in = old.give_up_at.filter(|_| trusted).map(until);
        let left = match (old.no_credential.waits, given_up_in) {
            (0, Some(series)) => series.min(policy.credential_wait_max),
            (0, None) => policy.credential_wait_max,
            (_, left) => left.unwrap_or(policy.credential_wait_max),
        };
        let wait = WaitState {
            so_far: old.no_credential.once_more(outcome.refused_by_issuer),
            left,
            expires_in: old.expires_at.filter(|_| trusted).map(|at| span_between(turn.now.wall, at)),
        };
        goes(policy.without_credential(wait, outcome.retry_after, turn.chance.unit()))
    }

    /// An attempt that was never handed over: the task goes back to its place, and the attempt was none.
    fn release(&mut self, turn: &mut Turn<'_>, row: Row, old: &Header) {
        let mut new = next(old, Status::Queued, turn.now.wall);
        new.attempts -= u32::from(new.attempts > 0);
        new.attempts_total -= u32::from(new.attempts_total > 0);
        if new.attempts == 0 {
            new.first_dispatched_at = None;
        }
        // It was due when it started, and a clock set back since must not make it wait again.
        new.due = old.due.min(self.scheduler.due_after(Span::default(), turn.now));
        new.due_on_wall = false;
        turn.step.changes.push(Change::release(old, new.clone()));
        turn.step.events.push(Released { id: new.id(), queue: row.queue.clone() }.into());
        self.wait(turn.now, &new);
        keep(turn, row, new);
    }

    /// Ends tasks that waited past their `expires_at`, or past the end of their series.
    pub(super) fn end_overdue(&mut self, turn: &mut Turn<'_>, row: Row) {
        if !row.header.status.is_waiting() {
            return;
        }
        self.no_longer_waits(&row.header);
        self.end_picked_overdue(turn, row);
    }

    /// The same for a task that is out of the order already.
    pub(super) fn end_picked_overdue(&mut self, turn: &mut Turn<'_>, row: Row) {
        let old = row.header.clone();
        let expired = old.expires_at.is_some_and(|at| at <= turn.now.wall);
        let mut new = next(&old, if expired { Status::Expired } else { Status::Dead }, turn.now.wall);
        if !expired {
            let without_credential = old.no_credential.waits > 0;
            let reason = if without_credential { DeadReason::AuthUnavailable } else { DeadReason::MaxRetryDuration };
            new.dead_reason = Some(reason);
            let most = row.body.as_ref().map_or(0, |body| self.policy(new.queue, body).max_attempts);
            turn.step.events.push(dead_letter(&row, &new, (reason, most), None));
        }
        new.give_up_at = None;
        turn.step.changes.push(Change::end(&old, new.clone(), None));
        self.ended(turn, row, new);
    }

    /// A task whose record is damaged is kept for inspection, as a dead letter.
    pub(super) fn condemn(&mut self, turn: &mut Turn<'_>, row: Row, what: &str) {
        let old = row.header.clone();
        let mut new = next(&old, Status::Dead, turn.now.wall);
        new.dead_reason = Some(DeadReason::Corrupt);
        new.last_class = Some(OutcomeClass::Corrupt);
        new.last_http_status = None;
        turn.step.events.push(dead_letter(&row, &new, (DeadReason::Corrupt, 0), Some(what.to_owned())));
        turn.step.changes.push(Change::end(&old, new.clone(), None));
        self.ended(turn, row, new);
    }
}

fn goes(after: AfterFailure) -> Goes {
    match after {
        AfterFailure::Retry { delay, start_within } => Goes::Waits { delay, start_within },
        AfterFailure::Dead(reason) => Goes::Ends(Status::Dead, Some(reason)),
        AfterFailure::Expired => Goes::Ends(Status::Expired, None),
    }
}

/// There was no credential, so this was no attempt. While the task waits, the record of it has the number of the attempt
/// to come, which will replace it; the last one stays.
fn uncount(new: &mut Header, goes: &Goes, outcome: &Outcome) {
    new.attempts -= u32::from(new.attempts > 0);
    if let Goes::Waits { .. } = goes {
        new.attempts_total -= u32::from(new.attempts_total > 0);
    }
    if new.attempts == 0 {
        new.first_dispatched_at = None;
    }
    new.no_credential = new.no_credential.once_more(outcome.refused_by_issuer);
}

fn span_between(earlier: WallMs, later: WallMs) -> Span {
    Span::from_millis(u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX))
}

fn record(old: &Header, outcome: &Outcome) -> Attempt {
    Attempt {
        ordinal: old.attempts_total,
        series: old.series,
        number: old.attempts,
        started_at: old.changed_at,
        took: Span::from_millis(u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX)),
        class: outcome.class,
        http_status: outcome.http_status,
        error: outcome.error.clone(),
        response_head: outcome.response_head.clone(),
    }
}

/// The fact that a task was given up: for this reason, of so many attempts at most.
fn dead_letter(row: &Row, new: &Header, reason: (DeadReason, u32), error: Option<String>) -> Event {
    DeadLettered {
        id: new.id(),
        queue: row.queue.clone(),
        reason: reason.0,
        attempts: new.attempts,
        max_attempts: reason.1,
        series: new.series,
        class: new.last_class,
        http_status: new.last_http_status,
        error,
    }
    .into()
}
