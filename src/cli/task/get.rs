//! `sendoff task get`.

use clap::Args;
use reqwest::Method;

use crate::cli::args::{Format, WatchOptions};
use crate::cli::call::CallError;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::Item;
use crate::cli::patience::patiently;
use crate::cli::several;

use super::detail;
use super::seen::{TaskSeen, task_id};

/// Which tasks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff task get order:7
  sendoff task get order:7 -o json")]
pub(in crate::cli) struct Get {
    /// Ids of tasks.
    #[arg(required = true, value_name = "ID", value_parser = task_id)]
    ids: Vec<String>,
    #[command(flatten)]
    watch: WatchOptions,
}

pub(super) async fn run(get: Get, context: &Context) -> Result<Exit, Failed> {
    if get.watch.watch {
        return watch(&get, context).await;
    }
    show(context, &get.ids, "tasks").await
}

/// Shows the tasks (or dead letters) of these ids: one alone on a terminal with its whole history.
pub(in crate::cli) async fn show(context: &Context, ids: &[String], path: &str) -> Result<Exit, Failed> {
    let printer = &context.printer;
    if let ([id], Format::Table) = (ids, printer.format()) {
        let item = fetch(context, path, id).await?;
        printer.data(&detail::of(&item.seen, &printer.look(), printer.room()))?;
        return Ok(Exit::Ok);
    }
    several::each(context, ids, async |id| fetch(context, path, id).await.map(Some)).await
}

/// One task with its attempts.
pub(in crate::cli) async fn fetch(context: &Context, path: &str, id: &str) -> Result<Item<TaskSeen>, CallError> {
    context.client.request(Method::GET, &[path, id]).send().await?.item()
}

/// Looks again and again, as `pager::watch` does with lists.
async fn watch(get: &Get, context: &Context) -> Result<Exit, Failed> {
    let printer = &context.printer;
    if printer.format() == Format::Json {
        return Err(Failed::Usage("--watch prints no end of documents: use -o jsonl".to_owned()));
    }
    let redraw = printer.is_terminal() && printer.format() == Format::Table;
    let mut listing = printer.listing();
    let mut before: Vec<String> = Vec::new();
    loop {
        let mut all = Vec::new();
        for id in &get.ids {
            all.push(patiently(printer, async || Ok(fetch(context, "tasks", id).await?)).await?);
        }
        let after: Vec<String> = all.iter().map(|item| item.raw.get().to_owned()).collect();
        if redraw {
            let room = printer.room();
            match all.as_slice() {
                [item] => printer.redraw_text(&detail::of(&item.seen, &printer.look(), room))?,
                items => printer.redraw(items)?,
            }
        } else {
            all.retain(|item| !before.iter().any(|raw| raw == item.raw.get()));
            listing.add(&all)?;
        }
        before = after;
        printer.clock().sleep(get.watch.interval).await;
    }
}
