//! Starting attempts: the scheduler says which, the rows say whether.

use std::sync::Arc;

use crate::logging::event::{AttemptStarted, IndexMismatch};
use crate::queue::lease::Work;
use crate::queue::store::{Change, Row};
use crate::scheduler::Pick;
use crate::task::header::LeaseKind;
use crate::task::limits::TIMEOUT_DEFAULT;
use crate::task::{Body, Header, Status};

use super::act::{keep, next};
use super::core::{Core, Running, Turn};

impl Core {
    /// The next task to start, with its slots taken; `None` when nothing may start now.
    pub(super) fn pick(&mut self, turn: &Turn<'_>) -> Option<Pick> {
        if self.starting { self.scheduler.pick(turn.now) } else { None }
    }

    /// Starts the attempt of a picked task, if its row allows it.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>, pick: &Pick) {
        let row = turn.draft.row(pick.key).filter(|row| row.header.status.is_waiting()).cloned();
        let Some(row) = row else {
            // The index says that it waits, its record says otherwise: believe the record.
            self.scheduler.finish(pick.queue, pick.lane);
            turn.step.events.push(IndexMismatch { key: pick.key }.into());
            return;
        };
        match &row.body {
            Err(damage) => {
                self.scheduler.finish(pick.queue, pick.lane);
                let what = damage.what.clone();
                self.condemn(turn, row, &what);
            }
            Ok(_) if self.is_overdue(turn, &row.header) => {
                self.scheduler.finish(pick.queue, pick.lane);
                self.end_picked_overdue(turn, row);
            }
            Ok(body) => {
                let body = Arc::clone(body);
                self.lease(turn, row, body);
            }
        }
    }

    fn is_overdue(&self, turn: &Turn<'_>, header: &Header) -> bool {
        let deadline = header.expires_at.into_iter().chain(header.give_up_at).min();
        self.scheduler.clock_trusted() && deadline.is_some_and(|at| at <= turn.now.wall)
    }

    fn lease(&mut self, turn: &mut Turn<'_>, row: Row, body: Arc<Body>) {
        let old = row.header.clone();
        let mut new = next(&old, Status::Running, turn.now.wall);
        new.attempts += 1;
        new.attempts_total += 1;
        new.lease = Some(LeaseKind::Pool);
        new.first_dispatched_at = Some(old.first_dispatched_at.unwrap_or(turn.now.wall));
        turn.step.changes.push(Change::start(&old, new.clone()));
        let policy = self.policy(old.queue, &body);
        let started = AttemptStarted {
            id: new.id(),
            queue: row.queue.clone(),
            attempt: new.attempts,
            lag: turn.now.wall.since(old.due),
        };
        turn.step.events.push(started.into());
        turn.step.leases.push(Work {
            header: new.clone(),
            queue: row.queue.clone(),
            lane: row.lane.clone(),
            body: Arc::clone(&body),
            timeout: body.timeout.unwrap_or(TIMEOUT_DEFAULT),
            max_attempts: policy.max_attempts,
            previous: old.last_class.map(|class| (class, old.last_http_status)),
        });
        let row = keep(turn, row, new);
        self.running.insert(row.header.key, Running { row, body });
    }
}
