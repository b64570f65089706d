//! `sendoff cert …`: the server's certificate, and who has to trust it. About files of this machine, not by way of the
//! API: it is needed most when no client can connect.

mod renew;
mod show;
mod trust;

use clap::Subcommand;

use crate::clock::Clock;
use crate::config::Config;
use crate::security::certificate::{OnDisk, on_disk};
use crate::security::server_tls::TlsSetupError;

use super::args::ServerOptions;
use super::exit::{Exit, Failed};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Show it: names, how long it is good for, who issued it, its fingerprint.
    #[command(after_help = "Examples:\n  sendoff cert show\n  sendoff cert show --json")]
    Show(show::Show),
    /// Have the local CA issue another now; a running server serves it within 10 seconds.
    #[command(after_help = "Examples:\n  sendoff cert renew\n\n\
                            Run it as the user that the server runs as: the files have to be readable for it. \
                            The server renews it by itself when less than 30 days are left.")]
    Renew(ServerOptions),
    /// Print how clients are made to trust the local CA, and how that is undone; changes nothing.
    #[command(after_help = "Examples:\n  sendoff cert trust")]
    Trust(ServerOptions),
}

/// Runs one of them.
pub(super) fn run(command: CertCommand, before: ServerOptions) -> Result<Exit, Failed> {
    match command {
        CertCommand::Show(asked) => show::run(asked, before),
        CertCommand::Renew(options) => renew::run(options, before),
        CertCommand::Trust(options) => trust::run(options, before),
    }
}

fn configured(options: ServerOptions, before: ServerOptions) -> Result<Config, Failed> {
    Ok(options.or(before).load(super::environment())?.config)
}

/// What is served; a failure that says why when nothing is.
fn served(config: &Config) -> Result<OnDisk, Failed> {
    if config.server.plain_http {
        let text = "server.plain_http is true: this server has no certificate";
        return Err(Failed::told(Exit::NotFound, text));
    }
    let found = on_disk(&config.server, &config.certs_dir).map_err(|error| failed(&error))?;
    found.ok_or_else(|| {
        let dir = config.certs_dir.display();
        let text = format!("there is no certificate in {dir} yet: the first start of the server makes it");
        Failed::told(Exit::NotFound, text)
    })
}

fn failed(error: &TlsSetupError) -> Failed {
    Failed::told(Exit::Failure, error.to_string())
}

/// Whole days from now until `end`; negative when it has passed.
fn days_left(end: crate::task::WallMs) -> i64 {
    (end.get() - Clock::system().now().wall.get()).div_euclid(86_400_000)
}
