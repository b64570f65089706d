//! The worker pool and the `http_request` handler against real sockets: leases go in, settlements come out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sendoff::clock::{Chance, Clock, ManualClock};
use sendoff::config::{Config, EgressConfig};
use sendoff::logging::Telemetry;
use sendoff::queue::lease::{Lease, Settlement, Work};
use sendoff::security::credential::{Credentials, Outside};
use sendoff::security::http_client::OutgoingClients;
use sendoff::task::header::NameId;
use sendoff::task::limits::{RESPONSE_DRAIN_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};
use sendoff::task::name::TaskName;
use sendoff::task::{
    Body, Header, IdTail, KeyCounter, LaneName, LeaseKind, Outcome, OutcomeClass, QueueName, RetryOverrides, Span,
    Status, TaskType, WallMs,
};
use sendoff::worker::handler::http::HttpHandler;
use sendoff::worker::handler::{AttemptContext, CheckError, Handler, Handlers};
use sendoff::worker::pool::Pool;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::target::{Gate, Reply, Target};

mod redelivery;
mod tls;

const NOON: &str = "2026-11-24T12:00:00.000Z";

/// A pool with one lease at a time, on a clock that stands still.
pub(crate) struct Rig {
    hand: ManualClock,
    leases: mpsc::Sender<Lease>,
    settles: mpsc::Receiver<Settlement>,
    pool: Pool,
    clients: Arc<OutgoingClients>,
    handlers: Arc<Handlers>,
}

fn egress() -> EgressConfig {
    EgressConfig { http: true, loopback: true, ..EgressConfig::default() }
}

impl Rig {
    fn start() -> Self {
        Self::with(&egress())
    }

    fn with(config: &EgressConfig) -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        Self::over(OutgoingClients::new(config, Vec::new()).unwrap())
    }

    /// A rig that calls out through `clients`.
    pub(crate) fn over(clients: OutgoingClients) -> Self {
        let clients = Arc::new(clients);
        let (clock, hand) = Clock::manual(WallMs::parse(NOON).unwrap());
        let chance = Arc::new(std::sync::Mutex::new(Chance::from_seed(1)));
        let (clock_too, telemetry) = (clock.clone(), Telemetry::new());
        let outside = Outside { clients: Arc::clone(&clients), clock: clock_too, chance, telemetry };
        let credentials = Arc::new(Credentials::new(&Config::default(), outside).unwrap());
        let http: Arc<dyn Handler> = Arc::new(HttpHandler::new(Arc::clone(&clients), credentials));
        let handlers = Arc::new(
            Handlers::default().with(task_type("http_request"), http).with(task_type("panics"), Arc::new(Panics)),
        );
        let (leases, lease_receiver) = mpsc::channel(16);
        let (settle_sender, settles) = mpsc::channel(16);
        let pool = Pool::start(Arc::clone(&handlers), clock, lease_receiver, settle_sender);
        Self { hand, leases, settles, pool, clients, handlers }
    }

    /// Hands a lease to the pool; its abort token comes back.
    async fn lease(&self, work: Work) -> CancellationToken {
        let abort = CancellationToken::new();
        self.leases.send(Lease { work, abort: abort.clone() }).await.unwrap();
        abort
    }

    async fn settled(&mut self) -> Settlement {
        tokio::time::timeout(Duration::from_secs(30), self.settles.recv()).await.expect("not settled").unwrap()
    }

    async fn run(&mut self, work: Work) -> Outcome {
        let _abort = self.lease(work).await;
        self.settled().await.outcome
    }

    /// One attempt of an `http_request`.
    pub(crate) async fn call(&mut self, payload: Value) -> Outcome {
        self.run(work("http_request", &payload.to_string())).await
    }

    /// Puts another policy in force.
    pub(crate) fn replace(&self, config: &EgressConfig) {
        self.clients.replace(self.clients.prepare(config).unwrap().expect("another policy"));
    }

    /// What is seen at `POST`.
    pub(crate) fn check(&self, payload: &Value) -> Result<LaneName, CheckError> {
        self.handlers.check(&task_type("http_request"), payload.to_string().as_bytes(), &queue())
    }
}

