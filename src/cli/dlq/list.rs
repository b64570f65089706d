//! `sendoff dlq list`.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::args::{FilterOptions, WatchOptions};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::pager::{self, Asked, PageOptions};
use crate::cli::task::list::after;
use crate::task::outcome::DeadReason;

use super::seen::DeadSeen;

/// Which dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff dlq list
  sendoff dlq list --queue mail --reason max_attempts --all -o name")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    filter: FilterOptions,
    /// Given up for this reason only.
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str)))]
    reason: Option<String>,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    watch: WatchOptions,
}

pub(super) async fn run(list: List, context: &Context) -> Result<Exit, Failed> {
    let mut query = list.filter.query();
    query.extend(list.reason.map(|reason| ("reason".to_owned(), reason)));
    let asked = Asked { path: "dlq", field: "dead_letters", query, page: Some(list.page) };
    let told = if list.watch.watch {
        pager::watch::<DeadSeen>(context, &asked, &list.watch).await?
    } else {
        pager::print::<DeadSeen>(context, &asked).await?
    };
    after(context, told, list.filter.queue.as_deref(), "dead letters").await
}
