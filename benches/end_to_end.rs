//! The whole way: accepted, called, recorded; beside a relay that accepts and calls but keeps nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sendoff::clock::Clock;

use crate::support::backlog::Stock;
use crate::support::child::{Home, Process, Server, micros_each};
use crate::support::fleet::{Fleet, Round};
use crate::support::table::{Table, quantile};
use crate::support::target::Target;
use crate::support::{CONNECTIONS, Outcome, Scale, task};

/// Tasks between their acceptance and their arrival at one time.
pub(crate) const ON_THE_WAY: usize = 256;

pub(crate) fn run<'a>(scale: &'a Scale, _stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(end_to_end(scale))
}

async fn end_to_end(scale: &Scale) -> Outcome {
    let (home, clock) = (Home::new()?, Clock::system());
    let server = home.start()?;
    let target = Target::start(&clock, ON_THE_WAY).await?;
    let request = server.dialer.post("/tasks", &task(&target.url(), ""));
    let mut ours = Fleet::dial(&server.dialer, CONNECTIONS, &clock).await?;
    ours.first()?.expect(&request, 201).await?;
    let answer = ours.first()?.body().len().to_string();
    target.arrived_at_least(1).await?;
    target.slots.acquire().await?.forget();

    let certs = home.path().join("certs").display().to_string();
    let mut relay = Process::bare(&["bare-relay", &certs, &answer, &target.url()])?;
    let mut bare = Fleet::dial(&server.dialer.to(relay.line()?.parse()?), CONNECTIONS, &clock).await?;

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let (round, cost) = whole_way(&mut ours, (&server, &target), &request, scale.round).await?;
        let used = relay.cpu()?;
        let bare_round = bare.run(&request, scale.round, Some(Arc::clone(&target.slots))).await?;
        costs.push((cost, micros_each(relay.cpu()?.saturating_sub(used), bare_round.count)));
        rates.push((round.rate(), bare_round.rate()));
        let late = to_arrival(&mut ours, (&target, Some(&server)), &request, scale.singles).await?;
        let bare_late = to_arrival(&mut bare, (&target, None), &request, scale.singles).await?;
        let at = |part: f64| (quantile(late.iter().copied(), part), quantile(bare_late.iter().copied(), part));
        medians.push(at(0.5));
        tails.push(at(0.99));
    }

    let title = "end_to_end: POST /tasks over HTTPS, the target called, the end recorded";
    let mut table = Table::new(title, ["sendoff", "relay, nothing kept"]);
    table.rate(&format!("tasks/s, {CONNECTIONS} connections"), &rates, "");
    table.cost("CPU µs of the server a task", &costs, "");
    table.cost("ms from POST to arrival, idle server, median", &medians, "");
    table.cost("ms from POST to arrival, idle server, p99", &tails, "");
    Ok(table.print()?)
}

/// A round from the first `POST` until the last end is recorded, and its CPU microseconds a task.
pub(crate) async fn whole_way(
    fleet: &mut Fleet,
    (server, target): (&Server, &Target),
    request: &Arc<[u8]>,
    lasting: Duration,
) -> Outcome<(Round, f64)> {
    let (used, began, before) = (server.process.cpu()?, fleet.clock.now().mono, target.arrived().count);
    let posted = fleet.run(request, lasting, Some(Arc::clone(&target.slots))).await?;
    target.arrived_at_least(before + posted.count).await?;
    let clock = fleet.clock.clone();
    server.until_idle(fleet.first()?, &clock).await?;
    let took = clock.now().mono.saturating_sub(began);
    Ok((Round { count: posted.count, took }, micros_each(server.process.cpu()?.saturating_sub(used), posted.count)))
}

/// The times from request to arrival at the target, one task after the other, in milliseconds. With `server`, each is
/// sent only when it has recorded the end of the one before.
async fn to_arrival(
    fleet: &mut Fleet,
    (target, server): (&Target, Option<&Server>),
    request: &[u8],
    count: usize,
) -> Outcome<Vec<f64>> {
    let clock = fleet.clock.clone();
    let wire = fleet.first()?;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        target.slots.acquire().await?.forget();
        if let Some(server) = server {
            server.until_idle(wire, &clock).await?;
        }
        let (began, before) = (clock.now().mono, target.arrived().count);
        wire.expect(request, 201).await?;
        let arrived = target.arrived_at_least(before + 1).await?;
        took.push((arrived.last.saturating_sub(began)).as_secs_f64() * 1e3);
    }
    Ok(took)
}
