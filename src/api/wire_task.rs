//! A task as JSON, read into a [`TaskSpec`] with nothing left in doubt; or every fault that it has.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::queue::store::digest;
use crate::task::limits::{
    ATTEMPTS_MAX, BACKOFF_MAX, BATCH_TASKS_MAX, DOUBLINGS_MAX, RUN_AHEAD_MAX, TIMEOUT_MAX, TIMEOUT_MIN,
};
use crate::task::outcome::{OnStatus, StatusAction};
use crate::task::{
    Fault, LaneName, Priority, QueueName, RetryOverrides, Span, StopWhen, TaskName, TaskSpec, TaskType, WallMs, When,
};

use super::error::{Code, Problem};
use super::state::{CheckPayload, PayloadError};
use super::wire::{
    Findings, Object, clip, did_you_mean, expected, fraction, integer, labels, name, span, string, time_ahead,
};

/// What a task is checked against.
pub(super) struct Rules<'r> {
    /// The moment it came.
    pub(super) now: WallMs,
    /// `limits.payload_bytes`.
    pub(super) payload_bytes_max: u64,
    /// What its handler says.
    pub(super) check: &'r CheckPayload,
}

const TASK_FIELDS: [&str; 11] = [
    "task_type",
    "payload",
    "queue",
    "priority",
    "delay",
    "run_at",
    "expires_at",
    "timeout",
    "labels",
    "retry",
    "task_id",
];

const RETRY_FIELDS: [&str; 8] = [
    "max_attempts",
    "min_backoff",
    "max_backoff",
    "max_doublings",
    "max_retry_duration",
    "jitter",
    "stop_when",
    "on_status",
];

/// The queue of a task that does not name one.
const QUEUE_DEFAULT: &str = "default";

/// Names that no task can have: their paths mean something else (`POST /tasks/batch`), or are folded away by clients
/// (RFC 3986 section 5.2.4).
const RESERVED_NAMES: [&str; 5] = [".", "..", "batch", "purge", "redrive"];

/// Reads the body of `POST /tasks`.
pub(super) fn one(body: &str, rules: &Rules<'_>) -> Result<TaskSpec, Problem> {
    let raw = serde_json::from_str::<&RawValue>(body).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    let spec = task(raw.get(), "", rules, &mut findings);
    findings.or_problem(spec)
}

/// Reads the body of `POST /tasks/batch`: all tasks, or the faults of all of them.
pub(super) fn batch(body: &str, rules: &Rules<'_>) -> Result<Vec<TaskSpec>, Problem> {
    let raw = serde_json::from_str::<&RawValue>(body).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        findings.invalid("", expected("an array of tasks", raw.get()));
        return findings.or_problem(None);
    };
    if items.is_empty() || items.len() > BATCH_TASKS_MAX {
        findings.invalid("", format!("a batch has 1 to {BATCH_TASKS_MAX} tasks, this one has {}", items.len()));
        return findings.or_problem(None);
    }
    let mut specs = Vec::with_capacity(items.len());
    let mut names = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("/{index}");
        if let Some(spec) = task(item.get(), &at, rules, &mut findings) {
            if let Some(name) = spec.name.clone().filter(|name| !names.insert(name.clone())) {
                findings.invalid(format!("{at}/task_id"), format!("`{name}` is given twice in this batch"));
            }
            specs.push(spec);
        }
        if findings.is_full() {
            break;
        }
    }
    findings.or_problem(Some(specs))
}

/// Reads one task at `at`. What it gives is whole only if nothing was found.
fn task(text: &str, at: &str, rules: &Rules<'_>, findings: &mut Findings) -> Option<TaskSpec> {
    let object = Object::read(text, at, &TASK_FIELDS, findings)?;
    let task_type =
        required(&object, "task_type", findings).and_then(|_| object.get("task_type", findings, name(TaskType::parse)));
    let payload = payload(&object, rules, findings);
    let lane = task_type
        .as_ref()
        .zip(payload)
        .and_then(|(task_type, payload)| lane(&object, rules, task_type, payload, findings));
    let queue = match object.given("queue") {
        Some(_) => object.get("queue", findings, name(QueueName::parse)),
        None => QueueName::parse(QUEUE_DEFAULT).ok(),
    };
    let priority = object.get("priority", findings, integer(0, u32::from(Priority::MAX.get())));
    let when = when(&object, rules.now, findings);
    let expires_at = expires_at(&object, rules.now, when, findings);
    let spec_name = object.get("task_id", findings, task_name);
    let timeout = object.get("timeout", findings, span(TIMEOUT_MIN, TIMEOUT_MAX));
    let labels = labels(&object, findings);
    let retry = retry(&object, findings);
    Some(TaskSpec {
        name: spec_name,
        task_type: task_type?,
        queue: queue?,
        lane: lane?,
        priority: priority.and_then(|level| Priority::new(u64::from(level))).unwrap_or_default(),
        when,
        expires_at,
        timeout,
        labels,
        retry,
        payload: Bytes::copy_from_slice(payload?.as_bytes()),
        digest: digest(text.as_bytes()),
    })
}

/// The text of a field that has to be there, `null` or not.
fn required<'a>(object: &Object<'a>, field: &str, findings: &mut Findings) -> Option<&'a str> {
    let text = object.raw(field);
    match text {
        None => findings.invalid(object.pointer(field), "is required"),
        Some("null") if field != "payload" => findings.invalid(object.pointer(field), "must not be null"),
        Some(_) => {}
    }
    text
}

