//! What a start makes of moments that the last process wrote by another clock.
//!
//! Delays and backoffs are stored as wall moments, because those survive a restart. Where the clock that wrote them was
//! wrong, the moment means nothing, but how far it lay ahead still does: that much is waited for again, from the start.

use std::time::Duration;

use crate::clock::Now;
use crate::task::id::CLOCK_MIN;
use crate::task::limits::{START_GAP_MAX, WALL_AGREEMENT, WALL_JUMP};
use crate::task::{Header, WallMs};

/// The newest moment at which something happened, by the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastSeen(Option<WallMs>);

impl LastSeen {
    pub(super) fn learn(&mut self, header: &Header) {
        self.0 = self.0.max(Some(header.submitted_at.max(header.changed_at)));
    }

    /// How long nothing is removed after this start. A clock that is ahead of the store by more than a small step may
    /// be right (the server was stopped, or idle), but what is removed cannot be had back, and a minute costs nothing.
    pub(super) fn removals_wait(self, now: Now) -> Duration {
        if self.ahead_ms(now).unsigned_abs() > WALL_JUMP.as_millis() {
            WALL_AGREEMENT.to_duration()
        } else {
            Duration::ZERO
        }
    }

    /// By how much the wall clock must have jumped while the server was down, in milliseconds, if it must: it shows an
    /// earlier moment than the store knows, or one so late that no stop explains it. A jump ahead by less cannot be told
    /// from a stop of that length.
    pub(super) fn jumped(self, now: Now) -> Option<i64> {
        let ahead = self.ahead_ms(now);
        let most = if ahead < 0 { WALL_JUMP } else { START_GAP_MAX };
        (ahead.unsigned_abs() > most.as_millis()).then_some(ahead)
    }

    fn ahead_ms(self, now: Now) -> i64 {
        self.0.map_or(0, |seen| now.wall.get().saturating_sub(seen.get()))
    }
}

/// The header of a waiting task with its times put right, if a clock wrote them that was wrong: `run_at` and
/// `expires_at` are the user's and stay; every other moment ahead of the writing is as far ahead of `now`.
pub(super) fn put_right(old: &Header, now: WallMs) -> Option<Header> {
    let wrote = old.changed_at;
    let impossible = wrote < CLOCK_MIN && now >= CLOCK_MIN;
    if wrote <= now && !impossible {
        return None;
    }
    // What was to come then lies as far ahead as it did; what had come stays where it was, if that is behind us too.
    let had_come = |at: WallMs| if impossible { now } else { at.min(now) };
    let again = |at: WallMs| if at > wrote { now.plus(at.since(wrote)) } else { had_come(at) };
    Some(Header {
        epoch: old.epoch + 1,
        due: if old.due_on_wall { old.due } else { again(old.due) },
        give_up_at: old.give_up_at.map(|at| if at > wrote { again(at) } else { at }),
        first_dispatched_at: old.first_dispatched_at.map(had_come),
        changed_at: now,
        ..old.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::header::NameId;
    use crate::task::{IdTail, Status, TaskKey};

    const NOW: WallMs = WallMs::new(1_790_000_000_000);
    const IN_2038: WallMs = WallMs::new(2_147_483_648_000);
    const IN_1970: WallMs = WallMs::new(1_000_000);

    fn header(wrote: WallMs, delay_ms: u64) -> Header {
        Header {
            status: Status::Scheduled,
            due: wrote.plus(Duration::from_millis(delay_ms)),
            expires_at: Some(IN_2038),
            ..Header::accepted(TaskKey::MIN, IdTail::new(0), (NameId(1), NameId(2)), wrote)
        }
    }

    fn seen(at: WallMs) -> LastSeen {
        let mut seen = LastSeen::default();
        seen.learn(&header(at, 0));
        seen
    }

    fn at(wall: WallMs) -> Now {
        Now { wall, mono: Duration::ZERO }
    }

    #[test]
    fn a_delay_from_a_wrong_clock_is_waited_for_from_the_start_and_once() {
        for wrote in [IN_2038, IN_1970, NOW.plus(Duration::from_millis(1))] {
            for delay_ms in [0, 1, 60_000] {
                let right = put_right(&header(wrote, delay_ms), NOW).expect("it was wrong");
                assert_eq!((right.due, right.epoch), (NOW.plus(Duration::from_millis(delay_ms)), 2));
                assert_eq!(right.expires_at, Some(IN_2038), "what the user said stays");
                assert_eq!(put_right(&right, NOW.plus(Duration::from_millis(1))), None, "the next start waits on");
            }
        }
    }

    #[test]
    fn what_a_clock_wrote_that_may_have_been_right_stays() {
        for (wrote, now) in [(NOW, NOW), (NOW, IN_2038), (IN_1970, IN_1970), (CLOCK_MIN, NOW)] {
            assert_eq!(put_right(&header(wrote, 60_000), now), None, "{wrote} {now}");
        }
    }

    #[test]
    fn a_moment_that_the_user_gave_stays() {
        let old = Header { due_on_wall: true, ..header(IN_2038, 60_000) };
        assert_eq!(put_right(&old, NOW).map(|right| right.due), Some(old.due));
    }

    #[test]
    fn the_bounds_of_a_series_follow_and_what_was_due_keeps_its_rank() {
        let hour = Duration::from_secs(3_600);
        let old = Header {
            due: NOW.plus(Duration::from_millis(5)),
            give_up_at: Some(IN_2038.plus(hour)),
            first_dispatched_at: Some(IN_2038),
            ..header(IN_2038, 0)
        };
        let right = put_right(&old, NOW).expect("it was wrong");
        assert_eq!((right.due, right.give_up_at, right.first_dispatched_at), (NOW, Some(NOW.plus(hour)), Some(NOW)));
        let early = Header { due: CLOCK_MIN, give_up_at: Some(NOW.plus(hour)), ..old };
        let right = put_right(&early, NOW).expect("it was wrong");
        assert_eq!((right.due, right.give_up_at), (CLOCK_MIN, Some(NOW.plus(hour))), "from before the jump");
        let behind = Header { first_dispatched_at: Some(IN_1970), ..header(IN_1970, 0) };
        assert_eq!(put_right(&behind, NOW).and_then(|right| right.first_dispatched_at), Some(NOW));
    }

    #[test]
    fn a_start_waits_with_removals_after_any_gap_and_calls_a_jump_what_no_stop_explains() {
        let step = i64::try_from(WALL_JUMP.as_millis()).unwrap();
        let most = i64::try_from(START_GAP_MAX.as_millis()).unwrap();
        for (ahead, waits, jumped) in [
            (0, false, false),
            (step, false, false),
            (step + 1, true, false),
            (-step, false, false),
            (-step - 1, true, true),
            (most, true, false),
            (most + 1, true, true),
        ] {
            let now = at(WallMs::new(NOW.get() + ahead));
            assert_eq!(seen(NOW).removals_wait(now) > Duration::ZERO, waits, "{ahead}");
            assert_eq!(seen(NOW).jumped(now), jumped.then_some(ahead), "{ahead}");
        }
        assert_eq!(LastSeen::default().jumped(at(IN_1970)), None, "an empty store knows no time");
    }
}
