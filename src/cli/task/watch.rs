//! `sendoff task watch`.

use std::time::Duration;

use clap::Args;

use crate::cli::args::{duration, interval};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};

use super::follow::{How, to_its_end};
use super::seen::task_id;

/// Which task.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 when it succeeded, 1 when it ended otherwise.

Examples:
  sendoff task watch done:1
  sendoff task watch order:7 --within 2s || echo 'not yet'")]
pub(in crate::cli) struct Watch {
    /// Id of a task.
    #[arg(value_name = "ID", value_parser = task_id)]
    id: String,
    /// How often to look for attempts; the end is told at once.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// How long to follow it at most; then the exit code is 1.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    within: Option<Duration>,
}

pub(super) async fn run(watch: Watch, context: &Context) -> Result<Exit, Failed> {
    to_its_end(context, &watch.id, How { interval: watch.interval, within: watch.within }).await
}
