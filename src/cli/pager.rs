//! Lists, page by page, and again and again with `--watch`.

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use reqwest::Method;
use serde_json::value::RawValue;

use crate::task::limits::{PAGE_DEFAULT, PAGE_MAX};

use super::args::{Format, WatchOptions};
use super::call::CallError;
use super::context::Context;
use super::exit::Failed;
use super::output::{Item, Shown};
use super::patience::patiently;

/// How much of a list.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "How much")]
pub(super) struct PageOptions {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = u64::from(PAGE_DEFAULT), value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,
    /// All of them.
    #[arg(long, conflicts_with = "limit")]
    pub(super) all: bool,
}

/// A list of the API: its path, the field with its items, and what is asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// `/tasks`, `/dlq`, `/queues`.
    pub(super) path: &'static str,
    /// `tasks`, `dead_letters`, `queues`.
    pub(super) field: &'static str,
    /// Parameters of the query.
    pub(super) query: Vec<(String, String)>,
    /// How many; `None` where the list has no pages.
    pub(super) page: Option<PageOptions>,
}

/// What came of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// How many were printed.
    pub(super) count: u64,
    /// Whether the server has more.
    pub(super) more: bool,
}

/// Prints a list, once.
pub(super) async fn print<T: Shown>(context: &Context, asked: &Asked) -> Result<Told, Failed> {
    let mut listing = context.printer.listing();
    let told = pages::<T>(context, asked, |items| listing.add(&items)).await?;
    listing.end()?;
    Ok(told)
}

/// Fetches a list and hands over each page.
pub(super) async fn pages<T: Shown>(
    context: &Context,
    asked: &Asked,
    mut page: impl FnMut(Vec<Item<T>>) -> Result<(), Failed>,
) -> Result<Told, Failed> {
    let mut told = Told { count: 0, more: false };
    let mut cursor: Option<String> = None;
    let wanted = asked.page.map(|page| if page.all { u64::MAX } else { page.limit });
    loop {
        let mut request = context.client.request(Method::GET, &[asked.path]);
        for (name, value) in &asked.query {
            request = request.query(name, value);
        }
        if let Some(wanted) = wanted {
            let size = wanted.saturating_sub(told.count).min(u64::from(PAGE_MAX));
            request = request.query("limit", &size.to_string());
        }
        if let Some(cursor) = &cursor {
            request = request.query("cursor", cursor);
        }
        let body: BTreeMap<String, Box<RawValue>> = request.send().await?.parse()?;
        let items = items(&body, asked.field)?;
        told.count += items.len() as u64;
        if !items.is_empty() {
            page(items)?;
        }
        cursor = body.get("next").and_then(|next| serde_json::from_str(next.get()).ok()).flatten();
        told.more = cursor.is_some();
        if !told.more || wanted.is_none_or(|wanted| told.count >= wanted) {
            return Ok(told);
        }
    }
}

fn items<T: Shown>(body: &BTreeMap<String, Box<RawValue>>, field: &str) -> Result<Vec<Item<T>>, CallError> {
    let strange = |what: String| CallError::Strange { text: format!("the server's list of {field} {what}") };
    let given = body.get(field).ok_or_else(|| strange("is missing".to_owned()))?;
    let unread = |error: serde_json::Error| strange(format!("is not what this command line understands: {error}"));
    let raw: Vec<Box<RawValue>> = serde_json::from_str(given.get()).map_err(unread)?;
    raw.into_iter().map(|raw| Item::read(raw).map_err(unread)).collect()
}

/// Prints a list again and again: a terminal is drawn anew; otherwise what is new or has changed is printed.
/// A server that is away for a moment (a restart) is waited for.
pub(super) async fn watch<T: Shown>(context: &Context, asked: &Asked, how: &WatchOptions) -> Result<Told, Failed> {
    let printer = &context.printer;
    if printer.format() == Format::Json {
        return Err(Failed::Usage("--watch prints no end of documents: use -o jsonl".to_owned()));
    }
    let redraw = printer.is_terminal() && printer.format() == Format::Table;
    let mut listing = printer.listing();
    let mut before: HashMap<String, String> = HashMap::new();
    loop {
        let mut all: Vec<Item<T>> = patiently(printer, async || {
            let mut all = Vec::new();
            pages(context, asked, |items| {
                all.extend(items);
                Ok(())
            })
            .await?;
            Ok(all)
        })
        .await?;
        if redraw {
            printer.redraw(&all)?;
        } else {
            let now = |item: &Item<T>| (item.seen.name().to_owned(), item.raw.get().to_owned());
            let after: HashMap<_, _> = all.iter().map(now).collect();
            all.retain(|item| before.get(item.seen.name()).is_none_or(|raw| raw != item.raw.get()));
            before = after;
            listing.add(&all)?;
        }
        printer.clock().sleep(how.interval).await;
    }
}
