//! `sendoff dlq redrive` and `sendoff dlq purge` by filter: counted first, asked for, and watched while it goes on.

use clap::Args;
use clap::builder::PossibleValuesParser;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::args::{FilterOptions, Format};
use crate::cli::call::CallError;
use crate::cli::client::Answer;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::json::{compact, pretty};
use crate::cli::output::text::grouped;
use crate::cli::{confirm, queue};
use crate::task::limits::{BULK_ANSWER_MAX, LOOK_AGAIN};
use crate::task::outcome::DeadReason;

use super::progress::{Of, Progress, counted, rate};

/// Which dead letters, if not by id.
#[derive(Debug, Args)]
pub(in crate::cli) struct Many {
    #[command(flatten)]
    filter: FilterOptions,
    /// Given up for this reason only.
    #[arg(
        long,
        value_name = "REASON",
        help_heading = "Filter",
        value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str))
    )]
    reason: Option<String>,
    /// All dead letters of the server.
    #[arg(long, help_heading = "Filter", conflicts_with_all = ["queue", "task_type", "labels", "reason"])]
    all: bool,
    /// Only count them.
    #[arg(long, help_heading = "Filter", conflicts_with = "ids")]
    dry_run: bool,
}

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Verb {
    /// Put back.
    Redrive,
    /// Delete.
    Purge,
}

impl Verb {
    fn path(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Purge => "purge",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Purge => "purged",
        }
    }

    /// What is about to happen.
    fn plan(self, matched: u64) -> String {
        let letters = counted(matched, "dead letter", "dead letters");
        match self {
            Self::Redrive => format!("redrive {letters}"),
            Self::Purge => format!("delete {letters} for good"),
        }
    }
}

/// What a call did, or would do.
#[derive(Deserialize)]
struct Report {
    matched: u64,
    #[serde(alias = "redriven", alias = "purged")]
    done: u64,
}

/// How many dead letters there are, by queue and reason.
#[derive(Deserialize)]
struct Counts {
    counts: Vec<Heap>,
}

#[derive(Deserialize)]
struct Heap {
    queue: String,
    reason: String,
    count: u64,
}

impl Many {
    /// Whether anything says which. Ids and a filter exclude each other.
    ///
    /// # Errors
    /// Both are given, or neither.
    pub(in crate::cli) fn is_meant(&self, ids: &[String]) -> Result<bool, Failed> {
        let filtered = self.all || self.reason.is_some() || self.filter != FilterOptions::default();
        match (filtered, ids.is_empty()) {
            (true, true) => Ok(true),
            (false, false) => Ok(false),
            (true, false) => Err(Failed::Usage("name dead letters either by id or by a filter".to_owned())),
            (false, true) => Err(Failed::Usage(
                "say which dead letters: by ID, or all that match --queue, --reason, --type, --label, or --all"
                    .to_owned(),
            )),
        }
    }

    fn body(&self, dry_run: bool) -> String {
        let mut body = Map::new();
        let named = [("queue", &self.filter.queue), ("task_type", &self.filter.task_type), ("reason", &self.reason)];
        for (name, value) in named {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.as_str().into());
            }
        }
        if !self.filter.labels.is_empty() {
            let labels: Map<String, Value> =
                self.filter.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            body.insert("labels".to_owned(), labels.into());
        }
        if self.all {
            body.insert("all".to_owned(), true.into());
        }
        body.insert("dry_run".to_owned(), dry_run.into());
        Value::Object(body).to_string()
    }

    /// Whether what was counted there may be meant; labels and types are not counted apart.
    fn means(&self, heap: &Heap) -> bool {
        self.filter.queue.as_ref().is_none_or(|queue| *queue == heap.queue)
            && self.reason.as_ref().is_none_or(|reason| *reason == heap.reason)
    }
}

/// Redrives or purges all that match.
pub(in crate::cli) async fn run(verb: Verb, many: &Many, yes: bool, context: &Context) -> Result<Exit, Failed> {
    if let Some(name) = &many.filter.queue {
        queue::must_exist(context, name).await?;
    }
    let counted_first = call(context, verb, many, true).await?;
    let matched = counted_first.parse::<Report>()?.matched;
    if many.dry_run || matched == 0 {
        let text = match matched {
            0 => "no dead letter matches".to_owned(),
            matched => format!("would {}", verb.plan(matched)),
        };
        return tell(context, &counted_first, &text);
    }
    confirm::destructive(context, yes, &verb.plan(matched))?;
    let answer = watched(context, verb, many, matched).await?;
    let done = answer.parse::<Report>()?.done;
    tell(context, &answer, &format!("{} {}", counted(done, "dead letter", "dead letters"), verb.done()))
}

