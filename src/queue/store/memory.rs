//! A store in memory, for tests and the simulation: the same behaviour as the one on disk, and faults on demand.
//!
//! A commit takes effect when it is asked for. What was committed counts as durable: [`MemoryStore::crash`] is what a
//! process would find that started after this one had died.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::task::header::NameId;
use crate::task::limits::{ATTEMPTS_KEPT_FIRST, ATTEMPTS_KEPT_LAST};
use crate::task::{
    Attempt, Body, CredentialName, Header, IdTail, LaneName, QueueName, Status, TaskKey, TaskRef, WallMs,
};

use super::change::ChangeKind;
use super::{
    Change, CommitError, Damage, Gathered, Later, ListPage, ListQuery, NameKind, OldestEnded, Pressure, Recovered,
    Recovery, Row, Store, StoreError, TaskRecord, UniqueId, UniqueKind, UniqueRecord, task_name_hash,
};

/// What may happen to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// [`CommitError::Full`]: nothing was written, the next one may go through.
    Full,
    /// [`CommitError::Unknown`], and it was written. Nothing is acknowledged afterwards.
    UnknownApplied,
    /// [`CommitError::Unknown`], and it was lost. Nothing is acknowledged afterwards.
    UnknownLost,
}

/// What a commit wrote of a task, for whoever watches.
#[derive(Debug, Clone)]
pub enum Written {
    /// Its record, new or moved on.
    Task(Box<Header>, Arc<Body>),
    /// It was removed.
    Removed(TaskKey),
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(&'static str);

/// A [`Store`] in memory.
#[derive(Debug)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    found: Recovery,
    fault: Option<CommitFault>,
    pressure: Pressure,
    /// What was written since somebody last asked; `None`: nobody watches.
    written: Option<Vec<Written>>,
    failed: bool,
    closed: bool,
}

/// All that is kept.
#[derive(Debug, Clone, Default)]
struct State {
    tasks: BTreeMap<TaskKey, (Header, Arc<Body>)>,
    attempts: BTreeMap<(TaskKey, u32), Attempt>,
    finished: BTreeSet<(NameId, Status, WallMs, TaskKey)>,
    unique: BTreeMap<UniqueId, UniqueRecord>,
    names: BTreeMap<(NameKind, NameId), Arc<str>>,
    paused: BTreeSet<NameId>,
    api_keys: BTreeMap<Arc<str>, KeyRecord>,
    credentials: BTreeMap<CredentialName, SealedCredential>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with(State::default(), Recovery { clean: true, created: true })
    }

    /// What the next process finds when this one dies now; clean only if this one was closed.
    #[must_use]
    pub fn crash(&self) -> Self {
        let inner = self.lock();
        let next = Self::with(inner.state.clone(), Recovery { clean: inner.closed, created: false });
        next.change(|next| {
            next.pressure = inner.pressure;
            next.written = inner.written.as_ref().map(|_| Vec::new());
        });
        next
    }

    /// Lets the next commit fail.
    pub fn fail_next(&self, fault: CommitFault) {
        self.change(|inner| inner.fault = Some(fault));
    }

