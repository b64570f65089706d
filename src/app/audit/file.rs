//! The file of the audit log: opened, looked through, and written a line at a time, each durable when [`AuditFile::append`]
//! returns.
//!
//! Room for the lines of all acts that may be under way is set aside on the disk before an act is admitted, where the file
//! system can do that: a disk that fills up meanwhile does not keep an act from being written down.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde_json::json;

use crate::logging::audit::{Act, Link, Rest, Tail, Who, inspect, line};
use crate::logging::event::AuditFound;
use crate::task::WallMs;
use crate::task::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_ROOM_BYTES, AUDIT_TAIL_BYTES};

/// Why the log cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditFileError {
    /// The operating system refused.
    #[error("{what} the audit log {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is there is no file.
    #[error("the audit log {} is not a file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
}

/// The file, and the end of its chain.
pub(super) struct AuditFile {
    path: PathBuf,
    open: Option<Open>,
    /// The last line, once one was found or written by us.
    last: Option<Link>,
    /// Whether its directory was synced since it was made: until then its name is not durable.
    is_named: bool,
}

struct Open {
    file: File,
    /// How long it is, unless somebody else writes there.
    end: u64,
    /// Up to where the disk has set room aside.
    room_until: u64,
}

impl AuditFile {
    /// The log at `path`, not opened yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, open: None, last: None, is_named: false }
    }

    /// Sees to it that lines can be written. Whatever was found out of order has a line of its own by then.
    pub(super) fn prepare(&mut self, now: WallMs) -> Result<Vec<AuditFound>, AuditFileError> {
        if !self.is_as_left()? {
            self.open = None;
        }
        let found = if self.open.is_some() { Vec::new() } else { self.open(now)? };
        self.make_room()?;
        Ok(found)
    }

    /// Writes the line of an act. An error leaves nothing of it behind where that can be helped.
    pub(super) fn append(&mut self, now: WallMs, unwritten: u64, act: &Act) -> Result<Link, AuditFileError> {
        let last = self.last.clone().unwrap_or_else(Link::none);
        let (text, link) = line(&last, now, unwritten, act);
        let Some(open) = &mut self.open else {
            return Err(self.failed("writing")(io::ErrorKind::NotConnected.into()));
        };
        let written = open.file.write_all(text.as_bytes()).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            if open.file.set_len(open.end).is_err() {
                tracing::debug!("part of a line may be left in the audit log: it is cut off when it is opened again");
            }
            self.open = None;
            return Err(self.failed("writing")(error));
        }
        open.end += text.len() as u64;
        self.last = Some(link.clone());
        Ok(link)
    }

    /// Whether the open file is still the one at its path, and nobody else has written there.
    fn is_as_left(&self) -> Result<bool, AuditFileError> {
        let Some(open) = &self.open else { return Ok(false) };
        let ours = open.file.metadata().map_err(self.failed("looking at"))?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino(), there.len()) == (ours.dev(), ours.ino(), ours.len())
                && ours.len() == open.end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("looking at")(error)),
        }
    }

    /// Opens the file, mends what a crash left, and begins the chain anew where it cannot be gone on with.
    fn open(&mut self, now: WallMs) -> Result<Vec<AuditFound>, AuditFileError> {
        let file = self.file()?;
        let len = file.metadata().map_err(self.failed("looking at"))?.len();
        let (start, tail) = self.tail(&file, len)?;
        let mut open = Open { file, end: len, room_until: 0 };
        let torn = self.mend(&mut open, tail.rest)?;
        let broken = self.judge(&tail, start, len);
        match &broken {
            Some(AuditFound::Broken { .. }) => self.last = Some(tail.last.cut()),
            Some(AuditFound::PutAway) => {}
            Some(AuditFound::Torn { .. }) | None => self.last = Some(tail.last),
        }
        self.open = Some(open);
        let found: Vec<_> = broken.into_iter().chain(torn).collect();
        for found in &found {
            self.append(now, 0, &note(found))?;
        }
        Ok(found)
    }

    /// The file, made if there is none. Who made it may have been stopped before its name was durable.
    fn file(&mut self) -> Result<File, AuditFileError> {
        self.is_named &= self.path.exists();
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path);
        let file = file.map_err(self.failed("opening"))?;
        if !file.metadata().map_err(self.failed("looking at"))?.is_file() {
            return Err(AuditFileError::NotAFile { path: self.path.clone() });
        }
        if !self.is_named {
            let dir = self.path.parent().unwrap_or(Path::new("."));
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(self.failed("making"))?;
            self.is_named = true;
        }
        Ok(file)
    }

    /// The end of the file, from the beginning of some line on, and at which byte that is.
    fn tail(&self, file: &File, len: u64) -> Result<(u64, Tail), AuditFileError> {
        let start = len.saturating_sub(AUDIT_TAIL_BYTES);
        let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, start).map_err(self.failed("reading"))?;
        let skipped =
            if start == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |feed| feed + 1) };
        Ok((start + skipped as u64, inspect(bytes.get(skipped..).unwrap_or_default())))
    }

    /// Ends the last line, or cuts off what there is of it. More than a line can have is nothing that a crash leaves.
    fn mend(&self, open: &mut Open, rest: Rest) -> Result<Option<AuditFound>, AuditFileError> {
        match rest {
            Rest::Nothing => Ok(None),
            Rest::Torn(bytes) if bytes <= AUDIT_LINE_BYTES_MAX => {
                let cut_bytes = bytes as u64;
                open.end -= cut_bytes;
                open.file.set_len(open.end).map_err(self.failed("mending"))?;
                Ok(Some(AuditFound::Torn { cut_bytes }))
            }
            Rest::Whole | Rest::Torn(_) => {
                open.file.write_all(b"\n").map_err(self.failed("mending"))?;
                open.end += 1;
                Ok(None)
            }
        }
    }

    /// What is wrong with the file: with itself, or with what we know of it.
    fn judge(&self, tail: &Tail, start: u64, len: u64) -> Option<AuditFound> {
        let broken = |at_byte, why: String| Some(AuditFound::Broken { at_byte, why });
        if let Some((at, misfit)) = tail.fault {
            return broken(start + at as u64, misfit.to_string());
        }
        if let Rest::Torn(bytes) = tail.rest
            && bytes > AUDIT_LINE_BYTES_MAX
        {
            return broken(len - bytes as u64, "what stands there is longer than any line".to_owned());
        }
        match &self.last {
            None => None,
            Some(last) if *last == tail.last => None,
            Some(last) if len == 0 => (last.seq > 0).then_some(AuditFound::PutAway),
            Some(last) => {
                broken(len, format!("line {} was written last, and line {} stands there", last.seq, tail.last.seq))
            }
        }
    }

    /// Has the disk set room aside for what may have to be written.
    fn make_room(&mut self) -> Result<(), AuditFileError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.room_until.saturating_sub(open.end) >= AUDIT_ROOM_BYTES {
            return Ok(());
        }
        let room = 2 * AUDIT_ROOM_BYTES;
        match fallocate(&open.file, FallocateFlags::KEEP_SIZE, open.end, room) {
            Ok(()) => open.room_until = open.end + room,
            // The file system has no such thing: a line that finds no room is told of when that happens.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => open.room_until = u64::MAX,
            Err(error) => return Err(self.failed("making room in")(error.into())),
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> AuditFileError + use<> {
        let path = self.path.clone();
        move |source| AuditFileError::Io { what, path: path.clone(), source }
    }
}

