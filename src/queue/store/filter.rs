//! Which tasks a list shows: one meaning of a filter for every store.

use crate::task::header::NameId;
use crate::task::{Body, Header, QueueName};

use super::{Row, TaskFilter};

impl TaskFilter {
    /// Whether the header passes; `queue` is the number of the queue asked for, `name_of` has the names of all.
    ///
    /// Looked at first, because the header is at hand and the body is not.
    pub(super) fn admits_header(
        &self,
        header: &Header,
        queue: Option<NameId>,
        name_of: impl FnOnce(NameId) -> Option<QueueName>,
    ) -> bool {
        queue.is_none_or(|queue| queue == header.queue)
            && self.visible.as_ref().is_none_or(|globs| name_of(header.queue).is_some_and(|name| globs.admits(&name)))
            && self.status.is_none_or(|status| status == self.at.map_or(header.status, |at| header.status_at(at)))
            && (self.dead_reason.is_none() || self.dead_reason == header.dead_reason)
    }

    /// Whether the row passes what only the body can answer. A damaged body has neither type nor labels.
    pub(super) fn admits_body(&self, row: &Row) -> bool {
        if self.task_type.is_none() && self.labels.is_empty() {
            return true;
        }
        row.body.as_ref().is_ok_and(|body| self.admits(body))
    }

    fn admits(&self, body: &Body) -> bool {
        self.task_type.as_ref().is_none_or(|task_type| *task_type == body.task_type)
            && self.labels.iter().all(|label| body.labels.contains(label))
    }
}
