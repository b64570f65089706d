//! The command line.

mod config;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flags, Loaded, Sources};

/// The HTTP task queue you run yourself.
#[derive(Debug, Parser)]
#[command(name = "sendoff", version, about, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// What every command that reads the configuration takes.
#[derive(Debug, Clone, Args)]
struct Options {
    /// The configuration file [default: config.yaml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store and the admin key live, instead of `data_dir`.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the local CA and certificate live, instead of `certs_dir`.
    #[arg(long, global = true, value_name = "DIR")]
    certs_dir: Option<String>,
    /// The address to listen on, instead of `server.listen`; port 0 takes a free one.
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve,
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ConfigCommand {
    /// Check it: every fault is reported at once, with its line; exit code 78 if there is one.
    Check,
    /// Print what is in force, defaults included.
    Show,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => with_config(&cli.options, serve::run),
        Command::Config { command } => with_config(&cli.options, |loaded| config::run(command, &loaded)),
        Command::Version => {
            say(&format!("sendoff {}", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

/// Loads the configuration, or says what is wrong with it: exit code 78 (`EX_CONFIG`).
fn with_config(options: &Options, run: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    let Options { config, data_dir, certs_dir, listen } = options.clone();
    let sources = Sources::new(environment(), Flags { config, data_dir, certs_dir, listen });
    match crate::config::load(&sources) {
        Ok(loaded) => run(loaded),
        Err(faults) => {
            complain(&faults.to_string());
            ExitCode::from(78)
        }
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