    /// Makes the disk as full as this.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.change(|inner| inner.pressure = pressure);
    }

    /// From now on every change of a task is kept for [`MemoryStore::written`], also after a crash.
    pub fn watch(&self) {
        self.change(|inner| inner.written = Some(Vec::new()));
    }

    /// What commits have written since this was last asked, in order; nothing unless it is watched.
    pub fn written(&self) -> Vec<Written> {
        self.lock().written.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn with(state: State, found: Recovery) -> Self {
        let pressure = Pressure::Normal;
        Self(Mutex::new(Inner { state, found, fault: None, pressure, written: None, failed: false, closed: false }))
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, ask: impl FnOnce(&State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let inner = self.lock();
        if inner.closed {
            return Err(StoreError::Unavailable(Box::new(Reason("it is closed"))));
        }
        ask(&inner.state)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn ready<'a, T: Send + 'a>(answer: T) -> Later<'a, T> {
    Box::pin(std::future::ready(answer))
}

fn unknown(why: &'static str) -> CommitError {
    CommitError::Unknown(Box::new(Reason(why)))
}

impl Store for MemoryStore {
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        // Copied, so that a sink may call the store.
        let (state, found) = {
            let inner = self.lock();
            (inner.state.clone(), inner.found)
        };
        for ((kind, id), text) in state.names {
            sink(Recovered::Name { kind, id, text });
        }
        for queue in state.paused {
            sink(Recovered::Paused(queue));
        }
        for (header, _) in state.tasks.into_values() {
            sink(Recovered::Task { header: Box::new(header), damage: None });
        }
        Ok(found)
    }

    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        ready(self.lock().commit(changes))
    }

    fn gather(&self, rows: Vec<TaskRef>, unique: Vec<UniqueId>) -> Later<'_, Result<Gathered, StoreError>> {
        ready(self.read(|state| {
            let found = |task: &TaskRef| state.find(task).map(|key| state.row(key)).transpose().map(Option::flatten);
            Ok(Gathered {
                rows: rows.iter().map(found).collect::<Result<_, _>>()?,
                unique: unique.iter().map(|id| state.unique.get(id).cloned()).collect(),
                ..Gathered::default()
            })
        }))
    }

    fn rows(&self, keys: Vec<TaskKey>) -> Later<'_, Result<Vec<Option<Row>>, StoreError>> {
        ready(self.read(|state| keys.iter().map(|key| state.row(*key)).collect()))
    }

    fn record(&self, task: TaskRef) -> Later<'_, Result<Option<TaskRecord>, StoreError>> {
        ready(self.read(|state| {
            let Some(key) = state.find(&task) else { return Ok(None) };
            let attempts = state.attempts.range((key, 0)..=(key, u32::MAX)).map(|(_, attempt)| attempt.clone());
            let attempts = attempts.collect();
            Ok(state.row(key)?.map(|row| TaskRecord { row, attempts }))
        }))
    }

    fn list(&self, query: ListQuery) -> Later<'_, Result<ListPage, StoreError>> {
        ready(self.read(|state| state.list(&query)))
    }

    fn oldest_ended(&self, query: OldestEnded) -> Later<'_, Result<Vec<Row>, StoreError>> {
        ready(self.read(|state| state.oldest_ended(&query)))
    }

    fn api_keys(&self) -> Later<'_, Result<Vec<Result<KeyRecord, Damage>>, StoreError>> {
        ready(self.read(|state| Ok(state.api_keys.values().cloned().map(Ok).collect())))
    }

    fn credentials(&self) -> Later<'_, Result<Vec<Result<SealedCredential, Damage>>, StoreError>> {
        ready(self.read(|state| Ok(state.credentials.values().cloned().map(Ok).collect())))
    }

    fn pressure(&self) -> Pressure {
        self.lock().pressure
    }

    fn close(&self) -> Later<'_, Result<(), StoreError>> {
        let mut inner = self.lock();
        if inner.closed || inner.failed {
            return ready(Err(StoreError::Unavailable(Box::new(Reason("it is closed already, or has failed")))));
        }
        inner.closed = true;
        ready(Ok(()))
    }
}

impl Inner {
    fn commit(&mut self, changes: Vec<Change>) -> Result<(), CommitError> {
        if self.failed || self.closed {
            return Err(unknown("it is closed, or had failed before"));
        }
        match self.fault.take() {
            None => self.state.commit(changes, self.written.as_mut()),
            Some(CommitFault::Full) => Err(CommitError::Full),
            Some(CommitFault::UnknownApplied) => {
                self.failed = true;
                self.state.commit(changes, self.written.as_mut())?;
                Err(unknown("made to fail after it was written"))
            }
            Some(CommitFault::UnknownLost) => {
                self.failed = true;
                Err(unknown("made to fail before it was written"))
            }
        }
    }
}

impl State {
    /// All or nothing: what could fail is looked at before anything is changed.
    fn commit(&mut self, changes: Vec<Change>, mut written: Option<&mut Vec<Written>>) -> Result<(), CommitError> {
        self.check(&changes)?;
        for change in changes {
            if let Some(written) = written.as_deref_mut() {
                written.extend(self.writes(&change.0));
            }
            self.apply(change.0);
        }
        Ok(())
    }

