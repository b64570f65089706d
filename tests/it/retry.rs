//! Retries as a user sees them: when they come, when they stop, and what each kind of answer leads to.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::server::{Home, TestServer};
use crate::support::story::{TICK, ending, list, moment, play, secs, settled, story};
use crate::support::target::{Gate, Reply, Target};

/// A server and a target of its own.
struct Stage {
    server: TestServer,
    target: Target,
}

impl Stage {
    async fn set() -> Self {
        Self { server: TestServer::start().await, target: Target::start().await }
    }

    /// Posts a task for `path` with this retry policy; gives its id.
    async fn post(&self, path: &str, retry: &Value) -> String {
        self.server.create(&self.target.url(path), &json!({"retry": retry})).await
    }

    /// Plays a task to its end against these replies (the last is repeated), and checks its story and that the target
    /// saw one request for each attempt.
    async fn check(&self, what: &str, retry: &Value, replies: impl IntoIterator<Item = Reply>, expected: &str) {
        self.target.on("/", replies);
        let before = self.target.requests().len();
        let id = self.post("/", retry).await;
        let task = play(&self.server, &id).await;
        assert_eq!(story(&task), expected, "{what}");
        let sent = self.target.requests().len() - before;
        assert_eq!(task["attempt_count"], sent, "one request for each attempt: {what}");
    }
}

/// Retries after 10 s, 20 s, 30 s, … with `more` laid over.
fn linear(more: &Value) -> Value {
    let mut retry = json!({"min_backoff": "10s", "max_backoff": "300s", "max_doublings": 0, "jitter": 0});
    let fields = retry.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    retry
}

fn statuses(statuses: &[u16]) -> Vec<Reply> {
    statuses.iter().map(|status| Reply::status(*status)).collect()
}

fn later(status: u16, retry_after: &str) -> Vec<Reply> {
    vec![Reply::with(status, &[("retry-after", retry_after)], b""), Reply::status(200)]
}

#[tokio::test]
async fn delays_double_then_grow_evenly_then_stay() {
    let stage = Stage::set().await;
    let retry = linear(&json!({"max_doublings": 3, "max_attempts": 9}));
    let expected =
        "0s 500 · 10s 500 · 20s 500 · 40s 500 · 1m20s 500 · 2m40s 500 · 4m 500 · 5m 500 · 5m 500 · dead max_attempts";
    stage.check("the timetable of Cloud Tasks' documentation", &retry, statuses(&[500]), expected).await;

    let retry = linear(&json!({"max_attempts": 5}));
    let expected = "0s 500 · 10s 500 · 20s 500 · 30s 500 · 40s 200 · succeeded";
    stage.check("no doubling", &retry, statuses(&[500, 500, 500, 500, 200]), expected).await;

    let retry = json!({"min_backoff": "7s", "max_backoff": "7s", "jitter": 1, "max_attempts": 4});
    stage
        .check(
            "jitter stops at min_backoff",
            &retry,
            statuses(&[500]),
            "0s 500 · 7s 500 · 7s 500 · 7s 500 · dead max_attempts",
        )
        .await;

    let retry = json!({"min_backoff": 0, "max_backoff": 0, "max_attempts": 3});
    stage.check("no delay at all", &retry, statuses(&[500]), "0s 500 · 0s 500 · 0s 500 · dead max_attempts").await;
}

#[tokio::test]
async fn the_default_policy_tries_twenty_times_in_about_eight_hours() {
    let stage = Stage::set().await;
    let queue = stage.server.client.get("/queues/default").await.body;
    let expected = json!({
        "max_attempts": 20, "min_backoff": "1s", "max_backoff": "1h", "max_doublings": 16, "max_retry_duration": null,
        "jitter": 0.2, "stop_when": "any", "credential_wait_max": "1h", "on_status": {},
    });
    assert_eq!(queue["config"]["retry"], expected);

    stage.target.on("/", statuses(&[500]));
    let id = stage.post("/", &json!({})).await;
    let task = play(&stage.server, &id).await;
    assert_eq!(ending(&task), "dead max_attempts");
    let starts: Vec<_> = list(&task["attempts"]).iter().map(|attempt| moment(&attempt["started_at"])).collect();
    assert_eq!(starts.len(), 20);
    let mut jittered = 0;
    for (n, pair) in starts.windows(2).enumerate() {
        let (delay, full) = (pair[1].since(pair[0]), secs(1 << n).min(secs(3_600)));
        assert!(delay <= full && delay >= full.mul_f64(0.8).max(secs(1)), "{delay:?} after failure {}", n + 1);
        jittered += u32::from(delay != full);
    }
    assert!(jittered > 0, "delays vary");
    let whole = starts[19].since(starts[0]);
    assert!((secs(6 * 3_600)..secs(9 * 3_600)).contains(&whole), "{whole:?}");
}

