//! Dead letters: found, read, put back, deleted; and what becomes of tasks that have ended.

use reqwest::Method;
use sendoff::config::QueueConfig;
use sendoff::task::Span;
use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::server::{Home, TestServer, task};
use crate::support::story::{TICK, list, play, secs, settled, story};
use crate::support::target::{Reply, Target};

async fn stage() -> (TestServer, Target) {
    (TestServer::start().await, Target::start().await)
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default())
}

/// Posts a task that ends by its first attempt; gives its id.
async fn ended(server: &TestServer, url: &str, more: &Value) -> String {
    let id = server.create(url, more).await;
    settled(server, &id).await;
    id
}

/// The ids on a page, sorted.
fn ids(page: &Value) -> Vec<String> {
    let mut ids: Vec<_> =
        list(&page["dead_letters"]).iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

/// Three dead letters of different kinds: `a1` and `a2` in `default`, `b` in `mails`.
async fn three_dead() -> (TestServer, Target) {
    let (server, target) = (Home::new().with_queue("mails", |_| ()).start().await, Target::start().await);
    target.on("/404", [Reply::status(404)]);
    target.on("/500", [Reply::status(500)]);
    let labels = json!({"tenant": "42"});
    ended(&server, &target.url("/404"), &json!({"task_id": "a1", "labels": labels})).await;
    ended(&server, &target.url("/404"), &json!({"task_id": "a2"})).await;
    let once = json!({"max_attempts": 1});
    ended(&server, &target.url("/500"), &json!({"task_id": "b", "queue": "mails", "labels": labels, "retry": once}))
        .await;
    ended(&server, &target.url("/200"), &json!({"task_id": "fine"})).await;
    (server, target)
}

#[tokio::test]
async fn dead_letters_are_listed_filtered_and_counted() {
    let (server, _target) = three_dead().await;
    for (query, expected) in [
        ("", &["a1", "a2", "b"][..]),
        ("?queue=default", &["a1", "a2"]),
        ("?queue=mails", &["b"]),
        ("?reason=permanent_status", &["a1", "a2"]),
        ("?reason=max_attempts", &["b"]),
        ("?reason=corrupt", &[]),
        ("?label.tenant=42", &["a1", "b"]),
        ("?label.tenant=42&queue=default", &["a1"]),
        ("?label.tenant=43", &[]),
        ("?task_type=http_request", &["a1", "a2", "b"]),
        ("?task_type=other", &[]),
    ] {
        let page = server.client.get(&format!("/dlq{query}")).await.body;
        assert_eq!(ids(&page), expected, "{query}: {page}");
        assert_eq!(page["total"], 3, "whatever is asked for");
        let mut counts = list(&page["counts"]).to_vec();
        counts.sort_by_key(|count| count["count"].as_u64());
        let expected = [
            json!({"queue": "mails", "reason": "max_attempts", "count": 1}),
            json!({"queue": "default", "reason": "permanent_status", "count": 2}),
        ];
        assert_eq!(counts, expected);
    }
    let first = server.client.get("/dlq?limit=2").await.body;
    assert_eq!(ids(&first), ["a2", "b"], "newest first");
    let next = format!("/dlq?limit=2&cursor={}", first["next"].as_str().unwrap());
    assert_eq!(ids(&server.client.get(&next).await.body), ["a1"]);
    assert_eq!(code(&server.client.get("/dlq?reason=bored").await), (400, "invalid_query"));
}

#[tokio::test]
async fn a_dead_letter_has_its_whole_history() {
    let (server, target) = stage().await;
    target.on("/", [Reply::with(500, &[], b"first"), Reply::reset(), Reply::with(404, &[], b"last")]);
    let id = server.create(&target.url("/"), &json!({"retry": {"min_backoff": "10s", "jitter": 0}})).await;
    play(&server, &id).await;
    let dead = server.client.get(&format!("/dlq/{id}")).await;
    assert_eq!(dead.status, 200);
    assert_eq!(story(&dead.body), "0s 500 · 10s reset · 20s 404 · dead permanent_status");
    assert_eq!(dead.body["attempts"][0]["response"]["text"], "first");
    assert_eq!(dead.body["attempts"][2]["response"]["text"], "last");
    assert_eq!(dead.body["last_error"]["http_status"], 404);

    let fine = ended(&server, &target.url("/fine"), &json!({})).await;
    for other in [fine.as_str(), "nobody"] {
        assert_eq!(code(&server.client.get(&format!("/dlq/{other}")).await), (404, "not_found"));
    }
}

#[tokio::test]
async fn a_redriven_task_keeps_its_name_and_history_and_begins_anew() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(500), Reply::status(500), Reply::status(500), Reply::status(200)]);
    let retry = json!({"max_attempts": 2, "min_backoff": "10s", "max_backoff": "10s"});
    let id = server.create(&target.url("/"), &json!({"retry": retry})).await;
    assert_eq!(story(&play(&server, &id).await), "0s 500 · 10s 500 · dead max_attempts");
    server.advance(secs(50)).await;

    let redriven = server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    assert_eq!((redriven.status.as_u16(), &redriven.body["task_id"]), (200, &json!(id)));
    let fresh = ["series", "attempt_count", "retry_count", "dead_reason", "processed_at"];
    assert_eq!(
        fresh.map(|field| redriven.body[field].clone()),
        [json!(2), json!(1), json!(0), Value::Null, Value::Null],
        "its first attempt starts in the same commit"
    );

    let task = play(&server, &id).await;
    assert_eq!(story(&task), "0s 500 · 10s 500 · 50s 500 · 10s 200 · succeeded", "the whole series again");
    let numbered = |field: &str| -> Vec<_> {
        list(&task["attempts"]).iter().map(|attempt| attempt[field].as_u64().unwrap()).collect()
    };
    assert_eq!((numbered("series"), numbered("number")), (vec![1, 1, 2, 2], vec![1, 2, 1, 2]));
    assert_eq!(numbered("ordinal"), [1, 2, 3, 4]);
    let requests = target.requests();
    assert_eq!(requests[2].header("sendoff-attempt"), Some("1"));

    let again = server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    assert_eq!(code(&again), (409, "wrong_state"), "only dead letters");
    assert_eq!(code(&server.client.post("/dlq/nobody/redrive", &json!({})).await), (404, "not_found"));
}

