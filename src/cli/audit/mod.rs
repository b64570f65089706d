//! `sendoff audit …`: the log of administrative acts. About a file, wherever it is: no server is asked.

mod verify;

use clap::Subcommand;

use super::args::ServerOptions;
use super::exit::{Exit, Failed};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Walk the whole chain: is every line as it was written, and none missing?
    #[command(after_help = "Examples:\n  sendoff audit verify\n  sendoff audit verify --json\n\n\
                            Note the last hash elsewhere, and give it as --anchor the next time: that shows that \
                            nobody wrote the whole file anew, or cut off its end.")]
    Verify(verify::Verify),
}

/// Runs one of them.
pub(super) fn run(command: AuditCommand, before: ServerOptions) -> Result<Exit, Failed> {
    match command {
        AuditCommand::Verify(verify) => verify::run(verify, before),
    }
}
