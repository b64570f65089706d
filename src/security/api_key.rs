//! API keys: `so_<id>_<secret>`, how they are made and recognised, and the one admin key of a first start.
//!
//! What is kept of a key is SHA-256 of its text. A slow, salted hash is for secrets that people choose: it makes guessing
//! from a list dear. There is no list for 256 random bits, and trying them all is out of reach of any hash, so a fast one
//! loses nothing, and no request can be made dear by presenting wrong keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::SecureRandom;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::task::WallMs;
use crate::task::name::KeyName;

use super::private_file::{self, FileError};
use super::scope::Scopes;

/// The admin key's file in `data_dir`.
pub const ADMIN_KEY_FILE: &str = "admin.key";

const PREFIX: &str = "so";
/// Characters of the part that names a key: public, may stand in logs.
const ID_LEN: usize = 8;
/// Characters of the secret: 43 of 62 letters and digits carry 256 bits.
const SECRET_LEN: usize = 43;
/// Characters of the checksum at the end, so that a mistyped or cut key is known without a look-up.
const CHECK_LEN: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whether a text can be the public part of a key.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// What is kept of a key's text: enough to recognise it, not enough to present it.
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a text, whatever it is.
    pub fn of(text: &str) -> Self {
        Self(digest(text))
    }

    /// A digest that was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether both are of one text. Takes the same time wherever the two differ.
    pub fn is(self, other: Self) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.is(*other)
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// An API key as it is kept: everything but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The public part that names it.
    pub id: Arc<str>,
    /// What it is for.
    pub name: KeyName,
    /// By which it is recognised.
    pub digest: KeyDigest,
    /// What it may do.
    pub scopes: Arc<Scopes>,
    /// When it was made.
    pub created_at: WallMs,
    /// From when on it is void.
    pub expires_at: Option<WallMs>,
    /// When it was used last, roughly ([`crate::task::limits::KEY_USE_STEP`]).
    pub last_used_at: Option<WallMs>,
}

/// A key made just now: the only moment at which its text is there. Has no `Display`, and a `Debug` without the secret.
pub struct FreshKey {
    text: String,
}

impl FreshKey {
    /// Makes a key.
    pub fn generate() -> Result<Self, NoRandomness> {
        let body = format!("{PREFIX}_{}_{}", random_text(ID_LEN)?, random_text(SECRET_LEN)?);
        let text = format!("{body}{}", checksum(&body));
        Ok(Self { text })
    }

    /// The public part that names it.
    pub fn id(&self) -> &str {
        id_of(&self.text)
    }

    /// What to keep of it.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.text)
    }

    /// The key itself: for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreshKey({PREFIX}_{}_…)", self.id())
    }
}

/// The operating system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct NoRandomness;

/// The part of a key that names it; empty where there is none. What was presented may be anything.
pub(super) fn id_of(text: &str) -> &str {
    text.split('_').nth(1).unwrap_or_default()
}

/// The admin key of this server: may do everything.
///
/// Has no `Display`, and a `Debug` that shows only the id; [`AdminKey::reveal`] is the one way to the text.
#[derive(Clone)]
pub struct AdminKey {
    text: String,
}

/// Why there is no admin key.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The file could not be read or written, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold a key.
    #[error(
        "{} does not hold a key as sendoff writes it (`so_…`, checksum included): restore the file, or remove it to \
         have a new key made (the old one is then void)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl AdminKey {
    /// Reads `data_dir/admin.key`, or makes a key and puts it there (mode 0600, synced). Says whether it was made just
    /// now: the only time it is shown.
    ///
    /// Fails when the file is damaged or open to other users, and never overwrites it.
    pub fn load_or_create(data_dir: &Path) -> Result<(Self, bool), AdminKeyError> {
        let path = data_dir.join(ADMIN_KEY_FILE);
        if let Some(found) = private_file::read_secret(&path)? {
            let key = Self::parse(found.trim_end()).ok_or(AdminKeyError::Damaged { path })?;
            return Ok((key, false));
        }
        private_file::ensure_dir(data_dir)?;
        let key = Self::generate()?;
        private_file::create(&path, &format!("{}\n", key.text), private_file::SECRET)?;
        Ok((key, true))
    }

    /// The public part that names the key, for logs.
    pub fn id(&self) -> &str {
        id_of(&self.text)
    }

    /// By which it is recognised.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.text)
    }

    /// The key itself: for the line printed at the first start, and for the CLI's own requests.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    fn generate() -> Result<Self, AdminKeyError> {
        Ok(Self { text: FreshKey::generate()?.text })
    }

    fn parse(text: &str) -> Option<Self> {
        looks_like_key(text).then(|| Self { text: text.to_owned() })
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminKey({PREFIX}_{}_…)", self.id())
    }
}

