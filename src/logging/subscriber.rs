//! Where log lines go and how they look: text for people, one JSON object a line for machines.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::reload;

use super::story::Story;
use crate::clock::Clock;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// For people; in colour when `colour` says so.
    Text {
        /// Whether the reader is a terminal.
        colour: bool,
    },
    /// One flat JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `message`, `event`, and the fact's fields.
    Json,
    /// For people who watch tasks: a line for each thing that happens to one, on standard output; see [`STORY_FILTER`].
    Story {
        /// Whether the reader is a terminal.
        colour: bool,
    },
}

/// What is logged where the story of the tasks is told, and nothing else but warnings.
pub const STORY_FILTER: &str = "warn,sendoff::logging::event::engine=info,sendoff::logging::event::task=debug";

impl LineFormat {
    /// Text when standard error is a terminal, JSON otherwise.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() { Self::text() } else { Self::Json }
    }

    /// Text, whoever reads it.
    pub fn text() -> Self {
        Self::Text { colour: wants_colour(&io::stderr()) }
    }

    /// The story of the tasks, whoever reads it.
    pub fn story() -> Self {
        Self::Story { colour: wants_colour(&io::stdout()) }
    }
}

/// Whether a stream is a terminal whose reader has not asked for no colour (`NO_COLOR`, `TERM=dumb`).
fn wants_colour(stream: &impl anstream::stream::RawStream) -> bool {
    anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("`{given}` is neither a level (error, warn, info, debug, trace) nor a filter such as info,sendoff=debug")]
    BadFilter {
        /// What was given.
        given: String,
        /// What the parser objected to.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process has one already.
    #[error("a log was set up twice")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// What is logged: a level, or more in the syntax of [`EnvFilter`]; read, and not yet in force.
#[derive(Debug)]
pub struct LogFilter(EnvFilter);

impl LogFilter {
    /// Reads a filter.
    pub fn parse(text: &str) -> Result<Self, LoggingError> {
        let bad = |source| LoggingError::BadFilter { given: text.to_owned(), source };
        EnvFilter::builder().parse(text).map(Self).map_err(bad)
    }
}

/// The hand on the log's filter while the process runs.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogLevel {
    /// Puts another filter in force, for every line from now on.
    pub fn set(&self, filter: LogFilter) {
        if let Err(error) = (self.0)(filter.0) {
            // Only a log that is gone cannot be changed; nobody reads this then either.
            tracing::warn!(%error, "the log's filter was not changed");
        }
    }
}

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogLevel")
    }
}

/// Sends the log of this process to standard error, a story to standard output. `filter` is a level, or more in the
/// syntax of [`EnvFilter`]; what this returns changes it later.
pub fn install(format: LineFormat, filter: &str, clock: Clock) -> Result<LogLevel, LoggingError> {
    let (lines, level) = match format {
        LineFormat::Story { .. } => lines(format, filter, clock, io::stdout)?,
        LineFormat::Text { .. } | LineFormat::Json => lines(format, filter, clock, io::stderr)?,
    };
    tracing::subscriber::set_global_default(lines)?;
    Ok(level)
}

/// A log, and the hand on its filter.
type Lines = (Box<dyn Subscriber + Send + Sync>, LogLevel);

/// The log as a subscriber that writes to `writer`.
fn lines<W>(format: LineFormat, filter: &str, clock: Clock, writer: W) -> Result<Lines, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let LogFilter(filter) = LogFilter::parse(filter)?;
    let builder = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_timer(Stamp(clock.clone()))
        .with_target(false)
        // It would be told on standard error, which is what has just failed.
        .log_internal_errors(false);
    Ok(match format {
        LineFormat::Text { colour } => {
            let builder = builder.with_ansi(colour).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), LogLevel(Box::new(move |filter| handle.reload(filter))))
        }
        LineFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), LogLevel(Box::new(move |filter| handle.reload(filter))))
        }
        LineFormat::Story { colour } => {
            let builder = builder.event_format(Story { clock, colour }).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), LogLevel(Box::new(move |filter| handle.reload(filter))))
        }
    })
}

/// Our own clock, in RFC 3339.
struct Stamp(Clock);

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", self.0.now().wall)
    }
}

/// What is logged while `work` runs.
#[cfg(test)]
pub(super) fn capture(format: LineFormat, filter: &str, clock: Clock, work: impl FnOnce()) -> String {
    capture_with(format, filter, clock, |_level| work())
}

/// The same, with the hand on the filter.
#[cfg(test)]
fn capture_with(format: LineFormat, filter: &str, clock: Clock, work: impl FnOnce(LogLevel)) -> String {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let sink = Sink::default();
    let writer = sink.clone();
    let (lines, level) = lines(format, filter, clock, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(lines, || work(level));
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::WallMs;

    fn clock() -> Clock {
        Clock::manual(WallMs::parse("2026-11-24T10:00:00Z").unwrap()).0
    }

    fn some_lines() {
        tracing::info!(event = "greeting", who = "a\u{1b}[31mb\nc", "hello");
        tracing::debug!(event = "detail", "more");
    }

    #[test]
    fn text_lines_are_one_a_fact_and_pass_no_control_characters_on() {
        let text = capture(LineFormat::Text { colour: false }, "info", clock(), some_lines);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("2026-11-24T10:00:00.000Z  INFO hello event=\"greeting\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_filter_may_be_a_level_or_more_and_a_bad_one_is_quoted() {
        let json = capture(LineFormat::Json, "debug", clock(), some_lines);
        assert_eq!(json.lines().count(), 2, "{json}");
        assert_eq!(capture(LineFormat::Json, "warn,other=trace", clock(), some_lines), "");
        let error = lines(LineFormat::Json, "sendoff=loud", clock(), io::sink).err().unwrap().to_string();
        assert!(error.contains("`sendoff=loud`"), "{error}");
    }

    #[test]
    fn another_filter_holds_from_then_on_in_both_formats() {
        for format in [LineFormat::Text { colour: false }, LineFormat::Json] {
            let text = capture_with(format, "warn", clock(), |level| {
                some_lines();
                level.set(LogFilter::parse("debug").unwrap());
                some_lines();
                level.set(LogFilter::parse("warn").unwrap());
                some_lines();
            });
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }

    #[test]
    fn a_log_is_set_up_once_and_without_a_terminal_it_is_json() {
        let (first, second) =
            (install(LineFormat::auto(), "off", clock()), install(LineFormat::text(), "off", clock()));
        assert!(first.is_ok());
        assert!(matches!(second, Err(LoggingError::Twice(_))));
    }
}