#[tokio::test]
async fn a_target_may_ask_for_more_patience() {
    let stage = Stage::set().await;
    let once = linear(&json!({}));
    stage.check("429, in seconds", &once, later(429, "60"), "0s 429 · 1m 200 · succeeded").await;
    stage.check("503, in seconds", &once, later(503, "60"), "0s 503 · 1m 200 · succeeded").await;
    let now = UNIX_EPOCH + Duration::from_millis(stage.server.now().get().try_into().unwrap());
    let date = httpdate::fmt_http_date(now + secs(90));
    stage.check("as a date", &once, later(503, &date), "0s 503 · 1m30s 200 · succeeded").await;
    stage.check("a date long past", &once, later(503, &date), "0s 503 · 10s 200 · succeeded").await;
    stage.check("at most to max_backoff", &once, later(429, "86400"), "0s 429 · 5m 200 · succeeded").await;
    stage.check("one below it", &once, later(429, "299"), "0s 429 · 4m59s 200 · succeeded").await;
    stage.check("never sooner than the backoff", &once, later(429, "1"), "0s 429 · 10s 200 · succeeded").await;
    stage.check("nonsense", &once, later(429, "soon"), "0s 429 · 10s 200 · succeeded").await;
    stage.check("only of 429 and 503", &once, later(500, "60"), "0s 500 · 10s 200 · succeeded").await;
}

#[tokio::test]
async fn a_series_stops_at_its_bounds() {
    let stage = Stage::set().await;
    let failing = || statuses(&[500]);
    let one = linear(&json!({"max_attempts": 1}));
    stage.check("one attempt is at most once", &one, failing(), "0s 500 · dead max_attempts").await;
    let two = linear(&json!({"max_attempts": 2}));
    stage.check("two attempts", &two, failing(), "0s 500 · 10s 500 · dead max_attempts").await;
    stage.check("the last one may work", &two, statuses(&[500, 200]), "0s 500 · 10s 200 · succeeded").await;

    let thirty = linear(&json!({"max_retry_duration": "30s"}));
    stage
        .check(
            "a retry at the end of the duration",
            &thirty,
            failing(),
            "0s 500 · 10s 500 · 20s 500 · dead max_retry_duration",
        )
        .await;
    let less = linear(&json!({"max_retry_duration": "29.999s"}));
    stage.check("one that would fall after it", &less, failing(), "0s 500 · 10s 500 · dead max_retry_duration").await;
    let both = linear(&json!({"max_attempts": 2, "max_retry_duration": "1h"}));
    stage.check("any: attempts first", &both, failing(), "0s 500 · 10s 500 · dead max_attempts").await;
}

#[tokio::test]
async fn with_all_both_bounds_have_to_be_reached() {
    let stage = Stage::set().await;
    let all = |attempts, duration: &str| {
        linear(&json!({"max_attempts": attempts, "max_retry_duration": duration, "stop_when": "all"}))
    };
    let failing = || statuses(&[500]);
    let expected = "0s 500 · 10s 500 · 20s 500 · dead max_retry_duration";
    stage.check("attempts first: it goes on until the duration", &all(2, "60s"), failing(), expected).await;
    let expected = "0s 500 · 10s 500 · 20s 500 · 30s 500 · dead max_retry_duration";
    stage.check("one more fits", &all(2, "60.001s"), failing(), expected).await;
    stage.check("duration first: it goes on until the attempts", &all(4, "5s"), failing(), expected).await;

    let task = crate::support::server::task(&stage.target.url("/"), &json!({"retry": {"stop_when": "all"}}));
    let refused = stage.server.client.post("/tasks", &task).await;
    assert_eq!((refused.status.as_u16(), &refused.body["errors"][0]["pointer"]), (422, &json!("/retry")));
}

#[tokio::test]
async fn with_all_a_task_that_waits_past_both_bounds_ends() {
    let stage = Stage::set().await;
    stage.target.on("/", statuses(&[500]));
    let retry = linear(&json!({"max_attempts": 1, "max_retry_duration": "60s", "stop_when": "all"}));
    let id = stage.post("/", &retry).await;
    stage.server.until(&id, "retrying").await;
    stage.server.client.post("/queues/default/pause", &json!({})).await;
    stage.server.advance(secs(60).saturating_sub(TICK)).await;
    assert_eq!(stage.server.task(&id).await["status"], "queued", "it waits for its queue");
    stage.server.advance(TICK).await;
    let task = stage.server.task(&id).await;
    assert_eq!(story(&task), "0s 500 · dead max_retry_duration");
    assert_eq!(stage.target.requests().len(), 1);
}

