//! What handlers take from a request, with every refusal a [`Problem`]: path, query, body, `Idempotency-Key`.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, OriginalUri, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use url::form_urlencoded;

use crate::queue::store::TaskFilter;
use crate::task::limits::{BODY_READ_MAX, FAULTS_REPORTED_MAX, IDEMPOTENCY_KEY_LEN_MAX};
use crate::task::name::LabelName;
use crate::task::outcome::DeadReason;
use crate::task::{CredentialName, QueueName, Status, TaskRef, TaskType};

use super::error::{Code, Problem};
use super::state::Api;
use super::wire::{clip, did_you_mean};

/// The task that the path names. A text that can name none is a task that does not exist.
pub(super) struct TaskInPath(pub(super) TaskRef);

impl<S: Send + Sync> FromRequestParts<S> for TaskInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map_err(|_not_utf8| Problem::no_task())?.0;
        TaskRef::parse(&text).map(Self).ok_or_else(Problem::no_task)
    }
}

/// The queue that the path names. A text that can name none is a queue that does not exist.
pub(super) struct QueueInPath(pub(super) QueueName);

impl<S: Send + Sync> FromRequestParts<S> for QueueInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map_err(|_not_utf8| Problem::no_queue())?.0;
        QueueName::parse(&text).map(Self).map_err(|_no_name| Problem::no_queue())
    }
}

/// The API key that the path names. A text that can name none is a key that does not exist.
pub(super) struct KeyInPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for KeyInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map_err(|_not_utf8| Problem::no_key())?.0;
        Ok(Self(text))
    }
}

/// The credential that the path names. A text that can name none is a credential that does not exist.
pub(super) struct CredentialInPath(pub(super) CredentialName);

impl<S: Send + Sync> FromRequestParts<S> for CredentialInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_not_utf8| Problem::no_credential())?;
        CredentialName::parse(&text.0).map(Self).map_err(|_no_name| Problem::no_credential())
    }
}

/// Says that the resource takes no query parameters.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Query::read(parts.uri.query(), &[]).finish(|_query| Self)
    }
}

/// The path as the client wrote it, in two parts: `/v1` or nothing, and the rest.
pub(super) struct Prefixed {
    /// `/v1`, or empty: answers refer to further resources under the prefix the caller uses.
    pub(super) prefix: &'static str,
    /// The path without it.
    pub(super) path: String,
}

impl Prefixed {
    /// Splits a path.
    pub(super) fn split(path: &str) -> Self {
        let rest = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/'));
        Self { prefix: if rest.is_some() { "/v1" } else { "" }, path: rest.unwrap_or(path).to_owned() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefixed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let path = parts.extensions.get::<OriginalUri>().map_or(parts.uri.path(), |uri| uri.path());
        Ok(Self::split(path))
    }
}

/// The parameters of a query, each read at most once; faults pile up and are answered together.
pub(super) struct Query<'q> {
    given: Vec<(Cow<'q, str>, Cow<'q, str>)>,
    faults: Vec<(String, String)>,
}

/// `label.K=V` in the list of known parameters.
const LABEL: &str = "label.";

