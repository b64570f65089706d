//! Another configuration for a server that runs: what its users notice of each class of setting, and that a bad one
//! changes nothing. Here on a clock that the test moves; `signal` does it to the real binary, `certificate` looks at
//! what is served over TLS.

mod certificate;
mod signal;
mod watch;

use std::time::Duration;

use sendoff::app::ReloadError;
use sendoff::config::{Bound, Config, Difference, HostConfig, QueueConfig, one_line};
use sendoff::task::{PriorityOrder, QueueName, Span};
use serde_json::{Value, json};

use crate::support::server::{Home, TestServer, task};
use crate::support::target::{Reply, Target};

const SEC: Duration = Duration::from_secs(1);
/// An address that nothing is ever sent to in these tests.
const NOWHERE: &str = "http://127.0.0.1:9/";

fn queue<'a>(config: &'a mut Config, name: &str) -> &'a mut QueueConfig {
    let defaults = config.queue_defaults.clone();
    config.queues.entry(QueueName::parse(name).expect("a name")).or_insert(defaults)
}

fn live(difference: &Difference) -> String {
    one_line(&difference.live)
}

/// What `POST /tasks` answers: the status, and the code of a refusal.
async fn post(server: &TestServer, url: &str, more: &Value) -> (u16, Value) {
    let answer = server.client.post("/tasks", &task(url, more)).await;
    (answer.status.as_u16(), answer.body["code"].clone())
}

async fn count(server: &TestServer, queue: &str, status: &str) -> u64 {
    let answer = server.client.get(&format!("/queues/{queue}")).await;
    answer.body["tasks"][status].as_u64().unwrap_or_else(|| panic!("no count of {status}: {:?}", answer.body))
}

/// A target whose tasks never end: what has started is what runs.
async fn black_hole() -> Target {
    let target = Target::start().await;
    target.on("/", [Reply::hang()]);
    target
}

async fn create_many(server: &TestServer, target: &Target, queue: &str, tasks: usize) {
    for _ in 0..tasks {
        server.create(&target.url("/"), &json!({"queue": queue, "timeout": "24h"})).await;
    }
}

