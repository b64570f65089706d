//! The scheduler against a model that keeps everything in vectors and decides by looking at all of it, every time.

use proptest::prelude::*;

use super::super::rate_limit::RateLimit;
use super::super::*;
use super::{at, hosts, picks, prio, task};
use crate::config::HostConfig;
use crate::task::PriorityOrder;
use crate::task::limits::{WALL_AGREEMENT, WALL_JUMP};
use crate::task::priority::ahead_key;

const QUEUES: u32 = 3;
const LANES: u32 = 4;

#[derive(Debug, Clone)]
enum Op {
    Insert { queue: u32, lane: u32, priority: u64, after: i64, kind: (bool, bool, bool), expires: Option<i64> },
    Remove(prop::sample::Index),
    Wait(u64),
    Jump(i64),
    Pick,
    PickAll,
    Finish(prop::sample::Index),
    Pause(u32, bool),
    Queue(u32, Box<QueueConfig>),
    Workers(u32),
    Hosts(u32, u32),
    Overdue(usize),
}

fn queue_config() -> impl Strategy<Value = QueueConfig> {
    let order = prop_oneof![
        (1_u64..100).prop_map(|ms| PriorityOrder::Aging(Span::from_millis(ms))),
        Just(PriorityOrder::Strict)
    ];
    let rate = prop_oneof![3 => Just(None), 1 => (0.5_f64..200.0).prop_map(Some)];
    (order, rate, 1_u32..5, 1_u32..6, 1_u32..5).prop_map(|(order, rate, burst, concurrent, weight)| QueueConfig {
        order,
        max_dispatches_per_second: rate,
        max_burst_size: burst,
        max_concurrent_dispatches: concurrent,
        weight,
        ..QueueConfig::default()
    })
}

fn op() -> impl Strategy<Value = Op> {
    let insert =
        (0..QUEUES, 0..LANES, 0_u64..10, -500_i64..500, any::<(bool, bool, bool)>(), prop::option::of(0_i64..2_000))
            .prop_map(|(queue, lane, priority, after, kind, expires)| Op::Insert {
                queue,
                lane,
                priority,
                after,
                kind,
                expires,
            });
    prop_oneof![
        12 => insert,
        3 => any::<prop::sample::Index>().prop_map(Op::Remove),
        4 => (0_u64..400).prop_map(Op::Wait),
        1 => (50_000_u64..70_000).prop_map(Op::Wait),
        1 => (-900_000_i64..900_000).prop_map(Op::Jump),
        4 => Just(Op::Pick),
        4 => Just(Op::PickAll),
        6 => any::<prop::sample::Index>().prop_map(Op::Finish),
        1 => (0..QUEUES, any::<bool>()).prop_map(|(queue, paused)| Op::Pause(queue, paused)),
        1 => (0..QUEUES, queue_config()).prop_map(|(queue, config)| Op::Queue(queue, Box::new(config))),
        1 => (0_u32..12).prop_map(Op::Workers),
        1 => (0_u32..4, 0_u32..4).prop_map(|(default, first)| Op::Hosts(default, first)),
        2 => (0_usize..4).prop_map(Op::Overdue),
    ]
}

fn lane_name(lane: u32) -> LaneName {
    LaneName::new(&format!("https://host{lane}:443"))
}

struct ModelTask {
    waiting: Waiting,
    /// When it is due on the monotonic clock in ms, if it waits for that.
    mono_due: i64,
    ready: bool,
    deadline: Option<WallMs>,
}

struct ModelQueue {
    config: QueueConfig,
    limit: RateLimit,
    paused: bool,
    running: u32,
    passed: u128,
    in_line: bool,
}

struct Model {
    now: Now,
    anchor: i64,
    distrusted_until: Option<Duration>,
    tasks: Vec<ModelTask>,
    queues: Vec<ModelQueue>,
    running: Vec<Pick>,
    workers: u32,
    hosts: HostsConfig,
    reached: u128,
}

impl Model {
    fn new(configs: &[QueueConfig]) -> (Self, Scheduler) {
        let mut real = Scheduler::new(8, hosts(2), at(1_000));
        let mut model = Self {
            now: at(1_000),
            anchor: at(0).wall.get(),
            distrusted_until: None,
            tasks: Vec::new(),
            queues: Vec::new(),
            running: Vec::new(),
            workers: 8,
            hosts: hosts(2),
            reached: 0,
        };
        for lane in 0..LANES {
            real.name_lane(NameId(lane), &lane_name(lane));
        }
        for (id, config) in (0..).zip(configs) {
            real.set_queue(NameId(id), config, at(1_000));
            let mut limit = RateLimit::default();
            limit.set(config.max_dispatches_per_second, config.max_burst_size, at(1_000).mono);
            model.queues.push(ModelQueue {
                config: config.clone(),
                limit,
                paused: false,
                running: 0,
                passed: 0,
                in_line: false,
            });
        }
        (model, real)
    }

