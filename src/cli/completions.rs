//! `sendoff completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::exit::Exit;
use super::say;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendoff completions bash > sendoff.bash    # then: source sendoff.bash
  sendoff completions zsh > _sendoff         # in a directory of $fpath
  sendoff completions fish > sendoff.fish    # in ~/.config/fish/completions")]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(asked: &Completions, mut command: clap::Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut command, "sendoff", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Exit::Ok
}
