//! `sendoff dlq …`: the dead letters.

mod list;
mod purge;
mod redrive;
mod seen;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::args::{ClientOptions, ServerOptions};
use super::context;
use super::task::{get, task_id};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters, newest first.
    List(list::List),
    /// Show dead letters, one alone with its attempts.
    #[command(after_help = "Examples:\n  sendoff dlq get dead:1\n  sendoff dlq get dead:1 -o json")]
    Get(Ids),
    /// Put dead letters back into their queue, with fresh attempts.
    Redrive(redrive::Redrive),
    /// Delete dead letters for good.
    Purge(purge::Purge),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Ids {
    /// Ids of dead letters.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
}

/// Runs one of them.
pub(super) fn run(command: DlqCommand, options: &ClientOptions, before: &ServerOptions) -> ExitCode {
    context::run(options, before, async |context| match command {
        DlqCommand::List(list) => list::run(list, context).await,
        DlqCommand::Get(get) => get::show(context, &get.ids, "dlq").await,
        DlqCommand::Redrive(redrive) => redrive::run(redrive, context).await,
        DlqCommand::Purge(purge) => purge::run(purge, context).await,
    })
}