    fn queue(&mut self, id: NameId) -> &mut ModelQueue {
        &mut self.queues[id.0 as usize]
    }

    fn host_open(&self, lane: NameId) -> bool {
        let cap = self.hosts.overrides.get(&lane_name(lane.0)).unwrap_or(&self.hosts.defaults).max_concurrent;
        self.running.iter().filter(|pick| pick.lane == lane).count() < cap as usize
    }

    fn look(&mut self) -> Look {
        let offset = self.now.wall.get() - self.now.mono_ms();
        let mut look = Look::default();
        if offset.abs_diff(self.anchor) > WALL_JUMP.as_millis() {
            look.jumped = Some(offset - self.anchor);
            self.anchor = offset;
            self.distrusted_until = Some(self.now.mono + WALL_AGREEMENT.to_duration());
        } else if self.distrusted_until.is_some_and(|until| until <= self.now.mono) {
            self.distrusted_until = None;
        }
        for task in self.tasks.iter_mut().filter(|task| !task.ready) {
            let waiting = &task.waiting;
            let due =
                if waiting.due_on_wall { waiting.due <= self.now.wall } else { task.mono_due <= self.now.mono_ms() };
            (task.ready, look.promoted) = (due, look.promoted + u64::from(due));
        }
        look
    }

    fn insert(&mut self, waiting: Waiting) {
        let mono_due = waiting.due.get() - self.anchor;
        let due = if waiting.due_on_wall { waiting.due <= self.now.wall } else { mono_due <= self.now.mono_ms() };
        self.tasks.push(ModelTask { waiting, mono_due, ready: due || waiting.ahead, deadline: waiting.deadline });
    }

    /// The place of the queue's next task, if any could start as far as hosts go.
    fn head(&self, id: NameId) -> Option<usize> {
        let order = self.queues[id.0 as usize].config.order;
        let rank = |task: &Waiting| {
            (if task.ahead { ahead_key(task.due) } else { order.key(task.priority, task.due) }, task.key)
        };
        let ready = self.tasks.iter().enumerate().filter(|(_, task)| task.ready && task.waiting.queue == id);
        ready
            .filter(|(_, task)| self.host_open(task.waiting.lane))
            .min_by_key(|(_, task)| rank(&task.waiting))
            .map(|(place, _)| place)
    }

    fn blocked(&self, id: NameId) -> Option<Blocked> {
        let queue = &self.queues[id.0 as usize];
        if queue.paused {
            Some(Blocked::Paused)
        } else if !self.tasks.iter().any(|task| task.ready && task.waiting.queue == id) {
            Some(Blocked::NoneReady)
        } else if queue.running >= queue.config.max_concurrent_dispatches {
            Some(Blocked::Concurrency)
        } else if let Some(until) = queue.limit.wait(self.now.mono) {
            Some(Blocked::Rate { until })
        } else if self.head(id).is_none() {
            Some(Blocked::Hosts)
        } else {
            (self.running.len() >= self.workers as usize).then_some(Blocked::Workers)
        }
    }

    /// Those that could start something but for workers; who comes back goes on from where the others are.
    fn line(&mut self) -> Vec<NameId> {
        let ids: Vec<NameId> = (0..QUEUES).map(NameId).collect();
        let could = |model: &Self, id: &NameId| matches!(model.blocked(*id), None | Some(Blocked::Workers));
        for id in &ids {
            let (could, reached) = (could(self, id), self.reached);
            let queue = self.queue(*id);
            if could && !queue.in_line {
                queue.passed = queue.passed.max(reached);
            }
            queue.in_line = could;
        }
        ids.into_iter().filter(|id| self.queues[id.0 as usize].in_line).collect()
    }

    fn pick(&mut self) -> Option<Pick> {
        let line = self.line();
        if self.running.len() >= self.workers as usize {
            return None;
        }
        let id = line.into_iter().min_by_key(|id| (self.queues[id.0 as usize].passed, *id))?;
        let place = self.head(id)?;
        let task = self.tasks.remove(place).waiting;
        let now = self.now.mono;
        let queue = self.queue(id);
        queue.limit.take(now).unwrap();
        queue.running += 1;
        let passed = queue.passed;
        queue.passed += (1 << 40) / u128::from(queue.config.weight);
        self.reached = self.reached.max(passed);
        let pick = Pick { key: task.key, queue: id, lane: task.lane };
        self.running.push(pick);
        Some(pick)
    }

