//! One conformance suite for every store, and what only the one on disk can show: restarts, damage, a full disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sendoff::clock::Clock;
use sendoff::queue::store::memory::CommitFault;
use sendoff::queue::store::{
    Change, CommitError, IdRange, ListPage, ListQuery, MemoryStore, NameKind, OldestEnded, Pressure, Recovered,
    Recovery, Row, SqliteOptions, SqliteStore, Store, StoreError, TaskFilter, UniqueId, UniqueKind, UniqueRecord,
    task_name_hash,
};
use sendoff::security::api_key::{KeyDigest, KeyRecord};
use sendoff::security::scope::{QueueGlob, QueueGlobs, Scopes};
use sendoff::task::header::NameId;
use sendoff::task::name::{KeyName, LabelName};
use sendoff::task::outcome::{DeadReason, StatusAction};
use sendoff::task::{
    Attempt, Body, Header, IdTail, KeyCounter, LeaseKind, OutcomeClass, Priority, QueueName, RetryOverrides, Span,
    Status, StopWhen, TaskId, TaskKey, TaskName, TaskRef, TaskType, WallMs,
};

const DEFAULT: NameId = NameId(0);
const MAIL: NameId = NameId(1);
const LANE: NameId = NameId(0);

fn names() -> Vec<Change> {
    vec![
        Change::name(NameKind::Queue, DEFAULT, Arc::from("default")),
        Change::name(NameKind::Queue, MAIL, Arc::from("mail")),
        Change::name(NameKind::Lane, LANE, Arc::from("https://a.example:443")),
    ]
}

/// The n-th task that was accepted, as accepted.
fn task(n: u32) -> Header {
    let noon = WallMs::parse("2026-11-24T12:00:00Z").unwrap();
    let key = KeyCounter::after(None, 0).next(noon).offset(n);
    Header { payload_bytes: 9, ..Header::accepted(key, IdTail::new(0xfeed_0000 + u64::from(n)), (DEFAULT, LANE), noon) }
}

fn body() -> Body {
    Body {
        task_type: TaskType::parse("http_request").unwrap(),
        name: None,
        labels: Vec::new(),
        timeout: None,
        retry: RetryOverrides::default(),
        idempotency: None,
        payload: Bytes::from_static(b"{\"a\": 1 }"),
    }
}

/// A header and a body with every field set.
fn full_task(n: u32) -> (Header, Body) {
    let mut header = task(n);
    header.queue = MAIL;
    header.status = Status::Running;
    header.priority = Priority::new(9).unwrap();
    (header.ahead, header.due_on_wall) = (true, true);
    (header.series, header.attempts, header.attempts_total, header.interruptions) = (3, 4, u32::MAX, 5);
    (header.lease, header.lease_until) = (Some(LeaseKind::Pool), Some(WallMs::new(7)));
    (header.expires_at, header.give_up_at) = (Some(WallMs::new(8)), Some(WallMs::new(-9)));
    header.first_dispatched_at = Some(WallMs::new(10));
    (header.last_class, header.last_http_status) = (Some(OutcomeClass::HttpStatus), Some(503));
    header.dead_reason = Some(DeadReason::MaxAttempts);
    let mut body = body();
    body.name = Some(TaskName::parse("order:7").unwrap());
    body.labels = vec![(LabelName::parse("tenant").unwrap(), String::from("42 é"))];
    body.timeout = Some(Span::from_secs(10));
    body.retry.jitter = Some(0.25);
    body.retry.stop_when = Some(StopWhen::All);
    body.retry.on_status.insert(404, StatusAction::Retry);
    body.idempotency = Some(u128::MAX - 1);
    (header, body)
}

fn moved(old: &Header, status: Status, at: i64) -> Header {
    let mut new = old.clone();
    new.status = status;
    new.epoch += 1;
    new.changed_at = WallMs::new(at);
    new
}

fn started(old: &Header) -> Header {
    let mut new = moved(old, Status::Running, 1_000);
    new.attempts += 1;
    new.attempts_total += 1;
    new.lease = Some(LeaseKind::Pool);
    new
}

fn ended(old: &Header, status: Status, at: i64) -> Header {
    let mut new = moved(old, status, at);
    new.lease = None;
    new
}

fn attempt(ordinal: u32) -> Attempt {
    Attempt {
        ordinal,
        series: 1,
        number: ordinal,
        started_at: WallMs::new(1_000),
        took: Span::from_millis(12),
        class: OutcomeClass::HttpStatus,
        http_status: Some(500),
        error: Some(String::from("it said no")),
        response_head: Bytes::from_static(b"\xff\x00no"),
    }
}

fn insert(header: &Header) -> Change {
    Change::insert(header.clone(), Arc::new(body()))
}

fn name_key(name: &str) -> UniqueId {
    UniqueId { kind: UniqueKind::TaskName, hash: task_name_hash(&TaskName::parse(name).unwrap()) }
}

