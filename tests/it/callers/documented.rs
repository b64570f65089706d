//! The examples of `docs/security.md`, as they stand there, on the real binary.

use sendoff::clock::Clock;
use serde_json::json;

use crate::support::issuer::{Issuer, Signer};
use crate::support::process::Process;

use super::certificates::{Authority, dns};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_client_certificates_works_as_it_stands() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    std::fs::write(dir.path().join("config.yaml"), examples("Client certificates")[0]).unwrap();
    std::fs::write(dir.path().join("clients-ca.pem"), authority.pem()).unwrap();
    let process = Process::start(dir.path(), &[]);
    let asks = async |name: &str, path: &str| {
        let client = process.client.with_certificate(&dir.path().join("certs/ca.pem"), &authority.leaf(&[dns(name)]));
        client.send(client.bare(reqwest::Method::GET, path)).await.expect("an answer").status.as_u16()
    };
    assert_eq!(asks("eu.billing.example.com", "/tasks").await, 200);
    assert_eq!(asks("eu.billing.example.com", "/metrics").await, 403);
    assert_eq!(asks("elsewhere.example.com", "/tasks").await, 403);
    assert_eq!(process.client.get("/tasks").await.status, 200, "by key");
    process.terminate(dir.path());
}
