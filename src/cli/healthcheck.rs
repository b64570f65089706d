//! `sendoff healthcheck`: `/readyz`, as a container's health check asks it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Method;

use super::args::{ConnectOptions, ServerOptions, duration};
use super::call::CallError;
use super::client::Client;
use super::context::runtime;
use super::exit::{Exit, Failed};
use super::{complain, connect};

/// Which server.
#[derive(Debug, Args)]
#[command(after_help = "\
It needs no key. Exit code 0: ready; 1: it starts or stops; 6: no answer.

Examples:
  sendoff healthcheck
  sendoff healthcheck --timeout 2s --url \"$SENDOFF_URL\"")]
pub(super) struct Healthcheck {
    #[arg(long, value_name = "URL", help = "The server [env: SENDOFF_URL; default: where the configuration listens]")]
    url: Option<String>,
    #[arg(long, value_name = "FILE", help = "The CA to trust [env: SENDOFF_CA; default: certs/ca.pem]")]
    ca: Option<PathBuf>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) fn run(asked: Healthcheck, before: ServerOptions) -> Result<Exit, Failed> {
    let Healthcheck { url, ca, timeout, server } = asked;
    let connect = ConnectOptions { url, ca, ..ConnectOptions::default() };
    let client = Client::new(connect::find_without_key(&connect, &server.or(before))?)?;
    let answered = runtime()?.block_on(client.request(Method::GET, &["readyz"]).within(timeout).send());
    match answered {
        Ok(_) => {
            complain(&format!("{} is ready", client.url()));
            Ok(Exit::Ok)
        }
        Err(CallError::Refused(problem)) => {
            Err(Failed::told(Exit::Failure, format!("{} is not ready: {problem}", client.url())))
        }
        Err(error) => Err(error.into()),
    }
}
