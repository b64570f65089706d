//! The command line: one file for each command.
//!
//! Commands about this machine (`serve`, `cert`, `config`) read the configuration (`args::ServerOptions`). All others are
//! clients of the HTTP API, wherever the server is: `connect` finds it, `client` talks to it, `output` shows what
//! it said, `exit` is how they end.

mod args;
mod bulk;
mod call;
mod cert;
mod client;
mod completions;
mod config;
mod confirm;
mod connect;
mod context;
mod dev;
mod dlq;
mod exit;
mod healthcheck;
mod key;
mod limits;
mod man;
mod output;
mod pager;
mod patience;
mod queue;
mod serve;
mod several;
mod shell;
mod start;
mod task;
mod version;
mod welcome;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use args::{ClientOptions, ServerOptions};
use cert::CertCommand;
use config::ConfigCommand;
use context::finish;
use dev::Dev;
use dlq::DlqCommand;
use key::KeyCommand;
use queue::QueueCommand;
use task::TaskCommand;

/// The HTTP task queue you run yourself.
#[derive(Debug, Parser)]
#[command(name = "sendoff", version, about, arg_required_else_help = false, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: ServerOptions,
}

/// Told by `sendoff help`; `exit::Exit` is the list of the codes.
const AFTER_HELP: &str = "\
Examples:
  sendoff dev
  sendoff serve --config config.yaml
  sendoff task create https://api.example.com/charge -d '{\"order\":7}'
  sendoff task list

Exit codes:
  0 done            3 not found               6 no answer from the server
  1 failed          4 no or unknown API key   7 only partly done
  2 wrong usage     5 conflict               74 the store: disk failed, damaged, or in use
                                             78 the configuration is not valid

Without a command it runs the server. Commands find it by --url, SENDOFF_URL, or the local configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    #[command(after_help = "Examples:\n  sendoff serve\n  sendoff serve --config config.yaml --data-dir data")]
    Serve(ServerOptions),
    /// Try it out: a server, a target and a few tasks, of which nothing stays behind.
    #[command(after_help = "Examples:\n  sendoff dev\n  sendoff dev --keep playground")]
    Dev(Dev),
    /// Create, list, follow, cancel tasks.
    #[command(after_help = "\
Examples:
  sendoff task create https://api.example.com/charge -d '{\"order\":7}' --id order:9
  sendoff task list --status scheduled
  sendoff task cancel order:7 --yes")]
    Task {
        #[command(subcommand)]
        command: TaskCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// List, show, redrive, purge dead letters.
    #[command(after_help = "\
Examples:
  sendoff dlq list
  sendoff dlq get dead:1
  sendoff dlq redrive dead:1")]
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// List, show, pause, resume queues.
    #[command(after_help = "\
Examples:
  sendoff queue list
  sendoff queue pause mail
  sendoff queue resume mail")]
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Make, list, revoke API keys.
    #[command(after_help = "\
Examples:
  sendoff key create mail-service --scope enqueue:mail-*
  sendoff key list")]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
        #[command(flatten)]
        options: ClientOptions,
    },
    /// Show, renew, trust the server's certificate.
    #[command(after_help = "Examples:\n  sendoff cert show\n  sendoff cert trust")]
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Look at the configuration.
    #[command(after_help = "Examples:\n  sendoff config check\n  sendoff config show --config config.yaml")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print every limit, with its unit.
    Limits(limits::Limits),
    /// Ask the server whether it takes new work: for container health checks.
    Healthcheck(healthcheck::Healthcheck),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Write the manual pages into a directory.
    Man(man::Man),
    /// Print the version.
    Version(version::Version),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let Cli { command, server } = Cli::parse();
    match command.unwrap_or(Command::Serve(ServerOptions::default())) {
        Command::Serve(options) => {
            let sources = options.or(server).sources(environment());
            match crate::config::load(&sources) {
                Ok(loaded) => serve::run(loaded, sources),
                Err(faults) => finish(Err(faults.into())),
            }
        }
        Command::Dev(options) => dev::run(&options, &server),
        Command::Task { command, options } => task::run(command, &options, &server),
        Command::Dlq { command, options } => dlq::run(command, &options, &server),
        Command::Queue { command, options } => queue::run(command, &options, &server),
        Command::Key { command, options } => key::run(command, &options, &server),
        Command::Cert { command } => finish(cert::run(command, server)),
        Command::Config { command } => finish(config::run(command, server)),
        Command::Limits(limits) => finish(limits::run(&limits)),
        Command::Healthcheck(healthcheck) => finish(healthcheck::run(healthcheck, server)),
        Command::Completions(completions) => completions::run(&completions, Cli::command()).into(),
        Command::Man(man) => finish(man::run(&man, Cli::command())),
        Command::Version(version) => finish(version::run(&version)),
    }
}

#[cfg(not(feature = "sabotage"))]
fn environment() -> Vec<(String, String)> {
    crate::config::environment()
}

/// The environment, less the sin that it chooses.
#[cfg(feature = "sabotage")]
fn environment() -> Vec<(String, String)> {
    let (sins, rest): (Vec<_>, Vec<_>) =
        crate::config::environment().into_iter().partition(|(name, _)| name == "SENDOFF_SABOTAGE");
    for (_, sin) in sins {
        assert!(crate::sabotage::choose(&sin), "there is no sin `{sin}`");
    }
    rest
}

/// Data, on standard output. Whoever read it may have gone: a server goes on without an audience.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads standard output");
    }
}

/// Everything that is not data, on standard error.
fn complain(text: &str) {
    if writeln!(std::io::stderr(), "{text}").is_err() {
        tracing::debug!("nobody reads standard error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_takes_the_name_of_an_option_that_its_group_has() {
        fn check(command: &clap::Command, inherited: &[String]) {
            let ids: Vec<_> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
            let taken: Vec<_> = ids.iter().filter(|id| inherited.contains(id)).collect();
            assert!(taken.is_empty(), "{}: {taken:?}", command.get_name());
            let global = command.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.get_id().to_string());
            let inherited: Vec<_> = inherited.iter().cloned().chain(global).collect();
            command.get_subcommands().for_each(|inner| check(inner, &inherited));
        }
        check(&Cli::command(), &[]);
        Cli::command().debug_assert();
    }
}
