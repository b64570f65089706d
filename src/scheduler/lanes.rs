//! The ready tasks of one queue, in lanes: the tasks of one lane share a blocker, its target host.
//!
//! Inside a lane, tasks of one priority stand in order of due time, then acceptance. Since both orders of
//! [`PriorityOrder`] grow with the due time, the first of each level are all that a lane has to compare to know its
//! head, and no order key is kept per task: changing `priority_aging` live costs one look at every lane, not at every
//! task. The queue compares the heads of its open lanes only, so a lane whose host is at its cap costs nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::due::Deadline;
use crate::task::header::NameId;
use crate::task::priority::{OrderKey, ahead_key};
use crate::task::{Priority, PriorityOrder, TaskKey, WallMs};

/// A ready task. Two entries are the same when due time and key are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) due: WallMs,
    pub(super) key: TaskKey,
    pub(super) deadline: Deadline,
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARED.with(|count| count.set(count.get() + 1));
        (self.due, self.key).cmp(&(other.due, other.key))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ready {}

/// What a lane sorts its tasks by before it looks at their due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Put ahead of the whole queue.
    Ahead,
    /// Of this priority.
    Of(Priority),
}

impl Level {
    fn order(self, order: PriorityOrder, due: WallMs) -> OrderKey {
        match self {
            Self::Ahead => ahead_key(due),
            Self::Of(priority) => order.key(priority, due),
        }
    }
}

type Rank = (OrderKey, TaskKey);

/// One lane; never empty while it is kept.
#[derive(Debug, Default)]
struct Lane {
    /// Only levels that have tasks, in order of the level.
    levels: Vec<(Level, BTreeSet<Ready>)>,
    open: bool,
    /// Under which rank it stands in the queue's heads.
    listed: Option<Rank>,
    /// Under which due time it stands in the queue's `oldest`.
    oldest: Option<WallMs>,
}

impl Lane {
    fn head(&self, order: PriorityOrder) -> Option<(Rank, Level)> {
        let first = |(level, tasks): &(Level, BTreeSet<Ready>)| {
            tasks.first().map(|task| ((level.order(order, task.due), task.key), *level))
        };
        self.levels.iter().filter_map(first).min()
    }

    fn level(&mut self, level: Level) -> &mut BTreeSet<Ready> {
        let at = match self.levels.binary_search_by_key(&level, |(level, _)| *level) {
            Ok(at) => at,
            Err(at) => {
                self.levels.insert(at, (level, BTreeSet::new()));
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "`at` was just found or filled")]
        let (_, tasks) = &mut self.levels[at];
        tasks
    }

    /// Takes something out of a level, which goes when nothing is left in it.
    fn take(&mut self, level: Level, take: impl FnOnce(&mut BTreeSet<Ready>) -> Option<Ready>) -> Option<Ready> {
        let at = self.levels.binary_search_by_key(&level, |(level, _)| *level).ok()?;
        let (_, tasks) = self.levels.get_mut(at)?;
        let taken = take(tasks);
        if tasks.is_empty() {
            drop(self.levels.remove(at));
        }
        taken
    }
}

/// The ready tasks of one queue.
#[derive(Debug)]
pub(super) struct ReadyTasks {
    order: PriorityOrder,
    lanes: BTreeMap<NameId, Lane>,
    /// The first task of each open lane.
    heads: BTreeSet<(Rank, NameId)>,
    /// The earliest due time of each lane, open or not.
    oldest: BTreeSet<(WallMs, NameId)>,
    len: u64,
}

