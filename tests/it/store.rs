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
use sendoff::task::header::NameId;
use sendoff::task::name::LabelName;
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
    Header {
        key,
        tail: IdTail::new(0xfeed_0000 + u64::from(n)),
        queue: DEFAULT,
        lane: LANE,
        status: Status::Queued,
        priority: Priority::default(),
        ahead: false,
        due_on_wall: false,
        series: 1,
        attempts: 0,
        attempts_total: 0,
        interruptions: 0,
        epoch: 1,
        lease: None,
        lease_until: None,
        due: noon,
        expires_at: None,
        give_up_at: None,
        first_dispatched_at: None,
        submitted_at: noon,
        changed_at: noon,
        last_class: None,
        last_http_status: None,
        dead_reason: None,
        payload_bytes: 9,
    }
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
        Recovered::Name { .. } | Recovered::Paused(_) => None,
    };
    recovered(store).1.into_iter().filter_map(task).collect()
}

/// What every store does.
mod cases {
    use super::*;

    pub(super) async fn what_is_put_reads_back(store: &dyn Store) {
        let ((header, body), plain) = (full_task(1), task(2));
        let change = Change::insert(header.clone(), Arc::new(body.clone()));
        commit(store, [names(), vec![change, insert(&plain)]].concat()).await;
        let found = store.record(by_key(&header)).await.unwrap().unwrap();
        assert_eq!(found.row.header, header);
        assert_eq!(found.row.queue.as_str(), "mail");
        assert_eq!(found.row.lane.as_str(), "https://a.example:443");
        assert_eq!(found.row.body.as_deref(), Ok(&body));
        assert_eq!(found.attempts, []);
        assert_eq!(row(store, by_key(&plain)).await.unwrap().body.as_deref(), Ok(&super::body()));
        assert_eq!(store.record(by_key(&task(3))).await.unwrap(), None);
    }

