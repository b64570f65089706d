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
