//! The world: clients, targets, a disk and a power switch, all decided by one seed, around the real engine.

mod agenda;
mod trace;
mod turn;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sendoff::clock::{Chance, Clock, Now};
use sendoff::config::Config;
use sendoff::queue::command::Request;
use sendoff::queue::engine::{Inputs, Machine};
use sendoff::queue::lease::{Settlement, Work};
use sendoff::queue::store::memory::{CommitFault, MemoryStore, Written};
use sendoff::queue::store::{ListQuery, Pressure, Store, TaskFilter};
use sendoff::task::limits::{PAGE_MAX, PAGE_ROWS_SCANNED_MAX};
use sendoff::task::{Body, Header, Outcome, TaskKey, WallMs};

use super::arrivals::{Act, Clients, Letter, QUEUES, queue, wish_of};
use super::faults::{self, Fault, Trouble, config, limits};
use super::oracle::{Fact, Moment, Oracle, Record};
use super::targets::{Targets, heard};
use agenda::{Agenda, Event};
use trace::Trace;

/// How large a world is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hours: i64,
    /// Requests to accept tasks; one in twenty has several.
    pub(crate) letters: u64,
}

/// An hour of about 800 tasks, and a day of about 20,000.
pub(crate) const HOUR: Size = Size { hours: 1, letters: 700 };
pub(crate) const DAY: Size = Size { hours: 24, letters: 17_000 };

/// What one run showed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) trace_hash: u64,
    pub(crate) acknowledged: u64,
    pub(crate) attempts: u64,
    pub(crate) crashes: u64,
    /// Commits that were slow, refused or of unknown outcome.
    pub(crate) troubles: u64,
    pub(crate) jumps: u64,
    pub(crate) turns: u64,
}

impl Report {
    pub(super) fn add(&mut self, other: Self) {
        self.violations.extend(other.violations);
        self.acknowledged += other.acknowledged;
        self.attempts += other.attempts;
        self.crashes += other.crashes;
        self.troubles += other.troubles;
        self.jumps += other.jumps;
        self.turns += other.turns;
    }
}

/// See the module.
pub(crate) struct World {
    size: Size,
    chance: Chance,
    config: Config,
    store: Arc<MemoryStore>,
    machine: Option<Machine>,
    /// Milliseconds since the world began; the monotonic clock of every process counts from its own start.
    at: i64,
    /// By how much the server's wall clock is ahead of the right time.
    skew: i64,
    process: u32,
    process_began: i64,
    agenda: Agenda,
    clients: Clients,
    targets: Targets,
    trouble: Option<Trouble>,
    /// Whether the commit that ends in nobody knows what takes place, once it is made to.
    applies: bool,
    /// The request that a target is at, for each task that runs.
    calls: BTreeMap<TaskKey, (i64, u64)>,
    oracle: Oracle,
    trace: Trace,
    acknowledges_early: bool,
    report: Report,
}

const WALL_START: i64 = 1_790_000_000_000;
const HOUR_MS: i64 = 3_600_000;
/// Where a manual clock starts.
const MONO_START: Duration = Duration::from_secs(1);
/// Real clocks never show a whole millisecond.
const ODD: Duration = Duration::from_micros(300);
/// The engine never sleeps longer without looking again.
const LOOK_AGAIN: i64 = 1_000;
/// How long after the last fault everything must have ended. A task that a wall clock set back by a day holds back
/// after a restart is the slowest.
const REST: i64 = 49 * HOUR_MS;
/// So many turns without time moving have told the oracle enough.
const TURNS_AT_ONCE_MAX: u32 = 200;

