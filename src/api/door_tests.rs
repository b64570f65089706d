//! The door as a caller sees it: keys, routes, bodies, queries, request ids, panics. The engine behind it is scripted.

use axum::body::Body as HttpBody;
use serde_json::json;

use crate::queue::command::Request;
use crate::task::Span;
use crate::task::limits::{
    BATCH_BYTES_MAX, BODIES_IN_FLIGHT_BYTES_MAX, IDEMPOTENCY_KEY_LEN_MAX, LINES_PIECE_BYTES, PAYLOAD_BYTES_DEFAULT,
    REQUEST_ID_LEN_MAX, TASK_ENVELOPE_BYTES_MAX,
};

use super::rig_tests::{TASK, accepting, advance_soon, idle};

#[tokio::test]
async fn every_path_but_health_needs_a_key() {
    let bench = idle();
    for path in ["/tasks", "/v1/queues", "/metrics", "/nothing", "/v1healthz", "/healthz/", "/v1/v1/healthz"] {
        let got = bench.send("GET", path, &[], HttpBody::empty()).await;
        assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{path}");
        assert_eq!(got.header("www-authenticate"), "Bearer");
    }
    for wrong in ["Bearer so_other", "Basic so_test_secret", "so_test_secret", "Bearer"] {
        let got = bench.send("GET", "/tasks", &[("authorization", wrong)], HttpBody::empty()).await;
        assert_eq!(got.status, 401, "{wrong}");
        assert_eq!(got.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    let twice = [("authorization", "Bearer so_test_secret"), ("authorization", "Bearer so_other")];
    assert_eq!(bench.send("GET", "/tasks", &twice, HttpBody::empty()).await.status, 401);
    let lower = [("authorization", "bearer so_test_secret")];
    assert_eq!(bench.send("GET", "/metrics", &lower, HttpBody::empty()).await.text, "# EOF\n");
    for path in ["/healthz", "/v1/healthz"] {
        assert_eq!(bench.send("GET", path, &[], HttpBody::empty()).await.json(), json!({"status": "ok"}));
    }
    let got = bench.send("GET", "/readyz", &[], HttpBody::empty()).await;
    assert_eq!(got.problem(), (503, "not_ready".to_owned()));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed() {
    let bench = idle();
    for path in ["/", "/v1", "/v1/", "/tasks/", "/tasks/a/b", "/v2/tasks"] {
        assert_eq!(bench.call("GET", path, "").await.problem(), (404, "no_such_route".to_owned()), "{path}");
    }
    for (method, path, allow) in
        [("PUT", "/tasks", "POST,GET,HEAD"), ("GET", "/v1/tasks/batch", "POST"), ("POST", "/healthz", "GET,HEAD")]
    {
        let got = bench.call(method, path, "").await;
        assert_eq!(got.problem(), (405, "method_not_allowed".to_owned()), "{path}");
        let sorted = |text: &str| {
            let mut words: Vec<_> = text.split(',').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(sorted(got.header("allow")), sorted(allow), "{path}");
    }
    let got = bench.call("OPTIONS", "/tasks/x", "").await;
    assert_eq!((got.status.as_u16(), got.header("allow").contains("DELETE"), &*got.text), (204, true, ""));
    let got = bench.call("HEAD", "/metrics", "").await;
    assert_eq!((got.status.as_u16(), &*got.text), (200, ""));
    let got = bench.call("HEAD", "/tasks/gone", "").await;
    assert_eq!((got.status.as_u16(), &*got.text), (404, ""));
    for path in ["/tasks/gone", "/dlq/gone", "/tasks/%20", "/tasks/%ff", "/queues/a%20b", "/queues/%ff"] {
        assert_eq!(bench.call("GET", path, "").await.problem(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn request_ids_are_kept_where_sane_and_made_otherwise() {
    let bench = idle();
    let long = "r".repeat(REQUEST_ID_LEN_MAX);
    for id in ["abc-1", &long] {
        assert_eq!(bench.call_with("GET", "/healthz", &[("x-request-id", id)], "").await.header("x-request-id"), id);
    }
    let too_long = "r".repeat(REQUEST_ID_LEN_MAX + 1);
    let mut made = std::collections::HashSet::new();
    for id in ["", "a b", "<script>", &too_long] {
        let got = bench.call_with("GET", "/healthz", &[("x-request-id", id)], "").await;
        let uuid = uuid::Uuid::parse_str(got.header("x-request-id")).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert!(made.insert(uuid), "ids do not repeat");
    }
}

#[tokio::test]
async fn bodies_are_refused_by_type_size_and_form() {
    let bench = accepting();
    for given in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "json", ""] {
        let got = bench.call_with("POST", "/tasks", &[("content-type", given)], TASK).await;
        assert_eq!(got.problem(), (415, "unsupported_media_type".to_owned()), "{given}");
    }
    let ndjson = [("content-type", "application/x-ndjson")];
    let got = bench.call_with("POST", "/tasks", &ndjson, TASK).await;
    assert_eq!(got.problem().0, 415);
    assert!(!got.text.contains("send `Content-Type: application/x-ndjson"), "only batches come as lines: {got:?}");
    let got = bench.call_with("POST", "/tasks/batch", &[("content-type", "text/plain")], TASK).await;
    let both = "send `Content-Type: application/json` or `Content-Type: application/x-ndjson`";
    assert!(got.problem().0 == 415 && got.text.contains(both), "{got:?}");
    let got = bench.call_with("POST", "/tasks", &[("content-encoding", "gzip")], TASK).await;
    assert_eq!(got.problem().0, 415);
    for fine in ["application/json; charset=\"UTF-8\"", "Application/JSON;x=y"] {
        assert_eq!(bench.call_with("POST", "/tasks", &[("content-type", fine)], TASK).await.status, 201);
    }
    for (body, place) in [("{", "line 1 column 1"), ("{\"a\":\n1,}", "line 2 column 3"), ("{} {}", "line 1 column 4")] {
        let got = bench.call("POST", "/tasks", body).await;
        assert_eq!(got.problem(), (400, "malformed_json".to_owned()));
        assert!(got.json()["detail"].as_str().unwrap().contains(place), "{got:?}");
    }
    assert_eq!(bench.call("POST", "/tasks", "").await.problem().0, 415);
    let json = [("authorization", "Bearer so_test_secret"), ("content-type", "application/json")];
    for bytes in [&b""[..], b"\"\xff\""] {
        let got = bench.send("POST", "/tasks", &json, HttpBody::from(bytes)).await;
        assert_eq!(got.problem(), (400, "malformed_json".to_owned()));
    }
    let limit = usize::try_from(PAYLOAD_BYTES_DEFAULT).unwrap() + TASK_ENVELOPE_BYTES_MAX;
    let padded = |len: usize| TASK.to_owned() + &" ".repeat(len - TASK.len());
    assert_eq!(bench.call("POST", "/tasks", &padded(limit)).await.status, 201);
    let got = bench.call("POST", "/tasks", &padded(limit + 1)).await;
    assert_eq!(got.problem(), (413, "body_too_large".to_owned()));
    let declared = [("content-length", "99999999")];
    assert_eq!(bench.call_with("POST", "/tasks", &declared, TASK).await.problem().0, 413);
}

#[tokio::test]
async fn bodies_in_flight_have_a_budget_that_comes_back() {
    let bench = accepting();
    let all = bench.api.bodies().available_permits();
    assert_eq!(all, BODIES_IN_FLIGHT_BYTES_MAX);
    let taken = bench.api.bodies().try_acquire_many(u32::try_from(all - TASK.len()).unwrap()).unwrap();
    assert_eq!(bench.call("POST", "/tasks", TASK).await.status, 201, "just fits");
    let got = bench.call("POST", "/tasks", &format!("{TASK} ")).await;
    assert_eq!((got.problem(), got.header("retry-after")), ((503, "busy".to_owned()), "1"));
    drop(taken);
    assert_eq!(bench.call("POST", "/tasks/batch", &format!("[{TASK}]")).await.status, 201);
    assert_eq!(bench.api.bodies().available_permits(), all, "every byte was given back");
    let waiters = bench.api.waiters().available_permits();
    let taken = bench.api.waiters().try_acquire_many(u32::try_from(waiters).unwrap()).unwrap();
    assert_eq!(bench.call("GET", "/tasks/x?wait=1s", "").await.problem(), (503, "busy".to_owned()));
    assert_eq!(bench.call("GET", "/tasks/x?wait=0", "").await.status, 404, "this one does not wait");
    drop(taken);
    assert_eq!(bench.call("GET", "/tasks/x?wait=1s", "").await.status, 404);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out() {
    let bench = idle();
    let json = [("authorization", "Bearer so_test_secret"), ("content-type", "application/json")];
    let never = HttpBody::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let (got, ()) = tokio::join!(bench.send("POST", "/tasks", &json, never), advance_soon(&bench.hand, 60));
    assert_eq!(got.problem(), (408, "body_timeout".to_owned()));
    let broken =
        HttpBody::from_stream(futures_util::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("gone"))]));
    assert_eq!(bench.send("POST", "/tasks", &json, broken).await.problem().1, "body_unreadable");
}

const LINES: [(&str, &str); 2] = [("authorization", "Bearer so_test_secret"), ("content-type", "application/x-ndjson")];

/// A body that arrives in these pieces.
fn pieces(pieces: Vec<String>) -> HttpBody {
    HttpBody::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
}

#[tokio::test]
async fn lines_are_a_batch_read_as_they_arrive() {
    let bench = accepting();
    let all = bench.api.bodies().available_permits();
    let line = format!("{TASK}\n");
    let got = bench
        .send("POST", "/tasks/batch", &LINES, pieces(vec![line.repeat(3), line[..9].to_owned(), line[9..].to_owned()]))
        .await;
    assert_eq!((got.status.as_u16(), got.json()["task_ids"].as_array().unwrap().len()), (201, 4));

    // More than one piece of reading, each piece arriving whole.
    let many = LINES_PIECE_BYTES / line.len() + 1;
    let got = bench.send("POST", "/tasks/batch", &LINES, pieces(vec![line.repeat(many), line.repeat(2)])).await;
    assert_eq!(got.json()["task_ids"].as_array().map(Vec::len), Some(many + 2), "{got:?}");
    let got = bench.send("POST", "/tasks/batch", &LINES, pieces(vec![line.repeat(many), format!("{line}7\n")])).await;
    assert_eq!(got.problem(), (422, "invalid_task".to_owned()));
    let at = format!("/{}: line {}: expected an object, found a number", many + 1, many + 2);
    assert_eq!(got.json()["detail"], at);

    // At most 32 MiB, declared or not.
    let body_of = |bytes: usize| {
        let blank = bytes - line.len();
        let whole = (0..blank / 1024).map(|_| "\n".repeat(1024));
        pieces(whole.chain(["\n".repeat(blank % 1024), line.clone()]).collect())
    };
    assert_eq!(bench.send("POST", "/tasks/batch", &LINES, body_of(BATCH_BYTES_MAX)).await.status, 201);
    let got = bench.send("POST", "/tasks/batch", &LINES, body_of(BATCH_BYTES_MAX + 1)).await;
    assert_eq!(got.problem(), (413, "body_too_large".to_owned()));
    assert_eq!(bench.api.bodies().available_permits(), all, "every byte was given back");
}

#[tokio::test]
async fn lines_stop_being_read_once_they_are_hopeless_and_never_hold_more_than_the_budget() {
    let bench = accepting();
    // What follows never comes: whoever waited for it would be told `body_timeout`, if the clock moved.
    let hopeless = "7\n".repeat(LINES_PIECE_BYTES);
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(hopeless)]);
    let body = HttpBody::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()));
    assert_eq!(bench.send("POST", "/tasks/batch", &LINES, body).await.problem(), (422, "invalid_task".to_owned()));

    let all = bench.api.bodies().available_permits();
    let line = format!("{TASK}\n");
    let taken = bench.api.bodies().try_acquire_many(u32::try_from(all - 2 * line.len()).unwrap()).unwrap();
    let two = pieces(vec![line.clone(), line.clone()]);
    assert_eq!(bench.send("POST", "/tasks/batch", &LINES, two).await.status, 201, "just fits");
    let three = pieces(vec![line.clone(), line.clone(), line.clone()]);
    assert_eq!(bench.send("POST", "/tasks/batch", &LINES, three).await.problem(), (503, "busy".to_owned()));
    drop(taken);
    assert_eq!(bench.api.bodies().available_permits(), all, "every byte was given back");

    let never = HttpBody::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let (got, ()) = tokio::join!(bench.send("POST", "/tasks/batch", &LINES, never), advance_soon(&bench.hand, 60));
    assert_eq!(got.problem(), (408, "body_timeout".to_owned()));
    let declared = [LINES[0], LINES[1], ("content-length", "33554433")];
    assert_eq!(bench.send("POST", "/tasks/batch", &declared, HttpBody::empty()).await.problem().0, 413);
}

#[tokio::test]
async fn the_engine_is_asked_for_lines_as_for_an_array() {
    let bench = accepting();
    let keyed = [("content-type", "application/x-ndjson"), ("idempotency-key", "k")];
    let body = format!("{TASK}\n\n{TASK}\n");
    for sent in [&body, &body, &format!("{body}\n")] {
        assert_eq!(bench.call_with("POST", "/v1/tasks/batch", &keyed, sent).await.status, 201);
    }
    let asked = bench.asked.lock().unwrap();
    let key = |request: &Request| {
        let Request::Accept(accept) = request else { panic!("{request:?}") };
        accept.idempotency.unwrap()
    };
    let keys: Vec<_> = asked.iter().map(key).collect();
    assert_eq!((keys[0], keys[0].hash), (keys[1], keys[2].hash));
    assert_ne!(keys[0].digest, keys[2].digest, "another raw body");
}

#[tokio::test]
async fn idempotency_keys_have_bounds() {
    let bench = accepting();
    let longest = "k".repeat(IDEMPOTENCY_KEY_LEN_MAX);
    let got = bench.call_with("POST", "/tasks", &[("idempotency-key", &longest)], TASK).await;
    assert_eq!(got.status, 201);
    for wrong in [&*"k".repeat(IDEMPOTENCY_KEY_LEN_MAX + 1), "a b", "\u{e9}"] {
        let got = bench.call_with("POST", "/tasks", &[("idempotency-key", wrong)], TASK).await;
        assert_eq!(got.problem(), (400, "invalid_idempotency_key".to_owned()), "{wrong}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    assert_eq!(bench.call_with("POST", "/tasks/batch", &twice, "[]").await.problem().0, 400);
}

#[tokio::test]
async fn queries_are_checked_whole() {
    let bench = idle();
    let got =
        bench.call("GET", "/tasks?stauts=dead&limit=0&limit=1&cursor=x&status=done&label.a%20b=1&queue=", "").await;
    assert_eq!(got.problem(), (400, "invalid_query".to_owned()));
    let errors = got.json()["errors"].clone();
    let named: Vec<_> = errors.as_array().unwrap().iter().map(|error| error["parameter"].as_str().unwrap()).collect();
    assert_eq!(named, ["stauts", "limit", "queue", "status", "label.a b", "limit", "cursor"]);
    assert!(errors[0]["detail"].as_str().unwrap().ends_with("did you mean `status`?"));
    for path in
        ["/tasks?limit=1001", "/tasks/x?waitt=1", "/queues?x=1", "/dlq?status=dead", "/dlq?reason=bored", "/metrics?x"]
    {
        assert_eq!(bench.call("GET", path, "").await.problem(), (400, "invalid_query".to_owned()), "{path}");
    }
    assert_eq!(bench.call("POST", "/tasks?queue=x", TASK).await.problem().0, 400);
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let bench = idle();
    let body = r#"{"task_type":"http_request","payload":{"url":"panic"}}"#;
    for (path, body) in [("/tasks", body.to_owned()), ("/tasks/batch", format!("[{body}]"))] {
        assert_eq!(bench.call("POST", path, &body).await.problem(), (500, "internal".to_owned()));
    }
    let got = bench.send("POST", "/tasks/batch", &LINES, HttpBody::from(body)).await;
    assert_eq!(got.problem(), (500, "internal".to_owned()));
    let told = bench.told.lock().unwrap();
    assert!(
        told.iter().all(|access| access.cause.as_ref().is_some_and(|cause| cause.contains("panicked"))),
        "{told:?}"
    );
    assert_eq!(told[0].took, Span::default().to_duration());
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused_and_too_many_wrong_ones_are_told_to_wait() {
    let bench = idle();
    let ask = |method: &'static str, path: &'static str, key: &'static str| {
        let bench = &bench;
        async move { bench.send(method, path, &[("authorization", key)], HttpBody::empty()).await }
    };
    for path in ["/tasks", "/v1/tasks"] {
        let got = ask("GET", path, "Bearer scopes=enqueue,manage").await;
        assert_eq!(got.problem(), (403, "insufficient_scope".to_owned()));
        assert_eq!(got.header("www-authenticate"), "Bearer error=\"insufficient_scope\", scope=\"read\"");
    }
    assert_eq!(ask("HEAD", "/tasks", "Bearer scopes=enqueue").await.status, 403, "HEAD is GET");
    assert_eq!(ask("HEAD", "/tasks", "Bearer scopes=read:mail").await.status, 200);
    let got = ask("GET", "/tasks", "Bearer limited").await;
    assert_eq!((got.problem(), got.header("retry-after")), ((429, "auth_rate_limited".to_owned()), "2"));
    let got = ask("DELETE", "/keys", "Bearer scopes=admin").await;
    assert_eq!((got.problem().0, got.header("allow")), (405, "GET,HEAD,POST"));
    assert_eq!(ask("GET", "/nothing", "Bearer scopes=metrics").await.problem().0, 404);
}
