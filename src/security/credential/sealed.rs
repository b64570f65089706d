//! Credentials that are kept outside of the configuration: sealed with a key that is not kept beside them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::secret::{self, SecretError};
use crate::config::{Secret, SecretRef};
use crate::task::{CredentialName, WallMs};

/// What of AES-256-GCM stands before and behind what it seals.
const NONCE_BYTES: usize = 12;

/// A credential as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCredential {
    /// Its name.
    pub name: CredentialName,
    /// When it was given.
    pub changed_at: WallMs,
    /// Nonce, cipher text and tag.
    pub sealed: Vec<u8>,
}

/// Seals and opens credentials: AES-256-GCM, a random nonce each time, the name bound to what is sealed.
#[derive(Debug)]
pub struct SealingKey(RandomizedNonceKey);

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum SealingKeyError {
    /// It was not read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is none.
    #[error("expected base64 of 32 bytes, such as `openssl rand -base64 32` makes")]
    NoKey,
}

/// It was sealed with another key, or under another name, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key than the one in credentials_key")]
pub struct CannotOpen;

/// It could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct CannotSeal;

impl SealingKey {
    /// Reads the key that the configuration names.
    pub fn read(at: &SecretRef) -> Result<Self, SealingKeyError> {
        Self::parse(&secret::read(at)?)
    }

    fn parse(text: &Secret) -> Result<Self, SealingKeyError> {
        let bytes = STANDARD.decode(text.expose().trim()).map_err(|_may_quote| SealingKeyError::NoKey)?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_length| SealingKeyError::NoKey)
    }

    /// Seals what was given under a name.
    pub fn seal(&self, name: &CredentialName, given: &Secret) -> Result<Vec<u8>, CannotSeal> {
        let mut cipher = given.expose().as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(about(name), &mut cipher).map_err(|_unspecified| CannotSeal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut cipher);
        Ok(sealed)
    }

    /// What was given under a name.
    pub fn open(&self, name: &CredentialName, sealed: &[u8]) -> Result<Secret, CannotOpen> {
        let (nonce, cipher) = sealed.split_at_checked(NONCE_BYTES).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| CannotOpen)?;
        let mut cipher = cipher.to_vec();
        let plain = self.0.open_in_place(nonce, about(name), &mut cipher).map_err(|_unspecified| CannotOpen)?;
        String::from_utf8(plain.to_vec()).map(Secret::new).map_err(|_may_quote| CannotOpen)
    }
}

fn about(name: &CredentialName) -> Aad<String> {
    Aad::from(format!("sendoff credential {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::parse(&Secret::new(STANDARD.encode([byte; 32]))).unwrap()
    }

    fn name(text: &str) -> CredentialName {
        CredentialName::parse(text).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_name_alone() {
        let given = Secret::new("hunter2 \u{e9}".to_owned());
        let sealed = key(1).seal(&name("a"), &given).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(key(1).open(&name("a"), &sealed), Ok(given.clone()));
        assert_eq!(key(2).open(&name("a"), &sealed), Err(CannotOpen));
        assert_eq!(key(1).open(&name("b"), &sealed), Err(CannotOpen), "rows that are swapped do not open");
        for at in [0, NONCE_BYTES, sealed.len() - 1] {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(key(1).open(&name("a"), &other), Err(CannotOpen), "byte {at}");
        }
        assert_eq!(key(1).open(&name("a"), &sealed[..NONCE_BYTES - 1]), Err(CannotOpen));
        assert_ne!(key(1).seal(&name("a"), &given).unwrap(), sealed, "a nonce of its own each time");
    }

    #[test]
    fn a_key_has_256_bits_and_is_not_shown() {
        let parse = |text: String| SealingKey::parse(&Secret::new(text)).map(drop);
        assert!(parse(format!(" {}\n", STANDARD.encode([9; 32]))).is_ok());
        for text in [STANDARD.encode([9; 31]), STANDARD.encode([9; 33]), "hunter2".to_owned(), String::new()] {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.contains("openssl rand -base64 32") && !told.contains("hunter2"), "{told}");
        }
        assert!(!format!("{:?}", key(0x41)).contains("65"));
    }
}