impl World {
    pub(crate) fn new(seed: u64, size: Size) -> Self {
        let mut chance = Chance::from_seed(seed);
        let mut stream = || Chance::from_seed(chance.draw());
        let (clients, targets, faults, own) = (stream(), stream(), stream(), stream());
        let store = Arc::new(MemoryStore::new());
        store.watch();
        let mut world = Self {
            size,
            chance: own,
            config: config(),
            store,
            machine: None,
            at: 0,
            skew: 0,
            process: 0,
            process_began: 0,
            agenda: Agenda::default(),
            clients: Clients::new(clients),
            targets: Targets::new(targets),
            trouble: None,
            applies: false,
            calls: BTreeMap::new(),
            oracle: Oracle::default(),
            trace: Trace::default(),
            acknowledges_early: false,
            report: Report::default(),
        };
        world.schedule(faults);
        world
    }

    /// The same world around an engine that answers before it commits.
    pub(super) fn acknowledging_early(mut self) -> Self {
        self.acknowledges_early = true;
        self
    }

    /// Prints the trace while it runs.
    pub(super) fn printing(mut self) -> Self {
        self.trace.print();
        self
    }

    /// Lets arrivals and faults go on for the world's time, then waits until everything has ended.
    pub(crate) fn run(mut self) -> Report {
        self.open();
        let end = self.end();
        let mut turns_at_once = 0;
        while self.at <= end + REST && !(self.at > end && self.agenda.is_empty() && self.oracle.live() == 0) {
            let next = self.next_moment();
            turns_at_once = if next > self.at { 0 } else { turns_at_once + 1 };
            self.at = next.max(self.at + i64::from(turns_at_once > TURNS_AT_ONCE_MAX));
            self.turn();
        }
        self.count_again();
        let found = self.records();
        self.report.violations.extend(std::mem::take(&mut self.oracle).finish(&found));
        self.report.trace_hash = self.trace.hash();
        self.report
    }

    fn end(&self) -> i64 {
        self.size.hours * HOUR_MS
    }

    fn schedule(&mut self, chance: Chance) {
        let end = self.end();
        let bound = u64::try_from(end).unwrap();
        let mut left = self.size.letters;
        while left > 0 {
            let at = i64::try_from(self.chance.below(bound)).unwrap();
            // Some come alone, some in a crowd.
            let crowd = if self.chance.below(40) == 0 { 30.min(left) } else { 1 };
            for _ in 0..crowd {
                self.agenda.plan(at, Event::Arrive);
            }
            left -= crowd;
        }
        for _ in 0..self.size.letters / 8 {
            let at = i64::try_from(self.chance.below(bound)).unwrap();
            self.agenda.plan(at, Event::Act);
        }
        for (at, fault) in faults::plan(chance, end, self.size.hours > 1) {
            // A crash with nothing in the air shows little.
            let crowd = if matches!(fault, Fault::Crash) { 3 } else { 0 };
            for _ in 0..crowd {
                self.agenda.plan(at, Event::Arrive);
            }
            self.agenda.plan(at, Event::Fault(fault));
        }
        // The first may get lost with a process that dies of a last fault, and with it the queues it resumes.
        for minute in 0..3 {
            self.agenda.plan(end + minute * 60_000, Event::Calm);
        }
    }

    fn wall(&self) -> WallMs {
        WallMs::new(WALL_START + self.at + self.skew)
    }

    fn now(&self) -> Now {
        let mono = Duration::from_millis(u64::try_from(self.at - self.process_began).unwrap());
        Now { wall: self.wall(), mono: MONO_START + ODD + mono }
    }

    fn moment(&self) -> Moment {
        Moment { at: self.at, wall: self.wall().get() }
    }

    /// The next thing on the agenda, or what the engine itself wants to look at: a moment of the world, not before now.
    fn next_moment(&self) -> i64 {
        let calm = self.at > self.end() + HOUR_MS;
        let again = self.at + if calm { 60 * LOOK_AGAIN } else { LOOK_AGAIN };
        let look = self.machine.as_ref().and_then(|machine| machine.next_look(self.now()));
        let look = look.map(|mono| {
            let since = mono.saturating_sub(MONO_START + ODD).as_nanos().div_ceil(1_000_000);
            self.process_began + i64::try_from(since).unwrap()
        });
        self.agenda.next().into_iter().chain(look).chain([again]).min().map_or(again, |next| next.max(self.at))
    }

