//! `sendoff task …`: one file for each verb.

mod act;
mod create;
mod detail;
mod follow;
pub(super) mod get;
pub(super) mod list;
mod seen;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;

use super::args::{ClientOptions, ServerOptions};
use super::context;

pub(super) use seen::{LastError, TaskSeen, task_id};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Create a task.
    Create(Box<create::Create>),
    /// Show tasks, one alone with its attempts.
    Get(get::Get),
    /// List tasks, newest first.
    List(list::List),
    /// Follow one task to its end, attempt by attempt.
    Watch(watch::Watch),
    /// Run tasks now, ahead of their queue.
    Run(act::Run),
    /// Cancel tasks; a running call is broken off.
    Cancel(act::Cancel),
}

/// Runs one of them.
pub(super) fn run(command: TaskCommand, options: &ClientOptions, before: &ServerOptions) -> ExitCode {
    context::run(options, before, async |context| match command {
        TaskCommand::Create(create) => create::run(*create, context).await,
        TaskCommand::Get(get) => get::run(get, context).await,
        TaskCommand::List(list) => list::run(list, context).await,
        TaskCommand::Watch(watch) => watch::run(watch, context).await,
        TaskCommand::Run(run) => act::run(run, context).await,
        TaskCommand::Cancel(cancel) => act::cancel(cancel, context).await,
    })
}
