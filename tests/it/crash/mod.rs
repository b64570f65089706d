//! `kill -9` and SIGTERM of the real binary under load: nothing acknowledged is lost, no task is called more often than it
//! may be, and every repeat is explained by a crash. Also SIGSTOP, and several processes on one directory.
//!
//! `SENDOFF_CRASH_CYCLES=N` and `SENDOFF_CRASH_ACKS=N` (acknowledgements in each cycle) run longer forms;
//! `SENDOFF_CRASH_SEED=N` repeats the moments of the kills as far as the machine does.

mod clients;
mod damage;
mod greedy;
mod owners;
mod stopped;
mod target;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;

use sendoff::clock::Chance;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::process::{Process, log_of, signal, spawn};
use crate::support::suites::number;
use clients::{CLIENTS, Caller, Ledger, MAX_ATTEMPTS, Said};
use target::Target;

/// What one suite showed.
#[derive(Debug)]
struct Report {
    acknowledged: usize,
    lost: Vec<String>,
    unended: Vec<String>,
    too_often: Vec<String>,
    unexplained: Vec<String>,
    undone: Vec<String>,
    interrupted: u64,
    requests: u64,
    cancelled: usize,
    redriven: usize,
    repeated: u64,
    /// Starts that were told to stop before they were ready.
    cut_starts: u64,
}

/// How a cycle ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Kill,
    /// SIGTERM: it has to end by itself, with exit code 0, whatever it is doing.
    Terminate,
}

async fn suite(cycles: u64, acks_each: u64, ending: Ending, environment: &[(&str, &str)]) -> Report {
    // What has ended is kept to the last, or a long form could not tell it from what is lost.
    let environment = &[environment, &[("SENDOFF_QUEUE_DEFAULTS__RETENTION__COUNT", "100000000")]].concat();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let ledger = Arc::new(Ledger::default());
    let mut chance = Chance::from_seed(number("SENDOFF_CRASH_SEED", 1));
    let mut goal = 0;
    let mut cut_starts = 0;
    for cycle in 0..cycles {
        if ending == Ending::Terminate {
            cut_starts += u64::from(terminated_while_it_starts(dir.path(), environment, &mut chance));
        }
        let process = Process::start(dir.path(), environment);
        let mut clients = JoinSet::new();
        for lane in 0..CLIENTS {
            let (client, ledger) = (process.client.clone(), Arc::clone(&ledger));
            clients.spawn(Caller { client, ledger, target: target.url(), cycle, lane }.run());
        }
        // The moment of the kill: some acknowledgements after the cycle's share.
        goal = ledger.count().max(goal) + acks_each + chance.below(acks_each / 2);
        tokio::select! {
            () = ledger.reaches(goal) => {}
            () = all_gone(&mut clients) => panic!("the server went by itself; its log: {}", log_of(dir.path())),
        }
        match ending {
            Ending::Kill => process.kill(),
            Ending::Terminate => process.terminate(dir.path()),
        }
        all_gone(&mut clients).await;
    }
    let process = Process::start(dir.path(), environment);
    let report = Report { cut_starts, ..reckon(&process.client, &ledger, &target).await };
    process.terminate(dir.path());
    assert!(!log_of(dir.path()).contains("stale_settle"), "no lease outlives its process");
    report
}

/// Looks at a starting process so often at most before it is told to stop: the longest of these goes beyond a start.
const LOOKS_MAX: u64 = 60_000;

