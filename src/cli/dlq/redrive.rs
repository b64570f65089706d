//! `sendoff dlq redrive`.

use clap::Args;
use reqwest::Method;

use crate::cli::bulk::dead_letters::{self, Many, Verb};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::several;
use crate::cli::task::{TaskSeen, task_id};

/// Which dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff dlq redrive dead:1
  sendoff dlq redrive dead:2 dead:3
  sendoff dlq redrive --queue mail --reason max_attempts --yes")]
pub(in crate::cli) struct Redrive {
    /// Ids of dead letters.
    #[arg(value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
    /// Do not ask, where many are meant.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    many: Many,
}

pub(super) async fn run(redrive: Redrive, context: &Context) -> Result<Exit, Failed> {
    if redrive.many.is_meant(&redrive.ids)? {
        return dead_letters::run(Verb::Redrive, &redrive.many, redrive.yes, context).await;
    }
    several::each::<TaskSeen>(context, &redrive.ids, async |id| {
        context.client.request(Method::POST, &["dlq", id, "redrive"]).send().await?.item().map(Some)
    })
    .await
}
