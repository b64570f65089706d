//! Nobody can have us call what the egress policy forbids, however it is written and whatever a name server says: real
//! listeners count who comes, and nobody does.

mod canary;
mod spellings;

use std::net::SocketAddr;
use std::sync::Arc;

use sendoff::config::EgressConfig;
use sendoff::security::http_client::OutgoingClients;
use sendoff::worker::handler::CheckError;
use serde_json::{Value, json};

use self::canary::{Canary, Scripted};
use crate::support::server::Home;
use crate::support::target::{Reply, Target};
use crate::worker::Rig;

/// What holds while the server listens for other machines.
fn strict() -> EgressConfig {
    EgressConfig { http: true, loopback: false, ..EgressConfig::default() }
}

fn with_names(config: &EgressConfig) -> (Rig, Arc<Scripted>) {
    crate::support::server::install_provider();
    let names = Arc::new(Scripted::default());
    let clients = OutgoingClients::with_names(config, Vec::new(), Arc::<Scripted>::clone(&names)).unwrap();
    (Rig::over(clients), names)
}

/// The rule that the door refuses a URL by; `unreadable` when it is none.
fn at_the_door(rig: &Rig, url: &str) -> Option<&'static str> {
    match rig.check(&json!({"url": url})) {
        Ok(_lane) => None,
        Err(CheckError::Egress(refusal)) => Some(refusal.rule),
        Err(CheckError::Faults(_)) => Some("unreadable"),
        Err(CheckError::Credential(_)) => Some("its credential"),
        Err(CheckError::UnknownType { .. }) => Some("no such task type"),
    }
}

