//! Opening: the index is rebuilt from the store's headers, and what the dead process left open is closed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::config::Config;
use crate::queue::store::{Change, NameKind, Recovered, Row, placeholder};
use crate::scheduler::Waiting;
use crate::task::header::NameId;
use crate::task::{Header, KeyCounter, LaneName, Outcome, OutcomeClass, QueueName, Status, TaskKey};

use super::core::{Core, Running, Turn};
use super::reckon::{LastSeen, put_right};

/// What was read so far, before it becomes a core.
#[derive(Debug)]
pub(super) struct Recovering {
    core: Core,
    config: Config,
    waiting: Vec<Waiting>,
    last_key: Option<TaskKey>,
    /// Waiting tasks whose times are put right.
    changes: Vec<Change>,
    /// The newest moment that the store knows.
    pub(super) seen: LastSeen,
    /// Tasks whose attempt died with the process, and live ones whose record is damaged.
    pub(super) open: Vec<TaskKey>,
    /// Live tasks with damaged records.
    pub(super) damaged: u64,
    /// Damaged names and pauses.
    pub(super) beside: u64,
    /// Names that tasks have and the store has not (or only damaged): these tasks cannot be trusted to run.
    pub(super) placeholders: BTreeSet<(NameKind, NameId)>,
    /// Tasks read.
    pub(super) tasks: u64,
    now: Now,
}

impl Recovering {
    pub(super) fn new(config: &Config, now: Now) -> Self {
        Self {
            core: Core::new(config, now),
            config: config.clone(),
            waiting: Vec::new(),
            last_key: None,
            changes: Vec::new(),
            seen: LastSeen::default(),
            open: Vec::new(),
            damaged: 0,
            beside: 0,
            placeholders: BTreeSet::new(),
            tasks: 0,
            now,
        }
    }

    /// Takes in one thing that the store remembers.
    pub(super) fn take(&mut self, recovered: Recovered) {
        match recovered {
            Recovered::Name { kind, id, text } => self.name(kind, id, &text),
            Recovered::Paused(id) => {
                if let Some(queue) = self.core.queues.get_mut(&id) {
                    queue.paused = true;
                }
            }
            Recovered::Damaged => self.beside += 1,
            Recovered::Task { header, damage } => self.task(&header, damage.is_some()),
        }
    }

    fn name(&mut self, kind: NameKind, id: NameId, text: &Arc<str>) {
        self.core.next_name = self.core.next_name.max(id.0 + 1);
        match kind {
            NameKind::Lane => self.core.know_lane(id, LaneName::new(text)),
            NameKind::Queue => {
                if let Ok(name) = QueueName::parse(text) {
                    self.core.know_queue(&self.config, id, &name);
                }
            }
        }
    }

    fn task(&mut self, header: &Header, damaged: bool) {
        self.tasks += 1;
        self.last_key = self.last_key.max(Some(header.key));
        // Numbers in a damaged header may be anything.
        let damaged = damaged || self.lacks_a_name(header);
        if let Some(queue) = self.core.queues.get_mut(&header.queue) {
            queue.enter(header);
        }
        if !damaged {
            self.seen.learn(header);
        }
        if damaged && !header.status.has_ended() {
            self.damaged += 1;
            self.open.push(header.key);
        } else if header.status.is_waiting() {
            self.wait(header);
        } else if header.status == Status::Running {
            self.open.push(header.key);
        }
    }

    fn wait(&mut self, header: &Header) {
        let Some(right) = put_right(header, self.now.wall) else { return self.waiting.push(Waiting::of(header)) };
        self.waiting.push(Waiting::of(&right));
        self.changes.push(Change::put_right(header, right));
    }

    /// Whether the name of the task's queue or lane is damaged. It gets a placeholder, so that the task can be seen and
    /// can end: to run it in another lane than the one it shares with its like might break a limit.
    fn lacks_a_name(&mut self, header: &Header) -> bool {
        if !self.core.queues.contains_key(&header.queue) {
            self.placeholders.insert((NameKind::Queue, header.queue));
            self.name(NameKind::Queue, header.queue, &Arc::from(placeholder(header.queue)));
        }
        if !self.core.knows_lane(header.lane) {
            self.placeholders.insert((NameKind::Lane, header.lane));
            self.name(NameKind::Lane, header.lane, &Arc::from(placeholder(header.lane)));
        }
        nameless(&self.placeholders, header)
    }

    /// The placeholders as names of their own: committed when their tasks have been ended, so that these may be put
    /// back by whoever knows better, and are not ended again by the next start.
    pub(super) fn placeholder_names(placeholders: &BTreeSet<(NameKind, NameId)>) -> Vec<Change> {
        placeholders.iter().map(|(kind, id)| Change::name(*kind, *id, Arc::from(placeholder(*id)))).collect()
    }

    /// The core, with every waiting task in its order, and what must be committed before the first answer, in as many
    /// commits as it takes: times put right, and the names of queues that are new in the configuration.
    pub(super) fn finish(mut self) -> (Core, Vec<Change>) {
        let known: Vec<NameId> = self.core.queues.keys().copied().collect();
        for id in known {
            self.core.limit_queue(id, self.now);
            if let Some(queue) = self.core.queues.get_mut(&id) {
                queue.done.look_again();
                queue.dead.look_again();
            }
        }
        let mut changes = self.changes;
        changes.extend(self.core.name_new_queues(&self.config, self.now));
        self.core.keys = KeyCounter::after(self.last_key, 0);
        self.core.scheduler.load(self.waiting, self.now);
        (self.core, changes)
    }
}

/// Whether the queue or the lane of a task has only a placeholder for a name.
pub(super) fn nameless(placeholders: &BTreeSet<(NameKind, NameId)>, header: &Header) -> bool {
    placeholders.contains(&(NameKind::Queue, header.queue)) || placeholders.contains(&(NameKind::Lane, header.lane))
}

impl Core {
    /// Closes an attempt that the dead process left open: it counts, and is retried by policy. A damaged record becomes
    /// a dead letter.
    pub(super) fn close_left_open(&mut self, turn: &mut Turn<'_>, row: Row, nameless: bool) {
        match &row.body {
            Ok(_) if nameless => self.condemn(turn, row, "the name of its queue or of its lane is damaged"),
            Ok(body) if row.header.status == Status::Running => {
                let body = Arc::clone(body);
                let outcome = Outcome::without_answer(
                    OutcomeClass::Interrupted,
                    "the server stopped while this attempt ran",
                    Duration::ZERO,
                );
                self.settle_running(turn, Running { row, body }, &outcome);
            }
            Ok(_) => self.condemn(turn, row, "its header was damaged"),
            Err(damage) => {
                let what = damage.what.clone();
                self.condemn(turn, row, &what);
            }
        }
    }
}
