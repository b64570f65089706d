//! What reaches the target, and when: the request as it was asked for, once, not early, not after a cancel.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use sendoff::task::WallMs;
use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::server::{Home, NOON, TestServer, task};
use crate::support::story::{TICK, list, play, secs, settled, story};
use crate::support::target::{Gate, Recorded, Reply, Target};

async fn stage() -> (TestServer, Target) {
    (TestServer::start().await, Target::start().await)
}

/// Noon and so many seconds.
fn noon_plus(seconds: u64) -> WallMs {
    WallMs::parse(NOON).unwrap().plus(secs(seconds))
}

fn paths(target: &Target) -> Vec<String> {
    target.requests().into_iter().map(|request| request.path).collect()
}

/// Sends a payload, written as it stands, and gives the request that the target saw.
async fn sent(server: &TestServer, target: &Target, payload: &str) -> Recorded {
    let before = target.requests().len();
    let body = format!(r#"{{"task_type": "http_request", "payload": {payload}}}"#);
    let request = server.client.request(Method::POST, "/tasks").header("content-type", "application/json").body(body);
    let answer = server.client.send(request).await.unwrap();
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    target.requests_at_least(before + 1).await.pop().unwrap()
}

fn keyed(server: &TestServer, key: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = server.client.request(Method::POST, "/tasks").header("content-type", "application/json");
    request.header("idempotency-key", key).body(body.to_string())
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn the_request_is_the_one_that_was_asked_for() {
    let (server, target) = stage().await;
    let url = target.url("/a/b?c=d%20e&f");
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let request = sent(&server, &target, &json!({"url": url, "method": method}).to_string()).await;
        assert_eq!((request.method.as_str(), request.path.as_str()), (method, "/a/b?c=d%20e&f"));
        assert_eq!(request.body, b"");
    }
    let request = sent(&server, &target, &json!({"url": url}).to_string()).await;
    assert_eq!(request.method, "POST", "unless it says otherwise");

    let headers =
        json!({"X-One": "1", "x-two": "a, b;c=\"d\"", "authorization": "Bearer secret", "user-agent": "mine"});
    let request = sent(&server, &target, &json!({"url": url, "headers": headers}).to_string()).await;
    for (name, value) in headers.as_object().unwrap() {
        assert_eq!(request.header(name), value.as_str(), "{name}");
    }
}

#[tokio::test]
async fn bodies_go_out_byte_for_byte() {
    let (server, target) = stage().await;
    let url = json!(target.url("/"));
    let json_type = Some("application/json");
    for body in [
        "{\"b\" : 1.0e+00 ,\n\t\"a\":[ 1,2 ,3 ], \"a2\":123456789012345678901234567890, \"n\": -0.10}",
        r#""\u00e9\/\ud83d\ude00 é 😀""#,
        r#"{"same": 1, "same": 2}"#,
        "null",
        "[]",
        "  7",
    ] {
        let request = sent(&server, &target, &format!(r#"{{"url":{url}, "body":{body} }}"#)).await;
        let expected = body.trim();
        assert_eq!(String::from_utf8(request.body.clone()).unwrap(), expected);
        assert_eq!(request.header("content-type"), json_type, "{body}");
        assert_eq!(request.header("content-length"), Some(expected.len().to_string().as_str()));
    }
    let request = sent(&server, &target, &json!({"url": url, "body_text": "né\r\n\u{0}"}).to_string()).await;
    assert_eq!(request.body, "né\r\n\u{0}".as_bytes());
    assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));

    let request = sent(&server, &target, &json!({"url": url, "body_base64": "AP/+DQo="}).to_string()).await;
    assert_eq!(request.body, [0, 0xff, 0xfe, b'\r', b'\n']);
    assert_eq!(request.header("content-type"), Some("application/octet-stream"));

    let own = json!({"url": url, "body_text": "<a/>", "headers": {"content-type": "text/xml"}});
    assert_eq!(sent(&server, &target, &own.to_string()).await.header("content-type"), Some("text/xml"));
    let none = json!({"url": url, "body_text": "x", "headers": {"content-type": "", "idempotency-key": ""}});
    let request = sent(&server, &target, &none.to_string()).await;
    assert_eq!((request.header("content-type"), request.header("idempotency-key")), (None, None));
}

#[tokio::test]
async fn what_a_task_holds_is_shown_as_it_was_given_but_for_its_secrets() {
    let (server, target) = stage().await;
    let url = json!(target.url("/"));
    let headers = r#""headers" : {"Authorization":"Bearer secret", "x":"y"}"#;
    sent(&server, &target, &format!(r#"{{"url":{url}, {headers}, "body": {{"n" :1.0e0}} }}"#)).await;
    let id = server.client.all_tasks().await[0]["task_id"].as_str().unwrap().to_owned();
    let request = server.client.request(Method::GET, &format!("/tasks/{id}"));
    let text = request.send().await.unwrap().text().await.unwrap();
    let shown =
        format!(r#"{{"url":{url}, {headers}, "body": {{"n" :1.0e0}} }}"#).replace("Bearer secret", "[redacted]");
    assert!(text.contains(&shown), "{text}");
}

#[tokio::test]
async fn each_attempt_says_which_it_is() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(503), Reply::reset(), Reply::status(404), Reply::status(200)]);
    let more = json!({
        "task_id": "order:7~a", "timeout": "20s",
        "retry": {"max_attempts": 5, "min_backoff": "10s", "max_backoff": "10s"},
    });
    let id = server.create(&target.url("/"), &more).await;
    assert_eq!(story(&play(&server, &id).await), "0s 503 · 10s reset · 10s 404 · dead permanent_status");
    let redriven = server.client.post(&format!("/dlq/{id}/redrive"), &json!({})).await;
    assert_eq!(redriven.status, 200);
    play(&server, &id).await;

    let requests = target.requests();
    let told = |name: &str| -> Vec<_> {
        requests.iter().map(|request| request.header(&format!("sendoff-{name}")).unwrap_or("—").to_owned()).collect()
    };
    assert_eq!(told("task-id"), ["order:7~a"; 4]);
    assert_eq!(told("task-type"), ["http_request"; 4]);
    assert_eq!(told("queue"), ["default"; 4]);
    assert_eq!(told("attempt"), ["1", "2", "3", "1"], "within the series");
    assert_eq!(told("retry-count"), ["0", "1", "2", "0"]);
    assert_eq!(told("max-attempts"), ["5"; 4]);
    assert_eq!(told("redelivery"), ["false", "true", "true", "true"]);
    assert_eq!(told("previous-status"), ["—", "503", "—", "404"]);
    let at = |seconds| noon_plus(seconds).to_string();
    assert_eq!(told("scheduled-at"), [at(0), at(10), at(20), at(20)]);
    assert_eq!(told("deadline"), [at(20), at(30), at(40), at(40)]);

    let key = |at: usize| requests[at].header("idempotency-key").unwrap();
    assert_eq!((key(0), key(1)), (key(1), key(2)), "the same for all attempts of a series");
    assert_ne!(key(2), key(3), "another after a redrive");
    assert!(key(0).contains("order:7~a"), "{}", key(0));
}

#[tokio::test]
async fn nothing_starts_early() {
    let (server, target) = stage().await;
    let delayed = server.create(&target.url("/delay"), &json!({"delay": "90s"})).await;
    let in_number = server.create(&target.url("/number"), &json!({"delay": 90.001})).await;
    let at = server.create(&target.url("/run_at"), &json!({"run_at": noon_plus(90).to_string()})).await;
    let past = server.create(&target.url("/past"), &json!({"run_at": "2020-01-01T00:00:00+01:00"})).await;
    server.until(&past, "succeeded").await;
    server.advance(secs(90).saturating_sub(TICK)).await;
    for id in [&delayed, &in_number, &at] {
        assert_eq!(server.task(id).await["status"], "scheduled");
    }
    server.advance(TICK).await;
    server.until(&delayed, "succeeded").await;
    server.until(&at, "succeeded").await;
    assert_eq!(server.task(&in_number).await["status"], "scheduled");
    server.advance(TICK).await;
    server.until(&in_number, "succeeded").await;
    let mut seen = paths(&target);
    assert_eq!((seen.remove(0), seen.pop()), ("/past".to_owned(), Some("/number".to_owned())));
    seen.sort_unstable();
    assert_eq!(seen, ["/delay", "/run_at"]);
}

#[tokio::test]
async fn a_moment_is_the_wall_clocks_and_a_delay_is_not() {
    for (what, jump_to, hour_on_the_wall_passes) in
        [("an hour ahead", "2026-11-24T13:00:00Z", true), ("an hour back", "2026-11-24T11:00:00Z", false)]
    {
        let (server, target) = stage().await;
        let moment = server.create(&target.url("/at"), &json!({"run_at": noon_plus(3_600).to_string()})).await;
        let delay = server.create(&target.url("/delay"), &json!({"delay": "1h"})).await;
        server.hand().jump_wall(WallMs::parse(jump_to).unwrap());
        server.turn().await;
        if hour_on_the_wall_passes {
            server.until(&moment, "succeeded").await;
        }
        assert_eq!(server.task(&delay).await["attempt_count"], 0, "{what}");
        server.advance(secs(3_600).saturating_sub(TICK)).await;
        assert_eq!(server.task(&delay).await["attempt_count"], 0, "{what}");
        server.advance(TICK).await;
        server.until(&delay, "succeeded").await;
        if !hour_on_the_wall_passes {
            assert_eq!(server.task(&moment).await["status"], "scheduled", "{what}");
            server.advance(secs(3_600).saturating_sub(TICK)).await;
            assert_eq!(server.task(&moment).await["status"], "scheduled", "{what}");
            server.advance(TICK).await;
            server.until(&moment, "succeeded").await;
        }
        assert_eq!(target.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_task_can_be_run_now_and_ahead_of_others() {
    let server = Home::new().with_queue("one", |queue| queue.max_concurrent_dispatches = 1).start().await;
    let (target, gate) = (Target::start().await, Gate::new());
    target.on("/first", [Reply::default().wait(&gate).and(Reply::status(200))]);
    let mut ids = Vec::new();
    for (path, priority, delay) in [("/first", 5, 0), ("/second", 5, 0), ("/urgent", 9, 0), ("/later", 0, 3_600)] {
        let more = json!({"queue": "one", "priority": priority, "delay": delay});
        ids.push(server.create(&target.url(path), &more).await);
    }
    target.requests_at_least(1).await;
    let run = async |id: &str| server.client.post(&format!("/tasks/{id}/run"), &json!({})).await;
    assert_eq!(code(&run(&ids[0]).await), (409, "wrong_state"), "it runs");
    let ahead = run(&ids[3]).await;
    assert_eq!((ahead.status.as_u16(), &ahead.body["status"]), (200, &json!("queued")), "concurrency still holds");
    assert_eq!(run(&ids[3]).await.status, 200, "twice is once");
    server.client.post("/queues/one/pause", &json!({})).await;
    gate.open();
    server.until(&ids[0], "succeeded").await;
    assert_eq!(server.task(&ids[3]).await["status"], "queued", "pause still holds");
    server.client.post("/queues/one/resume", &json!({})).await;
    server.until(&ids[1], "succeeded").await;
    assert_eq!(paths(&target), ["/first", "/later", "/urgent", "/second"]);
    assert_eq!(code(&run(&ids[0]).await), (409, "wrong_state"), "it has ended");
    assert_eq!(code(&run("nobody").await), (404, "not_found"));
}

#[tokio::test]
async fn a_retry_can_be_run_now() {
    let (server, target) = stage().await;
    target.on("/", [Reply::status(500), Reply::status(200)]);
    let id = server.create(&target.url("/"), &json!({"retry": {"min_backoff": "1h"}})).await;
    server.until(&id, "retrying").await;
    server.client.post(&format!("/tasks/{id}/run"), &json!({})).await;
    assert_eq!(story(&settled(&server, &id).await), "0s 500 · 0s 200 · succeeded");
}

#[tokio::test]
async fn a_long_poll_ends_with_the_task() {
    let (server, target) = stage().await;
    let gate = Gate::new();
    target.on("/", [Reply::default().wait(&gate).and(Reply::status(200))]);
    let id = server.create(&target.url("/"), &json!({})).await;
    let path = format!("/tasks/{id}?wait=60s");
    let end = async {
        target.requests_at_least(1).await;
        server.task(&id).await;
        gate.open();
    };
    // The clock stands still: nothing but the end of the task can end the waiting.
    let (first, second, ()) = tokio::join!(server.client.get(&path), server.client.get(&path), end);
    assert_eq!((&first.body["status"], &second.body["status"]), (&json!("succeeded"), &json!("succeeded")));
    assert_eq!(list(&first.body["attempts"]).len(), 1);
    let again = server.client.get(&path).await;
    assert_eq!(again.body["status"], "succeeded", "one that has ended is not waited for");
    let longer = server.client.get(&format!("/tasks/{id}?wait=60001ms")).await;
    assert_eq!(code(&longer), (400, "invalid_query"));
}

#[tokio::test]
async fn a_long_poll_ends_after_its_time() {
    let (server, target) = stage().await;
    target.on("/", [Reply::hang()]);
    let id = server.create(&target.url("/"), &json!({"timeout": "1h"})).await;
    let path = format!("/tasks/{id}?wait=10s");
    // The clock goes on only as fast as requests are answered, so that the waiting one is soon read.
    let going_on = async {
        server.task(&id).await;
        loop {
            server.task(&id).await;
            server.advance(Duration::from_millis(500)).await;
        }
    };
    let answer = tokio::select! {
        answer = server.client.get(&path) => answer,
        never = going_on => never,
    };
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("running")));
    assert!(server.now() >= noon_plus(10), "not before: {}", server.now());
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let (server, target) = stage().await;
    let tasks: Vec<Value> =
        (0..100).map(|n| task(&target.url(&format!("/{n}")), &json!({"task_id": format!("t{n}")}))).collect();
    let answer = server.client.post("/tasks/batch", &json!(tasks)).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let ids: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    assert_eq!(answer.body["task_ids"], json!(ids));
    for id in &ids {
        assert_eq!(server.until(id, "succeeded").await["attempt_count"], 1);
    }
    assert_eq!(target.requests().len(), 100);

    let bad =
        json!([task(&target.url("/new"), &json!({})), task("nowhere", &json!({})), {"task_type": "http_request"}]);
    let refused = server.client.post("/tasks/batch", &bad).await;
    assert_eq!(code(&refused), (422, "invalid_task"));
    let at: Vec<_> = list(&refused.body["errors"]).iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(at, ["/1/payload/url", "/2/payload"]);
    assert_eq!(server.client.all_tasks().await.len(), 100, "nothing of it was accepted");
}

#[tokio::test]
async fn lines_are_accepted_whole_or_not_at_all_and_once_a_key() {
    let (server, target) = stage().await;
    let send = async |key: &str, body: String| {
        let request = server.client.request(reqwest::Method::POST, "/tasks/batch");
        let request = request.header("content-type", "application/x-ndjson").header("idempotency-key", key);
        server.client.send(request.body(body)).await.expect("an answer")
    };
    let each: Vec<_> = (0..100).map(|n| task(&target.url(&format!("/{n}")), &json!({})).to_string()).collect();
    let lines = each.join("\r\n\n") + "\r\n\n";
    let answer = send("k", lines.clone()).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    for (n, id) in list(&answer.body["task_ids"]).iter().enumerate() {
        let task = server.until(id.as_str().unwrap(), "succeeded").await;
        assert_eq!(task["payload"]["url"], target.url(&format!("/{n}")), "in order");
    }
    let again = send("k", lines.clone()).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &answer.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = send("k", lines.clone() + "\n").await;
    assert_eq!(code(&other), (422, "idempotency_mismatch"));

    let unknown_queue = task(&target.url("/new"), &json!({"queue": "nowhere"})).to_string();
    let refused = send("l", format!("{lines}{unknown_queue}")).await;
    assert_eq!(code(&refused), (422, "unknown_queue"));
    let error = &list(&refused.body["errors"])[0];
    assert_eq!(error["pointer"], "/100/queue");
    assert_eq!(error["detail"], "line 201: the configuration has no queue `nowhere`");
    assert_eq!(server.client.all_tasks().await.len(), 100, "nothing of it was accepted");
}

/// Sends the same request a thousand times at once, and checks that it made one task and one call.
async fn check_a_thousand_make_one(request: impl Fn(&TestServer, &Value) -> reqwest::RequestBuilder, more: &Value) {
    let (server, target) = stage().await;
    let body = task(&target.url("/"), more);
    let answers = join_all((0..1_000).map(|_| server.client.send(request(&server, &body)))).await;
    let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(200)), (1, 999));
    let id = answers[0].body["task_id"].as_str().unwrap();
    for answer in &answers {
        assert_eq!(answer.body["task_id"], id);
        assert_eq!(answer.headers.contains_key("idempotency-replayed"), answer.status == 200);
    }
    server.until(id, "succeeded").await;
    assert_eq!(server.client.all_tasks().await.len(), 1);
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn a_thousand_identical_posts_with_one_idempotency_key_make_one_task() {
    check_a_thousand_make_one(|server, body| keyed(server, "order-7", body), &json!({})).await;
}

#[tokio::test]
async fn a_thousand_identical_posts_with_one_task_id_make_one_task() {
    let plain = |server: &TestServer, body: &Value| {
        let request = server.client.request(Method::POST, "/tasks").header("content-type", "application/json");
        request.body(body.to_string())
    };
    check_a_thousand_make_one(plain, &json!({"task_id": "order-7"})).await;
}

#[tokio::test]
async fn the_same_name_for_something_else_is_refused() {
    let (server, target) = stage().await;
    let (one, other) = (task(&target.url("/one"), &json!({})), task(&target.url("/other"), &json!({})));
    server.client.send(keyed(&server, "k", &one)).await.unwrap();
    let mismatch = server.client.send(keyed(&server, "k", &other)).await.unwrap();
    assert_eq!(code(&mismatch), (422, "idempotency_mismatch"));

    server.create(&target.url("/one"), &json!({"task_id": "k"})).await;
    let taken = server.client.post("/tasks", &task(&target.url("/other"), &json!({"task_id": "k"}))).await;
    assert_eq!(code(&taken), (409, "task_id_taken"));
    target.requests_at_least(2).await;
    assert_eq!(server.client.all_tasks().await.len(), 2, "a key and a name do not collide");
    assert_eq!(paths(&target), ["/one", "/one"]);
}

#[tokio::test]
async fn a_task_that_waits_is_cancelled_for_good() {
    let (server, target) = stage().await;
    target.on("/retrying", [Reply::status(500)]);
    let scheduled = server.create(&target.url("/"), &json!({"delay": "1h"})).await;
    let retrying = server.create(&target.url("/retrying"), &json!({})).await;
    server.until(&retrying, "retrying").await;
    server.client.post("/queues/default/pause", &json!({})).await;
    let queued = server.create(&target.url("/"), &json!({})).await;
    for id in [&scheduled, &retrying, &queued] {
        for _again in 0..2 {
            let cancelled = server.client.delete(&format!("/tasks/{id}")).await;
            assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("cancelled")));
        }
    }
    server.client.post("/queues/default/resume", &json!({})).await;
    server.advance(secs(7_200)).await;
    for (id, expected) in [(&scheduled, "cancelled"), (&retrying, "0s 500 · cancelled"), (&queued, "cancelled")] {
        assert_eq!(story(&server.task(id).await), expected);
    }
    assert_eq!(paths(&target), ["/retrying"]);
}

