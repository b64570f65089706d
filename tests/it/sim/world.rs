//! The world: clients, targets and a power switch, all decided by one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use sendoff::clock::{Chance, Clock, Now};
use sendoff::config::{Bound, Config, QueueConfig};
use sendoff::queue::command::{Accept, Accepted, Answer, Request, TaskAction};
use sendoff::queue::engine::{Inputs, Machine, Step};
use sendoff::queue::lease::{Settlement, Work};
use sendoff::queue::store::memory::MemoryStore;
use sendoff::queue::store::{ListQuery, Store, TaskFilter, digest};
use sendoff::task::limits::{PAGE_MAX, PAGE_ROWS_SCANNED_MAX};
use sendoff::task::{
    LaneName, Outcome, OutcomeClass, Priority, QueueName, RetryOverrides, Span, Status, TaskId, TaskKey, TaskRef,
    TaskSpec, TaskType, WallMs, When,
};

use super::oracle::Oracle;

/// Something that will happen at a moment of the world.
#[derive(Debug)]
enum Event {
    Arrive,
    Settle {
        process: u32,
        settlement: Settlement,
    },
    Meddle,
    /// Another configuration is put in force.
    Configure(Arc<Config>),
    Crash,
}

/// What one run showed.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) violations: Vec<String>,
    pub(super) trace_hash: u128,
    pub(super) accepted: u64,
    pub(super) attempts: u64,
    pub(super) crashes: u64,
}

/// See the module.
pub(super) struct World {
    chance: Chance,
    config: Config,
    store: Arc<MemoryStore>,
    machine: Option<Machine>,
    /// Milliseconds since the world began; the monotonic clock of every process counts from its own start.
    at: i64,
    process: u32,
    process_began: i64,
    agenda: BTreeMap<(i64, u64), Event>,
    sequence: u64,
    oracle: Oracle,
    known: Vec<TaskId>,
    trace: Vec<u8>,
    trace_hash: u128,
    sins: BTreeSet<&'static str>,
    printing: bool,
    report: Report,
}

