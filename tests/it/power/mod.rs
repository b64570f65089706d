//! Power cuts: the real server on a volume that loses its power under load. Nothing acknowledged before a cut is lost by
//! it, what had succeeded stays so, and every request can be repeated.
//!
//! `SENDOFF_POWER_CUTS=N` runs longer forms; `SENDOFF_POWER_SEED=N` repeats the moments of the cuts as far as the machine
//! does. A cut is the file system's own shutdown without a flush: what the kernel had not been made to write is gone.

pub(crate) mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sendoff::clock::{Chance, Clock};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::counter::Counter;
use crate::support::process::{Process, log_of, spawn};
use crate::support::suites::number;
use crate::support::volume::{Volume, available};
use ledger::{Ledger, Order, Report};

const CLIENTS: u64 = 16;
/// Cuts that one volume goes through: then everything on it is compared a last time, and a new one begins.
const CUTS_OF_A_VOLUME: u64 = 50;
/// Acknowledgements after which the power goes, at most.
const ACKNOWLEDGED_MAX: u64 = 150;
/// How much later than an acknowledgement it goes, at most.
const MOMENT_MAX_US: u64 = 5_000;
/// How long after the beginning of a start it goes, at most.
const START_MAX_US: u64 = 120_000;

type Environment<'a> = &'a [(&'a str, &'a str)];

/// One volume with its server and the clock and chance that decide over it.
struct Station<'a> {
    volume: Volume,
    chance: &'a mut Chance,
    clock: Clock,
    environment: Environment<'a>,
    target: &'a Arc<Counter>,
    report: &'a mut Report,
}

impl Station<'_> {
    /// A start that may be cut off, and another, until one comes to its end.
    async fn start(&mut self) -> Process {
        while self.chance.below(4) == 0 {
            let mut child = spawn(self.volume.dir(), self.environment);
            self.wait_at_most(START_MAX_US).await;
            self.volume.cut();
            child.kill().expect("it can be killed");
            child.wait().expect("it is gone");
            self.volume.remount(self.chance.below(2) == 0);
            self.report.starts_cut += 1;
        }
        Process::start(self.volume.dir(), self.environment)
    }

    /// Lets a random moment pass: this is when the power goes, and nobody waits for anything.
    async fn wait_at_most(&mut self, us: u64) {
        self.clock.sleep(Duration::from_micros(self.chance.below(us))).await;
    }

    /// Load, a cut at a random moment, a start, a comparison.
    async fn cycle(&mut self, process: Process, name: &str) -> (Process, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::default());
        let mut clients = JoinSet::new();
        for lane in 0..CLIENTS {
            let (client, ledger, target) = (process.client.clone(), Arc::clone(&ledger), Arc::clone(self.target));
            let key = format!("{name}-{lane}");
            clients.spawn(async move { order_until_gone(&client, &ledger, &target, &key).await });
        }
        tokio::select! {
            () = ledger.reaches(self.chance.below(ACKNOWLEDGED_MAX)) => {}
            () = all_gone(&mut clients) => panic!("the server went by itself: {}", log_of(self.volume.dir())),
        }
        self.wait_at_most(MOMENT_MAX_US).await;
        ledger.close();
        self.volume.cut();
        process.kill();
        all_gone(&mut clients).await;
        self.volume.remount(self.chance.below(2) == 0);
        self.report.cuts += 1;
        let process = self.start().await;
        ledger.compare(&process.client, self.report).await;
        (process, ledger)
    }

    /// Waits until every task has ended, and holds everything against all ledgers.
    async fn settle(&mut self, process: Process, ledgers: &[Arc<Ledger>]) {
        let client = &process.client;
        let tasks: BTreeMap<_, _> = loop {
            let tasks = client.all_tasks().await;
            let Some(waiting) = tasks.iter().find(|task| task["processed_at"].is_null()) else {
                break tasks.into_iter().map(|task| (task["task_id"].as_str().unwrap().to_owned(), task)).collect();
            };
            client.get(&format!("/tasks/{}?wait=60s", waiting["task_id"].as_str().unwrap())).await;
        };
        for ledger in ledgers {
            ledger.settle(&tasks, self.target, self.report);
        }
        process.terminate(self.volume.dir());
    }
}

/// Orders tasks until the server is gone, and follows some to their end.
async fn order_until_gone(client: &Client, ledger: &Ledger, target: &Counter, name: &str) {
    for n in 0_u64.. {
        let order = Order::new(format!("{name}-{n}"), target.url());
        let Ok(placed) = ledger.place(client, order).await else { return };
        let followed = match placed.filter(|_| n.is_multiple_of(3)) {
            Some(id) => ledger.follow(client, &id, target).await,
            None => Ok(()),
        };
        if followed.is_err() {
            return;
        }
    }
}

async fn all_gone(clients: &mut JoinSet<()>) {
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client only ever ends");
    }
}

/// Runs so many cuts, or fewer once something is lost.
async fn suite(cuts: u64, seed: u64, environment: Environment<'_>) -> Report {
    let (mut report, mut chance) = (Report::default(), Chance::from_seed(seed));
    let target = Arc::new(Counter::start().await);
    while report.cuts < cuts && report.lost.is_empty() {
        let until = (report.cuts + CUTS_OF_A_VOLUME).min(cuts);
        let (volume, clock) = (Volume::new(), Clock::system());
        let (chance, report) = (&mut chance, &mut report);
        let mut station = Station { volume, chance, clock, environment, target: &target, report };
        let (mut process, mut ledgers) = (station.start().await, Vec::new());
        while station.report.cuts < until && station.report.lost.is_empty() {
            let name = format!("{seed}-{}", station.report.cuts);
            let (next, ledger) = station.cycle(process, &name).await;
            process = next;
            ledgers.push(ledger);
        }
        station.settle(process, &ledgers).await;
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_power_cut() {
    if !available("power") {
        return;
    }
    let (cuts, seed) = (number("SENDOFF_POWER_CUTS", 60), number("SENDOFF_POWER_SEED", 1));
    println!("SENDOFF_POWER_CUTS={cuts} SENDOFF_POWER_SEED={seed}");
    let report = suite(cuts, seed, &[]).await;
    assert_eq!(report.lost, Vec::<String>::new(), "acknowledged and lost");
    assert_eq!(report.undone, Vec::<String>::new(), "had ended, and was begun again");
    assert_eq!(report.mistaken, Vec::<String>::new(), "repeats that did not find their task");
    assert!(report.cuts == cuts && report.acknowledged > 0, "{report:?}");
    println!(
        "FIGURES power: {cuts} cuts under load and {} during starts, {} acknowledged, {} seen as succeeded, {} requests \
         repeated, 0 lost, seed {seed}",
        report.starts_cut, report.acknowledged, report.succeeded, report.repeated
    );
}

/// The negative control: a store that syncs at checkpoints only must be caught by the very same suite.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_sync_its_commits_is_caught() {
    if !available("power") {
        return;
    }
    let report = suite(10, 1, &[("SENDOFF_SABOTAGE", "synchronous-normal")]).await;
    println!("FIGURES power: sabotaged: {} cuts, {} lost", report.cuts, report.lost.len());
    assert!(!report.lost.is_empty(), "the suite would not notice lost acknowledgements");
}
