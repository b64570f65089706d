//! `sendoff key …`: API keys.

mod create;
mod revoke;
mod seen;

use std::process::ExitCode;

use clap::Subcommand;

use seen::KeySeen;

use super::args::{ClientOptions, ServerOptions};
use super::context;
use super::exit::Exit;
use super::pager::{self, Asked};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key; its secret is printed now and never again.
    Create(create::Create),
    /// List the keys, and when each was used last.
    #[command(after_help = "Examples:\n  sendoff key list\n  sendoff key list -o json")]
    List,
    /// Make keys void, for good.
    Revoke(revoke::Revoke),
}

const ALL: Asked = Asked { path: "keys", field: "keys", query: Vec::new(), page: None };

/// Runs one of them.
pub(super) fn run(command: KeyCommand, options: &ClientOptions, before: &ServerOptions) -> ExitCode {
    context::run(options, before, async |context| match command {
        KeyCommand::Create(create) => create::run(create, context).await,
        KeyCommand::List => pager::print::<KeySeen>(context, &ALL).await.map(|_| Exit::Ok),
        KeyCommand::Revoke(revoke) => revoke::run(revoke, context).await,
    })
}
