//! `sendoff task cancel` and `sendoff task run`.

use clap::Args;
use reqwest::Method;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::{confirm, several};

use super::seen::{TaskSeen, task_id};

/// Which tasks to cancel.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff task list --queue mail --status scheduled -o name | xargs sendoff task cancel --yes
  sendoff task cancel order:7 --yes")]
pub(in crate::cli) struct Cancel {
    /// Ids of tasks.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Which tasks to run now.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff task run order:7")]
pub(in crate::cli) struct Run {
    /// Ids of tasks.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
}

pub(super) async fn cancel(cancel: Cancel, context: &Context) -> Result<Exit, Failed> {
    let what = match cancel.ids.as_slice() {
        [id] => format!("cancel task {id}"),
        ids => format!("cancel {} tasks", ids.len()),
    };
    confirm::destructive(context, cancel.yes, &what)?;
    several::each::<TaskSeen>(context, &cancel.ids, async |id| {
        context.client.request(Method::DELETE, &["tasks", id]).send().await?.item().map(Some)
    })
    .await
}

pub(super) async fn run(run: Run, context: &Context) -> Result<Exit, Failed> {
    several::each::<TaskSeen>(context, &run.ids, async |id| {
        context.client.request(Method::POST, &["tasks", id, "run"]).send().await?.item().map(Some)
    })
    .await
}