impl<'q> Query<'q> {
    /// Reads a query of which `known` parameters make sense (`label.` stands for all labels).
    pub(super) fn read(query: Option<&'q str>, known: &[&str]) -> Self {
        let mut this = Self { given: Vec::new(), faults: Vec::new() };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let is_label = known.contains(&LABEL) && name.starts_with(LABEL);
            if !is_label && !known.contains(&&*name) {
                let hint = did_you_mean(&name, known.iter().copied());
                this.fault(&name, format!("there is no such parameter here{hint}"));
            } else if this.given.iter().any(|(other, _)| *other == name) {
                this.fault(&name, "given more than once".to_owned());
            } else {
                this.given.push((name, value));
            }
        }
        this
    }

    fn fault(&mut self, name: &str, detail: String) {
        if self.faults.len() < FAULTS_REPORTED_MAX {
            self.faults.push((clip(name), detail));
        }
    }

    /// One parameter, if it was given and `parse` takes it.
    pub(super) fn get<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.fault(name, error.to_string());
                None
            }
        }
    }

    /// The filter made of `queue`, `status`, `task_type`, `reason` and `label.K`, as far as they are known here.
    pub(super) fn filter(&mut self) -> TaskFilter {
        TaskFilter {
            queue: self.get("queue", QueueName::parse),
            status: self.get("status", status),
            at: None,
            task_type: self.get("task_type", TaskType::parse),
            labels: self.labels(),
            dead_reason: self.get("reason", reason),
            visible: None,
        }
    }

    fn labels(&mut self) -> Vec<(LabelName, String)> {
        let mut labels = Vec::new();
        let mut faults = Vec::new();
        for (name, value) in &self.given {
            let Some(key) = name.strip_prefix(LABEL) else { continue };
            match LabelName::parse(key) {
                Ok(key) => labels.push((key, value.clone().into_owned())),
                Err(error) => faults.push((clip(name), error.to_string())),
            }
        }
        self.faults.extend(faults);
        labels
    }

    /// What `make` makes of it, unless there were faults.
    pub(super) fn finish<T>(self, make: impl FnOnce(Self) -> T) -> Result<T, Problem> {
        if self.faults.is_empty() { Ok(make(self)) } else { Err(Problem::query(self.faults)) }
    }
}

/// Reads the word of a status.
pub(super) fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| no_such_word("status", text, Status::ALL.map(Status::as_str)))
}

/// Reads the word of a dead letter's reason.
pub(super) fn reason(text: &str) -> Result<DeadReason, String> {
    DeadReason::parse(text).ok_or_else(|| no_such_word("reason", text, DeadReason::ALL.map(DeadReason::as_str)))
}

fn no_such_word<const N: usize>(kind: &str, text: &str, words: [&str; N]) -> String {
    format!("`{}` is no {kind}: it is one of {}", clip(text), words.join(", "))
}

/// A request body in memory, counted against the budget of all bodies until it is dropped.
pub(super) struct RawBody {
    /// Its bytes.
    pub(super) bytes: Bytes,
    _budget: Budget,
}

/// Reads a JSON body of at most `limit` bytes as text. Refuses other media types and content encodings, more bytes than
/// the limit or than the budget of all bodies has left, and bodies that take longer than [`BODY_READ_MAX`].
pub(super) async fn json_body(api: &Api, headers: &HeaderMap, body: Body, limit: usize) -> Result<RawBody, Problem> {
    media_type(headers)?;
    read_body(api, headers, body, limit).await
}

/// As [`json_body`]; nothing at all stands for `{}`.
pub(super) async fn optional_json_body(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<RawBody, Problem> {
    let mut raw = read_body(api, headers, body, limit).await?;
    if raw.bytes.is_empty() {
        raw.bytes = Bytes::from_static(b"{}");
        return Ok(raw);
    }
    media_type(headers)?;
    Ok(raw)
}

impl RawBody {
    /// The body as text; JSON is UTF-8 (RFC 8259 section 8.1).
    pub(super) fn text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            Problem::new(Code::MalformedJson, format!("the body is not UTF-8: byte {} is wrong", error.valid_up_to()))
        })
    }
}

async fn read_body(api: &Api, headers: &HeaderMap, body: Body, limit: usize) -> Result<RawBody, Problem> {
    let mut arriving = Arriving::new(api, headers, body, limit)?;
    let mut budget = Budget::default();
    let bytes = in_time(api, arriving.piece(usize::MAX, &mut budget)).await?;
    Ok(RawBody { bytes, _budget: budget })
}

/// Gives a body [`BODY_READ_MAX`] to arrive.
pub(super) async fn in_time<T>(api: &Api, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::select! {
        result = read => result,
        () = api.clock().sleep(BODY_READ_MAX.to_duration()) => Err(Problem::new(
            Code::BodyTimeout,
            format!("the body has to arrive within {BODY_READ_MAX}"),
        )),
    }
}

/// A share of the budget of all request bodies: given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Budget(Option<OwnedSemaphorePermit>);

