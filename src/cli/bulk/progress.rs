//! How far something long has come: a bar where a person looks on, a line now and then elsewhere, nothing with
//! `--quiet`. Always on standard error.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::Printer;
use crate::cli::output::moment::about;
use crate::cli::output::text::grouped;
use crate::task::limits::PROGRESS_LINE_EVERY;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Of {
    /// Bytes of so many, where that is known.
    Bytes(Option<u64>),
    /// Things of so many.
    Things(u64),
}

/// See the module.
pub(in crate::cli) struct Progress<'a> {
    printer: &'a Printer,
    of: Of,
    shown: Shown,
    began: Duration,
}

enum Shown {
    Bar(ProgressBar),
    Lines {
        /// When the last line was written, or it all began.
        last: Duration,
    },
    Nothing,
}

impl<'a> Progress<'a> {
    /// Nothing has been done yet.
    pub(in crate::cli) fn begin(printer: &'a Printer, of: Of) -> Self {
        let began = printer.clock().now().mono;
        let shown = if printer.is_quiet() {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar(of))
        } else {
            Shown::Lines { last: began }
        };
        Self { printer, of, shown, began }
    }

    /// So much is done; `words` say it in detail.
    pub(in crate::cli) fn at(&mut self, done: u64, words: &str) {
        let now = self.printer.clock().now().mono;
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(words.to_owned());
                bar.set_position(done);
            }
            Shown::Lines { last } if now.saturating_sub(*last) >= PROGRESS_LINE_EVERY.to_duration() => {
                *last = now;
                let took = now.saturating_sub(self.began);
                self.printer.note(&line(self.of, done, words, took));
            }
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }

    /// Since it began.
    pub(in crate::cli) fn took(&self) -> Duration {
        self.printer.clock().now().mono.saturating_sub(self.began)
    }

    /// It is over, and the bar goes: what came of it is said elsewhere.
    pub(in crate::cli) fn end(self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// A line beside it, on standard error; not with `--quiet`.
    pub(in crate::cli) fn note(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| self.printer.note(text)),
            Shown::Lines { .. } | Shown::Nothing => self.printer.note(text),
        }
    }
}

/// So many a second.
pub(in crate::cli) fn rate(count: u64, took: Duration) -> u64 {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000) / ms
}

fn bar(of: Of) -> ProgressBar {
    let (length, template) = match of {
        Of::Bytes(Some(bytes)) => (Some(bytes), "{bar:24} {percent:>3}%  {msg}  {eta} left"),
        Of::Bytes(None) => (None, "{spinner} {bytes}  {msg}"),
        Of::Things(count) => (Some(count), "{bar:24} {percent:>3}%  {msg}  {eta} left"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_invalid| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar
}

/// `42 %: 1,200 tasks created, 300/s; 4s left`.
fn line(of: Of, done: u64, words: &str, took: Duration) -> String {
    let total = match of {
        Of::Bytes(total) => total,
        Of::Things(total) => Some(total),
    };
    let Some(total) = total.filter(|total| *total > 0) else { return words.to_owned() };
    let part = done.min(total);
    let percent = u128::from(part) * 100 / u128::from(total);
    if part == 0 {
        return format!("{percent} %: {words}");
    }
    let left = took.as_millis() * u128::from(total - part) / u128::from(part);
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
    format!("{percent} %: {words}; {} left", about(left))
}

/// `1 task`, `1,200 tasks`.
pub(in crate::cli) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::OutputOptions;
    use crate::clock::Clock;
    use crate::task::WallMs;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_will_take() {
        let took = Duration::from_secs(30);
        assert_eq!(line(Of::Things(200), 50, "50 redriven", took), "25 %: 50 redriven; 1m30s left");
        assert_eq!(line(Of::Bytes(Some(10)), 0, "nothing yet", took), "0 %: nothing yet");
        assert_eq!(line(Of::Bytes(None), 7, "7 tasks created", took), "7 tasks created");
        assert_eq!(line(Of::Things(0), 0, "x", took), "x");
        assert_eq!(line(Of::Things(10), 11, "x", took), "100 %: x; 0ms left", "more came in meanwhile");
    }

    #[test]
    fn without_a_terminal_a_line_is_written_after_ten_seconds_and_not_before() {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let printer = Printer::new(&OutputOptions { output: None, color: None, quiet: true }, clock);
        let began = printer.clock().now().mono;
        let mut progress =
            Progress { printer: &printer, of: Of::Things(2), shown: Shown::Lines { last: began }, began };
        let mut written_at = |ms: u64| {
            hand.advance(Duration::from_millis(ms));
            progress.at(1, "1 redriven");
            let Shown::Lines { last } = progress.shown else { panic!("lines are shown") };
            last.saturating_sub(began)
        };
        assert_eq!(written_at(9_999), Duration::ZERO);
        assert_eq!(written_at(1), Duration::from_secs(10));
        assert_eq!(written_at(9_999), Duration::from_secs(10));
        assert_eq!(written_at(1), Duration::from_secs(20));
    }

    #[test]
    fn rates_and_counts_are_whole_numbers() {
        assert_eq!((rate(10, Duration::from_secs(4)), rate(10, Duration::ZERO)), (2, 10_000));
        assert_eq!((&*counted(1, "task", "tasks"), &*counted(1_200, "task", "tasks")), ("1 task", "1,200 tasks"));
    }
}