#[tokio::test]
async fn queues_come_and_go_and_come_back() {
    let mut server = Home::new().with_queue("mail", |_| {}).start().await;
    let target = Target::start().await;
    let id = server.create(&target.url("/"), &json!({"queue": "mail", "delay": "10s"})).await;
    let changed = server
        .reload(|config| {
            config.queues.remove(&QueueName::parse("mail").unwrap());
            queue(config, "sms").weight = 2;
        })
        .await
        .unwrap();
    assert_eq!(live(&changed), "queues.mail: taken out; queues.sms: added, {weight: 2}");
    assert_eq!(post(&server, NOWHERE, &json!({"queue": "mail"})).await, (422, json!("unknown_queue")));
    assert_eq!(post(&server, NOWHERE, &json!({"queue": "sms", "delay": "1h"})).await.0, 201);
    server.advance(10 * SEC).await;
    assert_eq!(server.task(&id).await["status"], "queued");
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], true);

    // Held as after a restart: a restart finds the same.
    let mut server = server.stop().await.with(|config| config.queues.clear()).start().await;
    server.advance(SEC).await;
    assert_eq!(server.client.get("/queues/mail").await.body["paused"], true);
    assert!(target.requests().is_empty());

    server.reload(|config| queue(config, "mail").weight = 1).await.unwrap();
    server.until(&id, "succeeded").await;
    assert_eq!(target.requests().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_rate_is_raised_lowered_and_lifted_without_a_burst() {
    let target = black_hole().await;
    let rate = |rate, burst| {
        move |config: &mut Config| {
            queue(config, "slow").max_dispatches_per_second = rate;
            queue(config, "slow").max_burst_size = burst;
        }
    };
    let mut server = Home::new().with(rate(Some(0.01), 5)).start().await;
    create_many(&server, &target, "slow", 30).await;
    assert_eq!(count(&server, "slow", "running").await, 0);
    let changed = server.reload(rate(Some(1.0), 5)).await.unwrap();
    assert_eq!(live(&changed), "queues.slow.max_dispatches_per_second: 0.01 → 1");
    assert_eq!(count(&server, "slow", "running").await, 0, "nothing had been saved up, so nothing is let through");
    for started in 1..=3 {
        server.advance(SEC).await;
        assert_eq!(count(&server, "slow", "running").await, started);
    }
    server.reload(rate(Some(0.5), 9)).await.unwrap();
    server.advance(SEC).await;
    assert_eq!(count(&server, "slow", "running").await, 3, "one every two seconds now");
    server.advance(SEC).await;
    assert_eq!(count(&server, "slow", "running").await, 4);
    server.reload(rate(None, 9)).await.unwrap();
    server.turn().await;
    assert_eq!(count(&server, "slow", "running").await, 30, "lifted: all of them, at once");
    server.stop_at_once().await;
}

#[tokio::test]
async fn more_slots_are_used_at_once_and_fewer_cut_nobody_off() {
    type Limit = fn(&mut Config, u32);
    let limits: [Limit; 3] = [
        |config, most| queue(config, "default").max_concurrent_dispatches = most,
        |config, most| config.workers.max_concurrent = most,
        |config, most| config.hosts.defaults = HostConfig { max_concurrent: most },
    ];
    for limit in limits {
        let target = black_hole().await;
        let mut server = Home::new().with(|config| limit(config, 2)).start().await;
        create_many(&server, &target, "default", 9).await;
        assert_eq!(count(&server, "default", "running").await, 2);
        // No clock moves: whoever waits for the next event waits in vain.
        server.reload(|config| limit(config, 5)).await.unwrap();
        target.requests_at_least(5).await;
        server.reload(|config| limit(config, 1)).await.unwrap();
        server.turn().await;
        assert_eq!((count(&server, "default", "running").await, target.requests().len()), (5, 5));
        server.stop_at_once().await;
    }
}

#[tokio::test]
async fn an_override_of_one_host_comes_and_goes() {
    let target = black_hole().await;
    let lane = sendoff::task::LaneName::new(&format!("http://{}", target.addr()));
    let mut server = TestServer::start().await;
    let only = |most| HostConfig { max_concurrent: most };
    server.reload(|config| config.hosts.overrides.extend([(lane.clone(), only(1))])).await.unwrap();
    create_many(&server, &target, "default", 3).await;
    assert_eq!(count(&server, "default", "running").await, 1);
    let changed = server.reload(|config| config.hosts.overrides.clear()).await.unwrap();
    assert_eq!(live(&changed), format!("hosts.overrides.\"{lane}\".max_concurrent: taken out"));
    target.requests_at_least(3).await;
    server.stop_at_once().await;
}

#[tokio::test]
async fn a_new_priority_aging_sorts_what_waits_anew() {
    let target = Target::start().await;
    let mut server = Home::new()
        .with(|config| {
            config.workers.max_concurrent = 1;
            queue(config, "default").order = PriorityOrder::Aging(Span::from_secs(1));
        })
        .start()
        .await;
    let paused = server.client.post("/queues/default/pause", &json!({})).await;
    assert_eq!(paused.status, 200);
    server.create(&target.url("/old"), &json!({"priority": 0})).await;
    server.advance(60 * SEC).await;
    server.create(&target.url("/urgent"), &json!({"priority": 9})).await;
    let changed = server.reload(|config| queue(config, "default").order = PriorityOrder::Strict).await.unwrap();
    assert_eq!(live(&changed), "queues.default.priority_aging: 1s → strict");
    assert_eq!(server.client.get("/queues/default").await.body["paused"], true, "a pause is no configuration");
    server.client.post("/queues/default/resume", &json!({})).await;
    let paths: Vec<String> = target.requests_at_least(2).await.into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/urgent", "/old"]);
    server.stop().await;
}

#[tokio::test]
async fn bounds_on_what_is_accepted() {
    let mut server = Home::new().with(|config| config.payload_bytes_max = 500).start().await;
    let large = json!({"payload": {"url": NOWHERE, "body_text": "x".repeat(600)}, "delay": "1h"});
    assert_eq!(post(&server, NOWHERE, &large).await, (422, json!("invalid_task")));
    server.reload(|config| config.payload_bytes_max = 1_000).await.unwrap();
    assert_eq!(post(&server, NOWHERE, &large).await.0, 201);
    server.reload(|config| queue(config, "default").max_tasks = Some(1)).await.unwrap();
    assert_eq!(post(&server, NOWHERE, &json!({"delay": "1h"})).await, (429, json!("queue_full")));
    server.reload(|config| queue(config, "default").max_tasks = Some(2)).await.unwrap();
    assert_eq!(post(&server, NOWHERE, &json!({"delay": "1h"})).await.0, 201);
    server.reload(|config| queue(config, "default").max_bytes = Some(1)).await.unwrap();
    assert_eq!(post(&server, NOWHERE, &json!({"delay": "1h"})).await, (429, json!("queue_full")));
    server.stop().await;
}

#[tokio::test]
async fn a_waiting_retry_keeps_its_moment_and_then_follows_the_new_policy() {
    let target = Target::start().await;
    target.on("/", [Reply::status(500)]);
    let retry = |attempts, backoff| {
        move |config: &mut Config| {
            let retry = &mut queue(config, "default").retry;
            (retry.max_attempts, retry.jitter) = (attempts, 0.0);
            retry.min_backoff = Span::from_secs(backoff);
        }
    };
    let mut server = Home::new().with(retry(9, 10)).start().await;
    let id = server.create(&target.url("/"), &json!({})).await;
    let before = server.until(&id, "retrying").await;
    server.reload(retry(3, 40)).await.unwrap();
    assert_eq!(server.task(&id).await["run_at"], before["run_at"]);
    server.advance(10 * SEC).await;
    server.until_it(&id, |task| task["attempt_count"] == 2 && task["status"] == "retrying").await;
    // The second failure by the new words: 40 s, doubled once.
    server.advance(79 * SEC).await;
    assert_eq!(server.task(&id).await["attempt_count"], 2);
    server.advance(SEC).await;
    let ended = server.until(&id, "dead").await;
    assert_eq!((&ended["attempt_count"], &ended["dead_reason"]), (&json!(3), &json!("max_attempts")));
    server.stop().await;
}

#[tokio::test]
async fn retention_and_dead_letter_bounds_hold_for_what_is_kept_already() {
    let target = Target::start().await;
    target.on("/gone", [Reply::status(404)]);
    let mut server = TestServer::start().await;
    for path in ["/", "/gone"] {
        for _ in 0..3 {
            let id = server.create(&target.url(path), &json!({})).await;
            server.until_it(&id, |task| task["status"] == "succeeded" || task["status"] == "dead").await;
        }
    }
    let kept = async |server: &TestServer| {
        (count(server, "default", "succeeded").await, count(server, "default", "dead").await)
    };
    assert_eq!(kept(&server).await, (3, 3));
    let only = |count| Bound { age: None, count: Some(count), bytes: None };
    server.reload(|config| queue(config, "default").retention = only(1)).await.unwrap();
    server.advance(2 * SEC).await;
    assert_eq!(kept(&server).await, (1, 3));
    server.reload(|config| queue(config, "default").dead_letters = only(2)).await.unwrap();
    server.advance(2 * SEC).await;
    assert_eq!(kept(&server).await, (1, 2));
    let age = Bound { age: Some(Span::from_secs(60)), count: None, bytes: None };
    server.reload(|config| queue(config, "default").dead_letters = age).await.unwrap();
    server.advance(30 * SEC).await;
    assert_eq!(kept(&server).await, (1, 2), "not of age yet");
    server.advance(31 * SEC).await;
    server.turn().await;
    assert_eq!(kept(&server).await, (1, 0));
    server.stop().await;
}

#[tokio::test]
async fn another_egress_policy_holds_for_new_tasks_and_for_the_next_attempt_of_old_ones() {
    let target = Target::start().await;
    let mut server = TestServer::start().await;
    let old = server.create(&target.url("/"), &json!({"delay": "10s"})).await;
    let changed =
        server.reload(|config| config.egress.deny_nets = vec!["127.0.0.1/32".parse().unwrap()]).await.unwrap();
    assert_eq!(live(&changed), "egress.deny: [] → [127.0.0.1/32]");
    assert_eq!(post(&server, &target.url("/"), &json!({})).await, (422, json!("egress_refused")));
    server.advance(10 * SEC).await;
    let ended = server.until(&old, "dead").await;
    assert_eq!(ended["attempts"][0]["class"], "egress_refused", "{ended}");
    assert!(ended["last_error"]["error"].as_str().unwrap().contains("egress.deny"), "{ended}");
    assert!(target.requests().is_empty());

    server.reload(|config| config.egress.deny_nets.clear()).await.unwrap();
    let id = server.create(&target.url("/"), &json!({})).await;
    server.until(&id, "succeeded").await;
    server.reload(|config| config.egress.http = false).await.unwrap();
    assert_eq!(post(&server, &target.url("/"), &json!({})).await, (422, json!("egress_refused")));
    server.stop().await;
}

#[tokio::test]
async fn connections_of_an_old_policy_are_not_used_again_and_those_of_the_same_are_kept() {
    let target = Target::start().await;
    let mut server = TestServer::start().await;
    let call = async |server: &TestServer| {
        let id = server.create(&target.url("/"), &json!({})).await;
        server.until(&id, "succeeded").await;
        target.requests().last().expect("a request").connection
    };
    assert_eq!((call(&server).await, call(&server).await), (1, 1));
    server.reload(|config| queue(config, "default").weight = 2).await.unwrap();
    assert_eq!(call(&server).await, 1, "egress has not changed");
    server.reload(|config| config.egress.deny_hosts = vec!["bad.example".to_owned()]).await.unwrap();
    target.closed_at_least(1).await;
    assert_eq!(call(&server).await, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_new_grace_is_what_a_stop_waits_for() {
    let target = black_hole().await;
    let mut server = Home::new().with(|config| config.server.shutdown_grace = Span::from_secs(3_600)).start().await;
    server.create(&target.url("/"), &json!({"timeout": "24h"})).await;
    target.requests_at_least(1).await;
    server.reload(|config| config.server.shutdown_grace = Span::from_secs(5)).await.unwrap();
    // Moves the clock by the new grace, and waits for the end.
    server.stop_at_once().await;
    target.closed_at_least(1).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_until_there_was_one_and_does_not_hold_up_the_rest() {
    let mut server = TestServer::start().await;
    let change = |config: &mut Config| {
        config.server.listen = "0.0.0.0:0".parse().unwrap();
        config.storage.reserve = Some(1 << 30);
        config.egress.loopback = false;
    };
    let both = server.reload(|config| {
        change(config);
        queue(config, "default").weight = 3;
    });
    let both = both.await.unwrap();
    assert_eq!(live(&both), "queues.default.weight: 1 → 3");
    assert_eq!(one_line(&both.restart), "server.listen: 127.0.0.1:0 → 0.0.0.0:0; storage.reserve: null → 1GiB");
    let again = server.reload(|_| {}).await.unwrap();
    assert_eq!((live(&again).as_str(), again.restart), ("", both.restart));
    // Loopback targets are allowed as long as we really listen on loopback only.
    let target = Target::start().await;
    let id = server.create(&target.url("/"), &json!({})).await;
    server.until(&id, "succeeded").await;
    let metrics = server.client.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    for line in ["reloads_total{outcome=\"applied\"} 1", "reloads_total{outcome=\"unchanged\"} 1"] {
        assert!(metrics.contains(&format!("sendoff_config_{line}\n")), "{line} in {metrics}");
    }
    let at = server.now().get() / 1_000;
    assert!(metrics.contains(&format!("sendoff_config_last_reload_success_timestamp_seconds {at}.0\n")), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn one_part_that_cannot_be_prepared_keeps_everything_as_it_was() {
    let home = Home::new();
    let ca = home.path().join("target-ca.pem");
    let mut server = home.start().await;
    let change = |config: &mut Config| {
        queue(config, "default").weight = 3;
        queue(config, "mail").weight = 1;
        config.payload_bytes_max = 1;
        config.egress.http = false;
        config.egress.ca_files = vec![ca.clone()];
        config.server.public_url = Some("https://queue.example/".to_owned());
        config.server.tls.certificate = Some(ca.clone());
        config.server.tls.key = Some(ca.clone());
    };
    let refused = server.reload(change).await.unwrap_err();
    let ReloadError::Faults(faults) = &refused else { panic!("{refused}") };
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["egress.ca_files", "server.tls.certificate"], "all of it at once: {refused}");
    assert!(refused.to_string().contains("target-ca.pem, named in egress.ca_files"), "{refused}");

    let view = server.client.get("/queues/default").await.body;
    assert_eq!(view["config"]["weight"], 1, "{view}");
    assert_eq!(server.client.get("/queues/mail").await.status, 404);
    let target = Target::start().await;
    let id = server.create(&target.url("/"), &json!({})).await;
    server.until(&id, "succeeded").await;
    let metrics = server.client.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    for line in ["reloads_total{outcome=\"refused\"} 1", "last_reload_successful 0"] {
        assert!(metrics.contains(&format!("sendoff_config_{line}\n")), "{line} in {metrics}");
    }
    server.stop().await;
}
