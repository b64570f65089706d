//! Bodies and cursors sent to a whole server. That every answer is one of those documented is checked by the client.

use reqwest::{Method, StatusCode};

use crate::support::server::TestServer;

/// Posts each input as a task, as a batch and as lines, and asks for a page with it as a cursor.
pub(super) async fn requests(input: &[u8], server: &TestServer) {
    let client = &server.client;
    for (path, kind) in
        [("/tasks", "application/json"), ("/tasks/batch", "application/json"), ("/tasks/batch", "application/x-ndjson")]
    {
        let request = client.request(Method::POST, path).header("content-type", kind).body(input.to_vec());
        let answer = client.send(request).await.expect("an answer");
        let text = String::from_utf8_lossy(input);
        assert!(!answer.status.is_server_error(), "{path} {kind}: {} for {text:?}: {}", answer.status, answer.body);
        if answer.status == StatusCode::CREATED && path == "/tasks" {
            let id = answer.body["task_id"].as_str().expect("an id");
            assert_eq!(client.get(&format!("/tasks/{id}")).await.status, StatusCode::OK, "{text:?}");
        }
    }
    let cursor: String = url::form_urlencoded::byte_serialize(&input[..input.len().min(64)]).collect();
    let page = client.get(&format!("/tasks?cursor={cursor}")).await;
    assert!(!page.status.is_server_error(), "cursor {cursor}: {}", page.status);
}
