//! Ids: the store's row key, and the public UUIDv7 that carries it.

use std::fmt;

use uuid::{Uuid, Variant};

use super::name::TaskName;
use super::time::WallMs;

/// 2025-01-01T00:00:00Z in Unix milliseconds: where keys start counting.
const EPOCH_MS: i64 = 1_735_689_600_000;
const SEQUENCE_BITS: u32 = 14;
const SHARD_BITS: u32 = 8;
const MS_BITS: u32 = 42;
/// Bits of a public id that are neither time nor key.
const TAIL_BITS: u32 = 52;

/// The row key of a task: 42 bit milliseconds since 2025, 8 bit shard, 14 bit sequence.
///
/// Keys grow in order of acceptance and never go back with the clock; positive as an `i64` until 2094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(i64);

/// Before this moment there was no sendoff: a clock that shows an earlier one is wrong.
pub const CLOCK_MIN: WallMs = WallMs::new(EPOCH_MS);

impl TaskKey {
    /// The smallest key.
    pub const MIN: Self = Self(0);
    /// The largest key.
    pub const MAX: Self = Self(i64::MAX);

    /// A key as the store keeps it; negative numbers are no keys.
    pub fn from_i64(raw: i64) -> Option<Self> {
        (raw >= 0).then_some(Self(raw))
    }

    /// As the store keeps it.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// The millisecond in which the task was accepted (later by what a full sequence or a clock set back added).
    pub fn accepted_at(self) -> WallMs {
        WallMs::new((self.0 >> (SHARD_BITS + SEQUENCE_BITS)) + EPOCH_MS)
    }

    /// The key `offset` places further in the same shard's counter.
    #[must_use]
    pub fn offset(self, offset: u32) -> Self {
        Self::from_counter(self.counter().saturating_add(u64::from(offset)), self.shard())
    }

    fn from_counter(counter: u64, shard: u8) -> Self {
        let ms = (counter >> SEQUENCE_BITS) & ((1 << (MS_BITS - 1)) - 1);
        let sequence = counter & ((1 << SEQUENCE_BITS) - 1);
        let raw = (ms << (SHARD_BITS + SEQUENCE_BITS)) | (u64::from(shard) << SEQUENCE_BITS) | sequence;
        Self(raw.cast_signed())
    }

    fn counter(self) -> u64 {
        let raw = self.0.cast_unsigned();
        ((raw >> (SHARD_BITS + SEQUENCE_BITS)) << SEQUENCE_BITS) | (raw & ((1 << SEQUENCE_BITS) - 1))
    }

    fn shard(self) -> u8 {
        u8::try_from((self.0.cast_unsigned() >> SEQUENCE_BITS) & 0xff).unwrap_or(0)
    }
}

/// Hands out keys: `max(last + 1, now)`, so that they never repeat and never go back.
#[derive(Debug, Clone)]
pub struct KeyCounter {
    last: u64,
    shard: u8,
}

impl KeyCounter {
    /// A counter that goes on after `last`, the largest key the store knows.
    pub fn after(last: Option<TaskKey>, shard: u8) -> Self {
        Self { last: last.map_or(0, TaskKey::counter), shard }
    }

    /// The next key. Keys drawn one after the other with the same `now` are consecutive.
    pub fn next(&mut self, now: WallMs) -> TaskKey {
        let ms = u64::try_from(now.get().saturating_sub(EPOCH_MS)).unwrap_or(0);
        self.last = (self.last + 1).max(ms << SEQUENCE_BITS);
        TaskKey::from_counter(self.last, self.shard)
    }
}

/// The random rest of a public id, so that ids cannot be guessed from one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdTail(u64);

impl IdTail {
    /// A tail of random bits; those that do not fit are dropped.
    pub fn new(bits: u64) -> Self {
        Self(bits & ((1 << TAIL_BITS) - 1))
    }

    /// The bits.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The public id that the server gives: a valid `UUIDv7` (RFC 9562) that carries key and tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId {
    /// The row key.
    pub key: TaskKey,
    /// The random rest.
    pub tail: IdTail,
}

impl TaskId {
    /// Reads an id back; `None` for whatever this server can not have given.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = Uuid::try_parse(text).ok().filter(|uuid| {
            // Without the variant, four texts would name one task.
            uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122 && text.len() == 36
        })?;
        let bits = uuid.as_u128();
        let ms = i64::try_from(bits >> 80).ok()?.checked_sub(EPOCH_MS)?;
        let low = (((bits >> 64) & 0xfff) << 10) | ((bits >> 52) & 0x3ff);
        let low = i64::try_from(low).ok()?;
        if !(0..1 << (MS_BITS - 1)).contains(&ms) {
            return None;
        }
        let tail = IdTail::new(u64::try_from(bits & ((1 << TAIL_BITS) - 1)).ok()?);
        Some(Self { key: TaskKey((ms << (SHARD_BITS + SEQUENCE_BITS)) | low), tail })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u128::from(self.key.accepted_at().get().cast_unsigned()) & ((1 << 48) - 1);
        let low = u128::from(self.key.0.cast_unsigned()) & ((1 << (SHARD_BITS + SEQUENCE_BITS)) - 1);
        let bits = (ms << 80)
            | (0x7 << 76)
            | ((low >> 10) << 64)
            | (0b10 << 62)
            | ((low & 0x3ff) << TAIL_BITS)
            | u128::from(self.tail.0);
        write!(f, "{}", Uuid::from_u128(bits).hyphenated())
    }
}

