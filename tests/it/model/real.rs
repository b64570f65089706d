//! The real engine over a real store, in virtual time, spoken to in the words of [`super::steps`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sendoff::clock::{Chance, Clock, ManualClock};
use sendoff::config::{Bound, Config, HostConfig, QueueConfig};
use sendoff::queue::command::{Accept, AcceptError, Accepted, Answer, Idempotency, PublicId, Request, TaskActionError};
use sendoff::queue::engine::{Inputs, Machine};
use sendoff::queue::lease::Settlement;
use sendoff::queue::store::{
    ListQuery, MemoryStore, Row, SqliteOptions, SqliteStore, Store, TaskFilter, TaskRecord, digest,
};
use sendoff::task::limits::{PAGE_MAX, PAGE_ROWS_SCANNED_MAX};
use sendoff::task::outcome::DeadReason;
use sendoff::task::{
    LaneName, Outcome, OutcomeClass, Priority, PriorityOrder, QueueName, RetryOverrides, Span, TaskId, TaskKey,
    TaskName, TaskRef, TaskSpec, TaskType, WallMs,
};

use super::steps::{Came, Draft, MOST, QUEUES, Reply, Seen, Step, When};

const NAMES: [&str; QUEUES] = ["plain", "strict", "narrow"];
const START: WallMs = WallMs::new(1_790_000_000_000);

/// What lies beneath the engine.
pub(super) enum Ground {
    Memory(Arc<MemoryStore>),
    Sqlite { dir: tempfile::TempDir, clock: Clock, store: Option<Arc<SqliteStore>> },
}

impl Ground {
    pub(super) fn memory() -> Self {
        Self::Memory(Arc::new(MemoryStore::new()))
    }

    /// A directory in memory where there is one: this is about what is kept, not about disks.
    pub(super) fn sqlite() -> Self {
        let fast = std::path::Path::new("/dev/shm");
        let dir = if fast.is_dir() { tempfile::tempdir_in(fast) } else { tempfile::tempdir() }.unwrap();
        Self::Sqlite { dir, clock: Clock::system(), store: None }
    }

    fn open(&mut self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as _,
            Self::Sqlite { dir, clock, store } => {
                let opened = Arc::new(SqliteStore::open(dir.path(), SqliteOptions::new(clock.clone())).unwrap());
                *store = Some(Arc::clone(&opened));
                opened
            }
        }
    }

    /// What is there after a crash.
    fn crash(&mut self) {
        match self {
            Self::Memory(store) => *store = Arc::new(store.crash()),
            // Dropped without being closed, it leaves what a crash leaves.
            Self::Sqlite { store, .. } => drop(store.take()),
        }
    }
}

/// See the module.
pub(super) struct Real {
    ground: Ground,
    store: Arc<dyn Store>,
    machine: Option<Machine>,
    clock: Clock,
    hand: ManualClock,
    config: Config,
    processes: u64,
    /// The ids, in order of acceptance.
    ids: Vec<TaskId>,
    /// The leases that are out: epochs by task and attempt.
    held: BTreeMap<(usize, u32), u32>,
    /// Leases that are over.
    over: Vec<(TaskKey, u32)>,
}

impl Real {
    pub(super) async fn new(mut ground: Ground, slots: [usize; QUEUES]) -> Self {
        let (clock, hand) = Clock::manual(START);
        let config = config(slots);
        let store = ground.open();
        let machine = Some(open(&store, &config, &clock, 1).await);
        let (ids, held, over) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { ground, store, machine, clock, hand, config, processes: 1, ids, held, over }
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now().wall.get()
    }

    /// One turn of the engine in which this happens; its answer, and which tasks start, in the order of acceptance.
    pub(super) async fn step(&mut self, step: &Step) -> (Reply, Vec<usize>) {
        let mut inputs = Inputs::default();
        match step {
            Step::Accept(drafts, key) => inputs.requests.push(self.letter(drafts, *key)),
            Step::One(action, of) if !self.ids.is_empty() => {
                inputs.requests.push(Request::Task(*action, TaskRef::by_id(self.ids[of % self.ids.len()])));
            }
            Step::Several(action, of) => {
                let ids = of.iter().filter(|_| !self.ids.is_empty()).map(|of| self.ids[of % self.ids.len()]);
                inputs.requests.push(Request::Chunk(*action, ids.collect()));
            }
            Step::Ends(of, came) if !self.held.is_empty() => {
                let lease = *self.held.keys().nth(of % self.held.len()).unwrap();
                let key = self.ids[lease.0].key;
                let epoch = self.held.remove(&lease).unwrap();
                self.over.push((key, epoch));
                inputs.settlements.push(Settlement { key, epoch, outcome: outcome(*came) });
            }
            Step::Late(of, came) if !self.over.is_empty() => {
                let (key, epoch) = self.over[of % self.over.len()];
                inputs.settlements.push(Settlement { key, epoch, outcome: outcome(*came) });
            }
            Step::Pause(queue, paused) => inputs.requests.push(Request::Pause(name_of(*queue), *paused)),
            Step::Configure(slots) => {
                self.config = config(*slots);
                inputs.requests.push(Request::Configure(Arc::new(self.config.clone())));
            }
            Step::Pass(ms) => self.hand.advance(Duration::from_millis(*ms)),
            Step::Crash => self.crash().await,
            Step::One(..) | Step::Ends(..) | Step::Late(..) => {}
        }
        self.turn(inputs).await
    }

