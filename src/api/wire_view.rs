//! Words to JSON: how a task and a queue look, built here and nowhere else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::config::{Bound, QueueConfig};
use crate::queue::command::QueueView;
use crate::queue::store::Row;
use crate::task::outcome::{OnStatus, OutcomeClass};
use crate::task::{Attempt, Body, Header, PriorityOrder, RetryOverrides, RetryPolicy, Span, Status, WallMs};

use super::access::Sight;
use super::openapi::words::{self, any_json, count_by_reason, count_by_status};
use super::wire::Fields;

/// A value that JSON carries as the text people read.
#[derive(Debug, Clone, Copy)]
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A task as callers see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(super) struct TaskView<'a> {
    /// What its client calls it.
    #[schema(value_type = words::TaskId)]
    pub(super) task_id: String,
    /// What runs it; `null` if the record is damaged.
    #[schema(required, value_type = Option<words::TaskType>)]
    task_type: Option<&'a str>,
    #[schema(value_type = words::QueueName)]
    queue: &'a str,
    #[schema(value_type = words::TaskStatus)]
    status: &'static str,
    /// 0 to 9, 9 most urgent.
    #[schema(minimum = 0, maximum = 9)]
    priority: u8,
    #[schema(required, schema_with = any_json)]
    payload: Option<Cow<'a, RawValue>>,
    labels: BTreeMap<&'a str, &'a str>,
    /// When it is, or was, due next.
    #[schema(value_type = words::Time)]
    run_at: Shown<WallMs>,
    /// It is not started any more from then on.
    #[schema(required, value_type = Option<words::Time>)]
    expires_at: Option<Shown<WallMs>>,
    /// What the task itself says; `null`: 30 s.
    #[schema(required, value_type = Option<words::Duration>)]
    timeout: Option<Shown<Span>>,
    retry: OverridesShown<'a>,
    /// When it was accepted.
    #[schema(value_type = words::Time)]
    submitted_at: Shown<WallMs>,
    /// When it ended.
    #[schema(required, value_type = Option<words::Time>)]
    processed_at: Option<Shown<WallMs>>,
    /// 1, and one more with each redrive.
    series: u32,
    /// Attempts of this series.
    attempt_count: u32,
    /// Attempts of this series after the first.
    retry_count: u32,
    #[schema(required)]
    last_error: Option<LastError<'a>>,
    #[schema(required, value_type = Option<words::DeadLetterReason>)]
    dead_reason: Option<&'static str>,
    /// Where the answer is about one task, and the caller may read: the first and last 20 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<Vec<AttemptShown<'a>>>,
    /// Only if the stored record is damaged: what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    damaged: Option<Cow<'a, str>>,
}

/// What went wrong in the last attempt.
#[derive(Serialize, ToSchema)]
struct LastError<'a> {
    #[schema(value_type = words::AttemptClass)]
    class: &'static str,
    /// The status of the answer, if there was one.
    #[schema(required)]
    http_status: Option<u16>,
    /// Only where `attempts` are shown.
    #[schema(required)]
    error: Option<&'a str>,
}

/// One try.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptShown<'a> {
    /// Counted over all series, from 1.
    ordinal: u32,
    series: u32,
    /// Counted in its series, from 1.
    number: u32,
    #[schema(value_type = words::Time)]
    started_at: Shown<WallMs>,
    /// Milliseconds.
    took_ms: u64,
    #[schema(value_type = words::AttemptClass)]
    class: &'static str,
    /// The status of the answer, if there was one.
    #[schema(required)]
    http_status: Option<u16>,
    #[schema(required)]
    error: Option<&'a str>,
    /// `null` if there was none, or without the scope `read_payload`.
    #[schema(required)]
    response: Option<ResponseShown<'a>>,
}

/// The first bytes of an answer's body: text where it is text.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptResponse)]
#[serde(rename_all = "lowercase")]
enum ResponseShown<'a> {
    Text(&'a str),
    Base64(String),
}

/// What the task itself says about retrying; the rest comes from its queue.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskRetry)]
struct OverridesShown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = words::Duration)]
    min_backoff: Option<Shown<Span>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = words::Duration)]
    max_backoff: Option<Shown<Span>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_doublings: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = words::Duration)]
    max_retry_duration: Option<Shown<Span>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    jitter: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = words::StopRule)]
    stop_when: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = words::Duration)]
    credential_wait_max: Option<Shown<Span>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "on_status")]
    #[schema(required = false, schema_with = words::on_status)]
    on_status: &'a OnStatus,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
