//! `sendoff queue …`.

mod detail;
mod seen;
mod wait;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;

use seen::QueueSeen;

use super::args::{ClientOptions, Format, ServerOptions, WatchOptions, queue_name};
use super::call::CallError;
use super::context::{self, Context};
use super::exit::{Exit, Failed};
use super::output::Item;
use super::output::text::did_you_mean;
use super::pager::{self, Asked};
use super::several;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the queues, and how many tasks each has in which state.
    #[command(after_help = "Examples:\n  sendoff queue list\n  sendoff queue list -o name")]
    List {
        #[command(flatten)]
        watch: WatchOptions,
    },
    /// Show queues, one alone with its limits.
    #[command(after_help = "Examples:\n  sendoff queue get mail\n  sendoff queue get mail -o json")]
    Get(Names),
    /// Start no more attempts, across restarts, until resumed; tasks are still accepted.
    #[command(after_help = "Examples:\n  sendoff queue pause mail")]
    Pause(Names),
    /// Start attempts again.
    #[command(after_help = "Examples:\n  sendoff queue resume mail")]
    Resume(Names),
    /// Wait until nothing is left to do: no task is scheduled, queued, running or retrying.
    Wait(wait::Wait),
}

/// Which queues.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names of queues.
    #[arg(required = true, value_name = "QUEUE", value_parser = queue_name)]
    names: Vec<String>,
}

const ALL: Asked = Asked { path: "queues", field: "queues", query: Vec::new(), page: None };

/// Runs one of them.
pub(super) fn run(command: QueueCommand, options: &ClientOptions, before: &ServerOptions) -> ExitCode {
    context::run(options, before, async |context| match command {
        QueueCommand::List { watch } if watch.watch => {
            pager::watch::<QueueSeen>(context, &ALL, &watch).await.map(|_| Exit::Ok)
        }
        QueueCommand::List { .. } => pager::print::<QueueSeen>(context, &ALL).await.map(|_| Exit::Ok),
        QueueCommand::Get(get) => show(context, &get.names).await,
        QueueCommand::Pause(pause) => each(context, &pause.names, Method::POST, Some("pause")).await,
        QueueCommand::Resume(resume) => each(context, &resume.names, Method::POST, Some("resume")).await,
        QueueCommand::Wait(wait) => wait::run(wait, context).await,
    })
}

async fn show(context: &Context, names: &[String]) -> Result<Exit, Failed> {
    let printer = &context.printer;
    if let ([name], Format::Table) = (names, printer.format()) {
        let item = ask(context, name, Method::GET, None).await?;
        printer.data(&detail::of(&item.seen, &printer.look(), printer.room()))?;
        return Ok(Exit::Ok);
    }
    each(context, names, Method::GET, None).await
}

async fn each(context: &Context, names: &[String], method: Method, verb: Option<&str>) -> Result<Exit, Failed> {
    several::each(context, names, async |name| ask(context, name, method.clone(), verb).await.map(Some)).await
}

async fn ask(context: &Context, name: &str, method: Method, verb: Option<&str>) -> Result<Item<QueueSeen>, CallError> {
    let segments: Vec<&str> = ["queues", name].into_iter().chain(verb).collect();
    match context.client.request(method, &segments).send().await {
        Ok(answer) => answer.item(),
        Err(error) => Err(match near(context, name, &error).await {
            Some(hint) => error.with_hint(&hint),
            None => error,
        }),
    }
}

/// The nearest queue there is, when this one is not.
async fn near(context: &Context, name: &str, error: &CallError) -> Option<String> {
    if error.exit() != Exit::NotFound {
        return None;
    }
    let names = names(context).await.ok()?;
    Some(did_you_mean(name, names.iter().map(String::as_str))).filter(|hint| !hint.is_empty())
}

async fn names(context: &Context) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    pager::pages::<QueueSeen>(context, &ALL, |items| {
        names.extend(items.into_iter().map(|item| item.seen.name));
        Ok(())
    })
    .await?;
    Ok(names)
}

/// Fails when there is no such queue: a filter that names one finds nothing for ever.
pub(super) async fn must_exist(context: &Context, name: &str) -> Result<(), Failed> {
    let names = names(context).await?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let hint = did_you_mean(name, names.iter().map(String::as_str));
    Err(Failed::told(Exit::NotFound, format!("there is no queue `{name}`{hint}")))
}
