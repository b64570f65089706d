//! The API keys in force: who presents what, and since when it has been used. What is kept of them is kept elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::task::WallMs;
use crate::task::limits::{API_KEYS_MAX, KEY_USE_STEP};

use super::api_key::{AdminKey, KeyDigest, KeyRecord, id_of};
use super::scope::Scopes;

/// Who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key's public part.
    pub id: Arc<str>,
    /// What the key may do.
    pub scopes: Arc<Scopes>,
}

/// Why a key was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// There are as many as there may be.
    #[error("there are {API_KEYS_MAX} API keys already: revoke those that nobody uses")]
    Full,
    /// Its id is taken. Ids are random: this is next to impossible, and another draw helps.
    #[error("another API key has this id")]
    Taken,
}

/// The keys in force.
#[derive(Debug)]
pub struct KeyRing {
    admin: Admin,
    keys: RwLock<BTreeMap<Arc<str>, Arc<Entry>>>,
}

/// The key in `admin.key`: may do everything, never expires, and is void when its file is replaced.
#[derive(Debug)]
struct Admin {
    id: Arc<str>,
    digest: KeyDigest,
    scopes: Arc<Scopes>,
    used_at: UsedAt,
}

#[derive(Debug)]
struct Entry {
    record: KeyRecord,
    /// False until it is durable: nobody is let in by a key that a crash could take back.
    in_force: AtomicBool,
    used_at: UsedAt,
    /// What is written down of it.
    kept: UsedAt,
}

/// A moment that everybody may move on; none is the least.
#[derive(Debug)]
struct UsedAt(AtomicI64);

impl UsedAt {
    fn new(at: Option<WallMs>) -> Self {
        Self(AtomicI64::new(at.map_or(i64::MIN, WallMs::get)))
    }

    fn get(&self) -> Option<WallMs> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at| *at != i64::MIN).map(WallMs::new)
    }

    /// Cut to a step, so that a busy key writes this memory once in a while and not with every request.
    fn touch(&self, now: WallMs) {
        let step = i64::try_from(KEY_USE_STEP.as_millis()).unwrap_or(i64::MAX);
        let at = now.get() - now.get().rem_euclid(step);
        if self.0.load(Ordering::Relaxed) != at {
            self.0.store(at, Ordering::Relaxed);
        }
    }
}

/// What the admin key is, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSeen {
    /// Its public part.
    pub id: Arc<str>,
    /// What it may do: everything.
    pub scopes: Arc<Scopes>,
    /// When it was used last since the start, roughly.
    pub last_used_at: Option<WallMs>,
}

impl KeyRing {
    /// A ring with the admin key and those that were kept.
    pub fn new(admin: &AdminKey, kept: Vec<KeyRecord>) -> Self {
        let keys = kept.into_iter().map(|record| (Arc::clone(&record.id), Arc::new(Entry::new(record, true))));
        Self {
            admin: Admin {
                id: Arc::from(admin.id()),
                digest: admin.digest(),
                scopes: Arc::new(Scopes::all()),
                used_at: UsedAt::new(None),
            },
            keys: RwLock::new(keys.collect()),
        }
    }

    /// Who presents this key at `now`; `None` when it is unknown, wrong, expired or revoked. Each of these takes the same
    /// steps: a digest and a comparison, with a digest that nothing has where the id is unknown.
    pub fn recognise(&self, presented: &str, now: WallMs) -> Option<Holder> {
        let id = id_of(presented);
        let entry = self.find(id);
        let is_admin = *id == *self.admin.id;
        let expected = match &entry {
            _ if is_admin => self.admin.digest,
            Some(entry) => entry.record.digest,
            None => NOBODY,
        };
        let is_right = KeyDigest::of(presented).is(expected);
        if is_right && is_admin {
            self.admin.used_at.touch(now);
            return Some(Holder { id: Arc::clone(&self.admin.id), scopes: Arc::clone(&self.admin.scopes) });
        }
        let entry = entry.filter(|_| is_right)?;
        let in_force = entry.in_force.load(Ordering::Acquire);
        if !in_force || entry.record.expires_at.is_some_and(|at| at <= now) {
            return None;
        }
        entry.used_at.touch(now);
        Some(Holder { id: Arc::clone(&entry.record.id), scopes: Arc::clone(&entry.record.scopes) })
    }

