//! Accepting tasks: repeats are recognised, limits hold, and all tasks of a request are accepted or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::logging::event::TaskAccepted;
use crate::queue::command::{Accept, AcceptError, Accepted, Idempotency, PublicId};
use crate::queue::store::{Change, IdRange, Pressure, Row, UniqueId, UniqueKind, UniqueRecord, task_name_hash};
use crate::task::header::NameId;
use crate::task::limits::IDEMPOTENCY_WINDOW;
use crate::task::{Body, Header, IdTail, QueueName, Span, Status, TaskKey, TaskSpec, When};

use super::core::{Core, Turn};

/// What is to become of one spec of a request.
enum Plan {
    /// A new task in this queue.
    New(NameId),
    /// Its `task_id` is taken by a task with the same content.
    Repeat(IdRange),
}

impl Core {
    /// Accepts all tasks of a request, or none.
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>, accept: Accept) -> Result<Accepted, AcceptError> {
        if let Some(repeat) = known_key(turn, accept.idempotency, self.scheduler.clock_trusted())? {
            return Ok(repeat);
        }
        let plans = self.plan(turn, &accept)?;
        if let [Plan::Repeat(range)] = plans.as_slice() {
            return Ok(Accepted::Repeat { range: *range, ended: None });
        }
        if let Pressure::BelowReserve { free, reserve } = self.pressure {
            return Err(AcceptError::StorageFull { free, reserve });
        }
        let tail = IdTail::new(turn.chance.draw());
        let mut ids = Vec::with_capacity(plans.len());
        let (mut first_key, mut first_row, mut count) = (None, None, 0);
        let idempotency = accept.idempotency.map(|key| key.hash);
        for (spec, plan) in accept.specs.into_iter().zip(plans) {
            match plan {
                Plan::Repeat(_) => ids.extend(spec.name.map(PublicId::Name)),
                Plan::New(queue) => {
                    let row = self.insert(turn, spec, (queue, tail, idempotency));
                    ids.push(row.public_id());
                    first_key.get_or_insert(row.header.key);
                    first_row.get_or_insert(row);
                    count += 1;
                }
            }
        }
        let (Some(first), Some(row)) = (first_key, first_row) else {
            // Every task of a batch was a repeat of a named one: nothing is new, and all of them exist.
            return Ok(Accepted::Existing { ids });
        };
        if let Some(key) = accept.idempotency {
            let until = Some(turn.now.wall.plus(IDEMPOTENCY_WINDOW.to_duration()));
            let id = UniqueId { kind: UniqueKind::Idempotency, hash: key.hash };
            let range = IdRange { first, count, tail, until };
            take(turn, UniqueRecord { id, range, digest: key.digest, ended: None });
        }
        Ok(Accepted::New { ids, first: Box::new(row) })
    }

    /// Looks at every spec before anything is changed.
    fn plan(&self, turn: &Turn<'_>, accept: &Accept) -> Result<Vec<Plan>, AcceptError> {
        let mut names_here = BTreeSet::new();
        let mut load: BTreeMap<NameId, (u64, u64)> = BTreeMap::new();
        let mut plans = Vec::with_capacity(accept.specs.len());
        for (index, spec) in accept.specs.iter().enumerate() {
            let queue = self.queue_for(index, &spec.queue)?;
            if let Some(range) = taken_name(turn, accept, index, &mut names_here)? {
                plans.push(Plan::Repeat(range));
                continue;
            }
            self.check_retry(index, queue, spec)?;
            let (tasks, bytes) = load.entry(queue).or_default();
            *tasks += 1;
            *bytes += spec.payload.len() as u64;
            plans.push(Plan::New(queue));
        }
        self.check_room(&load)?;
        Ok(plans)
    }

    fn queue_for(&self, index: usize, queue: &QueueName) -> Result<NameId, AcceptError> {
        let configured = |id: &&NameId| self.queues.get(id).is_some_and(|state| state.configured);
        self.queue_ids.get(queue).filter(configured).copied().ok_or_else(|| {
            let names = self.queues.values().filter(|state| state.configured).map(|state| &state.name);
            let nearest = names
                .map(|name| (strsim::damerau_levenshtein(name.as_str(), queue.as_str()), name))
                .min()
                .filter(|(distance, _)| *distance <= 3)
                .map(|(_, name)| name.clone());
            AcceptError::UnknownQueue { index, queue: queue.clone(), nearest }
        })
    }

    fn check_retry(&self, index: usize, queue: NameId, spec: &TaskSpec) -> Result<(), AcceptError> {
        let config = self.queues.get(&queue).map_or(&self.queue_defaults, |queue| &queue.config);
        if spec.retry.is_empty() {
            return Ok(());
        }
        config.retry.with(&spec.retry).check().map_err(|source| AcceptError::RetryPolicy { index, source })
    }

    fn check_room(&self, load: &BTreeMap<NameId, (u64, u64)>) -> Result<(), AcceptError> {
        for (id, (tasks, bytes)) in load {
            let Some(queue) = self.queues.get(id) else { continue };
            let full = |what, limit| AcceptError::QueueFull { queue: queue.name.clone(), what, limit };
            if let Some(limit) = queue.config.max_tasks.filter(|limit| queue.live + tasks > *limit) {
                return Err(full("max_tasks", limit));
            }
            if let Some(limit) = queue.config.max_bytes.filter(|limit| queue.live_bytes + bytes > *limit) {
                return Err(full("max_bytes", limit));
            }
        }
        Ok(())
    }

    fn insert(&mut self, turn: &mut Turn<'_>, spec: TaskSpec, place: (NameId, IdTail, Option<u128>)) -> Row {
        let (queue, tail, idempotency) = place;
        let lane = self.lane(turn.step, &spec.lane);
        let header = self.new_header(turn, &spec, (queue, lane, tail));
        let body = Arc::new(Body {
            task_type: spec.task_type,
            name: spec.name,
            labels: spec.labels,
            timeout: spec.timeout,
            retry: spec.retry,
            idempotency,
            payload: spec.payload,
        });
        turn.step.changes.push(Change::insert(header.clone(), Arc::clone(&body)));
        if let Some(name) = &body.name {
            let id = UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) };
            let range = IdRange { first: header.key, count: 1, tail, until: None };
            take(turn, UniqueRecord { id, range, digest: spec.digest, ended: None });
        }
        if let Some(state) = self.queues.get_mut(&queue) {
            state.enter(&header);
        }
        self.wait(turn.now, &header);
        let accepted = TaskAccepted {
            id: header.id(),
            queue: spec.queue.clone(),
            task_type: body.task_type.clone(),
            repeat: false,
        };
        turn.step.events.push(accepted.into());
        let row = Row { header, queue: spec.queue, lane: spec.lane, body: Ok(body) };
        turn.draft.put(row.clone());
        row
    }

    fn new_header(&mut self, turn: &Turn<'_>, spec: &TaskSpec, place: (NameId, NameId, IdTail)) -> Header {
        let (queue, lane, tail) = place;
        let key: TaskKey = self.keys.next(turn.now.wall);
        let (status, due, due_on_wall) = match spec.when {
            When::At(at) if at > turn.now.wall => (Status::Scheduled, at, true),
            When::Delay(delay) if delay > Span::default() => {
                (Status::Scheduled, self.scheduler.due_after(delay, turn.now), false)
            }
            When::Now | When::Delay(_) | When::At(_) => {
                (Status::Queued, self.scheduler.due_after(Span::default(), turn.now), false)
            }
        };
        Header {
            status,
            priority: spec.priority,
            due_on_wall,
            due,
            expires_at: spec.expires_at,
            payload_bytes: u32::try_from(spec.payload.len()).unwrap_or(u32::MAX),
            ..Header::accepted(key, tail, (queue, lane), turn.now.wall)
        }
    }
}

