//! The keys that sign our ID tokens (ES256): each is published before it signs and until its last token is over. They are
//! kept in one private file.
//!
//! When a key is made, signs and goes, [`Plan`] decides from moments alone. What it decides is on disk before it holds,
//! so that a restart finds every key that has signed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use crate::logging::event::{Event, SigningKeyCreated, SigningKeyRemoved};
use crate::security::private_file::{self, FileError, SECRET};
use crate::task::WallMs;
use crate::task::id::CLOCK_MIN;
use crate::task::limits::{SIGNING_KEY_LIFE, SIGNING_KEY_PUBLISHED_AFTER, SIGNING_KEY_PUBLISHED_BEFORE};

/// The file in `data_dir`.
const FILE: &str = "oidc-keys.json";

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    /// Their file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Their file holds something else.
    #[error(
        "{} does not hold the keys that sign our ID tokens: {why}; restore it from a copy, or move it away and start \
         again: then a new key is made, and handlers accept no token until they have fetched it",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never what was found.
        why: String,
    },
    /// No key could be made.
    #[error("no key for ID tokens could be made: {0}")]
    NotMade(String),
}

/// The keys in force, and the file behind them.
#[derive(Debug)]
pub(super) struct SigningKeys {
    path: PathBuf,
    current: RwLock<Arc<KeySet>>,
}

/// Keys in the order in which they sign.
#[derive(Debug, Default)]
struct KeySet(Vec<Arc<Key>>);

/// A key pair, and from when on it signs.
struct Key {
    signs_from: WallMs,
    header: Header,
    private: EncodingKey,
    public: Jwk,
    /// The private key as it is kept.
    pem: String,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    signing_keys: Vec<KeptKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptKey {
    signs_from: String,
    private_key: String,
}

/// What is to become of keys, of which only the moments are known from which on they sign.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Which signs; none where there is none.
    signs: Option<usize>,
    /// Of each key, whether it is still published.
    stays: Vec<bool>,
    /// From when on a new key is to sign, if it is time to make one.
    next: Option<WallMs>,
}

impl Plan {
    /// The plan for keys that sign from these moments on, in their order, at the moment `now`.
    ///
    /// A key signs from its moment on until the next one does. The next one is made early enough to be published for
    /// [`SIGNING_KEY_PUBLISHED_BEFORE`] however late we are: the old one goes on meanwhile. Only the very first key, and
    /// the first one after a clock that was ahead by more than a key's life, sign at once: there is no other.
    fn at(from: &[WallMs], now: WallMs) -> Self {
        let published_before = now.plus(SIGNING_KEY_PUBLISHED_BEFORE.to_duration());
        let horizon = now.plus(SIGNING_KEY_LIFE.to_duration());
        let over = |since: WallMs| since.plus(SIGNING_KEY_PUBLISHED_AFTER.to_duration()) <= now;
        let signs = from.iter().rposition(|from| *from <= now).unwrap_or(0);
        let Some(since) = from.get(signs).copied() else {
            return Self { signs: None, stays: Vec::new(), next: Some(now) };
        };
        if now < CLOCK_MIN {
            // Whatever such a clock would have us do would be wrong.
            return Self { signs: Some(signs), stays: vec![true; from.len()], next: None };
        }
        let stays = from.iter().enumerate().map(|(index, own)| {
            let has_ended = index < signs && from.get(index + 1).is_some_and(|next| over(*next));
            // Nobody plans so far ahead: the clock was ahead when this one was made.
            let was_not_planned = index > signs && *own > horizon && over(since);
            !has_ended && !was_not_planned
        });
        let follows = from.iter().skip(signs + 1).any(|from| *from <= horizon);
        let ends = since.plus(SIGNING_KEY_LIFE.to_duration());
        let next = if since > horizon {
            Some(now)
        } else {
            (!follows && published_before >= ends).then(|| ends.max(published_before))
        };
        Self { signs: Some(signs), stays: stays.collect(), next }
    }
}

impl SigningKeys {
    /// The keys of `data_dir`, made when there are none; and what happened to them. For one process at a time.
    pub(super) fn open(data_dir: &Path, now: WallMs) -> Result<(Self, Vec<Event>), SigningKeysError> {
        let path = data_dir.join(FILE);
        private_file::ensure_dir(data_dir)?;
        let set = match private_file::read_secret(&path)? {
            Some(text) => KeySet::parse(&text).map_err(|why| SigningKeysError::Damaged { path: path.clone(), why })?,
            None => KeySet::default(),
        };
        let keys = Self { path, current: RwLock::new(Arc::new(set)) };
        let events = keys.turn(now)?;
        Ok((keys, events))
    }

