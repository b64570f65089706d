//! What a waiting task costs in memory: the whole server, and the scheduler's index alone.

use std::pin::Pin;

use crate::support::backlog::Stock;
use crate::support::child::{Home, Process};
use crate::support::table::{Table, figure};
use crate::support::{Outcome, Scale};

pub(crate) fn run<'a>(scale: &'a Scale, stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(memory(scale, stock))
}

async fn memory(scale: &Scale, stock: &mut Stock) -> Outcome {
    let count = scale.many as u64;
    let each = |bytes: u64| figure(bytes) / figure(count);
    let mut table =
        Table::new(format!("memory: bytes a waiting task, {count} waiting for a far time"), ["sendoff", ""]);

    let index = |how: &str, state: &str| -> Outcome<f64> {
        let mut process = Process::bare(&["bare-index", &count.to_string(), how, state])?;
        Ok(each(process.line()?.parse()?))
    };
    table.alone("index alone, scheduled, as after a start", index("loaded", "scheduled")?, "≤ 120");
    table.alone("index alone, scheduled, as they came in", index("inserted", "scheduled")?, "≤ 120");
    table.alone("index alone, ready, as after a start", index("loaded", "ready")?, "≤ 120");
    table.alone("index alone, ready, as they came in", index("inserted", "ready")?, "≤ 120");

    let loaded = stock.loaded().await?;
    let grown = loaded.resident_after.saturating_sub(loaded.resident_before);
    table.alone("server, grown while they came in", each(grown), "");
    let full = loaded.home.start()?.process.resident()?;
    let empty = Home::new()?.start()?.process.resident()?;
    table.alone("server, more than an empty one after a start", each(full.saturating_sub(empty)), "");
    table.alone("server, empty, MiB", figure(empty) / 1024.0 / 1024.0, "");
    let rate = figure(count) / loaded.took.as_secs_f64();
    table.note(format!("they came in by batches of 10,000 over HTTPS, {rate:.0} a second"));
    Ok(table.print()?)
}
