//! A router over a scripted engine, for the tests of this module.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body as HttpBody;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::clock::{Chance, Clock, ManualClock};
use crate::config::{Config, EgressConfig};
use crate::logging::Telemetry;
use crate::logging::audit::Act;
use crate::queue::Queues;
use crate::queue::command::{Accepted, Answer, EngineError, PublicId, Request};
use crate::queue::handle::Envelope;
use crate::queue::store::{
    Change, CommitError, Damage, Gathered, Later, ListPage, ListQuery, OldestEnded, Pressure, Recovered, Recovery, Row,
    Store, StoreError, TaskRecord, UniqueId,
};
use crate::security::api_key::{AdminKey, KeyRecord};
use crate::security::credential::sealed::SealedCredential;
use crate::security::credential::{Credentials, Outside};
use crate::security::http_client::OutgoingClients;
use crate::security::jwt::TokenFault;
use crate::security::key_ring::KeyRing;
use crate::security::scope::Scopes;
use crate::task::header::NameId;
use crate::task::limits::PAYLOAD_BYTES_DEFAULT;
use crate::task::outcome::DeadReason;
use crate::task::{
    Attempt, Body, Header, IdTail, LaneName, OutcomeClass, QueueName, RetryOverrides, Span, Status, TaskKey, TaskRef,
    TaskType, WallMs,
};

use super::openapi::contract_tests;
use super::{
    Access, Api, AuditTrail, Authentication, Caller, CheckPayload, KeyChange, NotAdmitted, PayloadError, Wiring, router,
};

/// The clock of every test starts here.
pub(super) fn noon() -> WallMs {
    WallMs::parse("2026-11-24T12:00:00Z").unwrap()
}

/// A key that is known.
pub(super) const KEY: &str = "so_test_secret";

/// A task that is accepted.
pub(super) const TASK: &str = r#"{"task_type":"http_request","payload":{"url":"https://a/"}}"#;

/// A handler that knows one type, and refuses what the tests need refused.
pub(super) fn check() -> CheckPayload {
    Arc::new(|task_type, payload, _queue| {
        let payload: Value = serde_json::from_slice(payload).unwrap();
        match (task_type.as_str(), payload["url"].as_str()) {
            ("http_request", Some("http://169.254.169.254/")) => Err(PayloadError::EgressRefused {
                detail: "169.254.169.254 is link-local: add it to egress.allow".to_owned(),
            }),
            ("http_request", Some("panic")) => panic!("asked to"),
            ("http_request", Some(_)) => Ok(LaneName::new("https://a:443")),
            ("http_request", None) => Err(PayloadError::Faults(vec![crate::task::Fault::new("/url", "is required")])),
            _ => Err(PayloadError::UnknownType { nearest: Some("http_request".to_owned()) }),
        }
    })
}

/// A task as the store gives it.
pub(super) fn record(key: i64, status: Status) -> TaskRecord {
    let payload = r#"{"url":"https://a/","headers":{"Authorization":"Bearer x","x-a":"b"}}"#;
    let header = Header {
        status,
        attempts: 1,
        attempts_total: 1,
        epoch: 2,
        first_dispatched_at: Some(noon()),
        last_class: Some(OutcomeClass::HttpStatus),
        last_http_status: Some(404),
        no_credential: crate::task::NoCredential::default(),
        dead_reason: (status == Status::Dead).then_some(DeadReason::PermanentStatus),
        payload_bytes: u32::try_from(payload.len()).unwrap(),
        ..Header::accepted(TaskKey::from_i64(key).unwrap(), IdTail::new(7), (NameId(0), NameId(0)), noon())
    };
    let body = Body {
        task_type: TaskType::parse("http_request").unwrap(),
        name: None,
        labels: vec![(crate::task::name::LabelName::parse("tenant").unwrap(), "42".to_owned())],
        timeout: Some(Span::from_secs(10)),
        retry: RetryOverrides { max_attempts: Some(3), ..RetryOverrides::default() },
        idempotency: None,
        payload: Bytes::from_static(payload.as_bytes()),
    };
    let attempt = Attempt {
        ordinal: 1,
        series: 1,
        number: 1,
        started_at: noon(),
        took: Span::from_millis(12),
        class: OutcomeClass::HttpStatus,
        http_status: Some(404),
        error: Some("no such order".to_owned()),
        response_head: Bytes::from_static(b"nope"),
    };
    let row = Row {
        header,
        queue: QueueName::parse("default").unwrap(),
        lane: LaneName::new("https://a:443"),
        body: Ok(Arc::new(body)),
    };
    TaskRecord { row, attempts: vec![attempt] }
}

