//! Callers, handle, engine, attempts and stop as futures that a seed polls in its own order: the real channels, the real
//! engine, the memory store with commits that take their time and now and then fail.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use sendoff::clock::{Chance, Clock, ManualClock};
use sendoff::config::Config;
use sendoff::logging::Telemetry;
use sendoff::queue::command::{Accept, Accepted, PublicId};
use sendoff::queue::engine::shell::{Engine, Phase, Progress};
use sendoff::queue::engine::{Fatal, Machine};
use sendoff::queue::handle::Queues;
use sendoff::queue::lease::{Lease, Settlement};
use sendoff::queue::store::memory::CommitFault;
use sendoff::queue::store::{
    Change, CommitError, Damage, Gathered, Later, ListPage, ListQuery, MemoryStore, OldestEnded, Pressure, Recovered,
    Recovery, Row, Store, StoreError, TaskRecord, UniqueId, digest,
};
use sendoff::security::api_key::KeyRecord;
use sendoff::security::credential::sealed::SealedCredential;
use sendoff::task::{
    LaneName, Outcome, Priority, QueueName, RetryOverrides, Status, TaskKey, TaskRef, TaskSpec, TaskType, WallMs, When,
};
use tokio::sync::{mpsc, watch};

use super::{orders, seed};

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Whether a future has been woken since it was last polled.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls woken futures in the order that `chance` draws; moves the clock when none is. Panics when that does not help.
fn run_all(futures: Vec<Boxed<'_>>, chance: &mut Chance, hand: &ManualClock) {
    let mut running: Vec<_> = futures.into_iter().map(|it| (it, Arc::new(Woken(AtomicBool::new(true))))).collect();
    let mut idle = 0;
    while !running.is_empty() {
        let ready: Vec<usize> = (0..running.len()).filter(|at| running[*at].1.0.load(Ordering::SeqCst)).collect();
        if ready.is_empty() {
            idle += 1;
            assert!(idle < 1_000, "{} futures wait for ever", running.len());
            hand.advance(Duration::from_secs(1));
            continue;
        }
        let at = ready[usize::try_from(chance.below(ready.len() as u64)).unwrap()];
        let (future, woken) = &mut running[at];
        woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(woken));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(running.swap_remove(at));
        }
    }
}

/// Lets others go first, so many times.
async fn pauses(mut times: u64) {
    std::future::poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The memory store with commits that take their time, before and after they are done.
struct Slow {
    inner: MemoryStore,
    /// It says that a commit is done, and does nothing.
    lies: bool,
    chance: Mutex<Chance>,
}

impl Slow {
    fn draw(&self, bound: u64) -> u64 {
        self.chance.lock().unwrap().below(bound)
    }
}

impl Store for Slow {
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        self.inner.recover(sink)
    }

    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        Box::pin(async move {
            pauses(self.draw(6)).await;
            if self.lies {
                return Ok(());
            }
            let fault = match self.draw(30) {
                0 => Some(CommitFault::UnknownApplied),
                1 => Some(CommitFault::UnknownLost),
                2 => Some(CommitFault::Full),
                _ => None,
            };
            if let Some(fault) = fault {
                self.inner.fail_next(fault);
            }
            let done = self.inner.commit(changes).await;
            pauses(self.draw(6)).await;
            done
        })
    }

    fn gather(&self, rows: Vec<TaskRef>, unique: Vec<UniqueId>) -> Later<'_, Result<Gathered, StoreError>> {
        self.inner.gather(rows, unique)
    }

    fn rows(&self, keys: Vec<TaskKey>) -> Later<'_, Result<Vec<Option<Row>>, StoreError>> {
        self.inner.rows(keys)
    }

    fn record(&self, task: TaskRef) -> Later<'_, Result<Option<TaskRecord>, StoreError>> {
        self.inner.record(task)
    }

    fn list(&self, query: ListQuery) -> Later<'_, Result<ListPage, StoreError>> {
        self.inner.list(query)
    }

    fn oldest_ended(&self, query: OldestEnded) -> Later<'_, Result<Vec<Row>, StoreError>> {
        self.inner.oldest_ended(query)
    }

    fn api_keys(&self) -> Later<'_, Result<Vec<Result<KeyRecord, Damage>>, StoreError>> {
        self.inner.api_keys()
    }

    fn credentials(&self) -> Later<'_, Result<Vec<Result<SealedCredential, Damage>>, StoreError>> {
        self.inner.credentials()
    }

    fn pressure(&self) -> Pressure {
        self.inner.pressure()
    }

    fn close(&self) -> Later<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}

