//! The file of refused lines: as they were, so that they can be mended and sent. A repeat of the run knows them, and
//! adds none twice.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failed};
use crate::queue::store::digest;

/// The file, to be added to.
pub(super) struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

/// What earlier runs wrote to it: a digest of each line.
pub(super) struct Earlier(HashSet<u128>);

impl Earlier {
    /// Whether an earlier run wrote this line.
    pub(super) fn had(&self, line: &[u8]) -> bool {
        self.0.contains(&digest(line))
    }
}

impl Rejects {
    /// Opens the file, or makes it. `input` is the device and inode of the input, which it must not be.
    pub(super) fn open(path: &Path, input: Option<(u64, u64)>) -> Result<(Self, Earlier), Failed> {
        let shown = path.display();
        let fail = |error: std::io::Error| {
            Failed::told(Exit::Usage, format!("--skip-invalid {shown}: failed to open it: {error}"))
        };
        let file = File::options().read(true).append(true).create(true).open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if input == Some((metadata.dev(), metadata.ino())) {
            return Err(Failed::Usage(format!("--skip-invalid {shown}: this is the input itself; name another file")));
        }
        let mut earlier = HashSet::new();
        for line in BufReader::new(&file).split(b'\n') {
            earlier.insert(digest(&line.map_err(fail)?));
        }
        Ok((Self { path: path.to_owned(), file: BufWriter::new(file) }, Earlier(earlier)))
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<(), Failed> {
        let written = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| self.failed(&error))
    }

    /// Writes out what has been added.
    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        self.file.flush().map_err(|error| self.failed(&error))
    }

    /// How it is called in messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, error: &std::io::Error) -> Failed {
        Failed::told(Exit::Failure, format!("--skip-invalid {}: failed to write it: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_knows_the_lines_that_are_there_and_the_input_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejects.ndjson");
        let write = |lines: &[&str]| {
            let (mut rejects, earlier) = Rejects::open(&path, None).unwrap();
            let new = lines.iter().filter(|line| !earlier.had(line.as_bytes()));
            new.for_each(|line| rejects.add(line.as_bytes()).unwrap());
            rejects.flush().unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(write(&["a", "b"]), "a\nb\n");
        assert_eq!(write(&["b", "c"]), "a\nb\nc\n");
        let metadata = std::fs::metadata(&path).unwrap();
        let refused = Rejects::open(&path, Some((metadata.dev(), metadata.ino())));
        assert!(refused.is_err_and(|error| error.to_string().contains("this is the input itself")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
    }
}