    pub(super) async fn tasks_are_found_by_id_and_by_name_but_not_by_another_tail(store: &dyn Store) {
        let (header, body) = full_task(1);
        let name = unique(name_key("order:7"), &header, 1, None);
        let change = Change::insert(header.clone(), Arc::new(body));
        commit(store, [names(), vec![change, Change::unique(name.clone())]].concat()).await;
        let found = |task: Option<TaskRef>| async { row(store, task.unwrap()).await.map(|row| row.header.key) };
        assert_eq!(found(TaskRef::parse(&header.id().to_string())).await, Some(header.key));
        assert_eq!(found(TaskRef::parse("order:7")).await, Some(header.key));
        assert_eq!(found(TaskRef::parse("order:8")).await, None);
        let guessed = TaskId { key: header.key, tail: IdTail::new(1) };
        assert_eq!(found(TaskRef::parse(&guessed.to_string())).await, None);
        let either = TaskRef { id: Some(guessed), name: TaskName::parse("order:7").ok() };
        assert_eq!(found(Some(either)).await, Some(header.key), "a name may look like an id");
        let both = store.gather(vec![by_key(&task(9)), by_key(&header)], vec![name.id, name_key("x")]).await.unwrap();
        assert_eq!(both.rows.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
        assert_eq!(both.unique, [Some(name), None]);
        let rows = store.rows(vec![task(9).key, header.key]).await.unwrap();
        assert_eq!(rows, both.rows, "the same by key");
    }

    pub(super) async fn a_life_is_recorded_step_by_step(store: &dyn Store) {
        let queued = task(1);
        let running = started(&queued);
        commit(store, [names(), vec![insert(&queued), Change::start(&queued, running.clone())]].concat()).await;
        assert_eq!(row(store, by_key(&queued)).await.unwrap().header, running);
        let dead = ended(&running, Status::Dead, 2_000);
        commit(store, vec![Change::settle(&running, dead.clone(), attempt(1))]).await;
        assert_eq!(oldest(store, true, 10).await, [dead.key]);
        let redriven = moved(&dead, Status::Queued, 3_000);
        commit(store, vec![Change::redrive(&dead, redriven.clone())]).await;
        assert_eq!(oldest(store, true, 10).await, [], "a task put back is not among the ended");
        let found = store.record(by_key(&queued)).await.unwrap().unwrap();
        assert_eq!((found.row.header, found.attempts), (redriven, vec![attempt(1)]));
    }

    pub(super) async fn a_stale_epoch_takes_the_whole_batch_back(store: &dyn Store) {
        let (first, other) = (task(1), task(2));
        commit(store, [names(), vec![insert(&first)]].concat()).await;
        let running = started(&first);
        commit(store, vec![Change::start(&first, running.clone())]).await;
        let late = ended(&first, Status::Cancelled, 9);
        let refused = store.commit(vec![insert(&other), Change::end(&first, late.clone(), None)]).await;
        match refused {
            Err(CommitError::Fenced { key, expected }) => assert_eq!((key, expected), (first.key, 1)),
            refused => panic!("expected fenced, not {refused:?}"),
        }
        assert_eq!(recovered_tasks(store), std::slice::from_ref(&running));
        let stale = task_at(&late, 1);
        for change in [Change::remove(&stale), Change::redrive(&ended(&task(3), Status::Dead, 1), task_at(&task(3), 9))]
        {
            assert!(matches!(store.commit(vec![change]).await, Err(CommitError::Fenced { .. })));
        }
        commit(store, vec![insert(&other)]).await;
        assert_eq!(recovered_tasks(store), [running, other], "and the store goes on");
    }

    fn task_at(header: &Header, epoch: u32) -> Header {
        Header { epoch, ..header.clone() }
    }

    pub(super) async fn pages_are_newest_first_and_filtered(store: &dyn Store) {
        let mut changes = names();
        let all: Vec<_> = (0..10).map(task).collect();
        for header in &all {
            let mut header = header.clone();
            let mut body = body();
            if header.key >= all[6].key {
                header.queue = MAIL;
                body.task_type = TaskType::parse("mail").unwrap();
            }
            if header.key == all[2].key {
                header.status = Status::Scheduled;
                body.labels = vec![(LabelName::parse("t").unwrap(), String::from("1"))];
            }
            changes.push(Change::insert(header, Arc::new(body)));
        }
        commit(store, changes).await;
        let expect = |numbers: &[usize]| numbers.iter().map(|n| all[*n].key).collect::<Vec<_>>();
        let any = TaskFilter::default;

        let first = page(store, any(), None, (4, 100)).await;
        assert_eq!((keys(&first), first.next), (expect(&[9, 8, 7, 6]), Some(all[6].key)));
        let rest = page(store, any(), first.next, (6, 100)).await;
        assert_eq!((keys(&rest), rest.next), (expect(&[5, 4, 3, 2, 1, 0]), None), "exactly full, and no more");

        let queue = |name| TaskFilter { queue: QueueName::parse(name).ok(), ..any() };
        let short = page(store, queue("default"), None, (100, 5)).await;
        assert_eq!((keys(&short), short.next), (expect(&[5]), Some(all[5].key)), "a short page says there is more");
        assert_eq!(keys(&page(store, queue("mail"), None, (100, 100)).await), expect(&[9, 8, 7, 6]));
        let nothing = page(store, queue("nobody"), None, (100, 100)).await;
        assert_eq!((keys(&nothing), nothing.next), (vec![], None));

        let status = TaskFilter { status: Some(Status::Scheduled), ..any() };
        assert_eq!(keys(&page(store, status, None, (9, 100)).await), expect(&[2]));
        let of_type = TaskFilter { task_type: TaskType::parse("mail").ok(), ..any() };
        assert_eq!(keys(&page(store, of_type, None, (9, 100)).await), expect(&[9, 8, 7, 6]));
        let label = |value: &str| vec![(LabelName::parse("t").unwrap(), String::from(value))];
        assert_eq!(keys(&page(store, TaskFilter { labels: label("1"), ..any() }, None, (9, 99)).await), expect(&[2]));
        assert_eq!(keys(&page(store, TaskFilter { labels: label("2"), ..any() }, None, (9, 99)).await), []);
    }

    pub(super) async fn dead_letters_are_found_among_many_live_tasks(store: &dyn Store) {
        let mut changes = names();
        changes.extend((0..50).map(|n| insert(&task(n))));
        for (n, reason) in [(3, DeadReason::MaxAttempts), (7, DeadReason::PermanentStatus)] {
            let mut dead = ended(&task(n), Status::Dead, 100);
            dead.dead_reason = Some(reason);
            changes.push(Change::end(&task(n), dead, None));
        }
        commit(store, changes).await;
        let dead = || TaskFilter { status: Some(Status::Dead), ..TaskFilter::default() };
        let found = page(store, dead(), None, (10, 2)).await;
        assert_eq!((keys(&found), found.next), (vec![task(7).key, task(3).key], None), "live ones are not looked at");
        let reason = TaskFilter { dead_reason: Some(DeadReason::MaxAttempts), ..TaskFilter::default() };
        assert_eq!(keys(&page(store, reason, None, (10, 10)).await), [task(3).key]);
        let live = TaskFilter { dead_reason: Some(DeadReason::MaxAttempts), status: Some(Status::Queued), ..dead() };
        assert_eq!(keys(&page(store, live, None, (10, 10)).await), []);
    }

    pub(super) async fn the_ended_come_in_the_order_they_ended(store: &dyn Store) {
        let mut changes = names();
        let ends = [Status::Succeeded, Status::Dead, Status::Cancelled, Status::Expired, Status::Succeeded];
        for (n, status) in (0_u32..).zip(ends) {
            let queued = task(n);
            changes.extend([insert(&queued), Change::end(&queued, ended(&queued, status, 100 - i64::from(n)), None)]);
        }
        let mut elsewhere = task(9);
        elsewhere.queue = MAIL;
        let end = ended(&elsewhere, Status::Succeeded, 1);
        changes.extend([insert(&elsewhere), Change::end(&elsewhere, end, None)]);
        commit(store, changes).await;
        assert_eq!(oldest(store, false, 9).await, [4, 3, 2, 0].map(|n| task(n).key));
        assert_eq!(oldest(store, false, 2).await, [4, 3].map(|n| task(n).key));
        assert_eq!(oldest(store, true, 9).await, [task(1).key]);
    }

    pub(super) async fn a_removed_task_frees_its_name_and_its_key_remembers_the_end(store: &dyn Store) {
        let (mut queued, body) = full_task(1);
        queued.status = Status::Queued;
        let key_of_one = UniqueId { kind: UniqueKind::Idempotency, hash: body.idempotency.unwrap() };
        let name = name_key("order:7");
        let end = ended(&queued, Status::Succeeded, 5);
        let changes = vec![
            Change::insert(queued.clone(), Arc::new(body.clone())),
            Change::unique(unique(name, &queued, 1, None)),
            Change::unique(unique(key_of_one, &queued, 1, Some(1_000))),
            Change::end(&queued, end.clone(), Some(attempt(1))),
        ];
        commit(store, [names(), changes].concat()).await;
        commit(store, vec![Change::remove(&end)]).await;
        assert_eq!(row(store, by_key(&queued)).await, None);
        assert_eq!(key(store, name).await, None);
        assert_eq!(key(store, key_of_one).await.unwrap().ended, Some(Status::Succeeded));
        assert!(store.oldest_ended(OldestEnded { queue: MAIL, dead: false, limit: 9 }).await.unwrap().is_empty());

        // The name is free, a new task may take it; the next removal of neither touches a batch's key.
        let mut next = task(2);
        next.queue = MAIL;
        let batch = UniqueId { kind: UniqueKind::Idempotency, hash: 77 };
        let mut in_batch = body;
        in_batch.idempotency = Some(77);
        let end = ended(&next, Status::Cancelled, 6);
        let changes = vec![
            Change::insert(next.clone(), Arc::new(in_batch)),
            Change::unique(unique(name, &next, 1, None)),
            Change::unique(unique(batch, &next, 2, Some(1_000))),
            Change::end(&next, end.clone(), None),
        ];
        commit(store, changes).await;
        let again = row(store, TaskRef::parse("order:7").unwrap()).await.unwrap();
        assert_eq!(
            (again.header.key, store.record(by_key(&next)).await.unwrap().unwrap().attempts),
            (next.key, vec![])
        );
        commit(store, vec![Change::remove(&end)]).await;
        assert_eq!(key(store, batch).await.unwrap().ended, None, "a range of several has no one end");
    }

    pub(super) async fn the_first_and_last_twenty_attempts_are_kept(store: &dyn Store) {
        let queued = task(1);
        let mut now = started(&queued);
        let mut changes = [names(), vec![insert(&queued), Change::start(&queued, now.clone())]].concat();
        for ordinal in 1..=43 {
            let retrying = moved(&now, Status::Retrying, 5);
            changes.push(Change::settle(&now, retrying.clone(), attempt(ordinal)));
            now = started(&retrying);
            changes.push(Change::start(&retrying, now.clone()));
            commit(store, std::mem::take(&mut changes)).await;
            let kept = store.record(by_key(&queued)).await.unwrap().unwrap().attempts;
            let kept: Vec<_> = kept.into_iter().map(|attempt| attempt.ordinal).collect();
            let expected: Vec<_> = (1..=ordinal).filter(|n| *n <= 20 || *n > ordinal.saturating_sub(20)).collect();
            assert_eq!(kept, expected, "after {ordinal}");
        }
    }

    pub(super) async fn keys_are_forgotten_when_their_time_is_over_and_may_be_taken_again(store: &dyn Store) {
        let id = |hash| UniqueId { kind: UniqueKind::Idempotency, hash };
        let named = UniqueId { kind: UniqueKind::TaskName, hash: 1 };
        let mut changes: Vec<_> = [(1, 300), (2, 100), (3, 200)]
            .map(|(hash, until)| Change::unique(unique(id(hash), &task(1), 1, Some(until))))
            .into();
        changes.push(Change::unique(unique(named, &task(1), 1, None)));
        commit(store, changes).await;
        commit(store, vec![Change::forget(WallMs::new(99), 10)]).await;
        assert!(key(store, id(2)).await.is_some(), "not before its time");
        commit(store, vec![Change::forget(WallMs::new(300), 2)]).await;
        assert_eq!((key(store, id(2)).await, key(store, id(3)).await), (None, None), "the oldest first");
        assert!(key(store, id(1)).await.is_some(), "no more than asked for");
        let other = UniqueRecord { digest: 9, ..unique(id(1), &task(2), 1, Some(900)) };
        commit(store, vec![Change::unique(other.clone())]).await;
        assert_eq!(key(store, id(1)).await, Some(other), "one whose time is over is replaced");
        commit(store, vec![Change::forget(WallMs::new(i64::MAX), 10)]).await;
        assert!(key(store, named).await.is_some(), "names stay with their task, and the kinds never collide");
    }

    pub(super) async fn a_start_finds_names_then_pauses_then_headers_in_order(store: &dyn Store) {
        let mut changes = names();
        changes.extend([3, 1, 2].map(|n| insert(&task(n))));
        changes.extend([Change::pause(MAIL, true), Change::pause(DEFAULT, true), Change::pause(DEFAULT, false)]);
        commit(store, changes).await;
        let words = recovered(store).1.into_iter().map(|one| match one {
            Recovered::Name { kind, id, text } => format!("{kind:?} {} {text}", id.0),
            Recovered::Paused(id) => format!("paused {}", id.0),
            Recovered::Task { header, damage } => {
                format!("{:?} {damage:?}", header.key.to_i64() - task(0).key.to_i64())
            }
        });
        let expected = [
            "Queue 0 default",
            "Queue 1 mail",
            "Lane 0 https://a.example:443",
            "paused 1",
            "1 None",
            "2 None",
            "3 None",
        ];
        assert_eq!(words.collect::<Vec<_>>(), expected);
    }

    pub(super) async fn commits_take_effect_in_the_order_they_were_begun(store: &dyn Store) {
        let mut now = task(1);
        commit(store, [names(), vec![insert(&now)]].concat()).await;
        let mut pending = Vec::new();
        for _ in 0..20 {
            let next = moved(&now, Status::Queued, 5);
            pending.push(store.commit(vec![Change::put_ahead(&now, next.clone())]));
            now = next;
        }
        // Waited for in the wrong order: they began when they were asked for.
        while let Some(last) = pending.pop() {
            last.await.unwrap();
        }
        assert_eq!(row(store, by_key(&now)).await.unwrap().header, now);
    }

    pub(super) async fn after_an_unknown_commit_nothing_is_acknowledged(store: &dyn Store) {
        commit(store, [names(), vec![insert(&task(1))]].concat()).await;
        let twice = store.commit(vec![insert(&task(2)), insert(&task(1))]).await;
        assert!(matches!(twice, Err(CommitError::Unknown(_))), "a key given twice is no legal history: {twice:?}");
    }

    pub(super) async fn closed_is_closed(store: &dyn Store) {
        commit(store, names()).await;
        store.close().await.unwrap();
        assert!(matches!(store.close().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.commit(vec![insert(&task(1))]).await, Err(CommitError::Unknown(_))));
        assert!(matches!(store.record(by_key(&task(1))).await, Err(StoreError::Unavailable(_))));
    }
}

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
                super::cases::$case(&super::open(dir.path())).await;
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

// Only on disk.

fn options() -> SqliteOptions {
    SqliteOptions::new(Clock::system())
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, options()).unwrap()
}