/// How a caller names a task: by the id we gave, by its own name, or by a text that could be either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRef {
    /// The id, if the text reads as one of ours: looked up first, and its tail compared.
    pub id: Option<TaskId>,
    /// The name, if the text may be a client's own `task_id`: looked up second.
    pub name: Option<TaskName>,
}

impl TaskRef {
    /// What `text` may name; `None` if it can name nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let this = Self { id: TaskId::parse(text), name: TaskName::parse(text).ok() };
        (this.id.is_some() || this.name.is_some()).then_some(this)
    }

    /// Names a task by the id we gave it.
    pub fn by_id(id: TaskId) -> Self {
        Self { id: Some(id), name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_never_repeat_and_never_go_back_with_the_clock() {
        let mut keys = KeyCounter::after(None, 3);
        let noon = WallMs::new(EPOCH_MS + 1_000_000);
        let mut last = keys.next(noon);
        for step in 0..100_000_i64 {
            let now = WallMs::new(noon.get() - step % 700);
            let key = keys.next(now);
            assert!(key > last);
            assert_eq!(key.shard(), 3, "a full sequence never carries into the shard");
            assert_eq!(key, last.offset(1));
            last = key;
        }
        let mut reopened = KeyCounter::after(Some(last), 3);
        assert!(reopened.next(WallMs::new(0)) > last);
    }

    #[test]
    fn a_key_is_never_negative_however_wrong_the_clock_is() {
        let last_ms = EPOCH_MS + (1 << (MS_BITS - 1)) - 1;
        for ms in [last_ms, last_ms + 1, i64::MAX, i64::MIN] {
            assert!(KeyCounter::after(None, 0).next(WallMs::new(ms)) >= TaskKey::MIN, "{ms}");
        }
    }

    #[test]
    fn a_key_tells_when_it_was_accepted() {
        let now = WallMs::parse("2026-11-24T10:00:00.123Z").unwrap();
        assert_eq!(KeyCounter::after(None, 0).next(now).accepted_at(), now);
    }

    #[test]
    fn what_we_cannot_have_given_is_no_id() {
        for text in ["", "x", "00000000-0000-4000-8000-000000000000", "00000000-0000-7000-8000-000000000000"] {
            assert_eq!(TaskId::parse(text), None, "{text}");
        }
        let text = TaskId { key: TaskKey(1 << 30), tail: IdTail::new(5) }.to_string();
        assert_eq!(TaskId::parse(&text).map(|id| id.to_string()), Some(text.clone()));
        for other in ["0", "1", "2", "3", "4", "5", "6", "7", "c", "d", "e", "f"] {
            let mut variant = text.clone();
            variant.replace_range(19..20, other);
            assert_eq!(TaskId::parse(&variant), None, "{variant}: one name a task");
        }
        assert!(TaskRef::parse("order:7").unwrap().id.is_none());
        assert!(TaskRef::parse("no spaces").is_none());
        assert_eq!(TaskKey::from_i64(-1), None);
    }

    #[test]
    fn an_id_has_one_spelling_and_its_bounds() {
        let id = TaskId { key: TaskKey(1 << 30), tail: IdTail::new(u64::MAX) };
        let text = id.to_string();
        assert_eq!(id.tail.get(), (1 << TAIL_BITS) - 1, "what does not fit is dropped");
        for other in [text.replace('-', ""), format!("{{{text}}}"), format!("urn:uuid:{text}"), text.replace('7', "4")]
        {
            assert_eq!(TaskId::parse(&other), None, "{other}");
        }
        let last_ms = EPOCH_MS + (1 << (MS_BITS - 1)) - 1;
        for (ms, ours) in [(EPOCH_MS - 1, false), (EPOCH_MS, true), (last_ms, true), (last_ms + 1, false)] {
            let bits = (u128::from(ms.cast_unsigned()) << 80) | (0x7 << 76) | (0b10 << 62);
            let text = Uuid::from_u128(bits).hyphenated().to_string();
            assert_eq!(TaskId::parse(&text).map(|id| id.key.accepted_at()), ours.then_some(WallMs::new(ms)), "{text}");
        }
    }

    #[test]
    fn a_task_is_named_by_its_id_or_by_its_own_name_or_by_both() {
        let id = TaskId { key: TaskKey(1 << 30), tail: IdTail::new(5) };
        assert_eq!(TaskRef::by_id(id), TaskRef { id: Some(id), name: None });
        let text = id.to_string();
        let both = TaskRef { id: Some(id), name: TaskName::parse(&text).ok() };
        assert!(both.name.is_some());
        assert_eq!(TaskRef::parse(&text), Some(both));
    }

    proptest! {
        #[test]
        fn a_public_id_is_a_uuid_v7_and_reads_back(ms in 0i64..1 << 41, shard: u8, sequence in 0u64..1 << 14, tail: u64) {
            let key = TaskKey::from_counter((ms.cast_unsigned() << SEQUENCE_BITS) | sequence, shard);
            let id = TaskId { key, tail: IdTail::new(tail) };
            let text = id.to_string();
            prop_assert_eq!(Uuid::parse_str(&text).unwrap().get_version_num(), 7);
            prop_assert_eq!(Uuid::parse_str(&text).unwrap().get_variant(), Variant::RFC4122);
            prop_assert_eq!(TaskId::parse(&text), Some(id));
            prop_assert_eq!(TaskKey::from_i64(key.to_i64()), Some(key));
        }
    }
}
