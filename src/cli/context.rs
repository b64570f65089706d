//! What a client command works with: the server's client, the printer, the clock; and how it is run.

use std::process::ExitCode;

use crate::clock::Clock;

use super::args::{ClientOptions, ServerOptions};
use super::client::Client;
use super::connect;
use super::exit::{Exit, Failed};
use super::output::Printer;

/// See the module.
pub(super) struct Context {
    /// The server.
    pub(super) client: Client,
    /// Standard output and standard error.
    pub(super) printer: Printer,
}

impl Context {
    /// Finds the server. `before` are the server options that stood before the command.
    pub(super) fn open(options: &ClientOptions, before: &ServerOptions) -> Result<Self, Failed> {
        let client = Client::new(connect::find(&options.connect, before)?)?;
        let printer = Printer::new(&options.output, Clock::system());
        if client.shows_its_key() {
            printer.warn(&format!("sendoff: warning: the API key goes to {} unencrypted: use https", client.url()));
        }
        Ok(Self { client, printer })
    }
}

/// Runs a client command on a runtime of its own, to its exit code.
pub(super) fn run(
    options: &ClientOptions,
    before: &ServerOptions,
    command: impl AsyncFnOnce(&Context) -> Result<Exit, Failed>,
) -> ExitCode {
    let run = || {
        let context = Context::open(options, before)?;
        runtime()?.block_on(command(&context))
    };
    finish(run())
}

/// A runtime for one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failed::told(Exit::Failure, format!("failed to start the runtime: {error}")))
}

/// Says what went wrong, if anything did, and gives the exit code.
pub(super) fn finish(result: Result<Exit, Failed>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(failed) => {
            match &failed {
                Failed::AudienceGone => {}
                // It begins with where, as compilers do.
                Failed::Config(faults) => super::complain(&faults.to_string()),
                Failed::Usage(_) | Failed::Call(_) | Failed::Told { .. } | Failed::Output(_) => {
                    super::complain(&format!("sendoff: {failed}"));
                }
            }
            failed.exit().into()
        }
    }
}
