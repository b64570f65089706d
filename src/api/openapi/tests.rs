//! The document and the code say the same: fields, bounds, routes, refusals; and the file in the repository is this one.

use std::collections::BTreeSet;

use axum::body::Body as HttpBody;
use serde_json::{Value, json};

use crate::api::error::{Code, Problem};
use crate::api::rig_tests::{KEY, accepting, check, idle, noon};
use crate::api::wire_task::{RETRY_FIELDS, Rules, TASK_FIELDS, one};
use crate::api::{dlq, docs, keys as api_keys, tasks};
use crate::queue::command::{AcceptError, EngineError, TaskActionError};
use crate::queue::store::StoreError;
use crate::task::limits::{KEY_SCOPES_MAX, WAIT_MAX};
use crate::task::{QueueName, Span, Status, TaskName};
use crate::worker::handler::http;

use super::contract_tests::validator;
use super::refusals;

/// The document as a client reads it.
fn document() -> Value {
    serde_json::from_str(&super::text()).unwrap()
}

/// Every operation: method, path, what is said of it.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let verbs = paths.iter().flat_map(|(path, item)| {
        let verbs = item.as_object().unwrap().iter().filter(|(verb, _)| *verb != "parameters");
        verbs.map(move |(verb, operation)| (verb.to_uppercase(), path.clone(), operation))
    });
    verbs.collect()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_file_in_the_repository_is_this_document() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = super::text();
    let kept = std::fs::read_to_string(root.join("docs/openapi.json")).unwrap_or_default();
    if made != kept {
        std::fs::write(root.join("target/openapi.json"), &made).unwrap();
        panic!(
            "docs/openapi.json is not what the code says: look at it, then `cp target/openapi.json docs/openapi.json`"
        );
    }
}

#[test]
fn every_field_that_is_read_is_declared_and_no_other() {
    let document = document();
    let declared = |schema: &str| document["components"]["schemas"][schema]["properties"].clone();
    for (schema, read) in [
        ("NewTask", &TASK_FIELDS[..]),
        ("RetryOverrides", &RETRY_FIELDS),
        ("DeadLetterFilter", &dlq::FILTER_FIELDS),
        ("NewKey", &api_keys::KEY_FIELDS),
        ("HttpRequest", &http::FIELDS.split(", ").collect::<Vec<_>>()),
    ] {
        assert_eq!(keys(&declared(schema)), read.iter().copied().collect(), "{schema}");
    }
    for (path, read) in [("/tasks", tasks::LIST_PARAMETERS), ("/dlq", dlq::LIST_PARAMETERS)] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let named = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let named = named.map(|parameter| parameter["name"].as_str().unwrap());
        // `label.` and what follows are the fields of one parameter.
        let named: BTreeSet<_> = named.map(|name| if name == "labels" { "label." } else { name }).collect();
        assert_eq!(named, read.into_iter().collect(), "{path}");
    }
}

/// Whether a task is taken by the code, and whether by the document.
fn taken(task: &Value) -> (bool, bool) {
    let check = check();
    let rules = Rules { now: noon(), payload_bytes_max: 1 << 20, check: &check, keyed: true };
    let by_code = one(&task.to_string(), &rules).is_ok();
    (by_code, validator("/components/schemas/NewTask").is_valid(task))
}

/// A task with this value at one place, `retry/jitter` say.
fn with(place: &str, value: Value) -> Value {
    let mut task = json!({"task_type": "http_request", "payload": {"url": "https://a/"}});
    match place.split_once('/') {
        Some((outer, inner)) => task[outer] = json!({inner: value}),
        None => task[place] = value,
    }
    task
}