#[tokio::test]
async fn a_user_may_treat_statuses_otherwise() {
    let stage = Stage::set().await;
    let on = |status: &str, action| linear(&json!({"on_status": {status: action}}));
    stage
        .check("404 is not there yet", &on("404", "retry"), statuses(&[404, 200]), "0s 404 · 10s 200 · succeeded")
        .await;
    stage.check("500 is final", &on("500", "dead"), statuses(&[500]), "0s 500 · dead permanent_status").await;
    stage.check("302 is fine", &on("302", "done"), statuses(&[302]), "0s 302 · succeeded").await;
    stage.check("202 is not done", &on("202", "retry"), statuses(&[202, 200]), "0s 202 · 10s 200 · succeeded").await;
    stage.check("200 is a fault", &on("200", "dead"), statuses(&[200]), "0s 200 · dead permanent_status").await;
    stage.check("others stay", &on("404", "retry"), statuses(&[410]), "0s 410 · dead permanent_status").await;
}

#[tokio::test]
async fn a_queue_has_a_policy_and_a_task_words_of_its_own() {
    let home = Home::new().with_queue("short", |queue| {
        queue.retry.max_attempts = 2;
        queue.retry.jitter = 0.0;
    });
    let (server, target) = (home.start().await, Target::start().await);
    target.on("/", statuses(&[500]));
    let of_queue = server.create(&target.url("/"), &json!({"queue": "short"})).await;
    assert_eq!(story(&play(&server, &of_queue).await), "0s 500 · 1s 500 · dead max_attempts");
    let own = json!({"queue": "short", "retry": {"max_attempts": 3}});
    let own = server.create(&target.url("/"), &own).await;
    assert_eq!(story(&play(&server, &own).await), "0s 500 · 1s 500 · 2s 500 · dead max_attempts");
}

#[tokio::test]
async fn every_status_leads_where_the_table_says() {
    let stage = Stage::set().await;
    let mut ids = Vec::new();
    for status in (200..=208).chain(300..=308).chain(400..=431).chain([451, 499]).chain(500..=511).chain([599]) {
        let path = format!("/{status}");
        let elsewhere = stage.target.url("/elsewhere");
        stage.target.on(&path, [Reply::with(status, &[("location", &elsewhere)], b"")]);
        ids.push((status, stage.post(&path, &json!({})).await));
    }
    for (status, id) in ids {
        let expected = match status {
            200..=299 => "succeeded",
            408 | 409 | 425 | 429 | 500..=599 => "retrying",
            _ => "dead permanent_status",
        };
        let task = settled(&stage.server, &id).await;
        assert_eq!(ending(&task), expected, "{status}");
        let attempt = &task["attempts"][0];
        let class = if status < 300 { "ok" } else { "http_status" };
        assert_eq!((&attempt["class"], &attempt["http_status"]), (&json!(class), &json!(status)));
    }
    assert!(stage.target.requests().iter().all(|request| request.path != "/elsewhere"), "redirects are not followed");
}

