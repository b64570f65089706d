//! What waits for its time, on two clocks, and how far the wall clock can be trusted.
//!
//! A task that was given a moment (`run_at`) waits on the wall clock. One that was given a delay waits on the monotonic
//! clock, so that a jump of the wall clock makes it neither early nor late; but what is stored is a wall moment, since
//! that survives a restart. Between the two stands the **anchor**, wall − mono in milliseconds: constant until a jump
//! is seen. A jump begins a new [`Epoch`] with a new anchor, and what waited before goes on waiting under the old one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use super::Waiting;
use crate::clock::Now;
use crate::sabotage::{Sin, commits};
use crate::task::header::NameId;
use crate::task::limits::{WALL_AGREEMENT, WALL_JUMP};
use crate::task::{Priority, Span, TaskKey, WallMs};

/// Anchors kept at one time. With more jumps than this while tasks wait from before each of them, the last anchor
/// stays: waiting stays exact, only the wall moments written for it are off by the jumps since.
const EPOCHS_MAX: usize = 64;

/// When a task expires, in 48 bits: whole milliseconds from 1970 to the year 10889.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(u64);

const DEADLINE_BITS: u32 = 48;

impl Deadline {
    const NEVER: Self = Self((1 << DEADLINE_BITS) - 1);

    pub(super) fn of(moment: Option<WallMs>) -> Self {
        moment.map_or(Self::NEVER, |at| Self(u64::try_from(at.get()).unwrap_or(0).min(Self::NEVER.0 - 1)))
    }

    fn moment(self) -> WallMs {
        WallMs::new(self.0.cast_signed())
    }
}

/// A task that waits for its time. Two entries are the same when due time and key are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) due: WallMs,
    pub(super) key: TaskKey,
    pub(super) queue: NameId,
    pub(super) lane: NameId,
    /// Deadline, then retrying (1 bit), then priority (4 bits).
    rest: u64,
}

impl Entry {
    pub(super) fn of(task: &Waiting) -> Self {
        let rest =
            (Deadline::of(task.deadline).0 << 5) | (u64::from(task.retrying) << 4) | u64::from(task.priority.get());
        Self { due: task.due, key: task.key, queue: task.queue, lane: task.lane, rest }
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline(self.rest >> 5)
    }

    pub(super) fn retrying(&self) -> bool {
        self.rest & 0x10 != 0
    }

    pub(super) fn priority(&self) -> Priority {
        Priority::new(self.rest & 0xf).unwrap_or_default()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.key).cmp(&(other.due, other.key))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// Tasks that wait on the monotonic clock under one anchor.
#[derive(Debug)]
struct Epoch {
    /// wall − mono, in milliseconds.
    anchor: i64,
    /// By the wall moment that was written for them under this anchor.
    waiting: BTreeSet<Entry>,
}

impl Epoch {
    fn new(anchor: i64) -> Self {
        Self { anchor, waiting: BTreeSet::new() }
    }

    /// The moment up to which its tasks are due.
    fn reached(&self, now: Now) -> WallMs {
        if commits(Sin::WallClockSleep) {
            return now.wall;
        }
        WallMs::new(self.anchor.saturating_add(now.mono_ms()))
    }

    fn pop(&mut self, now: Now) -> Option<Entry> {
        let reached = self.reached(now);
        pop_until(&mut self.waiting, reached)
    }

    /// When its first task is due, on the monotonic clock.
    fn next(&self) -> Option<Duration> {
        self.waiting.first().map(|entry| millis(entry.due.get().saturating_sub(self.anchor)))
    }
}

/// The waiting sets, and the watch on the wall clock.
#[derive(Debug)]
pub(super) struct Timers {
    on_wall: BTreeSet<Entry>,
    current: Epoch,
    /// From before jumps, oldest first; only those in which something still waits.
    past: Vec<Epoch>,
    /// wall − mono as last agreed on: what a jump is measured against.
    agreed: i64,
    /// Until when, on the monotonic clock, the wall clock has to agree before it is trusted again.
    distrusted_until: Option<Duration>,
}

impl Timers {
    pub(super) fn new(now: Now) -> Self {
        let agreed = offset(now);
        Self { on_wall: BTreeSet::new(), current: Epoch::new(agreed), past: Vec::new(), agreed, distrusted_until: None }
    }