/// A store that holds what a test put there.
struct Shelf(Vec<TaskRecord>);

impl Shelf {
    fn find(&self, task: &TaskRef) -> Option<TaskRecord> {
        let names = |row: &Row| row.body.as_ref().ok().and_then(|body| body.name.clone());
        let found = self.0.iter().find(|record| {
            task.id.is_some_and(|id| id == record.row.header.id())
                || (task.name.is_some() && names(&record.row) == task.name)
        });
        found.cloned()
    }
}

impl Store for Shelf {
    fn recover(&self, _: &mut dyn FnMut(Recovered)) -> Result<Recovery, StoreError> {
        Ok(Recovery { clean: true, created: true })
    }

    fn commit(&self, _: Vec<Change>) -> Later<'_, Result<(), CommitError>> {
        Box::pin(async { Ok(()) })
    }

    fn gather(&self, rows: Vec<TaskRef>, _: Vec<UniqueId>) -> Later<'_, Result<Gathered, StoreError>> {
        let rows = rows.iter().map(|task| self.find(task).map(|record| record.row)).collect();
        Box::pin(async { Ok(Gathered { rows, ..Gathered::default() }) })
    }

    fn rows(&self, keys: Vec<TaskKey>) -> Later<'_, Result<Vec<Option<Row>>, StoreError>> {
        let rows = keys.iter().map(|key| self.0.iter().find(|record| record.row.header.key == *key));
        let rows = rows.map(|record| record.map(|record| record.row.clone())).collect();
        Box::pin(async { Ok(rows) })
    }

    fn record(&self, task: TaskRef) -> Later<'_, Result<Option<TaskRecord>, StoreError>> {
        Box::pin(async move {
            match task.name.as_ref().map(crate::task::TaskName::as_str) {
                Some("broken") => Err(StoreError::Unavailable("the disk is gone".into())),
                Some("damaged") => Err(StoreError::Corrupt { what: "a page".to_owned(), place: "7".to_owned() }),
                Some(_) | None => Ok(self.find(&task)),
            }
        })
    }

    fn list(&self, query: ListQuery) -> Later<'_, Result<ListPage, StoreError>> {
        let filter = &query.filter;
        let mut rows: Vec<Row> = self.0.iter().map(|record| record.row.clone()).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.header.key));
        rows.retain(|row| {
            query.before.is_none_or(|before| row.header.key < before)
                && filter
                    .status
                    .is_none_or(|status| status == filter.at.map_or(row.header.status, |at| row.status_at(at)))
                && filter.queue.as_ref().is_none_or(|queue| *queue == row.queue)
                && filter.visible.as_ref().is_none_or(|globs| globs.admits(&row.queue))
        });
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        let next = rows.last().filter(|_| more).map(|row| row.header.key);
        Box::pin(async move { Ok(ListPage { rows, next }) })
    }

    fn oldest_ended(&self, _: OldestEnded) -> Later<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn api_keys(&self) -> Later<'_, Result<Vec<Result<KeyRecord, Damage>>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn credentials(&self) -> Later<'_, Result<Vec<Result<SealedCredential, Damage>>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn pressure(&self) -> Pressure {
        Pressure::Normal
    }

    fn close(&self) -> Later<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// An audit log in memory.
#[derive(Default)]
pub(super) struct Trail {
    acts: Mutex<Vec<Act>>,
    running: Mutex<JoinSet<()>>,
    broken: AtomicBool,
}

