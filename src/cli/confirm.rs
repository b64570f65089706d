//! Asks before something is done that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use super::context::Context;
use super::exit::{Exit, Failed};

/// Goes on if `yes` was said on the command line, or is said now. `what` fits behind "sendoff is about to".
///
/// # Errors
/// Off a terminal nobody can be asked: exit code 2, naming `--yes`. After any answer but yes: exit code 1.
pub(super) fn destructive(context: &Context, yes: bool, what: &str) -> Result<(), Failed> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failed::Usage(format!("about to {what}: nobody can be asked here, so say it with --yes")));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "About to {what}. Go on? [y/N] ").and_then(|()| err.flush()).map_err(Failed::Output)?;
    drop(err);
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failed::told(Exit::Failure, format!("failed to read the answer: {error}")))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        context.printer.note("Nothing was done");
        Err(Failed::told(Exit::Failure, "the answer was not yes"))
    }
}
