//! What `--help` says, as a whole, and whether its examples work as they stand.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::process::Process;
use crate::support::target::Target;

use super::here::Here;

/// Runs until it is stopped: its examples are started, and stopped when they say that they are ready.
const ENDLESS: [&str; 2] = ["dev", "serve"];

/// `words` and all commands below, each with its help.
fn commands(here: &Here, words: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let with_help: Vec<_> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let output = here.command(&with_help).output().expect("it starts");
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{words:?}");
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    for name in &names {
        commands(here, &[words, &[(*name).to_owned()]].concat(), found);
    }
    found.push((words.to_vec(), help.clone()));
}

fn all(here: &Here) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    commands(here, &[], &mut found);
    found
}

fn examples(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.map(str::trim).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn every_command_explains_itself() {
    let here = Here::alone();
    for (words, help) in all(&here) {
        let name = if words.is_empty() { "sendoff".to_owned() } else { format!("sendoff-{}", words.join("-")) };
        insta::assert_snapshot!(name, help);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{words:?} is too wide");
    }
}

#[test]
fn options_of_the_server_do_not_clutter_clients_nor_the_other_way_round() {
    let here = Here::alone();
    let found = all(&here);
    let help = |words: &[&str]| {
        let found = found.iter().find(|(known, _)| known == words);
        found.unwrap_or_else(|| panic!("no command {words:?}")).1.clone()
    };
    for words in [["task", "list"].as_slice(), &["dlq", "redrive"], &["queue", "pause"]] {
        assert!(help(words).contains("--url") && help(words).contains("--output"), "{words:?}");
        assert!(!help(words).contains("--data-dir") && !help(words).contains("--listen"), "{words:?}");
    }
    for words in [["serve"].as_slice(), &["cert", "renew"], &["config", "check"], &["healthcheck"]] {
        assert!(help(words).contains("--data-dir") && !help(words).contains("--output"), "{words:?}");
    }
    assert!(!help(&["limits"]).contains("--url"));
}

/// A server with a queue `mail`, and what the examples speak of: `order:7` waits, `done:1` has succeeded, `dead:1` to
/// `dead:3` are dead letters. Both queues are paused then, so that no example calls anybody.
async fn populated(target: &Target) -> (Process, Here) {
    let home = Here::alone();
    home.write("config.yaml", "queues: { default: {}, mail: {} }\n");
    let process = Process::start(home.path(), &[]);
    let client = process.client.clone();
    let task = |id: &str, url: &str, more: &serde_json::Value| {
        crate::support::server::task(url, &{
            let mut all = json!({"task_id": id, "queue": "mail", "retry": {"max_attempts": 1}});
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            all
        })
    };
    let labels = json!({"delay": "1h", "labels": {"tenant": "42"}});
    assert_eq!(client.post("/tasks", &task("order:7", &target.url("/"), &labels)).await.status, 201);
    for (id, url) in [
        ("done:1", target.url("/")),
        ("dead:1", "http://127.0.0.1:9/".to_owned()),
        ("dead:2", "http://127.0.0.1:9/".to_owned()),
        ("dead:3", "http://127.0.0.1:9/".to_owned()),
    ] {
        assert_eq!(client.post("/tasks", &task(id, &url, &json!({}))).await.status, 201);
        let ended = client.get(&format!("/tasks/{id}?wait=30s")).await.body;
        assert!(ended["processed_at"].is_string(), "{ended}");
    }
    for queue in ["default", "mail"] {
        assert_eq!(client.post(&format!("/queues/{queue}/pause"), &json!({})).await.status, 200);
    }
    let mut here = Here::at(client.url(), &home.path().join("data/admin.key"), &home.path().join("certs/ca.pem"));
    here.write("config.yaml", "queues: { default: {}, mail: {} }\n");
    // As on the server's machine: `cert` is about these files.
    std::fs::create_dir(here.path().join("certs")).expect("a directory");
    for file in ["ca.pem", "ca.key", "server.pem", "server.key"] {
        // A copy keeps its mode.
        std::fs::copy(home.path().join("certs").join(file), here.path().join("certs").join(file)).expect("a copy");
    }
    here.write("tasks.ndjson", &format!("{}\n", task("file:1", "http://127.0.0.1:9/", &json!({}))));
    here.keep(home);
    (process, here)
}

#[tokio::test]
async fn every_example_works_as_it_stands() {
    let target = Target::start().await;
    for (words, help) in all(&Here::alone()) {
        let (name, examples) = (words.join(" "), examples(&help));
        assert!(!examples.is_empty(), "`sendoff {name}` has no example");
        run(&examples, &target).await;
    }
}

/// Runs the examples of one command. It has a server to itself: no example meets what another command has done.
async fn run(examples: &[&str], target: &Target) {
    let is_endless = |line: &&str| line.split_whitespace().nth(1).is_none_or(|word| ENDLESS.contains(&word));
    let (endless, examples): (Vec<&str>, Vec<&str>) = examples.iter().copied().partition(is_endless);
    endless.into_iter().for_each(starts);
    if examples.is_empty() {
        return;
    }
    let (process, here) = populated(target).await;
    for line in examples {
        let said = here.sh(line).await;
        assert_eq!(said.code, 0, "`{line}` does not work: {said:?}");
    }
    drop(process);
}

/// Runs the example of an endless command until it has said something.
fn starts(line: &str) {
    let here = Here::alone().with("SENDOFF_SERVER__LISTEN", "127.0.0.1:0");
    here.write("config.yaml", "queues: { default: {}, mail: {} }\n");
    let mut shell = here.shell(&format!("exec {line}"));
    // `dev` is killed before it can remove its temporary directory.
    shell.env("TMPDIR", here.path());
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(first.starts_with("sendoff is ready on https://127.0.0.1:"), "`{line}`: {first}");
}
