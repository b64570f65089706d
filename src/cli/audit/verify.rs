//! `sendoff audit verify`.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::logging::audit::{AUDIT_FILE, Entry, Misfit, Walk};
use crate::task::limits::AUDIT_LINE_BYTES_MAX;

use super::super::args::ServerOptions;
use super::super::exit::{Exit, Failed};
use super::super::say;

/// What to verify.
#[derive(Debug, Args)]
pub(in super::super) struct Verify {
    /// The log; several in their order, if it was put away meanwhile [default: audit.log in `data_dir`].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The hash of a line that was noted elsewhere: it has to be there, or to be of the line before the first.
    #[arg(long, value_name = "HASH")]
    anchor: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: ServerOptions,
}

pub(super) fn run(asked: Verify, before: ServerOptions) -> Result<Exit, Failed> {
    let Verify { files, anchor, json, options } = asked;
    if anchor.as_ref().is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(Failed::Usage("--anchor takes a hash: 64 hexadecimal digits".to_owned()));
    }
    let files = if files.is_empty() {
        vec![options.or(before).load(super::super::environment())?.config.data_dir.join(AUDIT_FILE)]
    } else {
        files
    };
    let mut chain = Chain { anchor: anchor.map(|hash| hash.to_ascii_lowercase()), ..Chain::default() };
    for file in &files {
        chain.follow(file)?;
    }
    let names = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    say(&chain.told(&names, json)?);
    Ok(Exit::Ok)
}

/// What was followed so far.
#[derive(Default)]
struct Chain {
    walk: Walk,
    lines: u64,
    first: Option<Entry>,
    last: Option<Entry>,
    anchor: Option<String>,
    anchor_seen: bool,
}

impl Chain {
    /// Follows it through a file, to the first line that does not fit.
    fn follow(&mut self, path: &Path) -> Result<(), Failed> {
        let failed = |error: std::io::Error| {
            let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
            Failed::told(exit, format!("failed to read {}: {error}", path.display()))
        };
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let most = AUDIT_LINE_BYTES_MAX as u64 + 1;
            if reader.by_ref().take(most).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            number += 1;
            self.take(&line).map_err(|misfit| {
                let text = format!("{}: line {number}: {misfit} ({} before it fit)", path.display(), self.lines);
                Failed::told(Exit::Failure, text)
            })?;
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Misfit> {
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(if line.len() > AUDIT_LINE_BYTES_MAX { Misfit::NoLine } else { Misfit::Torn });
        };
        let entry = self.walk.take(line)?;
        let is_anchor = |hash: &str| self.anchor.as_deref() == Some(hash);
        self.anchor_seen |= is_anchor(&entry.link.hash);
        if self.first.is_none() {
            let goes_on = is_anchor(&entry.prev);
            let is_the_first = entry.begins() && entry.link.seq == 1;
            if !(goes_on || is_the_first) {
                return Err(Misfit::Headless);
            }
            self.anchor_seen |= goes_on;
            self.first = Some(entry.clone());
        }
        self.lines += 1;
        self.last = Some(entry);
        Ok(())
    }

    fn told(&self, names: &str, as_json: bool) -> Result<String, Failed> {
        let (Some(first), Some(last)) = (&self.first, &self.last) else {
            let text = format!("{names} has no line, and a server writes one when it starts: it was emptied");
            return Err(Failed::told(Exit::Failure, text));
        };
        if self.anchor.is_some() && !self.anchor_seen {
            let text = format!(
                "{names}: no line has the hash of --anchor, though all {} fit together: lines were cut off at the end, \
                 or the whole log was written anew",
                self.lines
            );
            return Err(Failed::told(Exit::Failure, text));
        }
        if as_json {
            let entry =
                |entry: &Entry| -> Value { json!({"seq": entry.link.seq, "at": entry.at, "hash": entry.link.hash}) };
            return Ok(json!({"lines": self.lines, "first": entry(first), "last": entry(last)}).to_string());
        }
        let (count, line) = (self.lines, if self.lines == 1 { "line fits" } else { "lines fit together" });
        Ok(format!(
            "{names}: {count} {line}\n  first  {} at {}\n  last   {} at {}\n  hash   {}",
            first.link.seq, first.at, last.link.seq, last.at, last.link.hash
        ))
    }
}