impl Budget {
    fn add(&mut self, api: &Api, bytes: usize) -> Result<(), Problem> {
        let share = u32::try_from(bytes).ok().and_then(|len| api.bodies().clone().try_acquire_many_owned(len).ok());
        let Some(share) = share else {
            return Err(Problem::new(Code::Busy, "too many request bodies are being read: nothing was done"));
        };
        match &mut self.0 {
            Some(budget) => budget.merge(share),
            None => self.0 = Some(share),
        }
        Ok(())
    }
}

/// A body of at most `limit` bytes, piece by piece.
pub(super) struct Arriving {
    api: Api,
    body: Body,
    limit: usize,
    read: usize,
}

impl Arriving {
    /// Refuses at once a body that declares more than `limit` bytes.
    pub(super) fn new(api: &Api, headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, Problem> {
        let declared = one_header(headers, &header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large(limit));
        }
        Ok(Self { api: api.clone(), body, limit, read: 0 })
    }

    /// The next piece; `None` at the end. Takes its share of the budget as bytes arrive: who declares much and sends
    /// little holds up nobody.
    async fn next(&mut self, budget: &mut Budget) -> Result<Option<Bytes>, Problem> {
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|error| Problem::new(Code::BodyUnreadable, format!("the body broke off: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            self.read = self.read.saturating_add(piece.len());
            if self.read > self.limit {
                return Err(too_large(self.limit));
            }
            budget.add(&self.api, piece.len())?;
            return Ok(Some(piece));
        }
        Ok(None)
    }

    /// What arrives until there are `size` bytes or more of it; fewer only at the end.
    pub(super) async fn piece(&mut self, size: usize, budget: &mut Budget) -> Result<Bytes, Problem> {
        let mut piece = BytesMut::new();
        while piece.len() < size {
            let Some(more) = self.next(budget).await? else { break };
            piece.extend_from_slice(&more);
        }
        Ok(piece.freeze())
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body of this request may have at most {limit} bytes"))
}

/// What the body of a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchMedia {
    /// One JSON array.
    Array,
    /// One task a line.
    Lines,
}

const JSON: &str = "application/json";
/// The name that NDJSON goes by (ndjson-spec section 3.2); it is not registered.
const NDJSON: &str = "application/x-ndjson";

/// Tells an array from lines by `Content-Type`, and refuses everything else.
pub(super) fn batch_media(headers: &HeaderMap) -> Result<BatchMedia, Problem> {
    match media_among(headers, &[JSON, NDJSON])? {
        0 => Ok(BatchMedia::Array),
        _ => Ok(BatchMedia::Lines),
    }
}

/// Refuses what is not JSON as it stands.
fn media_type(headers: &HeaderMap) -> Result<(), Problem> {
    media_among(headers, &[JSON]).map(|_only| ())
}

/// Which of the `known` media types the body has; anything else is refused.
fn media_among(headers: &HeaderMap, known: &[&str]) -> Result<usize, Problem> {
    let refuse = |detail: String| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let wanted = || {
        let each: Vec<_> = known.iter().map(|media| format!("`Content-Type: {media}`")).collect();
        format!("send {}", each.join(" or "))
    };
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("content encodings are not understood: send the body as it is".to_owned());
    }
    let Some(given) = one_header(headers, &header::CONTENT_TYPE) else { return refuse(wanted()) };
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let Some(which) = known.iter().position(|media| essence.eq_ignore_ascii_case(media)) else {
        return refuse(format!("`{}` is not understood: {}", clip(given), wanted()));
    };
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, value)) if !value.trim_matches('"').eq_ignore_ascii_case("utf-8") => {
            refuse(format!("charset `{}` is not understood: JSON is UTF-8", clip(value)))
        }
        Some(_) | None => Ok(which),
    }
}

/// A header that is there exactly once, as text.
pub(super) fn one_header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.to_str().ok())?
}

/// The `Idempotency-Key`, if there is one: 1 to 256 visible ASCII characters.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let name = HeaderName::from_static("idempotency-key");
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    one_header(headers, &name)
        .filter(|key| (1..=IDEMPOTENCY_KEY_LEN_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()))
        .map(Some)
        .ok_or_else(|| {
            let detail = format!("send it once, with 1 to {IDEMPOTENCY_KEY_LEN_MAX} visible ASCII characters");
            Problem::new(Code::InvalidIdempotencyKey, detail)
        })
}