#[test]
fn bounds_are_those_of_the_code_one_within_and_one_beyond() {
    let text = |len: usize| json!("x".repeat(len));
    let labels = |count: usize| (0..count).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    for (place, within, beyond) in [
        ("priority", json!(0), json!(-1)),
        ("priority", json!(9), json!(10)),
        ("priority", json!(null), json!("5")),
        ("timeout", json!(0.001), json!(0)),
        ("timeout", json!(86_400), json!(86_401)),
        ("timeout", json!("1h30m"), json!("30m1h")),
        ("timeout", json!("1.5s"), json!("s1")),
        ("delay", json!(0), json!(-1)),
        ("delay", json!(5 * 366 * 86_400), json!(5 * 366 * 86_400 + 1)),
        ("delay", json!("90"), json!("")),
        ("run_at", json!("2026-12-01T00:00:00+01:00"), json!("2026-12-01")),
        ("task_id", text(256), text(257)),
        ("task_id", json!("a:~"), json!("a b")),
        ("task_id", json!("batches"), json!("batch")),
        ("queue", text(128), text(129)),
        ("queue", json!("a-b"), json!("")),
        ("labels", Value::Object(labels(32)), Value::Object(labels(33))),
        ("labels", json!({"l": "é".repeat(256)}), json!({"l": "é".repeat(257)})),
        ("labels", json!({"a.b": ""}), json!({"a b": ""})),
        ("retry/max_attempts", json!(1), json!(0)),
        ("retry/max_attempts", json!(1_000_000), json!(1_000_001)),
        ("retry/min_backoff", json!(366 * 86_400), json!(366 * 86_400 + 1)),
        ("retry/max_backoff", json!("366d"), json!(true)),
        ("retry/max_doublings", json!(64), json!(65)),
        ("retry/max_retry_duration", json!(0.001), json!(0)),
        ("retry/jitter", json!(1), json!(1.1)),
        ("retry/jitter", json!(0), json!(-0.1)),
        ("retry/stop_when", json!("all"), json!("both")),
        ("retry/stop_when", json!(null), json!(1)),
        ("retry/credential_wait_max", json!("1h"), json!(366 * 86_400 + 1)),
        ("retry/on_status", json!({"200": "dead", "599": "done"}), json!({"600": "done"})),
        ("retry/on_status", json!({}), json!({"404": "later"})),
        ("task_type", json!("http_request"), json!(null)),
        ("retry", json!(null), json!({"retries": 1})),
        ("expires_at", json!(null), json!("soon")),
    ] {
        assert_eq!(taken(&with(place, within.clone())), (true, true), "{place} {within}");
        assert_eq!(taken(&with(place, beyond.clone())), (false, false), "{place} {beyond}");
    }
    for (payload, fits) in [
        (json!({"url": "https://a/", "body": null}), true),
        (json!({"url": "https://a/", "body": 1, "body_text": ""}), false),
        (json!({"url": "https://a/", "body_text": "", "body_base64": ""}), false),
    ] {
        // The handler reads it, and has tests of its own for this.
        assert_eq!(taken(&with("payload", payload.clone())).1, fits, "{payload}");
    }
    for (delay, run_at, fits) in [
        (json!("1s"), json!("2026-12-01T00:00:00Z"), false),
        (json!(null), json!("2026-12-01T00:00:00Z"), true),
        (json!("1s"), json!(null), true),
    ] {
        let mut task = with("delay", delay);
        task["run_at"] = run_at;
        assert_eq!(taken(&task), (fits, fits), "{task}");
    }
    assert_eq!(taken(&with("quue", json!("a"))), (false, false));
    assert_eq!(taken(&json!({"task_type": "http_request"})), (false, false));
}

#[test]
fn filters_are_those_of_the_code() {
    for (filter, fits) in [
        (json!({"all": true}), true),
        (json!({"all": true, "queue": null, "labels": {}, "dry_run": true}), true),
        (json!({"reason": "corrupt"}), true),
        (json!({"labels": {"a": "b"}, "all": false}), true),
        (json!({"queue": "default", "task_type": "http_request", "all": null}), true),
        (json!({}), false),
        (json!({"dry_run": true}), false),
        (json!({"labels": {}}), false),
        (json!({"queue": null}), false),
        (json!({"all": false}), false),
        (json!({"all": true, "queue": "default"}), false),
        (json!({"reason": "bored"}), false),
        (json!({"queue": "a b"}), false),
        (json!({"queues": "a"}), false),
        (json!([]), false),
    ] {
        assert_eq!(dlq::read_bulk(&filter.to_string()).is_ok(), fits, "{filter}");
        assert_eq!(validator("/components/schemas/DeadLetterFilter").is_valid(&filter), fits, "{filter}");
    }
}