    fn overdue(&mut self, max: usize) -> Vec<TaskKey> {
        let offset = self.now.wall.get() - self.now.mono_ms();
        if self.distrusted_until.is_some() || offset.abs_diff(self.anchor) > WALL_JUMP.as_millis() {
            return Vec::new();
        }
        let passed = |task: &&mut ModelTask| task.deadline.is_some_and(|at| at <= self.now.wall);
        let mut found: Vec<&mut ModelTask> = self.tasks.iter_mut().filter(passed).collect();
        found.sort_by_key(|task| (task.deadline, task.waiting.key));
        found.truncate(max);
        for task in &mut found {
            task.deadline = None;
        }
        found.into_iter().map(|task| task.waiting.key).collect()
    }

    fn counts(&self, id: NameId) -> Counts {
        let of_queue = || self.tasks.iter().filter(|task| task.waiting.queue == id);
        let waiting =
            |retrying| of_queue().filter(|task| !task.ready && task.waiting.retrying == retrying).count() as u64;
        Counts {
            scheduled: waiting(false),
            retrying: waiting(true),
            queued: of_queue().filter(|task| task.ready).count() as u64,
            running: self.running.iter().filter(|pick| pick.queue == id).count() as u64,
            oldest_ready: of_queue().filter(|task| task.ready).map(|task| task.waiting.due).min(),
        }
    }

    /// Right only after everything that can start was picked.
    fn next_look(&self) -> Option<Duration> {
        let now = self.now;
        let until = |moment: WallMs| now.mono + moment.since(now.wall);
        let waiting = self.tasks.iter().filter(|task| !task.ready).map(|task| {
            if task.waiting.due_on_wall {
                until(task.waiting.due)
            } else {
                Duration::from_millis(u64::try_from(task.mono_due).unwrap())
            }
        });
        let trusted = self.distrusted_until.unwrap_or_default();
        let deadlines = self.tasks.iter().filter_map(|task| task.deadline).map(|at| until(at).max(trusted));
        let tokens = (0..QUEUES).map(NameId).filter_map(|id| match self.blocked(id) {
            Some(Blocked::Rate { until }) if self.head(id).is_some() => Some(until),
            _ => None,
        });
        let tokens = tokens.filter(|_| self.running.len() < self.workers as usize);
        waiting.chain(deadlines).chain(tokens).min().map(|at| at.max(now.mono))
    }
}

/// Changes a limit in both.
fn configure(model: &mut Model, real: &mut Scheduler, op: Op) {
    let now = model.now;
    match op {
        Op::Pause(queue, paused) => {
            real.set_paused(NameId(queue), paused);
            model.queue(NameId(queue)).paused = paused;
        }
        Op::Queue(id, config) => {
            real.set_queue(NameId(id), &config, now);
            let queue = model.queue(NameId(id));
            queue.limit.set(config.max_dispatches_per_second, config.max_burst_size, now.mono);
            queue.config = *config;
        }
        Op::Workers(max) => {
            real.set_workers(max);
            model.workers = max;
        }
        Op::Hosts(default, first) => {
            let overrides = [(lane_name(0), HostConfig { max_concurrent: first })].into_iter().collect();
            model.hosts = HostsConfig { overrides, ..hosts(default) };
            real.set_hosts(model.hosts.clone());
        }
        Op::Insert { .. }
        | Op::Remove(_)
        | Op::Finish(_)
        | Op::Wait(_)
        | Op::Jump(_)
        | Op::Pick
        | Op::PickAll
        | Op::Overdue(_) => unreachable!("no limit"),
    }
}

