//! Follows one task to its end: long polls, each attempt as it shows, and an exit code by how it ended.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::args::Format;
use crate::cli::call::CallError;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::Item;
use crate::cli::patience::patiently;
use crate::task::limits::WAIT_MAX;
use crate::task::{Span, Status};

use super::seen::{AttemptSeen, TaskSeen};

/// How long to follow, and how closely.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// How often attempts are looked for; the end is told at once.
    pub(super) interval: Duration,
    /// How long at most.
    pub(super) within: Option<Duration>,
}

/// The attempts as the API gave them.
#[derive(Deserialize)]
struct Attempts {
    #[serde(default)]
    attempts: Vec<Box<RawValue>>,
}

/// Follows the task to its end.
///
/// Exit code 0 when it succeeded, 1 when it ended otherwise or has not ended in time. With `-o json` and `-o name` the
/// task is printed once, at its end; else each attempt as it shows.
pub(super) async fn to_its_end(context: &Context, id: &str, how: How) -> Result<Exit, Failed> {
    let printer = &context.printer;
    let started = printer.clock().now().mono;
    let mut listing = printer.listing::<AttemptSeen>();
    let streams = !matches!(printer.format(), Format::Json | Format::Name);
    let mut told = 0;
    loop {
        let passed = printer.clock().now().mono.saturating_sub(started);
        let left = how.within.map(|within| within.saturating_sub(passed));
        let task = look(context, id, how.interval.min(left.unwrap_or(Duration::MAX))).await?;
        let ended = task.seen.state().is_none_or(Status::has_ended);
        if streams {
            let new = new_attempts(&task, &mut told)?;
            if !new.is_empty() {
                listing.add(&new)?;
            }
        }
        if !ended && left.is_none_or(|left| !left.is_zero()) {
            continue;
        }
        listing.finish()?;
        if !streams {
            printer.one(&task)?;
        }
        return Ok(judge(context, &task.seen, ended));
    }
}

/// The attempts that have ended since the last look.
fn new_attempts(task: &Item<TaskSeen>, told: &mut u32) -> Result<Vec<Item<AttemptSeen>>, Failed> {
    let strange =
        |error: serde_json::Error| CallError::Strange { text: format!("an attempt is not readable: {error}") };
    let all: Attempts = serde_json::from_str(task.raw.get()).map_err(strange)?;
    let mut new = Vec::new();
    for raw in all.attempts {
        let attempt: Item<AttemptSeen> = Item::read(raw).map_err(strange)?;
        if attempt.seen.ordinal > *told {
            *told = attempt.seen.ordinal;
            new.push(attempt);
        }
    }
    Ok(new)
}

/// One long poll. A server that is away for a moment (a restart) is waited for.
async fn look(context: &Context, id: &str, wait: Duration) -> Result<Item<TaskSeen>, Failed> {
    let wait = Span::from_millis(u64::try_from(wait.min(WAIT_MAX.to_duration()).as_millis()).unwrap_or(u64::MAX));
    patiently(&context.printer, async || {
        let request = context.client.request(Method::GET, &["tasks", id]).query("wait", &wait.to_string());
        Ok(request.send().await?.item()?)
    })
    .await
}

fn judge(context: &Context, task: &TaskSeen, ended: bool) -> Exit {
    let reason = task.dead_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let tries = task.attempt_count;
    let attempts = if tries == 1 { "attempt" } else { "attempts" };
    let state = &task.status;
    let said = if ended { format!("{state}{reason}") } else { format!("still {state}, not waited for any longer") };
    context.printer.note(&format!("{}: {said} after {tries} {attempts}", task.task_id));
    if task.state() == Some(Status::Succeeded) { Exit::Ok } else { Exit::Failure }
}