fn unique(id: UniqueId, header: &Header, count: u32, until: Option<i64>) -> UniqueRecord {
    let range = IdRange { first: header.key, count, tail: header.tail, until: until.map(WallMs::new) };
    UniqueRecord { id, range, digest: 0x1234 << 100, ended: None }
}

fn by_key(header: &Header) -> TaskRef {
    TaskRef::by_id(header.id())
}

async fn commit(store: &dyn Store, changes: Vec<Change>) {
    store.commit(changes).await.unwrap();
}

async fn row(store: &dyn Store, task: TaskRef) -> Option<Row> {
    let mut rows = store.gather(vec![task], Vec::new()).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
    rows.pop().unwrap()
}

async fn key(store: &dyn Store, id: UniqueId) -> Option<UniqueRecord> {
    store.gather(Vec::new(), vec![id]).await.unwrap().unique.pop().unwrap()
}

async fn page(store: &dyn Store, filter: TaskFilter, before: Option<TaskKey>, limits: (u32, u32)) -> ListPage {
    store.list(ListQuery { filter, before, limit: limits.0, scan_max: limits.1 }).await.unwrap()
}

async fn oldest(store: &dyn Store, dead: bool, limit: u32) -> Vec<TaskKey> {
    let rows = store.oldest_ended(OldestEnded { queue: DEFAULT, dead, limit }).await.unwrap();
    rows.into_iter().map(|row| row.header.key).collect()
}

fn keys(page: &ListPage) -> Vec<TaskKey> {
    page.rows.iter().map(|row| row.header.key).collect()
}

fn recovered(store: &dyn Store) -> (Recovery, Vec<Recovered>) {
    let mut all = Vec::new();
    let recovery = store.recover(&mut |one| all.push(one)).unwrap();
    (recovery, all)
}

fn recovered_tasks(store: &dyn Store) -> Vec<Header> {
    let task = |one| match one {
        Recovered::Task { header, damage } => {
            assert_eq!(damage, None);
            Some(*header)
        }
        Recovered::Name { .. } | Recovered::Paused(_) | Recovered::Damaged => None,
    };
    recovered(store).1.into_iter().filter_map(task).collect()
}

mod cases;
mod on_disk;

macro_rules! conformance {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::cases::$case(&super::MemoryStore::new()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::cases::$case(&super::on_disk::open(dir.path())).await;
            })*
        }
    };
}

conformance! {
    what_is_put_reads_back
    tasks_are_found_by_id_and_by_name_but_not_by_another_tail
    a_life_is_recorded_step_by_step
    a_stale_epoch_takes_the_whole_batch_back
    pages_are_newest_first_and_filtered
    dead_letters_are_found_among_many_live_tasks
    the_ended_come_in_the_order_they_ended
    a_removed_task_frees_its_name_and_its_key_remembers_the_end
    the_first_and_last_twenty_attempts_are_kept
    keys_are_forgotten_when_their_time_is_over_and_may_be_taken_again
    a_start_finds_names_then_pauses_then_headers_in_order
    commits_take_effect_in_the_order_they_were_begun
    api_keys_are_kept_until_they_are_revoked
    pages_show_only_the_queues_that_are_visible
    after_an_unknown_commit_nothing_is_acknowledged
    closed_is_closed
}

// Only in memory: faults on demand.

#[tokio::test]
async fn memory_full_is_a_rollback_and_the_next_commit_goes_through() {
    let store = MemoryStore::new();
    commit(&store, names()).await;
    store.fail_next(CommitFault::Full);
    assert!(matches!(store.commit(vec![insert(&task(1))]).await, Err(CommitError::Full)));
    assert_eq!(recovered_tasks(&store), []);
    commit(&store, vec![insert(&task(1))]).await;
    assert_eq!(store.pressure(), Pressure::Normal);
}

#[tokio::test]
async fn memory_an_unknown_commit_is_there_after_the_crash_or_is_not() {
    for (fault, survives) in [(CommitFault::UnknownApplied, true), (CommitFault::UnknownLost, false)] {
        let store = MemoryStore::default();
        commit(&store, [names(), vec![insert(&task(1))]].concat()).await;
        store.fail_next(fault);
        for header in [task(2), task(3)] {
            assert!(matches!(store.commit(vec![insert(&header)]).await, Err(CommitError::Unknown(_))));
        }
        assert!(store.close().await.is_err(), "a store that failed is not stopped cleanly");
        let next = store.crash();
        assert_eq!(recovered(&next).0, Recovery { clean: false, created: false });
        let expected = if survives { vec![task(1), task(2)] } else { vec![task(1)] };
        assert_eq!(recovered_tasks(&next), expected, "what came after the fault is never there");
        commit(&next, vec![insert(&task(4))]).await;
        next.close().await.unwrap();
        assert!(recovered(&next.crash()).0.clean);
    }
}
