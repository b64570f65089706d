//! What a caller may do and see: the one place where handlers ask, and where what may not be seen is left out.
//!
//! `router` has the scope of each operation, and `layers` refuses callers that do not hold it at all. What is left to ask
//! is of which queues they hold it: an object in a queue that the caller may not see does not exist for this caller.

use std::sync::Arc;

use crate::queue::command::AcceptError;
use crate::queue::store::TaskFilter;
use crate::security::scope::{Reach, Scope, Scopes};
use crate::task::{QueueName, TaskRef, TaskSpec};

use super::error::Problem;
use super::state::Api;

/// Who asks, and what they may do: the scope of an `Idempotency-Key`, and a name for the access log. Never the key or
/// the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The public part of the key; issuer and subject of the token; or a name in the certificate.
    pub id: Arc<str>,
    /// What they may do.
    pub scopes: Arc<Scopes>,
}

/// What of a task a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Its attempts.
    pub(super) attempts: bool,
    /// Its payload, and what its target answered.
    pub(super) payload: bool,
}

impl Caller {
    /// Refuses what the scope does not reach. Who may not even see the queue is answered as if what was asked for did not
    /// exist (`unseen`).
    pub(super) fn permit(&self, scope: Scope, queue: &QueueName, unseen: fn() -> Problem) -> Result<(), Problem> {
        if self.scopes.allow(scope, queue) {
            Ok(())
        } else if self.scopes.allow(Scope::Read, queue) {
            Err(Problem::insufficient_scope(scope))
        } else {
            Err(unseen())
        }
    }

    /// The task, as something that may be acted upon. Unless the scope reaches everywhere this looks up its queue; the
    /// task is then named by its id, so that what is acted upon is what was looked at.
    pub(super) async fn permit_task(&self, api: &Api, scope: Scope, task: TaskRef) -> Result<TaskRef, Problem> {
        if self.scopes.reach(scope) == Reach::Everywhere {
            return Ok(task);
        }
        let record = api.queues().get(task).await?.ok_or_else(Problem::no_task)?;
        self.permit(scope, &record.row.queue, Problem::no_task)?;
        Ok(TaskRef::by_id(record.row.header.id()))
    }

    /// Refuses tasks for queues that the caller may not enqueue to, in the words for a queue that does not exist.
    pub(super) fn permit_specs(&self, specs: &[TaskSpec], in_batch: bool) -> Result<(), Problem> {
        let refused = specs.iter().enumerate().find(|(_, spec)| !self.scopes.allow(Scope::Enqueue, &spec.queue));
        refused.map_or(Ok(()), |(index, spec)| {
            let error = AcceptError::UnknownQueue { index, queue: spec.queue.clone(), nearest: None };
            Err(self.not_accepted(error, in_batch))
        })
    }

    /// Why tasks were not accepted, without the names of queues that the caller may not enqueue to.
    pub(super) fn not_accepted(&self, mut error: AcceptError, in_batch: bool) -> Problem {
        let is_unknown = if let AcceptError::UnknownQueue { nearest, .. } = &mut error {
            *nearest = nearest.take().filter(|name| self.scopes.allow(Scope::Enqueue, name));
            true
        } else {
            false
        };
        let problem = Problem::accept(error, in_batch);
        if is_unknown && self.scopes.reach(Scope::Enqueue) != Reach::Everywhere {
            return problem.noting("; or you may not enqueue to it");
        }
        problem
    }

    /// Narrows a filter to the queues that the scope reaches.
    pub(super) fn narrow(&self, scope: Scope, filter: &mut TaskFilter) {
        filter.visible = match self.scopes.reach(scope) {
            Reach::Everywhere => None,
            Reach::Some(globs) => Some(globs),
        };
    }

    /// Whether the caller may see this queue.
    pub(super) fn sees(&self, queue: &QueueName) -> bool {
        self.scopes.allow(Scope::Read, queue)
    }

    /// What the caller sees of a task in this queue.
    pub(super) fn sight(&self, queue: &QueueName) -> Sight {
        Sight { attempts: self.sees(queue), payload: self.scopes.allow(Scope::ReadPayload, queue) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::error::Code;

    fn caller(scopes: &[&str]) -> Caller {
        Caller { id: Arc::from("test"), scopes: Arc::new(Scopes::parse(scopes.iter().copied()).unwrap()) }
    }

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    #[test]
    fn what_may_be_seen_is_refused_and_what_may_not_is_not_there() {
        let caller = caller(&["read:mail-*", "manage:mail-eu", "enqueue:sms"]);
        let asked =
            |scope, name: &str| caller.permit(scope, &queue(name), Problem::no_task).map_err(|problem| problem.code());
        assert_eq!(asked(Scope::Manage, "mail-eu"), Ok(()));
        assert_eq!(asked(Scope::Manage, "mail-us"), Err(Code::InsufficientScope));
        assert_eq!(asked(Scope::Manage, "sms"), Err(Code::NotFound), "to enqueue is not to see");
        assert_eq!(asked(Scope::Read, "default"), Err(Code::NotFound));
    }

    #[test]
    fn hints_name_no_queue_that_the_caller_may_not_use() {
        let asked = |caller: &Caller, nearest: &str| {
            let nearest = QueueName::parse(nearest).ok();
            let error = AcceptError::UnknownQueue { index: 0, queue: queue("mail-x"), nearest };
            String::from_utf8(caller.not_accepted(error, false).render("r")).unwrap()
        };
        let limited = caller(&["enqueue:mail-*"]);
        assert!(asked(&limited, "mail-y").contains("did you mean `mail-y`?"));
        assert!(!asked(&limited, "nail-x").contains("nail-x"));
        assert!(asked(&limited, "").contains("may not enqueue to it"));
        assert!(!asked(&caller(&["enqueue"]), "").contains("may not enqueue to it"));
    }
}