    /// The wall moment that is `delay` from now by the monotonic clock, under the current anchor; never early. Without a
    /// delay it has come: rounded up, it would be a fraction of a millisecond away, and cost a turn and a commit more.
    pub(super) fn due_after(&self, delay: Span, now: Now) -> WallMs {
        if delay == Span::default() {
            return self.current.reached(now);
        }
        let mono_ms = now.mono.as_nanos().div_ceil(1_000_000);
        let mono_due = i64::try_from(mono_ms.saturating_add(u128::from(delay.as_millis()))).unwrap_or(i64::MAX);
        WallMs::new(self.current.anchor.saturating_add(mono_due))
    }

    /// Whether the task would have to wait no more.
    pub(super) fn is_due(&self, task: &Waiting, now: Now) -> bool {
        task.due <= if task.due_on_wall { now.wall } else { self.current.reached(now) }
    }

    /// False when it was there.
    pub(super) fn insert(&mut self, task: &Waiting) -> bool {
        let set = if task.due_on_wall { &mut self.on_wall } else { &mut self.current.waiting };
        set.insert(Entry::of(task))
    }

    /// Adds many at once; both sorted. None of them may be there already.
    pub(super) fn extend(&mut self, on_wall: Vec<Entry>, on_mono: Vec<Entry>) {
        self.on_wall.append(&mut on_wall.into_iter().collect());
        self.current.waiting.append(&mut on_mono.into_iter().collect());
    }

    /// Takes a task out, under whichever anchor it was put in.
    pub(super) fn remove(&mut self, task: &Waiting) -> Option<Entry> {
        let probe = Entry::of(task);
        if task.due_on_wall {
            return self.on_wall.take(&probe);
        }
        let epochs = std::iter::once(&mut self.current).chain(&mut self.past);
        let taken = epochs.into_iter().find_map(|epoch| epoch.waiting.take(&probe));
        self.past.retain(|epoch| !epoch.waiting.is_empty());
        taken
    }

    /// Takes out one task whose time has come.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<Entry> {
        if let Some(entry) = pop_until(&mut self.on_wall, now.wall).or_else(|| self.current.pop(now)) {
            return Some(entry);
        }
        let entry = self.past.iter_mut().find_map(|epoch| epoch.pop(now))?;
        self.past.retain(|epoch| !epoch.waiting.is_empty());
        Some(entry)
    }

    /// When the next task is due, on the monotonic clock.
    pub(super) fn next(&self, now: Now) -> Option<Duration> {
        let on_wall = self.on_wall.first().map(|entry| mono_of(entry.due, now));
        let on_mono = std::iter::once(&self.current).chain(&self.past).filter_map(Epoch::next);
        on_mono.chain(on_wall).min()
    }

    /// Compares the clocks: how far, in milliseconds, the wall clock has jumped, if it has.
    pub(super) fn watch(&mut self, now: Now) -> Option<i64> {
        if !self.has_jumped(now) {
            self.distrusted_until = self.distrusted_until.filter(|until| now.mono < *until);
            return None;
        }
        let jump = offset(now).saturating_sub(self.agreed);
        self.agreed = offset(now);
        self.distrust(now);
        if self.current.waiting.is_empty() {
            self.current.anchor = self.agreed;
        } else if self.past.len() + 1 < EPOCHS_MAX {
            self.past.push(std::mem::replace(&mut self.current, Epoch::new(self.agreed)));
        }
        Some(jump)
    }

    /// From now on the clocks have to agree for a while before deadlines are acted on.
    pub(super) fn distrust(&mut self, now: Now) {
        self.distrusted_until = Some(now.mono.saturating_add(WALL_AGREEMENT.to_duration()));
    }

    /// Whether the wall clock has jumped since the last [`Timers::watch`].
    fn has_jumped(&self, now: Now) -> bool {
        offset(now).abs_diff(self.agreed) > WALL_JUMP.as_millis()
    }

    /// Until when, on the monotonic clock, the wall clock is not to be trusted.
    pub(super) fn distrusted_until(&self) -> Option<Duration> {
        self.distrusted_until
    }

    /// Whether deadlines may be acted on: no jump seen lately, nor unseen.
    pub(super) fn trusts(&self, now: Now) -> bool {
        self.distrusted_until.is_none() && !self.has_jumped(now)
    }
}

/// The deadlines of tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Deadline, TaskKey)>);

impl Deadlines {
    pub(super) fn insert(&mut self, deadline: Deadline, key: TaskKey) {
        if deadline != Deadline::NEVER {
            self.0.insert((deadline, key));
        }
    }

