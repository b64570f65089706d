//! What happened, told once: a fact is a struct, and [`Fact::emit`] writes its log line and counts it in its metrics.
//! Pure code returns [`Event`] values in its step and leaves emitting them to whoever acts.

pub mod audit;
pub mod event;
pub mod metrics;
mod story;
pub mod subscriber;

pub use event::{Event, Fact};
pub use metrics::{QueueFigures, Telemetry};
pub use subscriber::{LineFormat, LogFilter, LogLevel, LoggingError};

/// An error and what lies behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
