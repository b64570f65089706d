//! The decision core: all live state, and the pure functions that change it.
//!
//! Time, chance and rows come in as arguments; what is to be written, answered and started goes out in a [`Step`].
//! There is no async, no disk and no network here, so days of the whole queue can be simulated in seconds from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{Chance, Now};
use crate::config::{Config, QueueConfig};
use crate::logging::event::{QueuePaused, QueueResumed};
use crate::queue::command::{Answer, QueueView, Request, TaskAction, TaskActionError};
use crate::queue::store::{Change, NameKind, Pressure, Row, UniqueId, UniqueKind, task_name_hash};
use crate::scheduler::{Scheduler, Waiting};
use crate::task::header::NameId;
use crate::task::{Body, Header, KeyCounter, LaneName, QueueName, Status, TaskKey, TaskRef};

use super::draft::Draft;
use super::queue_state::QueueState;
use super::step::{Step, Ticket};

/// A task whose attempt is running.
#[derive(Debug)]
pub(super) struct Running {
    /// Its row, as committed with the start.
    pub(super) row: Row,
    /// Its body: the retry settings are needed when it settles.
    pub(super) body: Arc<Body>,
}

/// The arguments of every decision.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// The time.
    pub(super) now: Now,
    /// Chance.
    pub(super) chance: &'a mut Chance,
    /// The rows of this turn.
    pub(super) draft: &'a mut Draft,
    /// What was decided so far.
    pub(super) step: &'a mut Step,
}

/// All live state of one shard.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) scheduler: Scheduler,
    pub(super) queues: BTreeMap<NameId, QueueState>,
    pub(super) queue_ids: BTreeMap<QueueName, NameId>,
    pub(super) lane_ids: BTreeMap<LaneName, NameId>,
    pub(super) lane_names: BTreeMap<NameId, LaneName>,
    pub(super) next_name: u32,
    pub(super) keys: KeyCounter,
    pub(super) running: BTreeMap<TaskKey, Running>,
    /// Attempts whose task was cancelled: they hold their slots until they have really ended.
    pub(super) aborting: BTreeMap<(TaskKey, u32), (NameId, NameId)>,
    pub(super) pressure: Pressure,
    /// Whether new attempts may start: not while the server drains.
    pub(super) starting: bool,
    pub(super) queue_defaults: Arc<QueueConfig>,
}

impl Core {
    /// A core without tasks; [`super::recover`] fills it.
    pub(super) fn new(config: &Config, now: Now) -> Self {
        Self {
            scheduler: Scheduler::new(config.workers.max_concurrent, config.hosts.clone(), now),
            queues: BTreeMap::new(),
            queue_ids: BTreeMap::new(),
            lane_ids: BTreeMap::new(),
            lane_names: BTreeMap::new(),
            next_name: 1,
            keys: KeyCounter::after(None, 0),
            running: BTreeMap::new(),
            aborting: BTreeMap::new(),
            pressure: Pressure::Normal,
            starting: true,
            queue_defaults: Arc::new(config.queue_defaults.clone()),
        }
    }

