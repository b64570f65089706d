//! Writes items in the format asked for, page by page, and notes beside them.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::marker::PhantomData;

use anstream::{AutoStream, ColorChoice};
use rustix::termios::{Winsize, tcgetwinsize};
use serde_json::value::RawValue;

use crate::cli::args::{ColorWhen, Format, OutputOptions};
use crate::cli::exit::Failed;
use crate::clock::Clock;

use super::table::{Look, On, Page, Shown};
use super::{json, text};

/// Columns of a terminal that does not say how many it has.
const COLUMNS_UNSAID: usize = 80;

/// Something the API gave, as it gave it and as we read it.
#[derive(Debug)]
pub(in crate::cli) struct Item<T> {
    /// Its JSON.
    pub(in crate::cli) raw: Box<RawValue>,
    /// What we read from it.
    pub(in crate::cli) seen: T,
}

impl<T: Shown> Item<T> {
    /// Reads an item.
    pub(in crate::cli) fn read(raw: Box<RawValue>) -> Result<Self, serde_json::Error> {
        let seen = serde_json::from_str(raw.get())?;
        Ok(Self { raw, seen })
    }
}

/// Where and how a command prints.
pub(in crate::cli) struct Printer {
    format: Format,
    terminal: bool,
    color: ColorChoice,
    quiet: bool,
    clock: Clock,
}

impl Printer {
    /// A printer to standard output, as the options say.
    pub(in crate::cli) fn new(options: &OutputOptions, clock: Clock) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let color = match options.color.unwrap_or(ColorWhen::Auto) {
            ColorWhen::Auto => ColorChoice::Auto,
            ColorWhen::Always => ColorChoice::Always,
            ColorWhen::Never => ColorChoice::Never,
        };
        let format = options.output.unwrap_or(if terminal { Format::Table } else { Format::Tsv });
        Self { format, terminal, color, quiet: options.quiet, clock }
    }

    /// The format.
    pub(in crate::cli) fn format(&self) -> Format {
        self.format
    }

    /// Whether a person looks on.
    pub(in crate::cli) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether only data and errors are wanted.
    pub(in crate::cli) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The clock, for whoever waits.
    pub(in crate::cli) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How cells are to be filled.
    pub(in crate::cli) fn look(&self) -> Look {
        Look { now: self.clock.now().wall, people: self.terminal && self.format == Format::Table }
    }

    /// Columns of the terminal, looked up anew each time; `None` when there is none.
    pub(in crate::cli) fn room(&self) -> Option<usize> {
        self.terminal.then(|| said(|size| size.ws_col).unwrap_or(COLUMNS_UNSAID))
    }

    /// Data, on standard output. Colours in it are left out where they are not wanted.
    pub(in crate::cli) fn data(&self, text: &str) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.painted(text).as_bytes())?;
        Ok(out.flush()?)
    }

    /// A line that is no data, on standard error; not with `--quiet`.
    pub(in crate::cli) fn note(&self, text: &str) {
        if !self.is_quiet() {
            self.warn(text);
        }
    }

    /// A line that has to be said, on standard error.
    #[expect(clippy::unused_self, reason = "everything a command says goes through its printer")]
    pub(in crate::cli) fn warn(&self, text: &str) {
        crate::cli::complain(text);
    }

    /// One item.
    pub(in crate::cli) fn one<T: Shown>(&self, item: &Item<T>) -> Result<(), Failed> {
        match self.format {
            Format::Json => self.data(&(json::pretty(item.raw.get()) + "\n")),
            Format::Table | Format::Tsv | Format::Jsonl | Format::Name => {
                let mut listing = self.listing();
                listing.add(std::slice::from_ref(item))?;
                listing.end()
            }
        }
    }

    /// A whole screen of rows in place of the last one; those that do not fit are counted.
    pub(in crate::cli) fn redraw<T: Shown>(&self, items: &[Item<T>]) -> Result<(), Failed> {
        let height = said(|size| size.ws_row).unwrap_or(usize::MAX);
        // A line for the head, one for what does not fit, one for the cursor.
        let fit = height.saturating_sub(3).max(1);
        let look = self.look();
        let rows = items.iter().take(fit).map(|item| item.seen.cells(&look));
        let mut screen = Page::new(T::COLUMNS, On::Table, rows).table(true, self.room());
        if items.len() > fit {
            screen.extend(["… and ", (items.len() - fit).to_string().as_str(), " more\n"]);
        }
        self.redraw_text(&screen)
    }

    /// This text in place of the last screen.
    pub(in crate::cli) fn redraw_text(&self, screen: &str) -> Result<(), Failed> {
        // Home; each line cleared to its end; then everything below.
        let lines: String = self.painted(screen).lines().flat_map(|line| [line, "\x1b[K\n"]).collect();
        let mut out = std::io::stdout().lock();
        out.write_all(format!("\x1b[H{lines}\x1b[J").as_bytes())?;
        Ok(out.flush()?)
    }

    /// The text, without its colours where they are not wanted.
    fn painted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let choice = if self.color == ColorChoice::Auto { AutoStream::choice(&std::io::stdout()) } else { self.color };
        if choice == ColorChoice::Never {
            Cow::Owned(anstream::adapter::strip_str(text).to_string())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Begins a list, whose pages are printed as they come.
    pub(in crate::cli) fn listing<T: Shown>(&self) -> Listing<'_, T> {
        Listing { printer: self, begun: false, of: PhantomData }
    }
}

/// One side of the terminal. Some know only one of the two (a serial line, some containers): the other is 0 then.
fn said(side: impl FnOnce(&Winsize) -> u16) -> Option<usize> {
    let window = tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(side(&window))).filter(|length| *length > 0)
}

/// A list that is being printed.
pub(in crate::cli) struct Listing<'a, T> {
    printer: &'a Printer,
    begun: bool,
    of: PhantomData<T>,
}

impl<T: Shown> Listing<'_, T> {
    /// Prints a page of it.
    pub(in crate::cli) fn add(&mut self, items: &[Item<T>]) -> Result<(), Failed> {
        let first = !std::mem::replace(&mut self.begun, true);
        let printer = self.printer;
        let look = printer.look();
        let rows = || items.iter().map(|item| item.seen.cells(&look));
        let text = match printer.format {
            Format::Table => Page::new(T::COLUMNS, On::Table, rows()).table(first, printer.room()),
            Format::Tsv => Page::new(T::COLUMNS, On::Tsv, rows()).tsv(first),
            Format::Name => items.iter().map(|item| text::visible(item.seen.name()).into_owned() + "\n").collect(),
            Format::Jsonl => items.iter().map(|item| json::compact(item.raw.get()) + "\n").collect(),
            Format::Json => {
                let start = if first { "[\n" } else { ",\n" };
                let shown: Vec<_> = items.iter().map(|item| json::pretty(item.raw.get())).collect();
                if shown.is_empty() {
                    self.begun = !first;
                    return Ok(());
                }
                start.to_owned() + &shown.join(",\n")
            }
        };
        printer.data(&text)
    }

    /// Ends it if it has begun.
    pub(in crate::cli) fn finish(self) -> Result<(), Failed> {
        if self.begun { self.end() } else { Ok(()) }
    }

    /// Ends it. A list of nothing still has its head, or its brackets.
    pub(in crate::cli) fn end(mut self) -> Result<(), Failed> {
        if self.printer.format == Format::Json {
            return self.printer.data(if self.begun { "\n]\n" } else { "[]\n" });
        }
        if self.begun { Ok(()) } else { self.add(&[]) }
    }
}
