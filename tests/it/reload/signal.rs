//! SIGHUP, to the real binary with a file that changes.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::client::Client;
use crate::support::process::{Process, command, log_of, signal, spawn};
use crate::support::server::task;
use crate::support::target::{Gate, Reply, Target};

/// How long a test waits for an event before it is taken to have failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a configuration file.
fn home(config: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config);
    dir
}

/// Writes the configuration as one should: whoever reads meanwhile reads the old one whole, or the new one.
fn write(dir: &Path, config: &str) {
    fs::write(dir.join("config.next"), config).unwrap();
    fs::rename(dir.join("config.next"), dir.join("config.yaml")).unwrap();
}

/// Asks again and again until it is so: each look is a request, so this neither sleeps nor spins.
async fn until(dir: &Path, what: &str, is_so: impl AsyncFn() -> bool) {
    let asking = async { while !is_so().await {} };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "{what}: in vain; the log: {}", log_of(dir));
}

/// How many reloads have ended so.
async fn reloads(client: &Client, outcome: &str) -> u64 {
    let metrics = client.get("/metrics").await.body;
    let name = format!("sendoff_config_reloads_total{{outcome=\"{outcome}\"}} ");
    metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// SIGHUP, and waits until so many reloads have ended so.
async fn hang_up(process: &Process, dir: &Path, outcome: &str, count: u64) {
    process.signal("HUP");
    until(dir, outcome, async || reloads(&process.client, outcome).await >= count).await;
}

/// The lines of the log that tell this event.
fn told(dir: &Path, event: &str) -> Vec<Value> {
    let lines: Vec<Value> = log_of(dir).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter().filter(|line| line["event"] == event).collect()
}

async fn weight(client: &Client, queue: &str) -> Value {
    client.get(&format!("/queues/{queue}")).await.body["config"]["weight"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_put_in_force_and_told_old_and_new() {
    let dir = home("queues: {mail: {weight: 2}}\n");
    let dir = dir.path();
    // What the environment and flags say stays stronger than the file.
    let process = Process::start(dir, &[("SENDOFF_QUEUES__MAIL__MAX_TASKS", "7")]);
    write(
        dir,
        "queues: {mail: {weight: 3, max_tasks: 9}, sms: {}}\nserver: {listen: \"127.0.0.1:1\"}\nstorage: {reserve: 1GiB}\n",
    );
    hang_up(&process, dir, "applied", 1).await;
    let view = process.client.get("/queues/mail").await.body["config"].take();
    assert_eq!((&view["weight"], &view["max_tasks"]), (&json!(3), &json!(7)), "{view}");
    let events = told(dir, "config_reloaded");
    assert_eq!(
        (&events[0]["level"], &events[0]["changed"], &events[0]["needs_restart"]),
        (
            &json!("WARN"),
            &json!("queues.mail.weight: 2 → 3; queues.sms: added, {}"),
            &json!("storage.reserve: null → 1GiB")
        )
    );

    write(dir, "queues: {mail: {weight: 3, max_tasks: 9}, sms: {}}\n");
    hang_up(&process, dir, "unchanged", 1).await;
    let last = &told(dir, "config_reloaded")[1];
    assert_eq!(
        (&last["level"], &last["message"]),
        (&json!("INFO"), &json!("configuration read again: nothing has changed"))
    );
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_file_changes_nothing_and_every_fault_is_told_with_its_line() {
    let dir = home("queues: {mail: {weight: 2}}\n");
    let dir = dir.path();
    let process = Process::start(dir, &[]);
    write(dir, "queues:\n  mail: {weight: 0}\n  sms: {}\nserver: {lisen: x}\n");
    hang_up(&process, dir, "refused", 1).await;
    let event = &told(dir, "config_refused")[0];
    assert_eq!((&event["level"], &event["faults"]), (&json!("ERROR"), &json!(2)));
    let why: Vec<&str> = event["why"].as_str().unwrap().lines().collect();
    assert_eq!(
        why,
        [
            "config.yaml:2: queues.mail.weight: got `0`, expected a whole number from 1 to 1000",
            "config.yaml:4: server.lisen: unknown key; did you mean `listen`?"
        ]
    );
    assert_eq!(weight(&process.client, "mail").await, 2);
    assert_eq!(process.client.get("/queues/sms").await.status, 404);

    for broken in ["queues: {mail: {weight: 3}", "\u{0}", "queues: &a {}\n"] {
        write(dir, broken);
        let refused = reloads(&process.client, "refused").await;
        hang_up(&process, dir, "refused", refused + 1).await;
    }
    // What somebody sees who reads while another writes: nothing, or no file. It is no wish to have the defaults.
    for (gone, why) in [(false, "the file is empty"), (true, "the file is gone")] {
        write(dir, "\n");
        if gone {
            fs::remove_file(dir.join("config.yaml")).unwrap();
        }
        let refused = reloads(&process.client, "refused").await;
        hang_up(&process, dir, "refused", refused + 1).await;
        let event = told(dir, "config_refused").pop().unwrap();
        assert!(event["why"].as_str().unwrap().contains(why), "{event}");
        assert_eq!(weight(&process.client, "mail").await, 2);
    }
    // Words that say nothing are a wish.
    write(dir, "# all defaults\n");
    hang_up(&process, dir, "applied", 1).await;
    assert_eq!(told(dir, "config_reloaded")[0]["changed"], "queues.mail: taken out");
    let mail = process.client.get("/queues/mail").await.body;
    assert_eq!((&mail["configured"], &mail["paused"]), (&json!(false), &json!(true)));
    write(dir, "queues: {mail: {weight: 4}}\n");
    hang_up(&process, dir, "applied", 2).await;
    assert_eq!(weight(&process.client, "mail").await, 4);
    assert_eq!(process.client.get("/queues/mail").await.body["configured"], true);
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_the_faults_as_a_list() {
    let dir = home("logging: {format: text}\n");
    let dir = dir.path();
    let process = Process::start(dir, &[]);
    write(dir, "logging: {format: text}\nworkers: {max_concurrent: none}\nqueues: {mail: {retry: {jitter: 2}}}\n");
    hang_up(&process, dir, "refused", 1).await;
    let list = "the configuration has 2 faults\n  config.yaml:2: workers.max_concurrent: got `none`, expected a whole \
                number from 1 to 100000\n  config.yaml:3: queues.mail.retry.jitter: got `2`, expected a number from 0 to 1\n";
    until(dir, "the list", async || {
        process.client.get("/healthz").await;
        log_of(dir).contains(list)
    })
    .await;
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_while_it_runs_and_its_own_change_is_told_both_ways() {
    let dir = home("");
    let dir = dir.path();
    let process = Process::start(dir, &[]);
    process.client.get("/healthz").await;
    assert_eq!(told(dir, "request_served").len(), 0);
    write(dir, "logging: {level: debug}\n");
    hang_up(&process, dir, "applied", 1).await;
    until(dir, "debug lines", async || {
        process.client.get("/healthz").await;
        !told(dir, "request_served").is_empty()
    })
    .await;
    write(dir, "logging: {level: error}\n");
    hang_up(&process, dir, "applied", 2).await;
    until(dir, "silence", async || {
        let before = told(dir, "request_served").len();
        process.client.get("/healthz").await;
        process.client.get("/healthz").await;
        told(dir, "request_served").len() == before
    })
    .await;
    write(dir, "logging: {level: info}\n");
    hang_up(&process, dir, "applied", 3).await;
    let changes: Vec<Value> = told(dir, "config_reloaded").into_iter().map(|event| event["changed"].clone()).collect();
    assert_eq!(changes, ["logging.level: info → debug", "logging.level: debug → error", "logging.level: error → info"]);
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_signals_in_a_row_the_last_file_wins() {
    let dir = home("");
    let dir = dir.path();
    let process = Process::start(dir, &[]);
    for weight in 2..=9 {
        write(dir, &format!("queues: {{mail: {{weight: {weight}}}}}\n"));
        process.signal("HUP");
    }
    until(dir, "the last weight", async || weight(&process.client, "mail").await == 9).await;
    assert_eq!(told(dir, "config_refused").len(), 0);
    process.terminate(dir);
}

/// Creates tasks, one after the other, and gives their ids.
async fn post_until(client: Client, stop: CancellationToken, body: Value) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.is_cancelled() {
        let answer = client.post("/tasks", &body).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        ids.push(answer.body["task_id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_fail_no_request_and_lose_no_task() {
    let dir = home("");
    let dir = dir.path();
    let target = Target::start().await;
    let process = Process::start(dir, &[]);
    let stop = CancellationToken::new();
    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        posting.spawn(post_until(process.client.clone(), stop.clone(), task(&target.url("/"), &json!({}))));
    }
    for round in 1..=20_u64 {
        let (rate, concurrent, aging) = if round % 2 == 0 { ("null", 1, "strict") } else { ("5000", 500, "1s") };
        let queue = format!(
            "max_dispatches_per_second: {rate}, max_concurrent_dispatches: {concurrent}, priority_aging: {aging}"
        );
        write(
            dir,
            &format!(
                "queues: {{default: {{{queue}}}, q{round}: {{}}}}\nhosts: {{defaults: {{max_concurrent: {}}}}}\n\
                 egress: {{deny: [host{round}.example]}}\n",
                round + 1
            ),
        );
        hang_up(&process, dir, "applied", round).await;
    }
    stop.cancel();
    let ids = posting.join_all().await.concat();
    for id in &ids {
        let task = process.client.get(&format!("/tasks/{id}?wait=60s")).await.body;
        assert_eq!((&task["status"], &task["attempt_count"]), (&json!("succeeded"), &json!(1)), "{task}");
    }
    assert_eq!(target.requests().len(), ids.len());
    assert!(ids.len() > 20, "there was a load: {}", ids.len());
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_start_is_obeyed_after_it() {
    // The start waits in the middle for a file of CAs: a pipe that nobody has written to yet.
    let dir = home("egress: {ca_files: [ca.pem]}\n");
    let dir = dir.path();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("ca.pem"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let child = spawn(dir, &[]);
    let mut pipe = fs::File::options().write(true).open(dir.join("ca.pem")).unwrap();
    signal(&child, "HUP");
    let ca = rcgen::CertificateParams::default().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    fs::write(dir.join("next.pem"), &ca).unwrap();
    fs::rename(dir.join("next.pem"), dir.join("ca.pem")).unwrap();
    write(dir, "egress: {ca_files: [ca.pem]}\nqueues: {mail: {weight: 5}}\n");
    std::io::Write::write_all(&mut pipe, ca.as_bytes()).unwrap();
    drop(pipe);
    let process = Process::ready(child, dir);
    until(dir, "the reload", async || reloads(&process.client, "applied").await == 1).await;
    assert_eq!(weight(&process.client, "mail").await, 5);
    process.terminate(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_stop_is_told_and_changes_nothing() {
    let (dir, target, gate) = (home(""), Target::start().await, Gate::new());
    let dir = dir.path();
    target.on("/", [Reply::default().wait(&gate).and(Reply::status(200))]);
    let process = Process::start(dir, &[]);
    process.client.post("/tasks", &task(&target.url("/"), &json!({}))).await;
    target.requests_at_least(1).await;
    process.signal("TERM");
    until(dir, "the drain", async || process.client.get("/readyz").await.status == 503).await;
    write(dir, "queues: {mail: {}}\n");
    process.signal("HUP");
    until(dir, "the refusal", async || {
        process.client.get("/healthz").await;
        told(dir, "config_refused").len() == 1
    })
    .await;
    assert_eq!(process.client.get("/queues/mail").await.status, 404);
    gate.open();
    assert_eq!(process.wait().code(), Some(0), "{}", log_of(dir));
    assert_eq!(told(dir, "config_refused")[0]["why"], "the server is stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_file_that_never_comes() {
    let dir = home("");
    let dir = dir.path();
    let process = Process::start(dir, &[]);
    fs::remove_file(dir.join("config.yaml")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("config.yaml"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    process.signal("HUP");
    // It is being read once a writer can open it; what it reads never ends.
    let pipe = fs::File::options().write(true).open(dir.join("config.yaml")).unwrap();
    assert_eq!(process.client.get("/healthz").await.status, 200);
    process.terminate(dir);
    drop(pipe);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_signal_reloads_until_the_terminal_is_closed() {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let dir = home("");
    let dir = dir.path();
    let window = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&window).unwrap();
    unlockpt(&window).unwrap();
    let terminal =
        rustix::fs::open(ptsname(&window, Vec::new()).unwrap(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    let child = command(dir).stdout(Stdio::piped()).stderr(terminal.unwrap()).spawn().expect("the binary starts");
    let process = Process::ready(child, dir);
    write(dir, "queues: {mail: {weight: 5}}\n");
    hang_up(&process, dir, "applied", 1).await;
    drop(window);
    process.signal("HUP");
    assert_eq!(process.wait().code(), Some(0), "stopped in order");
}