impl ReadyTasks {
    pub(super) fn new(order: PriorityOrder) -> Self {
        Self { order, lanes: BTreeMap::new(), heads: BTreeSet::new(), oldest: BTreeSet::new(), len: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The earliest due time among them.
    pub(super) fn oldest(&self) -> Option<WallMs> {
        self.oldest.first().map(|(due, _)| *due)
    }

    /// Whether there are ready tasks in the lane.
    pub(super) fn has_lane(&self, lane: NameId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Adds tasks of one lane and level, sorted; `open` says whether its host has a free slot.
    pub(super) fn extend(&mut self, lane_id: NameId, level: Level, tasks: impl Iterator<Item = Ready>, open: bool) {
        // A set made from what is sorted is built whole, and swapped in whole where there was none.
        let mut added: BTreeSet<Ready> = tasks.collect();
        let lane = self.lanes.entry(lane_id).or_default();
        lane.open = open;
        let there = lane.level(level);
        let before = there.len();
        there.append(&mut added);
        self.len += (there.len() - before) as u64;
        self.relist(lane_id);
    }

    /// Adds a task; false when it was there.
    pub(super) fn insert(&mut self, lane_id: NameId, level: Level, task: Ready, open: bool) -> bool {
        let lane = self.lanes.entry(lane_id).or_default();
        lane.open = open;
        let added = lane.level(level).insert(task);
        self.len += u64::from(added);
        self.relist(lane_id);
        added
    }

    /// Takes a task out, by due time and key.
    pub(super) fn remove(&mut self, lane: NameId, level: Level, task: &Ready) -> Option<Ready> {
        let taken = self.lanes.get_mut(&lane)?.take(level, |tasks| tasks.take(task));
        self.len -= u64::from(taken.is_some());
        self.relist(lane);
        taken
    }

    /// The lane of the next task that may start.
    pub(super) fn next_lane(&self) -> Option<NameId> {
        self.heads.first().map(|(_, lane)| *lane)
    }

    /// Takes the first task of a lane.
    pub(super) fn take(&mut self, lane_id: NameId) -> Option<Ready> {
        let lane = self.lanes.get_mut(&lane_id)?;
        let (_, level) = lane.head(self.order)?;
        let taken = lane.take(level, BTreeSet::pop_first);
        self.len -= u64::from(taken.is_some());
        self.relist(lane_id);
        taken
    }

    /// Its host has a free slot, or has none.
    pub(super) fn set_open(&mut self, lane_id: NameId, open: bool) {
        if let Some(lane) = self.lanes.get_mut(&lane_id) {
            lane.open = open;
            self.relist(lane_id);
        }
    }

    /// Changes the order, live.
    pub(super) fn set_order(&mut self, order: PriorityOrder) {
        if self.order == order {
            return;
        }
        self.order = order;
        self.heads.clear();
        for (id, lane) in &mut self.lanes {
            lane.listed = lane.head(order).filter(|_| lane.open).map(|(rank, _)| rank);
            self.heads.extend(lane.listed.map(|rank| (rank, *id)));
        }
    }

    /// Puts a lane where it belongs after a change; it goes when it is empty.
    fn relist(&mut self, lane_id: NameId) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        let head = lane.head(self.order).filter(|_| lane.open).map(|(rank, _)| rank);
        if head != lane.listed {
            if let Some(rank) = lane.listed {
                self.heads.remove(&(rank, lane_id));
            }
            self.heads.extend(head.map(|rank| (rank, lane_id)));
            lane.listed = head;
        }
        let oldest = lane.levels.iter().filter_map(|(_, tasks)| tasks.first()).map(|task| task.due).min();
        if oldest != lane.oldest {
            if let Some(due) = lane.oldest {
                self.oldest.remove(&(due, lane_id));
            }
            self.oldest.extend(oldest.map(|due| (due, lane_id)));
            lane.oldest = oldest;
        }
        if lane.levels.is_empty() {
            drop(self.lanes.remove(&lane_id));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::task::Span;

    thread_local! {
        /// Comparisons of ready tasks on this thread: what an operation cost.
        pub(crate) static COMPARED: Cell<u64> = const { Cell::new(0) };
    }

    const LANE: NameId = NameId(1);

    fn ready(due: i64, key: i64) -> Ready {
        Ready { due: WallMs::new(due), key: TaskKey::from_i64(key).unwrap(), deadline: Deadline::of(None) }
    }

    fn level(priority: u64) -> Level {
        Level::Of(Priority::new(priority).unwrap())
    }

    fn drain(tasks: &mut ReadyTasks) -> Vec<i64> {
        std::iter::from_fn(|| tasks.next_lane().and_then(|lane| tasks.take(lane)))
            .map(|task| task.key.to_i64())
            .collect()
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Ready>(), 24);
    }

    #[test]
    fn two_entries_are_the_same_when_due_time_and_key_are() {
        let later = Ready { deadline: Deadline::of(Some(WallMs::new(9))), ..ready(1, 2) };
        assert_eq!(ready(1, 2), later);
        assert!(ready(1, 2) != ready(2, 2) && ready(1, 2) != ready(1, 3));
        assert!(ready(1, 3) < ready(2, 2) && ready(2, 2) < ready(2, 3));
    }

    #[test]
    fn a_new_order_takes_effect_at_once() {
        let mut tasks = ReadyTasks::new(PriorityOrder::Strict);
        assert!(tasks.insert(LANE, level(9), ready(5_000, 1), true));
        assert!(tasks.insert(LANE, level(0), ready(0, 2), true));
        assert!(tasks.insert(NameId(2), level(4), ready(2_000, 3), true));
        assert!(tasks.insert(NameId(3), level(9), ready(0, 4), false));
        tasks.set_order(PriorityOrder::Aging(Span::from_millis(1)));
        assert_eq!(drain(&mut tasks), [2, 3, 1]);
        assert_eq!(tasks.len(), 1, "the closed lane keeps its own");
    }

    #[test]
    fn twice_the_same_is_once() {
        let mut tasks = ReadyTasks::new(PriorityOrder::Strict);
        assert!(tasks.insert(LANE, Level::Ahead, ready(1, 1), true));
        assert!(!tasks.insert(LANE, Level::Ahead, ready(1, 1), true));
        tasks.extend(LANE, Level::Ahead, [ready(1, 1), ready(2, 2)].into_iter(), true);
        assert_eq!(tasks.len(), 2);
        assert!(tasks.remove(LANE, level(3), &ready(1, 1)).is_none());
        assert!(tasks.remove(LANE, Level::Ahead, &ready(1, 1)).is_some());
        assert_eq!((tasks.len(), tasks.oldest()), (1, Some(WallMs::new(2))));
    }

    #[test]
    fn an_empty_lane_is_forgotten() {
        let mut tasks = ReadyTasks::new(PriorityOrder::Strict);
        tasks.insert(LANE, level(1), ready(1, 1), false);
        assert!(tasks.has_lane(LANE));
        assert_eq!(tasks.next_lane(), None);
        tasks.set_open(LANE, true);
        assert_eq!(drain(&mut tasks), [1]);
        assert!(!tasks.has_lane(LANE));
        assert_eq!((tasks.len(), tasks.oldest()), (0, None));
        assert!(tasks.heads.is_empty() && tasks.oldest.is_empty());
    }
}