    /// Takes a key that is not durable yet, and so not in force.
    pub fn add(&self, record: KeyRecord) -> Result<(), AddError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= API_KEYS_MAX {
            return Err(AddError::Full);
        }
        if *record.id == *self.admin.id || keys.contains_key(&record.id) {
            return Err(AddError::Taken);
        }
        keys.insert(Arc::clone(&record.id), Arc::new(Entry::new(record, false)));
        Ok(())
    }

    /// The key is durable: it is in force.
    pub fn put_in_force(&self, id: &str) {
        if let Some(entry) = self.find(id) {
            entry.in_force.store(true, Ordering::Release);
        }
    }

    /// The key is void from now on. Says whether there was one.
    pub fn remove(&self, id: &str) -> bool {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// The keys in force, expired ones included, by the time they were made, with their last use.
    pub fn records(&self) -> Vec<KeyRecord> {
        let mut records: Vec<_> = self.entries().iter().map(|entry| entry.record_now()).collect();
        records.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        records
    }

    /// One of them.
    pub fn record(&self, id: &str) -> Option<KeyRecord> {
        self.find(id).filter(|entry| entry.in_force.load(Ordering::Acquire)).map(|entry| entry.record_now())
    }

    /// The admin key.
    pub fn admin(&self) -> AdminSeen {
        let admin = &self.admin;
        AdminSeen { id: Arc::clone(&admin.id), scopes: Arc::clone(&admin.scopes), last_used_at: admin.used_at.get() }
    }

    /// The keys whose last use is not written down yet. They count as written down from now on.
    pub fn take_unkept_uses(&self) -> Vec<KeyRecord> {
        let mut unkept = Vec::new();
        for entry in self.entries() {
            let used_at = entry.used_at.get();
            if used_at != entry.kept.get() {
                entry.kept.0.store(used_at.map_or(i64::MIN, WallMs::get), Ordering::Relaxed);
                unkept.push(entry.record_now());
            }
        }
        unkept
    }

    fn find(&self, id: &str) -> Option<Arc<Entry>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().filter(|entry| entry.in_force.load(Ordering::Acquire)).cloned().collect()
    }
}

/// Compared with where nobody has the id. That a text has this digest is as likely as guessing a key.
const NOBODY: KeyDigest = KeyDigest::from_bytes([0; 32]);

impl Entry {
    fn new(record: KeyRecord, in_force: bool) -> Self {
        let used = || UsedAt::new(record.last_used_at);
        Self { in_force: AtomicBool::new(in_force), used_at: used(), kept: used(), record }
    }

