//! Whether tasks that wait slow down those that do not: the whole way with a few and with many waiting.

use std::pin::Pin;

use sendoff::clock::Clock;

use crate::end_to_end::{ON_THE_WAY, whole_way};
use crate::support::backlog::{self, Stock};
use crate::support::child::Home;
use crate::support::fleet::Fleet;
use crate::support::table::Table;
use crate::support::target::Target;
use crate::support::{CONNECTIONS, Outcome, Scale, task};

pub(crate) fn run<'a>(scale: &'a Scale, stock: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    Box::pin(waiting(scale, stock))
}

async fn waiting(scale: &Scale, stock: &mut Stock) -> Outcome {
    let clock = Clock::system();
    let many = stock.loaded().await?.home.start()?;
    let few_home = Home::new()?;
    let few = few_home.start()?;
    backlog::enqueue_far(&few, scale.few).await?;
    let target = Target::start(&clock, ON_THE_WAY).await?;
    let body = task(&target.url(), "");
    let (many_request, few_request) = (many.dialer.post("/tasks", &body), few.dialer.post("/tasks", &body));
    let mut many_fleet = Fleet::dial(&many.dialer, CONNECTIONS, &clock).await?;
    let mut few_fleet = Fleet::dial(&few.dialer, CONNECTIONS, &clock).await?;

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let (round, cost) = whole_way(&mut many_fleet, (&many, &target), &many_request, scale.round).await?;
        let (few_round, few_cost) = whole_way(&mut few_fleet, (&few, &target), &few_request, scale.round).await?;
        rates.push((round.rate(), few_round.rate()));
        costs.push((cost, few_cost));
    }

    let title = format!("waiting: the whole way of other tasks while {} or {} wait", scale.many, scale.few);
    let mut table = Table::new(title, ["many wait", "few wait"]);
    table.rate("tasks/s", &rates, "≥ 0.9");
    table.cost("CPU µs of the server a task", &costs, "");
    Ok(table.print()?)
}