struct Panics;

impl Handler for Panics {
    fn check(&self, _payload: &[u8], _queue: &QueueName) -> Result<LaneName, CheckError> {
        Ok(LaneName::new("panics"))
    }

    fn run<'a>(&'a self, _attempt: &'a AttemptContext) -> BoxFuture<'a, Outcome> {
        panic!("on purpose")
    }
}

fn task_type(text: &str) -> TaskType {
    TaskType::parse(text).unwrap()
}

fn queue() -> QueueName {
    QueueName::parse("mails").unwrap()
}

fn header() -> Header {
    let noon = WallMs::parse(NOON).unwrap();
    Header {
        status: Status::Running,
        attempts: 1,
        attempts_total: 1,
        epoch: 7,
        lease: Some(LeaseKind::Pool),
        first_dispatched_at: Some(noon),
        ..Header::accepted(
            KeyCounter::after(None, 0).next(noon),
            IdTail::new(Chance::from_seed(1).draw()),
            (NameId(1), NameId(2)),
            noon,
        )
    }
}

fn body(kind: &str, payload: &str) -> Body {
    Body {
        task_type: task_type(kind),
        name: None,
        labels: Vec::new(),
        timeout: None,
        retry: RetryOverrides::default(),
        idempotency: None,
        payload: payload.to_owned().into(),
    }
}

fn work(kind: &str, payload: &str) -> Work {
    Work {
        header: header(),
        queue: queue(),
        lane: LaneName::new("lane"),
        body: Arc::new(body(kind, payload)),
        timeout: Span::from_secs(30),
        max_attempts: 20,
        previous: None,
    }
}

/// What people see of an outcome.
fn seen(outcome: &Outcome) -> (&'static str, Option<u16>) {
    (outcome.class.as_str(), outcome.http_status)
}

