//! The command line, on the real binary: what a newcomer reads and types.

mod cert;
mod commands;
mod connection;
mod exit_codes;
mod help;
pub(crate) mod here;
mod shells;
pub(crate) mod terminal;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::process::{Process, command, log_of};

/// Runs `sendoff` with these words in `dir`, with nothing of our own environment that it would read.
fn sendoff(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SENDOFF_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(words).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn version_prints_name_and_version() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["version"], ["--version"]] {
        let output = sendoff(dir.path(), &words);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), format!("sendoff {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn words_that_it_does_not_know_are_refused_with_the_usage() {
    let dir = tempfile::tempdir().unwrap();
    let output = sendoff(dir.path(), &["sreve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage: sendoff"), "{}", text(&output.stderr));
}

#[test]
fn a_good_configuration_has_no_faults() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.yaml"), "queues: { mail: { max_dispatches_per_second: 5 } }\n").unwrap();
    let output = sendoff(dir.path(), &["config", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("config.yaml: no faults"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "looking leaves nothing behind");
}

#[test]
fn the_configuration_in_the_repository_has_no_faults() {
    let output = sendoff(Path::new(env!("CARGO_MANIFEST_DIR")), &["config", "check", "--config", "config.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

const BAD: &str = "server:
  listne: 127.0.0.1:1
  shutdown_grace: soon
queues:
  mail: { weight: 0 }
";

#[test]
fn every_fault_of_a_bad_configuration_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.yaml"), BAD).unwrap();
    for words in [["config", "check"].as_slice(), &["config", "show"], &["serve"], &[]] {
        let output = sendoff(dir.path(), &[words, &["--config", "bad.yaml"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{words:?}: {said}");
        for part in ["3 faults", "bad.yaml:2", "did you mean `listen`?", "bad.yaml:3", "bad.yaml:5", "mail"] {
            assert!(said.contains(part), "{words:?} does not say {part}: {said}");
        }
        assert_eq!(text(&output.stdout), "");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was started");
}

#[test]
fn a_file_that_was_named_and_is_not_there_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let output = sendoff(dir.path(), &["config", "check", "--config", "none.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("none.yaml"), "{}", text(&output.stderr));
}

#[test]
fn what_is_shown_says_where_it_came_from_and_loads_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.yaml"), "workers:\n  max_concurrent: 7\n").unwrap();
    let first = sendoff(dir.path(), &["config", "show", "--listen", "127.0.0.1:4433"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let shown = text(&first.stdout);
    let line = |key: &str| shown.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
    assert!(line("listen: ").contains("127.0.0.1:4433") && line("listen: ").contains("# flag --listen"), "{shown}");
    assert!(shown.contains("max_concurrent: 7  # config.yaml:2"), "{shown}");
    assert!(!line("shutdown_grace").contains('#'), "a default has no origin: {shown}");

    fs::write(dir.path().join("config.yaml"), &shown).unwrap();
    let without_origins = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap_or_default().to_owned()).collect()
    };
    let second = sendoff(dir.path(), &["config", "show"]);
    assert_eq!(without_origins(&text(&second.stdout)), without_origins(&shown));
}

fn admin_key(dir: &Path) -> String {
    fs::read_to_string(dir.join("data/admin.key")).expect("the key file").trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_says_what_is_needed_and_keeps_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let said = process.welcome.join("\n");
    let fingerprint = said.split("SHA-256 ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
    let octets: Vec<&str> = fingerprint.split(':').collect();
    assert!(octets.len() == 32 && octets.iter().all(|octet| octet.len() == 2), "a fingerprint: {said}");
    for part in [process.client.url(), "certs/ca.pem", "data/admin.key (mode 0600)", " ms\n"] {
        assert!(said.contains(part), "it does not say {part}: {said}");
    }
    let key = admin_key(dir.path());
    assert!(key.starts_with("so_") && key.len() > 40, "a key worth the name");
    for file in ["data/admin.key", "certs/server.key", "data/sendoff.db"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    assert_eq!(process.client.get("/queues").await.status, 200);
    assert_eq!(process.client.with_key("so_x_y").get("/queues").await.status, 401);
    process.terminate(dir.path());
    let secret = key.rsplit('_').next().unwrap_or(&key);
    assert!(!said.contains(secret), "no terminal looks on: the key stays in its file");
    assert!(!log_of(dir.path()).contains(secret), "the key is not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_start_keeps_key_and_authority_and_prints_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let identity = |dir: &Path| (admin_key(dir), fs::read(dir.join("certs/ca.pem")).expect("the CA"));
    Process::start(dir.path(), &[]).terminate(dir.path());
    let first = identity(dir.path());
    let process = Process::start(dir.path(), &[]);
    assert_eq!(identity(dir.path()), first);
    let secret = first.0.rsplit('_').next().unwrap_or_default();
    assert!(!process.welcome.join("\n").contains(secret));
    assert_eq!(process.client.get("/queues").await.status, 200);
    process.terminate(dir.path());
    assert!(!log_of(dir.path()).contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_curl_line_works_as_printed() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    if Command::new("curl").arg("--version").output().is_err() {
        println!("SKIPPED: there is no `curl` on PATH, so the line that the server prints was not run");
        return process.terminate(dir.path());
    }
    let line = process.welcome.last().expect("a line");
    let script = format!("{line} -sS -w '\\n%{{http_code}}'");
    let output = Command::new("sh").current_dir(dir.path()).args(["-c", &script]).output().expect("a shell");
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    let (body, status) = said.rsplit_once('\n').unwrap_or_else(|| panic!("{line}: {said}{complained}"));
    assert_eq!(status, "201", "{line}: {body} {complained}");
    let task: serde_json::Value = serde_json::from_str(body).expect("a task");
    let id = task["task_id"].as_str().expect("an id");
    assert_eq!(process.client.get(&format!("/tasks/{id}")).await.status, 200);
    process.terminate(dir.path());
}

#[test]
fn an_address_in_use_is_told_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = sendoff(dir.path(), &["serve", "--listen", &address]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("failed to listen on {address}")) && said.contains("--listen"), "{said}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "neither data nor certificates were made");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Process::start(dir.path(), &[]).terminate(dir.path());
    fs::set_permissions(dir.path().join("data/admin.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(dir.path()).output().expect("it starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("admin.key") && said.contains("mode 644"), "{said}");
    assert!(!said.contains(&admin_key(dir.path())));
}