fn on_status<S: Serializer>(table: &&OnStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(table.iter().map(|(status, action)| (status, action.as_str())))
}

impl<'a> From<&'a RetryOverrides> for OverridesShown<'a> {
    fn from(retry: &'a RetryOverrides) -> Self {
        Self {
            max_attempts: retry.max_attempts,
            min_backoff: retry.min_backoff.map(Shown),
            max_backoff: retry.max_backoff.map(Shown),
            max_doublings: retry.max_doublings,
            max_retry_duration: retry.max_retry_duration.map(Shown),
            jitter: retry.jitter,
            stop_when: retry.stop_when.map(crate::task::StopWhen::as_str),
            credential_wait_max: retry.credential_wait_max.map(Shown),
            on_status: &retry.on_status,
        }
    }
}

/// What a damaged record still says about retrying: nothing.
static NO_OVERRIDES: RetryOverrides = RetryOverrides {
    max_attempts: None,
    min_backoff: None,
    max_backoff: None,
    max_doublings: None,
    max_retry_duration: None,
    jitter: None,
    stop_when: None,
    credential_wait_max: None,
    on_status: BTreeMap::new(),
};

/// A task as a caller with this `sight` sees it at `now`; `attempts` where the view is of this task alone.
pub(super) fn task<'a>(row: &'a Row, attempts: Option<&'a [Attempt]>, sight: Sight, now: WallMs) -> TaskView<'a> {
    let attempts = attempts.filter(|_| sight.attempts);
    let header = &row.header;
    let body = row.body.as_deref();
    let payload = body.ok().map(payload);
    let damaged = match (&row.body, &payload) {
        (Err(damage), _) => Some(Cow::Borrowed(damage.what.as_str())),
        (Ok(_), Some(None)) => Some(Cow::Borrowed("the stored payload is not JSON")),
        (Ok(_), _) => None,
    };
    TaskView {
        task_id: row.public_id().to_string(),
        task_type: body.ok().map(|body| body.task_type.as_str()),
        queue: row.queue.as_str(),
        status: row.status_at(now).as_str(),
        priority: header.priority.get(),
        payload: payload.flatten().filter(|_| sight.payload),
        labels: body.map(labels).unwrap_or_default(),
        run_at: Shown(header.due),
        expires_at: header.expires_at.map(Shown),
        timeout: body.ok().and_then(|body| body.timeout).map(Shown),
        retry: body.map_or(&NO_OVERRIDES, |body| &body.retry).into(),
        submitted_at: Shown(header.submitted_at),
        processed_at: header.status.has_ended().then_some(Shown(header.changed_at)),
        series: header.series,
        attempt_count: header.attempts,
        retry_count: header.retry_count(),
        last_error: last_error(header, attempts),
        dead_reason: header.dead_reason.map(crate::task::outcome::DeadReason::as_str),
        attempts: attempts.map(|attempts| attempts.iter().map(|one| attempt(one, sight)).collect()),
        damaged,
    }
}

fn labels(body: &Body) -> BTreeMap<&str, &str> {
    body.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What went wrong last; nothing for tasks that succeeded, or whose last attempt did.
fn last_error<'a>(header: &Header, attempts: Option<&'a [Attempt]>) -> Option<LastError<'a>> {
    let class = header.last_class?;
    // An answer of 2xx is an error where `on_status` makes it one.
    if header.status == Status::Succeeded || (class == OutcomeClass::Ok && header.status != Status::Dead) {
        return None;
    }
    let last = attempts.and_then(<[Attempt]>::last).filter(|attempt| attempt.class == class);
    Some(LastError {
        class: class.as_str(),
        http_status: header.last_http_status,
        error: last.and_then(|attempt| attempt.error.as_deref()),
    })
}

fn attempt(attempt: &Attempt, sight: Sight) -> AttemptShown<'_> {
    AttemptShown {
        ordinal: attempt.ordinal,
        series: attempt.series,
        number: attempt.number,
        started_at: Shown(attempt.started_at),
        took_ms: attempt.took.as_millis(),
        class: attempt.class.as_str(),
        http_status: attempt.http_status,
        error: attempt.error.as_deref(),
        response: response(&attempt.response_head).filter(|_| sight.payload),
    }
}

/// Text where it is text; a character that the cut went through is left out.
fn response(head: &[u8]) -> Option<ResponseShown<'_>> {
    if head.is_empty() {
        return None;
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            head.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    Some(text.map_or_else(|| ResponseShown::Base64(STANDARD.encode(head)), ResponseShown::Text))
}