#[test]
fn new_keys_are_those_of_the_code() {
    let many = |count: usize| (0..count).map(|n| format!("read:q{n}")).collect::<Vec<_>>();
    for (key, fits) in [
        (json!({"name": "a", "scopes": ["read"]}), true),
        (json!({"name": "a", "scopes": ["enqueue:mail-*", "metrics"], "expires_at": null}), true),
        (json!({"name": "a", "scopes": ["read"], "expires_at": "2026-12-01T00:00:00Z"}), true),
        (json!({"name": "a", "scopes": many(KEY_SCOPES_MAX)}), true),
        (json!({"name": "a", "scopes": many(KEY_SCOPES_MAX + 1)}), false),
        (json!({"name": "a", "scopes": []}), false),
        (json!({"name": "a", "scopes": ["metrics:mail"]}), false),
        (json!({"name": "a", "scopes": ["read:"]}), false),
        (json!({"name": "a", "scopes": ["write"]}), false),
        (json!({"name": "a", "scopes": [1]}), false),
        (json!({"name": "a b", "scopes": ["read"]}), false),
        (json!({"name": null, "scopes": ["read"]}), false),
        (json!({"scopes": ["read"]}), false),
        (json!({"name": "a"}), false),
        (json!({"name": "a", "scopes": ["read"], "scope": "read"}), false),
        (json!([]), false),
    ] {
        assert_eq!(api_keys::read(&key.to_string(), noon()).is_ok(), fits, "{key}");
        assert_eq!(validator("/components/schemas/NewKey").is_valid(&key), fits, "{key}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, at: &Value, seen: &mut usize) {
        match at {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref") {
                    let target = reference.as_str().unwrap().trim_start_matches('#');
                    assert!(document.pointer(target).is_some(), "{target}");
                    *seen += 1;
                }
                fields.values().for_each(|field| walk(document, field, seen));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item, seen)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let (document, mut seen) = (document(), 0);
    walk(&document, &document, &mut seen);
    assert!(seen > 100, "{seen} references");
}

#[test]
fn waits_are_those_of_the_code() {
    let document = document();
    let parameters = document["paths"]["/tasks/{id}"]["get"]["parameters"].as_array().unwrap();
    let at = parameters.iter().position(|parameter| parameter["name"] == "wait").unwrap();
    let schema = format!("/paths/~1tasks~1{{id}}/get/parameters/{at}/schema");
    for (wait, fits) in [
        ("0", true),
        ("60", true),
        ("59.999s", true),
        ("1m", true),
        ("250ms", true),
        ("61", false),
        ("2m", false),
        ("", false),
        ("s", false),
    ] {
        assert_eq!(validator(&schema).is_valid(&json!(wait)), fits, "{wait}");
        assert_eq!(Span::parse(wait).is_ok_and(|wait| wait <= WAIT_MAX), fits, "{wait}");
    }
}

#[tokio::test]
async fn examples_work() {
    let (document, bench) = (document(), accepting());
    let schemas = &document["components"]["schemas"];
    for (path, schema) in [("/tasks", "NewTask"), ("/tasks/batch", "NewTasks")] {
        for example in schemas[schema]["examples"].as_array().unwrap() {
            assert_eq!(bench.call("POST", path, &example.to_string()).await.status, 201, "{example}");
        }
    }
    let mut seen = 0;
    for (name, schema) in schemas.as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            assert!(validator(&format!("/components/schemas/{name}")).is_valid(example), "{name}: {example}");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen} examples");
}

#[tokio::test]
async fn every_route_is_documented_with_its_methods_and_no_other() {
    let (document, bench) = (document(), idle());
    let paths = keys(&document["paths"]);
    let source = include_str!("../router.rs").split("pub fn router(").nth(1).unwrap();
    let routes: BTreeSet<_> = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(paths, routes);
    for path in paths {
        let got = bench.call("OPTIONS", &path.replace(['{', '}'], ""), "").await;
        let allowed: BTreeSet<_> = got.header("allow").split(',').filter(|method| *method != "HEAD").collect();
        let verbs: BTreeSet<_> =
            keys(&document["paths"][path]).into_iter().filter(|key| *key != "parameters").collect();
        assert_eq!(
            verbs.iter().map(|verb| verb.to_uppercase()).collect::<Vec<_>>(),
            allowed.into_iter().collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn what_needs_no_key_says_so_and_everything_else_needs_one() {
    let (document, bench) = (document(), idle());
    let mut open = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        for prefix in ["", "/v1"] {
            let path = format!("{prefix}{}", path.replace(['{', '}'], ""));
            let got = bench.send(&method, &path, &[], HttpBody::empty()).await;
            assert_eq!(got.status == 401, operation["security"].is_null(), "{method} {path}");
        }
        if !operation["security"].is_null() {
            assert_eq!(operation["security"], json!([]));
            open.insert(path);
        }
    }
    assert_eq!(open.iter().map(String::as_str).collect::<Vec<_>>(), ["/docs", "/healthz", "/openapi.json", "/readyz"]);
}

#[test]
fn every_operation_can_become_a_method_of_a_client() {
    let document = document();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).map(Value::to_string).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && ids.insert(id), "{id}");
        assert!(
            operation["tags"].as_array().is_some_and(|given| given.iter().all(|tag| tags.contains(&tag.to_string())))
        );
        let said = |what: &str| operation[what].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("summary") && said("description"), "{method} {path}");
        assert!(refusals::by_status(id).is_some(), "the refusals of {id} are not known");
        assert!(operation["responses"]["500"].is_object(), "{id}");
    }
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_code_can_come_from_somewhere() {
    let document = document();
    let all = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let ids = all.filter_map(|operation| operation["operationId"].as_str());
    let said: BTreeSet<_> =
        ids.flat_map(|id| refusals::by_status(id).unwrap()).flat_map(|(_, codes)| codes).map(Code::as_str).collect();
    // The router's own answers, where there is no operation.
    let router = [Code::NoSuchRoute, Code::MethodNotAllowed].map(Code::as_str);
    let known: BTreeSet<_> = Code::ALL.into_iter().map(Code::as_str).filter(|code| !router.contains(code)).collect();
    assert_eq!(said, known);
}