/// Does the same to both and compares what they answer.
fn step(model: &mut Model, real: &mut Scheduler, op: Op, key: i64) -> Result<(), TestCaseError> {
    let now = model.now;
    match op {
        Op::Insert { queue, lane, priority, after, kind: (due_on_wall, ahead, retrying), expires } => {
            let base = if due_on_wall { now.wall } else { real.due_after(Span::default(), now) };
            let task = Waiting {
                key: TaskKey::from_i64(key).unwrap(),
                queue: NameId(queue),
                lane: NameId(lane),
                priority: Priority::new(priority).unwrap(),
                due: WallMs::new(base.get() + after),
                due_on_wall,
                ahead: ahead && priority == 0,
                retrying,
                deadline: expires.map(|ms| WallMs::new(now.wall.get() + ms)),
            };
            real.insert(&task, now);
            model.insert(task);
        }
        Op::Remove(index) if !model.tasks.is_empty() => {
            let gone = model.tasks.remove(index.index(model.tasks.len())).waiting;
            prop_assert!(real.remove(&gone));
            prop_assert!(!real.remove(&gone));
        }
        Op::Finish(index) if !model.running.is_empty() => {
            let pick = model.running.remove(index.index(model.running.len()));
            model.queue(pick.queue).running -= 1;
            real.finish(pick.queue, pick.lane);
        }
        Op::Remove(_) | Op::Finish(_) => {}
        Op::Wait(ms) => {
            let by = Duration::from_millis(ms);
            model.now = Now { wall: now.wall.plus(by), mono: now.mono + by };
            prop_assert_eq!(real.look(model.now), model.look());
        }
        Op::Jump(ms) => {
            model.now.wall = WallMs::new(now.wall.get() + ms);
            prop_assert_eq!(real.overdue(model.now, 9), model.overdue(9), "before the jump is seen");
            prop_assert_eq!(real.look(model.now), model.look());
        }
        Op::Pick => prop_assert_eq!(real.pick(now), model.pick()),
        Op::PickAll => {
            loop {
                let pick = model.pick();
                prop_assert_eq!(real.pick(now), pick);
                if pick.is_none() {
                    break;
                }
            }
            prop_assert_eq!(real.next_look(now), model.next_look());
        }
        Op::Pause(..) | Op::Queue(..) | Op::Workers(_) | Op::Hosts(..) => configure(model, real, op),
        Op::Overdue(max) => prop_assert_eq!(real.overdue(now, max), model.overdue(max)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_scheduler_does_what_the_model_does(
        configs in prop::collection::vec(queue_config(), QUEUES as usize),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let (mut model, mut real) = Model::new(&configs);
        for (op, key) in ops.into_iter().zip(0_i64..) {
            step(&mut model, &mut real, op, key)?;
            model.line();
            prop_assert_eq!(real.clock_trusted(), model.distrusted_until.is_none());
            for id in (0..QUEUES).map(NameId) {
                prop_assert_eq!(real.counts(id), model.counts(id));
                prop_assert_eq!(real.blocked(id, model.now), model.blocked(id));
            }
        }
    }
}

proptest! {
    #[test]
    fn loading_is_inserting_one_by_one(
        drawn in proptest::collection::vec((0_u32..3, 0_u32..4, 0_u64..10, 0_u64..200, any::<[bool; 3]>(), proptest::option::of(0_u64..300)), 0..120),
    ) {
        let tasks: Vec<Waiting> = drawn
            .into_iter()
            .zip(0_i64..)
            .map(|((queue, lane, priority, due, [due_on_wall, ahead, retrying], deadline), key)| Waiting {
                queue: NameId(queue),
                lane: NameId(lane),
                priority: prio(priority),
                due_on_wall,
                ahead: ahead && key % 4 == 0,
                retrying,
                deadline: deadline.map(|ms| at(ms).wall),
                ..task(key, due)
            })
            .collect();
        let make = || {
            let mut scheduler = Scheduler::new(1_000, hosts(9), at(0));
            for queue in 0..2 {
                scheduler.set_queue(NameId(queue), &QueueConfig { weight: queue + 1, ..QueueConfig::default() }, at(0));
            }
            scheduler
        };
        let (mut loaded, mut inserted) = (make(), make());
        loaded.load(tasks.clone(), at(100));
        for task in &tasks {
            inserted.insert(task, at(100));
        }
        for ms in [100, 130, 200, 300] {
            prop_assert_eq!(loaded.look(at(ms)), inserted.look(at(ms)));
            for queue in 0..4 {
                prop_assert_eq!(loaded.counts(NameId(queue)), inserted.counts(NameId(queue)));
            }
            prop_assert_eq!(loaded.overdue(at(ms), 5), inserted.overdue(at(ms), 5));
            prop_assert_eq!(loaded.next_look(at(ms)), inserted.next_look(at(ms)));
            prop_assert_eq!(picks(&mut loaded, at(ms)), picks(&mut inserted, at(ms)));
        }
        for task in &tasks {
            prop_assert_eq!(loaded.remove(task), inserted.remove(task));
        }
        prop_assert_eq!(loaded.next_look(at(300)), inserted.next_look(at(300)));
    }
}
