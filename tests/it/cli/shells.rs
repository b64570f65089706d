//! Completions and manual pages.

use std::process::Command;

use super::here::Here;

/// Runs the script through the shell's own check, if that shell is here.
fn check(shell: &str, words: &[&str], here: &Here, file: &str) {
    if Command::new(shell).args(["-c", "true"]).output().is_err() {
        println!("SKIPPED: there is no `{shell}`, so the completions for it were not checked");
        return;
    }
    let output = Command::new(shell).args(words).arg(file).current_dir(here.path()).output().expect("it starts");
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn completions_are_scripts_that_know_every_command() {
    let here = Here::alone();
    for (shell, check_words) in [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["-n"])] {
        let script = here.run(&["completions", shell]).await.ok();
        for word in ["redrive", "healthcheck", "idempotency-key", "max_retry_duration"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        here.write(shell, &script);
        check(shell, &check_words, &here, shell);
    }
}

#[tokio::test]
async fn bash_completes_what_was_begun() {
    let here = Here::alone();
    if Command::new("bash").args(["-c", "true"]).output().is_err() {
        println!("SKIPPED: there is no `bash`, so its completions were not used");
        return;
    }
    here.write("script", &here.run(&["completions", "bash"]).await.ok());
    let ask = r#"source ./script; COMP_WORDS=(sendoff dlq re); COMP_CWORD=2; _sendoff sendoff re dlq; echo "${COMPREPLY[@]}""#;
    here.write("ask", ask);
    assert_eq!(here.sh("bash ./ask").await.ok(), "redrive\n");
}

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let here = Here::alone();
    here.run(&["man", "deep/man1"]).await.ok();
    for page in ["sendoff", "sendoff-serve", "sendoff-task-create", "sendoff-dlq-redrive", "sendoff-config-check"] {
        let text = std::fs::read_to_string(here.path().join(format!("deep/man1/{page}.1"))).expect(page);
        assert!(text.contains(&format!(".TH {page} 1")) && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let create = std::fs::read_to_string(here.path().join("deep/man1/sendoff-task-create.1")).unwrap();
    assert!(create.contains("idempotency") && create.contains("Examples:"), "{create}");
    here.write("taken", "");
    assert!(here.run(&["man", "taken"]).await.failed(1).contains("taken"));
}

#[tokio::test]
async fn limits_and_versions_are_data() {
    let here = Here::alone();
    let limits = here.run(&["limits"]).await.ok();
    assert_eq!(limits.lines().next(), Some("name\tvalue\tunit\tmeaning"));
    assert!(
        limits.contains("payload_bytes_max\t10485760\tbytes\tWhat limits.payload_bytes may be set to, in bytes.\n")
    );
    assert!(limits.contains("wait_max\t1m\t\tLongest long poll (?wait=).\n"), "{limits}");
    let version = here.run(&["version", "--json"]).await.ok();
    let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
    assert_eq!((&version["name"], &version["version"]), (&"sendoff".into(), &env!("CARGO_PKG_VERSION").into()));
}
