//! When a task may start, when it must, and how far the server may trust its wall clock.

use std::collections::{BTreeMap, BTreeSet};

use sendoff::task::limits::{START_GAP_MAX, WALL_AGREEMENT, WALL_JUMP};
use sendoff::task::{RetryPolicy, TaskKey, When};

use super::Moment;
use super::life::Seen;

/// Before this nothing starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotBefore {
    /// Its moment has been reached: it never begins again, whatever the clocks do then.
    Reached,
    /// A delay: a moment of the world, and what the wall clock will show in it unless it jumps. The second is what a
    /// process that starts later has to go by.
    Delay { at: i64, wall: i64 },
    /// A moment of the wall clock.
    Wall(i64),
}

/// The wall clock as the server may see it, and what waits for its time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// wall − world, as last agreed on.
    agreed: i64,
    /// Jumps of the wall clock, and restarts on another one.
    jumps: u32,
    trusted_from: i64,
    disturbed_at: i64,
    by_time: BTreeSet<(i64, TaskKey, u32)>,
    by_wall: BTreeSet<(i64, TaskKey, u32)>,
}

impl Watch {
    pub(super) fn jumps(&self) -> u32 {
        self.jumps
    }

    /// Something happened after which things may take their time again.
    pub(super) fn disturbed(&mut self, now: Moment) {
        self.disturbed_at = now.at;
    }

    pub(super) fn calm_since(&self) -> i64 {
        self.disturbed_at
    }

    /// From when on the wall clock may be acted on.
    pub(super) fn trusted_since(&self) -> i64 {
        self.trusted_from
    }

    pub(super) fn trusts(&self, now: Moment) -> bool {
        now.at >= self.trusted_from
    }

    /// A process starts: it takes the clock for what it is.
    ///
    /// Unless it shows something that cannot be, by the newest moment that the store knows: then it has to agree first.
    pub(super) fn opened(&mut self, now: Moment, newest: Option<i64>) {
        let offset = now.wall - now.at;
        self.jumps += u32::from(offset != self.agreed);
        self.agreed = offset;
        let ahead = newest.map_or(0, |newest| now.wall - newest);
        let most = if ahead < 0 { WALL_JUMP } else { START_GAP_MAX };
        let doubt = if ahead.unsigned_abs() > most.as_millis() { WALL_AGREEMENT.as_millis() } else { 0 };
        self.trusted_from = now.at + i64::try_from(doubt).unwrap();
        self.disturbed(now);
        self.by_time.clear();
        self.by_wall.clear();
    }

    /// Compares the clocks, and tells tasks that their time has come.
    pub(super) fn look(&mut self, now: Moment, tasks: &mut BTreeMap<TaskKey, Seen>) {
        let offset = now.wall - now.at;
        if offset.abs_diff(self.agreed) > WALL_JUMP.as_millis() {
            self.agreed = offset;
            self.jumps += 1;
            self.trusted_from = now.at + i64::try_from(WALL_AGREEMENT.as_millis()).unwrap();
            self.disturbed(now);
        }
        for (set, reached) in [(&mut self.by_time, now.at), (&mut self.by_wall, now.wall)] {
            while let Some((_, key, epoch)) = pop_until(set, reached) {
                let waits = |seen: &&mut Seen| seen.record.epoch == epoch && seen.record.status.is_waiting();
                tasks.get_mut(&key).filter(waits).into_iter().for_each(|seen| seen.is_due(now));
            }
        }
    }

    /// A task was accepted.
    pub(super) fn wait(&mut self, now: Moment, seen: &mut Seen, when: When) {
        match when {
            When::At(moment) if moment.get() > now.wall => {
                seen.not_before = NotBefore::Wall(moment.get());
                seen.ripe_since = None;
                self.by_wall.insert((moment.get(), seen.record.key, seen.record.epoch));
            }
            When::Delay(delay) if delay.as_millis() > 0 => {
                let delay = i64::try_from(delay.as_millis()).unwrap();
                self.delay(now, seen, (delay, delay));
            }
            When::Now | When::Delay(_) | When::At(_) => seen.is_due(now),
        }
    }

    /// A task waits for at least and at most so many milliseconds.
    pub(super) fn delay(&mut self, now: Moment, seen: &mut Seen, (least, most): (i64, i64)) {
        let at = now.at + least;
        seen.not_before = NotBefore::Delay { at, wall: at + self.agreed };
        seen.ripe_since = None;
        // A millisecond more: the engine never rounds to the early one.
        self.by_time.insert((now.at + most + 1, seen.record.key, seen.record.epoch));
    }

    /// A start has put right what a wrong clock wrote: from here on the new moment holds.
    pub(super) fn put_right(&mut self, now: Moment, seen: &mut Seen) {
        if matches!(seen.not_before, NotBefore::Delay { .. }) {
            seen.not_before = NotBefore::Delay { at: now.at, wall: seen.record.due };
        }
        self.wait_again(now, seen);
    }

    /// A task waited when the process died, and goes on waiting in the next one: by the wall moment that was written,
    /// since no other clock survives. If the wall clock was set back meanwhile, it is held back by that.
    pub(super) fn wait_again(&mut self, now: Moment, seen: &mut Seen) {
        seen.not_before = match seen.not_before {
            NotBefore::Delay { wall, .. } | NotBefore::Wall(wall) if wall <= now.wall => NotBefore::Reached,
            NotBefore::Delay { wall, .. } => NotBefore::Delay { at: now.at + (wall - now.wall), wall },
            same @ (NotBefore::Reached | NotBefore::Wall(_)) => same,
        };
        let left = if seen.record.ahead { 0 } else { seen.record.due - now.wall };
        seen.ripe_since = (left <= 0).then_some(now.at);
        if left > 0 && seen.record.on_wall {
            self.by_wall.insert((seen.record.due, seen.record.key, seen.record.epoch));
        } else if left > 0 {
            self.by_time.insert((now.at + left + 1, seen.record.key, seen.record.epoch));
        }
    }
}

fn pop_until(set: &mut BTreeSet<(i64, TaskKey, u32)>, reached: i64) -> Option<(i64, TaskKey, u32)> {
    set.first().filter(|(due, ..)| *due <= reached)?;
    set.pop_first()
}

/// The least and the most, in milliseconds, that may lie between the `failures`-th failure and the next attempt.
pub(super) fn backoff(policy: &RetryPolicy, failures: u32, asked: i64) -> (i64, i64) {
    let ms = |span: sendoff::task::Span| i64::try_from(span.as_millis()).unwrap();
    let (min, max) = (ms(policy.min_backoff), ms(policy.max_backoff));
    let doubled = min << policy.max_doublings.min(failures - 1).min(20);
    let plain = if failures - 1 <= policy.max_doublings {
        doubled
    } else {
        doubled.saturating_mul(i64::from(failures - policy.max_doublings))
    };
    let plain = plain.min(max);
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "minutes in milliseconds")]
    let jittered = (plain as f64 * (1.0 - policy.jitter)) as i64;
    let floor = min.max(asked.min(max));
    (jittered.max(floor), plain.max(floor))
}
