//! What `sendoff dev` prints before its story: where everything is, and commands that work as they stand.

use std::net::SocketAddr;

use crate::app::Facts;

use super::super::shell::{curl, program, word};
use super::scratch::Scratch;
use super::target::PATHS;

/// The guide. No secret is in it: commands name the key's file.
pub(super) fn text(scratch: &Scratch, facts: &Facts, target: SocketAddr, quiet: bool) -> String {
    let (url, target) = (format!("https://{}", facts.address), format!("http://{target}"));
    let paths: Vec<String> = PATHS.iter().map(|(path, does)| format!("{path} ({does})")).collect();
    let fate = if scratch.is_temporary() { "goes when this ends" } else { "stays when this ends" };
    let sendoff = format!("{} --config {}", program(), word(&scratch.config_file().display().to_string()));
    let mut lines = vec![
        format!("sendoff is ready on {url} after {} ms, to play with", facts.took.as_millis()),
        format!("  target          {target} with {}", paths.join(", ")),
        format!("  data            {} ({fate}; the admin key is in data/admin.key)", scratch.dir().display()),
    ];
    lines.extend(foreign_variables());
    lines.extend([
        String::new(),
        "Try these in another terminal. Create a task that fails twice, then works:".to_owned(),
        format!("  {sendoff} task create {target}/flaky"),
        "Create one and watch it:".to_owned(),
        format!("  {sendoff} task create {target}/slow --wait"),
        "Look at the dead letters, and put them back:".to_owned(),
        format!("  {sendoff} dlq list && {sendoff} dlq redrive --all --yes"),
        "Without the command line:".to_owned(),
        format!("  {}", curl(facts, &url, &format!("{{\"url\":\"{target}/ok\"}}"))),
        String::new(),
        if quiet { "Ctrl-C ends it." } else { "What happens, a line each (Ctrl-C ends it):" }.to_owned(),
    ]);
    lines.join("\n")
}

/// A word about variables that lead commands elsewhere, if there are any. Their values are nobody's business.
fn foreign_variables() -> Option<String> {
    let names: Vec<String> = super::super::environment().into_iter().map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("  note            {names}: not used here, but by the commands below; unset what is set")
    })
}