#[test]
fn every_error_of_the_floors_below_is_among_the_refusals() {
    for error in [EngineError::Busy, EngineError::Stopping, EngineError::Unknown] {
        assert!(refusals::ENGINE.contains(&Problem::from(error).code()), "{error}");
    }
    for error in
        [StoreError::Unavailable("x".into()), StoreError::Corrupt { what: String::new(), place: String::new() }]
    {
        assert!(refusals::STORE.contains(&Problem::from(error).code()));
    }
    for error in [TaskActionError::NotFound, TaskActionError::WrongState { status: Status::Dead }] {
        assert!(refusals::ACTION.contains(&Problem::from(error).code()));
    }
    let (queue, name) = (QueueName::parse("q").unwrap(), TaskName::parse("t").unwrap());
    for error in [
        AcceptError::UnknownQueue { index: 0, queue: queue.clone(), nearest: None },
        AcceptError::NameTaken { index: 0, name },
        AcceptError::IdempotencyMismatch,
        AcceptError::QueueFull { queue, what: "max_tasks", limit: 1 },
        AcceptError::StorageFull { free: 0, reserve: 1 },
    ] {
        assert!(refusals::ACCEPT.contains(&Problem::accept(error, false).code()));
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served_whole_and_safely() {
    let bench = idle();
    for path in ["/openapi.json", "/v1/openapi.json"] {
        let got = bench.send("GET", path, &[], HttpBody::empty()).await;
        assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "application/json"));
        assert_eq!(got.text, super::text());
    }
    let page = bench.send("GET", "/docs", &[], HttpBody::empty()).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let parts: BTreeSet<_> = docs::PARTS.iter().map(|(path, _)| *path).collect();
    // Whatever the page refers to is a part of it or the document, under the prefix that the page has.
    let referred = ["href=\"", "src=\""].into_iter().flat_map(|start| page.text.split(start).skip(1));
    let referred: Vec<_> = referred.map(|rest| format!("/{}", rest.split('"').next().unwrap())).collect();
    assert!(referred.len() > parts.len());
    assert!(referred.iter().all(|path| parts.contains(path.as_str()) || path == "/openapi.json"), "{referred:?}");
    assert!(!page.text.contains("<script>") && !page.text.contains(" style=") && !page.text.contains("<style"));
    for path in parts.iter().copied().chain(["/docs"]) {
        for (method, path) in [("GET", path.to_owned()), ("HEAD", format!("/v1{path}"))] {
            let got = bench.fetch(method, &path, &[]).await;
            assert_eq!(got.0, 200, "{method} {path}");
            let policy = got.1["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
            assert_eq!(got.1["x-content-type-options"], "nosniff");
            assert_ne!(got.1["content-type"], "application/octet-stream");
        }
        let posted = bench.call("POST", path, "").await;
        assert_eq!((posted.status.as_u16(), posted.header("allow")), (405, "GET,HEAD"), "{path}");
    }
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-initializer.js", "/docs/../tasks", "/docs/x"] {
        assert_eq!(bench.fetch("GET", path, &[]).await.0, 401, "{path}: strangers learn nothing");
        let key = format!("Bearer {KEY}");
        assert_eq!(bench.fetch("GET", path, &[("authorization", &key)]).await.0, 404, "{path}");
    }
}
