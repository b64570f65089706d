//! The clients: what they send, what they do when no answer comes, and what they wish for their tasks afterwards.

use std::rc::Rc;

use bytes::Bytes;
use sendoff::clock::Chance;
use sendoff::queue::command::{Accept, BulkAction, Idempotency, Request, TaskAction};
use sendoff::queue::store::digest;
use sendoff::task::retry::StopWhen;
use sendoff::task::{
    LaneName, Priority, QueueName, RetryOverrides, RetryPolicy, Span, TaskId, TaskName, TaskRef, TaskSpec, TaskType,
    WallMs, When,
};

use super::oracle::{Ask, Fact, Wish};
use super::targets::{HOSTS, Targets};

/// The queues there are, by what is special about each.
pub(super) const QUEUES: [&str; 4] = ["default", "slow", "strict", "narrow"];

/// One request to accept tasks, as a client may send it several times.
#[derive(Debug)]
pub(super) struct Letter {
    /// The numbers of its wishes, which stand in the payloads.
    pub(super) wishes: Vec<u64>,
    pub(super) specs: Vec<TaskSpec>,
    pub(super) idempotency: Option<Idempotency>,
}

impl Letter {
    pub(super) fn request(&self) -> Request {
        Request::Accept(Box::new(Accept { specs: self.specs.clone(), idempotency: self.idempotency }))
    }

    /// Whether it can be sent again without asking for more.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.idempotency.is_some() || self.specs.iter().all(|spec| spec.name.is_some())
    }

    pub(super) fn facts(&self) -> impl Iterator<Item = Fact> {
        self.wishes.iter().zip(&self.specs).map(|(wish, spec)| {
            let policy = RetryPolicy::default().with(&spec.retry);
            let expires_at = spec.expires_at.map(WallMs::get);
            let (queue, host) = (spec.queue.as_str().to_owned(), spec.lane.as_str().to_owned());
            Fact::Asked(
                *wish,
                Box::new(Ask { queue, host, when: spec.when, policy, expires_at, by_name: spec.name.is_some() }),
            )
        })
    }
}

/// Which wish a payload is.
pub(super) fn wish_of(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload).ok()?.strip_prefix("{\"n\":")?.strip_suffix('}')?.parse().ok()
}

/// What a client does to tasks that exist.
#[derive(Debug)]
pub(super) enum Act {
    One(TaskAction, TaskId),
    Several(BulkAction, Vec<TaskId>),
    Pause(QueueName, bool),
}