#[tokio::test]
async fn a_first_attempt_says_who_and_which_it_is() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let outcome = rig.call(json!({"url": target.url("/a?b=c"), "headers": {"X-A": "b"}})).await;
    assert_eq!(seen(&outcome), ("ok", Some(200)));
    assert_eq!(outcome.error, None);
    let id = header().id().to_string();
    let request = &target.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/a?b=c"));
    for (name, value) in [
        ("sendoff-task-id", id.as_str()),
        ("sendoff-task-type", "http_request"),
        ("sendoff-queue", "mails"),
        ("sendoff-attempt", "1"),
        ("sendoff-retry-count", "0"),
        ("sendoff-max-attempts", "20"),
        ("sendoff-scheduled-at", NOON),
        ("sendoff-deadline", "2026-11-24T12:00:30.000Z"),
        ("sendoff-redelivery", "false"),
        ("idempotency-key", &format!("{id}-1")),
        ("user-agent", concat!("sendoff/", env!("CARGO_PKG_VERSION"))),
        ("host", &target.addr().to_string()),
        ("x-a", "b"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    for absent in ["sendoff-previous-status", "content-type", "accept-encoding"] {
        assert_eq!(request.header(absent), None, "{absent}");
    }
    let trace: Vec<&str> = request.header("traceparent").unwrap().split('-').collect();
    assert_eq!(trace.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert!(trace.concat().bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
}

#[tokio::test]
async fn a_later_attempt_says_what_came_before() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let payload = json!({"url": target.url("/")}).to_string();
    let mut second = work("http_request", &payload);
    let named = Body { name: Some(TaskName::parse("order:7").unwrap()), ..body("http_request", &payload) };
    second.body = Arc::new(named);
    second.header = Header { series: 2, attempts: 3, attempts_total: 9, ..header() };
    second.previous = Some((OutcomeClass::HttpStatus, Some(503)));
    let mut third = second.clone();
    third.header.attempts = 4;
    rig.run(second).await;
    rig.run(third).await;
    let requests = target.requests();
    for (name, value) in [
        ("sendoff-task-id", "order:7"),
        ("sendoff-attempt", "3"),
        ("sendoff-retry-count", "2"),
        ("sendoff-redelivery", "true"),
        ("sendoff-previous-status", "503"),
        ("idempotency-key", "order:7-2"),
    ] {
        assert_eq!(requests[0].header(name), Some(value), "{name}");
    }
    let trace = |index: usize| requests[index].header("traceparent").unwrap().to_owned();
    assert_eq!(trace(0)[..35], trace(1)[..35], "one trace for the series");
    assert_ne!(trace(0), trace(1), "one span for each attempt");
    assert_eq!(requests[1].header("idempotency-key"), Some("order:7-2"), "stable over attempts");
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte_with_their_type() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let odd = "{ \"b\":1.0, \"a\" : [1e400, \"\\u00e9\"] }";
    let url = target.url("/");
    for field in [&format!("\"body\": {odd}"), "\"body_text\":\"é\"", "\"body_base64\":\"AP8K\""] {
        rig.run(work("http_request", &format!("{{\"url\":\"{url}\",{field}}}"))).await;
    }
    let own = json!({"url": url, "method": "PUT", "body": 1, "headers": {
        "content-type": "application/cloudevents+json", "user-agent": "", "idempotency-key": "", "traceparent": ""}});
    rig.call(own).await;
    let requests = target.requests();
    let got: Vec<(&[u8], Option<&str>)> =
        requests.iter().map(|request| (request.body.as_slice(), request.header("content-type"))).collect();
    assert_eq!(
        got,
        [
            (odd.as_bytes(), Some("application/json")),
            ("é".as_bytes(), Some("text/plain; charset=utf-8")),
            (&[0, 255, 10], Some("application/octet-stream")),
            (b"1", Some("application/cloudevents+json")),
        ]
    );
    assert_eq!(requests[3].method, "PUT");
    for off in ["user-agent", "idempotency-key", "traceparent"] {
        assert_eq!(requests[3].header(off), None, "{off}");
    }
}

#[tokio::test]
async fn statuses_come_back_and_redirects_are_not_followed() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/moved", [Reply::with(302, &[("location", &target.url("/elsewhere"))], b"")]);
    target.on("/broken", [Reply::with(500, &[], b"no luck")]);
    assert_eq!(seen(&rig.call(json!({"url": target.url("/moved")})).await), ("http_status", Some(302)));
    let broken = rig.call(json!({"url": target.url("/broken")})).await;
    assert_eq!(seen(&broken), ("http_status", Some(500)));
    assert_eq!(broken.response_head, "no luck");
    let paths: Vec<String> = target.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/moved", "/broken"]);
}

#[tokio::test]
async fn retry_after_is_understood_where_it_counts() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let after = |status, value: &str| Reply::with(status, &[("retry-after", value)], b"");
    target.on("/seconds", [after(429, "120")]);
    target.on("/date", [after(503, "Tue, 24 Nov 2026 12:01:30 GMT")]);
    target.on("/elsewhere", [after(500, "120")]);
    for (path, expected) in [("/seconds", Some(120)), ("/date", Some(90)), ("/elsewhere", None)] {
        let outcome = rig.call(json!({"url": target.url(path)})).await;
        assert_eq!(outcome.retry_after, expected.map(Span::from_secs), "{path}");
    }
}

#[tokio::test]
async fn a_long_body_is_cut_and_its_connection_used_again_up_to_a_bound() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/head", [Reply::with(200, &[], &vec![b'a'; RESPONSE_HEAD_BYTES_MAX + 1])]);
    target.on("/drained", [Reply::with(200, &[], &vec![b'b'; RESPONSE_DRAIN_BYTES_MAX])]);
    target.on("/endless", [Reply::endless()]);
    for path in ["/head", "/drained", "/endless"] {
        let outcome = rig.call(json!({"url": target.url(path)})).await;
        assert_eq!(seen(&outcome), ("ok", Some(200)), "{path}");
        assert_eq!(outcome.response_head.len(), RESPONSE_HEAD_BYTES_MAX);
    }
    target.closed_at_least(1).await;
    assert_eq!(target.requests().iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 1, 1]);
    rig.call(json!({"url": target.url("/")})).await;
    assert_eq!(target.requests()[3].connection, 2, "the endless one was closed");
}

