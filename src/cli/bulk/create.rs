//! `sendoff task create -f FILE`: as many tasks as there are lines, several chunks in flight, none made twice however
//! often it is repeated.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{Format, duration};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::json::pretty;
use crate::cli::output::text::{grouped, visible};
use crate::task::limits::{BULK_IN_FLIGHT, LOOK_AGAIN};

use super::cut::{Chunk, CutError, Cutter};
use super::progress::{Of, Progress, rate};
use super::rejects::Rejects;
use super::send::{Sender, Sent};
use super::source::Source;
use super::tally::Tally;

/// Many tasks from a file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Many tasks")]
pub(in crate::cli) struct FromFile {
    /// Create the tasks in FILE (`-`: standard input): JSON, one task a line, as many as you like; or one JSON array; or
    /// one task. Repeated after a break, it goes on and creates nothing twice (within 24 h).
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["target", "CallOptions", "NewTaskOptions", "wait"])]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Create the tasks of the same file once more: another TEXT each time, the same TEXT to go on after a break.
    #[arg(long, value_name = "TEXT", requires = "file", default_value = "", hide_default_value = true)]
    salt: String,
    /// Leave out lines that the server refuses, and add them to REJECTS (exit code 7).
    #[arg(long, value_name = "REJECTS", requires = "file")]
    skip_invalid: Option<PathBuf>,
    /// How long to try again when the server is busy or gone; 0: not at all.
    #[arg(long, value_name = "DURATION", requires = "file", default_value = "5m", value_parser = duration)]
    retry_for: Duration,
}

/// Creates them.
pub(in crate::cli) async fn run(asked: &FromFile, path: &Path, context: &Context) -> Result<Exit, Failed> {
    let printer = &context.printer;
    if Source::is_typed(path) {
        printer.note("Type tasks, one JSON object a line; Ctrl-D ends.");
    }
    let source = Source::open(path)?;
    let opened = asked.skip_invalid.as_deref().map(|path| Rejects::open(path, source.file)).transpose()?;
    let (rejects, earlier) = opened.unzip();
    let sender = Sender {
        client: &context.client,
        clock: printer.clock(),
        earlier,
        retry_for: asked.retry_for,
        cancel: CancellationToken::new(),
        answered: Cell::new(false),
        trouble: Cell::new(None),
    };
    let mut run = Run {
        context,
        tally: Tally::new(source.name.clone(), source.form),
        rejects,
        progress: Progress::begin(printer, Of::Bytes(source.bytes)),
        reading: true,
        audience: true,
        troubled: false,
    };
    let chunks = read(source, &asked.salt);
    run.all(chunks, &sender).await?;
    let rejects = run.rejects.as_ref().map(Rejects::name);
    run.end(rejects.as_deref())
}

/// Cuts the input on a thread of its own: reading may block for as long as a pipe is silent. The thread ends with its
/// input, with its reader, or with the process.
fn read(source: Source, salt: &str) -> mpsc::Receiver<Result<Chunk, CutError>> {
    let (chunks, receiver) = mpsc::channel(1);
    let mut cutter = Cutter::new(source.lines, salt);
    drop(thread::spawn(move || {
        while let Some(next) = cutter.next().transpose() {
            let is_last = next.is_err();
            if chunks.blocking_send(next).is_err() || is_last {
                return;
            }
        }
    }));
    receiver
}

/// A run under way.
struct Run<'a> {
    context: &'a Context,
    tally: Tally,
    rejects: Option<Rejects>,
    progress: Progress<'a>,
    /// Whether more is to be sent.
    reading: bool,
    /// Whether somebody reads the ids.
    audience: bool,
    /// Whether something is being tried again.
    troubled: bool,
}