/// What somebody does with another tool.
fn meddle(dir: &Path, sql: &str) {
    rusqlite::Connection::open(dir.join("sendoff.db")).unwrap().execute_batch(sql).unwrap();
}

fn read_damage(row: Option<Row>) -> String {
    row.unwrap().body.unwrap_err().to_string()
}

#[tokio::test]
async fn sqlite_reopens_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(recovered(&store).0, Recovery { clean: true, created: true });
    let (header, body) = full_task(1);
    let change = Change::insert(header.clone(), Arc::new(body.clone()));
    commit(&store, [names(), vec![change, Change::pause(MAIL, true)]].concat()).await;
    store.close().await.unwrap();
    assert_eq!(fs::metadata(dir.path().join("sendoff.db-wal")).map_or(0, |wal| wal.len()), 0, "nothing is left to do");

    let store = open(dir.path());
    assert_eq!(recovered(&store).0, Recovery { clean: true, created: false });
    let found = row(&store, by_key(&header)).await.unwrap();
    assert_eq!((&found.header, found.body.as_deref(), found.queue.as_str()), (&header, Ok(&body), "mail"));
    assert!(recovered(&store).1.iter().any(|one| matches!(one, Recovered::Paused(MAIL))));
    drop(store);
    assert!(!recovered(&open(dir.path())).0.clean, "dropped is not closed");
}