#[tokio::test]
async fn the_deadline_ends_a_call_that_nobody_answers() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/black-hole", [Reply::hang()]);
    let payload = json!({"url": target.url("/black-hole")}).to_string();
    let _abort = rig.lease(work("http_request", &payload)).await;
    target.requests_at_least(1).await;
    rig.hand.advance(Duration::from_millis(29_999));
    assert_eq!(rig.settles.try_recv().err(), Some(mpsc::error::TryRecvError::Empty), "not early");
    rig.hand.advance(Duration::from_millis(1));
    let outcome = rig.settled().await.outcome;
    assert_eq!(seen(&outcome), ("timeout_before_headers", None));
    assert_eq!(outcome.took, Duration::from_secs(30));
    assert!(outcome.error.unwrap().ends_with("no answer within 30s"));
    target.closed_at_least(1).await;
}

#[tokio::test]
async fn a_broken_connection_is_a_reset_whatever_its_status_said() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/reset", [Reply::reset()]);
    target.on("/close", [Reply::close()]);
    target.on("/garbage", [Reply::default().write(b"SMTP ready\r\n\r\n").and(Reply::close())]);
    target.on("/half", [Reply::head(200, &[], 100).write(b"some").and(Reply::close())]);
    for path in ["/reset", "/close", "/garbage"] {
        let outcome = rig.call(json!({"url": target.url(path)})).await;
        assert_eq!(seen(&outcome), ("reset", None), "{path}: {:?}", outcome.error);
    }
    let half = rig.call(json!({"url": target.url("/half?token=s3cret")})).await;
    assert_eq!(seen(&half), ("reset", Some(200)));
    assert_eq!(half.response_head, "some");
    assert!(!half.error.unwrap().contains("s3cret"));
    assert_eq!(target.requests().len(), 4, "one request each");
}

#[tokio::test]
async fn a_stale_pooled_connection_ends_reset_and_nothing_is_sent_twice() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    // Kept open after the first answer, closed as soon as the second request has been read.
    target.on("/", [Reply::status(200), Reply::close(), Reply::status(200)]);
    let url = json!({"url": target.url("/"), "method": "GET"});
    assert_eq!(seen(&rig.call(url.clone()).await), ("ok", Some(200)));
    let second = rig.call(url.clone()).await;
    assert_eq!(seen(&second), ("reset", None), "{:?}", second.error);
    assert_eq!(target.requests().len(), 2, "the second was not sent again");
    assert_eq!(target.requests()[1].connection, 1, "it went out on the connection of the first");
    assert_eq!(seen(&rig.call(url).await), ("ok", Some(200)));
    assert_eq!(target.requests().len(), 3);
}

#[tokio::test]
async fn an_idle_connection_that_the_target_closes_costs_no_attempt() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/", [Reply::status(200).and(Reply::close())]);
    for round in 1..=20 {
        let outcome = rig.call(json!({"url": target.url("/")})).await;
        target.closed_at_least(round).await;
        assert_eq!(seen(&outcome), ("ok", Some(200)), "{:?}", outcome.error);
        assert_eq!(target.requests().len(), round, "one request each");
    }
}

#[tokio::test]
async fn hosts_that_cannot_be_reached_are_told_apart() {
    let mut rig = Rig::start();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = rig.call(json!({"url": format!("http://{closed}/?token=s3cret")})).await;
    assert_eq!(seen(&outcome), ("connect", None), "{:?}", outcome.error);
    let error = outcome.error.unwrap();
    assert!(error.starts_with(&format!("calling http://{closed}: ")) && !error.contains("s3cret"), "{error}");

    let outcome = rig.call(json!({"url": "http://does-not-exist.invalid/"})).await;
    assert_eq!(seen(&outcome), ("dns", None), "{:?}", outcome.error);
}