fn spec() -> TaskSpec {
    let payload = Bytes::from_static(b"{}");
    TaskSpec {
        name: None,
        task_type: TaskType::parse("http_request").unwrap(),
        queue: QueueName::parse("default").unwrap(),
        lane: LaneName::new("http://host:80"),
        priority: Priority::default(),
        when: When::Now,
        expires_at: None,
        timeout: None,
        labels: Vec::new(),
        retry: RetryOverrides::default(),
        digest: digest(&payload),
        payload,
    }
}

/// What the scene saw.
#[derive(Default)]
struct Seen {
    answered: u64,
    accepted: Vec<TaskRef>,
    leases: BTreeSet<(TaskKey, u32)>,
    settled: BTreeSet<TaskKey>,
    violations: Vec<String>,
    ended: Option<Result<(), Fatal>>,
}

impl Seen {
    /// A lease has arrived.
    fn leased(&mut self, lease: &Lease, store: &Slow) {
        let (key, epoch) = (lease.work.header.key, lease.work.header.epoch);
        if !self.leases.insert((key, epoch)) {
            self.violations.push(format!("{key:?} was leased twice"));
        }
        if !is_durable(store, key, |status| status == Status::Running) {
            self.violations.push(format!("{key:?} left before its start was durable"));
        }
    }
}

/// Looks into the store at the very moment: what a process would find that started now.
fn is_durable(store: &Slow, key: TaskKey, wanted: impl Fn(Status) -> bool) -> bool {
    let mut found = false;
    let recovered = store.inner.crash().recover(&mut |recovered| {
        if let Recovered::Task { header, .. } = recovered {
            found |= header.key == key && wanted(header.status);
        }
    });
    recovered.is_ok() && found
}

/// Posts some tasks one after the other; now and then it goes away before its answer.
async fn calls(queues: Queues, mut chance: Chance, store: &Slow, seen: &Mutex<Seen>) {
    for _ in 0..3 {
        pauses(chance.below(8)).await;
        let call = queues.accept(Accept { specs: vec![spec()], idempotency: None });
        if chance.below(5) == 0 {
            let patience = pauses(chance.below(8));
            tokio::select! {
                biased;
                () = patience => {}
                answer = call => heard(answer.ok(), store, seen),
            }
        } else {
            heard(call.await.ok(), store, seen);
        }
    }
}

fn heard(answer: Option<Accepted>, store: &Slow, seen: &Mutex<Seen>) {
    let mut seen = seen.lock().unwrap();
    seen.answered += 1;
    let Some(Accepted::New { ids, first }) = answer else { return };
    let id = first.header.id();
    assert!(ids.iter().all(|given| matches!(given, PublicId::Id(given) if *given == id)));
    if !is_durable(store, id.key, |_| true) {
        seen.violations.push(format!("{:?} was acknowledged before it was durable", id.key));
    }
    seen.accepted.push(TaskRef::by_id(id));
}

/// Runs attempts as the pool does: each ends, in its own time, in a settlement.
async fn attempts(
    mut leases: mpsc::Receiver<Lease>,
    settles: mpsc::Sender<Settlement>,
    mut chance: Chance,
    store: &Slow,
    seen: &Mutex<Seen>,
) {
    let mut held = Vec::new();
    loop {
        pauses(chance.below(4)).await;
        let next = if held.is_empty() { leases.recv().await } else { leases.try_recv().ok() };
        match next {
            Some(lease) => {
                seen.lock().unwrap().leased(&lease, store);
                held.push(lease);
            }
            None if held.is_empty() => return,
            None => {}
        }
        let at = usize::try_from(chance.below(held.len() as u64 + 1)).unwrap();
        if at < held.len() {
            let lease = held.swap_remove(at);
            let key = lease.work.header.key;
            if settles.send(lease.settle(Outcome::answered(200, Bytes::new(), Duration::ZERO))).await.is_ok() {
                seen.lock().unwrap().settled.insert(key);
            }
        }
    }
}