impl Trail {
    /// What it was told so far.
    pub(super) fn acts(&self) -> Vec<Act> {
        self.acts.lock().unwrap().clone()
    }

    /// From now on it cannot be written.
    pub(super) fn breaks(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of all acts.
    pub(super) async fn ended(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap());
        while running.join_next().await.is_some() {}
    }
}

/// The log as the API holds it.
struct Held(Arc<Trail>);

impl AuditTrail for Held {
    fn admit(&self) -> Later<'static, Result<OwnedSemaphorePermit, NotAdmitted>> {
        let broken = self.0.broken.load(Ordering::Relaxed);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let refusal = || NotAdmitted::Unwritable("the disk is full".to_owned());
        Box::pin(async move { if broken { Err(refusal()) } else { Ok(permit) } })
    }

    fn record(&self, act: Act) -> Later<'static, ()> {
        self.0.acts.lock().unwrap().push(act);
        Box::pin(async {})
    }

    fn see_through(&self, work: Later<'static, ()>) {
        self.0.running.lock().unwrap().spawn(work);
    }
}

/// A router, the clock it sees, what the engine was asked, and what the access log was told.
pub(super) struct Bench {
    router: Router,
    pub(super) api: Api,
    pub(super) hand: ManualClock,
    pub(super) asked: Arc<Mutex<Vec<Request>>>,
    pub(super) told: Arc<Mutex<Vec<Access>>>,
    pub(super) trail: Arc<Trail>,
    // Ends the scripted engine when dropped.
    _engine: JoinSet<()>,
}

/// [`KEY`] may do everything, `scopes=read,enqueue:mail-*` what it says, `limited` is answered as one guess too many.
fn recognised(key: &str) -> Authentication {
    let caller = |scopes| Authentication::Granted(Caller { id: Arc::from("test"), scopes: Arc::new(scopes) });
    match (key, key.strip_prefix("scopes=")) {
        (KEY, _) => caller(Scopes::all()),
        ("limited", _) => Authentication::Limited,
        (_, Some(scopes)) => caller(Scopes::parse(scopes.split(',')).unwrap()),
        (_, None) => Authentication::Refused,
    }
}

/// `good.to.ken` may do nothing; nobody can tell of `some.or.other`.
fn token_told(token: &str) -> Authentication {
    match token {
        "good.to.ken" => {
            Authentication::Granted(Caller { id: Arc::from("token"), scopes: Arc::new(Scopes::union([])) })
        }
        "some.or.other" => Authentication::IssuerUnavailable(Span::from_millis(4_200)),
        _ => Authentication::TokenRefused(TokenFault::Expired),
    }
}

/// A ring with an admin key.
fn ring() -> Arc<KeyRing> {
    let dir = tempfile::tempdir().unwrap();
    let (admin, _) = AdminKey::load_or_create(dir.path()).unwrap();
    Arc::new(KeyRing::new(&admin, Vec::new()))
}

