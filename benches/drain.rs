//! How fast a backlog is worked off, beside a loop that only sends.

use std::pin::Pin;
use std::time::Duration;

use sendoff::clock::Clock;
use sendoff::config::Config;

use crate::support::backlog::{self, Stock};
use crate::support::child::{Home, Process, Server, micros_each};
use crate::support::fleet::Round;
use crate::support::table::Table;
use crate::support::target::Target;
use crate::support::wire::Wire;
use crate::support::{Outcome, Scale};

pub(crate) fn run<'a>(scale: &'a Scale, _stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(drain(scale))
}

async fn drain(scale: &Scale) -> Outcome {
    let (home, clock) = (Home::new()?, Clock::system());
    let server = home.start()?;
    let target = Target::start(&clock, 0).await?;
    let mut wire = server.dialer.dial().await?;
    let at_once = Config::default().hosts.defaults.max_concurrent;

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let (round, cost) = ours(&server, &mut wire, (&target, &clock), scale.drained).await?;
        let (bare_round, bare_cost) = bare(&target, scale.drained, at_once)?;
        rates.push((round.rate(), bare_round.rate()));
        costs.push((cost, bare_cost));
    }

    let title = format!("drain: a backlog of {} tasks, one target on loopback, {at_once} at one time", scale.drained);
    let mut table = Table::new(title, ["sendoff", "reqwest loop"]);
    table.rate("tasks/s, from resume to the last one recorded", &rates, "≥ 0.5");
    table.cost("CPU µs of the sender a task", &costs, "");
    Ok(table.print()?)
}

async fn ours(
    server: &Server,
    wire: &mut Wire,
    (target, clock): (&Target, &Clock),
    count: usize,
) -> Outcome<(Round, f64)> {
    server.set_paused(wire, true).await?;
    backlog::enqueue(server, wire, (&target.url(), ""), count).await?;
    let count = count as u64;
    let (used, began, before) = (server.process.cpu()?, clock.now().mono, target.arrived().count);
    server.set_paused(wire, false).await?;
    target.arrived_at_least(before + count).await?;
    server.until_idle(wire, clock).await?;
    let took = clock.now().mono.saturating_sub(began);
    let arrived = target.arrived().count - before;
    if arrived != count {
        return Err(format!("{arrived} requests for {count} tasks").into());
    }
    Ok((Round { count, took }, micros_each(server.process.cpu()?.saturating_sub(used), count)))
}

/// Blocks this thread; the target has others.
fn bare(target: &Target, count: usize, at_once: u32) -> Outcome<(Round, f64)> {
    let arguments = ["bare-sender", &target.url(), &count.to_string(), &at_once.to_string()];
    let line = tokio::task::block_in_place(|| Process::bare(&arguments)?.line())?;
    let (took, used) = line.split_once(' ').ok_or("a sender said too little")?;
    let count = count as u64;
    let round = Round { count, took: Duration::from_micros(took.parse()?) };
    Ok((round, micros_each(Duration::from_micros(used.parse()?), count)))
}