#[tokio::test]
async fn a_redriven_task_that_fails_again_is_dead_again() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(404)]);
    let id = ended(&server, &target.url("/"), &json!({})).await;
    for series in 2..5 {
        server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
        let task = settled(&server, &id).await;
        assert_eq!(
            (&task["status"], &task["series"], list(&task["attempts"]).len()),
            (&json!("dead"), &json!(series), series)
        );
    }
    assert_eq!(server.client.get("/dlq").await.body["total"], 1);
}

#[tokio::test]
async fn an_expiry_that_has_passed_does_not_keep_a_redriven_task_from_running() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(404), Reply::status(200)]);
    let id = ended(&server, &target.url("/"), &json!({"expires_at": "2026-11-24T12:01:00Z"})).await;
    server.advance(secs(120)).await;
    assert_eq!(server.task(&id).await["status"], "dead", "a dead letter does not expire");
    server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    assert_eq!(settled(&server, &id).await["status"], "succeeded");
}

#[tokio::test]
async fn many_are_redriven_by_a_filter() {
    let (server, target) = three_dead().await;
    target.on("/404", [Reply::status(200)]);
    let redrive = async |filter: Value| server.client.post("/dlq/redrive", &filter).await;

    let dry = redrive(json!({"reason": "permanent_status", "dry_run": true})).await;
    assert_eq!(dry.body, json!({"matched": 2, "redriven": 0, "dry_run": true}));
    assert_eq!(server.client.get("/dlq").await.body["total"], 3, "nothing was done");

    let one = redrive(json!({"queue": "default", "labels": {"tenant": "42"}})).await;
    assert_eq!(one.body, json!({"matched": 1, "redriven": 1, "dry_run": false}));
    assert_eq!(settled(&server, "a1").await["status"], "succeeded");
    assert_eq!(ids(&server.client.get("/dlq").await.body), ["a2", "b"]);

    for empty in [json!({}), json!({"all": false}), json!({"labels": {}}), json!({"dry_run": true})] {
        assert_eq!(code(&redrive(empty.clone()).await), (422, "invalid_filter"), "{empty}");
    }
    assert_eq!(code(&redrive(json!({"all": true, "queue": "mails"})).await), (422, "invalid_filter"));
    assert_eq!(code(&redrive(json!({"quue": "mails"})).await), (422, "invalid_filter"));

    let all = redrive(json!({"all": true})).await;
    assert_eq!(all.body, json!({"matched": 2, "redriven": 2, "dry_run": false}));
    assert_eq!(settled(&server, "a2").await["status"], "succeeded");
    assert_eq!(settled(&server, "b").await["series"], 2);
}

