//! The examples of `docs/security.md`, as they stand there, on the real binary.

use sendoff::clock::Clock;
use serde_json::json;

use crate::support::issuer::{Issuer, Signer};
use crate::support::process::Process;

/// The examples in YAML of a section.
fn examples(heading: &str) -> Vec<&'static str> {
    let docs = include_str!("../../../docs/security.md");
    let section = docs.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    section.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().expect("its end")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_an_issuer_works_as_it_stands() {
    let signer = Signer::ec("one");
    let issuer = Issuer::start(&[&signer]).await;
    let example = examples("JWT and OIDC bearer tokens")[0];
    let dir = tempfile::tempdir().unwrap();
    let config = example.replace("https://login.example.com/realms/company", &issuer.url());
    assert_ne!(config, example, "the issuer is the one of the example");
    std::fs::write(dir.path().join("config.yaml"), config).unwrap();
    let process = Process::start(dir.path(), &[]);
    let now = Clock::system().now().wall;
    let asks = async |more, path: &str| {
        let token = signer.sign(&issuer.claims(now, &more), |_| {});
        process.client.with_key(&token).get(path).await.status.as_u16()
    };
    assert_eq!(asks(json!({"groups": ["ops-eu"]}), "/tasks").await, 200);
    assert_eq!(asks(json!({"groups": ["ops-eu"]}), "/keys").await, 403);
    assert_eq!(asks(json!({"realm_access": {"roles": ["auditor"]}}), "/metrics").await, 200);
    assert_eq!(asks(json!({"groups": ["dev"]}), "/tasks").await, 403);
    assert_eq!(asks(json!({"groups": ["ops-eu"], "aud": "another"}), "/tasks").await, 401);
    process.terminate(dir.path());
}