/// Headers of a payload whose values callers never get back.
const REDACTED_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// The payload as it was given, byte for byte, but for the values of credential headers. `None` if it is not JSON.
fn payload(body: &Body) -> Option<Cow<'_, RawValue>> {
    let text = std::str::from_utf8(&body.payload).ok()?;
    let raw = serde_json::from_str::<&RawValue>(text).ok()?;
    let secrets = secrets(raw);
    if secrets.is_empty() {
        return Some(Cow::Borrowed(raw));
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = raw.get();
    for secret in secrets {
        // Each is a slice of `rest`, in order: its place is the distance of the two.
        let start = (secret.as_ptr() as usize).checked_sub(rest.as_ptr() as usize)?;
        shown.push_str(rest.get(..start)?);
        shown.push_str("\"[redacted]\"");
        rest = rest.get(start + secret.len()..)?;
    }
    shown.push_str(rest);
    RawValue::from_string(shown).ok().map(Cow::Owned)
}

/// The values of credential headers, as slices of the payload's text, in order.
fn secrets(payload: &RawValue) -> Vec<&str> {
    let parse = |text| serde_json::from_str::<Fields<'_>>(text).map(|fields| fields.0).unwrap_or_default();
    let headers = parse(payload.get()).into_iter().filter(|(name, _)| name == "headers");
    let fields = headers.flat_map(|(_, headers)| parse(headers.get()));
    let secret = fields.filter(|(name, _)| REDACTED_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known)));
    secret.map(|(_, value)| value.get()).collect()
}

/// A queue as callers see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue)]
pub(super) struct QueueShown<'a> {
    #[schema(value_type = words::QueueName)]
    name: &'a str,
    /// Whether the configuration names it: only such queues accept tasks.
    configured: bool,
    /// Whether it starts no attempts.
    paused: bool,
    #[schema(schema_with = count_by_status)]
    tasks: BTreeMap<&'static str, u64>,
    /// Payload bytes of tasks that have not ended.
    bytes: u64,
    /// Since when the oldest task that could start is due.
    #[schema(required, value_type = Option<words::Time>)]
    oldest_ready_at: Option<Shown<WallMs>>,
    #[schema(schema_with = count_by_reason)]
    dead_letters_by_reason: BTreeMap<&'static str, u64>,
    config: ConfigShown<'a>,
}

/// The limits in force, under the names of the configuration.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueConfig)]
struct ConfigShown<'a> {
    /// `null`: no limit.
    #[schema(required)]
    max_dispatches_per_second: Option<f64>,
    max_burst_size: u32,
    max_concurrent_dispatches: u32,
    /// What a level of priority is worth in waiting, as a duration; or `strict`: priority comes first.
    #[schema(value_type = String)]
    priority_aging: Cow<'static, str>,
    /// Its share of turns beside other queues.
    weight: u32,
    /// `null`: no limit.
    #[schema(required)]
    max_tasks: Option<u64>,
    /// `null`: no limit.
    #[schema(required)]
    max_bytes: Option<u64>,
    retry: PolicyShown<'a>,
    retention: BoundShown,
    dead_letters: BoundShown,
    /// The name of the credential of tasks that name none; `null`: none.
    #[schema(required)]
    auth: Option<&'a str>,
}

/// How tasks are retried that do not say otherwise.
#[derive(Serialize, ToSchema)]
#[schema(as = RetryPolicy)]
struct PolicyShown<'a> {
    max_attempts: u32,
    #[schema(value_type = words::Duration)]
    min_backoff: Shown<Span>,
    #[schema(value_type = words::Duration)]
    max_backoff: Shown<Span>,
    max_doublings: u32,
    /// `null`: no limit.
    #[schema(required, value_type = Option<words::Duration>)]
    max_retry_duration: Option<Shown<Span>>,
    jitter: f64,
    #[schema(value_type = words::StopRule)]
    stop_when: &'static str,
    #[schema(value_type = words::Duration)]
    credential_wait_max: Shown<Span>,
    #[serde(serialize_with = "on_status")]
    #[schema(schema_with = words::on_status)]
    on_status: &'a OnStatus,
}

/// How long, how many and how much is kept; `null`: no bound of this kind.
#[derive(Serialize, ToSchema)]
#[schema(as = KeptBound)]
struct BoundShown {
    #[schema(required, value_type = Option<words::Duration>)]
    age: Option<Shown<Span>>,
    #[schema(required)]
    count: Option<u64>,
    #[schema(required)]
    bytes: Option<u64>,
}