#[tokio::test]
async fn sqlite_keeps_every_acknowledged_commit_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, names()).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for n in 0..25 {
            let header = task(round * 100 + n);
            commit(&store, vec![insert(&header)]).await;
            acknowledged.push(header);
        }
        let copy = tempfile::tempdir().unwrap();
        for name in ["sendoff.db", "sendoff.db-wal"] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let killed = open(copy.path());
        assert_eq!(recovered(&killed).0, Recovery { clean: false, created: false });
        assert_eq!(recovered_tasks(&killed), acknowledged);
        commit(&killed, vec![insert(&task(99_999))]).await;
    }
}

#[test]
fn sqlite_a_directory_has_one_owner_who_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = SqliteStore::open(dir.path(), options()).unwrap_err();
    let message = second.to_string();
    assert!(matches!(second, StoreError::InUse { .. }), "{message}");
    let owner =
        format!("in use by process {}; stop that one first, or give this one another data_dir", std::process::id());
    assert!(message.contains(&owner), "{message}");
    drop(first);
    open(dir.path());
}

#[test]
fn sqlite_files_are_for_their_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/data");
    let store = open(&dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.insert(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["sendoff.db", "sendoff.db-wal", "lock"] {
        assert!(names.contains(name), "{names:?}");
    }
    fs::set_permissions(dir.join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(store);
    drop(open(&dir));
    assert_eq!(mode(&dir.join("lock")), 0o600, "set right when found otherwise");
}

#[tokio::test]
async fn sqlite_refuses_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await.unwrap();
    meddle(dir.path(), "UPDATE meta SET value = 99 WHERE key = 'format'");
    let error = SqliteStore::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 99, expected: 1 }), "{error}");

    let foreign = tempfile::tempdir().unwrap();
    meddle(foreign.path(), "CREATE TABLE mine (a)");
    let error = SqliteStore::open(foreign.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    let garbage = tempfile::tempdir().unwrap();
    fs::write(garbage.path().join("sendoff.db"), [b'x'; 8192]).unwrap();
    let error = SqliteStore::open(garbage.path(), options()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    let file = garbage.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SqliteStore::open(&file.join("data"), options()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

fn damaged_tasks(store: &dyn Store) -> Vec<Header> {
    let damaged = |one| match one {
        Recovered::Task { header, damage: Some(damage) } => {
            assert!(damage.to_string().starts_with("the record in table task, row "), "{damage}");
            Some(*header)
        }
        Recovered::Task { .. } | Recovered::Name { .. } | Recovered::Paused(_) => None,
    };
    recovered(store).1.into_iter().filter_map(damaged).collect()
}

#[tokio::test]
async fn sqlite_notices_a_damaged_header_and_lets_its_task_end() {
    let damages = [
        "UPDATE task SET attempts = attempts + 1 WHERE id = ",
        "UPDATE task SET status = 77 WHERE id = ",
        "UPDATE task SET tail = -1 WHERE id = ",
        "UPDATE task SET epoch = x'00ff' WHERE id = ",
        "UPDATE task SET epoch = 4294967297 WHERE id = ",
        "UPDATE task SET due = NULL WHERE id = ",
        "UPDATE task SET checksum = NULL WHERE id = ",
        "UPDATE task SET checksum = checksum + 1 WHERE id = ",
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        commit(&store, [names(), vec![insert(&task(1)), insert(&task(2))]].concat()).await;
        meddle(dir.path(), &format!("{damage}{}", task(1).key.to_i64()));
        let bad = damaged_tasks(&store);
        let [bad] = bad.as_slice() else { panic!("exactly one is damaged after {damage}: {bad:?}") };
        assert_eq!(bad.key, task(1).key);
        let found = read_damage(row(&store, by_key(bad)).await);
        assert!(found.contains("is damaged: "), "{found}");
        let listed = page(&store, TaskFilter::default(), None, (9, 9)).await;
        assert_eq!(listed.rows.iter().filter(|row| row.body.is_err()).count(), 1, "it does not hide the others");

        let end = Header { dead_reason: Some(DeadReason::Corrupt), ..ended(bad, Status::Dead, 5) };
        commit(&store, vec![Change::end(bad, end.clone(), None)]).await;
        let found = row(&store, by_key(&end)).await.unwrap();
        assert_eq!((found.header, found.body.is_ok()), (end, true), "written again, it is whole again");
    }
}

#[tokio::test]
async fn sqlite_notices_damaged_bodies_and_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queued = task(1);
    let end = ended(&queued, Status::Succeeded, 5);
    let changes = vec![insert(&queued), insert(&task(2)), Change::end(&queued, end.clone(), Some(attempt(1)))];
    commit(&store, [names(), changes].concat()).await;
    let typed = || TaskFilter { task_type: TaskType::parse("http_request").ok(), ..TaskFilter::default() };
    assert_eq!(page(&store, typed(), None, (9, 9)).await.rows.len(), 2);

    // A row served from the wrong place has a checksum that is right, for another row.
    let (one, two) = (queued.key.to_i64(), task(2).key.to_i64());
    meddle(
        dir.path(),
        &format!("UPDATE payload SET id = 5 WHERE id = {one}; UPDATE payload SET id = {one} WHERE id = {two}"),
    );
    assert!(read_damage(row(&store, by_key(&queued)).await).ends_with("its checksum does not match"));
    assert!(read_damage(row(&store, by_key(&task(2))).await).ends_with("it is missing"));
    assert_eq!(page(&store, typed(), None, (9, 9)).await.rows, []);
    meddle(dir.path(), &format!("UPDATE payload SET body = NULL WHERE id = {one}"));
    assert!(read_damage(row(&store, by_key(&queued)).await).ends_with("the payload is missing"));

    meddle(dir.path(), "UPDATE attempt SET head = x'00'");
    let attempts = store.record(by_key(&queued)).await.unwrap().unwrap().attempts;
    assert_eq!(attempts.len(), 1, "a damaged attempt is shown as such");
    assert_eq!(attempts[0].class, OutcomeClass::Corrupt);
    assert!(attempts[0].error.as_deref().unwrap().contains("table attempt"), "{attempts:?}");
    commit(&store, vec![Change::remove(&end)]).await;
    assert_eq!(row(&store, by_key(&queued)).await, None, "what is damaged can be removed");
}

#[tokio::test]
async fn sqlite_full_is_a_rollback_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = SqliteOptions { file_bytes_max: Some(400 * 1024), ..options() };
    let store = SqliteStore::open(dir.path(), bounded).unwrap();
    let had_ballast = dir.path().join("ballast").exists();
    let mut changes = names();
    let small: Vec<_> = (0..40).map(task).collect();
    let large = Body { payload: Bytes::from(vec![b'x'; 6_000]), ..body() };
    let large = Arc::new(large);
    changes.extend(small.iter().map(|header| Change::insert(header.clone(), Arc::clone(&large))));
    commit(&store, changes).await;

    let batch = || (100..140).map(|n| Change::insert(task(n), Arc::clone(&large))).collect::<Vec<_>>();
    let full = store.commit(batch()).await;
    assert!(matches!(full, Err(CommitError::Full)), "{full:?}");
    assert!(!dir.path().join("ballast").exists(), "the ballast was thrown off first (it was there: {had_ballast})");
    assert!(matches!(store.pressure(), Pressure::BelowReserve { .. }), "and no new task is taken");
    assert_eq!(recovered_tasks(&store), small, "nothing of the batch is there");

    for header in &small {
        let end = ended(header, Status::Succeeded, 5);
        commit(&store, vec![Change::end(header, end.clone(), None)]).await;
        commit(&store, vec![Change::remove(&end)]).await;
    }
    commit(&store, batch()).await;
    assert_eq!(recovered_tasks(&store).len(), 40);
    drop(store);
    let store = open(dir.path());
    assert_eq!(recovered_tasks(&store).len(), 40);
    assert_eq!(dir.path().join("ballast").exists(), had_ballast, "made again at the next start at the latest");
}

#[tokio::test]
async fn sqlite_acknowledges_nothing_after_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, [names(), vec![insert(&task(1))]].concat()).await;
    meddle(dir.path(), "ALTER TABLE payload RENAME TO hidden");
    assert!(matches!(store.commit(vec![insert(&task(2))]).await, Err(CommitError::Unknown(_))));
    meddle(dir.path(), "ALTER TABLE hidden RENAME TO payload");
    for _ in 0..3 {
        let refused = store.commit(vec![insert(&task(3))]).await;
        assert!(matches!(refused, Err(CommitError::Unknown(_))), "though it would work again: {refused:?}");
    }
    assert!(store.close().await.is_err(), "and the stop is not a clean one");
    drop(store);
    let store = open(dir.path());
    assert!(!recovered(&store).0.clean);
    assert_eq!(recovered_tasks(&store), [task(1)]);
}

