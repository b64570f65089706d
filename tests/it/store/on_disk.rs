//! What only the store on disk can show: restarts, damage, a full disk.

use super::*;

fn options() -> SqliteOptions {
    SqliteOptions::new(Clock::system())
}

pub(super) fn open(dir: &Path) -> SqliteStore {
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
async fn sqlite_writes_the_log_back_although_it_says_that_the_stop_was_clean() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let header = task(1);
    commit(&store, [names(), vec![insert(&header)]].concat()).await;
    // As after a stop whose last sync failed: the mark is in a log that the disk may never have got.
    let stopping = rusqlite::Connection::open(dir.path().join("sendoff.db")).unwrap();
    stopping.execute("UPDATE meta SET value = 1 WHERE key = 'clean'", []).unwrap();
    let (found, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["sendoff.db", "sendoff.db-wal"] {
        fs::copy(dir.path().join(name), found.path().join(name)).unwrap();
    }
    let _opened = open(found.path());
    fs::copy(found.path().join("sendoff.db"), kept.path().join("sendoff.db")).unwrap();
    assert_eq!(recovered_tasks(&open(kept.path())), [header], "the database file alone holds it");
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
    assert!(matches!(error, StoreError::Format { found: 99, expected: 3 }), "{error}");

    let before = tempfile::tempdir().unwrap();
    open(before.path()).close().await.unwrap();
    meddle(before.path(), "UPDATE meta SET value = 2 WHERE key = 'format'");
    open(before.path()).close().await.unwrap();
    meddle(before.path(), "UPDATE meta SET value = value + 95 WHERE key = 'format'");
    let error = SqliteStore::open(before.path(), options()).unwrap_err();
    assert!(
        matches!(error, StoreError::Format { found: 98, .. }),
        "taken over, and from then on of this format: {error}"
    );

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
        Recovered::Task { .. } | Recovered::Name { .. } | Recovered::Paused(_) | Recovered::Damaged => None,
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

#[tokio::test]
async fn sqlite_a_damaged_unique_key_is_neither_free_nor_anybody_elses() {
    let damages = [
        "first = first + 1 - 2 * (first & 1)",
        "count = count + 1 - 2 * (count & 1)",
        "tail = tail + 1 - 2 * (tail & 1)",
        "until = until + 1 - 2 * (until & 1)",
        "digest = x'01' || substr(digest, 2)",
        "ended = 1",
        "checksum = checksum + 1 - 2 * (checksum & 1)",
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let id = |hash| UniqueId { kind: UniqueKind::Idempotency, hash };
        let whole = unique(id(2), &task(2), 1, Some(900));
        let keys = [unique(id(1), &task(1), 1, Some(900)), whole.clone()];
        let changes = keys.map(Change::unique).to_vec();
        commit(&store, [names(), vec![insert(&task(1)), insert(&task(2))], changes].concat()).await;
        meddle(dir.path(), &format!("UPDATE unique_key SET {damage} WHERE first = {}", task(1).key.to_i64()));
        let found = store.gather(Vec::new(), vec![id(1), id(2)]).await.unwrap();
        assert_eq!(found.unique, [None, Some(whole)], "{damage}");
        assert_eq!(found.damaged.keys().copied().collect::<Vec<_>>(), [id(1)], "{damage}");
        assert!(found.damaged[&id(1)].to_string().starts_with("the record in table unique_key, row "), "{found:?}");
    }
}

#[tokio::test]
async fn sqlite_a_task_whose_name_is_damaged_is_not_found_by_it_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let name = TaskName::parse("mine").unwrap();
    let id = UniqueId { kind: UniqueKind::TaskName, hash: sendoff::queue::store::task_name_hash(&name) };
    let key = Change::unique(unique(id, &task(1), 1, None));
    commit(&store, [names(), vec![insert(&task(1)), insert(&task(2)), key]].concat()).await;
    meddle(dir.path(), "UPDATE unique_key SET tail = tail + 1 - 2 * (tail & 1)");
    let named = TaskRef { id: None, name: Some(name) };
    let found = store.gather(vec![named.clone(), by_key(&task(2))], Vec::new()).await.unwrap();
    assert!(found.rows[0].is_none() && found.rows[1].is_some() && found.damaged.contains_key(&id), "{found:?}");
    let refused = store.record(named).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn sqlite_damaged_names_are_counted_and_their_tasks_are_under_a_placeholder() {
    for (kind, column) in [(0, "queue"), (1, "lane")] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        commit(&store, [names(), vec![insert(&task(1))]].concat()).await;
        store.close().await.unwrap();
        meddle(dir.path(), &format!("UPDATE name SET text = 'l' || substr(text, 2) WHERE kind = {kind} AND id = 0"));
        let store = open(dir.path());
        let told = recovered(&store).1;
        let damaged = told.iter().filter(|one| matches!(one, Recovered::Damaged)).count();
        assert_eq!((damaged, recovered_tasks(&store)), (1, vec![task(1)]), "{column}");
        let found = row(&store, by_key(&task(1))).await.unwrap();
        let shown = if kind == 0 { found.queue.to_string() } else { found.lane.to_string() };
        assert_eq!(shown, "damaged.0", "{column}");
    }
}

#[tokio::test]
async fn sqlite_a_queue_whose_pause_is_damaged_counts_as_paused() {
    for (paused, damage) in [(true, "paused = 0"), (false, "paused = 1"), (false, "checksum = checksum ^ 1")] {
        let damage = damage.replace("checksum ^ 1", "checksum + 1 - 2 * (checksum & 1)");
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        commit(&store, [names(), vec![Change::pause(MAIL, paused)]].concat()).await;
        meddle(dir.path(), &format!("UPDATE queue SET {damage}"));
        let told = recovered(&store).1;
        assert!(told.iter().any(|one| matches!(one, Recovered::Paused(MAIL))), "{damage}: {told:?}");
        assert!(told.iter().any(|one| matches!(one, Recovered::Damaged)), "{damage}: {told:?}");
    }
}

fn task_of(end: &Header) -> Header {
    let mut queued = end.clone();
    (queued.status, queued.epoch) = (Status::Queued, end.epoch - 1);
    queued
}

#[tokio::test]
async fn sqlite_lets_nobody_in_by_a_damaged_key_and_keeps_the_others() {
    let damages = [
        "scopes = 'admin'",
        "scopes = 'everything'",
        "digest = zeroblob(32)",
        "digest = x'00'",
        "expires_at = NULL",
        "name = 'other'",
        "checksum = checksum + 1",
        "created_at = 'x'",
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let key = |id: &str| KeyRecord {
            id: Arc::from(id),
            name: KeyName::parse("mail").unwrap(),
            digest: KeyDigest::of("a secret"),
            scopes: Arc::new(Scopes::parse(["read"]).unwrap()),
            created_at: WallMs::new(1),
            expires_at: Some(WallMs::new(2)),
            last_used_at: None,
        };
        commit(&store, vec![Change::key_created(key("aaaaaaaa")), Change::key_created(key("bbbbbbbb"))]).await;
        meddle(dir.path(), &format!("UPDATE api_key SET {damage} WHERE id = 'aaaaaaaa'"));
        let found = store.api_keys().await.unwrap();
        assert!(
            found[0].as_ref().is_err_and(|damage| damage.to_string().starts_with("API key aaaaaaaa: ")),
            "{damage}"
        );
        assert_eq!(found[1], Ok(key("bbbbbbbb")), "{damage}");
    }
}

#[tokio::test]
async fn sqlite_adds_the_table_of_keys_to_a_store_without_it() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await.unwrap();
    meddle(dir.path(), "DROP TABLE api_key");
    let store = open(dir.path());
    assert_eq!(store.api_keys().await.unwrap(), []);
}
