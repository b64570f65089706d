//! Where log lines go and how they look: text for people, one JSON object a line for machines.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self, MakeWriter};

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
}

impl LineFormat {
    /// Text when standard error is a terminal, JSON otherwise.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() { Self::Text { colour: true } } else { Self::Json }
    }

    /// Text, whoever reads it.
    pub fn text() -> Self {
        Self::Text { colour: io::stderr().is_terminal() }
    }
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

/// Sends the log of this process to standard error. `filter` is a level, or more in the syntax of [`EnvFilter`].
pub fn install(format: LineFormat, filter: &str, clock: Clock) -> Result<(), LoggingError> {
    let lines = lines(format, filter, clock, io::stderr)?;
    Ok(tracing::subscriber::set_global_default(lines)?)
}

/// The log as a subscriber that writes to `writer`.
fn lines<W>(
    format: LineFormat,
    filter: &str,
    clock: Clock,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LoggingError::BadFilter { given: filter.to_owned(), source })?;
    let builder = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_timer(Stamp(clock))
        .with_target(false)
        // It would be told on standard error, which is what has just failed.
        .log_internal_errors(false);
    Ok(match format {
        LineFormat::Text { colour } => Box::new(builder.with_ansi(colour).finish()),
        LineFormat::Json => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
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