async fn call(context: &Context, verb: Verb, many: &Many, dry_run: bool) -> Result<Answer, CallError> {
    let request = context.client.request(Method::POST, &["dlq", verb.path()]).json(many.body(dry_run));
    request.within(BULK_ANSWER_MAX.to_duration()).send().await
}

/// Does it in one request, and looks at the falling count meanwhile.
async fn watched(context: &Context, verb: Verb, many: &Many, matched: u64) -> Result<Answer, Failed> {
    let mut progress = Progress::begin(&context.printer, Of::Things(matched));
    let before = left(context, many).await?;
    let work = call(context, verb, many, false);
    tokio::pin!(work);
    let answer = loop {
        // Neither is started anew while the other goes on.
        let look = async {
            context.printer.clock().sleep(LOOK_AGAIN.to_duration()).await;
            left(context, many).await
        };
        tokio::select! {
            answer = &mut work => break answer,
            looked = look => if let Ok(now) = looked {
                let done = before.saturating_sub(now).min(matched);
                let speed = grouped(rate(done, progress.took()));
                progress.at(done, &format!("{} of {} {}, {speed}/s", grouped(done), grouped(matched), verb.done()));
            },
        }
    };
    progress.end();
    answer.map_err(|error| {
        let text = format!("{error}\n  What was done stays done: run the command again for the rest");
        Failed::told(error.exit(), text)
    })
}

/// Dead letters that may be meant, as counted by queue and reason.
async fn left(context: &Context, many: &Many) -> Result<u64, CallError> {
    let answer = context.client.request(Method::GET, &["dlq"]).query("limit", "1").send().await?;
    let counts = answer.parse::<Counts>()?.counts;
    Ok(counts.iter().filter(|heap| many.means(heap)).map(|heap| heap.count).sum())
}

fn tell(context: &Context, answer: &Answer, text: &str) -> Result<Exit, Failed> {
    let printer = &context.printer;
    match printer.format() {
        Format::Json => printer.data(&(pretty(&answer.text) + "\n"))?,
        Format::Jsonl => printer.data(&(compact(&answer.text) + "\n"))?,
        Format::Table | Format::Tsv => printer.data(&format!("{text}\n"))?,
        Format::Name => {}
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many() -> Many {
        Many { filter: FilterOptions::default(), reason: None, all: false, dry_run: false }
    }

    #[test]
    fn a_filter_is_sent_as_the_api_wants_it() {
        let all = Many { all: true, ..many() };
        assert_eq!(all.body(true), r#"{"all":true,"dry_run":true}"#);
        let filter = FilterOptions {
            queue: Some("mail".to_owned()),
            task_type: Some("http_request".to_owned()),
            labels: vec![("tenant".to_owned(), "4\"2".to_owned())],
        };
        let some = Many { filter, reason: Some("corrupt".to_owned()), ..many() };
        let expected = r#"{"dry_run":false,"labels":{"tenant":"4\"2"},"queue":"mail","reason":"corrupt","task_type":"http_request"}"#;
        assert_eq!(some.body(false), expected);
    }

    #[test]
    fn ids_and_filters_exclude_each_other() {
        let ids = ["a".to_owned()];
        let all = Many { all: true, ..many() };
        assert!(all.is_meant(&[]).unwrap() && !many().is_meant(&ids).unwrap());
        assert!(all.is_meant(&ids).is_err() && many().is_meant(&[]).is_err());
    }

    #[test]
    fn what_falls_is_counted_by_queue_and_reason() {
        let heap = |queue: &str, reason: &str| Heap { queue: queue.to_owned(), reason: reason.to_owned(), count: 1 };
        let filter = FilterOptions { queue: Some("mail".to_owned()), ..FilterOptions::default() };
        let some = Many { filter, reason: Some("corrupt".to_owned()), ..many() };
        assert!(some.means(&heap("mail", "corrupt")) && many().means(&heap("any", "corrupt")));
        assert!(!some.means(&heap("other", "corrupt")) && !some.means(&heap("mail", "max_attempts")));
    }
}
