//! `sendoff config check` and `sendoff config show`.

use std::process::ExitCode;

use crate::config::Loaded;

use super::{ConfigCommand, complain, say};

pub(super) fn run(command: ConfigCommand, loaded: &Loaded) -> ExitCode {
    match command {
        ConfigCommand::Check => {
            let source =
                loaded.file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
            complain(&format!("{source}: no faults"));
        }
        ConfigCommand::Show => say(crate::config::show(loaded).trim_end()),
    }
    ExitCode::SUCCESS
}