    /// A process starts, again and again until one lives through its own start.
    fn open(&mut self) {
        loop {
            self.process += 1;
            self.process_began = self.at;
            let now = self.moment();
            let found = self.records();
            self.oracle.hear(now, Fact::Found(found));
            self.oracle.hear(now, Fact::Opened(limits(&self.config)));
            if let Some(Trouble::Unknown { applied }) = self.trouble.take() {
                self.strike(applied);
            }
            let chance = Chance::from_seed(self.chance.draw());
            let store: Arc<dyn Store> = self.store.clone();
            let (clock, _hand) = Clock::manual(self.wall());
            let opened = Machine::open(store, &self.config, &clock, chance).now_or_never().expect("memory never waits");
            self.witness(now);
            match opened {
                Ok((machine, events)) => {
                    self.machine = Some(machine);
                    return events.iter().for_each(|event| self.trace.note(self.at, &format!("{event:?}")));
                }
                Err(fatal) => self.die(&format!("{fatal:?}")),
            }
        }
    }

    /// Lets the next commit end in nobody knows what.
    fn strike(&mut self, applied: bool) {
        self.report.troubles += 1;
        self.applies = applied;
        self.store.fail_next(if applied { CommitFault::UnknownApplied } else { CommitFault::UnknownLost });
    }

    fn crash(&mut self, why: &str) {
        self.die(why);
        self.at += i64::try_from(self.chance.below(20_000)).unwrap();
        // Now and then the next process dies in the middle of its own start.
        if self.chance.below(6) == 0 {
            self.trouble = Some(Trouble::Unknown { applied: self.chance.below(2) == 0 });
        }
        self.open();
    }

    /// The process is gone, and with it whatever was not synced.
    fn die(&mut self, why: &str) {
        self.report.crashes += 1;
        self.trace.note(self.at, &format!("crash: {why}"));
        self.oracle.hear(self.moment(), Fact::Crashed);
        self.machine = None;
        self.calls.clear();
        self.store = Arc::new(self.store.crash());
    }

    /// What commits wrote, whether or not anybody hears of it.
    fn witness(&mut self, now: Moment) {
        for written in self.store.written() {
            let fact = match written {
                Written::Task(header, body) => Fact::Written(record(&header, &body)),
                Written::Removed(key) => Fact::Removed(key),
            };
            self.oracle.hear(now, fact);
        }
    }

    /// Everything the store holds.
    fn records(&self) -> Vec<Record> {
        let mut all = Vec::new();
        let mut query =
            ListQuery { filter: TaskFilter::default(), before: None, limit: PAGE_MAX, scan_max: PAGE_ROWS_SCANNED_MAX };
        loop {
            let page = self.store.list(query.clone()).now_or_never().expect("memory never waits").expect("readable");
            all.extend(page.rows.iter().map(|row| record(&row.header, row.body.as_ref().expect("sound"))));
            query.before = page.next;
            if query.before.is_none() {
                return all;
            }
        }
    }

    /// The counts that the engine keeps are those of the store.
    fn count_again(&mut self) {
        let Some(machine) = &self.machine else { return };
        let mut told = [0; 8];
        for view in machine.views(None) {
            told.iter_mut().zip(view.tasks).for_each(|(sum, count)| *sum += count);
        }
        let mut counted = [0; 8];
        self.records().iter().for_each(|record| counted[record.status.index()] += 1);
        let ended = |counts: [u64; 8]| counts[4..].to_vec();
        if ended(told) != ended(counted) {
            self.report.violations.push(format!("the engine counts {told:?}, the store holds {counted:?}"));
        }
    }
}

fn record(header: &Header, body: &Body) -> Record {
    Record {
        key: header.key,
        ask: wish_of(&body.payload),
        status: header.status,
        series: header.series,
        attempts: header.attempts,
        epoch: header.epoch,
        due: header.due.get(),
        on_wall: header.due_on_wall,
        ahead: header.ahead,
    }
}
