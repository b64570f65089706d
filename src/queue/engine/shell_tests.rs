//! The loop over a store whose commits wait for the test: what happens between a decision and its commit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::shell::{Engine, EnginePorts, Phase, Progress};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::logging::Telemetry;
use crate::queue::command::{Accept, AcceptError, Accepted};
use crate::queue::store::memory::CommitFault;
use crate::queue::store::{
    Damage, Gathered, Later, ListPage, ListQuery, MemoryStore, OldestEnded, Recovered, Recovery, Row, TaskRecord,
    UniqueId, digest,
};
use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::SealedCredential;
use crate::task::{LaneName, Priority, QueueName, RetryOverrides, TaskKey, TaskRef, TaskSpec, TaskType, WallMs, When};

/// A memory store whose commits each wait for a permit.
struct Gated {
    inner: MemoryStore,
    permits: Semaphore,
}

impl Store for Gated {
    fn recover(&self, sink: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        self.inner.recover(sink)
    }

    fn commit(&self, changes: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        Box::pin(async move {
            self.permits.acquire().await.expect("open").forget();
            self.inner.commit(changes).await
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

struct Rig {
    store: Arc<Gated>,
    ports: EnginePorts,
    hand: ManualClock,
    engine: JoinSet<Result<(), Fatal>>,
}

impl Rig {
    async fn start() -> Self {
        let (clock, hand) = Clock::manual(WallMs::new(1_790_000_000_000));
        let store = Arc::new(Gated { inner: MemoryStore::new(), permits: Semaphore::new(1) });
        let shared: Arc<dyn Store> = store.clone();
        let opened = Machine::open(Arc::clone(&shared), &Config::default(), &clock, Chance::from_seed(1)).await;
        let (machine, _events) = opened.expect("it opens");
        // One for the keys that are forgotten in the first turn.
        store.permits.add_permits(1);
        let (engine, ports) = Engine::new(machine, shared, clock, Telemetry::new());
        let mut running = JoinSet::new();
        running.spawn(engine.run());
        let rig = Self { store, ports, hand, engine: running };
        rig.ports.queues.queues().await.expect("the engine answers");
        rig
    }

    fn post(&self) -> impl Future<Output = Result<Accepted, AcceptError>> + Send + 'static {
        let queues = self.ports.queues.clone();
        async move { queues.accept(Accept { specs: vec![spec()], idempotency: None }).await }
    }

    fn told(&self) -> Progress {
        *self.ports.progress.borrow()
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

/// Lets everything else come to rest.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_the_commit_of_a_start_waits_for_the_attempt() {
    let mut rig = Rig::start().await;
    let mut posted = JoinSet::new();
    posted.spawn(rig.post());
    settle_down().await;
    assert!(rig.ports.leases.try_recv().is_err(), "nothing leaves before it is durable");
    rig.ports.phase.send_replace(Phase::Drain);
    settle_down().await;
    assert_eq!(rig.told().phase, Phase::Run, "the engine has not come to obey it");
    rig.store.permits.add_permits(1);
    let drained = rig.ports.progress.wait_for(|told| told.phase >= Phase::Drain).await.unwrap();
    assert_eq!(drained.in_flight, 1, "the attempt that the commit started");
    drop(drained);
    assert!(rig.ports.leases.try_recv().is_ok());
    assert!(matches!(posted.join_next().await, Some(Ok(Ok(Accepted::New { .. })))));
}

#[tokio::test]
async fn while_the_disk_is_full_new_tasks_are_refused_and_the_batch_waits() {
    let mut rig = Rig::start().await;
    rig.store.inner.fail_next(CommitFault::Full);
    rig.store.permits.add_permits(1);
    let mut stuck = JoinSet::new();
    stuck.spawn(rig.post());
    settle_down().await;
    let refused = rig.post().await;
    assert!(matches!(refused, Err(AcceptError::StorageFull { .. })), "{refused:?}");
    let views = rig.ports.queues.queues().await.expect("figures are still told");
    assert_eq!(views.len(), 1);
    rig.store.permits.add_permits(1);
    rig.hand.advance(Duration::from_secs(1));
    assert!(matches!(stuck.join_next().await, Some(Ok(Ok(Accepted::New { .. })))));
    assert!(rig.ports.leases.recv().await.is_some());
    rig.ports.phase.send_replace(Phase::Stop);
    assert!(matches!(rig.engine.join_next().await, Some(Ok(Ok(())))));
}

#[tokio::test]
async fn a_stop_while_the_disk_is_full_ends_and_acknowledges_nothing() {
    let mut rig = Rig::start().await;
    rig.store.inner.fail_next(CommitFault::Full);
    rig.store.permits.add_permits(1);
    let mut stuck = JoinSet::new();
    stuck.spawn(rig.post());
    settle_down().await;
    rig.ports.phase.send_replace(Phase::Stop);
    let ended = rig.engine.join_next().await;
    assert!(matches!(ended, Some(Ok(Err(Fatal::Commit(CommitError::Full))))), "{ended:?}");
    assert!(matches!(stuck.join_next().await, Some(Ok(Err(AcceptError::Engine(_))))));
}
