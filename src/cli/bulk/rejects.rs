//! The file of refused lines: as they were, so that they can be mended and sent. A repeat of the run knows them, and
//! adds none twice.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failed};
use crate::queue::store::digest;

/// The file, to be added to.
pub(super) struct Rejects {
    path: PathBuf,
    file: File,
    /// A last line without its end, as a kill or a full disk leaves it. It may be whole or only the beginning of one:
    /// the line that it belongs to is the next to be added, and completes it.
    cut: Vec<u8>,
}

/// What earlier runs wrote to it.
pub(super) struct Earlier {
    /// A digest of each line.
    lines: HashSet<u128>,
    /// That of a last line without its end, which may not be all of it.
    cut: u128,
}

impl Earlier {
    /// Whether an earlier run wrote this line to its end.
    pub(super) fn had(&self, line: &[u8]) -> bool {
        self.lines.contains(&digest(line))
    }

    /// Whether an earlier run left this line out, as far as the file tells.
    pub(super) fn left_out(&self, line: &[u8]) -> bool {
        self.had(line) || self.cut == digest(line)
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
        let (mut lines, mut last) = (HashSet::new(), Vec::new());
        let mut reader = BufReader::new(&file);
        while reader.read_until(b'\n', &mut last).map_err(fail)? > 0 {
            let Some(line) = last.strip_suffix(b"\n") else { break };
            lines.insert(digest(line));
            last.clear();
        }
        let earlier = Earlier { lines, cut: digest(&last) };
        Ok((Self { path: path.to_owned(), file, cut: last }, earlier))
    }

    /// Adds lines, all in one write: whoever is killed after it leaves whole lines. After an error the file may end
    /// within a line: nothing is to be added to it in this run.
    pub(super) fn add<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> Result<(), Failed> {
        let mut text = Vec::new();
        for line in lines {
            let cut = std::mem::take(&mut self.cut);
            if let Some(rest) = line.strip_prefix(&*cut) {
                text.extend_from_slice(rest);
            } else {
                text.push(b'\n');
                text.extend_from_slice(line);
            }
            text.push(b'\n');
        }
        self.file.write_all(&text).map_err(|error| self.failed(&error))
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
            rejects.add(lines.iter().map(|line| line.as_bytes()).filter(|line| !earlier.had(line))).unwrap();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(write(&["a", "b"]), "a\nb\n");
        assert_eq!(write(&["b", "c"]), "a\nb\nc\n");
        let metadata = std::fs::metadata(&path).unwrap();
        let refused = Rejects::open(&path, Some((metadata.dev(), metadata.ino())));
        assert!(refused.is_err_and(|error| error.to_string().contains("this is the input itself")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
    }

    #[test]
    fn a_last_line_without_its_end_is_completed_and_never_prolonged() {
        for (there, lines, expected) in [
            ("a\nbc", &["a", "bcd", "e"][..], "a\nbcd\ne\n"),
            ("a\nbcd", &["a", "bcd", "e"], "a\nbcd\ne\n"),
            ("a\nbc", &["a", "e", "bcd"], "a\nbc\ne\nbcd\n"),
            ("a\nbc", &["a"], "a\nbc"),
            ("bc", &["bc"], "bc\n"),
            ("", &["a"], "a\n"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("rejects.ndjson");
            std::fs::write(&path, there).unwrap();
            let (mut rejects, earlier) = Rejects::open(&path, None).unwrap();
            rejects.add(lines.iter().map(|line| line.as_bytes()).filter(|line| !earlier.had(line))).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "{there:?} and {lines:?}");
        }
    }

    #[test]
    fn a_last_line_without_its_end_is_not_written_but_may_have_been_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejects.ndjson");
        std::fs::write(&path, "a\nbc").unwrap();
        let (_, earlier) = Rejects::open(&path, None).unwrap();
        let told = |line: &[u8]| (earlier.had(line), earlier.left_out(line));
        assert_eq!([told(b"a"), told(b"bc"), told(b"bcd")], [(true, true), (false, true), (false, false)]);
    }
}
