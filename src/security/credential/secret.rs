//! Secrets of credentials: read from where the configuration says they are, shown to nobody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{SecretRef, variable};
use crate::task::limits::SECRET_BYTES_MAX;

/// A secret. It has no `Display`, and its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

/// Why a secret could not be read. Never what was read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such variable.
    #[error("the environment has no variable {0}, or it is not text; set it for the server's process")]
    NoVariable(String),
    /// The file was not read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{0} is empty")]
    Empty(SecretRef),
    /// Far too much in it.
    #[error("{0} has more than {SECRET_BYTES_MAX} bytes")]
    TooLarge(SecretRef),
    /// Not text.
    #[error("{0} is not UTF-8")]
    NotUtf8(SecretRef),
}

impl Secret {
    /// Reads a secret; line breaks at its end are not part of it.
    pub(super) fn read(at: &SecretRef) -> Result<Self, SecretError> {
        let text = match at {
            SecretRef::Env(name) => variable(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?,
            SecretRef::File(path) => {
                let bytes = read_file(path).map_err(|source| SecretError::File { path: path.clone(), source })?;
                // What is not text is dropped here: the error of the conversion would carry it along.
                String::from_utf8(bytes).ok().ok_or_else(|| SecretError::NotUtf8(at.clone()))?
            }
        };
        if text.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge(at.clone()));
        }
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() { Err(SecretError::Empty(at.clone())) } else { Ok(Self(text.to_owned())) }
    }

    /// A secret that was part of another.
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for what is made of it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One byte more than a secret may have, at most.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map(|_count| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretRef::File(path))
    }

    fn read(content: &[u8]) -> Result<String, SecretError> {
        let (_dir, at) = file(content);
        Secret::read(&at).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_line_break_at_the_end_is_not_part_of_it() {
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert_eq!(read(content.as_bytes()).unwrap(), "hunter2");
        }
        assert_eq!(read(b" a b \n").unwrap(), " a b ");
    }

    #[test]
    fn what_is_no_secret_is_told_without_what_was_there() {
        assert!(matches!(read(b"\n"), Err(SecretError::Empty(_))));
        assert!(matches!(read(b"hunter2\xff"), Err(SecretError::NotUtf8(_))));
        assert!(matches!(Secret::read(&SecretRef::File("no/such".into())), Err(SecretError::File { .. })));
        let missing = Secret::read(&SecretRef::Env("SENDOFF_TEST_NO_SUCH_VARIABLE".to_owned()));
        assert!(matches!(missing, Err(SecretError::NoVariable(_))));
        assert!(read(&b"x".repeat(SECRET_BYTES_MAX)).is_ok());
        assert!(matches!(read(&b"x".repeat(SECRET_BYTES_MAX + 1)), Err(SecretError::TooLarge(_))));
        assert_eq!(format!("{:?}", Secret::of("hunter2")), "Secret(…)");
    }
}