    fn writes(&self, change: &ChangeKind) -> Option<Written> {
        match change {
            ChangeKind::Insert { header, body } => Some(Written::Task(header.clone(), Arc::clone(body))),
            ChangeKind::Move { header, .. } => {
                self.tasks.get(&header.key).map(|(_, body)| Written::Task(header.clone(), Arc::clone(body)))
            }
            ChangeKind::Remove { key, .. } => Some(Written::Removed(*key)),
            ChangeKind::Name { .. }
            | ChangeKind::Unique(_)
            | ChangeKind::Pause { .. }
            | ChangeKind::Forget { .. }
            | ChangeKind::KeyCreated(_)
            | ChangeKind::KeyUsed(_)
            | ChangeKind::KeyRevoked(_)
            | ChangeKind::CredentialPut(_)
            | ChangeKind::CredentialRemoved(_) => None,
        }
    }

    fn check(&self, changes: &[Change]) -> Result<(), CommitError> {
        // What the batch has changed so far; `None`: removed.
        let mut epochs: BTreeMap<TaskKey, Option<u32>> = BTreeMap::new();
        for change in changes {
            let stored = |key: &TaskKey| self.tasks.get(key).map(|(header, _)| header.epoch);
            let (key, expected, next) = match &change.0 {
                ChangeKind::Insert { header, .. } => (header.key, None, Some(header.epoch)),
                ChangeKind::Move { header, epoch, .. } => (header.key, Some(*epoch), Some(header.epoch)),
                ChangeKind::Remove { key, epoch } => (*key, Some(*epoch), None),
                ChangeKind::Name { .. }
                | ChangeKind::Unique(_)
                | ChangeKind::Pause { .. }
                | ChangeKind::Forget { .. }
                | ChangeKind::KeyCreated(_)
                | ChangeKind::KeyUsed(_)
                | ChangeKind::KeyRevoked(_)
                | ChangeKind::CredentialPut(_)
                | ChangeKind::CredentialRemoved(_) => continue,
            };
            let is = epochs.get(&key).copied().unwrap_or_else(|| stored(&key));
            if let (Some(expected), true) = (expected, is != expected) {
                return Err(CommitError::Fenced { key, expected });
            }
            if expected.is_none() && is.is_some() {
                return Err(unknown("a key was given twice"));
            }
            epochs.insert(key, next);
        }
        Ok(())
    }

    fn apply(&mut self, change: ChangeKind) {
        match change {
            ChangeKind::Name { kind, id, text } => drop(self.names.insert((kind, id), text)),
            ChangeKind::Insert { header, body } => self.put(*header, body),
            ChangeKind::Unique(record) => drop(self.unique.insert(record.id, record)),
            ChangeKind::Move { header, attempt, .. } => self.advance(*header, attempt),
            ChangeKind::Remove { key, .. } => self.remove(key),
            ChangeKind::Pause { queue, paused: true } => drop(self.paused.insert(queue)),
            ChangeKind::Pause { queue, paused: false } => drop(self.paused.remove(&queue)),
            ChangeKind::Forget { now, limit } => self.forget(now, limit),
            ChangeKind::KeyCreated(record) => drop(self.api_keys.insert(Arc::clone(&record.id), *record)),
            ChangeKind::KeyUsed(record) => {
                if let Some(kept) = self.api_keys.get_mut(&record.id) {
                    *kept = *record;
                }
            }
            ChangeKind::KeyRevoked(id) => drop(self.api_keys.remove(&id)),
            ChangeKind::CredentialPut(new) => drop(self.credentials.insert(new.name.clone(), *new)),
            ChangeKind::CredentialRemoved(name) => drop(self.credentials.remove(&name)),
        }
    }

    fn put(&mut self, header: Header, body: Arc<Body>) {
        if header.status.has_ended() {
            self.finished.insert(place(&header));
        }
        self.tasks.insert(header.key, (header, body));
    }

    fn advance(&mut self, header: Header, attempt: Option<Box<Attempt>>) {
        let key = header.key;
        if let Some((old, body)) = self.tasks.remove(&key) {
            self.finished.remove(&place(&old));
            self.put(header, body);
        }
        let Some(attempt) = attempt else { return };
        if attempt.ordinal > ATTEMPTS_KEPT_FIRST + ATTEMPTS_KEPT_LAST {
            self.attempts.remove(&(key, attempt.ordinal - ATTEMPTS_KEPT_LAST));
        }
        self.attempts.insert((key, attempt.ordinal), *attempt);
    }

