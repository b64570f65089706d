//! What one turn of the engine decided: everything that leaves it, held back until the commit.

use crate::logging::event::Event;
use crate::queue::command::{Accepted, Answer};
use crate::queue::lease::Work;
use crate::queue::store::Change;
use crate::task::{Status, TaskKey};

use super::draft::Draft;

/// Which request an answer belongs to: its place among the requests of the turn.
pub type Ticket = usize;

/// The decisions of one turn. Nothing in here may leave before `changes` are durable.
#[derive(Debug, Default)]
pub struct Step {
    /// What to write, in order.
    pub changes: Vec<Change>,
    /// What to answer.
    pub answers: Vec<(Ticket, Answer)>,
    /// Which attempts to start.
    pub leases: Vec<Work>,
    /// Which running attempts to abort.
    pub aborts: Vec<TaskKey>,
    /// Which tasks have ended.
    pub ended: Vec<TaskKey>,
    /// What to log and count.
    pub events: Vec<Event>,
}

impl Step {
    /// Brings the rows in answers up to the commit: a task may have been accepted and started in one.
    pub(super) fn show(&mut self, draft: &Draft) {
        for (_, answer) in &mut self.answers {
            let row = match answer {
                Answer::Accept(Ok(Accepted::New { first, .. })) => first,
                Answer::Task(Ok(row)) => row,
                Answer::Accept(_) | Answer::Task(_) | Answer::Chunk(_) | Answer::Queues(_) | Answer::Configured => {
                    continue;
                }
            };
            if let Some(seen) = draft.row(row.header.key).filter(|seen| seen.header.status == Status::Running) {
                **row = seen.clone();
            }
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers.push((ticket, answer));
    }
}