impl Act {
    pub(super) fn request(&self) -> Request {
        match self {
            Self::One(action, id) => Request::Task(*action, TaskRef::by_id(*id)),
            Self::Several(action, ids) => Request::Chunk(*action, ids.clone()),
            Self::Pause(queue, paused) => Request::Pause(queue.clone(), *paused),
        }
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        match self {
            Self::One(action, id) => {
                let wish = match action {
                    TaskAction::Cancel => Wish::Cancel,
                    TaskAction::Run => Wish::Run,
                    TaskAction::Redrive => Wish::Redrive,
                    TaskAction::Purge => Wish::Purge,
                };
                vec![Fact::Wished(wish, id.key)]
            }
            Self::Several(action, ids) => {
                let wish = if *action == BulkAction::Redrive { Wish::Redrive } else { Wish::Purge };
                ids.iter().map(|id| Fact::Wished(wish, id.key)).collect()
            }
            Self::Pause(..) => Vec::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clients {
    chance: Chance,
    wishes: u64,
    /// Ids that clients were told.
    pub(super) known: Vec<TaskId>,
}

impl Clients {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance, wishes: 0, known: Vec::new() }
    }

    /// A request with one task or a few. Clients have the right time, whatever the server's clock shows.
    pub(super) fn letter(&mut self, right_time: i64) -> Rc<Letter> {
        let count = if self.chance.below(20) == 0 { 2 + self.chance.below(6) } else { 1 };
        let mut specs: Vec<TaskSpec> = (0..count).map(|_| self.spec(right_time)).collect();
        let wishes: Vec<u64> = (self.wishes + 1 - count..=self.wishes).collect();
        let (mut idempotency, number) = (None, self.wishes);
        match self.chance.below(4) {
            0 if count == 1 => specs[0].name = Some(TaskName::parse(&format!("order:{number}")).unwrap()),
            1 => {
                let hash = digest(format!("key {number}").as_bytes());
                idempotency = Some(Idempotency { hash, digest: digest(&specs[0].payload) });
            }
            _ => {}
        }
        Rc::new(Letter { wishes, specs, idempotency })
    }

    fn spec(&mut self, right_time: i64) -> TaskSpec {
        self.wishes += 1;
        let payload = Bytes::from(format!("{{\"n\":{}}}", self.wishes));
        let when = match self.chance.below(6) {
            0 => When::Delay(Span::from_millis(self.chance.below(600_000))),
            1 => When::At(WallMs::new(right_time + self.ms(900_000) - 60_000)),
            _ => When::Now,
        };
        let expires_at = (self.chance.below(12) == 0).then(|| WallMs::new(right_time + 1_000 + self.ms(1_800_000)));
        TaskSpec {
            name: None,
            task_type: TaskType::parse("http_request").unwrap(),
            queue: queue(QUEUES[usize::try_from(self.chance.below(4)).unwrap()]),
            lane: LaneName::new(&Targets::lane(self.chance.below(HOSTS))),
            priority: Priority::new(self.chance.below(10)).unwrap(),
            when,
            expires_at,
            timeout: (self.chance.below(3) == 0).then(|| Span::from_secs(1 + self.chance.below(40))),
            labels: Vec::new(),
            retry: self.retry(),
            digest: digest(&payload),
            payload,
        }
    }

    /// Everything is said, so that the oracle need not ask anybody what holds.
    fn retry(&mut self) -> RetryOverrides {
        let min = 200 + self.chance.below(20_000);
        let lasts = self.chance.below(3) == 0;
        let all = lasts && self.chance.below(2) == 0;
        RetryOverrides {
            max_attempts: Some(1 + u32::try_from(self.chance.below(6)).unwrap()),
            min_backoff: Some(Span::from_millis(min)),
            max_backoff: Some(Span::from_millis(min + self.chance.below(300_000))),
            max_doublings: Some(u32::try_from(self.chance.below(6)).unwrap()),
            max_retry_duration: lasts.then(|| Span::from_millis(5_000 + self.chance.below(600_000))),
            jitter: Some([0.0, 0.2, 1.0][usize::try_from(self.chance.below(3)).unwrap()]),
            stop_when: Some(if all { StopWhen::All } else { StopWhen::Any }),
            ..RetryOverrides::default()
        }
    }

    /// Somebody cancels, runs, redrives or purges tasks, or pauses or resumes a queue.
    pub(super) fn act(&mut self) -> Option<Act> {
        let one = |action: TaskAction, id: Option<TaskId>| id.map(|id| Act::One(action, id));
        match self.chance.below(20) {
            0..=4 => one(TaskAction::Cancel, self.recent(60)),
            5..=9 => one(TaskAction::Run, self.recent(60)),
            10..=12 => one(TaskAction::Redrive, self.recent(400)),
            13 => one(TaskAction::Purge, self.recent(400)),
            14 | 15 => {
                let ids = (0..30).filter_map(|_| self.recent(600)).collect();
                Some(Act::Several(if self.chance.below(4) == 0 { BulkAction::Purge } else { BulkAction::Redrive }, ids))
            }
            kind => {
                let queue = queue(QUEUES[usize::try_from(self.chance.below(4)).unwrap()]);
                Some(Act::Pause(queue, kind == 16))
            }
        }
    }

    /// One of the last tasks that clients know of.
    fn recent(&mut self, of: usize) -> Option<TaskId> {
        let back = usize::try_from(self.chance.below(of.min(self.known.len()).max(1) as u64)).unwrap();
        self.known.iter().rev().nth(back).copied()
    }

    fn ms(&mut self, below: u64) -> i64 {
        i64::try_from(self.chance.below(below)).unwrap()
    }
}

pub(super) fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}