#[tokio::test]
async fn cancelling_a_running_task_closes_its_connection() {
    let server = Home::new().with_queue("one", |queue| queue.max_concurrent_dispatches = 1).start().await;
    let target = Target::start().await;
    target.on("/", [Reply::hang()]);
    let id = server.create(&target.url("/"), &json!({"queue": "one"})).await;
    let next = server.create(&target.url("/next"), &json!({"queue": "one"})).await;
    target.requests_at_least(1).await;
    let cancelled = server.client.delete(&format!("/tasks/{id}")).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("cancelled")));
    target.closed_at_least(1).await;
    server.until(&next, "succeeded").await;
    assert_eq!(server.client.delete(&format!("/tasks/{id}")).await.status, 200, "repeated");
    assert_eq!(story(&server.task(&id).await), "0s interrupted · cancelled");
    assert_eq!(paths(&target), ["/", "/next"]);
}

#[tokio::test]
async fn what_has_ended_is_not_cancelled() {
    let (server, target) = stage().await;
    target.on("/dead", [Reply::status(404)]);
    for (path, ended) in [("/", "succeeded"), ("/dead", "dead")] {
        let id = server.create(&target.url(path), &json!({})).await;
        server.until(&id, ended).await;
        let refused = server.client.delete(&format!("/tasks/{id}")).await;
        assert_eq!(code(&refused), (409, "wrong_state"), "{ended}");
        assert_eq!(server.task(&id).await["status"], ended);
    }
    assert_eq!(code(&server.client.delete("/tasks/nobody").await), (404, "not_found"));
}
