//! `sendoff key create`.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::cli::args::{Format, duration};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::text::visible;
use crate::security::scope::Scopes;
use crate::task::name::KeyName;

use super::seen::KeySeen;

/// What the key is for, and what it may do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff key create mail-service --scope enqueue:mail-* --scope read:mail-* > mail.key
  sendoff key create on-call --scope read --scope manage --scope redrive --expires-in 90d
  sendoff key create prometheus --scope metrics -o json

Scopes:
  enqueue  read  read_payload  manage  redrive   of every queue, or of some: enqueue:mail-*
  metrics  admin                                 of the whole server")]
pub(in crate::cli) struct Create {
    /// What it is for: [A-Za-z0-9._-]. Several keys may have one name.
    #[arg(value_name = "NAME", value_parser = key_name)]
    name: String,
    /// What it may do; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE[:QUEUES]", required = true, value_parser = scope)]
    scopes: Vec<String>,
    /// Void after so long [default: never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
}

fn key_name(text: &str) -> Result<String, String> {
    KeyName::parse(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

fn scope(text: &str) -> Result<String, String> {
    Scopes::parse([text]).map(|_one| text.to_owned()).map_err(|(_, error)| error.to_string())
}

pub(super) async fn run(create: Create, context: &Context) -> Result<Exit, Failed> {
    let printer = &context.printer;
    let expires_at = create.expires_in.map(|after| printer.clock().now().wall.plus(after).to_string());
    let body = json!({"name": create.name, "scopes": create.scopes, "expires_at": expires_at});
    let answer = context.client.request(Method::POST, &["keys"]).json(body.to_string()).send().await?;
    let made = answer.item::<KeySeen>()?;
    match printer.format() {
        // The key alone, so that it can go into a file.
        Format::Table | Format::Tsv => {
            let seen = &made.seen;
            printer.note(&format!("Key {} may {}. It is shown only now:", visible(&seen.id), seen.scopes.join(", ")));
            printer.data(&format!("{}\n", visible(&seen.key)))?;
        }
        Format::Json | Format::Jsonl | Format::Name => printer.one(&made)?,
    }
    Ok(Exit::Ok)
}
