//! `sendoff dlq purge`.

use clap::Args;
use reqwest::Method;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::task::{TaskSeen, task_id};
use crate::cli::{confirm, several};

/// Which dead letters.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff dlq purge dead:1 --yes\n  sendoff dlq purge dead:2 dead:3 --yes")]
pub(in crate::cli) struct Purge {
    /// Ids of dead letters.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(purge: Purge, context: &Context) -> Result<Exit, Failed> {
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