async fn class(rig: &mut Rig, url: &str) -> &'static str {
    rig.call(json!({"url": url})).await.class.as_str()
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_called() {
    let canary = Canary::everywhere().await;
    let (mut rig, names) = with_names(&strict());
    // Were one of them looked up, the answer would lead to the canary.
    for name in ["localhost", "a.localhost", "x.y.localhost", "metadata.google.internal", "metadata"] {
        names.answer(name, &["127.0.0.1"]);
    }
    let forbidden = spellings::forbidden(canary.port());
    let mut wrong = Vec::new();
    for (url, rule) in &forbidden {
        let door = at_the_door(&rig, url);
        // As if it had been accepted under another configuration: the worker asks again.
        let outcome = rig.call(json!({"url": url})).await;
        let says_why = outcome.error.as_deref().is_some_and(|error| error.contains(&format!("rule `{rule}`")));
        if door != Some(rule) || outcome.class.as_str() != "egress_refused" || !says_why {
            wrong.push((url, rule, door, outcome.class, outcome.error));
        }
    }
    for url in &spellings::unreadable(canary.port()) {
        assert_eq!(at_the_door(&rig, url), Some("unreadable"), "{url:?}");
        assert_eq!(class(&mut rig, url).await, "corrupt", "{url:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(forbidden.len() >= 150, "{}", forbidden.len());
    assert_eq!(canary.visits().await, 0, "somebody came");
    println!(
        "FIGURES egress: {} spellings of forbidden addresses, {} unreadable, 0 connections",
        forbidden.len(),
        spellings::unreadable(canary.port()).len()
    );
}

#[tokio::test]
async fn control_the_canary_notices_each_of_them_when_the_policy_allows_it() {
    let canary = Canary::everywhere().await;
    let allow_nets = vec!["0.0.0.0/8".parse().unwrap()];
    let (mut rig, names) = with_names(&EgressConfig { loopback: true, allow_nets, ..strict() });
    for name in ["localhost", "a.localhost", "x.y.localhost"] {
        names.answer(name, &["127.0.0.1"]);
    }
    let reachable = spellings::reachable(canary.port(), canary.ipv6);
    for (number, (url, _)) in reachable.iter().enumerate() {
        let class = class(&mut rig, url).await;
        // It closes at once, which cuts plain HTTP and a handshake each in their own way.
        assert!(matches!(class, "reset" | "connect" | "tls_connect"), "{url:?}: {class}");
        canary.at_least(number + 1).await;
    }
    assert!(canary.visits().await >= reachable.len());
}

#[tokio::test]
async fn every_spelling_is_refused_at_post_and_leaves_no_task() {
    let canary = Canary::everywhere().await;
    let server = Home::new().with(|config| config.egress.loopback = false).start().await;
    let post = async |url: &str| {
        let task = json!({"task_type": "http_request", "payload": {"url": url}});
        server.client.post("/tasks", &task).await
    };
    for (url, rule) in spellings::forbidden(canary.port()) {
        let answer = post(&url).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (422, &json!("egress_refused")), "{url:?}");
        assert!(answer.body.to_string().contains(&format!("rule `{rule}`")), "{url:?}: {}", answer.body);
    }
    for url in spellings::unreadable(canary.port()) {
        let answer = post(&url).await;
        assert!(answer.status.is_client_error(), "{url:?}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], "/payload/url", "{url:?}");
    }
    assert_eq!(server.client.all_tasks().await, Vec::<Value>::new());
    assert_eq!(canary.visits().await, 0);
    server.stop().await;
}

/// A target on `127.0.0.1`, which is allowed, and a canary at the same port of `127.0.0.2`, which is not.
async fn neighbours() -> (Target, Canary) {
    loop {
        let target = Target::start().await;
        let beside = SocketAddr::from(([127, 0, 0, 2], target.addr().port()));
        if let Ok(canary) = Canary::on(beside).await {
            return (target, canary);
        }
    }
}

fn one_allowed() -> EgressConfig {
    EgressConfig { allow_nets: vec!["127.0.0.1/32".parse().unwrap()], ..strict() }
}

#[tokio::test]
async fn a_name_with_one_forbidden_address_among_its_answers_is_refused_whole() {
    let (target, canary) = neighbours().await;
    let (mut rig, names) = with_names(&one_allowed());
    let forbidden = [
        ("127.0.0.2", "loopback"),
        ("::ffff:127.0.0.2", "loopback"),
        ("::1", "loopback"),
        ("::127.0.0.2", "reserved"),
        ("64:ff9b::127.0.0.2", "loopback"),
        ("2002:7f00:2::", "loopback"),
        ("2606:4700::5efe:127.0.0.2", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("10.0.0.1", "private"),
        ("169.254.169.254", "metadata"),
        ("100.64.0.1", "carrier_grade_nat"),
        ("fd12::1", "unique_local"),
        ("fe80::1", "link_local"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
    ];
    let mut answers = 0;
    for (bad, rule) in forbidden {
        let mixed = [
            bad.to_owned(),
            format!("{bad}, 127.0.0.1"),
            format!("127.0.0.1, {bad}"),
            format!("127.0.0.1, 127.0.0.1, {bad}, 127.0.0.1"),
        ];
        for answer in mixed {
            let name = format!("n{answers}.test");
            names.answer(&name, &[&answer]);
            let url = format!("http://{name}:{}/", target.addr().port());
            assert_eq!(at_the_door(&rig, &url), None, "the name alone shows nothing");
            let outcome = rig.call(json!({"url": url})).await;
            assert_eq!(outcome.class.as_str(), "egress_refused", "{answer}");
            let error = outcome.error.unwrap();
            assert!(error.contains(&format!("rule `{rule}`")) && error.contains(&name), "{answer}: {error}");
            assert_eq!(names.asked(&name), 1);
            answers += 1;
        }
    }
    assert_eq!((canary.visits().await, target.connections()), (0, 0));
    names.answer("good.test", &["127.0.0.1"]);
    assert_eq!(class(&mut rig, &format!("http://good.test:{}/", target.addr().port())).await, "ok", "the control");
    println!("FIGURES egress: {answers} DNS answers with a forbidden address, 0 connections");
}

#[tokio::test]
async fn an_answer_that_changes_after_the_first_look_up_is_judged_anew() {
    let (target, canary) = neighbours().await;
    let (mut rig, names) = with_names(&one_allowed());
    target.on("/", [Reply::with(200, &[("connection", "close")], b"").and(Reply::close())]);
    names.answer("turns.test", &["127.0.0.1", "127.0.0.2", "127.0.0.1, 127.0.0.2", "::1", "127.0.0.1"]);
    let url = format!("http://turns.test:{}/", target.addr().port());
    let mut seen = Vec::new();
    for _ in 0..5 {
        let before = target.connections();
        seen.push(class(&mut rig, &url).await);
        // The connection is over before the next call looks for one.
        target.closed_at_least(before.max(target.connections())).await;
    }
    assert_eq!(seen, ["ok", "egress_refused", "egress_refused", "egress_refused", "ok"]);
    assert_eq!(
        names.asked("turns.test"),
        5,
        "one look-up for each connection: what was judged is what is connected to"
    );
    assert_eq!((target.connections(), canary.visits().await), (2, 0));
}

#[tokio::test]
async fn a_reload_that_tightens_the_policy_leaves_no_pooled_connection_to_slip_through() {
    let (target, (mut rig, names)) = (Target::start().await, with_names(&one_allowed()));
    names.answer("inside.test", &["127.0.0.1"]);
    let urls = [target.url("/"), format!("http://inside.test:{}/", target.addr().port())];
    for url in urls.iter().chain(&urls) {
        assert_eq!(class(&mut rig, url).await, "ok");
    }
    let connections: Vec<usize> = target.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 1, 2], "both are in the pool, and used again");

    rig.replace(&strict());
    for url in &urls {
        assert_eq!(class(&mut rig, url).await, "egress_refused", "{url}");
    }
    assert_eq!(target.requests().len(), 4);

    rig.replace(&one_allowed());
    assert_eq!(class(&mut rig, &urls[1]).await, "ok");
    assert_eq!(target.requests()[4].connection, 3, "opened under the policy in force");
}

#[tokio::test]
async fn a_header_that_is_reserved_or_breaks_the_line_is_refused_at_post() {
    let server = Home::new().start().await;
    let reserved = [
        "Sendoff-Task-Id",
        "SENDOFF-anything",
        "Webhook-Signature",
        "Connection",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Content-Length",
        "Host",
        ":authority",
        "x-a\r\nhost",
        "x a",
    ];
    let values = ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\r\n\r\nGET / HTTP/1.1", "a\u{7f}"];
    let headers = reserved.map(|name| (name, "v")).into_iter().chain(values.map(|value| ("x-a", value)));
    for (name, value) in headers {
        let payload = json!({"url": "https://a.example/", "headers": {name: value}});
        let answer = server.client.post("/tasks", &json!({"task_type": "http_request", "payload": payload})).await;
        assert_eq!(answer.status.as_u16(), 422, "{name:?}: {value:?}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], format!("/payload/headers/{name}"));
    }
    assert_eq!(server.client.all_tasks().await, Vec::<Value>::new());
    server.stop().await;
}