    async fn crash(&mut self) {
        self.machine = None;
        self.store = Arc::new(MemoryStore::new());
        self.ground.crash();
        self.store = self.ground.open();
        self.processes += 1;
        // No process starts in the millisecond in which another died: keys of records that are gone do not come again.
        self.hand.advance(Duration::from_millis(1));
        self.machine = Some(open(&self.store, &self.config, &self.clock, self.processes).await);
        for ((number, _), epoch) in std::mem::take(&mut self.held) {
            self.over.push((self.ids[number].key, epoch));
        }
    }

    async fn turn(&mut self, inputs: Inputs) -> (Reply, Vec<usize>) {
        let machine = self.machine.as_mut().unwrap();
        let mut step = machine.decide(self.clock.now(), inputs).await.expect("it can be read");
        machine.commit(&mut step).await.expect("it can be written");
        self.learn().await;
        let mut started: Vec<usize> = Vec::new();
        for work in &step.leases {
            let number = self.number(work.header.key);
            started.push(number);
            self.held.insert((number, work.header.attempts_total), work.header.epoch);
        }
        started.sort_unstable();
        let mut reply = Reply::Nothing;
        for (_, answer) in step.answers {
            reply = self.reply(answer).await;
        }
        (reply, started)
    }

    /// Tasks that were accepted just now get their numbers.
    async fn learn(&mut self) {
        let last = self.ids.last().map(|id| id.key);
        let query =
            ListQuery { filter: TaskFilter::default(), before: None, limit: 4, scan_max: PAGE_ROWS_SCANNED_MAX };
        let newest = self.store.list(query).await.unwrap().rows;
        let new = newest.iter().rev().filter(|row| Some(row.header.key) > last);
        self.ids.extend(new.map(|row| row.header.id()));
    }

    fn number(&self, key: TaskKey) -> usize {
        self.ids.iter().position(|id| id.key == key).unwrap_or_else(|| panic!("{key:?} was never accepted"))
    }

    async fn number_of(&self, id: &PublicId) -> usize {
        let task = TaskRef::parse(&id.to_string()).expect("an id");
        let record = self.store.record(task).await.unwrap().expect("it was accepted");
        self.number(record.row.header.key)
    }

    async fn reply(&self, answer: Answer) -> Reply {
        match answer {
            Answer::Accept(Ok(Accepted::New { ids, .. } | Accepted::Existing { ids })) => {
                let mut numbers = Vec::new();
                for id in &ids {
                    numbers.push(self.number_of(id).await);
                }
                Reply::Accepted(numbers)
            }
            Answer::Accept(Ok(Accepted::Repeat { range, ended })) => {
                let numbers = (0..range.count).map(|place| self.number(range.first.offset(place)));
                Reply::Repeat(numbers.collect(), ended)
            }
            Answer::Accept(Err(error)) => Reply::Refused(match error {
                AcceptError::IdempotencyMismatch => "key",
                AcceptError::NameTaken { .. } => "name",
                AcceptError::QueueFull { .. } => "full",
                AcceptError::UnknownQueue { .. }
                | AcceptError::RetryPolicy { .. }
                | AcceptError::KeyDamaged(_)
                | AcceptError::StorageFull { .. }
                | AcceptError::Engine(_) => "for no reason that the model knows",
            }),
            Answer::Task(Ok(row)) => Reply::Task(self.number(row.header.key), row.status_at(self.clock.now().wall)),
            Answer::Task(Err(TaskActionError::NotFound)) => Reply::Refused("not found"),
            Answer::Task(Err(_)) => Reply::Refused("state"),
            Answer::Chunk(done) => Reply::Done(done),
            Answer::Queues(_) | Answer::Configured => Reply::Nothing,
        }
    }

    fn letter(&self, drafts: &[Draft], key: Option<u8>) -> Request {
        let now = self.now();
        let specs = drafts.iter().map(|draft| spec(draft, now)).collect();
        let idempotency =
            key.map(|key| Idempotency { hash: digest(&[key]), digest: digest(format!("{drafts:?}").as_bytes()) });
        Request::Accept(Box::new(Accept { specs, idempotency }))
    }