    /// Adds many at once.
    pub(super) fn extend(&mut self, mut deadlines: Vec<(Deadline, TaskKey)>) {
        deadlines.retain(|(deadline, _)| *deadline != Deadline::NEVER);
        self.0.append(&mut deadlines.into_iter().collect());
    }

    pub(super) fn remove(&mut self, deadline: Deadline, key: TaskKey) {
        if deadline != Deadline::NEVER {
            self.0.remove(&(deadline, key));
        }
    }

    /// Takes out one that has passed.
    pub(super) fn pop(&mut self, now: Now) -> Option<TaskKey> {
        self.0.first().filter(|(deadline, _)| deadline.moment() <= now.wall)?;
        self.0.pop_first().map(|(_, key)| key)
    }

    /// When the next one passes, on the monotonic clock.
    pub(super) fn next(&self, now: Now) -> Option<Duration> {
        self.0.first().map(|(deadline, _)| mono_of(deadline.moment(), now))
    }
}

fn pop_until(set: &mut BTreeSet<Entry>, reached: WallMs) -> Option<Entry> {
    set.first().filter(|entry| entry.due <= reached)?;
    set.pop_first()
}

/// wall − mono, in milliseconds.
fn offset(now: Now) -> i64 {
    now.wall.get().saturating_sub(now.mono_ms())
}