    fn record_now(&self) -> KeyRecord {
        KeyRecord { last_used_at: self.used_at.get(), ..self.record.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::api_key::FreshKey;
    use crate::task::name::KeyName;

    const NOON: WallMs = WallMs::new(1_763_985_600_000);
    const MINUTE: i64 = 60_000;

    fn made(expires_at: Option<WallMs>) -> (FreshKey, KeyRecord) {
        let key = FreshKey::generate().unwrap();
        let record = KeyRecord {
            id: Arc::from(key.id()),
            name: KeyName::parse("mail").unwrap(),
            digest: key.digest(),
            scopes: Arc::new(Scopes::parse(["enqueue:mail-*"]).unwrap()),
            created_at: NOON,
            expires_at,
            last_used_at: None,
        };
        (key, record)
    }

    fn ring(kept: Vec<KeyRecord>) -> (KeyRing, AdminKey) {
        let dir = tempfile::tempdir().unwrap();
        let (admin, _) = AdminKey::load_or_create(dir.path()).unwrap();
        (KeyRing::new(&admin, kept), admin)
    }

    fn after(ms: i64) -> WallMs {
        WallMs::new(NOON.get() + ms)
    }

    #[test]
    fn only_the_whole_key_is_recognised() {
        let (key, record) = made(None);
        let (other, _) = made(None);
        let (ring, admin) = ring(vec![record.clone()]);
        let holder = ring.recognise(key.reveal(), NOON).unwrap();
        assert_eq!((&holder.id, &holder.scopes), (&record.id, &record.scopes));
        assert_eq!(*ring.recognise(admin.reveal(), NOON).unwrap().scopes, Scopes::all());
        let crossed = other.reveal().replace(other.id(), key.id());
        let as_admin = key.reveal().replace(key.id(), admin.id());
        let wrong = [other.reveal(), &crossed, &as_admin, "", "so_", "so__", key.id(), &key.reveal()[1..]];
        for wrong in wrong {
            assert_eq!(ring.recognise(wrong, NOON), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_void_from_its_expiry_on() {
        let (key, record) = made(Some(after(MINUTE)));
        let (ring, _) = ring(vec![record]);
        assert!(ring.recognise(key.reveal(), after(MINUTE - 1)).is_some());
        assert_eq!(ring.recognise(key.reveal(), after(MINUTE)), None);
        assert_eq!(ring.records().len(), 1, "it is still listed");
    }

    #[test]
    fn a_key_is_in_force_once_it_is_durable_and_until_it_is_revoked() {
        let (ring, _) = ring(Vec::new());
        let (first, first_record) = made(None);
        ring.add(first_record.clone()).unwrap();
        assert_eq!(ring.recognise(first.reveal(), NOON), None);
        assert_eq!((ring.records(), ring.record(first.id())), (Vec::new(), None));
        ring.put_in_force(first.id());
        assert!(ring.recognise(first.reveal(), NOON).is_some());
        assert_eq!(ring.add(first_record), Err(AddError::Taken));
        // Rotation: the second is there before the first goes.
        let (second, record) = made(None);
        ring.add(record).unwrap();
        ring.put_in_force(second.id());
        assert!(ring.recognise(first.reveal(), NOON).is_some() && ring.recognise(second.reveal(), NOON).is_some());
        assert!(ring.remove(first.id()) && !ring.remove(first.id()));
        assert_eq!(ring.recognise(first.reveal(), NOON), None);
        assert!(ring.recognise(second.reveal(), NOON).is_some());
    }

    #[test]
    fn last_use_is_coarse_and_written_down_once() {
        let (key, record) = made(None);
        let (ring, admin) = ring(vec![record.clone()]);
        assert_eq!(ring.take_unkept_uses(), []);
        ring.recognise(key.reveal(), after(1)).unwrap();
        ring.recognise(key.reveal(), after(MINUTE - 1)).unwrap();
        let used = KeyRecord { last_used_at: Some(NOON), ..record.clone() };
        assert_eq!(ring.record(key.id()), Some(used.clone()));
        assert_eq!(ring.take_unkept_uses(), [used]);
        ring.recognise(key.reveal(), after(MINUTE - 1)).unwrap();
        assert_eq!(ring.take_unkept_uses(), []);
        ring.recognise(key.reveal(), after(MINUTE)).unwrap();
        assert_eq!(ring.take_unkept_uses(), [KeyRecord { last_used_at: Some(after(MINUTE)), ..record }]);
        ring.recognise("so_wrong_wrong", after(9 * MINUTE));
        assert_eq!(ring.admin().last_used_at, None);
        ring.recognise(admin.reveal(), after(MINUTE + 5)).unwrap();
        assert_eq!(ring.admin().last_used_at, Some(after(MINUTE)));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let kept = |count: usize| {
            let record = made(None).1;
            (0..count).map(|n| KeyRecord { id: Arc::from(n.to_string()), ..record.clone() }).collect::<Vec<_>>()
        };
        let (ring, _) = ring(kept(API_KEYS_MAX - 1));
        assert_eq!(ring.add(made(None).1), Ok(()));
        assert_eq!(ring.add(made(None).1), Err(AddError::Full));
    }
}