    /// Every task there is, as everybody may see it.
    pub(super) async fn all(&self) -> Vec<Seen> {
        let now = self.clock.now().wall;
        let seen = self.rows().await.into_iter().map(|row| {
            let (header, status) = (&row.header, row.status_at(now));
            let waits = !status.has_ended() && header.lease.is_none();
            Seen {
                number: self.number(header.key),
                queue: NAMES.iter().position(|name| *name == row.queue.as_str()).unwrap(),
                status,
                due: waits.then_some(header.due.get()),
                series: header.series,
                attempts: header.attempts,
                attempts_total: header.attempts_total,
                expires_at: header.expires_at.map(WallMs::get),
                reason: header.dead_reason.map(DeadReason::as_str),
            }
        });
        let mut seen: Vec<_> = seen.collect();
        seen.reverse();
        seen
    }

    pub(super) fn held(&self) -> Vec<(usize, u32)> {
        self.held.keys().copied().collect()
    }

    async fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut query =
            ListQuery { filter: TaskFilter::default(), before: None, limit: PAGE_MAX, scan_max: PAGE_ROWS_SCANNED_MAX };
        loop {
            let page = self.store.list(query.clone()).await.unwrap();
            rows.extend(page.rows);
            query.before = page.next;
            if query.before.is_none() {
                return rows;
            }
        }
    }

    /// Everything that the store holds, attempts and all.
    pub(super) async fn records(&self) -> Vec<TaskRecord> {
        let mut records = Vec::new();
        for row in self.rows().await {
            records.extend(self.store.record(TaskRef::by_id(row.header.id())).await.unwrap());
        }
        records
    }
}

async fn open(store: &Arc<dyn Store>, config: &Config, clock: &Clock, process: u64) -> Machine {
    Machine::open(Arc::clone(store), config, clock, Chance::from_seed(process)).await.expect("it opens").0
}

fn name_of(queue: usize) -> QueueName {
    QueueName::parse(NAMES[queue]).unwrap()
}

fn config(slots: [usize; QUEUES]) -> Config {
    let mut config = Config::default();
    let for_ever = Bound { age: None, count: None, bytes: None };
    config.hosts.defaults = HostConfig { max_concurrent: 100_000 };
    config.workers.max_concurrent = 100_000;
    config.queues = (0..QUEUES)
        .map(|queue| {
            let order = if queue == 1 { PriorityOrder::Strict } else { PriorityOrder::Aging(Span::from_secs(600)) };
            let queue_config = QueueConfig {
                max_concurrent_dispatches: u32::try_from(slots[queue]).unwrap(),
                order,
                max_tasks: (queue == 2).then_some(MOST as u64),
                retention: for_ever,
                dead_letters: for_ever,
                ..config.queue_defaults.clone()
            };
            (name_of(queue), queue_config)
        })
        .collect();
    config
}

fn spec(draft: &Draft, now: i64) -> TaskSpec {
    let ms = |ms: i64| Span::from_millis(u64::try_from(ms).unwrap());
    TaskSpec {
        name: draft.name.map(|name| TaskName::parse(&format!("order:{name}")).unwrap()),
        task_type: TaskType::parse("http_request").unwrap(),
        queue: name_of(draft.queue),
        lane: LaneName::new(&format!("http://host{}:80", draft.priority % 3)),
        priority: Priority::new(u64::from(draft.priority)).unwrap(),
        when: match draft.when {
            When::Now => sendoff::task::When::Now,
            When::Delay(delay) => sendoff::task::When::Delay(ms(delay)),
            When::At(ahead) => sendoff::task::When::At(WallMs::new(now + ahead)),
        },
        expires_at: draft.expires_in.map(|ms| WallMs::new(now + ms)),
        timeout: None,
        labels: Vec::new(),
        retry: RetryOverrides {
            max_attempts: Some(draft.attempts),
            min_backoff: Some(ms(draft.min_backoff)),
            max_backoff: Some(ms(draft.max_backoff)),
            max_doublings: Some(draft.doublings),
            jitter: Some(0.0),
            ..RetryOverrides::default()
        },
        payload: Bytes::from_static(b"{}"),
        digest: digest(format!("{draft:?}").as_bytes()),
    }
}

fn outcome(came: Came) -> Outcome {
    let took = Duration::from_millis(1);
    let answered = |status| Outcome::answered(status, Bytes::new(), took);
    match came {
        Came::Well => answered(200),
        Came::Badly => answered(500),
        Came::Refused => answered(404),
        Came::Busy(secs) => {
            let retry_after = Some(Span::from_secs(u64::try_from(secs).unwrap()));
            Outcome { retry_after, ..answered(429) }
        }
        Came::Released => Outcome::without_answer(OutcomeClass::Released, "not sent", took),
        Came::Cut => Outcome::without_answer(OutcomeClass::Interrupted, "cut off", took),
    }
}
