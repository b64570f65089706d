//! Tasks, queues and dead letters as a caller sees them, over a scripted engine.
#![expect(clippy::wildcard_enum_match_arm, reason = "a script names what it expects, and nothing else")]

use serde_json::{Value, json};

use crate::queue::command::{
    AcceptError, Accepted, Answer, BulkAction, EngineError, QueueView, Request, TaskAction, TaskActionError,
};
use crate::queue::store::{Damage, IdRange};
use crate::task::outcome::DeadReason;
use crate::task::{QueueName, Status, TaskName};

use super::rig_tests::{Bench, TASK, accepting, advance_soon, bench, record};

fn refusing(error: AcceptError) -> Bench {
    bench(Vec::new(), move |_| Ok(Answer::Accept(Err(error.clone()))))
}

fn queue_name(text: &str) -> QueueName {
    QueueName::parse(text).unwrap()
}

fn view(name: &str, dead: Vec<(DeadReason, u64)>) -> QueueView {
    QueueView {
        configured: true,
        name: queue_name(name),
        config: std::sync::Arc::default(),
        paused: false,
        tasks: [1, 2, 3, 4, 5, 6, 7, 8],
        bytes: 99,
        oldest_ready: None,
        dead,
    }
}

#[tokio::test]
async fn a_repeat_is_not_told_that_its_expiry_has_passed() {
    let bench = accepting();
    let late = TASK.replace("}}", r#"},"expires_at":"2026-11-24T11:59:59Z"}"#);
    assert_eq!(bench.call("POST", "/tasks", &late).await.problem(), (422, "invalid_task".to_owned()));
    let key = [("idempotency-key", "k")];
    assert_eq!(bench.call_with("POST", "/tasks", &key, &late).await.status, 201);
    assert_eq!(bench.call_with("POST", "/tasks/batch", &key, &format!("[{late}]")).await.status, 201);
}

#[tokio::test]
async fn a_task_is_accepted_and_shown() {
    let bench = accepting();
    let body = r#"{"task_type":"http_request","payload":{"url" : "https://a/"}}"#;
    let got = bench.call_with("POST", "/v1/tasks", &[("idempotency-key", "k")], body).await;
    assert_eq!(got.status, 201);
    let task = got.json();
    assert_eq!(got.header("location"), format!("/v1/tasks/{}", task["task_id"].as_str().unwrap()));
    assert_eq!((&task["status"], &task["attempts"]), (&json!("running"), &json!([])));
    assert_eq!(bench.call_with("POST", "/tasks", &[("idempotency-key", "k")], body).await.status, 201);
    let asked = bench.asked.lock().unwrap();
    let [Request::Accept(first), Request::Accept(second)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(first.idempotency, second.idempotency, "the prefix is no part of the scope");
    assert!(first.idempotency.is_some());
    assert_eq!(&first.specs[0].payload[..], br#"{"url" : "https://a/"}"#, "byte for byte");
    let told = bench.told.lock().unwrap();
    assert_eq!(told[0].route.as_deref(), Some("/v1/tasks"));
    assert_eq!(told[0].caller.as_ref().map(|caller| &*caller.id), Some("test"));
}

#[tokio::test]
async fn a_repeat_gives_the_first_task_or_what_is_left_of_it() {
    let kept = record(5, Status::Succeeded);
    let id = kept.row.header.id();
    let range = move |count, key: i64| IdRange {
        first: record(key, Status::Dead).row.header.key,
        count,
        tail: id.tail,
        until: None,
    };
    let repeat = move |range, ended| Ok(Answer::Accept(Ok(Accepted::Repeat { range, ended })));
    let here = bench(vec![kept.clone()], move |_| repeat(range(1, 5), None));
    let got = here.call("POST", "/tasks", TASK).await;
    assert_eq!((got.status.as_u16(), got.header("idempotency-replayed")), (200, "true"));
    assert_eq!((&got.json()["task_id"], &got.json()["status"]), (&json!(id.to_string()), &json!("succeeded")));
    let gone = bench(Vec::new(), move |_| repeat(range(1, 5), Some(Status::Cancelled)));
    let got = gone.call("POST", "/tasks", TASK).await;
    assert_eq!(got.json(), json!({"task_id": id.to_string(), "status": "cancelled"}));
    let batch = bench(vec![kept], move |_| repeat(range(2, 5), None));
    let got = batch.call("POST", "/tasks/batch", &format!("[{TASK},{TASK}]")).await;
    assert_eq!((got.status.as_u16(), got.header("idempotency-replayed")), (200, "true"));
    assert_eq!(got.json()["task_ids"].as_array().unwrap().len(), 2);
    assert_eq!(got.json()["task_ids"][0], id.to_string());
}

#[tokio::test]
async fn refusals_of_the_engine_have_their_codes() {
    let queue = queue_name("defualt");
    let cases = [
        (
            AcceptError::UnknownQueue { index: 1, queue: queue.clone(), nearest: Some(queue_name("default")) },
            (422, "unknown_queue", ""),
        ),
        (
            AcceptError::RetryPolicy { index: 1, source: crate::task::retry::RetryPolicyError::AllNeedsDuration },
            (422, "invalid_task", ""),
        ),
        (AcceptError::NameTaken { index: 1, name: TaskName::parse("n").unwrap() }, (409, "task_id_taken", "")),
        (AcceptError::IdempotencyMismatch, (422, "idempotency_mismatch", "")),
        (AcceptError::QueueFull { queue, what: "max_tasks", limit: 5 }, (429, "queue_full", "1")),
        (AcceptError::StorageFull { free: 1, reserve: 2 }, (503, "storage_full", "30")),
        (AcceptError::Engine(EngineError::Busy), (503, "busy", "1")),
        (AcceptError::Engine(EngineError::Stopping), (503, "stopping", "5")),
        (AcceptError::Engine(EngineError::Unknown), (500, "unknown_outcome", "")),
    ];
    for (error, (status, code, retry_after)) in cases {
        let bench = refusing(error.clone());
        let got = bench.call("POST", "/tasks/batch", &format!("[{TASK},{TASK}]")).await;
        assert_eq!((got.problem(), got.header("retry-after")), ((status, code.to_owned()), retry_after));
        let pointer = got.json()["errors"][0]["pointer"].clone();
        if pointer != Value::Null {
            assert!(pointer.as_str().unwrap().starts_with("/1/"), "{pointer}");
            let single = bench.call("POST", "/tasks", TASK).await.json();
            assert!(!single["errors"][0]["pointer"].as_str().unwrap().starts_with("/1/"));
            let lines = [("content-type", "application/x-ndjson")];
            let got = bench.call_with("POST", "/tasks/batch", &lines, &format!("{TASK}\n\n{TASK}")).await.json();
            assert_eq!(got["errors"][0]["pointer"], pointer);
            assert!(got["errors"][0]["detail"].as_str().unwrap().starts_with("line 3: "), "{got}");
            assert!(got["detail"].as_str().unwrap().contains("line 3: "), "{got}");
        }
        if code == "unknown_queue" {
            assert!(got.json()["detail"].as_str().unwrap().ends_with("did you mean `default`?"));
        }
    }
}

#[tokio::test]
async fn one_task_is_shown_with_its_history_and_without_its_secrets() {
    let mut damaged = record(9, Status::Dead);
    damaged.row.body = Err(Damage { what: "payload 9: checksum".to_owned() });
    let damaged_id = damaged.row.header.id();
    let bench = bench(vec![record(5, Status::Dead), damaged], |_| Err(EngineError::Busy));
    let id = record(5, Status::Dead).row.header.id();
    let got = bench.call("GET", &format!("/tasks/{id}"), "").await;
    insta::assert_json_snapshot!(got.json());
    assert!(got.text.contains(r#"{"url":"https://a/","headers":{"Authorization":"[redacted]","x-a":"b"}}"#));
    let shown = bench.call("GET", &format!("/tasks/{damaged_id}"), "").await.json();
    assert_eq!((&shown["damaged"], &shown["payload"]), (&json!("payload 9: checksum"), &Value::Null));
    assert_eq!(bench.call("GET", "/tasks/broken", "").await.problem(), (503, "storage_unavailable".to_owned()));
    assert_eq!(bench.call("GET", "/tasks/damaged", "").await.problem(), (500, "storage_damaged".to_owned()));
    let told = bench.told.lock().unwrap();
    let cause = told.iter().find_map(|access| access.cause.clone());
    assert_eq!(cause.as_deref(), Some("the store cannot be read: the disk is gone"));
}

#[tokio::test]
async fn waiting_has_bounds_and_ends() {
    let ended = record(5, Status::Succeeded);
    let running = record(6, Status::Running);
    let ids = [ended.row.header.id(), running.row.header.id()];
    let bench = bench(vec![ended, running], |_| Err(EngineError::Busy));
    assert_eq!(bench.call("GET", &format!("/tasks/{}?wait=60s", ids[0]), "").await.status, 200);
    for wrong in ["60001ms", "-1", "x"] {
        let got = bench.call("GET", &format!("/tasks/{}?wait={wrong}", ids[0]), "").await;
        assert_eq!(got.problem(), (400, "invalid_query".to_owned()), "{wrong}");
    }
    let path = format!("/tasks/{}?wait=30", ids[1]);
    let (got, ()) = tokio::join!(bench.call("GET", &path, ""), advance_soon(&bench.hand, 30));
    assert_eq!(got.json()["status"], "running", "the time is over, the task is not");
}

#[tokio::test]
async fn pages_follow_one_another_by_cursor() {
    let records: Vec<_> = (1..=250).map(|key| record(key, Status::Succeeded)).collect();
    let bench = bench(records, |_| Err(EngineError::Busy));
    let (mut path, mut sizes, mut ids) = ("/tasks?limit=120&label.tenant=42".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = bench.call("GET", &path, "").await.json();
        let tasks = page["tasks"].as_array().unwrap();
        sizes.push(tasks.len());
        ids.extend(tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        assert!(tasks.iter().all(|task| task.get("attempts").is_none()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/tasks?limit=120&cursor={next}");
    }
    assert_eq!(sizes, [120, 120, 10]);
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first, each once");
    assert_eq!(bench.call("GET", "/tasks", "").await.json()["tasks"].as_array().unwrap().len(), 100);
    assert_eq!(bench.call("GET", "/tasks?limit=1000", "").await.json()["next"], Value::Null);
}

#[tokio::test]
async fn large_payloads_end_a_page_early() {
    let large = |key| {
        let mut record = record(key, Status::Succeeded);
        let mut body = crate::task::Body::clone(record.row.body.as_ref().unwrap());
        body.payload = format!("\"{}\"", "x".repeat(3 << 20)).into();
        record.row.body = Ok(std::sync::Arc::new(body));
        record
    };
    let bench = bench((1..=4).map(large).collect(), |_| Err(EngineError::Busy));
    let page = bench.call("GET", "/tasks", "").await.json();
    assert_eq!(page["tasks"].as_array().unwrap().len(), 3);
    let rest = bench.call("GET", &format!("/tasks?cursor={}", page["next"].as_str().unwrap()), "").await.json();
    assert_eq!((rest["tasks"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn actions_reach_the_engine_and_their_refusals_come_back() {
    let dead = record(5, Status::Dead);
    let id = dead.row.header.id();
    let row = dead.row.clone();
    let bench = bench(vec![dead], move |request| {
        Ok(Answer::Task(match request {
            Request::Task(_, task) if task.id == Some(id) => Ok(Box::new(row.clone())),
            Request::Task(_, task) if task.name.as_ref().is_some_and(|name| name.as_str() == "ended") => {
                Err(TaskActionError::WrongState { status: Status::Succeeded })
            }
            Request::Task(..) => Err(TaskActionError::NotFound),
            other => panic!("{other:?}"),
        }))
    });
    for (method, path) in
        [("DELETE", "/tasks/"), ("POST", "/dlq/{}/redrive"), ("POST", "/tasks/{}/run"), ("DELETE", "/dlq/")]
    {
        let at = |id: &str| if path.contains("{}") { path.replace("{}", id) } else { format!("{path}{id}") };
        let got = bench.call(method, &at(&id.to_string()), "").await;
        if path == "/dlq/" {
            assert_eq!((got.status.as_u16(), &*got.text), (204, ""));
        } else {
            assert_eq!((got.status.as_u16(), &got.json()["attempts"][0]["number"]), (200, &json!(1)));
        }
        let got = bench.call(method, &at("ended"), "").await;
        assert_eq!(got.problem(), (409, "wrong_state".to_owned()));
        assert_eq!(got.json()["detail"], "the task is succeeded");
        assert_eq!(bench.call(method, &at("none"), "").await.problem(), (404, "not_found".to_owned()));
    }
    let asked = bench.asked.lock().unwrap();
    let actions: Vec<_> = asked
        .iter()
        .filter_map(|request| match request {
            Request::Task(action, _) => Some(*action),
            _ => None,
        })
        .collect();
    let each = [TaskAction::Cancel, TaskAction::Redrive, TaskAction::Run, TaskAction::Purge];
    assert_eq!(actions, each.into_iter().flat_map(|action| [action; 3]).collect::<Vec<_>>());
}

#[tokio::test]
async fn queues_are_shown_paused_and_resumed() {
    let bench = bench(Vec::new(), |request| {
        Ok(Answer::Queues(match request {
            Request::Queues(None) => vec![view("a", vec![]), view("default", vec![])],
            Request::Queues(Some(name)) if name.as_str() == "default" => vec![view("default", vec![])],
            Request::Pause(name, paused) if name.as_str() == "default" => {
                vec![QueueView { paused, ..view("default", vec![]) }]
            }
            _ => Vec::new(),
        }))
    });
    assert_eq!(bench.call("GET", "/queues", "").await.json()["queues"][1]["name"], "default");
    insta::assert_json_snapshot!(bench.call("GET", "/queues/default", "").await.json());
    assert_eq!(bench.call("POST", "/queues/default/pause", "").await.json()["paused"], true);
    assert_eq!(bench.call("POST", "/v1/queues/default/resume", "").await.json()["paused"], false);
    for (method, path) in [("GET", "/queues/none"), ("POST", "/queues/none/pause"), ("POST", "/queues/none/resume")] {
        assert_eq!(bench.call(method, path, "").await.problem(), (404, "not_found".to_owned()));
    }
}

#[tokio::test]
async fn dead_letters_are_listed_counted_and_shown() {
    let records = vec![record(5, Status::Dead), record(6, Status::Succeeded)];
    let [dead, alive] = [5, 6].map(|key| record(key, Status::Dead).row.header.id());
    let bench = bench(records, |_| {
        Ok(Answer::Queues(vec![
            view("a", vec![(DeadReason::MaxAttempts, 2), (DeadReason::Corrupt, 0)]),
            view("b", vec![(DeadReason::PermanentStatus, 1)]),
        ]))
    });
    let page = bench.call("GET", "/dlq?queue=default&reason=permanent_status", "").await.json();
    assert_eq!(page["dead_letters"].as_array().unwrap().len(), 1);
    assert_eq!(page["dead_letters"][0]["dead_reason"], "permanent_status");
    assert_eq!(page["total"], 3);
    assert_eq!(
        page["counts"],
        json!([
            {"queue": "a", "reason": "max_attempts", "count": 2}, {"queue": "b", "reason": "permanent_status", "count": 1}
        ])
    );
    assert_eq!(bench.call("GET", &format!("/dlq/{dead}"), "").await.json()["attempts"][0]["response"]["text"], "nope");
    let got = bench.call("GET", &format!("/dlq/{alive}"), "").await;
    assert_eq!(got.problem(), (404, "not_found".to_owned()));
    assert!(got.json()["detail"].as_str().unwrap().contains("succeeded"));
}

#[tokio::test]
async fn bulk_calls_want_a_filter_or_the_word_all() {
    let bench = bench(vec![record(5, Status::Dead), record(6, Status::Dead)], |request| match request {
        Request::Chunk(action, ids) => Ok(Answer::Chunk(ids.len() as u64 - u64::from(action == BulkAction::Purge))),
        other => panic!("{other:?}"),
    });
    for body in ["", "{}", r#"{"all":false}"#, r#"{"labels":{}}"#, r#"{"dry_run":true}"#, r#"{"queue":null}"#] {
        let got = bench.call("POST", "/dlq/purge", body).await;
        assert_eq!(got.problem(), (422, "invalid_filter".to_owned()), "{body}");
        assert_eq!(got.json()["errors"][0]["pointer"], "/all");
    }
    for (body, pointer) in [
        (r#"{"all":true,"queue":"a"}"#, "/all"),
        (r#"{"quue":"a","all":true}"#, "/quue"),
        (r#"{"reason":"bored"}"#, "/reason"),
        ("[]", ""),
    ] {
        let got = bench.call("POST", "/dlq/redrive", body).await;
        assert_eq!(
            (got.problem(), &got.json()["errors"][0]["pointer"]),
            ((422, "invalid_filter".to_owned()), &json!(pointer))
        );
    }
    assert_eq!(bench.call("POST", "/dlq/redrive", "{").await.problem(), (400, "malformed_json".to_owned()));
    assert!(bench.asked.lock().unwrap().is_empty(), "nothing was touched so far");
    let got = bench.call("POST", "/dlq/redrive", r#"{"all":true,"dry_run":true}"#).await;
    assert_eq!(got.json(), json!({"matched": 2, "redriven": 0, "dry_run": true}));
    let got = bench.call("POST", "/dlq/redrive", r#"{"queue":"default","labels":{"a":"b"}}"#).await;
    assert_eq!(got.json(), json!({"matched": 2, "redriven": 2, "dry_run": false}));
    let got = bench.call("POST", "/dlq/purge", r#"{"all":true}"#).await;
    assert_eq!(got.json(), json!({"matched": 2, "purged": 1, "dry_run": false}));
    let large = format!(r#"{{"queue":"a"}}{}"#, " ".repeat(64 * 1024));
    assert_eq!(bench.call("POST", "/dlq/purge", &large).await.problem().0, 413);
}
