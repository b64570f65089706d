//! What can happen in one step, what is answered, and what is seen: the words that the naive model and the real engine
//! share.

use proptest::prelude::*;
use sendoff::queue::command::{BulkAction, TaskAction};
use sendoff::task::Status;

/// Queues: `plain` with priorities and aging, `strict`, and `narrow`, which takes at most [`MOST`] tasks.
pub(super) const QUEUES: usize = 3;
/// Tasks that the last queue takes.
pub(super) const MOST: usize = 12;

/// When a task is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    Delay(i64),
    /// A moment, this far from now.
    At(i64),
}

/// A task as it is asked for; all times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) queue: usize,
    pub(super) priority: u8,
    pub(super) when: When,
    pub(super) expires_in: Option<i64>,
    pub(super) name: Option<u8>,
    pub(super) attempts: u32,
    pub(super) min_backoff: i64,
    pub(super) max_backoff: i64,
    pub(super) doublings: u32,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Well,
    Badly,
    Refused,
    /// 429 with `Retry-After`, in seconds.
    Busy(i64),
    /// It was never sent.
    Released,
    /// The process died.
    Cut,
}

/// One step. Tasks and attempts are meant modulo how many there are.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Accept(Vec<Draft>, Option<u8>),
    One(TaskAction, usize),
    Several(BulkAction, Vec<usize>),
    Ends(usize, Came),
    /// An outcome whose lease is over.
    Late(usize, Came),
    Pause(usize, bool),
    Configure([usize; QUEUES]),
    Pass(u64),
    Crash,
}

/// What was answered, in numbers of acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Accepted(Vec<usize>),
    /// By its `Idempotency-Key` or its name; and how it ended, if it is gone.
    Repeat(Vec<usize>, Option<Status>),
    Refused(&'static str),
    Task(usize, Status),
    Done(u64),
    Nothing,
}

/// A task as everybody may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: usize,
    pub(super) queue: usize,
    pub(super) status: Status,
    /// Of one that waits.
    pub(super) due: Option<i64>,
    pub(super) series: u32,
    pub(super) attempts: u32,
    pub(super) attempts_total: u32,
    pub(super) expires_at: Option<i64>,
    pub(super) reason: Option<&'static str>,
}

/// A rule that is broken on purpose, to see whether anybody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    OneAttemptMore,
    PriorityIsNothing,
    KeysAreForgotten,
    RedriveCountsOn,
    CancelledFreesItsSlot,
}

fn draft() -> impl Strategy<Value = Draft> {
    let when = prop_oneof![
        3 => Just(When::Now),
        1 => (0..200_000_i64).prop_map(When::Delay),
        1 => (-100_000..400_000_i64).prop_map(When::At)
    ];
    let expires = proptest::option::weighted(0.2, 1_000..2_000_000_i64);
    let name = proptest::option::weighted(0.3, 0..6_u8);
    let retry = (1..4_u32, 1..30_000_i64, 0..300_000_i64, 0..4_u32);
    ((0..QUEUES, 0..10_u8), when, expires, name, retry).prop_map(
        |((queue, priority), when, expires_in, name, retry)| {
            let (attempts, min_backoff, more, doublings) = retry;
            Draft {
                queue,
                priority,
                when,
                expires_in,
                name,
                attempts,
                min_backoff,
                max_backoff: min_backoff + more,
                doublings,
            }
        },
    )
}

fn came() -> impl Strategy<Value = Came> {
    prop_oneof![
        4 => Just(Came::Well),
        4 => Just(Came::Badly),
        1 => Just(Came::Refused),
        2 => (0..400_i64).prop_map(Came::Busy),
        1 => Just(Came::Released)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        3 => Just(TaskAction::Cancel),
        3 => Just(TaskAction::Run),
        3 => Just(TaskAction::Redrive),
        1 => Just(TaskAction::Purge)
    ];
    let bulk = prop_oneof![3 => Just(BulkAction::Redrive), 1 => Just(BulkAction::Purge)];
    let of = || 0..1_000_usize;
    let key = || proptest::option::weighted(0.3, 0..8_u8);
    let passes = prop_oneof![
        2 => Just(0_u64),
        4 => 1..5_000_u64,
        4 => 5_000..600_000_u64,
        1 => 600_000..30_000_000_u64
    ];
    prop_oneof![
        6 => (proptest::collection::vec(draft(), 1..4), key()).prop_map(|(drafts, key)| Step::Accept(drafts, key)),
        4 => (action, of()).prop_map(|(action, of)| Step::One(action, of)),
        1 => (bulk, proptest::collection::vec(of(), 1..9)).prop_map(|(action, of)| Step::Several(action, of)),
        8 => (of(), came()).prop_map(|(of, came)| Step::Ends(of, came)),
        1 => (of(), came()).prop_map(|(of, came)| Step::Late(of, came)),
        1 => (0..QUEUES, any::<bool>()).prop_map(|(queue, paused)| Step::Pause(queue, paused)),
        1 => proptest::array::uniform3(1..5_usize).prop_map(Step::Configure),
        6 => passes.prop_map(Step::Pass),
        1 => Just(Step::Crash)
    ]
}

/// So many steps at most, half as many at least. A letter that comes again is drawn from the ones before it.
pub(super) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let again = proptest::option::weighted(0.06, any::<proptest::sample::Index>());
    proptest::collection::vec((step(), again), most.div_ceil(2)..=most).prop_map(|drawn| {
        let mut steps: Vec<Step> = Vec::with_capacity(drawn.len());
        for (step, again) in drawn {
            let letters: Vec<Step> = steps.iter().filter(|step| matches!(step, Step::Accept(..))).cloned().collect();
            let repeated = again.filter(|_| !letters.is_empty()).map(|index| index.get(&letters).clone());
            steps.push(repeated.unwrap_or(step));
        }
        steps
    })
}
