//! Secrets never leak: a recognisable secret in every place that takes one, a server that logs all it can, and then a
//! search through everything that it has said and kept. A second word, put where everybody may see it, is found in each
//! of these places: the search can fail.

mod places;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use sendoff::clock::Clock;
use serde_json::{Value, json};

use self::places::Places;
use crate::support::client::Client;
use crate::support::issuer::{Issuer, Signer};
use crate::support::process::{Process, command, log_of};
use crate::support::target::{Reply, Target};

/// Stands where anybody may see it, and has to be found.
const VISIBLE: &str = "canary-visible";

/// The secrets that must not be found, by where they were put.
#[derive(Default)]
struct Secrets(BTreeMap<&'static str, String>);

impl Secrets {
    /// A secret of its own, put there.
    fn put(&mut self, place: &'static str) -> String {
        let secret = format!("canary-secret-{}", place.replace(' ', "-"));
        self.known(place, &secret);
        secret
    }

    /// A secret whose form is fixed.
    fn known(&mut self, place: &'static str, secret: &str) {
        assert!(secret.len() >= 16, "{place}: too short to be recognised");
        assert!(self.0.insert(place, secret.to_owned()).is_none(), "{place} twice");
    }

    /// A private key; the middle line of its PEM is what is looked for.
    fn key(&mut self, place: &'static str) -> (String, rcgen::KeyPair) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = pair.serialize_pem();
        self.known(place, pem.lines().nth(2).expect("a line"));
        (pem, pair)
    }

    fn webhook(&mut self, place: &'static str, byte: u8) -> String {
        let secret = STANDARD.encode([byte; 32]);
        self.known(place, &secret);
        format!("whsec_{secret}")
    }

    /// The places whose secret stands in `text`, in any of the forms in which it could.
    fn found_in(&self, text: &[u8]) -> Vec<&'static str> {
        let forms = |secret: &str| {
            let basic = STANDARD.encode(format!("me:{secret}"));
            [secret.to_owned(), basic, STANDARD.encode(secret)]
        };
        let text = String::from_utf8_lossy(text);
        let is_in = |form: &String| text.contains(form.as_str());
        self.0.iter().filter(|(_, secret)| forms(secret).iter().any(is_in)).map(|(place, _)| *place).collect()
    }
}

/// Everything in which is searched, by what it is.
#[derive(Default)]
struct Haystacks(BTreeMap<String, Vec<u8>>);

impl Haystacks {
    fn add(&mut self, what: &str, bytes: &[u8]) {
        self.0.entry(what.to_owned()).or_default().extend_from_slice(bytes);
    }
}

fn write(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join(file), text).unwrap();
    std::fs::set_permissions(dir.join(file), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Asks, and keeps the whole answer.
async fn ask(client: &Client, (method, path): (Method, &str), body: Option<&Value>, into: &mut Haystacks) -> Value {
    let mut request = client.request(method, path);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = client.send(request).await.expect("an answer");
    let text = format!("{} {:?} {}", answer.status, answer.headers, answer.body);
    let what = if path.starts_with("/metrics") { "metrics" } else { "answers" };
    into.add(what, text.as_bytes());
    answer.body
}

async fn ended(client: &Client, id: &str, into: &mut Haystacks) -> Value {
    loop {
        let task = ask(client, (Method::GET, &format!("/tasks/{id}?wait=100ms")), None, into).await;
        let status = task["status"].as_str().expect("a status");
        if ["succeeded", "dead"].contains(&status) || task["last_error"]["class"] == "auth_unavailable" {
            return task;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_is_said_or_kept_and_the_search_finds_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (target, issuer) = (Target::start().await, Target::start().await);
    let (signer, mut secrets, mut hay) = (Signer::ec("one"), Secrets::default(), Haystacks::default());
    let login = Issuer::start(&[&signer]).await;
    let places = Places { dir: dir.path(), target: &target, issuer: &issuer, login: &login };
    let environment = places.configure(&mut secrets);
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();

    let said = command(dir.path()).envs(environment.iter().copied()).args(["--help"]).output().unwrap();
    hay.add("help", &said.stdout);
    for words in [["config", "show"], ["config", "check"]] {
        let mut sendoff = std::process::Command::new(env!("CARGO_BIN_EXE_sendoff"));
        let said = sendoff.current_dir(dir.path()).args(words).envs(environment.iter().copied()).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        hay.add("config", &[said.stdout, said.stderr].concat());
    }

    let process = Process::start(dir.path(), &environment);
    let client = &process.client;
    places.made(&mut secrets);
    places.give(client, &mut secrets, &mut hay).await;
    places.call(client, &mut secrets, &mut hay).await;
    places.callers(client, &signer, &mut secrets, &mut hay).await;
    for path in ["/tasks", "/queues", "/dlq", "/keys", "/credentials", "/openapi.json", "/metrics", "/readyz"] {
        ask(client, (Method::GET, path), None, &mut hay).await;
    }
    let letters = ask(client, (Method::GET, "/dlq"), None, &mut hay).await;
    for letter in letters["dead_letters"].as_array().expect("dead letters") {
        let id = letter["task_id"].as_str().expect("an id");
        ask(client, (Method::GET, &format!("/dlq/{id}")), None, &mut hay).await;
    }
    let tokens = target.requests().into_iter().filter_map(|sent| sent.header("authorization").map(str::to_owned));
    let own = tokens.into_iter().find(|value| value.starts_with("Bearer ey")).expect("an ID token of ours");
    secrets.known("an ID token of ours", own.trim_start_matches("Bearer "));
    // A reload that fails, in the file that it reads: the message names the place.
    let config = dir.path().join("config.yaml");
    let whole = std::fs::read_to_string(&config).unwrap();
    let faulty = secrets.put("a secret where its place belongs");
    std::fs::write(&config, whole.replace("\"env:BEARER\"", &format!("\"{faulty}\""))).unwrap();
    process.signal("HUP");
    places.refused_reload(client, &mut hay).await;
    process.terminate(dir.path());

    hay.add("log", log_of(dir.path()).as_bytes());
    hay.add("audit log", &std::fs::read(dir.path().join("data/audit.log")).unwrap());
    // But for the files whose business it is, and 64 MiB of nothing.
    let others = ["audit.log", "admin.key", "oidc-keys.json", "ballast"];
    let files = std::fs::read_dir(dir.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| !others.iter().any(|other| path.ends_with(other))) {
        hay.add("store", &std::fs::read(&path).unwrap());
    }

    // What a task holds in its own headers lies in the store, as docs/security.md says; nowhere else.
    let of_tasks = ["a task's authorization", "a task's cookie"];
    assert!(secrets.0.len() > 20, "{:?}", secrets.0.keys());
    for (what, bytes) in &hay.0 {
        let mut found = secrets.found_in(bytes);
        if what == "store" {
            assert!(of_tasks.iter().all(|place| found.contains(place)), "the search finds what is in the store");
            found.retain(|place| !of_tasks.contains(place));
        }
        assert_eq!(found, Vec::<&str>::new(), "in {what}");
    }
    for what in ["log", "answers", "metrics", "audit log", "store", "config"] {
        let text = String::from_utf8_lossy(&hay.0[what]);
        assert!(text.contains(VISIBLE), "{VISIBLE} is not in {what}: nothing would be found there");
    }
    let log = String::from_utf8_lossy(&hay.0["log"]);
    assert!(log.contains("\"level\":\"TRACE\""), "the log tells all it can");
    println!("FIGURES secrets: {} secrets, {} places, 0 hits", secrets.0.len(), hay.0.len());
}