/// When the wall clock will show `moment`, on the monotonic clock, if it does not jump.
fn mono_of(moment: WallMs, now: Now) -> Duration {
    now.mono.saturating_add(moment.since(now.wall))
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(wall_ms: i64, mono_ms: u64) -> Now {
        Now { wall: WallMs::new(wall_ms), mono: Duration::from_millis(mono_ms) }
    }

    fn task(key: i64, due: WallMs) -> Waiting {
        Waiting {
            key: TaskKey::from_i64(key).unwrap(),
            queue: NameId(1),
            lane: NameId(2),
            priority: Priority::default(),
            due,
            due_on_wall: false,
            ahead: false,
            retrying: false,
            deadline: None,
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
        assert_eq!(size_of::<(Deadline, TaskKey)>(), 16);
    }

    #[test]
    fn a_deadline_out_of_range_is_the_last_there_is_and_not_never() {
        let of = |ms| Deadline::of(Some(WallMs::new(ms)));
        let last = (1_i64 << DEADLINE_BITS) - 2;
        assert_eq!((of(last - 1).moment().get(), of(last).moment().get()), (last - 1, last));
        for beyond in [last + 1, last + 2, i64::MAX] {
            assert_eq!(of(beyond), of(last));
        }
        assert!(of(last) < Deadline::NEVER);
        assert_eq!(of(-1), of(0));
    }

    #[test]
    fn two_entries_are_the_same_when_due_time_and_key_are() {
        let of = |key, due, deadline| {
            Entry::of(&Waiting { deadline: Some(WallMs::new(deadline)), ..task(key, WallMs::new(due)) })
        };
        assert_eq!(of(1, 2, 3), of(1, 2, 4));
        assert!(of(1, 2, 3) != of(2, 2, 3) && of(1, 2, 3) != of(1, 3, 3));
        assert!(of(2, 2, 3) < of(1, 3, 3) && of(1, 3, 3) < of(2, 3, 3));
    }

    #[test]
    fn who_is_told_to_distrusts_the_clock_for_a_minute_of_agreement() {
        let minute = WALL_AGREEMENT.as_millis();
        let now = |ms: u64| at(ms.cast_signed() + 5_000, ms);
        let mut timers = Timers::new(now(0));
        assert!(timers.trusts(now(0)));
        timers.distrust(now(0));
        for (ms, trusted) in [(0, false), (minute - 1, false), (minute, true)] {
            timers.watch(now(ms));
            assert_eq!(timers.trusts(now(ms)), trusted, "{ms}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_keeps_what_it_was_made_of(priority in 0_u64..10, retrying: bool, deadline in proptest::option::of(0_i64..1 << 47)) {
            let mut waiting = task(7, WallMs::new(5));
            (waiting.priority, waiting.retrying) = (Priority::new(priority).unwrap(), retrying);
            waiting.deadline = deadline.map(WallMs::new);
            let entry = Entry::of(&waiting);
            prop_assert_eq!(entry.priority().get(), waiting.priority.get());
            prop_assert_eq!(entry.retrying(), retrying);
            prop_assert_eq!(entry.deadline(), Deadline::of(waiting.deadline));
            prop_assert_eq!((entry.deadline() != Deadline::NEVER).then(|| entry.deadline().moment()), waiting.deadline);
        }
    }

    #[test]
    fn a_deadline_out_of_range_is_the_nearest_one_in_it() {
        assert_eq!(Deadline::of(Some(WallMs::new(-1))).moment(), WallMs::new(0));
        assert!(Deadline::of(Some(WallMs::new(i64::MAX))) < Deadline::NEVER);
    }

    #[test]
    fn a_delay_rounds_to_the_later_millisecond() {
        let start = at(1_000_000, 0);
        let timers = Timers::new(start);
        let now = Now { wall: WallMs::new(1_000_005), mono: Duration::from_nanos(5_000_001) };
        let due = timers.due_after(Span::from_millis(10), now);
        assert_eq!(due, WallMs::new(1_000_016));
        let waiting = task(1, due);
        let mono = |nanos| Now { wall: WallMs::new(0), mono: Duration::from_nanos(nanos) };
        assert!(!timers.is_due(&waiting, mono(15_999_999)));
        assert!(timers.is_due(&waiting, mono(16_000_000)));
    }

    #[test]
    fn without_a_delay_it_is_due_within_the_same_millisecond() {
        for nanos in [5_000_000, 5_000_001, 5_999_999] {
            let timers = Timers::new(at(1_000_000, 0));
            let now = Now { wall: WallMs::new(1_000_005), mono: Duration::from_nanos(nanos) };
            let waiting = task(1, timers.due_after(Span::default(), now));
            assert!(timers.is_due(&waiting, now), "{nanos}");
            let later = task(2, timers.due_after(Span::from_millis(1), now));
            assert!(!timers.is_due(&later, now), "{nanos}");
        }
    }

    #[test]
    fn a_jump_is_more_than_five_minutes_in_one_or_several_steps() {
        let mut timers = Timers::new(at(1_000_000, 0));
        let limit = i64::try_from(WALL_JUMP.as_millis()).unwrap();
        assert_eq!(timers.watch(at(1_000_000 + limit, 0)), None);
        assert_eq!(timers.watch(at(1_000_000 - limit, 0)), None);
        assert_eq!(timers.watch(at(1_000_001 + limit, 0)), Some(limit + 1));
        assert_eq!(timers.watch(at(1_000_001 + limit, 0)), None, "one jump is told once");
        assert_eq!(timers.watch(at(1_000_000, 0)), Some(-limit - 1));
    }

    #[test]
    fn trust_comes_back_after_a_minute_of_agreement() {
        let mut timers = Timers::new(at(0, 0));
        assert_eq!(timers.watch(at(10_000_000, 0)), Some(10_000_000));
        assert_eq!(timers.watch(at(10_059_999, 59_999)), None);
        assert!(timers.distrusted_until().is_some());
        assert_eq!(timers.watch(at(59_999, 59_999)), Some(-10_000_000), "it jumps back: the minute begins again");
        assert_eq!(timers.watch(at(119_998, 119_998)), None);
        assert!(timers.distrusted_until().is_some());
        assert_eq!(timers.watch(at(119_999, 119_999)), None);
        assert_eq!(timers.distrusted_until(), None);
    }

    #[test]
    fn a_jump_nobody_has_looked_at_yet_is_not_trusted_either() {
        let timers = Timers::new(at(0, 0));
        assert!(timers.trusts(at(0, 0)));
        assert!(!timers.trusts(at(300_001, 0)));
    }

    #[test]
    fn more_jumps_than_are_kept_still_make_nothing_early_or_late() {
        let mut timers = Timers::new(at(0, 0));
        let mut wall = 0;
        let jumps = i64::try_from(EPOCHS_MAX).unwrap() + 10;
        let tasks: Vec<Waiting> = (0..jumps)
            .map(|key| {
                let waiting = task(key, timers.due_after(Span::from_secs(10), at(wall, 0)));
                assert!(timers.insert(&waiting));
                wall += 1_000_000;
                assert!(timers.watch(at(wall, 0)).is_some());
                waiting
            })
            .collect();
        assert_eq!(timers.past.len() + 1, EPOCHS_MAX);
        assert_eq!(timers.next(at(wall, 0)), Some(Duration::from_secs(10)));
        assert!(timers.pop_due(at(wall, 9_999)).is_none());
        assert!(tasks.iter().step_by(2).all(|task| timers.remove(task).is_some()), "found under its own anchor");
        let due = std::iter::from_fn(|| timers.pop_due(at(wall, 10_000))).count();
        assert_eq!(due, tasks.len() / 2);
        assert!(timers.past.is_empty());
    }
}