/// Stops the server as `app` does: no new attempt, then the end of those in flight, then the engine.
async fn stop(mut chance: Chance, phase: watch::Sender<Phase>, mut progress: watch::Receiver<Progress>) {
    pauses(chance.below(150)).await;
    phase.send_replace(Phase::Drain);
    // An engine that has failed tells nothing any more.
    let drained = progress.wait_for(|told| told.phase >= Phase::Drain && told.in_flight == 0).await.is_ok();
    if drained {
        phase.send_replace(Phase::Stop);
    }
}

/// One scene from one seed, and what was seen.
fn scene(drawn_from: u64, lies: bool) -> Seen {
    let mut chance = Chance::from_seed(drawn_from);
    let mut part = || Chance::from_seed(chance.draw());
    let (clock, hand) = Clock::manual(WallMs::new(1_790_000_000_000));
    let store = Arc::new(Slow { inner: MemoryStore::new(), lies, chance: Mutex::new(part()) });
    let seen = Mutex::new(Seen::default());
    let shared: Arc<dyn Store> = store.clone();
    let (config, drawn, mut opened) = (Config::default(), part(), None);
    run_all(
        vec![Box::pin(async { opened = Machine::open(Arc::clone(&shared), &config, &clock, drawn).await.ok() })],
        &mut part(),
        &hand,
    );
    // The very first commit failed.
    let Some((machine, _events)) = opened else { return seen.into_inner().unwrap() };
    let (engine, ports) = Engine::new(machine, shared, clock.clone(), Telemetry::new());
    let mut futures: Vec<Boxed<'_>> = Vec::new();
    for _ in 0..4 {
        futures.push(Box::pin(calls(ports.queues.clone(), part(), &store, &seen)));
    }
    futures.push(Box::pin(attempts(ports.leases, ports.settles, part(), &store, &seen)));
    futures.push(Box::pin(stop(part(), ports.phase, ports.progress)));
    futures.push(Box::pin(async {
        let ended = engine.run().await;
        seen.lock().unwrap().ended = Some(ended);
    }));
    drop(ports.queues);
    run_all(futures, &mut part(), &hand);
    let mut seen = seen.into_inner().unwrap();
    judge(&mut seen, &store);
    seen
}

/// What must hold once everything has ended.
fn judge(seen: &mut Seen, store: &Slow) {
    let clean = matches!(seen.ended, Some(Ok(())));
    for task in &seen.accepted {
        let key = task.id.map(|id| id.key).expect("asked by id");
        if !is_durable(store, key, |_| true) {
            seen.violations.push(format!("{key:?} was accepted and is lost"));
        }
    }
    for key in &seen.settled {
        if clean && !is_durable(store, *key, |status| status == Status::Succeeded) {
            seen.violations.push(format!("the settlement of {key:?} is lost"));
        }
    }
}

#[test]
fn whatever_future_goes_first_every_call_is_answered_and_no_settlement_is_lost() {
    let (mut answered, mut accepted, mut settled, mut failed) = (0, 0, 0, 0);
    for number in seed()..seed() + orders() {
        let seen = scene(number, false);
        assert!(seen.violations.is_empty(), "seed {number}: {:#?}", seen.violations);
        answered += seen.answered;
        accepted += seen.accepted.len();
        settled += seen.settled.len();
        failed += u64::from(!matches!(seen.ended, Some(Ok(()))));
    }
    assert!(accepted > 0 && settled > 0 && failed > 0, "the scene did something");
    println!(
        "FIGURES interleaving: futures, {} orders, {answered} answers, {accepted} accepted, {settled} settled, {failed} \
         stores failed, 0 lost, seed {}",
        orders(),
        seed()
    );
}

#[test]
fn a_store_that_says_done_and_does_nothing_is_caught() {
    assert!((0..20).all(|seed| !scene(seed, true).violations.is_empty()), "a lie went unnoticed");
}

#[cfg(feature = "sabotage")]
#[test]
fn an_answer_before_its_commit_is_caught() {
    use sendoff::sabotage::{Sin, on_this_thread};
    let caught =
        (0..20).any(|seed| on_this_thread(Sin::AcknowledgeBeforeCommit, || !scene(seed, false).violations.is_empty()));
    assert!(caught, "an answer before its commit went unnoticed");
}