/// A queue as callers see it.
pub(super) fn queue(view: &QueueView) -> QueueShown<'_> {
    QueueShown {
        name: view.name.as_str(),
        configured: view.configured,
        paused: view.paused,
        tasks: Status::ALL.into_iter().map(Status::as_str).zip(view.tasks).collect(),
        bytes: view.bytes,
        oldest_ready_at: view.oldest_ready.map(Shown),
        dead_letters_by_reason: view.dead.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
        config: config(&view.config),
    }
}

fn config(config: &QueueConfig) -> ConfigShown<'_> {
    ConfigShown {
        max_dispatches_per_second: config.max_dispatches_per_second,
        max_burst_size: config.max_burst_size,
        max_concurrent_dispatches: config.max_concurrent_dispatches,
        priority_aging: match config.order {
            PriorityOrder::Aging(span) => Cow::Owned(span.to_string()),
            PriorityOrder::Strict => Cow::Borrowed("strict"),
        },
        weight: config.weight,
        max_tasks: config.max_tasks,
        max_bytes: config.max_bytes,
        retry: policy(&config.retry),
        retention: bound(&config.retention),
        dead_letters: bound(&config.dead_letters),
        auth: config.auth.as_ref().map(crate::task::CredentialName::as_str),
    }
}

fn policy(policy: &RetryPolicy) -> PolicyShown<'_> {
    PolicyShown {
        max_attempts: policy.max_attempts,
        min_backoff: Shown(policy.min_backoff),
        max_backoff: Shown(policy.max_backoff),
        max_doublings: policy.max_doublings,
        max_retry_duration: policy.max_retry_duration.map(Shown),
        jitter: policy.jitter,
        stop_when: policy.stop_when.as_str(),
        credential_wait_max: Shown(policy.credential_wait_max),
        on_status: &policy.on_status,
    }
}

fn bound(bound: &Bound) -> BoundShown {
    BoundShown { age: bound.age.map(Shown), count: bound.count, bytes: bound.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rig_tests::record;

    fn shown(payload: &str) -> String {
        let mut body = Body::clone(record(1, Status::Queued).row.body.as_ref().unwrap());
        body.payload = payload.to_owned().into();
        super::payload(&body).map_or_else(|| "damaged".to_owned(), |raw| raw.get().to_owned())
    }

    #[test]
    fn credentials_are_hidden_and_every_other_byte_is_kept() {
        for (given, expected) in [
            (r#"{"a" :1.0e0}"#, r#"{"a" :1.0e0}"#),
            ("[1]", "[1]"),
            (r#"{"headers":7}"#, r#"{"headers":7}"#),
            (r#"{"headers":{"x":"cookie"},"cookie":"c"}"#, r#"{"headers":{"x":"cookie"},"cookie":"c"}"#),
            (
                r#"{"headers": {"COOKIE" : "a=b","x":" y","Author\u0069zation":["s"]} , "z":0}"#,
                r#"{"headers": {"COOKIE" : "[redacted]","x":" y","Author\u0069zation":"[redacted]"} , "z":0}"#,
            ),
            (r#"{"headers":{"proxy-authorization":""}}"#, r#"{"headers":{"proxy-authorization":"[redacted]"}}"#),
            ("{", "damaged"),
        ] {
            assert_eq!(shown(given), expected, "{given}");
        }
    }

    #[test]
    fn answers_are_text_where_they_can_be() {
        let json = |head: &[u8]| serde_json::to_string(&response(head)).unwrap();
        assert_eq!(json(b""), "null");
        assert_eq!(json("né".as_bytes()), r#"{"text":"né"}"#);
        assert_eq!(json(b"n\xc3"), r#"{"text":"n"}"#);
        assert_eq!(json(b"\xc3"), r#"{"base64":"ww=="}"#);
        assert_eq!(json(b"\xff\xfe"), r#"{"base64":"//4="}"#);
    }

    #[test]
    fn an_error_is_shown_while_it_matters() {
        let class = |status, last| {
            let mut header = record(1, status).row.header;
            header.last_class = last;
            last_error(&header, None).map(|error| error.class)
        };
        assert_eq!(class(Status::Retrying, Some(OutcomeClass::Dns)), Some("dns"));
        assert_eq!(class(Status::Dead, Some(OutcomeClass::Ok)), Some("ok"), "`on_status` may say so");
        assert_eq!(class(Status::Queued, None), None);
        assert_eq!(class(Status::Queued, Some(OutcomeClass::Ok)), None);
        assert_eq!(class(Status::Succeeded, Some(OutcomeClass::HttpStatus)), None);
    }
}
