//! The API's outer edge on a real server: versions, metrics, and what the router itself refuses.

use reqwest::Method;
use serde_json::json;

use crate::support::client::Answer;
use crate::support::server::TestServer;
use crate::support::target::Target;

/// Status and code of a problem that names its request and is typed as one.
fn problem(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{:?}", answer.body);
    assert_eq!(answer.body["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok());
    assert_eq!(answer.body["status"].as_u64(), Some(u64::from(answer.status.as_u16())));
    (answer.status.as_u16(), answer.body["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn whatever_is_refused_is_refused_as_a_problem() {
    let server = TestServer::start().await;
    let client = &server.client;
    let with = |method: Method, path: &str, kind: &str, body: String| {
        client.send(client.request(method, path).header("content-type", kind).body(body))
    };
    let json = "application/json";
    let large = "x".repeat(2 * 1024 * 1024);
    for (method, path, kind, body, expected) in [
        (Method::GET, "/nowhere", json, String::new(), (404, "no_such_route")),
        (Method::PUT, "/tasks", json, "{}".to_owned(), (405, "method_not_allowed")),
        (Method::POST, "/tasks", "text/plain", "{}".to_owned(), (415, "unsupported_media_type")),
        (Method::POST, "/tasks", json, "{".to_owned(), (400, "malformed_json")),
        (Method::POST, "/tasks", json, format!("\"{large}\""), (413, "body_too_large")),
        (Method::POST, "/tasks", json, "{}".to_owned(), (422, "invalid_task")),
        (Method::GET, "/tasks?colour=red", json, String::new(), (400, "invalid_query")),
        (Method::GET, "/queues/nobody", json, String::new(), (404, "not_found")),
        (Method::POST, "/tasks/nobody/run", json, "{}".to_owned(), (404, "not_found")),
    ] {
        let answer = with(method.clone(), path, kind, body).await.expect("an answer");
        let (status, code) = problem(&answer);
        assert_eq!((status, code.as_str()), expected, "{method} {path}");
    }
    let stranger = client.with_key("so_nobody_nothing").get("/tasks").await;
    assert_eq!((problem(&stranger).0, &stranger.headers["www-authenticate"].to_str().unwrap()[..6]), (401, "Bearer"));
}

#[tokio::test]
async fn every_path_is_there_under_v1_too_and_a_key_of_one_counts_for_the_other() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let client = &server.client;
    let body = json!({"task_type": "http_request", "payload": {"url": target.url("/")}}).to_string();
    let post = |path: &str| {
        let request = client.request(Method::POST, path).header("content-type", "application/json");
        client.send(request.header("idempotency-key", "one").body(body.clone()))
    };
    let (first, again) = (post("/v1/tasks").await.unwrap(), post("/tasks").await.unwrap());
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let id = first.body["task_id"].as_str().unwrap();
    assert_eq!(first.headers["location"].to_str().unwrap(), format!("/v1/tasks/{id}"));
    for path in
        ["/tasks", &format!("/tasks/{id}"), "/queues", "/queues/default", "/dlq", "/metrics", "/healthz", "/readyz"]
    {
        assert_eq!(client.get(&format!("/v1{path}")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_tell_how_queues_stand_and_what_has_happened() {
    let (server, target) = (TestServer::start().await, Target::start().await);
    let done = server.create(&target.url("/"), &json!({})).await;
    server.until(&done, "succeeded").await;
    server.create(&target.url("/"), &json!({"delay": "1h"})).await;
    let metrics = server.client.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = metrics.body.as_str().expect("text").to_owned();
    for line in [
        "sendoff_tasks{queue=\"default\",state=\"scheduled\"} 1",
        "sendoff_tasks{queue=\"default\",state=\"succeeded\"} 1",
        "sendoff_tasks_created_total{queue=\"default\"} 2",
        "sendoff_attempts_total{queue=\"default\",class=\"ok\"} 1",
        "sendoff_tasks_finished_total{queue=\"default\",outcome=\"succeeded\"} 1",
        "sendoff_dispatch_lag_seconds_count 1",
        "sendoff_attempt_duration_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
    for name in
        ["sendoff_commit_duration_seconds_count", "sendoff_commit_changes_count", "sendoff_oldest_ready_age_seconds"]
    {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
}

#[tokio::test]
async fn a_queue_that_is_no_longer_configured_holds_its_tasks_until_it_is_resumed() {
    use crate::support::server::Home;
    let target = Target::start().await;
    let server = Home::new().with_queue("mail", |_| {}).start().await;
    let id = server.create(&target.url("/"), &json!({"queue": "mail", "delay": "1m"})).await;
    let home = server.stop().await.with(|config| config.queues.retain(|name, _| name.as_str() != "mail"));
    let server = home.start().await;
    server.advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(server.task(&id).await["attempt_count"], 0);
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], true);
    let refused = server
        .client
        .post("/tasks", &crate::support::server::task("http://127.0.0.1:9/", &json!({"queue": "mail"})))
        .await;
    assert_eq!(problem(&refused), (422, "unknown_queue".to_owned()));
    assert_eq!(server.client.post("/queues/mail/resume", &json!({})).await.status, 200);
    server.until(&id, "succeeded").await;
}