#[tokio::test]
async fn egress_is_checked_at_post_and_again_when_called() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let payload = json!({"url": target.url("/")});
    let lane = format!("http://{}", target.addr());
    assert_eq!(rig.check(&payload), Ok(LaneName::new(&lane)));
    let by_name = json!({"url": format!("http://localhost:{}/", target.addr().port())});
    let next = rig.clients.prepare(&EgressConfig { loopback: false, ..egress() }).unwrap();
    rig.clients.replace(next.expect("another policy"));
    assert!(matches!(rig.check(&payload), Err(CheckError::Egress(refusal)) if refusal.rule == "loopback"));
    for payload in [payload, by_name] {
        let outcome = rig.call(payload).await;
        assert_eq!(seen(&outcome), ("egress_refused", None));
        assert!(outcome.error.unwrap().contains("egress.allow: [\"127.0.0.0/8\"]"));
    }
    assert_eq!(target.connections(), 0);
    let checked = rig.check(&json!({"url": 7, "auth": "not a name"}));
    assert!(matches!(checked, Err(CheckError::Faults(faults)) if faults.len() == 2));
}

#[tokio::test]
async fn an_abort_before_hand_over_releases_and_after_it_interrupts_with_the_socket_closed() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    target.on("/hang", [Reply::hang()]);
    let payload = json!({"url": target.url("/hang")}).to_string();

    let abort = CancellationToken::new();
    abort.cancel();
    rig.leases.send(Lease { work: work("http_request", &payload), abort }).await.unwrap();
    let settlement = rig.settled().await;
    assert_eq!(settlement.outcome.class, OutcomeClass::Released);
    assert_eq!((settlement.key, settlement.epoch), (header().key, 7));
    assert_eq!(target.connections(), 0);

    let abort = rig.lease(work("http_request", &payload)).await;
    target.requests_at_least(1).await;
    rig.hand.advance(Duration::from_secs(2));
    abort.cancel();
    let outcome = rig.settled().await.outcome;
    assert_eq!((outcome.class, outcome.took), (OutcomeClass::Interrupted, Duration::from_secs(2)));
    target.closed_at_least(1).await;
}

#[tokio::test]
async fn what_cannot_run_still_settles() {
    let mut rig = Rig::start();
    let panicked = rig.run(work("panics", "{}")).await;
    assert_eq!((panicked.class, panicked.error.as_deref()), (OutcomeClass::Interrupted, Some("the handler panicked")));
    let unknown = rig.run(work("gone", "{}")).await;
    assert_eq!(unknown.error.as_deref(), Some("no handler is configured for task type `gone`"));
    let damaged = rig.run(work("http_request", "{\"url\":7}")).await;
    assert_eq!((unknown.class, damaged.class), (OutcomeClass::Corrupt, OutcomeClass::Corrupt));
}

#[tokio::test]
async fn the_pool_ends_when_no_lease_can_come_and_all_have_settled() {
    let (target, mut rig) = (Target::start().await, Rig::start());
    let gate = Gate::new();
    target.on("/", [Reply::default().wait(&gate).and(Reply::status(204))]);
    for _ in 0..3 {
        let _abort = rig.lease(work("http_request", &json!({"url": target.url("/")}).to_string())).await;
    }
    target.requests_at_least(3).await;
    assert_eq!(rig.pool.running(), 3);
    drop(rig.leases);
    let mut ended = Box::pin(rig.pool.ended());
    assert!(futures_util::poll!(&mut ended).is_pending());
    gate.open();
    for _ in 0..3 {
        assert_eq!(rig.settles.recv().await.unwrap().outcome.http_status, Some(204));
    }
    ended.await;
    assert!(rig.settles.recv().await.is_none());
}
