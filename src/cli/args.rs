//! Options that several commands share, in groups with a heading each.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{Flags, Loaded, Sources};
use crate::task::limits::LOOK_INTERVAL_MIN;
use crate::task::name::LabelName;
use crate::task::{QueueName, Span, TaskType};

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
        Ok(crate::config::load(&self.sources(environment))?)
    }

    /// Where it comes from.
    pub(super) fn sources(&self, environment: Vec<(String, String)>) -> Sources {
        let Self { config, data_dir, certs_dir, listen } = self.clone();
        Sources::new(environment, Flags { config, data_dir, certs_dir, listen })
    }
}

/// Which server a command talks to. Each of URL, key and CA is looked for in its flag, in its variable, and then in the
/// configuration of this machine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectOptions {
    #[arg(long, global = true, value_name = "FILE", help = "The local server's configuration [default: config.yaml]")]
    pub(super) config: Option<PathBuf>,
    #[arg(long, global = true, value_name = "URL", help = "The server [env: SENDOFF_URL; default: the local one]")]
    pub(super) url: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "file:PATH|env:NAME",
        help = "Where the API key is [env: SENDOFF_KEY; default: data/admin.key]"
    )]
    pub(super) key: Option<String>,
    #[arg(long, global = true, value_name = "FILE", help = "The CA to trust [env: SENDOFF_CA; default: certs/ca.pem]")]
    pub(super) ca: Option<PathBuf>,
}

/// How a command shows what it has to show.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// table, tsv, json, jsonl or name [default: table on a terminal, else tsv].
    #[arg(short, long, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub(super) output: Option<Format>,
    /// auto, always or never [default: auto].
    #[arg(long, global = true, value_name = "WHEN", hide_possible_values = true)]
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

/// Which tasks are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Filter")]
pub(super) struct FilterOptions {
    /// Of this queue only.
    #[arg(long, value_name = "QUEUE", value_parser = queue_name)]
    pub(super) queue: Option<String>,
    /// Of this type only.
    #[arg(long = "type", value_name = "TYPE", value_parser = task_type)]
    pub(super) task_type: Option<String>,
    /// With this label only; several must all hold.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
}

impl FilterOptions {
    /// As parameters of a query.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        let named = [("queue", &self.queue), ("task_type", &self.task_type)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        named.chain(self.labels.iter().map(|(name, value)| (format!("label.{name}"), value.clone()))).collect()
    }
}

/// Reads the name of a queue.
pub(super) fn queue_name(text: &str) -> Result<String, String> {
    QueueName::parse(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

/// Reads the name of a task type.
pub(super) fn task_type(text: &str) -> Result<String, String> {
    TaskType::parse(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

/// Reads `NAME=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as tenant=42")?;
    let name = LabelName::parse(name).map_err(|error| format!("the label's name: {error}"))?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

/// How `--watch` looks again.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watching")]
pub(super) struct WatchOptions {
    /// Look again and again, until Ctrl-C: a terminal is redrawn, else changes are printed.
    #[arg(short, long)]
    pub(super) watch: bool,
    /// How often to look with --watch.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(super) interval: Duration,
}

/// Reads a duration such as `2s` or `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(Span::to_duration).map_err(|error| error.to_string())
}

/// Reads how often to look again.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let least = LOOK_INTERVAL_MIN.to_duration();
    if interval < least { Err(format!("has to be {LOOK_INTERVAL_MIN} or more")) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_one_below_and_at_the_least() {
        assert_eq!(interval("99ms"), Err("has to be 100ms or more".to_owned()));
        assert_eq!(interval("100ms"), Ok(LOOK_INTERVAL_MIN.to_duration()));
    }
}
