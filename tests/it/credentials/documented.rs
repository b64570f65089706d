//! The examples of `docs/credentials.md`, as they stand there.

use sendoff::config::{Flags, Sources, load};

use super::*;

/// The blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let docs = include_str!("../../../docs/credentials.md");
    let opened = docs.split("```").skip(1).step_by(2);
    opened.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn the_configurations_load_and_every_kind_is_among_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for (index, text) in blocks("yaml").into_iter().enumerate() {
        let path = dir.path().join(format!("{index}.yaml"));
        std::fs::write(&path, text).unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        let loaded = load(&Sources::new(Vec::new(), flags)).unwrap_or_else(|faults| panic!("{faults}"));
        kinds.extend(loaded.config.credentials.values().map(|credential| credential.kind.as_str()));
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), {
        let mut all = sendoff::config::CREDENTIAL_KINDS.to_vec();
        all.sort_unstable();
        all
    });
}

#[tokio::test]
async fn the_task_and_the_request_of_the_examples_are_taken() {
    let home = stored::sealing();
    let server = home.start().await;
    let shell = blocks("sh")[0];
    let body = shell.split('\'').nth(3).expect("a body");
    let given = server.client.put("/credentials/billing", &serde_json::from_str(body).expect("JSON")).await;
    assert_eq!(given.status, 201, "{:?}", given.body);
    let mut task: Value = serde_json::from_str(blocks("json")[0]).expect("JSON");
    task["delay"] = json!("1h");
    let accepted = server.client.post("/tasks", &task).await;
    assert_eq!(accepted.status, 201, "{:?}", accepted.body);
}