/// The payload's text, exactly as it was given.
fn payload<'a>(object: &Object<'a>, rules: &Rules<'_>, findings: &mut Findings) -> Option<&'a str> {
    let text = required(object, "payload", findings)?;
    let max = rules.payload_bytes_max;
    if text.len() as u64 > max {
        let detail = format!("at most {max} bytes, not {} (limits.payload_bytes in the configuration)", text.len());
        findings.invalid(object.pointer("payload"), detail);
        return None;
    }
    Some(text)
}

/// Asks the handler of the task's type about the payload.
fn lane(
    object: &Object<'_>,
    rules: &Rules<'_>,
    task_type: &TaskType,
    payload: &str,
    findings: &mut Findings,
) -> Option<LaneName> {
    match (rules.check)(task_type, payload.as_bytes()) {
        Ok(lane) => return Some(lane),
        Err(PayloadError::Faults(faults)) => {
            let at = object.pointer("payload");
            faults.into_iter().for_each(|fault| findings.add(Code::InvalidTask, fault.under(&at)));
        }
        Err(PayloadError::EgressRefused { detail }) => {
            findings.add(Code::EgressRefused, Fault::new(object.pointer("payload") + "/url", detail));
        }
        Err(PayloadError::UnknownType { nearest }) => {
            let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let detail = format!("there is no task type `{task_type}`{hint}");
            findings.add(Code::UnknownTaskType, Fault::new(object.pointer("task_type"), detail));
        }
    }
    None
}

fn task_name(text: &str) -> Result<TaskName, String> {
    let parsed = name(TaskName::parse)(text)?;
    if RESERVED_NAMES.contains(&parsed.as_str()) {
        return Err(format!("`{parsed}` cannot be a task_id: its path means something else"));
    }
    Ok(parsed)
}

/// When it is first due. A moment that has passed is now: nobody has waited before they came.
fn when(object: &Object<'_>, now: WallMs, findings: &mut Findings) -> When {
    let delay = object.get("delay", findings, span(Span::default(), RUN_AHEAD_MAX));
    let run_at = object.get("run_at", findings, time_ahead(now, RUN_AHEAD_MAX));
    if object.given("delay").is_some() && object.given("run_at").is_some() {
        findings.invalid(object.pointer("run_at"), "give either delay or run_at");
    }
    match (delay, run_at) {
        (_, Some(at)) if at > now => When::At(at),
        (Some(delay), None) if delay > Span::default() => When::Delay(delay),
        _ => When::Now,
    }
}

fn expires_at(object: &Object<'_>, now: WallMs, when: When, findings: &mut Findings) -> Option<WallMs> {
    let expires_at = object.get("expires_at", findings, time_ahead(now, RUN_AHEAD_MAX))?;
    let due = match when {
        When::Now => now,
        When::Delay(delay) => now.plus(delay.to_duration()),
        When::At(at) => at,
    };
    if expires_at <= due {
        findings.invalid(object.pointer("expires_at"), format!("has to be after the task is due ({due})"));
    }
    Some(expires_at)
}

fn retry(of: &Object<'_>, findings: &mut Findings) -> RetryOverrides {
    let object = of.given("retry").and_then(|text| Object::read(text, &of.pointer("retry"), &RETRY_FIELDS, findings));
    let Some(object) = object else { return RetryOverrides::default() };
    let backoff = || span(Span::default(), BACKOFF_MAX);
    let retry = RetryOverrides {
        max_attempts: object.get("max_attempts", findings, integer(1, ATTEMPTS_MAX)),
        min_backoff: object.get("min_backoff", findings, backoff()),
        max_backoff: object.get("max_backoff", findings, backoff()),
        max_doublings: object.get("max_doublings", findings, integer(0, DOUBLINGS_MAX)),
        max_retry_duration: object.get("max_retry_duration", findings, span(Span::from_millis(1), RUN_AHEAD_MAX)),
        jitter: object.get("jitter", findings, fraction),
        stop_when: object.get("stop_when", findings, stop_when),
        on_status: on_status(&object, findings),
    };
    if let (Some(min), Some(max)) = (retry.min_backoff, retry.max_backoff) {
        if min > max {
            let detail = format!("min_backoff ({min}) must not be longer than max_backoff ({max})");
            findings.invalid(object.pointer("min_backoff"), detail);
        }
    }
    retry
}

fn stop_when(text: &str) -> Result<StopWhen, String> {
    let word = string(text)?;
    StopWhen::parse(&word).ok_or_else(|| format!("has to be `any` or `all`, not `{}`", clip(&word)))
}

/// `{"404": "retry"}`: final statuses (RFC 9110 section 15), and what is made of them.
fn on_status(of: &Object<'_>, findings: &mut Findings) -> OnStatus {
    let mut table = OnStatus::new();
    let object = of.given("on_status").and_then(|text| Object::read_open(text, &of.pointer("on_status"), findings));
    let Some(object) = object else { return table };
    for (key, value) in object.fields() {
        let status = Some(key).filter(|key| key.len() == 3).and_then(|key| key.parse::<u16>().ok());
        let status = status.filter(|status| (200..=599).contains(status));
        match (status, status_action(value.get())) {
            (Some(status), Ok(action)) => drop(table.insert(status, action)),
            (None, _) => findings.invalid(object.pointer(key), "the name has to be a status from 200 to 599"),
            (Some(_), Err(detail)) => findings.invalid(object.pointer(key), detail),
        }
    }
    table
}

fn status_action(text: &str) -> Result<StatusAction, String> {
    let word = string(text)?;
    StatusAction::parse(&word).ok_or_else(|| {
        let hint = did_you_mean(&word, ["done", "retry", "dead"].into_iter());
        format!("has to be `done`, `retry` or `dead`, not `{}`{hint}", clip(&word))
    })
}
