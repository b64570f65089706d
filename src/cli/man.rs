//! `sendoff man DIR`.

use std::path::PathBuf;

use clap::Args;

use super::complain;
use super::exit::{Exit, Failed};

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff man man1 && ls man1/sendoff-task-create.1")]
pub(super) struct Man {
    /// The directory; it is made if it does not exist.
    dir: PathBuf,
}

pub(super) fn run(asked: &Man, command: clap::Command) -> Result<Exit, Failed> {
    let dir = &asked.dir;
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| {
        Failed::told(Exit::Failure, format!("failed to write manual pages to {}: {error}", dir.display()))
    })?;
    complain(&format!("The manual begins with {}", dir.join("sendoff.1").display()));
    Ok(Exit::Ok)
}