/// The line that tells what was found.
fn note(found: &AuditFound) -> Act {
    match found {
        AuditFound::Torn { cut_bytes } => {
            Act { after: Some(json!({"cut_bytes": cut_bytes})), ..Act::here(Who::Server, "audit_log_repaired") }
        }
        AuditFound::Broken { at_byte, why } => Act {
            before: Some(json!({"broken_at_byte": at_byte, "why": why})),
            ..Act::here(Who::Server, "audit_log_broken")
        },
        AuditFound::PutAway => Act::here(Who::Server, "audit_log_continued"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::logging::audit::{Misfit, Walk};

    const NOON: WallMs = WallMs::new(1_795_521_600_000);

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("audit.log")
        }

        fn log(&self) -> AuditFile {
            AuditFile::at(self.path())
        }

        /// A log with so many lines.
        fn with(lines: u64) -> (Self, AuditFile) {
            let place = Self::new();
            let mut log = place.log();
            for n in 0..lines {
                write(&mut log, &format!("act {n}"));
            }
            (place, log)
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        /// The operations of all lines, and the first line that does not fit.
        fn read(&self) -> (Vec<String>, Option<(usize, Misfit)>) {
            let (text, mut walk) = (self.text(), Walk::default());
            let misfit =
                text.lines().enumerate().find_map(|(at, line)| Some((at + 1, walk.take(line.as_bytes()).err()?)));
            let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
            let operations = text.lines().map(|line| json(line)["operation"].as_str().unwrap_or("?").to_owned());
            (operations.collect(), misfit)
        }
    }

    fn write(log: &mut AuditFile, operation: &str) -> Vec<AuditFound> {
        let found = log.prepare(NOON).unwrap();
        let act = Act { operation: operation.to_owned().into(), ..Act::here(Who::Local, "") };
        log.append(NOON, 0, &act).unwrap();
        found
    }

    #[test]
    fn a_new_log_is_private_and_goes_on_over_a_restart() {
        let (place, log) = Place::with(2);
        drop(log);
        assert_eq!(write(&mut place.log(), "act 2"), []);
        assert_eq!(place.read(), (["act 0", "act 1", "act 2"].map(str::to_owned).to_vec(), None));
        let found = fs::metadata(place.path()).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert_eq!(found.len(), place.text().len() as u64, "room that is set aside is not part of the file");
        let probe = File::create(place.dir.path().join("probe")).unwrap();
        if fallocate(&probe, FallocateFlags::KEEP_SIZE, 0, 4096).is_ok() {
            assert!(found.blocks() * 512 >= AUDIT_ROOM_BYTES, "{} blocks", found.blocks());
        }
    }

    #[test]
    fn a_crash_in_the_middle_of_a_line_at_any_byte_leaves_a_chain_that_goes_on() {
        let (place, log) = Place::with(3);
        drop(log);
        let text = place.text();
        let two = text.lines().take(2).map(|line| line.len() + 1).sum::<usize>();
        for end in two..=text.len() {
            fs::write(place.path(), &text[..end]).unwrap();
            let found = write(&mut place.log(), "after");
            let (operations, misfit) = place.read();
            assert_eq!(misfit, None, "cut at {end}");
            let torn = end > two && end < text.len() - 1;
            let expected = AuditFound::Torn { cut_bytes: (end - two) as u64 };
            assert_eq!(found, if torn { vec![expected] } else { vec![] }, "cut at {end}");
            let said = if torn { vec!["audit_log_repaired", "after"] } else { vec!["after"] };
            let kept = if end >= text.len() - 1 { 3 } else { 2 };
            assert_eq!(operations[kept..], said, "cut at {end}");
        }
    }

    #[test]
    fn a_broken_chain_is_named_once_and_a_new_one_begins() {
        let (place, log) = Place::with(5);
        drop(log);
        let text = place.text().replace("act 1", "act X");
        let at_byte = text.find("{\"seq\":2").unwrap() as u64;
        fs::write(place.path(), text).unwrap();
        let why = Misfit::Altered.to_string();
        assert_eq!(write(&mut place.log(), "act 5"), [AuditFound::Broken { at_byte, why }]);
        assert_eq!(write(&mut place.log(), "act 6"), [], "it is named by now");
        let (operations, misfit) = place.read();
        assert_eq!(operations[5..], ["audit_log_broken", "act 5", "act 6"]);
        assert_eq!(misfit, Some((2, Misfit::Altered)), "and stays to be seen");
        let line = place.text().lines().nth(5).unwrap().to_owned();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["seq"], &line["before"]["broken_at_byte"]), (&json!(6), &json!(at_byte)));
    }

    #[test]
    fn what_is_no_log_at_all_is_kept_and_followed_by_one() {
        for other in ["hello\n".to_owned(), "x".repeat(AUDIT_LINE_BYTES_MAX + 1), "x\n".repeat(AUDIT_LINE_BYTES_MAX)] {
            let place = Place::new();
            fs::write(place.path(), &other).unwrap();
            assert!(matches!(write(&mut place.log(), "act")[..], [AuditFound::Broken { at_byte: 0, .. }]));
            assert_eq!(write(&mut place.log(), "act"), []);
            assert!(place.text().starts_with(&other));
        }
    }

    #[test]
    fn the_end_of_a_long_log_is_looked_at_one_byte_more_or_less() {
        let (place, mut log) = Place::with(1);
        let line = place.text().len() as u64;
        while place.text().len() as u64 <= AUDIT_TAIL_BYTES + line {
            let act = Act { after: Some(json!("x".repeat(8_000))), ..Act::here(Who::Local, "long") };
            log.append(NOON, 0, &act).unwrap();
        }
        drop(log);
        let text = place.text();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        // What lies before the end that is looked at is `sendoff audit verify`'s.
        fs::write(place.path(), text.replacen("act 0", "act X", 1)).unwrap();
        assert_eq!(write(&mut place.log(), "after"), []);
        let changed = [&lines[..lines.len() - 1].concat(), &lines[lines.len() - 1].replacen("xxx", "xyx", 1)]
            .map(String::as_str)
            .concat();
        fs::write(place.path(), changed).unwrap();
        let at = (text.len() - lines[lines.len() - 1].len()) as u64;
        assert!(matches!(write(&mut place.log(), "after")[..], [AuditFound::Broken { at_byte, .. }] if at_byte == at));
    }

    #[test]
    fn a_log_that_was_put_away_goes_on_in_a_new_file() {
        let (place, mut log) = Place::with(2);
        let away = place.dir.path().join("audit.log.1");
        fs::rename(place.path(), &away).unwrap();
        assert_eq!(write(&mut log, "act 2"), [AuditFound::PutAway]);
        let both = fs::read_to_string(away).unwrap() + &place.text();
        fs::write(place.path(), both).unwrap();
        assert_eq!(
            place.read(),
            (["act 0", "act 1", "audit_log_continued", "act 2"].map(str::to_owned).to_vec(), None)
        );
    }

    #[test]
    fn somebody_else_who_writes_or_cuts_while_the_server_runs_is_noticed() {
        let (place, mut log) = Place::with(3);
        let text = place.text();
        let two = text.lines().take(2).map(|line| line.len() + 1).sum::<usize>();
        fs::write(place.path(), &text[..two]).unwrap();
        let why = "line 3 was written last, and line 2 stands there".to_owned();
        assert_eq!(write(&mut log, "act 3"), [AuditFound::Broken { at_byte: two as u64, why }]);
        let forged = place.text() + &text[two..];
        fs::write(place.path(), forged).unwrap();
        assert!(matches!(write(&mut log, "act 4")[..], [AuditFound::Broken { .. }]));
        assert_eq!(write(&mut log, "act 5"), []);
    }

    #[test]
    fn a_full_disk_loses_a_line_and_not_the_chain() {
        let (place, mut log) = Place::with(1);
        log.prepare(NOON).unwrap();
        log.open.as_mut().unwrap().file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let error = log.append(NOON, 0, &Act::here(Who::Local, "lost")).unwrap_err().to_string();
        assert!(error.contains("writing the audit log") && error.contains("No space left"), "{error}");
        assert_eq!(write(&mut log, "act 1"), []);
        assert_eq!(place.read(), (["act 0", "act 1"].map(str::to_owned).to_vec(), None));
    }

    #[test]
    fn what_is_no_file_is_said_and_nothing_is_written_until_it_is_one() {
        let (place, log) = Place::with(0);
        drop(log);
        fs::create_dir(place.path()).unwrap();
        let mut log = place.log();
        assert!(log.prepare(NOON).unwrap_err().to_string().contains("opening the audit log"));
        fs::remove_dir(place.path()).unwrap();
        std::os::unix::fs::symlink("/dev/full", place.path()).unwrap();
        assert!(log.prepare(NOON).unwrap_err().to_string().contains("is not a file"));
        assert!(log.append(NOON, 0, &Act::here(Who::Local, "x")).is_err());
        fs::remove_file(place.path()).unwrap();
        assert_eq!(write(&mut log, "act"), []);
    }
}
