//! What callers do to one task: cancel, run now, redrive, purge; and the chunks of bulk work.

use crate::logging::event::{PutAhead, Redriven, Removal, Removed, TaskEnded};
use crate::queue::command::{BulkAction, TaskActionError};
use crate::queue::store::{Change, Row};
use crate::task::outcome::OutcomeClass;
use crate::task::{Attempt, Header, NoCredential, Span, Status, TaskId, TaskRef, WallMs};

use super::core::{Core, Turn};

impl Core {
    /// Cancels a task; a running attempt is aborted, and keeps its slots until it has really ended.
    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, row: Row) -> Result<Row, TaskActionError> {
        let old = row.header.clone();
        if old.status == Status::Cancelled {
            return Ok(row);
        }
        if old.status.has_ended() {
            return Err(wrong_state(&old));
        }
        let mut new = next(&old, Status::Cancelled, turn.now.wall);
        let mut attempt = None;
        if old.status == Status::Running {
            self.running.remove(&old.key);
            self.aborting.insert((old.key, old.epoch), (old.queue, old.lane));
            turn.step.aborts.push(old.key);
            new.last_class = Some(OutcomeClass::Interrupted);
            new.last_http_status = None;
            attempt = Some(cut_off(&old, turn.now.wall, "cancelled while it ran"));
        } else {
            self.no_longer_waits(&old);
        }
        turn.step.changes.push(Change::end(&old, new.clone(), attempt));
        Ok(self.ended(turn, row, new))
    }

    /// Puts a waiting task ahead of its queue, due now.
    pub(super) fn put_ahead(&mut self, turn: &mut Turn<'_>, row: Row) -> Result<Row, TaskActionError> {
        let old = row.header.clone();
        if !old.status.is_waiting() {
            return Err(wrong_state(&old));
        }
        if old.ahead {
            return Ok(row);
        }
        let mut new = next(&old, Status::Queued, old.changed_at);
        new.ahead = true;
        new.due = self.scheduler.due_after(Span::default(), turn.now);
        new.due_on_wall = false;
        self.no_longer_waits(&old);
        self.wait(turn.now, &new);
        turn.step.changes.push(Change::put_ahead(&old, new.clone()));
        turn.step.events.push(PutAhead { id: new.id(), queue: row.queue.clone() }.into());
        Ok(keep(turn, row, new))
    }

    /// Puts a dead letter back into its queue, due now: a new series of attempts.
    pub(super) fn redrive(&mut self, turn: &mut Turn<'_>, row: Row) -> Result<Row, TaskActionError> {
        let old = row.header.clone();
        if old.status != Status::Dead {
            return Err(wrong_state(&old));
        }
        let mut new = next(&old, Status::Queued, turn.now.wall);
        new.series += 1;
        new.attempts = 0;
        new.first_dispatched_at = None;
        new.give_up_at = None;
        new.dead_reason = None;
        new.no_credential = NoCredential::default();
        new.ahead = false;
        new.due = self.scheduler.due_after(Span::default(), turn.now);
        new.due_on_wall = false;
        // Whoever redrives wants it done: an expiry that has passed meanwhile no longer holds.
        new.expires_at = old.expires_at.filter(|at| *at > turn.now.wall);
        turn.step.changes.push(Change::redrive(&old, new.clone()));
        self.moved(&old, &new);
        self.wait(turn.now, &new);
        turn.step.events.push(Redriven { id: new.id(), queue: row.queue.clone(), series: new.series }.into());
        Ok(keep(turn, row, new))
    }

    /// Removes a dead letter.
    pub(super) fn purge(&mut self, turn: &mut Turn<'_>, row: Row) -> Result<Row, TaskActionError> {
        if row.header.status != Status::Dead {
            return Err(wrong_state(&row.header));
        }
        self.remove(turn, &row);
        turn.step.events.push(Removed { queue: row.queue.clone(), count: 1, why: Removal::Purge }.into());
        Ok(row)
    }

    /// Removes an ended task and all its traces but the idempotency key.
    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, row: &Row) {
        turn.step.changes.push(Change::remove(&row.header));
        turn.draft.forget(row);
        if let Some(queue) = self.queues.get_mut(&row.header.queue) {
            queue.leave(&row.header);
        }
    }

    /// One chunk of bulk work; those that are no dead letters any more are passed over. Answers how many were done.
    pub(super) fn chunk(&mut self, turn: &mut Turn<'_>, action: BulkAction, ids: &[TaskId]) -> u64 {
        let mut done = 0;
        for id in ids {
            let Some(row) = turn.draft.find(&TaskRef::by_id(*id)).cloned() else { continue };
            let result = match action {
                BulkAction::Redrive => self.redrive(turn, row),
                BulkAction::Purge => self.purge(turn, row),
            };
            done += u64::from(result.is_ok());
        }
        done
    }

    /// A task has ended: counts, waiters, log.
    pub(super) fn ended(&mut self, turn: &mut Turn<'_>, row: Row, new: Header) -> Row {
        self.moved(&row.header, &new);
        turn.step.ended.push(new.key);
        if new.status != Status::Dead {
            // A dead letter says so itself, with its whole reason.
            let (id, queue) = (new.id(), row.queue.clone());
            turn.step.events.push(TaskEnded { id, queue, status: new.status, attempts: new.attempts }.into());
        }
        keep(turn, row, new)
    }
}

/// The header that follows `old`: one epoch further, not running, in this state since `at`.
pub(super) fn next(old: &Header, status: Status, at: WallMs) -> Header {
    Header { status, epoch: old.epoch + 1, lease: None, lease_until: None, changed_at: at, ..old.clone() }
}

/// The row with its new header, kept for the rest of the turn.
pub(super) fn keep(turn: &mut Turn<'_>, row: Row, header: Header) -> Row {
    let row = Row { header, ..row };
    turn.draft.put(row.clone());
    row
}

/// The record of an attempt that was cut off at `at`.
pub(super) fn cut_off(running: &Header, at: WallMs, error: &str) -> Attempt {
    Attempt {
        ordinal: running.attempts_total,
        series: running.series,
        number: running.attempts,
        started_at: running.changed_at,
        took: Span::from_millis(u64::try_from(at.since(running.changed_at).as_millis()).unwrap_or(u64::MAX)),
        class: OutcomeClass::Interrupted,
        http_status: None,
        error: Some(error.to_owned()),
        response_head: bytes::Bytes::new(),
    }
}

fn wrong_state(header: &Header) -> TaskActionError {
    TaskActionError::WrongState { status: header.status }
}
