//! `sendoff task …`: one file for each verb.

mod get;
mod seen;

use std::process::ExitCode;

use clap::Subcommand;

use super::args::{ClientOptions, ServerOptions};
use super::context;

pub(super) use seen::{AttemptSeen, TaskSeen};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Show tasks, with their attempts.
    Get(get::Get),
}

/// Runs one of them.
pub(super) fn run(command: TaskCommand, options: &ClientOptions, before: &ServerOptions) -> ExitCode {
    context::run(options, before, async |context| match command {
        TaskCommand::Get(get) => get::run(get, context).await,
    })
}
