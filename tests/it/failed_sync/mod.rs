//! Failed writes and syncs: the n-th call on the store's files fails with EIO, whichever it is. Nothing is acknowledged
//! after it, the server ends with exit code 74 and says why, and neither what was acknowledged before nor what is after
//! the restart is lost when the power goes. Where it is a call on the audit log, that is told and tasks go on.
//!
//! `SENDOFF_FAILED_SYNC_POINTS=N` is how many calls of each errand fail in turn, spread over all kinds of them; 0 is every
//! one. The calls are counted by a library that is preloaded into the server (`refuse.c`): everything that the store writes
//! goes through libc. What a real disk does after a failed sync is shown with one that has no place left.

mod ground;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::power::ledger::{Order, id_of};
use crate::support::client::Client;
use crate::support::counter::Counter;
use crate::support::process::{Process, log_of};
use crate::support::suites::{number, required, skipped};
use crate::support::volume::{Volume, available, has};
use ground::Ground;

const DISK_FAILED: Option<i32> = Some(74);
/// How the sync of the store's directory is listed.
const DIRECTORY_SYNC: &str = "fsync / ";

/// What is done while a call fails.
#[derive(Clone, Copy)]
struct Errand {
    name: &'static str,
    orders: usize,
    /// Bytes in each body.
    padding: usize,
    /// Whether each task is followed to its end before the next.
    followed: bool,
}

/// Few small tasks, one after the other: the log is written back at the start and at the stop.
const SMALL: Errand = Errand { name: "small", orders: 6, padding: 0, followed: true };
/// So much that the log is written back (from 16 MiB on) while more arrives.
const LARGE: Errand = Errand { name: "large", orders: 26, padding: 900_000, followed: false };

/// What the client of an errand was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<String>,
    succeeded: BTreeSet<String>,
    /// Acknowledged, although it was sent after the error.
    after_the_error: Vec<String>,
}

#[derive(Default)]
struct Report {
    calls: usize,
    /// Which call is the store's own sync of its directory.
    directory_sync: usize,
    points: usize,
    /// Points that the errand did not come to: it never makes exactly the same calls.
    missed: usize,
    acknowledged: usize,
    faults: Vec<String>,
}

async fn run(errand: Errand, ground: &Ground, client: &Client, target: &Counter) -> Told {
    let mut told = Told::default();
    for n in 0..errand.orders {
        let mut order = Order::new(format!("{}-{n}", errand.name), target.url());
        order.body["payload"]["body"]["padding"] = json!("x".repeat(errand.padding));
        let over = ground.is_over();
        let Ok(answer) = order.send(client).await else { break };
        let Some(id) = id_of(&answer) else { continue };
        if over {
            told.after_the_error.push(id.clone());
        }
        told.acknowledged.push(id.clone());
        if errand.followed && has_succeeded(client, &id).await {
            told.succeeded.insert(id);
        }
    }
    told
}

async fn has_succeeded(client: &Client, id: &str) -> bool {
    let request = client.request(reqwest::Method::GET, &format!("/tasks/{id}?wait=30s"));
    client.send(request).await.is_ok_and(|answer| answer.body["status"] == "succeeded")
}

/// What of this the server does not stand by.
async fn missing(told: &Told, client: &Client) -> Vec<String> {
    let mut missing = Vec::new();
    for id in &told.acknowledged {
        let answer = client.get(&format!("/tasks/{id}")).await;
        if answer.status != 200 {
            missing.push(format!("{id} was acknowledged and is lost"));
        } else if told.succeeded.contains(id) && answer.body["status"] != "succeeded" {
            missing.push(format!("{id} had succeeded and is {}", answer.body["status"]));
        }
    }
    missing
}

/// The errand with its n-th call failing, and what comes after it.
async fn point(errand: Errand, n: usize, ground: &mut Ground, target: &Counter, report: &mut Report) {
    let (told, status) = match Process::ready_or_not(ground.start(n), ground.dir()) {
        Ok(process) => {
            let told = run(errand, ground, &process.client, target).await;
            process.signal("TERM");
            (told, process.wait())
        }
        Err(mut child) => (Told::default(), child.wait().expect("it ends")),
    };
    let call = ground.failed();
    // SQLite syncs the directory on its own, and tells nobody when it fails; the store has done it before.
    let is_idle = call.as_ref().is_some_and(|call| call.starts_with(DIRECTORY_SYNC) && n > report.directory_sync);
    // The audit log is not the store: the line that is missing in it is told, and tasks go on.
    let is_audit = call.as_ref().is_some_and(|call| call.contains("/audit.log"));
    let stops = call.is_some() && !is_idle && !is_audit;
    report.points += 1;
    report.missed += usize::from(call.is_none());
    let call = format!("{} call {n}, {}", errand.name, call.as_deref().unwrap_or("never made").trim_end());
    let mut faults = Vec::new();
    let log = log_of(ground.dir());
    if status.code() != if stops { DISK_FAILED } else { Some(0) } {
        faults.push(format!("ended with {status}; its log: {log}"));
    }
    if is_audit && !log.contains("\"event\":\"audit_failed\"") {
        faults.push(format!("nobody was told: {log}"));
    }
    if stops {
        if !["disk I/O error", "Input/output error"].iter().any(|why| log.contains(why)) {
            faults.push(format!("the log does not say why: {log}"));
        }
        faults.extend(told.after_the_error.iter().map(|id| format!("{id} was acknowledged after the error")));
    }
    // Every second time the power goes before anybody has started it again.
    if n.is_multiple_of(2) {
        ground.lose_power(None);
    }
    let process = Process::start(ground.dir(), &[]);
    faults.extend(missing(&told, &process.client).await);
    let again = run(Errand { name: "again", orders: 3, padding: 0, followed: true }, ground, &process.client, target);
    let again = again.await;
    ground.lose_power(Some(process));
    let process = Process::start(ground.dir(), &[]);
    for told in [&told, &again] {
        report.acknowledged += told.acknowledged.len();
        faults.extend(missing(told, &process.client).await);
    }
    process.kill();
    report.faults.extend(faults.into_iter().map(|fault| format!("{call}: {fault}")));
}

