//! Options that several commands share, in groups with a heading each.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{Flags, Loaded, Sources};
use crate::task::Span;

use super::exit::Failed;

/// What commands that are about the local server take.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server options")]
pub(super) struct ServerOptions {
    /// The configuration file [default: config.yaml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the store and the admin key live, instead of `data_dir`.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Where the local CA and certificate live, instead of `certs_dir`.
    #[arg(long, value_name = "DIR")]
    pub(super) certs_dir: Option<String>,
    /// The address to listen on, instead of `server.listen`; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<String>,
}

impl ServerOptions {
    /// These, and where they say nothing, what was said before the command.
    #[must_use]
    pub(super) fn or(self, before: Self) -> Self {
        Self {
            config: self.config.or(before.config),
            data_dir: self.data_dir.or(before.data_dir),
            certs_dir: self.certs_dir.or(before.certs_dir),
            listen: self.listen.or(before.listen),
        }
    }

    /// The configuration that they lead to.
    pub(super) fn load(&self, environment: Vec<(String, String)>) -> Result<Loaded, Failed> {
        let Self { config, data_dir, certs_dir, listen } = self.clone();
        let sources = Sources::new(environment, Flags { config, data_dir, certs_dir, listen });
        Ok(crate::config::load(&sources)?)
    }
}

/// Which server a command talks to. Each of URL, key and CA is looked for in its flag, in its variable, and then in the
/// configuration of this machine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectOptions {
    /// The configuration file of the local server [default: config.yaml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the server is [env: `SENDOFF_URL`; default: where the local configuration listens].
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Where the API key is: file:PATH or env:NAME [env: `SENDOFF_KEY`; default: the local admin key].
    #[arg(long, global = true, value_name = "file:PATH|env:NAME")]
    pub(super) key: Option<String>,
    /// PEM file of the CA to trust [env: `SENDOFF_CA`; default: the local CA, else the system's].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// How a command shows what it has to show.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// How to print data [default: table on a terminal, tsv otherwise].
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(super) output: Option<Format>,
    /// Whether to use colour [default: auto; never where `NO_COLOR` is set].
    #[arg(long, global = true, value_name = "WHEN")]
    pub(super) color: Option<ColorWhen>,
    /// Print data and errors only.
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

/// What every command that talks to a server takes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ClientOptions {
    #[command(flatten)]
    pub(super) connect: ConnectOptions,
    #[command(flatten)]
    pub(super) output: OutputOptions,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people, cut to the terminal's width.
    Table,
    /// A header line, then a line each, separated by tabs.
    Tsv,
    /// One JSON document, as the API gives it.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// Only the ids or names, one a line.
    Name,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Reads a duration such as `2s` or `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(Span::to_duration).map_err(|error| error.to_string())
}