#[tokio::test]
async fn sqlite_writes_its_log_back_and_gives_pages_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, names()).await;
    let large = Arc::new(Body { payload: Bytes::from(vec![b'x'; 1024 * 1024]), ..body() });
    for n in 0..150 {
        commit(&store, vec![Change::insert(task(n), Arc::clone(&large))]).await;
    }
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("sendoff.db-wal") < 80 << 20, "150 MiB went through a log of {} bytes", size("sendoff.db-wal"));
    assert_eq!(recovered_tasks(&store).len(), 150);
    let ends: Vec<_> = (0..150).map(|n| ended(&task(n), Status::Succeeded, 5)).collect();
    commit(&store, ends.iter().map(|end| Change::end(&task_of(end), end.clone(), None)).collect()).await;
    commit(&store, ends.iter().map(Change::remove).collect()).await;
    // Pages are given back while nobody commits, in small steps; what this waits for is the first of them.
    let other = rusqlite::Connection::open(dir.path().join("sendoff.db")).unwrap();
    let pages = || other.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = pages();
    let given_back = (0..1_000_000).any(|_| pages() < before);
    assert!(given_back, "{before} pages, nearly all of them free, are kept");
    drop(other);
    store.close().await.unwrap();
    assert_eq!(recovered_tasks(&open(dir.path())), []);
}

fn task_of(end: &Header) -> Header {
    let mut queued = end.clone();
    (queued.status, queued.epoch) = (Status::Queued, end.epoch - 1);
    queued
}
