//! Administrative acts as the audit log is told of them. The engine behind them is scripted.

use serde_json::{Value, json};

use crate::logging::audit::{Outcome, Who};
use crate::queue::command::{Answer, EngineError, Request};
use crate::task::Status;

use super::rig_tests::{TASK, accepting, bench, idle, record};

#[tokio::test]
async fn an_act_is_told_with_who_what_before_and_after_and_its_request() {
    let dead = record(5, Status::Dead);
    let (id, row) = (dead.row.header.id(), dead.row.clone());
    let bench = bench(vec![dead], move |_| Ok(Answer::Task(Ok(Box::new(row.clone())))));
    let got = bench.call_with("POST", &format!("/v1/dlq/{id}/redrive"), &[("x-request-id", "r-7")], "").await;
    assert_eq!(got.status, 200);
    assert_eq!(bench.call("DELETE", &format!("/dlq/{id}"), "").await.status, 204);
    let acts = bench.trail.acts();
    assert_eq!(acts.len(), 2);
    assert!(matches!(&acts[0].who, Who::Key { id, name: None } if **id == *"test"));
    assert_eq!((&*acts[0].operation, acts[0].outcome), ("POST /dlq/{id}/redrive", Outcome::Done));
    assert_eq!(acts[0].object, Some(format!("/dlq/{id}")));
    assert_eq!(acts[0].request_id.as_deref(), Some("r-7"));
    let queue = |value: &Option<Value>| value.as_ref().map(|value| value["queue"].clone());
    assert_eq!((queue(&acts[0].after), queue(&acts[1].before)), (Some(json!("default")), Some(json!("default"))));
}

#[tokio::test]
async fn refusals_carry_their_code_and_what_may_be_partly_done_is_not_called_refused() {
    let dead = || vec![record(5, Status::Dead)];
    let bench = bench(dead(), |_| Err(EngineError::Stopping));
    let filter = |dry_run: bool| format!(r#"{{"queue":"default","dry_run":{dry_run}}}"#);
    for (body, outcome) in [
        (filter(false).as_str(), Outcome::Unknown("stopping")),
        (filter(true).as_str(), Outcome::Done),
        ("{}", Outcome::Refused("invalid_filter")),
        ("{", Outcome::Refused("malformed_json")),
    ] {
        bench.call("POST", "/dlq/purge", body).await;
        assert_eq!(bench.trail.acts().last().unwrap().outcome, outcome, "{body}");
    }
    let asked = bench.trail.acts()[0].after.clone().unwrap();
    assert_eq!(asked, json!({"queue": "default", "dry_run": false}));
    bench.call("POST", "/queues/default/pause", "").await;
    assert_eq!(bench.trail.acts().last().unwrap().outcome, Outcome::Refused("stopping"));
}

#[tokio::test]
async fn what_is_forbidden_is_told_and_what_has_no_key_or_is_no_act_is_not() {
    let bench = bench(vec![record(5, Status::Dead)], |_| Ok(Answer::Queues(Vec::new())));
    let call = async |method: &str, path: &str, key: &str| {
        let headers = [("authorization", format!("Bearer {key}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        bench.send(method, path, &headers, axum::body::Body::empty()).await.status.as_u16()
    };
    for (method, path, key, status, told) in [
        ("POST", "/queues/default/pause", "scopes=read", 403, 1),
        ("POST", "/queues/default/pause", "scopes=read,manage:mail", 403, 1),
        ("GET", "/keys", "scopes=read", 403, 1),
        ("HEAD", "/keys", "scopes=read", 403, 1),
        ("DELETE", "/tasks/x", "scopes=read", 403, 1),
        ("GET", "/metrics", "scopes=read", 403, 0),
        ("POST", "/tasks", "scopes=read", 403, 0),
        ("POST", "/queues/default/pause", "nobody", 401, 0),
        ("POST", "/queues/default/pause", "limited", 429, 0),
        ("GET", "/queues", "scopes=read", 200, 0),
        ("POST", "/keys/x", "scopes=admin", 405, 0),
        ("OPTIONS", "/keys", "scopes=read", 204, 0),
    ] {
        let before = bench.trail.acts().len();
        assert_eq!(call(method, path, key).await, status, "{method} {path} with {key}");
        assert_eq!(bench.trail.acts().len() - before, told, "{method} {path} with {key}");
    }
    assert!(bench.trail.acts().iter().all(|act| act.outcome == Outcome::Refused("insufficient_scope")));
}

#[tokio::test]
async fn nothing_is_done_that_could_not_be_written_down_and_tasks_are_accepted_all_the_same() {
    let shut = idle();
    shut.trail.breaks();
    for (method, path) in [("POST", "/queues/default/pause"), ("POST", "/dlq/purge"), ("DELETE", "/keys/x")] {
        let got = shut.call(method, path, "").await;
        assert_eq!(got.problem(), (503, "audit_unavailable".to_owned()), "{path}");
        assert_eq!(got.header("retry-after"), "5");
    }
    assert!(shut.asked.lock().unwrap().is_empty() && shut.trail.acts().is_empty());
    let open = accepting();
    open.trail.breaks();
    assert_eq!(open.call("POST", "/tasks", TASK).await.status, 201);
}

#[tokio::test]
async fn an_act_whose_caller_has_gone_is_done_and_told() {
    let bench = bench(vec![record(5, Status::Dead)], |request| {
        let Request::Chunk(_, ids) = request else { panic!("{request:?}") };
        Ok(Answer::Chunk(ids.len() as u64))
    });
    {
        let mut call = Box::pin(bench.call("POST", "/dlq/purge", r#"{"queue":"default"}"#));
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    bench.trail.ended().await;
    let acts = bench.trail.acts();
    assert_eq!((acts.len(), acts[0].outcome), (1, Outcome::Done));
    assert_eq!(acts[0].after, Some(json!({"queue": "default", "dry_run": false, "matched": 1, "done": 1})));
}

#[tokio::test]
async fn a_panic_in_the_middle_of_an_act_is_told() {
    let bench = idle();
    assert_eq!(bench.call("DELETE", "/keys/panic", "").await.problem(), (500, "internal".to_owned()));
    assert_eq!(bench.trail.acts()[0].outcome, Outcome::Unknown("internal"));
    assert_eq!(bench.call("DELETE", "/keys/other", "").await.status, 204);
    assert_eq!(bench.trail.acts()[1].outcome, Outcome::Done);
}