#[tokio::test]
async fn many_are_purged_by_a_filter() {
    let (server, _target) = three_dead().await;
    let purge = async |filter: Value| server.client.post("/dlq/purge", &filter).await;
    let dry = purge(json!({"all": true, "dry_run": true})).await;
    assert_eq!(dry.body, json!({"matched": 3, "purged": 0, "dry_run": true}));
    assert_eq!(code(&purge(json!({})).await), (422, "invalid_filter"));

    let mails = purge(json!({"queue": "mails"})).await;
    assert_eq!(mails.body, json!({"matched": 1, "purged": 1, "dry_run": false}));
    assert_eq!(ids(&server.client.get("/dlq").await.body), ["a1", "a2"]);
    assert_eq!(code(&server.client.get("/tasks/b").await), (404, "not_found"));

    assert_eq!(purge(json!({"all": true})).await.body["purged"], 2);
    let rest = server.client.get("/dlq").await.body;
    assert_eq!((&rest["total"], &rest["counts"]), (&json!(0), &json!([])));
    assert_eq!(server.task("fine").await["status"], "succeeded", "only dead letters");
    assert_eq!(purge(json!({"all": true})).await.body["matched"], 0);
}

#[tokio::test]
async fn a_purged_task_leaves_its_name_free() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(404)]);
    ended(&server, &target.url("/"), &json!({"task_id": "order-7"})).await;
    let other = task(&target.url("/other"), &json!({"task_id": "order-7"}));
    assert_eq!(code(&server.client.post("/tasks", &other).await), (409, "task_id_taken"));
    assert_eq!(server.client.delete("/dlq/order-7").await.status, 204);
    assert_eq!(code(&server.client.delete("/dlq/order-7").await), (404, "not_found"), "it is gone");
    assert_eq!(server.client.post("/tasks", &other).await.status, 201);
    assert_eq!(settled(&server, "order-7").await["status"], "succeeded");
    assert_eq!(code(&server.client.delete("/dlq/order-7").await), (409, "wrong_state"), "only dead letters");
}

/// Which bound is tested: that of dead letters, or that of tasks that ended otherwise.
#[derive(Clone, Copy)]
enum Kept {
    Dead,
    Done,
}

/// A server whose queue `default` keeps ended tasks by this bound alone.
async fn keeping(kept: Kept, age: Option<u64>, count: Option<u64>, bytes: Option<u64>) -> TestServer {
    let bound = sendoff::config::Bound { age: age.map(Span::from_secs), count, bytes };
    let change = |queue: &mut QueueConfig| match kept {
        Kept::Dead => queue.dead_letters = bound,
        Kept::Done => queue.retention = bound,
    };
    Home::new().with_queue("default", change).start().await
}

/// A target whose answers end tasks so.
async fn target_for(kept: Kept) -> Target {
    let target = Target::start().await;
    let status = match kept {
        Kept::Dead => 404,
        Kept::Done => 200,
    };
    target.on("/", [Reply::status(status)]);
    target
}

/// Posts a task of each of these names, each when the one before has ended.
async fn ended_all(server: &TestServer, target: &Target, ids: &[&str]) {
    for id in ids {
        ended(server, &target.url("/"), &json!({"task_id": id})).await;
    }
}

/// Lets retention look, which it does once a second.
async fn sweep(server: &TestServer) {
    for _second in 0..3 {
        server.advance(secs(1)).await;
    }
}

/// Which of these tasks are still there, after retention has looked.
async fn left<'a>(server: &TestServer, ids: &[&'a str]) -> Vec<&'a str> {
    sweep(server).await;
    let mut left = Vec::new();
    for id in ids {
        if server.client.get(&format!("/tasks/{id}")).await.status == 200 {
            left.push(*id);
        }
    }
    left
}