/// A bench over a shelf of records and an engine that answers with `answer`. It never ends a wait by itself.
pub(super) fn bench(
    records: Vec<TaskRecord>,
    mut answer: impl FnMut(Request) -> Result<Answer, EngineError> + Send + 'static,
) -> Bench {
    let (commands, mut inbox) = mpsc::channel(16);
    let (clock, hand) = Clock::manual(noon());
    let (asked, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (asked_too, told_too) = (Arc::clone(&asked), Arc::clone(&told));
    let mut engine = JoinSet::new();
    engine.spawn(async move {
        let mut waiting = Vec::new();
        while let Some(envelope) = inbox.recv().await {
            match envelope {
                Envelope::Ask { request, reply, .. } => {
                    asked_too.lock().unwrap().push(request.clone());
                    drop(reply.send(answer(request)));
                }
                Envelope::Wait { ended, registered, .. } => {
                    waiting.push(ended);
                    assert!(registered.send(Ok(())).is_ok(), "whoever waits is there");
                }
            }
        }
    });
    let outside = Outside {
        clients: Arc::new(OutgoingClients::new(&EgressConfig::default(), Vec::new()).unwrap()),
        clock: clock.clone(),
        chance: Arc::new(Mutex::new(Chance::from_seed(1))),
        telemetry: Telemetry::new(),
    };
    let trail = Arc::new(Trail::default());
    let wiring = Wiring {
        queues: Queues::new(commands.clone(), commands, Arc::new(Shelf(records)), clock.clone()),
        clock,
        chance: Chance::from_seed(1),
        check_payload: check(),
        authenticate: Arc::new(|key, _| recognised(key)),
        authenticate_certificate: Arc::new(|_| None),
        authenticate_token: Arc::new(|token, _| Box::pin(std::future::ready(token_told(&token)))),
        keys: ring(),
        change_keys: Arc::new(|change, _| {
            assert!(!matches!(change, KeyChange::Revoke(id) if *id == *"panic"), "asked to");
            Box::pin(async { Ok(()) })
        }),
        credentials: Arc::new(Credentials::new(&Config::default(), outside).unwrap()),
        change_credentials: Arc::new(|_, _| Box::pin(async { Ok(false) })),
        audit: Arc::new(Held(Arc::clone(&trail))),
        metrics: Arc::new(|_, _| "# EOF\n".to_owned()),
        ready: Arc::new(|| false),
        on_access: Arc::new(move |access| told_too.lock().unwrap().push(access.clone())),
        payload_bytes_max: Arc::new(|| PAYLOAD_BYTES_DEFAULT),
    };
    let api = Api::new(wiring);
    Bench { router: router(api.clone()), api, hand, asked, told, trail, _engine: engine }
}

/// A bench whose engine must not be asked.
pub(super) fn idle() -> Bench {
    bench(Vec::new(), |request| panic!("the engine was asked {request:?}"))
}

/// A bench whose engine accepts everything.
pub(super) fn accepting() -> Bench {
    bench(Vec::new(), |request| match request {
        Request::Accept(accept) => {
            let row = record(1 << 30, Status::Running).row;
            let ids =
                accept.specs.iter().map(|spec| spec.name.clone().map_or(PublicId::Id(row.header.id()), PublicId::Name));
            Ok(Answer::Accept(Ok(Accepted::New { ids: ids.collect(), first: Box::new(row) })))
        }
        Request::Task(..) | Request::Chunk(..) | Request::Pause(..) | Request::Queues(_) | Request::Configure(_) => {
            panic!("{request:?}")
        }
    })
}

/// Moves the clock once everything else has come to rest.
pub(super) async fn advance_soon(hand: &ManualClock, secs: u64) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    hand.advance(std::time::Duration::from_secs(secs));
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Status and code of a problem, which must be a whole one.
    pub(super) fn problem(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert_eq!(body["type"], format!("urn:sendoff:problem:{}", body["code"].as_str().unwrap()));
        assert!(body["title"].is_string() && body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        (self.status.as_u16(), body["code"].as_str().unwrap().to_owned())
    }
}

impl Bench {
    /// Sends a request with the key, and JSON if there is a body.
    pub(super) async fn call(&self, method: &str, path: &str, body: &str) -> Got {
        self.call_with(method, path, &[], body).await
    }

    /// As [`Bench::call`], with more headers.
    pub(super) async fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut all = vec![("authorization", "Bearer so_test_secret")];
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
        self.send(method, path, &all, HttpBody::from(body.to_owned())).await
    }

    /// Sends a request with exactly these headers.
    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: HttpBody) -> Got {
        let (status, headers, bytes) = self.exchange(method, path, headers, body).await;
        Got { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// Sends a request without a body; gives status, headers and bytes.
    pub(super) async fn fetch(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
        let (status, headers, bytes) = self.exchange(method, path, headers, HttpBody::empty()).await;
        (status.as_u16(), headers, bytes)
    }

    /// One request and its answer, which has to be a documented one.
    async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: HttpBody,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let method = method.parse().unwrap();
        contract_tests::check(&method, path, parts.status.as_u16(), &parts.headers, &bytes);
        (parts.status, parts.headers, bytes)
    }
}