/// The task that a named spec repeats, if there is one with the same content; refused when its content is another.
fn taken_name(
    turn: &Turn<'_>,
    accept: &Accept,
    index: usize,
    names_here: &mut BTreeSet<UniqueId>,
) -> Result<Option<IdRange>, AcceptError> {
    let Some((spec, name)) = accept.specs.get(index).and_then(|spec| Some((spec, spec.name.as_ref()?))) else {
        return Ok(None);
    };
    let id = UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) };
    // An Idempotency-Key stands for the ids of its first request, in order: none of them may be an older task's.
    let may_repeat = accept.specs.len() == 1 || accept.idempotency.is_none();
    if let Some(damage) = turn.draft.damage(id) {
        return Err(AcceptError::KeyDamaged(damage.clone()));
    }
    match turn.draft.unique(id) {
        Some(record) if record.digest == spec.digest && may_repeat => Ok(Some(record.range)),
        None if names_here.insert(id) => Ok(None),
        Some(_) | None => Err(AcceptError::NameTaken { index, name: name.clone() }),
    }
}

/// The first request's tasks, if this one repeats it. On a clock that has jumped (`trusted` is false) no key is too old.
fn known_key(turn: &Turn<'_>, key: Option<Idempotency>, trusted: bool) -> Result<Option<Accepted>, AcceptError> {
    let Some(key) = key else { return Ok(None) };
    let id = UniqueId { kind: UniqueKind::Idempotency, hash: key.hash };
    if let Some(damage) = turn.draft.damage(id) {
        return Err(AcceptError::KeyDamaged(damage.clone()));
    }
    let Some(record) = turn.draft.unique(id) else { return Ok(None) };
    if trusted && record.range.until.is_some_and(|until| until <= turn.now.wall) {
        return Ok(None);
    }
    if record.digest != key.digest {
        return Err(AcceptError::IdempotencyMismatch);
    }
    Ok(Some(Accepted::Repeat { range: record.range, ended: record.ended }))
}

fn take(turn: &mut Turn<'_>, record: UniqueRecord) {
    turn.step.changes.push(Change::unique(record.clone()));
    turn.draft.taken(record);
}
