//! One queue as the engine knows it: its limits, and how many tasks it holds that the scheduler does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Bound, QueueConfig};
use crate::task::outcome::DeadReason;
use crate::task::{Header, QueueName, Status, WallMs};

/// See the module.
#[derive(Debug)]
pub(super) struct QueueState {
    /// Its name.
    pub(super) name: QueueName,
    /// Its limits.
    pub(super) config: Arc<QueueConfig>,
    /// Whether configuration names it: only such queues accept tasks.
    pub(super) configured: bool,
    /// Whether somebody has paused it: state, which the store remembers.
    pub(super) paused: bool,
    /// Whether its tasks wait because no configuration names it: without its limits it might flood its targets.
    pub(super) held: bool,
    /// Tasks that have not ended.
    pub(super) live: u64,
    /// Their payload bytes.
    pub(super) live_bytes: u64,
    /// Succeeded, cancelled and expired tasks.
    pub(super) done: Kept,
    /// Dead letters.
    pub(super) dead: Kept,
    /// Ended tasks by state ([`Status::index`]).
    pub(super) ended: [u64; 8],
    /// Dead letters by reason.
    pub(super) dead_by_reason: BTreeMap<DeadReason, u64>,
}

/// Ended tasks that are kept, as far as retention must know them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Kept {
    /// How many.
    pub(super) count: u64,
    /// Their payload bytes.
    pub(super) bytes: u64,
    /// When the oldest may have come of age; `None`: not known, look.
    pub(super) look_at: Option<WallMs>,
}

impl Kept {
    /// Whether the oldest has come of age is not known: look. Tasks that end meanwhile do not put that off.
    pub(super) fn look_again(&mut self) {
        self.look_at = Some(WallMs::new(0));
    }

    /// Whether `bound` asks for another look at the oldest.
    pub(super) fn needs_look(&self, bound: Bound, now: WallMs) -> bool {
        let over_age = bound.age.is_some() && self.look_at.is_none_or(|look_at| look_at <= now);
        self.count > 0 && (over_age || self.over_size(bound))
    }

    /// Whether there are more than `bound` allows, whatever their age.
    pub(super) fn over_size(&self, bound: Bound) -> bool {
        bound.count.is_some_and(|most| self.count > most) || bound.bytes.is_some_and(|most| self.bytes > most)
    }
}

impl QueueState {
    /// A queue without tasks.
    pub(super) fn new(name: QueueName, config: Arc<QueueConfig>, configured: bool) -> Self {
        Self {
            name,
            config,
            configured,
            paused: false,
            held: false,
            live: 0,
            live_bytes: 0,
            done: Kept::default(),
            dead: Kept::default(),
            ended: [0; 8],
            dead_by_reason: BTreeMap::new(),
        }
    }

    /// Whether nothing of it starts, whatever its limits say.
    pub(super) fn starts_nothing(&self) -> bool {
        self.paused || self.held
    }

    /// Takes over limits that changed, for all that is kept as well.
    pub(super) fn set_config(&mut self, config: Arc<QueueConfig>) {
        self.config = config;
        self.done.look_again();
        self.dead.look_again();
    }

    /// A task with this header is here now.
    pub(super) fn enter(&mut self, header: &Header) {
        let bytes = u64::from(header.payload_bytes);
        if !header.status.has_ended() {
            self.live += 1;
            self.live_bytes += bytes;
            return;
        }
        if let Some(count) = self.ended.get_mut(header.status.index()) {
            *count += 1;
        }
        if let Some(reason) = header.dead_reason {
            *self.dead_by_reason.entry(reason).or_default() += 1;
        }
        let (kept, bound) = self.kept_mut(header.status);
        kept.count += 1;
        kept.bytes += bytes;
        if let Some(age) = bound.age {
            let of_age = header.changed_at.plus(age.to_duration());
            // A first task tells when to look; later ones only earlier, should the clock have gone back.
            kept.look_at = Some(match kept.look_at {
                Some(look_at) => look_at.min(of_age),
                None => of_age,
            });
        }
    }

    /// A task with this header is no longer here (in this state).
    pub(super) fn leave(&mut self, header: &Header) {
        let bytes = u64::from(header.payload_bytes);
        if !header.status.has_ended() {
            self.live = self.live.saturating_sub(1);
            self.live_bytes = self.live_bytes.saturating_sub(bytes);
            return;
        }
        if let Some(count) = self.ended.get_mut(header.status.index()) {
            *count = count.saturating_sub(1);
        }
        if let Some(reason) = header.dead_reason
            && let Some(count) = self.dead_by_reason.get_mut(&reason)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.dead_by_reason.remove(&reason);
            }
        }
        let (kept, _bound) = self.kept_mut(header.status);
        kept.count = kept.count.saturating_sub(1);
        kept.bytes = kept.bytes.saturating_sub(bytes);
    }

    /// The kept tasks that a status belongs to, with their bound.
    pub(super) fn kept_mut(&mut self, status: Status) -> (&mut Kept, Bound) {
        if status == Status::Dead {
            (&mut self.dead, self.config.dead_letters)
        } else {
            (&mut self.done, self.config.retention)
        }
    }
}
