//! How long a start takes when many tasks wait, after `kill -9`, beside a bare scan of their table.

use std::path::Path;
use std::pin::Pin;

use rusqlite::{Connection, OpenFlags};
use sendoff::clock::Clock;

use crate::support::backlog::{self, Stock};
use crate::support::child::Home;
use crate::support::table::{Table, median};
use crate::support::{Outcome, Scale};

/// Starts that are measured, each after a kill.
const STARTS: usize = 3;
/// Tasks accepted before each kill, so that there is a log to write back.
const UNWRITTEN: usize = 1_000;

pub(crate) fn run<'a>(scale: &'a Scale, stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(restart(scale, stock))
}

async fn restart(scale: &Scale, stock: &mut Stock) -> Outcome {
    let home = &stock.loaded().await?.home;
    let empty = Home::new()?;
    drop(empty.start()?);
    let (mut full_ms, mut empty_ms, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS.min(scale.rounds.max(1)) {
        let server = home.start()?;
        backlog::enqueue_far(&server, UNWRITTEN).await?;
        drop(server);
        let server = home.start()?;
        let ready_ms = server.ready_after.as_secs_f64() * 1e3;
        drop(server);
        full_ms.push(ready_ms);
        empty_ms.push(empty.start()?.ready_after.as_secs_f64() * 1e3);
        rounds.push((ready_ms, scan_ms(&home.path().join("data/sendoff.db"), scale.many)?));
    }
    let title = format!("restart: {} tasks waiting, killed with signal 9", scale.many);
    let mut table = Table::new(title, ["sendoff", "bare scan of `task`"]);
    table.cost("ms from exec to ready", &rounds, "");
    table.alone("ms from exec to ready, empty store", median(empty_ms.into_iter()), "");
    Ok(table.print()?)
}

/// Reads every column of every row of the table that a start reads, on one connection.
fn scan_ms(database: &Path, tasks: usize) -> Outcome<f64> {
    let clock = Clock::system();
    // Without locks around every call, as the server reads too: a scan that pays for them is no limit.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    let mut statement = connection.prepare("SELECT * FROM task ORDER BY id")?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let (mut sum, mut count) = (0_i64, 0_usize);
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            sum = sum.wrapping_add(row.get_ref(column)?.as_i64().unwrap_or(1));
        }
    }
    std::hint::black_box(sum);
    if count < tasks {
        return Err(format!("{count} rows where {tasks} tasks wait").into());
    }
    Ok(clock.now().mono.as_secs_f64() * 1e3)
}
