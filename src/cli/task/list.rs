//! `sendoff task list`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::args::{FilterOptions, WatchOptions};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::text::grouped;
use crate::cli::pager::{self, Asked, PageOptions, Told};
use crate::cli::queue;
use crate::task::Status;

use super::seen::TaskSeen;

/// Which tasks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff task list
  sendoff task list --queue mail --status retrying --label tenant=42
  sendoff task list --status queued --all -o name")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    filter: FilterOptions,
    /// In this state only.
    #[arg(long, value_name = "STATUS", value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str)))]
    status: Option<String>,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    watch: WatchOptions,
}

pub(super) async fn run(list: List, context: &Context) -> Result<Exit, Failed> {
    let mut query = list.filter.query();
    query.extend(list.status.map(|status| ("status".to_owned(), status)));
    let asked = Asked { path: "tasks", field: "tasks", query, page: Some(list.page) };
    let told = if list.watch.watch {
        pager::watch::<TaskSeen>(context, &asked, &list.watch).await?
    } else {
        pager::print::<TaskSeen>(context, &asked).await?
    };
    after(context, told, list.filter.queue.as_deref(), "tasks").await
}

/// What is left to say after a list: that it was empty, that there is more, that its queue does not exist.
pub(in crate::cli) async fn after(
    context: &Context,
    told: Told,
    queue: Option<&str>,
    what: &str,
) -> Result<Exit, Failed> {
    if told.more {
        let shown = grouped(told.count);
        context.printer.note(&format!("{shown} {what} shown, there are more: --limit N, or --all"));
    } else if told.count == 0 {
        if let Some(queue) = queue {
            queue::must_exist(context, queue).await?;
        }
        context.printer.note(&format!("No {what}"));
    }
    Ok(Exit::Ok)
}