    fn remove(&mut self, key: TaskKey) {
        let Some((header, body)) = self.tasks.remove(&key) else { return };
        self.finished.remove(&place(&header));
        let kept: Vec<_> = self.attempts.range((key, 0)..=(key, u32::MAX)).map(|(at, _)| *at).collect();
        for at in kept {
            self.attempts.remove(&at);
        }
        if let Some(name) = &body.name {
            let id = UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(name) };
            if self.unique.get(&id).is_some_and(|record| record.range.first == key) {
                self.unique.remove(&id);
            }
        }
        let hash = body.idempotency.map(|hash| UniqueId { kind: UniqueKind::Idempotency, hash });
        if let Some(record) = hash.and_then(|id| self.unique.get_mut(&id))
            && record.range.first == key
            && record.range.count == 1
        {
            record.ended = Some(header.status);
        }
    }

    fn forget(&mut self, now: WallMs, limit: u32) {
        let over = |record: &UniqueRecord| record.range.until.filter(|until| *until <= now).map(|at| (at, record.id));
        let mut over: Vec<_> = self.unique.values().filter_map(over).collect();
        over.sort_unstable();
        for (_, id) in over.into_iter().take(limit as usize) {
            self.unique.remove(&id);
        }
    }

    fn find(&self, task: &TaskRef) -> Option<TaskKey> {
        let check = |key: TaskKey, tail: IdTail| {
            self.tasks.get(&key).filter(|(header, _)| header.tail == tail).map(|(header, _)| header.key)
        };
        task.id.and_then(|id| check(id.key, id.tail)).or_else(|| {
            let id = UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(task.name.as_ref()?) };
            let range = self.unique.get(&id)?.range;
            check(range.first, range.tail)
        })
    }

    fn name(&self, kind: NameKind, id: NameId) -> &str {
        self.names.get(&(kind, id)).map_or("unknown", |name| &**name)
    }

    fn row(&self, key: TaskKey) -> Result<Option<Row>, StoreError> {
        let Some((header, body)) = self.tasks.get(&key) else { return Ok(None) };
        let name = |kind, id| self.name(kind, id);
        let queue = QueueName::parse(name(NameKind::Queue, header.queue))
            .map_err(|error| StoreError::Corrupt { what: error.to_string(), place: String::from("a queue's name") })?;
        let lane = LaneName::new(name(NameKind::Lane, header.lane));
        Ok(Some(Row { header: header.clone(), queue, lane, body: Ok(Arc::clone(body)) }))
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let filter = &query.filter;
        let mut page = ListPage { rows: Vec::new(), next: None };
        let number = filter.queue.as_ref().map(|queue| {
            let mut names = self.names.iter().filter(|((kind, _), _)| *kind == NameKind::Queue);
            names.find(|(_, text)| ***text == *queue.as_str()).map(|((_, id), _)| *id)
        });
        if number == Some(None) {
            return Ok(page);
        }
        let end = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let dead_only = filter.status == Some(Status::Dead) || filter.dead_reason.is_some();
        let newest_first = self.tasks.range((Bound::Unbounded, end)).rev();
        let looked_at = newest_first.filter(|(_, (header, _))| !dead_only || header.status == Status::Dead);
        let (mut scanned, mut last) = (0, None);
        for (key, (header, _)) in looked_at {
            if scanned == query.scan_max || page.rows.len() >= query.limit as usize {
                page.next = last;
                break;
            }
            scanned += 1;
            last = Some(*key);
            let name_of = |id| QueueName::parse(self.name(NameKind::Queue, id)).ok();
            if filter.admits_header(header, number.flatten(), name_of) {
                page.rows.extend(self.row(*key)?.filter(|row| filter.admits_body(row)));
            }
        }
        Ok(page)
    }

    fn oldest_ended(&self, query: &OldestEnded) -> Result<Vec<Row>, StoreError> {
        let of_queue = self.finished.iter().filter(|(queue, ..)| *queue == query.queue);
        let mut ended: Vec<_> = of_queue
            .filter(|(_, status, ..)| (*status == Status::Dead) == query.dead)
            .map(|(_, _, at, key)| (*at, *key))
            .collect();
        ended.sort_unstable();
        let oldest = ended.into_iter().take(query.limit as usize);
        oldest.filter_map(|(_, key)| self.row(key).transpose()).collect()
    }
}

fn place(header: &Header) -> (NameId, Status, WallMs, TaskKey) {
    (header.queue, header.status, header.changed_at, header.key)
}
