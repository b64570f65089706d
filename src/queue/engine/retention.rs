//! Retention: ended tasks are removed in small steps, oldest first, by age, count and bytes.

use crate::logging::event::{Removal, Removed};
use crate::queue::store::{OldestEnded, Row};
use crate::task::limits::CHUNK_TASKS_MAX;
use crate::task::{Status, WallMs};

use super::core::{Core, Turn};

impl Core {
    /// The ended tasks that retention should look at now, one queue at a time; `None` when all is well.
    ///
    /// Nothing is removed on a clock that has jumped until it has agreed with itself for a while.
    pub(super) fn retention_due(&self, now: WallMs) -> Option<OldestEnded> {
        if !self.scheduler.clock_trusted() {
            return None;
        }
        self.queues.iter().find_map(|(id, queue)| {
            let done = queue.done.needs_look(queue.config.retention, now);
            let dead = queue.dead.needs_look(queue.config.dead_letters, now);
            (done || dead).then_some(OldestEnded { queue: *id, dead: !done, limit: CHUNK_TASKS_MAX })
        })
    }

    /// Removes, of the oldest ended tasks of one queue, those that its bounds do not allow.
    /// Tells whether there may be more.
    pub(super) fn sweep(&mut self, turn: &mut Turn<'_>, look: &OldestEnded, rows: Vec<Row>) -> bool {
        let status = if look.dead { Status::Dead } else { Status::Succeeded };
        let mut removed = 0_u64;
        let all = u32::try_from(rows.len()).is_ok_and(|len| len < look.limit);
        let mut next_look = None;
        for row in rows {
            let Some(queue) = self.queues.get_mut(&look.queue) else { return false };
            let (kept, bound) = queue.kept_mut(status);
            let of_age = bound.age.map(|age| row.header.changed_at.plus(age.to_duration()));
            if !kept.over_size(bound) && of_age.is_none_or(|at| at > turn.now.wall) {
                next_look = of_age;
                break;
            }
            self.remove(turn, &row);
            removed += 1;
        }
        let Some(queue) = self.queues.get_mut(&look.queue) else { return false };
        let name = queue.name.clone();
        let (kept, bound) = queue.kept_mut(status);
        if removed == 0 && all && next_look.is_none() {
            // The store has fewer than were counted: count anew from nothing rather than look for ever.
            kept.count = 0;
            kept.bytes = 0;
        }
        kept.look_at = next_look.or_else(|| (removed > 0 && bound.age.is_some()).then_some(turn.now.wall));
        if removed > 0 {
            let why = if look.dead { Removal::DeadLetterBound } else { Removal::Retention };
            turn.step.events.push(Removed { queue: name, count: removed, why }.into());
        }
        removed > 0
    }
}
