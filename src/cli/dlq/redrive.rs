//! `sendoff dlq redrive`.

use clap::Args;
use reqwest::Method;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::several;
use crate::cli::task::{TaskSeen, task_id};

/// Which dead letters.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff dlq redrive dead:1\n  sendoff dlq redrive dead:2 dead:3")]
pub(in crate::cli) struct Redrive {
    /// Ids of dead letters.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
}

pub(super) async fn run(redrive: Redrive, context: &Context) -> Result<Exit, Failed> {
    several::each::<TaskSeen>(context, &redrive.ids, async |id| {
        context.client.request(Method::POST, &["dlq", id, "redrive"]).send().await?.item().map(Some)
    })
    .await
}