/// So many of these calls: of each kind the first, the last, the one in the middle, and so on; 0 is all of them.
fn spread(calls: &[String], points: usize) -> BTreeSet<usize> {
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        kinds.entry(call).or_default().push(at + 1);
    }
    let points = if points == 0 { calls.len() } else { points.min(calls.len()) };
    let mut chosen = BTreeSet::new();
    // Halves, quarters, eighths, …: the places between the first and the last that were not looked at yet.
    let halvings = (1..usize::BITS - 1).map(|bits| 1_usize << bits);
    let places = halvings.flat_map(|parts| (1..parts).step_by(2).map(move |part| (part, parts)));
    for (part, parts) in [(0, 1), (1, 1)].into_iter().chain(places) {
        for kind in kinds.values() {
            if chosen.len() == points {
                return chosen;
            }
            chosen.insert(kind[(kind.len() - 1) * part / parts]);
        }
    }
    chosen
}

async fn suite(errand: Errand, points: usize) {
    let target = Counter::start().await;
    let mut ground = Ground::new("failed_sync: power cuts", &target).await;
    let process = Process::ready(ground.start(0), ground.dir());
    let told = run(errand, &ground, &process.client, &target).await;
    assert_eq!(told.acknowledged.len(), errand.orders, "nothing has failed");
    process.terminate(ground.dir());
    let calls = ground.calls();
    let directory_sync = calls.iter().position(|call| call.starts_with(DIRECTORY_SYNC)).expect("it is synced") + 1;
    let mut report = Report { calls: calls.len(), directory_sync, ..Report::default() };
    for n in spread(&calls, points) {
        point(errand, n, &mut ground, &target, &mut report).await;
    }
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.missed * 2 <= report.points, "{} of {} calls were never made", report.missed, report.points);
    println!(
        "FIGURES failed_sync: {} errand: {} of {} calls failed in turn, {} acknowledged, 0 after the error, 0 lost, {}",
        errand.name,
        report.points - report.missed,
        report.calls,
        report.acknowledged,
        ground.power()
    );
}

/// How many calls fail: three quarters in the small errand, the rest in the large one. Who asks for every call gets it.
fn points(errand: Errand) -> Option<usize> {
    if !has("cc", "--version") {
        skipped("failed_sync", "there is no C compiler");
        return None;
    }
    let all = usize::try_from(number("SENDOFF_FAILED_SYNC_POINTS", if required() { 40 } else { 3 })).unwrap();
    Some(if errand.followed { all - all / 4 } else { all / 4 }).filter(|points| all == 0 || *points > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_may_fail_unnoticed_in_a_small_errand() {
    if let Some(points) = points(SMALL) {
        suite(SMALL, points).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_may_fail_unnoticed_while_the_log_is_written_back() {
    if let Some(points) = points(LARGE) {
        suite(LARGE, points).await;
    }
}

#[test]
fn points_are_spread_over_all_kinds_of_calls() {
    let calls: Vec<String> = "aaaaaaaaabaac".chars().map(String::from).collect();
    assert_eq!(spread(&calls, 3), BTreeSet::from([1, 10, 13]));
    assert_eq!(spread(&calls, 5), BTreeSet::from([1, 6, 10, 12, 13]));
    assert_eq!(spread(&calls, 0).len(), calls.len());
}

/// A disk without place refuses a sync for real, and the kernel then takes the pages for written. Gives what is lost of
/// what was acknowledged before it and after the restart.
async fn lost_after_a_real_refusal(environment: &[(&str, &str)]) -> Vec<String> {
    let target = Counter::start().await;
    let mut volume = Volume::thin();
    let process = Process::start(volume.dir(), &[]);
    let mut acknowledged = Vec::new();
    let filler = volume.use_up();
    for n in 0_u64.. {
        let mut order = Order::new(format!("before-{n}"), target.url());
        order.body["payload"]["body"]["padding"] = json!("x".repeat(100_000));
        match order.send(&process.client).await.ok().as_ref().and_then(id_of) {
            Some(id) => acknowledged.push(id),
            None => break,
        }
    }
    assert_eq!(process.wait().code(), DISK_FAILED, "{}", log_of(volume.dir()));
    drop(filler);
    let process = Process::start(volume.dir(), environment);
    for n in 0..20 {
        let order = Order::new(format!("after-{n}"), target.url());
        acknowledged.push(id_of(&order.send(&process.client).await.unwrap()).expect("acknowledged"));
    }
    volume.cut();
    process.kill();
    volume.remount(true);
    let process = Process::start(volume.dir(), &[]);
    let told = Told { acknowledged, ..Told::default() };
    missing(&told, &process.client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_refused_a_sync_loses_nothing_after_the_restart() {
    if available("failed_sync: a disk without place") {
        assert_eq!(lost_after_a_real_refusal(&[]).await, Vec::<String>::new());
        println!("FIGURES failed_sync: a disk that refused a sync for real, 0 lost");
    }
}

/// The negative control: a start that takes the log as it finds it must be caught.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_does_not_write_the_log_back_is_caught() {
    if available("failed_sync: a disk without place") {
        let lost = lost_after_a_real_refusal(&[("SENDOFF_SABOTAGE", "keep-log-at-start")]).await;
        println!("FIGURES failed_sync: sabotaged: {} lost", lost.len());
        assert!(!lost.is_empty(), "the suite would not notice lost acknowledgements");
    }
}
