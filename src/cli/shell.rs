//! Commands that are printed, so that they work in a shell as they stand.

use std::path::{Path, PathBuf};

use crate::app::Facts;

/// A word that a shell reads back as it is.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    let quoted = text.is_empty() || !text.chars().all(plain);
    if quoted { format!("'{}'", text.replace('\'', "'\\''")) } else { text.to_owned() }
}

/// How this program is called: `sendoff` where that finds it, its path otherwise.
pub(super) fn program() -> String {
    let own = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("sendoff"));
    let path = crate::config::variable("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("sendoff")).find(|file| file.is_file());
    if found.is_some_and(|found| is_same(&found, &own)) {
        "sendoff".to_owned()
    } else {
        word(&own.display().to_string())
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}

/// The `curl` line that creates an `http_request` with this payload at `url`. The key goes from its file through a pipe: as
/// an argument, every user of the machine could read it (`ps`).
pub(super) fn curl(facts: &Facts, url: &str, payload: &str) -> String {
    let ca = facts.tls.as_ref().and_then(|tls| tls.ca.as_ref());
    let ca = ca.map(|ca| format!("--cacert {} ", word(&ca.path.display().to_string()))).unwrap_or_default();
    let key = word(&facts.key_file.display().to_string());
    let task = word(&format!("{{\"task_type\":\"http_request\",\"payload\":{payload}}}"));
    format!("sed 's/^/Authorization: Bearer /' {key} | curl {ca}-H @- --json {task} {url}/tasks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(word("data/admin.key"), "data/admin.key");
        assert_eq!(word("my data/it's"), "'my data/it'\\''s'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn a_program_that_is_not_on_the_path_is_called_by_its_own() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(program(), word(own.to_str().unwrap()));
        assert!(is_same(&own, &own) && !is_same(&own, Path::new("/nowhere")));
    }
}
