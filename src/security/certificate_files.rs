//! Notices that the files of a certificate hold something else: by their content, so that neither a clock nor a link
//! that is swapped under them (as Kubernetes does with mounted secrets) can hide it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::private_file;

/// A digest of what the files hold, or of why they cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content([u8; 32]);

impl Content {
    fn of(files: &[PathBuf]) -> Self {
        let mut hash = Sha256::new();
        for file in files {
            let (kind, text) = match private_file::read(file) {
                Ok(Some(text)) => (0_u8, text),
                Ok(None) => (1, String::new()),
                Err(error) => (2, error.to_string()),
            };
            hash.update([kind]);
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        Self(hash.finalize().into())
    }
}

/// A watch on some files.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    acted_on: Content,
    /// What else was there at the last look.
    other: Option<Content>,
}

impl Watch {
    /// From what the files hold now. To be made before they are read in earnest: what is written meanwhile is noticed.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let seen = Seen { acted_on: Content::of(&files), other: None };
        Self { files, seen: Mutex::new(seen) }
    }

    /// Whether the files hold something else, and held the same at the look before: who writes a certificate and then
    /// its key is not caught between the two. Told once.
    pub(super) fn has_changed(&self) -> bool {
        let now = Content::of(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = now != seen.acted_on;
        let at_rest = seen.other == Some(now);
        seen.other = (is_other && !at_rest).then_some(now);
        if is_other && at_rest {
            seen.acted_on = now;
        }
        is_other && at_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        let watch = Watch::new(vec![a.clone(), b.clone()]);
        let look = || watch.has_changed();
        assert!(!look() && !look(), "nothing has changed, and a missing file stays missing");
        std::fs::write(&a, "2").unwrap();
        assert!(!look(), "perhaps somebody is still writing");
        std::fs::write(&b, "2").unwrap();
        assert!(!look(), "somebody was");
        assert!(look(), "it has come to rest");
        assert!(!look() && !look(), "told once");
        std::fs::write(&a, "3").unwrap();
        assert!(!look());
        std::fs::write(&a, "2").unwrap();
        assert!(!look() && !look(), "it was taken back");
        std::fs::remove_file(&b).unwrap();
        assert!(!look());
        assert!(look(), "a file that is gone is a change");
    }

    #[test]
    fn what_one_file_holds_is_not_taken_for_what_the_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "12").unwrap();
        std::fs::write(&b, "3").unwrap();
        let one = Content::of(&[a.clone(), b.clone()]);
        std::fs::write(&a, "1").unwrap();
        std::fs::write(&b, "23").unwrap();
        assert_ne!(Content::of(&[a.clone(), b.clone()]), one);
    }
}