    /// Which rows and keys a request names.
    pub(super) fn needs(request: &Request, refs: &mut Vec<TaskRef>, unique: &mut Vec<UniqueId>) {
        match request {
            Request::Accept(accept) => {
                unique.extend(accept.idempotency.map(|key| UniqueId { kind: UniqueKind::Idempotency, hash: key.hash }));
                for name in accept.specs.iter().filter_map(|spec| spec.name.as_ref()) {
                    unique.push(UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) });
                }
            }
            Request::Task(_, task) => refs.push(task.clone()),
            Request::Chunk(_, ids) => refs.extend(ids.iter().copied().map(TaskRef::by_id)),
            Request::Pause(..) | Request::Queues(_) | Request::Configure(_) => {}
        }
    }

    /// Decides on one request.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: Request) {
        let answer = match request {
            Request::Accept(accept) => Answer::Accept(self.accept(turn, *accept)),
            Request::Task(action, task) => Answer::Task(self.act(turn, action, &task).map(Box::new)),
            Request::Chunk(action, ids) => Answer::Chunk(self.chunk(turn, action, &ids)),
            Request::Pause(queue, paused) => Answer::Queues(self.pause(turn, &queue, paused)),
            Request::Queues(queue) => Answer::Queues(self.views(queue.as_ref())),
            Request::Configure(config) => {
                self.configure(turn, &config);
                Answer::Configured
            }
        };
        turn.step.answer(ticket, answer);
    }

    fn act(&mut self, turn: &mut Turn<'_>, action: TaskAction, task: &TaskRef) -> Result<Row, TaskActionError> {
        let Some(row) = turn.draft.find(task).cloned() else {
            let damage = turn.draft.name_damage(task).cloned();
            return Err(damage.map_or(TaskActionError::NotFound, TaskActionError::KeyDamaged));
        };
        match action {
            TaskAction::Cancel => self.cancel(turn, row),
            TaskAction::Run => self.put_ahead(turn, row),
            TaskAction::Redrive => self.redrive(turn, row),
            TaskAction::Purge => self.purge(turn, row),
        }
    }

    fn pause(&mut self, turn: &mut Turn<'_>, queue: &QueueName, paused: bool) -> Vec<QueueView> {
        let Some(id) = self.queue_ids.get(queue).copied() else { return Vec::new() };
        let Some(state) = self.queues.get_mut(&id) else { return Vec::new() };
        if state.starts_nothing() != paused {
            self.scheduler.set_paused(id, paused);
            // Whoever resumes a queue that is held lets its tasks go, though no configuration names it.
            state.held = false;
            let name = queue.clone();
            turn.step.events.push(if paused {
                QueuePaused { queue: name }.into()
            } else {
                QueueResumed { queue: name }.into()
            });
        }
        if state.paused != paused {
            state.paused = paused;
            turn.step.changes.push(Change::pause(id, paused));
        }
        self.views(Some(queue))
    }

    /// How one queue stands, or all, by name.
    pub(super) fn views(&self, queue: Option<&QueueName>) -> Vec<QueueView> {
        let wanted = |name: &QueueName| queue.is_none_or(|queue| queue == name);
        let ids = self.queue_ids.iter().filter(|(name, _)| wanted(name)).map(|(_, id)| *id);
        ids.filter_map(|id| Some(self.view(id, self.queues.get(&id)?))).collect()
    }

    fn view(&self, id: NameId, state: &QueueState) -> QueueView {
        let counts = self.scheduler.counts(id);
        let mut tasks = state.ended;
        for (status, count) in [
            (Status::Scheduled, counts.scheduled),
            (Status::Queued, counts.queued),
            (Status::Retrying, counts.retrying),
            (Status::Running, counts.running),
        ] {
            if let Some(slot) = tasks.get_mut(status.index()) {
                *slot = count;
            }
        }
        QueueView {
            name: state.name.clone(),
            config: Arc::clone(&state.config),
            configured: state.configured,
            paused: state.starts_nothing(),
            tasks,
            bytes: state.live_bytes,
            oldest_ready: counts.oldest_ready,
            dead: state.dead_by_reason.iter().map(|(reason, count)| (*reason, *count)).collect(),
        }
    }

    /// The number of a lane; a new one is named in this commit.
    pub(super) fn lane(&mut self, step: &mut Step, name: &LaneName) -> NameId {
        if let Some(id) = self.lane_ids.get(name) {
            return *id;
        }
        let id = self.new_name();
        step.changes.push(Change::name(NameKind::Lane, id, Arc::from(name.as_str())));
        self.know_lane(id, name.clone());
        id
    }

    pub(super) fn knows_lane(&self, id: NameId) -> bool {
        self.lane_names.contains_key(&id)
    }

    pub(super) fn know_lane(&mut self, id: NameId, name: LaneName) {
        self.scheduler.name_lane(id, &name);
        self.lane_names.insert(id, name.clone());
        self.lane_ids.insert(name, id);
        self.next_name = self.next_name.max(id.0 + 1);
    }

    pub(super) fn new_name(&mut self) -> NameId {
        let id = NameId(self.next_name);
        self.next_name += 1;
        id
    }

    /// A task moved from one header to another: every count that hangs on it follows.
    pub(super) fn moved(&mut self, old: &Header, new: &Header) {
        if let Some(queue) = self.queues.get_mut(&old.queue) {
            queue.leave(old);
            queue.enter(new);
        }
    }

    /// Puts a task that waits into the order.
    pub(super) fn wait(&mut self, now: Now, header: &Header) {
        self.scheduler.insert(&Waiting::of(header), now);
    }

    /// Takes a task that waited out of the order.
    pub(super) fn no_longer_waits(&mut self, header: &Header) {
        let was_there = self.scheduler.remove(&Waiting::of(header));
        debug_assert!(was_there, "a waiting task is in the order: {header:?}");
    }

    /// The retry policy in force for a task: its own words over its queue's.
    pub(super) fn policy(&self, queue: NameId, body: &Body) -> crate::task::RetryPolicy {
        let config = self.queues.get(&queue).map_or(&self.queue_defaults, |queue| &queue.config);
        config.retry.with(&body.retry)
    }
}