impl Run<'_> {
    /// Sends everything, unless something stops it; what is in flight then is still waited for.
    async fn all(
        &mut self,
        mut chunks: mpsc::Receiver<Result<Chunk, CutError>>,
        sender: &Sender<'_>,
    ) -> Result<(), Failed> {
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|error| Failed::told(Exit::Failure, format!("failed to listen for signals: {error}")))?;
        let mut flying = FuturesOrdered::new();
        while self.reading || !flying.is_empty() {
            tokio::select! {
                biased;
                _got = interrupts.recv() => {
                    if sender.cancel.is_cancelled() {
                        break;
                    }
                    self.interrupt(sender, flying.is_empty());
                }
                Some(sent) = flying.next(), if !flying.is_empty() => self.take(sent, sender),
                next = chunks.recv(), if self.reading && flying.len() < BULK_IN_FLIGHT => match next {
                    Some(Ok(chunk)) => {
                        self.tally.sent(&chunk);
                        flying.push_back(sender.send(chunk));
                    }
                    other => {
                        self.tally.cut = other.and_then(Result::err);
                        self.reading = false;
                    }
                },
                () = sender.clock.sleep(LOOK_AGAIN.to_duration()) => {}
            }
            self.show(sender);
        }
        Ok(())
    }

    fn interrupt(&mut self, sender: &Sender<'_>, idle: bool) {
        self.tally.interrupted = true;
        self.reading = false;
        sender.cancel.cancel();
        if !idle {
            self.progress.note("stopping: waiting for what is in flight (Ctrl-C again: not even for that)");
        }
    }

    /// What came of a chunk; they come in order.
    fn take(&mut self, sent: Sent, sender: &Sender<'_>) {
        if self.tally.unwritten.is_none() {
            self.tally.unwritten = self.write(&sent, sender).err();
        }
        self.reading &= self.tally.take(sent);
    }

    /// Writes what of it is wanted elsewhere: the lines that were left out, the ids.
    fn write(&mut self, sent: &Sent, sender: &Sender<'_>) -> Result<(), Failed> {
        let Ok(done) = &sent.end else { return Ok(()) };
        if let Some(rejects) = &mut self.rejects {
            let refused = sent.refused.iter().map(|refused| &*refused.line);
            rejects.add(refused.filter(|line| !sender.had(line)))?;
        }
        if self.audience && !done.ids.is_empty() && self.context.printer.format() == Format::Name {
            let ids: Vec<_> = done.ids.iter().map(|id| visible(id)).collect();
            match self.context.printer.data(&(ids.join("\n") + "\n")) {
                // Whoever wanted ids has seen enough; the tasks are wanted all the same.
                Err(Failed::AudienceGone) => self.audience = false,
                other => other?,
            }
        }
        Ok(())
    }

    fn show(&mut self, sender: &Sender<'_>) {
        let trouble = sender.trouble.take();
        let words = match &trouble {
            Some(trouble) => format!("{}; trying again: {trouble}", self.tally.words()),
            None => format!("{}, {}/s", self.tally.words(), grouped(rate(self.tally.answered(), self.progress.took()))),
        };
        if trouble.is_some() != self.troubled {
            self.troubled = trouble.is_some();
            if let Some(trouble) = &trouble {
                self.progress.note(&format!("{trouble}; trying again"));
            }
        }
        sender.trouble.set(trouble);
        self.progress.at(self.tally.read, &words);
    }

    /// Says what came of it.
    fn end(self, rejects: Option<&str>) -> Result<Exit, Failed> {
        self.progress.end();
        let printer = &self.context.printer;
        match printer.format() {
            Format::Name => {}
            Format::Json => printer.data(&(pretty(&self.tally.json()) + "\n"))?,
            Format::Jsonl => printer.data(&(self.tally.json() + "\n"))?,
            Format::Table | Format::Tsv => printer.data(&(self.tally.sentence(rejects) + "\n"))?,
        }
        if let Some(hint) = self.tally.hint() {
            printer.note(hint);
        }
        match self.tally.failure() {
            Some(failed) => Err(failed),
            None if self.tally.refused > 0 => Ok(Exit::Partly),
            None => Ok(Exit::Ok),
        }
    }
}