#[tokio::test]
async fn the_newest_are_kept_up_to_their_number() {
    for kept in [Kept::Dead, Kept::Done] {
        let (server, target) = (keeping(kept, None, Some(2), None).await, target_for(kept).await);
        ended_all(&server, &target, &["a", "b"]).await;
        assert_eq!(left(&server, &["a", "b"]).await, ["a", "b"]);
        ended(&server, &target.url("/"), &json!({"task_id": "c"})).await;
        assert_eq!(left(&server, &["a", "b", "c"]).await, ["b", "c"]);
    }
}

#[tokio::test]
async fn the_newest_are_kept_up_to_their_bytes() {
    let all = ["a", "b", "c"];
    for kept in [Kept::Dead, Kept::Done] {
        for (tasks, spare, expected) in [(3, 0, &all[..]), (3, 1, &all[1..]), (1, 1, &[])] {
            let target = target_for(kept).await;
            let one = json!({"url": target.url("/")}).to_string().len() as u64;
            let server = keeping(kept, None, None, Some(tasks * one - spare)).await;
            ended_all(&server, &target, &all).await;
            assert_eq!(left(&server, &all).await, expected);
        }
    }
}

#[tokio::test]
async fn the_old_are_removed() {
    for kept in [Kept::Dead, Kept::Done] {
        let (server, target) = (keeping(kept, Some(3_600), None, None).await, target_for(kept).await);
        ended(&server, &target.url("/"), &json!({"task_id": "old"})).await;
        server.advance(secs(10)).await;
        ended(&server, &target.url("/"), &json!({"task_id": "young"})).await;
        server.advance(secs(3_590).saturating_sub(TICK)).await;
        assert_eq!(server.client.get("/tasks/old").await.status, 200, "not before its time");
        assert_eq!(left(&server, &["old", "young"]).await, ["young"]);
        server.advance(secs(10)).await;
        assert_eq!(left(&server, &["young"]).await, [""; 0]);
    }
}

#[tokio::test]
async fn without_a_bound_a_dead_letter_stays() {
    let (server, target) = stage().await;
    target.on("/dead", [Reply::status(404)]);
    ended(&server, &target.url("/dead"), &json!({"task_id": "dead"})).await;
    ended(&server, &target.url("/"), &json!({"task_id": "done"})).await;
    server.advance(secs(24 * 3_600).saturating_sub(TICK)).await;
    assert_eq!(server.client.get("/tasks/done").await.status, 200, "a day");
    server.advance(secs(5 * 365 * 86_400)).await;
    assert_eq!(left(&server, &["dead", "done"]).await, ["dead"]);
}

#[tokio::test]
async fn a_clock_that_jumped_removes_nothing_for_a_minute() {
    let (server, target) = stage().await;
    ended(&server, &target.url("/"), &json!({"task_id": "done"})).await;
    server.hand().jump_wall(sendoff::task::WallMs::parse("2030-01-01T00:00:00Z").unwrap());
    server.turn().await;
    for _second in 0..59 {
        server.advance(secs(1)).await;
        assert_eq!(server.client.get("/tasks/done").await.status, 200);
    }
    assert_eq!(left(&server, &["done"]).await, [""; 0], "a minute of agreement later it believes it");
}

#[tokio::test]
async fn an_idempotency_key_outlives_its_task_for_a_day() {
    let (server, target) = (keeping(Kept::Done, Some(0), None, None).await, Target::start().await);
    let body = task(&target.url("/"), &json!({})).to_string();
    let post = async || {
        let request = server.client.request(Method::POST, "/tasks").header("content-type", "application/json");
        server.client.send(request.header("idempotency-key", "k").body(body.clone())).await.unwrap()
    };
    let first = post().await;
    let id = first.body["task_id"].as_str().unwrap();
    target.requests_at_least(1).await;
    while server.client.get(&format!("/tasks/{id}")).await.status == 200 {
        server.advance(secs(1)).await;
    }
    let replay = post().await;
    assert_eq!((first.status.as_u16(), replay.status.as_u16()), (201, 200));
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(replay.body, json!({"task_id": id, "status": "succeeded"}));

    let passed = server.now().since(sendoff::task::WallMs::parse(crate::support::server::NOON).unwrap());
    server.advance(secs(86_400).saturating_sub(passed).saturating_sub(TICK)).await;
    assert_eq!(post().await.status, 200, "for a day");
    server.advance(TICK).await;
    let second = post().await;
    assert_eq!(second.status, 201);
    assert_ne!(second.body["task_id"], id);
    target.requests_at_least(2).await;
}
