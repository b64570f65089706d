//! One attempt, from its lease to its settlement: whatever happens in between, an outcome comes out.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::FutureExt;

use super::handler::Handlers;
use crate::clock::{Clock, Now, Sleep};
use crate::queue::lease::{Lease, Settlement, Work};
use crate::task::{Outcome, OutcomeClass, limits};

/// What a handler is given for one attempt.
#[derive(Debug)]
pub struct AttemptContext {
    work: Work,
    clock: Clock,
    handed_over: OnceLock<Duration>,
}

impl AttemptContext {
    /// A context for `work`, which has not been handed over.
    pub fn new(work: Work, clock: Clock) -> Self {
        Self { work, clock, handed_over: OnceLock::new() }
    }

    /// What is to be done.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Reads the clock.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Says that from here on the outside world may have seen the attempt: an abort then ends it `interrupted`, before
    /// it `released`. Returns the sleep that ends at the attempt's deadline, which runs from this moment.
    pub fn hand_over(&self) -> Sleep {
        self.handed_over.get_or_init(|| self.clock.now().mono);
        self.clock.sleep(self.work.timeout.to_duration())
    }

    /// How long ago it was handed over; zero when it was not.
    pub fn took(&self) -> Duration {
        self.handed_over.get().map_or(Duration::ZERO, |since| self.clock.now().mono.saturating_sub(*since))
    }

    fn aborted(&self) -> Outcome {
        if self.handed_over.get().is_some() {
            let why = "aborted after the request was handed over";
            return Outcome::without_answer(OutcomeClass::Interrupted, why, self.took());
        }
        Outcome::without_answer(OutcomeClass::Released, "aborted before anything was sent", Duration::ZERO)
    }
}

/// Runs the attempt that `lease` allows, and settles it.
pub(super) async fn run(handlers: &Handlers, clock: &Clock, lease: Lease) -> Settlement {
    let context = AttemptContext::new(lease.work.clone(), clock.clone());
    let mut outcome = if lease.abort.is_cancelled() {
        context.aborted()
    } else {
        // An outcome that is there counts, even when the abort came at the same moment. What is aborted is dropped
        // here, with its sockets, before anybody hears of it.
        tokio::select! {
            biased;
            outcome = handle(handlers, &context) => outcome,
            () = lease.abort.cancelled() => context.aborted(),
        }
    };
    outcome.error = outcome.error.map(cut);
    lease.settle(outcome)
}

async fn handle(handlers: &Handlers, context: &AttemptContext) -> Outcome {
    let task_type = &context.work.body.task_type;
    let Some(handler) = handlers.get(task_type) else {
        let why = format!("no handler is configured for task type `{task_type}`");
        return Outcome::without_answer(OutcomeClass::Corrupt, why, Duration::ZERO);
    };
    // Calling `run` may panic as well as awaiting it. Nothing is shared but the context, which stays readable.
    let attempt = AssertUnwindSafe(async { handler.run(context).await });
    attempt.catch_unwind().await.unwrap_or_else(|_payload| {
        Outcome::without_answer(OutcomeClass::Interrupted, "the handler panicked", context.took())
    })
}

/// Cuts a message to the length that is kept.
fn cut(mut error: String) -> String {
    if let Some((end, _)) = error.char_indices().nth(limits::ERROR_LEN_MAX) {
        error.truncate(end);
    }
    error
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::task::header::NameId;
    use crate::task::{
        Body, Header, IdTail, LaneName, LeaseKind, QueueName, RetryOverrides, Span, Status, TaskKey, TaskType, WallMs,
    };

    /// A first attempt with a deadline of 30 s.
    pub(in crate::worker) fn work() -> Work {
        let (noon, name) = (WallMs::new(1_800_000_000_000), NameId(1));
        let header = Header {
            status: Status::Running,
            attempts: 1,
            attempts_total: 1,
            lease: Some(LeaseKind::Pool),
            first_dispatched_at: Some(noon),
            ..Header::accepted(TaskKey::MIN, IdTail::new(1), (name, name), noon)
        };
        let body = Body {
            task_type: TaskType::parse("http_request").unwrap(),
            name: None,
            labels: Vec::new(),
            timeout: None,
            retry: RetryOverrides::default(),
            idempotency: None,
            payload: bytes::Bytes::new(),
        };
        Work {
            header,
            queue: QueueName::parse("default").unwrap(),
            lane: LaneName::new("lane"),
            body: Arc::new(body),
            timeout: Span::from_secs(30),
            max_attempts: 20,
            previous: None,
        }
    }

    #[test]
    fn time_runs_from_hand_over() {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let context = AttemptContext::new(work(), clock);
        hand.advance(Duration::from_secs(5));
        assert_eq!((context.took(), context.aborted().class), (Duration::ZERO, OutcomeClass::Released));
        drop(context.hand_over());
        hand.advance(Duration::from_secs(7));
        assert_eq!((context.took(), context.aborted().class), (Duration::from_secs(7), OutcomeClass::Interrupted));
    }

    #[test]
    fn messages_are_cut_at_a_character_one_below_and_one_above() {
        let fits = "é".repeat(limits::ERROR_LEN_MAX);
        assert_eq!(cut(fits.clone()), fits);
        assert_eq!(cut(format!("{fits}x")), fits);
    }
}
