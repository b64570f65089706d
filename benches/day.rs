//! How long the simulation takes for a day of virtual time, over seeds, in one process with nothing beside it.

use std::pin::Pin;

use sendoff::clock::Clock;

use crate::sim::world::{DAY, HOUR, Report, World};
use crate::support::backlog::Stock;
use crate::support::table::{Table, figure, median};
use crate::support::{Outcome, Scale};

pub(crate) fn run<'a>(scale: &'a Scale, _: &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
    // The engine of a simulated world is waited for on this thread, which a runtime's own may not do.
    Box::pin(async { tokio::task::block_in_place(|| days(scale)) })
}

fn days(scale: &Scale) -> Outcome {
    let (seeds, size, named) = if scale.days == 0 { (1, HOUR, "an hour") } else { (scale.days, DAY, "a day") };
    let (mut seconds, mut tasks) = (Vec::new(), Vec::new());
    for seed in 1..=seeds {
        let clock = Clock::system();
        let report: Report = World::new(seed, size).run();
        if !report.violations.is_empty() {
            return Err(format!("seed {seed}: {:#?}", report.violations).into());
        }
        seconds.push(clock.now().mono.as_secs_f64());
        tasks.push(figure(report.acknowledged));
    }
    let (seconds, tasks) = (median(seconds.into_iter()), median(tasks.into_iter()));
    let title = format!("day: {named} of virtual time, median of {seeds}");
    let mut table = Table::new(title, ["simulation", ""]);
    table.alone("tasks accepted", tasks, "");
    table.alone("seconds", seconds, "aim: about 3 for 20,000 tasks");
    table.alone("µs a task", seconds * 1e6 / tasks, "");
    Ok(table.print()?)
}