    /// Makes the key that is due and removes those that are over; tells what it did. Nothing has changed when it fails.
    pub(super) fn turn(&self, now: WallMs) -> Result<Vec<Event>, SigningKeysError> {
        let (next, events) = self.current().turned(now)?;
        if !events.is_empty() {
            private_file::replace(&self.path, &next.text(), SECRET)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        Ok(events)
    }

    /// These claims, signed by the key whose turn it is.
    pub(super) fn sign<T: Serialize>(&self, claims: &T, now: WallMs) -> Result<String, String> {
        let keys = self.current();
        let key = keys.plan(now).signs.and_then(|index| keys.0.get(index)).ok_or("there is no key that signs")?;
        encode(&key.header, claims, &key.private).map_err(|error| format!("the key does not sign: {error}"))
    }

    /// The public keys that whoever verifies our tokens has to know at this moment.
    pub(super) fn published(&self, now: WallMs) -> JwkSet {
        let keys = self.current();
        let stays = keys.plan(now).stays;
        let published = keys.0.iter().zip(stays).filter(|(_, stays)| *stays);
        JwkSet { keys: published.map(|(key, _)| key.public.clone()).collect() }
    }

    fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeySet {
    fn plan(&self, now: WallMs) -> Plan {
        let from: Vec<_> = self.0.iter().map(|key| key.signs_from).collect();
        Plan::at(&from, now)
    }

    /// The keys after what is due at `now`, and what that was.
    fn turned(&self, now: WallMs) -> Result<(Self, Vec<Event>), SigningKeysError> {
        let Plan { stays, next, .. } = self.plan(now);
        let (mut keys, mut events) = (Vec::new(), Vec::new());
        for (key, stays) in self.0.iter().zip(stays) {
            if stays {
                keys.push(Arc::clone(key));
            } else {
                events.push(SigningKeyRemoved { kid: key.kid() }.into());
            }
        }
        if let Some(signs_from) = next {
            let key = Key::make(signs_from).map_err(SigningKeysError::NotMade)?;
            events.push(SigningKeyCreated { kid: key.kid(), signs_from }.into());
            keys.push(Arc::new(key));
        }
        keys.sort_by_key(|key| key.signs_from);
        Ok((Self(keys), events))
    }

    /// Reads the file. The error says what is wrong, not with what.
    fn parse(text: &str) -> Result<Self, String> {
        let Kept { signing_keys } = serde_json::from_str(text).map_err(|error| {
            format!("expected the JSON that sendoff wrote there (line {}, column {})", error.line(), error.column())
        })?;
        if signing_keys.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        let read = |kept: KeptKey| {
            let signs_from = WallMs::parse(&kept.signs_from);
            let signs_from = signs_from.map_err(|_error| "signs_from: expected a moment (RFC 3339)".to_owned())?;
            Key::parse(kept.private_key, signs_from).map(Arc::new)
        };
        let mut keys: Vec<_> = signing_keys.into_iter().map(read).collect::<Result<_, _>>()?;
        keys.sort_by_key(|key| key.signs_from);
        Ok(Self(keys))
    }

    fn text(&self) -> String {
        let kept = |key: &Arc<Key>| KeptKey { signs_from: key.signs_from.to_string(), private_key: key.pem.clone() };
        let kept = Kept { signing_keys: self.0.iter().map(kept).collect() };
        // Strings only: there is nothing in it that could not be written.
        serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n"
    }
}

impl Key {
    fn make(signs_from: WallMs) -> Result<Self, String> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
        Self::parse(pair.serialize_pem(), signs_from)
    }

    /// A private key in PEM. Its id is its thumbprint (RFC 7638): the same key has the same one everywhere.
    fn parse(pem: String, signs_from: WallMs) -> Result<Self, String> {
        let expected = || "private_key: expected a P-256 key in PEM (PKCS #8)".to_owned();
        let private = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_error| expected())?;
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256).map_err(|_error| expected())?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(|_error| expected())?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(kid.clone());
        let header = Header { kid: Some(kid), ..Header::new(Algorithm::ES256) };
        Ok(Self { signs_from, header, private, public, pem })
    }

    fn kid(&self) -> String {
        self.header.kid.clone().unwrap_or_default()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid()).field("signs_from", &self.signs_from).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::task::limits::ID_TOKEN_LIFE;

    const MIN: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn noon() -> WallMs {
        WallMs::parse("2026-11-24T12:00:00Z").unwrap()
    }

    fn day(days: u32) -> WallMs {
        noon().plus(DAY * days)
    }

    fn just_before(moment: WallMs) -> WallMs {
        WallMs::new(moment.get() - 1)
    }

    fn plan(from: &[WallMs], now: WallMs) -> (Option<usize>, Vec<bool>, Option<WallMs>) {
        let Plan { signs, stays, next } = Plan::at(from, now);
        (signs, stays, next)
    }

    #[test]
    fn the_first_key_signs_at_once_and_the_next_is_published_a_day_before_it_signs() {
        assert_eq!(plan(&[], noon()), (None, vec![], Some(noon())));
        let first = [noon()];
        assert_eq!(plan(&first, noon()), (Some(0), vec![true], None));
        assert_eq!(plan(&first, just_before(day(29))), (Some(0), vec![true], None));
        assert_eq!(plan(&first, day(29)), (Some(0), vec![true], Some(day(30))));
        let both = [noon(), day(30)];
        assert_eq!(plan(&both, day(29)), (Some(0), vec![true, true], None), "published, and it does not sign yet");
        assert_eq!(plan(&both, just_before(day(30))), (Some(0), vec![true, true], None));
        assert_eq!(plan(&both, day(30)), (Some(1), vec![true, true], None));
    }

    #[test]
    fn a_key_stays_published_until_the_last_token_that_it_signed_is_over() {
        let both = [noon(), day(30)];
        let last_token_ends = day(30).plus(ID_TOKEN_LIFE.to_duration());
        assert_eq!(plan(&both, last_token_ends).1, [true, true]);
        assert_eq!(plan(&both, just_before(day(30).plus(HOUR))).1, [true, true]);
        assert_eq!(plan(&both, day(30).plus(HOUR)), (Some(1), vec![false, true], None));
    }

    #[test]
    fn however_late_a_rotation_is_the_next_key_is_published_before_it_signs() {
        assert_eq!(plan(&[noon()], day(200)), (Some(0), vec![true], Some(day(201))));
        assert_eq!(plan(&[noon(), day(201)], day(201)), (Some(1), vec![true, true], None));
    }

    #[test]
    fn a_clock_that_was_wrong_takes_no_key_that_signs_and_stops_no_rotation() {
        // Before sendoff: nothing is done. A little behind: nothing has changed.
        assert_eq!(plan(&[noon(), day(30)], WallMs::new(0)), (Some(0), vec![true, true], None));
        assert_eq!(plan(&[noon()], just_before(noon())), (Some(0), vec![true], None));
        // It was a year ahead when the next key was made: that one goes, and rotation goes on.
        let ahead = [noon(), day(366)];
        assert_eq!(plan(&ahead, day(1)), (Some(0), vec![true, false], None));
        assert_eq!(plan(&ahead, day(29)), (Some(0), vec![true, false], Some(day(30))));
        // It was a year ahead for longer than that: all keys are of then. One more signs from now on.
        let lost = [day(366)];
        assert_eq!(plan(&lost, noon()), (Some(0), vec![true], Some(noon())));
        let found = [noon(), day(366)];
        assert_eq!(plan(&found, noon()), (Some(0), vec![true, true], None), "its tokens are still about");
        assert_eq!(plan(&found, noon().plus(HOUR)), (Some(0), vec![true, false], None));
    }

    /// What a server that looks every so often has at the end, and what was true on its way.
    fn lived(looks: &[u32]) -> Result<Vec<WallMs>, TestCaseError> {
        let (mut keys, mut now): (Vec<WallMs>, _) = (Vec::new(), noon());
        let mut published_since = std::collections::BTreeMap::new();
        let mut signed_until = std::collections::BTreeMap::new();
        for minutes in looks {
            let plan = Plan::at(&keys, now);
            let stays = plan.stays.iter();
            let gone: Vec<_> = keys.iter().zip(stays).filter(|(_, stays)| !**stays).map(|(key, _)| *key).collect();
            for key in &gone {
                let last = signed_until.get(key).copied().unwrap_or(noon());
                prop_assert!(
                    ID_TOKEN_LIFE.to_duration().saturating_add(last.since(WallMs::new(0))) <= now.since(WallMs::new(0))
                );
            }
            keys.retain(|key| !gone.contains(key));
            keys.extend(plan.next);
            keys.sort();
            prop_assert!((1..=3).contains(&keys.len()), "{keys:?}");
            for key in &keys {
                published_since.entry(*key).or_insert(now);
            }
            let signs = keys[Plan::at(&keys, now).signs.unwrap()];
            signed_until.insert(signs, now);
            let long_enough = published_since[&signs].plus(SIGNING_KEY_PUBLISHED_BEFORE.to_duration()) <= now;
            prop_assert!(signs == noon() || long_enough, "{signs} signs at {now}");
            now = now.plus(MIN * *minutes);
        }
        Ok(keys)
    }

    proptest! {
        #[test]
        fn no_key_signs_before_it_was_published_or_goes_before_its_tokens(
            looks in proptest::collection::vec(prop_oneof![10..=10_u32, 1..3_000_u32, 1..200_000_u32], 1..300),
        ) {
            lived(&looks)?;
        }
    }

    /// The kid that signs, and the kids that are published.
    fn seen(keys: &SigningKeys, now: WallMs) -> (String, Vec<String>) {
        let token = keys.sign(&serde_json::json!({"a": 1}), now).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let set = keys.published(now);
        let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).expect("published")).unwrap();
        let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).expect("it verifies");
        (kid, set.keys.iter().map(|key| key.common.key_id.clone().unwrap()).collect())
    }

    #[test]
    fn keys_are_rotated_told_and_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (keys, events) = SigningKeys::open(&data, noon()).unwrap();
        let (first, _) = seen(&keys, noon());
        assert_eq!(events, [SigningKeyCreated { kid: first.clone(), signs_from: noon() }.into()]);
        let path = data.join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(keys.turn(day(28)).unwrap().is_empty());

        let events = keys.turn(day(29)).unwrap();
        let (signs, published) = seen(&keys, day(29));
        let second = published[1].clone();
        assert_eq!((signs, &published[..]), (first.clone(), &[first.clone(), second.clone()][..]));
        assert_eq!(events, [SigningKeyCreated { kid: second.clone(), signs_from: day(30) }.into()]);

        let (again, events) = SigningKeys::open(&data, day(30)).unwrap();
        assert!(events.is_empty());
        assert_eq!(seen(&again, day(30)), (second.clone(), vec![first.clone(), second.clone()]));
        // Not published any more although nobody has looked yet.
        assert_eq!(seen(&again, day(31)).1, std::slice::from_ref(&second));
        assert_eq!(again.turn(day(31)).unwrap(), [SigningKeyRemoved { kid: first }.into()]);
        let (again, _) = SigningKeys::open(&data, day(31)).unwrap();
        assert_eq!(seen(&again, day(31)), (second.clone(), vec![second]));
        assert!(!format!("{again:?}").contains("PRIVATE"), "{again:?}");
    }

    #[test]
    fn a_rotation_that_cannot_be_written_down_does_not_hold() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (keys, _) = SigningKeys::open(&data, noon()).unwrap();
        std::fs::rename(&data, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(keys.turn(day(29)), Err(SigningKeysError::File(_))));
        assert_eq!(seen(&keys, day(29)).1.len(), 1);
        std::fs::rename(dir.path().join("elsewhere"), &data).unwrap();
        assert_eq!(keys.turn(day(29)).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_or_exposed_file_is_refused_left_alone_and_not_shown() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let with = |from: &str, key: &str| {
            serde_json::json!({"signing_keys": [{"signs_from": from, "private_key": key}]}).to_string()
        };
        for (text, told) in [
            (String::new(), "expected the JSON that sendoff wrote"),
            ("{\"signing_keys\":[\"hunter2\"]}".to_owned(), "line 1, column"),
            ("{\"signing_keys\":[]}".to_owned(), "there is no key in it"),
            (with("hunter2", &other), "signs_from: expected a moment"),
            (with("2026-11-24T12:00:00Z", "hunter2"), "private_key: expected a P-256 key"),
            (with("2026-11-24T12:00:00Z", &other), "private_key: expected a P-256 key"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE);
            private_file::create(&path, &text, SECRET).unwrap();
            let error = SigningKeys::open(dir.path(), noon()).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("move it away") && error.contains(FILE), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("PRIVATE"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let dir = tempfile::tempdir().unwrap();
        SigningKeys::open(dir.path(), noon()).unwrap();
        std::fs::set_permissions(dir.path().join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKeys::open(dir.path(), noon()).unwrap_err().to_string();
        assert!(error.contains("open to other users") && error.contains("chmod 600"), "{error}");
    }
}
