//! Where a playground keeps its data: a temporary directory that goes with it, or one that somebody wants to keep.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::{Config, DEFAULT_FILE};

use super::super::exit::{Exit, Failed};
use super::playground;

/// Closed to other users: the admin key is in it.
const DIR_MODE: u32 = 0o700;

/// A directory, as an absolute path in UTF-8 (it stands in commands that are printed).
#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
    /// Removes it when this goes, however the process ends, `kill -9` excepted.
    temporary: Option<TempDir>,
}

impl Scratch {
    /// A new temporary directory, or `keep`, which is made if it is not there.
    ///
    /// # Errors
    /// Where a directory could not be made, and what to do; and that `keep` holds a configuration of somebody's own.
    pub(super) fn make(keep: Option<&Path>) -> Result<Self, Failed> {
        let Some(keep) = keep else { return Self::temporary() };
        let failed = |error: io::Error| {
            let text = format!("failed to make the directory {}: {error}; --keep takes another", keep.display());
            Failed::told(Exit::Config, text)
        };
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(keep).map_err(failed)?;
        let kept = Self { dir: keep.canonicalize().map_err(failed)?, temporary: None };
        let file = kept.config_file();
        if file.exists() && !fs::read_to_string(&file).is_ok_and(|text| text.starts_with(playground::MARK)) {
            return Err(Failed::told(
                Exit::Config,
                format!(
                    "{} is not one that `sendoff dev` wrote, and is left alone; --keep takes another directory, and \
                     `sendoff serve` in {} runs with that file",
                    file.display(),
                    kept.dir.display()
                ),
            ));
        }
        kept.checked()
    }

    fn temporary() -> Result<Self, Failed> {
        let made =
            tempfile::Builder::new().prefix("sendoff-dev-").permissions(Permissions::from_mode(DIR_MODE)).tempdir();
        let made = made.and_then(|made| Ok((made.path().canonicalize()?, made)));
        let (dir, made) = made.map_err(|error| {
            // The error names the directory.
            let text = format!(
                "failed to make a temporary directory: {error}; set TMPDIR to one that you may write to, or name one \
                 with --keep DIR"
            );
            Failed::told(Exit::Config, text)
        })?;
        Self { dir, temporary: Some(made) }.checked()
    }

    fn checked(self) -> Result<Self, Failed> {
        match self.dir.to_str() {
            Some(text) if !text.contains(char::is_control) => Ok(self),
            Some(_) | None => {
                let text = format!("the path {} is not plain text; name another with --keep DIR", self.dir.display());
                Err(Failed::told(Exit::Config, text))
            }
        }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration in it, by which the command line finds the server.
    pub(super) fn config_file(&self) -> PathBuf {
        self.dir.join(DEFAULT_FILE)
    }

    /// Whether it goes at the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Puts the configuration in force where commands find it.
    pub(super) fn write_config(&self, config: &Config) -> Result<(), Failed> {
        let file = self.config_file();
        fs::write(&file, playground::written(config))
            .map_err(|error| Failed::told(Exit::Config, format!("failed to write {}: {error}", file.display())))
    }

    /// Removes it if it is temporary; what there is to say about it.
    pub(super) fn end(self) -> Result<String, Failed> {
        let dir = self.dir.display();
        let Some(temporary) = self.temporary else {
            return Ok(format!("kept {dir}; `sendoff dev --keep` with it goes on where this ended"));
        };
        match temporary.close() {
            Ok(()) => Ok(format!("removed {dir} and everything in it")),
            Err(error) => {
                Err(Failed::told(Exit::Failure, format!("failed to remove {dir}: {error}; remove it by hand")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_one_is_private_and_goes() {
        let scratch = Scratch::make(None).unwrap();
        let dir = scratch.dir().to_owned();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, DIR_MODE);
        fs::write(dir.join("data"), "x").unwrap();
        let said = scratch.end().unwrap();
        assert!(said.contains(dir.to_str().unwrap()) && !dir.exists(), "{said}");
        let dropped = Scratch::make(None).unwrap().dir().to_owned();
        assert!(!dropped.exists(), "also when nobody says goodbye");
    }

    #[test]
    fn a_kept_one_stays_and_a_file_of_somebodys_own_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        let keep = outer.path().join("a/b");
        let scratch = Scratch::make(Some(&keep)).unwrap();
        scratch.write_config(&Config::default()).unwrap();
        scratch.end().unwrap();
        assert!(keep.join(DEFAULT_FILE).exists());
        assert!(Scratch::make(Some(&keep)).is_ok(), "its own file is no obstacle");
        fs::write(keep.join(DEFAULT_FILE), "queues: {}\n").unwrap();
        let refused = Scratch::make(Some(&keep)).expect_err("a refusal").to_string();
        assert!(refused.contains("is left alone"), "{refused}");
        fs::write(keep.join("file"), "").unwrap();
        assert!(Scratch::make(Some(&keep.join("file"))).is_err(), "a file is no directory");
    }
}