#[tokio::test]
async fn connections_that_fail_or_break_are_tried_again() {
    let stage = Stage::set().await;
    let retry = linear(&json!({}));
    let broken = [
        ("reset", Reply::reset()),
        ("closed", Reply::close()),
        ("within the head", Reply::default().write(b"HTTP/1.1 200 OK\r\nconte").and(Reply::close())),
        ("within the body", Reply::head(200, &[], 10).write(b"some").and(Reply::close())),
        ("not HTTP", Reply::default().write(b"SSH-2.0-OpenSSH\r\n\r\n").and(Reply::close())),
    ];
    for (what, reply) in broken {
        stage.check(what, &retry, [reply, Reply::status(200)], "0s reset · 10s 200 · succeeded").await;
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let id = stage.server.create(&nobody, &json!({"retry": {"max_attempts": 1}})).await;
    let task = settled(&stage.server, &id).await;
    assert_eq!(story(&task), "0s connect · dead max_attempts");
    assert_eq!(task["last_error"]["class"], "connect");
    assert!(task["last_error"]["error"].as_str().unwrap().contains("127.0.0.1"), "{task}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up_at_the_deadline() {
    let stage = Stage::set().await;
    let begun = Reply::head(200, &[], 10).write(b"some").and(Reply::hang());
    for (timeout, seconds, reply, class, kept) in [
        (None, 30, Reply::hang(), "timeout_before_headers", Value::Null),
        (Some("5s"), 5, Reply::hang(), "timeout_before_headers", Value::Null),
        (Some("5s"), 5, begun, "timeout_body", json!({"text": "some"})),
    ] {
        stage.target.on("/", [reply, Reply::status(200)]);
        let before = stage.target.requests().len();
        let more = json!({"timeout": timeout, "retry": linear(&json!({}))});
        let id = stage.server.create(&stage.target.url("/"), &more).await;
        stage.target.requests_at_least(before + 1).await;
        // What the target wrote by then is read by the time that requests which were sent after it are answered.
        stage.server.task(&id).await;
        stage.server.task(&id).await;
        stage.server.advance(secs(seconds).saturating_sub(TICK)).await;
        assert_eq!(stage.server.task(&id).await["status"], "running");
        stage.server.advance(TICK).await;
        let task = settled(&stage.server, &id).await;
        let attempt = &task["attempts"][0];
        assert_eq!((&attempt["class"], &attempt["response"]), (&json!(class), &kept));
        assert_eq!(attempt["took_ms"], seconds * 1_000);
        let task = play(&stage.server, &id).await;
        assert_eq!(story(&task), format!("0s {class} · {}s 200 · succeeded", seconds + 10), "from its end on");
    }
}

#[tokio::test]
async fn of_many_attempts_the_first_and_the_last_are_kept() {
    let stage = Stage::set().await;
    stage.target.on("/", statuses(&[500]));
    let mut kept: Vec<Vec<u64>> = Vec::new();
    for attempts in [40, 41, 45] {
        let retry = json!({"min_backoff": "1s", "max_backoff": "1s", "max_attempts": attempts});
        let id = stage.post("/", &retry).await;
        let task = play(&stage.server, &id).await;
        assert_eq!((&task["attempt_count"], &task["retry_count"]), (&json!(attempts), &json!(attempts - 1)));
        kept.push(list(&task["attempts"]).iter().map(|attempt| attempt["ordinal"].as_u64().unwrap()).collect());
    }
    let all: Vec<u64> = (1..=40).collect();
    let one_over: Vec<u64> = (1..=20).chain(22..=41).collect();
    let five_over: Vec<u64> = (1..=20).chain(26..=45).collect();
    assert_eq!(kept, [all, one_over, five_over]);
}

#[tokio::test]
async fn an_attempt_says_when_how_long_and_what() {
    let stage = Stage::set().await;
    let gate = Gate::new();
    let long = vec![b'x'; 5_000];
    stage.target.on(
        "/",
        [
            Reply::default().wait(&gate).and(Reply::with(500, &[], b"oops")),
            Reply::reset(),
            Reply::with(503, &[], b"\xff\xfe"),
            Reply::with(200, &[], &long),
        ],
    );
    let id = stage.post("/", &linear(&json!({}))).await;
    stage.target.requests_at_least(1).await;
    stage.server.advance(Duration::from_millis(1_500)).await;
    gate.open();
    let task = play(&stage.server, &id).await;
    assert_eq!(story(&task), "0s 500 · 11s500ms reset · 20s 503 · 30s 200 · succeeded");

    let mut attempts = list(&task["attempts"]).to_vec();
    assert!(attempts[1]["error"].as_str().unwrap().starts_with("calling http://127.0.0.1:"), "{}", attempts[1]);
    attempts[1]["error"] = json!("…");
    let attempt = |n: u32, at: &str, took_ms: u32, rest: Value| {
        let mut attempt = json!({
            "ordinal": n, "series": 1, "number": n, "started_at": format!("2026-11-24T12:{at}Z"), "took_ms": took_ms,
            "error": null, "http_status": null, "response": null, "class": "http_status",
        });
        attempt.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        attempt
    };
    let expected = [
        attempt(1, "00:00.000", 1_500, json!({"http_status": 500, "response": {"text": "oops"}})),
        attempt(2, "00:11.500", 0, json!({"class": "reset", "error": "…"})),
        attempt(3, "00:31.500", 0, json!({"http_status": 503, "response": {"base64": "//4="}})),
        attempt(4, "01:01.500", 0, json!({"class": "ok", "http_status": 200, "response": {"text": "x".repeat(4_096)}})),
    ];
    assert_eq!(attempts, expected);
    assert_eq!((&task["last_error"], &task["processed_at"]), (&Value::Null, &json!("2026-11-24T12:01:01.500Z")));
}
