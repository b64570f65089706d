//! What every store does.

use sendoff::security::credential::sealed::SealedCredential;
use sendoff::task::CredentialName;

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
    for change in [Change::remove(&stale), Change::redrive(&ended(&task(3), Status::Dead, 1), task_at(&task(3), 9))] {
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
    assert_eq!(keys(&page(store, status.clone(), None, (9, 100)).await), expect(&[2]));
    let due = all[2].due;
    let one_below = Some(WallMs::new(due.get() - 1));
    let early = TaskFilter { at: one_below, ..status.clone() };
    assert_eq!(keys(&page(store, early, None, (9, 100)).await), expect(&[2]), "not due yet");
    let late = TaskFilter { at: Some(due), ..status.clone() };
    assert_eq!(keys(&page(store, late, None, (9, 100)).await), [], "its time has come");
    let queued = |at| TaskFilter { status: Some(Status::Queued), at, ..any() };
    let (before, after) =
        (page(store, queued(one_below), None, (9, 100)).await, page(store, queued(Some(due)), None, (9, 100)).await);
    assert!(!keys(&before).contains(&all[2].key) && keys(&after).contains(&all[2].key), "it is queued now");
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
    assert_eq!((again.header.key, store.record(by_key(&next)).await.unwrap().unwrap().attempts), (next.key, vec![]));
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
        Recovered::Damaged => String::from("damaged"),
        Recovered::Task { header, damage } => {
            format!("{:?} {damage:?}", header.key.to_i64() - task(0).key.to_i64())
        }
    });
    let expected =
        ["Queue 0 default", "Queue 1 mail", "Lane 0 https://a.example:443", "paused 1", "1 None", "2 None", "3 None"];
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

fn api_key(id: &str, used: Option<i64>) -> KeyRecord {
    KeyRecord {
        id: Arc::from(id),
        name: KeyName::parse("mail-service").unwrap(),
        digest: KeyDigest::of("a secret"),
        scopes: Arc::new(Scopes::parse(["enqueue:mail-*", "read"]).unwrap()),
        created_at: WallMs::new(1_000),
        expires_at: Some(WallMs::new(-9)),
        last_used_at: used.map(WallMs::new),
    }
}

async fn api_keys(store: &dyn Store) -> Vec<KeyRecord> {
    store.api_keys().await.unwrap().into_iter().map(|key| key.expect("whole")).collect()
}

pub(super) async fn credentials_are_kept_until_they_are_removed(store: &dyn Store) {
    let kept = async || {
        let kept = store.credentials().await.unwrap().into_iter();
        kept.map(|credential| credential.expect("whole")).collect::<Vec<_>>()
    };
    assert_eq!(kept().await, []);
    let (first, second) = (sealed("billing", 1), sealed("signed", 2));
    commit(store, vec![Change::credential_put(second.clone()), Change::credential_put(first.clone())]).await;
    assert_eq!(kept().await, [first, second.clone()], "by name");
    let other = sealed("billing", 3);
    commit(store, vec![Change::credential_put(other.clone())]).await;
    assert_eq!(kept().await, [other.clone(), second.clone()]);
    let gone = |credential: &SealedCredential| Change::credential_removed(credential.name.clone());
    commit(store, vec![gone(&other), gone(&sealed("unknown", 0))]).await;
    assert_eq!(kept().await, [second]);
}

/// A credential whose seal is of no interest here.
pub(super) fn sealed(name: &str, byte: u8) -> SealedCredential {
    let changed_at = WallMs::new(1_800_000_000_000 + i64::from(byte));
    SealedCredential { name: CredentialName::parse(name).unwrap(), changed_at, sealed: vec![byte; 40] }
}

pub(super) async fn api_keys_are_kept_until_they_are_revoked(store: &dyn Store) {
    assert_eq!(api_keys(store).await, []);
    let (first, second) = (api_key("aaaaaaaa", None), api_key("bbbbbbbb", Some(7)));
    commit(store, vec![Change::key_created(second.clone()), Change::key_created(first.clone())]).await;
    assert_eq!(api_keys(store).await, [first.clone(), second.clone()]);
    let used = KeyRecord { last_used_at: Some(WallMs::new(60_000)), ..first.clone() };
    commit(store, vec![Change::key_used(used.clone())]).await;
    assert_eq!(api_keys(store).await, [used.clone(), second.clone()]);
    commit(store, vec![Change::key_revoked(Arc::clone(&first.id)), Change::key_revoked(Arc::from("unknown"))]).await;
    assert_eq!(api_keys(store).await, std::slice::from_ref(&second));
    commit(store, vec![Change::key_used(used)]).await;
    assert_eq!(api_keys(store).await, [second], "a last use does not bring a revoked key back");
}

pub(super) async fn pages_show_only_the_queues_that_are_visible(store: &dyn Store) {
    let mut changes = names();
    let all: Vec<_> = (0..6).map(task).collect();
    for (n, header) in all.iter().enumerate() {
        let queue = if n % 2 == 0 { DEFAULT } else { MAIL };
        changes.push(Change::insert(Header { queue, ..header.clone() }, Arc::new(body())));
    }
    commit(store, changes).await;
    let visible = |globs: &[&str]| {
        let globs: QueueGlobs = globs.iter().map(|glob| QueueGlob::parse(glob).unwrap()).collect();
        TaskFilter { visible: Some(globs), ..TaskFilter::default() }
    };
    let seen = |numbers: &[usize]| numbers.iter().map(|n| all[*n].key).collect::<Vec<_>>();
    assert_eq!(keys(&page(store, visible(&["ma*"]), None, (9, 99)).await), seen(&[5, 3, 1]));
    assert_eq!(keys(&page(store, visible(&["x", "default"]), None, (9, 99)).await), seen(&[4, 2, 0]));
    assert_eq!(keys(&page(store, visible(&["*"]), None, (9, 99)).await), seen(&[5, 4, 3, 2, 1, 0]));
    assert_eq!(keys(&page(store, visible(&[]), None, (9, 99)).await), []);
    let hidden = TaskFilter { queue: QueueName::parse("mail").ok(), ..visible(&["default"]) };
    assert_eq!(keys(&page(store, hidden, None, (9, 99)).await), []);
    let first = page(store, visible(&["mail"]), None, (9, 2)).await;
    assert_eq!((keys(&first), first.next), (seen(&[5]), Some(all[4].key)), "no more rows are looked at than may be");
    let rest = page(store, visible(&["mail"]), first.next, (1, 99)).await;
    assert_eq!((keys(&rest), rest.next), (seen(&[3]), Some(all[3].key)), "and no more are on a page");
}
