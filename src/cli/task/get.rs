//! `sendoff task get`.

use clap::Args;
use reqwest::Method;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::Item;

use super::seen::{TaskSeen, task_id};

/// Which tasks.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff task get order:7\n  sendoff task get order:7 -o json")]
pub(in crate::cli) struct Get {
    /// Ids of tasks.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
}

pub(super) async fn run(asked: Get, context: &Context) -> Result<Exit, Failed> {
    let mut listing = context.printer.listing();
    for id in &asked.ids {
        let item = fetch(context, id).await?;
        if asked.ids.len() == 1 {
            context.printer.one(&item)?;
            return Ok(Exit::Ok);
        }
        listing.add(&[item])?;
    }
    listing.end()?;
    Ok(Exit::Ok)
}

/// One task with its attempts.
pub(in crate::cli) async fn fetch(context: &Context, id: &str) -> Result<Item<TaskSeen>, Failed> {
    Ok(context.client.request(Method::GET, &["tasks", id]).send().await?.item()?)
}
