//! The authorization matrix, made from `/openapi.json`: every operation with every kind of credential. What is not
//! expected to be allowed is refused, and what is expected to be allowed is done.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use sendoff::config::{CertificateGrant, Config, SanPattern};
use serde_json::{Value, json};

use crate::callers::certificates::{Authority, uri};
use crate::support::client::{Answer, Client};
use crate::support::issuer::{Issuer, Signer, grants};
use crate::support::server::TestServer;
use crate::support::target::Target;

use super::{home, key, made, refusal, server};

pub(crate) const SCOPES: [&str; 7] = ["enqueue", "read", "read_payload", "manage", "redrive", "metrics", "admin"];

/// One operation of the document.
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The scope it needs; none for what is public.
    pub(crate) scope: Option<String>,
    /// Whether it is an administrative act.
    pub(crate) audited: bool,
}

pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (verb, operation) in item.as_object().expect("verbs").iter().filter(|(verb, _)| *verb != "parameters") {
            let scope = operation["x-required-scope"].as_str().map(str::to_owned);
            let public = operation["security"] == json!([]);
            assert_ne!(public, scope.is_some(), "{verb} {path}: public, or with a scope");
            found.push(Operation {
                id: operation["operationId"].as_str().expect("an id").to_owned(),
                method: verb.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                scope,
                audited: operation["responses"]["503"]["$ref"]
                    .as_str()
                    .is_some_and(|to| to.contains("audit_unavailable")),
            });
        }
    }
    found
}

/// Objects in the queue `mail` for requests to be about, each used once.
pub(crate) struct Stage<'a> {
    pub(crate) server: &'a TestServer,
    pub(crate) target: &'a Target,
}

