//! `sendoff config check`, `sendoff config show` and `sendoff config schema`.

use clap::Subcommand;

use super::args::ServerOptions;
use super::exit::{Exit, Failed};
use super::{complain, say};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check it: every fault is reported at once, with its line; exit code 78 if there is one.
    #[command(after_help = "Examples:\n  sendoff config check\n  sendoff config check --config config.yaml")]
    Check(ServerOptions),
    /// Print what is in force, defaults included, and where each value came from.
    #[command(after_help = "Examples:\n  sendoff config show\n  sendoff config show --listen 127.0.0.1:9443")]
    Show(ServerOptions),
    /// Print the JSON Schema of config.yaml, for editors.
    #[command(after_help = "Examples:\n  sendoff config schema\n  sendoff config schema > config.schema.json\n\n\
                            For yaml-language-server this as the file's first line:\n  \
                            # yaml-language-server: $schema=config.schema.json")]
    Schema,
}

/// Runs one of them.
pub(super) fn run(command: ConfigCommand, before: ServerOptions) -> Result<Exit, Failed> {
    match command {
        ConfigCommand::Check(options) => {
            let loaded = options.or(before).load(super::environment())?;
            let source = loaded.file.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
            complain(&format!("{source}: no faults"));
        }
        ConfigCommand::Show(options) => {
            let loaded = options.or(before).load(super::environment())?;
            say(crate::config::show(&loaded).trim_end());
        }
        ConfigCommand::Schema => say(&format!("{:#}", crate::config::schema())),
    }
    Ok(Exit::Ok)
}