const WALL_START: i64 = 1_790_000_000_000;
/// Where a manual clock starts.
const MONO_START: Duration = Duration::from_secs(1);
/// Real clocks never show a whole millisecond.
const ODD: Duration = Duration::from_micros(300);
const QUEUES: [&str; 3] = ["default", "slow", "strict"];

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let report = Report { violations: Vec::new(), trace_hash: 0, accepted: 0, attempts: 0, crashes: 0 };
        Self {
            chance: Chance::from_seed(seed),
            config: config(),
            store: Arc::new(MemoryStore::new()),
            machine: None,
            at: 0,
            process: 0,
            process_began: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            oracle: Oracle::default(),
            known: Vec::new(),
            trace: Vec::new(),
            trace_hash: 0,
            sins: BTreeSet::new(),
            printing: false,
            report,
        }
    }

    /// The same world with an engine that answers before it commits.
    pub(super) fn acknowledging_early(mut self) -> Self {
        self.sins.insert("acknowledge before the commit");
        self
    }

    /// Prints the trace while it runs.
    pub(super) fn printing(mut self) -> Self {
        self.printing = true;
        self
    }

    /// Lets arrivals and faults go on for `hours`, then waits until everything has ended.
    pub(super) fn run(mut self, hours: u64) -> Report {
        let faults_end = i64::try_from(hours * 3_600_000).unwrap();
        self.schedule_faults(faults_end);
        self.open();
        let patience = faults_end + 48 * 3_600_000;
        while let Some(next) = self.next_moment() {
            if next > patience || (self.agenda.is_empty() && self.all_ended()) {
                break;
            }
            self.at = self.at.max(next);
            self.moment();
        }
        let stored = self.stored();
        let at = self.now().wall;
        self.report.violations = std::mem::take(&mut self.oracle).finish(&stored, at);
        self.report.trace_hash = self.trace_hash;
        self.report
    }

    fn schedule_faults(&mut self, until: i64) {
        let bound = u64::try_from(until).unwrap();
        for _ in 0..300 + self.chance.below(200) {
            let at = self.chance.below(bound);
            self.plan(at, Event::Arrive);
        }
        for _ in 0..60 {
            let at = self.chance.below(bound);
            self.plan(at, Event::Meddle);
        }
        for _ in 0..20 {
            let at = self.chance.below(bound);
            let config = Arc::new(self.other_config());
            self.plan(at, Event::Configure(config));
        }
        // What was taken out is named again, so that everything comes to rest.
        self.plan(bound, Event::Configure(Arc::new(config())));
        for _ in 0..3 + self.chance.below(6) {
            let at = self.chance.below(bound);
            // A crash with nothing in the air shows nothing.
            for _ in 0..3 {
                self.plan(at, Event::Arrive);
            }
            self.plan(at, Event::Crash);
        }
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.agenda.insert((i64::try_from(at).unwrap(), self.sequence), event);
    }

    fn now(&self) -> Now {
        Now {
            wall: WallMs::new(WALL_START + self.at),
            mono: MONO_START + ODD + Duration::from_millis(u64::try_from(self.at - self.process_began).unwrap()),
        }
    }

    /// The next thing on the agenda, or what the engine itself wants to look at (at least once a second).
    fn next_moment(&self) -> Option<i64> {
        let agenda = self.agenda.keys().next().map(|(at, _)| *at);
        let now = self.now();
        let look = self.machine.as_ref()?.next_look(now);
        let since = |mono: Duration| mono.saturating_sub(MONO_START).as_nanos().div_ceil(1_000_000);
        let look = look.map(|mono| self.process_began + i64::try_from(since(mono)).unwrap());
        match (agenda, look) {
            (Some(agenda), Some(look)) => Some(agenda.min(look.max(self.at + 1))),
            (Some(agenda), None) => Some(agenda),
            (None, Some(look)) => Some(look.max(self.at + 1)),
            (None, None) => Some(self.at + 1_000),
        }
    }

    fn open(&mut self) {
        self.process += 1;
        self.process_began = self.at;
        let chance = Chance::from_seed(self.chance.draw());
        let store: Arc<dyn Store> = self.store.clone();
        let (clock, _hand) = Clock::manual(self.now().wall);
        let opened = Machine::open(store, &self.config, &clock, chance).now_or_never().expect("memory never waits");
        let (machine, events) = opened.expect("the store opens");
        for event in events {
            self.note(&format!("{event:?}"));
            self.oracle_hears(&event);
        }
        self.machine = Some(machine);
    }

    /// Everything that happens at this moment, in one turn of the engine.
    fn moment(&mut self) {
        let (mut inputs, mut asked, mut crash) = (Inputs::default(), Vec::new(), false);
        let mut configured = None;
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.at) {
            match entry.remove() {
                Event::Arrive => {
                    let spec = self.spec();
                    asked.push(Some(spec.clone()));
                    inputs.requests.push(Request::Accept(Box::new(Accept { specs: vec![spec], idempotency: None })));
                }
                Event::Settle { process, settlement } if process == self.process => {
                    self.oracle.over(settlement.key);
                    inputs.settlements.push(settlement);
                }
                Event::Settle { .. } => {}
                Event::Meddle => inputs.requests.extend(self.meddle().inspect(|_| asked.push(None))),
                Event::Configure(config) => {
                    asked.push(None);
                    inputs.requests.push(Request::Configure(Arc::clone(&config)));
                    configured = Some(config);
                }
                Event::Crash => crash = true,
            }
        }
        // The file is what it is, whether or not the process lives to read it: the next one starts with it.
        if let Some(config) = configured {
            self.config = Config::clone(&config);
        }
        self.turn(inputs, &asked, crash);
    }

    fn turn(&mut self, inputs: Inputs, asked: &[Option<TaskSpec>], crash: bool) {
        let now = self.now();
        let machine = self.machine.as_mut().expect("a process runs");
        let mut step = machine.decide(now, inputs).now_or_never().expect("memory never waits").expect("readable");
        let early = self.sins.contains("acknowledge before the commit");
        if early {
            self.answer(&mut step, asked);
        }
        // A crash strikes before the commit, between the commit and everything that follows it, or after all of it.
        let strikes = if crash { self.chance.below(3) } else { 3 };
        if strikes == 0 {
            return self.crash();
        }
        let machine = self.machine.as_mut().expect("a process runs");
        machine.commit(&mut step).now_or_never().expect("memory never waits").expect("commits");
        for event in std::mem::take(&mut step.events) {
            self.note(&format!("{event:?}"));
            self.oracle_hears(&event);
        }
        self.remember(&step, asked);
        if strikes == 1 {
            return self.crash();
        }
        if !early {
            self.answer(&mut step, asked);
        }
        for work in std::mem::take(&mut step.leases) {
            self.call(&work);
        }
        if strikes == 2 {
            self.crash();
        }
    }

    /// What the commit made true, whether or not anybody hears of it.
    fn remember(&mut self, step: &Step, asked: &[Option<TaskSpec>]) {
        for (ticket, answer) in &step.answers {
            let (Some(Some(spec)), Answer::Accept(Ok(Accepted::New { first, .. }))) = (asked.get(*ticket), answer)
            else {
                continue;
            };
            self.oracle.committed(first.header.key, not_before(spec, self.at), max_attempts(spec, &self.config));
        }
    }

    fn answer(&mut self, step: &mut Step, asked: &[Option<TaskSpec>]) {
        for (ticket, answer) in step.answers.drain(..) {
            let (Some(Some(spec)), Answer::Accept(Ok(Accepted::New { first, .. }))) = (asked.get(ticket), &answer)
            else {
                continue;
            };
            self.report.accepted += 1;
            self.known.push(first.header.id());
            let (due, most) = (not_before(spec, self.at), max_attempts(spec, &self.config));
            self.oracle.acknowledged(first.header.key, due, most);
        }
    }

    /// The target gets the request, and does with it what the seed says.
    fn call(&mut self, work: &Work) {
        let header = &work.header;
        self.report.attempts += 1;
        let (outcome, took) = self.behave();
        let sent = outcome.class != OutcomeClass::Released;
        self.oracle.leased(self.at, header.key, header.series, (self.process, sent));
        self.note(&format!("call {:?} attempt {} sent {sent}", header.key, header.attempts));
        let settlement = Settlement { key: header.key, epoch: header.epoch, outcome };
        let at = u64::try_from(self.at).unwrap() + took;
        self.plan(at, Event::Settle { process: self.process, settlement });
    }

    /// Other limits than those of the beginning, and sometimes a queue less.
    fn other_config(&mut self) -> Config {
        let mut config = config();
        config.workers.max_concurrent = 1 + u32::try_from(self.chance.below(40)).unwrap();
        config.hosts.defaults.max_concurrent = 1 + u32::try_from(self.chance.below(8)).unwrap();
        for limits in config.queues.values_mut() {
            limits.max_concurrent_dispatches = 1 + u32::try_from(self.chance.below(20)).unwrap();
            limits.weight = 1 + u32::try_from(self.chance.below(5)).unwrap();
            limits.max_dispatches_per_second =
                [None, Some(0.3), Some(5.0)][usize::try_from(self.chance.below(3)).unwrap()];
            if self.chance.below(2) == 0 {
                limits.order = sendoff::task::PriorityOrder::Aging(Span::from_secs(1 + self.chance.below(600)));
            }
        }
        if self.chance.below(3) == 0 {
            config.queues.remove(&queue("strict"));
        }
        config
    }

    fn behave(&mut self) -> (Outcome, u64) {
        let took = 1 + self.chance.below(2_000);
        let elapsed = Duration::from_millis(took);
        match self.chance.below(100) {
            0..=59 => (Outcome::answered(200, Bytes::new(), elapsed), took),
            60..=79 => (Outcome::answered(500, Bytes::new(), elapsed), took),
            80..=84 => {
                let asked = Outcome::answered(429, Bytes::new(), elapsed);
                (Outcome { retry_after: Some(Span::from_secs(self.chance.below(120))), ..asked }, took)
            }
            85..=87 => (Outcome::answered(404, Bytes::new(), elapsed), took),
            88..=93 => (Outcome::without_answer(OutcomeClass::Connect, "refused", elapsed), took),
            94..=95 => (Outcome::without_answer(OutcomeClass::Released, "not sent", elapsed), took),
            _ => (Outcome::without_answer(OutcomeClass::TimeoutBeforeHeaders, "hung", elapsed), 30_000),
        }
    }

    /// Somebody cancels, runs, redrives, purges a task, or pauses or resumes a queue.
    fn meddle(&mut self) -> Option<Request> {
        let kind = self.chance.below(8);
        let pick = self.chance.below(self.known.len().max(1) as u64);
        if kind >= 6 {
            // Only the first half of the hour pauses, so that everything comes to rest.
            let pause = kind == 6 && self.at < 1_800_000;
            return Some(Request::Pause(queue("slow"), pause));
        }
        let id = *self.known.get(usize::try_from(pick).unwrap())?;
        let action = match kind {
            0 | 1 => TaskAction::Cancel,
            2 | 3 => TaskAction::Run,
            _ => TaskAction::Redrive,
        };
        if action == TaskAction::Run {
            self.oracle.asked_at_once(id.key);
        }
        Some(Request::Task(action, TaskRef::by_id(id)))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the oracle listens to five facts of many")]
    fn oracle_hears(&mut self, event: &sendoff::logging::event::Event) {
        use sendoff::logging::event::Event as E;
        match event {
            // Whatever the jitter, nothing is ever sooner than min_backoff.
            E::RetryScheduled(fact) => self.oracle.retry_not_before(fact.id.key, self.at + 1_000),
            E::TaskEnded(fact) => self.oracle.ended(fact.id.key, fact.status),
            E::DeadLettered(fact) => self.oracle.ended(fact.id.key, Status::Dead),
            E::Redriven(fact) => self.oracle.redriven(fact.id.key),
            E::PutAhead(fact) => self.oracle.asked_at_once(fact.id.key),
            _ => {}
        }
    }

    fn crash(&mut self) {
        self.report.crashes += 1;
        self.note("crash");
        self.oracle.crashed();
        self.machine = None;
        self.store = Arc::new(self.store.crash());
        self.at += i64::try_from(self.chance.below(20_000)).unwrap();
        self.open();
    }

    fn spec(&mut self) -> TaskSpec {
        let when = match self.chance.below(4) {
            0 => When::Delay(Span::from_secs(self.chance.below(600))),
            1 => {
                let ahead = i64::try_from(self.chance.below(600_000)).unwrap();
                When::At(WallMs::new(WALL_START + self.at + ahead))
            }
            _ => When::Now,
        };
        let payload = Bytes::from_static(b"{}");
        TaskSpec {
            name: None,
            task_type: TaskType::parse("http_request").unwrap(),
            queue: queue(QUEUES[usize::try_from(self.chance.below(3)).unwrap()]),
            lane: LaneName::new(&format!("http://host{}:80", self.chance.below(5))),
            priority: Priority::new(self.chance.below(10)).unwrap(),
            when,
            expires_at: None,
            timeout: None,
            labels: Vec::new(),
            retry: RetryOverrides {
                max_attempts: Some(1 + u32::try_from(self.chance.below(6)).unwrap()),
                ..RetryOverrides::default()
            },
            digest: digest(&payload),
            payload,
        }
    }

    fn all_ended(&self) -> bool {
        self.stored().values().all(|status| status.has_ended())
    }

    fn stored(&self) -> BTreeMap<TaskKey, Status> {
        let mut all = BTreeMap::new();
        let mut query =
            ListQuery { filter: TaskFilter::default(), before: None, limit: PAGE_MAX, scan_max: PAGE_ROWS_SCANNED_MAX };
        loop {
            let page = self.store.list(query.clone()).now_or_never().expect("memory never waits").expect("readable");
            all.extend(page.rows.iter().map(|row| (row.header.key, row.header.status)));
            query.before = page.next;
            if query.before.is_none() {
                return all;
            }
        }
    }

    /// Adds a line to the trace: what differs between two runs of one seed shows in its hash.
    fn note(&mut self, what: &str) {
        let line = format!("{} {what}", self.at);
        if self.printing {
            println!("{line}");
        }
        self.trace.clear();
        self.trace.extend_from_slice(&self.trace_hash.to_be_bytes());
        self.trace.extend_from_slice(line.as_bytes());
        self.trace_hash = digest(&self.trace);
    }
}

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

fn not_before(spec: &TaskSpec, accepted: i64) -> i64 {
    match spec.when {
        When::Now => accepted,
        When::Delay(delay) => accepted + i64::try_from(delay.as_millis()).unwrap(),
        When::At(at) => at.get() - WALL_START,
    }
}

fn max_attempts(spec: &TaskSpec, config: &Config) -> u32 {
    spec.retry.max_attempts.unwrap_or(config.queue_defaults.retry.max_attempts)
}

fn config() -> Config {
    let mut config = Config::default();
    // Everything is kept: the oracle looks at all of it in the end.
    let keep = Bound { age: None, count: None, bytes: None };
    let defaults = QueueConfig { max_concurrent_dispatches: 20, retention: keep, ..QueueConfig::default() };
    config.workers.max_concurrent = 40;
    config.hosts.defaults.max_concurrent = 8;
    config.queues = BTreeMap::from([
        (queue("default"), defaults.clone()),
        (queue("slow"), QueueConfig { max_dispatches_per_second: Some(0.5), max_burst_size: 3, ..defaults.clone() }),
        (queue("strict"), QueueConfig { order: sendoff::task::PriorityOrder::Strict, ..defaults }),
    ]);
    config
}