impl Stage<'_> {
    async fn waiting(&self) -> String {
        self.server.create("http://127.0.0.1:9/", &json!({"queue": "mail", "delay": "100h"})).await
    }

    pub(crate) async fn dead(&self) -> String {
        let task = json!({"queue": "mail", "retry": {"max_attempts": 1, "on_status": {"200": "dead"}}});
        let id = self.server.create(&self.target.url("/"), &task).await;
        self.server.until(&id, "dead").await;
        id
    }

    /// A request that does what the operation is for, given that the caller may.
    async fn request(&self, operation: &Operation) -> (String, Option<Value>) {
        let task = || {
            let more = json!({"queue": "mail", "delay": "100h"});
            crate::support::server::task("http://127.0.0.1:9/", &more)
        };
        let (mut path, mut body) = (operation.path.clone(), None);
        match operation.id.as_str() {
            "create_task" => body = Some(task()),
            "create_tasks" => body = Some(json!([task(), task()])),
            "get_task" | "cancel_task" | "run_task" => path = path.replace("{id}", &self.waiting().await),
            "get_dead_letter" | "redrive_dead_letter" | "purge_dead_letter" => {
                path = path.replace("{id}", &self.dead().await);
            }
            "redrive_dead_letters" | "purge_dead_letters" => {
                self.dead().await;
                body = Some(json!({"queue": "mail", "dry_run": true}));
            }
            "get_queue" | "pause_queue" | "resume_queue" => path = path.replace("{queue}", "mail"),
            "get_key" | "revoke_key" => path = path.replace("{id}", &key(self.server, &["read"]).await.0),
            "put_credential" => {
                path = path.replace("{name}", "given");
                body = Some(credential());
            }
            "get_credential" | "remove_credential" => {
                let given = self.server.client.put("/credentials/given", &credential()).await;
                assert!(given.status.is_success(), "{:?}", given.body);
                path = path.replace("{name}", "given");
            }
            "create_key" => body = Some(json!({"name": "new", "scopes": ["read"]})),
            "list_tasks"
            | "list_queues"
            | "list_dead_letters"
            | "list_keys"
            | "list_credentials"
            | "get_metrics"
            | "get_health"
            | "get_readiness"
            | "get_openapi"
            | "get_docs"
            | "get_openid_configuration"
            | "get_jwks" => {}
            other => panic!("`{other}` is new: say here how it is called"),
        }
        (path, body)
    }

    pub(crate) async fn call(
        &self,
        operation: &Operation,
        credential: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        self.call_on(&self.server.client, operation, credential).await
    }

    /// The same on the connections of this client.
    async fn call_on(
        &self,
        connections: &Client,
        operation: &Operation,
        credential: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let (path, body) = self.request(operation).await;
        let client = &self.server.client;
        let mut request = credential(connections.bare(operation.method.clone(), &path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = client.send(request).await.expect("an answer");
        if operation.id == "pause_queue" && answer.status.is_success() {
            // Dead letters are made by calls, which a paused queue does not start.
            assert_eq!(client.post("/queues/mail/resume", &json!({})).await.status, 200);
        }
        answer
    }
}

fn credential() -> Value {
    json!({"kind": "bearer", "token": "s3cret", "hosts": ["a.example"]})
}

/// What the document of `answer` says, whichever request it is about.
fn nameless(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    body["request_id"] = Value::Null;
    body
}

/// A server that trusts an issuer, whose tokens have in `can` what they may do, and an authority, whose certificates have
/// it in a URI.
async fn trusting(issuer: &Issuer, authority: &Authority) -> TestServer {
    let limited = SCOPES[..5].iter().map(|scope| format!("{scope}:ma*l"));
    let scopes: Vec<String> = SCOPES.iter().map(|scope| (*scope).to_owned()).chain(limited).collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let home = home();
    let file = home.path().join("clients.pem");
    std::fs::write(&file, authority.pem()).expect("written");
    let trust = |config: &mut Config| {
        issuer.trusted_by(config, grants(&scopes));
        config.server.tls.client_ca = Some(file);
        for (name, grant) in grants(&scopes) {
            let san = SanPattern::parse(&format!("uri:can:{}", grant.value)).expect("a pattern");
            config.callers.certificates.insert(name, CertificateGrant { san, scopes: grant.scopes });
        }
    };
    home.with(trust).start().await
}

#[tokio::test]
async fn nobody_gets_in_without_a_key_or_token_in_force() {
    let signer = Signer::ec("one");
    let issuer = Issuer::start(&[&signer]).await;
    let (server, target) = (trusting(&issuer, &Authority::new()).await, Target::start().await);
    let day = server.now().get() / 1_000 + 86_400;
    let claims = |changes: Value| {
        let mut claims = issuer.claims(server.now(), &json!({"can": SCOPES, "exp": day}));
        claims.as_object_mut().expect("claims").extend(changes.as_object().expect("changes").clone());
        claims
    };
    let token = |changes: Value| signer.sign(&claims(changes), |_| {});
    let tokens = [
        ("an expired token", token(json!({"exp": 1}))),
        ("a token with the wrong algorithm", signer.sign_as_secret(&claims(json!({})), signer.pem.as_bytes())),
        ("a token that is not signed", signer.unsigned(&claims(json!({})), "none")),
        ("a token without an audience", {
            let mut claims = claims(json!({}));
            claims.as_object_mut().expect("claims").remove("aud");
            signer.sign(&claims, |_| {})
        }),
        ("a token for somebody else", token(json!({"aud": "another"}))),
    ];
    let stage = Stage { server: &server, target: &target };
    let expiring = json!({"name": "old", "scopes": SCOPES, "expires_at": "2026-11-24T12:00:01Z"});
    let (_, expired) = made(&server, &expiring).await;
    let (revoked_id, revoked) = key(&server, &SCOPES).await;
    assert_eq!(server.client.delete(&format!("/keys/{revoked_id}")).await.status, 204);
    let (known_id, known) = key(&server, &SCOPES).await;
    let (_, other) = key(&server, &SCOPES).await;
    let other_id = other.split('_').nth(1).expect("an id");
    let credentials = [
        ("none", None),
        ("no scheme", Some(known.clone())),
        ("another scheme", Some(format!("Basic {known}"))),
        ("nothing", Some("Bearer".to_owned())),
        ("half", Some(format!("Bearer {}", &known[..20]))),
        ("without its checksum", Some(format!("Bearer {}", &known[..known.len() - 6]))),
        ("wrong secret", Some(format!("Bearer {}", other.replace(other_id, &known_id)))),
        ("unknown id", Some(format!("Bearer {}", known.replace(&known_id, "00000000")))),
        ("expired", Some(format!("Bearer {expired}"))),
        ("revoked", Some(format!("Bearer {revoked}"))),
    ];
    let of_keys = credentials.len();
    let tokens = tokens.map(|(what, token)| (what, Some(format!("Bearer {token}"))));
    let credentials: Vec<_> = credentials.into_iter().chain(tokens).collect();
    let document = server.client.get("/openapi.json").await.body;
    let (mut cells, mut bodies) = (0, Vec::new());
    for operation in operations(&document) {
        for (at, (what, credential)) in credentials.iter().enumerate() {
            // Slower than guesses are limited.
            server.hand().advance(Duration::from_secs(2));
            let answer = stage.call(&operation, |request| match credential {
                Some(credential) => request.header("authorization", credential),
                None => request,
            });
            let answer = answer.await;
            let refused = answer.status == 401;
            assert_eq!(refused, operation.scope.is_some(), "{} with {what}: {:?}", operation.id, answer.body);
            bodies.extend((refused && credential.is_some() && at < of_keys).then(|| nameless(&answer)));
            cells += 1;
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "unknown, wrong, expired and revoked look the same: {bodies:?}");
    println!("FIGURES authorization: {cells} cells without a key or token in force, 0 unexpected answers");
}

#[tokio::test]
async fn each_scope_allows_what_it_is_for_and_nothing_else() {
    let signer = Signer::ec("one");
    let issuer = Issuer::start(&[&signer]).await;
    let authority = Authority::new();
    let (server, target) = (trusting(&issuer, &authority).await, Target::start().await);
    let stage = Stage { server: &server, target: &target };
    let document = server.client.get("/openapi.json").await.body;
    let limited = SCOPES[..5].iter().map(|scope| (*scope, format!("{scope}:ma*l")));
    let alone = SCOPES.map(|scope| (scope, scope.to_owned()));
    let mut cells = 0;
    for (scope, held) in alone.into_iter().chain(limited) {
        let (_, key) = key(&server, &[&held]).await;
        let token = signer.sign(&issuer.claims(server.now(), &json!({"can": held})), |_| {});
        let certificate = authority.leaf(&[uri(&format!("can:{held}"))]);
        let shown = server.client.with_certificate(&server.config().certs_dir.join("ca.pem"), &certificate);
        let credentials = [(&server.client, Some(&key)), (&server.client, Some(&token)), (&shown, None)];
        for (operation, (connections, secret)) in
            operations(&document).iter().flat_map(|one| credentials.map(|two| (one, two)))
        {
            let needed = operation.scope.as_deref();
            let allowed = needed.is_none_or(|needed| needed == scope || (needed, scope) == ("read", "read_payload"));
            let answer = stage.call_on(connections, operation, |request| match secret {
                Some(secret) => request.bearer_auth(secret),
                None => request,
            });
            let answer = answer.await;
            let place = format!("{} with {held}: {:?}", operation.id, answer.body);
            let is_refused = refusal(&answer) == (403, "insufficient_scope");
            assert_eq!((answer.status.is_success(), is_refused), (allowed, !allowed), "{place}");
            cells += 1;
        }
    }
    println!("FIGURES authorization: {cells} cells with one scope, 0 unexpected answers");
}

#[tokio::test]
async fn another_queues_scope_finds_nothing() {
    let (server, target) = (server().await, Target::start().await);
    let stage = Stage { server: &server, target: &target };
    let document = server.client.get("/openapi.json").await.body;
    let scopes = ["enqueue:other", "read_payload:other", "manage:other", "redrive:other"];
    let (_, key) = key(&server, &scopes).await;
    let client = server.client.with_key(&key);
    stage.dead().await;
    let mut cells = 0;
    for operation in operations(&document).into_iter().filter(|operation| operation.scope.is_some()) {
        let answer = stage.call(&operation, |request| request.bearer_auth(&key)).await;
        let place = format!("{}: {:?}", operation.id, answer.body);
        match operation.id.as_str() {
            "create_task" | "create_tasks" => assert_eq!(refusal(&answer), (422, "unknown_queue"), "{place}"),
            "list_tasks" => assert_eq!((answer.status.as_u16(), &answer.body["tasks"]), (200, &json!([])), "{place}"),
            "list_queues" => {
                let queues = answer.body["queues"].as_array().expect("queues");
                assert!(queues.len() == 1 && queues[0]["name"] == "other", "{place}");
            }
            "list_dead_letters" => {
                let said = ["dead_letters", "total", "counts"].map(|field| answer.body[field].clone());
                assert_eq!(said, [json!([]), json!(0), json!([])], "{place}");
            }
            "redrive_dead_letters" | "purge_dead_letters" => assert_eq!(answer.body["matched"], 0, "{place}"),
            "get_metrics" | "list_keys" | "create_key" | "get_key" | "revoke_key" | "list_credentials"
            | "get_credential" | "put_credential" | "remove_credential" => {
                assert_eq!(refusal(&answer), (403, "insufficient_scope"), "{place}");
            }
            // An object: as if it did not exist.
            _ => {
                assert_eq!(refusal(&answer), (404, "not_found"), "{place}");
                let absent = operation.path.replace("{id}", "absent:1").replace("{queue}", "absent");
                let request = client.request(operation.method.clone(), &absent);
                let unknown = client.send(request).await.expect("an answer");
                assert_eq!(nameless(&answer), nameless(&unknown), "{place}");
            }
        }
        cells += 1;
    }
    println!("FIGURES authorization: {cells} cells with the scopes of another queue, 0 unexpected answers");
}

#[tokio::test]
async fn every_operation_needs_the_scope_that_the_docs_promise() {
    let server = server().await;
    let document = server.client.get("/openapi.json").await.body;
    let mut found: Vec<_> = operations(&document)
        .into_iter()
        .map(|operation| (operation.id, operation.scope.unwrap_or_else(|| "public".to_owned())))
        .collect();
    found.sort();
    let promised = [
        ("cancel_task", "manage"),
        ("create_key", "admin"),
        ("create_task", "enqueue"),
        ("create_tasks", "enqueue"),
        ("get_credential", "admin"),
        ("get_dead_letter", "read"),
        ("get_docs", "public"),
        ("get_health", "public"),
        ("get_jwks", "public"),
        ("get_key", "admin"),
        ("get_metrics", "metrics"),
        ("get_openapi", "public"),
        ("get_openid_configuration", "public"),
        ("get_queue", "read"),
        ("get_readiness", "public"),
        ("get_task", "read"),
        ("list_credentials", "admin"),
        ("list_dead_letters", "read"),
        ("list_keys", "admin"),
        ("list_queues", "read"),
        ("list_tasks", "read"),
        ("pause_queue", "manage"),
        ("purge_dead_letter", "redrive"),
        ("purge_dead_letters", "redrive"),
        ("put_credential", "admin"),
        ("redrive_dead_letter", "redrive"),
        ("redrive_dead_letters", "redrive"),
        ("remove_credential", "admin"),
        ("resume_queue", "manage"),
        ("revoke_key", "admin"),
        ("run_task", "manage"),
    ];
    assert_eq!(found, promised.map(|(id, scope)| (id.to_owned(), scope.to_owned())));
}
