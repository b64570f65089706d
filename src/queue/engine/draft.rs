//! The rows and keys of one turn: what the store answered, overlaid by what the turn itself has changed.
//!
//! The engine keeps no map of tasks by id. A command names what it needs, one bounded read fetches it, and within the
//! turn later commands see what earlier ones did. A draft is dropped with its turn.

use std::collections::BTreeMap;

use crate::queue::store::{Damage, Gathered, Row, UniqueId, UniqueKind, UniqueRecord, task_name_hash};
use crate::task::{TaskKey, TaskRef};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Draft {
    rows: BTreeMap<TaskKey, Option<Row>>,
    names: BTreeMap<u128, Option<TaskKey>>,
    unique: BTreeMap<UniqueId, Option<UniqueRecord>>,
    damaged: BTreeMap<UniqueId, Damage>,
}

impl Draft {
    /// Takes in what the store answered to `refs` and `unique`; what the turn changed already stays.
    pub(super) fn absorb(&mut self, refs: &[TaskRef], unique: &[UniqueId], found: Gathered) {
        for (task, row) in refs.iter().zip(found.rows) {
            if let (Some(name), None) = (&task.name, task.id.as_ref().filter(|id| row_is(row.as_ref(), id.key))) {
                self.names.entry(task_name_hash(name)).or_insert_with(|| row.as_ref().map(|row| row.header.key));
            }
            // Only what was found is known: an id with a wrong tail says nothing about the task that has its key.
            if let Some(row) = row {
                self.rows.entry(row.header.key).or_insert(Some(row));
            }
        }
        for (id, record) in unique.iter().zip(found.unique) {
            self.unique.entry(*id).or_insert(record);
        }
        self.damaged.extend(found.damaged);
    }

    /// Takes in the rows of `keys`; what the turn changed already stays.
    pub(super) fn absorb_rows(&mut self, keys: &[TaskKey], rows: Vec<Option<Row>>) {
        for (key, row) in keys.iter().zip(rows) {
            self.rows.entry(*key).or_insert(row);
        }
    }

    /// Every row the turn has seen, as it left it.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (TaskKey, Option<Row>)> {
        self.rows.into_iter()
    }

    /// Whether the row of `key` has been asked for, or made, in this turn.
    pub(super) fn knows(&self, key: TaskKey) -> bool {
        self.rows.contains_key(&key)
    }

    /// The row that `task` names.
    pub(super) fn find(&self, task: &TaskRef) -> Option<&Row> {
        let by_id = task.id.and_then(|id| self.row(id.key).filter(|row| row.header.tail == id.tail));
        by_id.or_else(|| {
            let hash = task_name_hash(task.name.as_ref()?);
            self.row((*self.names.get(&hash)?)?)
        })
    }

    /// The row of `key`.
    pub(super) fn row(&self, key: TaskKey) -> Option<&Row> {
        self.rows.get(&key)?.as_ref()
    }

    /// The record of a unique key.
    pub(super) fn unique(&self, id: UniqueId) -> Option<&UniqueRecord> {
        self.unique.get(&id)?.as_ref()
    }

    /// What is wrong with the record of a unique key.
    pub(super) fn damage(&self, id: UniqueId) -> Option<&Damage> {
        self.damaged.get(&id)
    }

    /// What is wrong with the name by which `task` would be found.
    pub(super) fn name_damage(&self, task: &TaskRef) -> Option<&Damage> {
        self.damage(UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(task.name.as_ref()?) })
    }

    /// A task was accepted, or moved on.
    pub(super) fn put(&mut self, row: Row) {
        self.rows.insert(row.header.key, Some(row));
    }

    /// A task was removed, and its `task_id` is free again.
    pub(super) fn forget(&mut self, row: &Row) {
        self.rows.insert(row.header.key, None);
        if let Some(name) = row.body.as_ref().ok().and_then(|body| body.name.as_ref()) {
            let hash = task_name_hash(name);
            self.names.insert(hash, None);
            self.unique.insert(UniqueId { kind: UniqueKind::TaskName, hash }, None);
        }
    }

    /// A unique key was taken.
    pub(super) fn taken(&mut self, record: UniqueRecord) {
        if record.id.kind == UniqueKind::TaskName {
            self.names.insert(record.id.hash, Some(record.range.first));
        }
        self.unique.insert(record.id, Some(record));
    }
}

fn row_is(row: Option<&Row>, key: TaskKey) -> bool {
    row.is_some_and(|row| row.header.key == key)
}