/// Whether `text` has the form of a key and its checksum fits: tells a cut or mistyped key from a void one.
pub fn looks_like_key(text: &str) -> bool {
    let mut parts = text.split('_');
    let (prefix, id, secret) = (parts.next(), parts.next(), parts.next());
    let of = |part: Option<&str>, len| {
        part.is_some_and(|part| part.len() == len && part.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    let formed =
        prefix == Some(PREFIX) && of(id, ID_LEN) && of(secret, SECRET_LEN + CHECK_LEN) && parts.next().is_none();
    formed && text.split_at_checked(text.len() - CHECK_LEN).is_some_and(|(body, check)| checksum(body) == check)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The first 32 bits of SHA-256 in six letters and digits, as many as hold them.
fn checksum(body: &str) -> String {
    let [a, b, c, d, ..] = digest(body);
    let mut rest = u64::from(u32::from_be_bytes([a, b, c, d]));
    let mut letters = [0_u8; CHECK_LEN];
    for place in letters.iter_mut().rev() {
        *place = letter(rest % 62);
        rest /= 62;
    }
    letters.iter().map(|letter| char::from(*letter)).collect()
}

/// `len` letters and digits, each as likely as any other, from the operating system's randomness.
fn random_text(len: usize) -> Result<String, NoRandomness> {
    let source: &dyn SecureRandom = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut text = String::with_capacity(len);
    let mut bytes = [0_u8; 64];
    while text.len() < len {
        // What there is to know about the cause is in the name of the error.
        source.fill(&mut bytes).or(Err(NoRandomness))?;
        // 248 = 4 × 62: the bytes from there on would make the first letters likelier.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(letter(u64::from(byte % 62))));
        text.extend(fair.take(len - text.len()));
    }
    Ok(text)
}

fn letter(number: u64) -> u8 {
    usize::try_from(number).ok().and_then(|index| ALPHABET.get(index)).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn the_key_is_made_once_kept_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (first, created) = AdminKey::load_or_create(&data).unwrap();
        assert!(created);
        let path = data.join(ADMIN_KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", first.reveal()));
        let (second, created) = AdminKey::load_or_create(&data).unwrap();
        assert!(!created);
        assert_eq!(first.reveal(), second.reveal());
    }

    #[test]
    fn only_the_key_itself_is_accepted() {
        let key = AdminKey::generate().unwrap();
        assert!(key.digest().is(KeyDigest::of(key.reveal())));
        let other = AdminKey::generate().unwrap();
        for wrong in ["", "so_", other.reveal(), &key.reveal()[1..], &format!("{} ", key.reveal())] {
            assert!(!key.digest().is(KeyDigest::of(wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_shows_its_id_and_nothing_else() {
        let key = AdminKey::generate().unwrap();
        let secret = key.reveal().rsplit('_').next().unwrap();
        let shown = format!("{key:?}");
        assert!(!shown.contains(secret) && shown.contains(key.id()), "{shown}");
        assert_eq!((key.id().len(), secret.len()), (ID_LEN, SECRET_LEN + CHECK_LEN));
        let fresh = FreshKey::generate().unwrap();
        let secret = fresh.reveal().rsplit('_').next().unwrap();
        assert!(!format!("{fresh:?} {:?}", fresh.digest()).contains(secret));
        assert!(looks_like_key(fresh.reveal()) && fresh.digest() == KeyDigest::of(fresh.reveal()));
    }

    #[test]
    fn keys_differ_and_use_the_whole_alphabet() {
        let texts: BTreeSet<String> = (0..200).map(|_| AdminKey::generate().unwrap().text).collect();
        assert_eq!(texts.len(), 200);
        let letters: BTreeSet<char> = texts.iter().flat_map(|text| text.chars()).collect();
        assert_eq!(letters.len(), ALPHABET.len() + 1, "62 letters and the underscore");
    }

    #[test]
    fn a_cut_or_mistyped_key_is_told_from_a_void_one() {
        let key = AdminKey::generate().unwrap();
        let text = key.reveal();
        assert!(looks_like_key(text));
        assert!(!looks_like_key(&text[..text.len() - 1]));
        assert!(!looks_like_key(&format!("{text}x")));
        assert!(!looks_like_key(&format!("{text}_x")));
        for at in [0, 4, 20, text.len() - 1] {
            let mut typo = text.as_bytes().to_vec();
            typo[at] = if typo[at] == b'z' { b'y' } else { b'z' };
            assert!(!looks_like_key(std::str::from_utf8(&typo).unwrap()), "at {at}");
        }
        assert!(!looks_like_key("so_é_x"));
    }

    #[test]
    fn a_damaged_or_exposed_file_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ADMIN_KEY_FILE);
        private_file::create(&path, "so_half", private_file::SECRET).unwrap();
        let error = AdminKey::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, AdminKeyError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = AdminKey::load_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "so_half");
    }
}
