//! `sendoff version`.

use clap::Args;
use serde::Serialize;

use super::exit::{Exit, Failed};
use super::say;

/// How to print it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff version\n  sendoff version --json")]
pub(super) struct Version {
    /// As JSON, with what it was built for.
    #[arg(long)]
    json: bool,
}

/// What a build is.
#[derive(Debug, Serialize)]
struct Build {
    name: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    debug: bool,
}

pub(super) fn run(asked: &Version) -> Result<Exit, Failed> {
    let build = Build {
        name: "sendoff",
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        debug: cfg!(debug_assertions),
    };
    if asked.json {
        let json = serde_json::to_string(&build);
        say(&json.map_err(|error| Failed::told(Exit::Failure, format!("failed to write JSON: {error}")))?);
    } else {
        say(&format!("sendoff {}", build.version));
    }
    Ok(Exit::Ok)
}
