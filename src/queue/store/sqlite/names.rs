//! Names and their numbers, as far as this process knows them: what turns the numbers of rows back into words.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::queue::store::{NameKind, placeholder};
use crate::task::header::NameId;
use crate::task::{LaneName, QueueName};

/// Names and numbers, shared between the writer and the readers.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<Known>);

/// What [`Names`] knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    queues: BTreeMap<NameId, QueueName>,
    lanes: BTreeMap<NameId, LaneName>,
    numbers: BTreeMap<QueueName, NameId>,
}

impl Names {
    /// For a page or a row; held only while rows are read.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns a name. Called before its commit, so that no reader meets a number it does not know; one too many does
    /// no harm.
    pub(super) fn learn(&self, kind: NameKind, id: NameId, text: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match kind {
            NameKind::Lane => drop(known.lanes.insert(id, LaneName::new(text))),
            NameKind::Queue => {
                if let Ok(queue) = QueueName::parse(text) {
                    known.numbers.insert(queue.clone(), id);
                    known.queues.insert(id, queue);
                }
            }
        }
    }
}

impl Known {
    /// The name of a queue; `None` only if not even its [`placeholder`] were one.
    pub(super) fn queue(&self, id: NameId) -> Option<QueueName> {
        self.queues.get(&id).cloned().or_else(|| QueueName::parse(&placeholder(id)).ok())
    }

    /// The name of a lane.
    pub(super) fn lane(&self, id: NameId) -> LaneName {
        self.lanes.get(&id).cloned().unwrap_or_else(|| LaneName::new(&placeholder(id)))
    }

    /// The number of a queue.
    pub(super) fn number(&self, queue: &QueueName) -> Option<NameId> {
        self.numbers.get(queue).copied()
    }
}

/// The number of a kind in the tables.
pub(super) fn kind_code(kind: NameKind) -> i64 {
    match kind {
        NameKind::Queue => 0,
        NameKind::Lane => 1,
    }
}

/// Reads the number of a kind back.
pub(super) fn kind_from_code(code: i64) -> Option<NameKind> {
    match code {
        0 => Some(NameKind::Queue),
        1 => Some(NameKind::Lane),
        _ => None,
    }
}
