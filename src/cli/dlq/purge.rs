//! `sendoff dlq purge`.

use clap::Args;
use reqwest::Method;

use crate::cli::bulk::dead_letters::{self, Many, Verb};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::task::{TaskSeen, task_id};
use crate::cli::{confirm, several};

/// Which dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff dlq purge dead:1 --yes
  sendoff dlq purge dead:2 dead:3 --yes
  sendoff dlq purge --queue mail --label tenant=42 --dry-run")]
pub(in crate::cli) struct Purge {
    /// Ids of dead letters.
    #[arg(value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    many: Many,
}

pub(super) async fn run(purge: Purge, context: &Context) -> Result<Exit, Failed> {
    if purge.many.is_meant(&purge.ids)? {
        return dead_letters::run(Verb::Purge, &purge.many, purge.yes, context).await;
    }
    let what = match purge.ids.as_slice() {
        [id] => format!("delete dead letter {id} for good"),
        ids => format!("delete {} dead letters for good", ids.len()),
    };
    confirm::destructive(context, purge.yes, &what)?;
    several::each::<TaskSeen>(context, &purge.ids, async |id| {
        context.client.request(Method::DELETE, &["dlq", id]).send().await?;
        context.printer.note(&format!("{id}: deleted"));
        Ok(None)
    })
    .await
}
