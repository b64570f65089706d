//! What one turn of the engine decided: everything that leaves it, held back until the commit.

use crate::logging::event::Event;
use crate::queue::command::Answer;
use crate::queue::lease::Work;
use crate::queue::store::Change;
use crate::task::TaskKey;

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
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers.push((ticket, answer));
    }
}
