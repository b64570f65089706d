//! What is sent besides the task's own headers: who it is, which attempt this is, and defaults that a task may set
//! itself or switch off.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use sha2::{Digest, Sha256};

use super::payload::HttpPayload;
use crate::queue::lease::Work;
use crate::security::http_client;
use crate::task::{OutcomeClass, WallMs};

/// Key of a request that the target can tell a repeat by (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Whether an empty value means that the default is not wanted.
pub(super) fn may_be_switched_off(name: &HeaderName) -> bool {
    [IDEMPOTENCY_KEY, TRACEPARENT, USER_AGENT, CONTENT_TYPE].contains(name)
}

/// All headers of the request that this attempt sends now.
pub(super) fn outgoing(payload: &HttpPayload, work: &Work, now: WallMs) -> HeaderMap {
    let mut headers = payload.headers.clone();
    for (name, value) in about(work, now) {
        put(&mut headers, HeaderName::from_static(name), &value);
    }
    let mut default = |name: HeaderName, value: &str| {
        if !headers.contains_key(&name) && !payload.switched_off.contains(&name) {
            put(&mut headers, name, value);
        }
    };
    default(IDEMPOTENCY_KEY, &format!("{}-{}", shown_id(work), work.header.series));
    default(TRACEPARENT, &traceparent(work));
    default(USER_AGENT, http_client::USER_AGENT);
    if let Some(content_type) = payload.content_type {
        default(CONTENT_TYPE, content_type);
    }
    headers
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Ids, names and numbers are visible ASCII; what is not could not be sent anyway.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What Cloud Tasks says under `X-CloudTasks-*`.
fn about(work: &Work, now: WallMs) -> Vec<(&'static str, String)> {
    let header = &work.header;
    let mut about = vec![
        ("sendoff-task-id", shown_id(work)),
        ("sendoff-task-type", work.body.task_type.to_string()),
        ("sendoff-queue", work.queue.to_string()),
        ("sendoff-attempt", header.attempts.to_string()),
        ("sendoff-retry-count", header.retry_count().to_string()),
        ("sendoff-max-attempts", work.max_attempts.to_string()),
        ("sendoff-scheduled-at", header.due.to_string()),
        ("sendoff-deadline", now.plus(work.timeout.to_duration()).to_string()),
        ("sendoff-redelivery", is_redelivery(work).to_string()),
    ];
    if let Some((_, Some(status))) = work.previous {
        about.push(("sendoff-previous-status", status.to_string()));
    }
    about
}

/// The client's own name for the task, or ours.
pub(super) fn shown_id(work: &Work) -> String {
    work.body.name.as_ref().map_or_else(|| work.header.id().to_string(), ToString::to_string)
}

/// The task and its series, without what a client may have named it: for signatures, in which a name with a full stop
/// could shift what is signed.
pub(super) fn series_id(work: &Work) -> String {
    format!("{}-{}", work.header.id(), work.header.series)
}

/// Whether an earlier attempt was handed over, in this series or another, so that the target may have seen the task.
/// Within a series only what was handed over is counted, or the series is over. How an earlier series ended without a
/// request is told from its class, as far as that is known: where this series has not been without a credential since.
fn is_redelivery(work: &Work) -> bool {
    use OutcomeClass as C;
    let header = &work.header;
    let refused = header.no_credential.waits == 0
        && matches!(
            work.previous,
            Some((C::EgressRefused | C::CredentialRefused | C::AuthUnavailable | C::Corrupt, _))
        );
    let of_earlier_series = header.attempts_total.saturating_sub(header.attempts);
    header.attempts > 1 || of_earlier_series > u32::from(refused)
}

/// One trace for each series, one span for each attempt; the same again if the same attempt were sent again.
fn traceparent(work: &Work) -> String {
    let (id, header) = (work.header.id(), &work.header);
    let trace = hex(&format!("trace {id} {}", header.series), 16);
    let span = hex(&format!("span {id} {} {}", header.series, header.attempts), 8);
    format!("00-{trace}-{span}-01")
}

/// The first bytes of a digest. All of them zero would be no valid id, and does not happen.
fn hex(text: &str, bytes: usize) -> String {
    let digest = Sha256::digest(text);
    let nibbles = digest.iter().take(bytes).flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}