/// Starts the binary and tells it to stop after a drawn number of looks at it. Says whether it was still starting.
fn terminated_while_it_starts(dir: &Path, environment: &[(&str, &str)], chance: &mut Chance) -> bool {
    let mut child = spawn(dir, environment);
    let ready = |log: &str| log.matches(r#""event":"ready""#).count();
    let before = ready(&log_of(dir));
    for _look in 0..chance.below(LOOKS_MAX) {
        assert!(child.try_wait().unwrap().is_none(), "it went by itself; its log: {}", log_of(dir));
    }
    let in_time = ready(&log_of(dir)) == before;
    signal(&child, "TERM");
    let status = child.wait().unwrap();
    // Until it listens to signals one ends it; from then on it starts, and stops cleanly.
    assert!(status.success() || status.signal() == Some(15), "{status}; its log: {}", log_of(dir));
    in_time
}

async fn all_gone(clients: &mut JoinSet<()>) {
    while clients.join_next().await.is_some() {}
}

/// Cancels what waits for an hour, waits until everything has ended, then holds the store against the clients' ledger
/// and the target's.
async fn reckon(client: &Client, ledger: &Ledger, target: &Target) -> Report {
    let late = client.all_tasks().await;
    for task in late.iter().filter(|task| path_of(task) == "later" && task["processed_at"].is_null()) {
        let cancelled = client.delete(&format!("/tasks/{}", task["task_id"].as_str().unwrap())).await;
        assert!(cancelled.status.is_success(), "{cancelled:?}");
    }
    drop(late);
    let tasks: BTreeMap<String, Value> = loop {
        let tasks = client.all_tasks().await;
        let Some(waiting) = tasks.iter().find(|task| task["processed_at"].is_null()) else {
            break tasks.into_iter().map(|task| (task["task_id"].as_str().unwrap().to_owned(), task)).collect();
        };
        client.get(&format!("/tasks/{}?wait=60s", waiting["task_id"].as_str().unwrap())).await;
    };
    let said = ledger.said();
    let mut report = Report {
        acknowledged: said.acknowledged.len(),
        lost: said.acknowledged.iter().filter(|id| !tasks.contains_key(*id)).cloned().collect(),
        unended: Vec::new(),
        too_often: Vec::new(),
        unexplained: twice(&tasks),
        undone: undone(&said, &tasks),
        interrupted: 0,
        requests: 0,
        cancelled: said.cancelled.len(),
        redriven: said.redriven.len(),
        repeated: said.repeated,
        cut_starts: 0,
    };
    for (id, requests) in target.requests() {
        report.requests += requests;
        let Some(task) = tasks.get(&id) else {
            report.unexplained.push(format!("{id}: called, but unknown"));
            continue;
        };
        let series = task["series"].as_u64().unwrap();
        if requests > MAX_ATTEMPTS * series {
            report.too_often.push(format!("{id}: {requests} requests in {series} series"));
        }
        let expected = match path_of(task) {
            "ok" => 1,
            "flaky" | "hang" => 2,
            "broken" => series,
            other => panic!("a task for {other} was called: {task}"),
        };
        if requests <= expected {
            continue;
        }
        // More requests than the target asked for: only attempts that a crash cut off may explain them.
        let whole = client.get(&format!("/tasks/{id}")).await.body;
        let attempts = whole["attempts"].as_array().unwrap();
        let interrupted = attempts.iter().filter(|attempt| attempt["class"] == "interrupted").count() as u64;
        report.interrupted += interrupted;
        if requests > expected + interrupted {
            report.unexplained.push(format!("{id}: {requests} requests, {interrupted} interrupted"));
        }
    }
    report.unended = tasks.iter().filter(|(_, task)| !ended_as_it_must(task)).map(|(id, _)| id.clone()).collect();
    report
}

fn path_of(task: &Value) -> &str {
    task["payload"]["url"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// Each kind of task has its end; where crashes cut off every attempt, any may be dead.
fn ended_as_it_must(task: &Value) -> bool {
    let status = task["status"].as_str().unwrap();
    match path_of(task) {
        "later" => status == "cancelled",
        "broken" => status == "dead",
        _ => status == "succeeded" || status == "dead",
    }
}

/// Tasks that were accepted twice for one `Idempotency-Key`.
fn twice(tasks: &BTreeMap<String, Value>) -> Vec<String> {
    let mut by_key = BTreeMap::new();
    let keyed = tasks.iter().filter_map(|(id, task)| Some((task["labels"]["key"].as_str()?, id)));
    keyed.filter_map(|(key, id)| by_key.insert(key, id).map(|other| format!("{key}: {other} and {id}"))).collect()
}

/// What was acknowledged besides tasks, and is not so.
fn undone(said: &Said, tasks: &BTreeMap<String, Value>) -> Vec<String> {
    let of = |ids: &[String], so: &dyn Fn(&Value) -> bool| -> Vec<String> {
        ids.iter().filter(|id| tasks.get(*id).is_some_and(|task| !so(task))).cloned().collect()
    };
    let cancelled = of(&said.cancelled, &|task| task["status"] == "cancelled");
    let redriven = of(&said.redriven, &|task| task["series"] == 2);
    [cancelled, redriven].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_and_repeat_only_what_was_in_flight() {
    let (cycles, acks) = (number("SENDOFF_CRASH_CYCLES", 5), number("SENDOFF_CRASH_ACKS", 400));
    let report = suite(cycles, acks, Ending::Kill, &[]).await;
    tell(&format!("{cycles} kills"), &report);
    nothing_lost(&report, cycles * acks);
}

fn tell(what: &str, report: &Report) {
    let Report { acknowledged, requests, interrupted, lost, cancelled, redriven, repeated, .. } = report;
    println!(
        "FIGURES crash: {what}, {acknowledged} acknowledged, {cancelled} cancelled, {redriven} redriven, {requests} \
         requests, {interrupted} repeats after an interruption, {repeated} repeats with a key, {} lost, seed {}",
        lost.len(),
        number("SENDOFF_CRASH_SEED", 1)
    );
}

fn nothing_lost(report: &Report, least: u64) {
    assert!(report.acknowledged as u64 >= least);
    assert_eq!(report.lost, Vec::<String>::new(), "acknowledged and lost");
    assert_eq!(report.unended, Vec::<String>::new(), "not ended");
    assert_eq!(report.too_often, Vec::<String>::new(), "called more than max_attempts times");
    assert_eq!(report.unexplained, Vec::<String>::new(), "repeats that no crash explains");
    assert_eq!(report.undone, Vec::<String>::new(), "cancelled or redriven, and not so");
    assert!(report.cancelled > 0 && report.redriven > 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_everything_is_clean_and_loses_nothing() {
    let (cycles, acks) = (number("SENDOFF_CRASH_CYCLES", 4), number("SENDOFF_CRASH_ACKS", 400));
    let report = suite(cycles, acks, Ending::Terminate, &[]).await;
    tell(&format!("{cycles} stops by SIGTERM and {} during starts", report.cut_starts), &report);
    nothing_lost(&report, cycles * acks);
    assert!(report.cut_starts > 0, "{report:?}");
    assert_eq!(report.interrupted, 0, "what ran could end within the grace");
}

/// The negative control: an engine that answers before it commits must be caught by the very same suite.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_acknowledges_before_the_commit_is_caught() {
    let sin = [("SENDOFF_SABOTAGE", "acknowledge-before-commit")];
    let report = suite(number("SENDOFF_CRASH_CYCLES", 20).min(20), 300, Ending::Kill, &sin).await;
    println!("sabotaged: {} acknowledged, {} lost", report.acknowledged, report.lost.len());
    assert!(!report.lost.is_empty(), "the suite would not notice lost acknowledgements");
}
