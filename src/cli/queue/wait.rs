//! `sendoff queue wait`: until there is nothing left to do.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::args::{Format, duration, queue_name};
use crate::cli::bulk::progress::{Of, Progress, counted, rate};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::text::grouped;
use crate::cli::pager;
use crate::task::limits::{LOOK_AGAIN, UNREACHABLE_MAX};

use super::seen::QueueSeen;
use super::{ALL, must_exist};

/// Which queues.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff queue wait default
  sendoff queue wait default --timeout 10m && echo drained")]
pub(in crate::cli) struct Wait {
    /// Names of queues.
    #[arg(required_unless_present = "all", value_name = "QUEUE", value_parser = queue_name)]
    names: Vec<String>,
    /// All queues.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// How long to wait at most; then the exit code is 1.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// What is left to do, by state.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Left {
    states: [u64; 4],
    /// Queues that are paused and not empty.
    paused: Vec<String>,
}

/// The states that are left, in the order of a task's way.
const STATES: [&str; 4] = ["scheduled", "queued", "running", "retrying"];

impl Left {
    fn add(&mut self, queue: &QueueSeen) {
        let mut here = 0;
        for (sum, state) in self.states.iter_mut().zip(STATES) {
            let count = queue.tasks.get(state).copied().unwrap_or_default();
            *sum += count;
            here += count;
        }
        if queue.paused && here > 0 {
            self.paused.push(queue.name.clone());
        }
    }

    fn count(&self) -> u64 {
        self.states.iter().sum()
    }

    /// `1,234 tasks left (1,200 queued, 34 running)`.
    fn words(&self) -> String {
        let states = self.states.iter().zip(STATES).filter(|(count, _)| **count > 0);
        let each: Vec<_> = states.map(|(count, state)| format!("{} {state}", grouped(*count))).collect();
        format!("{} left ({})", counted(self.count(), "task", "tasks"), each.join(", "))
    }
}

pub(super) async fn run(wait: Wait, context: &Context) -> Result<Exit, Failed> {
    for name in &wait.names {
        must_exist(context, name).await?;
    }
    let clock = context.printer.clock();
    let end = wait.timeout.map(|timeout| clock.now().mono.saturating_add(timeout));
    let mut left = look(context, &wait.names).await?;
    let mut most = left.count();
    let mut progress = Progress::begin(&context.printer, Of::Things(most));
    let (mut paused, mut lost) = (Vec::new(), None);
    while left.count() > 0 {
        if paused != left.paused {
            paused.clone_from(&left.paused);
            for name in &paused {
                progress
                    .note(&format!("queue {name} is paused: nothing of it starts until `sendoff queue resume {name}`"));
            }
        }
        most = most.max(left.count());
        let done = most - left.count();
        progress.at(done, &format!("{}, {}/s", left.words(), grouped(rate(done, progress.took()))));
        let now = clock.now().mono;
        let pause = end.map_or(LOOK_AGAIN.to_duration(), |end| LOOK_AGAIN.to_duration().min(end.saturating_sub(now)));
        if pause.is_zero() {
            progress.end();
            tell(context, &left)?;
            return Err(Failed::told(Exit::Failure, format!("still {}", left.words())));
        }
        clock.sleep(pause).await;
        left = match look(context, &wait.names).await {
            Ok(seen) => {
                lost = None;
                seen
            }
            Err(Failed::Call(error)) if error.may_pass() => {
                let since = *lost.get_or_insert(now);
                if now.saturating_sub(since) > UNREACHABLE_MAX.to_duration() {
                    return Err(error.into());
                }
                left
            }
            Err(other) => return Err(other),
        };
    }
    progress.end();
    tell(context, &left)?;
    Ok(Exit::Ok)
}

/// What is left in these queues; in all, if none is named.
async fn look(context: &Context, names: &[String]) -> Result<Left, Failed> {
    let mut left = Left::default();
    pager::pages::<QueueSeen>(context, &ALL, |items| {
        let meant = items.iter().filter(|item| names.is_empty() || names.contains(&item.seen.name));
        meant.for_each(|item| left.add(&item.seen));
        Ok(())
    })
    .await?;
    Ok(left)
}

fn tell(context: &Context, left: &Left) -> Result<(), Failed> {
    let count = left.count();
    match context.printer.format() {
        Format::Json | Format::Jsonl => {
            context.printer.data(&format!("{}\n", json!({"drained": count == 0, "left": count})))
        }
        Format::Table | Format::Tsv if count == 0 => context.printer.data("nothing left to do\n"),
        Format::Table | Format::Tsv | Format::Name => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_ended_is_left() {
        let queue = |name: &str, paused, tasks: &[(&str, u64)]| QueueSeen {
            name: name.to_owned(),
            paused,
            tasks: tasks.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect(),
            ..QueueSeen::default()
        };
        let mut left = Left::default();
        left.add(&queue("a", true, &[("succeeded", 7), ("dead", 1)]));
        assert_eq!((left.count(), left.paused.len()), (0, 0), "a paused queue may be empty");
        left.add(&queue("b", true, &[("queued", 1_200), ("running", 30), ("retrying", 4)]));
        assert_eq!(left.words(), "1,234 tasks left (1,200 queued, 30 running, 4 retrying)");
        assert_eq!(left.paused, ["b"]);
    }
}
