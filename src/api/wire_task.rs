//! A task as JSON, read into a [`TaskSpec`] with nothing left in doubt; or every fault that it has.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::queue::store::digest;
use crate::security::credential::Refused;
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
    /// Whether it came with an `Idempotency-Key`.
    pub(super) keyed: bool,
}

/// The fields of a task.
pub(super) const TASK_FIELDS: [&str; 11] = [
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

/// The fields of its `retry`.
pub(super) const RETRY_FIELDS: [&str; 9] = [
    "max_attempts",
    "min_backoff",
    "max_backoff",
    "max_doublings",
    "max_retry_duration",
    "jitter",
    "stop_when",
    "credential_wait_max",
    "on_status",
];

/// The queue of a task that does not name one.
pub(super) const QUEUE_DEFAULT: &str = "default";

/// Names that no task can have: their paths mean something else (`POST /tasks/batch`), or are folded away by clients
/// (RFC 3986 section 5.2.4).
pub(super) const RESERVED_NAMES: [&str; 5] = [".", "..", "batch", "purge", "redrive"];

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
    let mut read = Batch { findings, ..Batch::default() };
    for item in &items {
        read.add(item.get(), rules);
        if read.findings.is_full() {
            break;
        }
    }
    read.finish()
}

/// The tasks of a batch as they are read, one after the other.
#[derive(Default)]
pub(super) struct Batch {
    /// How many there were, faulty ones included: the index of the next.
    pub(super) count: usize,
    /// What is wrong with them.
    pub(super) findings: Findings,
    specs: Vec<TaskSpec>,
    names: HashSet<TaskName>,
}

impl Batch {
    /// Reads the next task. Once there is a fault none of them can be accepted, and none is kept.
    pub(super) fn add(&mut self, text: &str, rules: &Rules<'_>) {
        let at = format!("/{}", self.count);
        self.count += 1;
        if let Some(spec) = task(text, &at, rules, &mut self.findings) {
            if let Some(name) = spec.name.clone().filter(|name| !self.names.insert(name.clone())) {
                self.findings.invalid(format!("{at}/task_id"), format!("`{name}` is given twice in this batch"));
            }
            self.specs.push(spec);
        }
        if !self.findings.is_empty() {
            self.specs = Vec::new();
        }
    }

    /// Counts a task that cannot even be read.
    pub(super) fn refuse(&mut self, code: Code, detail: String) {
        self.findings.add(code, Fault::new(format!("/{}", self.count), detail));
        self.count += 1;
        self.specs = Vec::new();
    }

    /// How many tasks are held.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.specs.len()
    }

    /// All tasks, or the faults of all of them.
    pub(super) fn finish(self) -> Result<Vec<TaskSpec>, Problem> {
        self.findings.or_problem(Some(self.specs))
    }
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
        .and_then(|(task_type, payload)| lane(&object, rules, (task_type, payload), findings));
    let queue = match object.given("queue") {
        Some(_) => object.get("queue", findings, name(QueueName::parse)),
        None => QueueName::parse(QUEUE_DEFAULT).ok(),
    };
    let priority = object.get("priority", findings, integer(0, u32::from(Priority::MAX.get())));
    let when = when(&object, rules.now, findings);
    let expires_at = expires_at(&object, rules, when, findings);
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
pub(super) fn required<'a>(object: &Object<'a>, field: &str, findings: &mut Findings) -> Option<&'a str> {
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
    (task_type, payload): (&TaskType, &str),
    findings: &mut Findings,
) -> Option<LaneName> {
    // A queue that has no valid name is told when the field is read; the payload is then checked as for the default one.
    let named = object.given("queue").and_then(|text| name(QueueName::parse)(text).ok());
    let queue = named.or_else(|| QueueName::parse(QUEUE_DEFAULT).ok())?;
    match (rules.check)(task_type, payload.as_bytes(), &queue) {
        Ok(lane) => return Some(lane),
        Err(PayloadError::Faults(faults)) => {
            let at = object.pointer("payload");
            for fault in faults {
                findings.add(Code::InvalidTask, fault.under(&at));
            }
        }
        Err(PayloadError::EgressRefused { detail }) => {
            findings.add(Code::EgressRefused, Fault::new(object.pointer("payload") + "/url", detail));
        }
        Err(PayloadError::CredentialRefused(refused)) => {
            let (code, field) = match &refused {
                Refused::Unknown { .. } | Refused::Unreadable { .. } => (Code::UnknownCredential, "/auth"),
                Refused::Clash { .. } => (Code::CredentialNotAllowed, "/auth"),
                Refused::Host { .. } => (Code::CredentialNotAllowed, "/url"),
                Refused::PlainHttp { .. } | Refused::NoHandshake { .. } => (Code::CredentialOverPlainHttp, "/url"),
            };
            findings.add(code, Fault::new(object.pointer("payload") + field, refused.to_string()));
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

/// When it expires: after it is due. Where the request may be the repeat of an accepted one (it carries a key or a
/// `task_id`), a time that the clock has passed since is no fault, or the repeat would be told that nothing was
/// accepted; if it is the first, the task ends as expired.
fn expires_at(object: &Object<'_>, rules: &Rules<'_>, when: When, findings: &mut Findings) -> Option<WallMs> {
    let expires_at = object.get("expires_at", findings, time_ahead(rules.now, RUN_AHEAD_MAX))?;
    let may_be_repeat = rules.keyed || object.given("task_id").is_some();
    let run_at = object.given("run_at").and_then(|text| time_ahead(rules.now, RUN_AHEAD_MAX)(text).ok());
    let due = match (run_at, when) {
        (Some(run_at), _) => run_at,
        (None, _) if may_be_repeat => return Some(expires_at),
        (None, When::Delay(delay)) => rules.now.plus(delay.to_duration()),
        (None, When::Now | When::At(_)) => rules.now,
    };
    let due = if may_be_repeat { due } else { due.max(rules.now) };
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
        credential_wait_max: object.get("credential_wait_max", findings, backoff()),
        on_status: on_status(&object, findings),
    };
    if let (Some(min), Some(max)) = (retry.min_backoff, retry.max_backoff)
        && min > max
    {
        let detail = format!("min_backoff ({min}) must not be longer than max_backoff ({max})");
        findings.invalid(object.pointer("min_backoff"), detail);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::rig_tests::{check, noon};
    use crate::task::limits::{FAULTS_REPORTED_MAX, LABEL_VALUE_LEN_MAX, LABELS_MAX, TASK_NAME_LEN_MAX};

    const PAYLOAD_MAX: u64 = 100;

    fn parse(body: &str) -> Result<TaskSpec, Value> {
        let check = check();
        one(body, &Rules { now: noon(), payload_bytes_max: PAYLOAD_MAX, check: &check, keyed: false }).map_err(rendered)
    }

    fn parse_batch(body: &str) -> Result<Vec<TaskSpec>, Value> {
        let check = check();
        batch(body, &Rules { now: noon(), payload_bytes_max: PAYLOAD_MAX, check: &check, keyed: false })
            .map_err(rendered)
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better as a function to map with")]
    fn rendered(problem: Problem) -> Value {
        serde_json::from_slice(&problem.render("r")).unwrap()
    }

    /// A task with these fields besides the two that are required.
    fn with(fields: &str) -> Result<TaskSpec, Value> {
        parse(&format!(r#"{{"task_type":"http_request","payload":{{"url":"u"}},{fields}}}"#))
    }

    fn with_retry(fields: &str) -> Result<TaskSpec, Value> {
        with(&format!(r#""retry":{{{fields}}}"#))
    }

    fn pointers(problem: &Value) -> Vec<&str> {
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    /// The one fault there is.
    fn fault(result: Result<TaskSpec, Value>) -> (String, String) {
        let problem = result.unwrap_err();
        let [error] = &problem["errors"].as_array().unwrap()[..] else { panic!("{problem}") };
        (error["pointer"].as_str().unwrap().to_owned(), error["detail"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_whole_task_is_read_and_its_payload_kept_byte_for_byte() {
        let text = r#" { "task_type":"http_request",
            "payload":{"url" :"u", "n":1.0e0,"s":"\u0041" } ,
            "queue":"mail","priority":9,"delay":"90s","expires_at":"2026-12-01T00:00:00Z","timeout":10,
            "labels":{"z":"1","a":"é"},"task_id":"order:7",
            "retry":{"max_attempts":2,"min_backoff":0.5,"max_backoff":"1h","max_doublings":0,
                     "max_retry_duration":"24h","jitter":0,"stop_when":"all",
                     "credential_wait_max":"5m","on_status":{"404":"retry"}}}  "#;
        let spec = parse(text).unwrap();
        assert_eq!(&spec.payload[..], br#"{"url" :"u", "n":1.0e0,"s":"\u0041" }"#);
        assert_eq!(
            (spec.queue.as_str(), spec.priority, spec.when),
            ("mail", Priority::MAX, When::Delay(Span::from_secs(90)))
        );
        assert_eq!(spec.timeout, Some(Span::from_secs(10)));
        assert_eq!(spec.expires_at, Some(WallMs::parse("2026-12-01T00:00:00Z").unwrap()));
        let labels: Vec<_> = spec.labels.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        assert_eq!(labels, [("a", "é"), ("z", "1")]);
        assert_eq!(spec.name, Some(TaskName::parse("order:7").unwrap()));
        let expected = RetryOverrides {
            max_attempts: Some(2),
            min_backoff: Some(Span::from_millis(500)),
            max_backoff: Some(Span::from_secs(3_600)),
            max_doublings: Some(0),
            max_retry_duration: Some(Span::from_secs(86_400)),
            jitter: Some(0.0),
            stop_when: Some(StopWhen::All),
            credential_wait_max: Some(Span::from_secs(300)),
            on_status: [(404, StatusAction::Retry)].into(),
        };
        assert_eq!(spec.retry, expected);
        assert_eq!(spec.digest, parse_batch(&format!("[{text}]")).unwrap()[0].digest, "alone or in a batch");
    }

    #[test]
    fn null_stands_for_not_given_where_a_field_is_optional() {
        let bare = with(r#""queue":null,"priority":null,"run_at":null,"labels":null,"retry":null,"task_id":null"#);
        let spec = bare.unwrap();
        assert_eq!((spec.queue.as_str(), spec.priority.get(), spec.when), ("default", 5, When::Now));
        assert!(spec.retry.is_empty() && spec.labels.is_empty() && spec.name.is_none());
        assert_eq!(pointers(&parse(r#"{"task_type":null}"#).unwrap_err()), ["/task_type", "/payload"]);
    }

    #[test]
    fn all_faults_come_at_once() {
        let problem = parse(
            r#"{"task_typ":"x","payload":{},"queue":"a b","priority":10,"delay":"1x","run_at":"tomorrow","timeout":[],
                "expires_at":7,"labels":{"a b":"1","c":2},"retry":{"jiter":1,"jitter":2},"a/b~c":1,"task_id":""}"#,
        )
        .unwrap_err();
        assert_eq!((&problem["code"], &problem["status"]), (&json!("invalid_task"), &json!(422)));
        let mut found = pointers(&problem);
        found.sort_unstable();
        let expected = [
            "/a~1b~0c",
            "/delay",
            "/expires_at",
            "/labels/a b",
            "/labels/c",
            "/priority",
            "/queue",
            "/retry/jiter",
            "/retry/jitter",
            "/run_at",
            "/run_at",
            "/task_id",
            "/task_typ",
            "/task_type",
            "/timeout",
        ];
        assert_eq!(found, expected);
        let text = problem.to_string();
        assert!(text.contains("did you mean `task_type`?") && text.contains("did you mean `jitter`?"), "{text}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "1", "null", "\"x\"", "true"] {
            let (at, detail) = fault(parse(body));
            assert!(at.is_empty() && detail.starts_with("expected an object, found "), "{body}: {detail}");
        }
        assert_eq!(
            fault(with(r#""labels":[]"#)),
            ("/labels".to_owned(), "expected an object, found an array".to_owned())
        );
        assert_eq!(fault(with(r#""retry":7"#)).0, "/retry");
        assert_eq!(fault(with(r#""priority":"9""#)).1, "expected a whole number from 0 to 9, found a string");
    }

    #[test]
    fn repeated_keys_are_refused_however_they_are_written() {
        assert_eq!(
            fault(with(r#""queue":"a","qu\u0065ue":"a""#)),
            ("/queue".to_owned(), "given more than once".to_owned())
        );
        assert_eq!(fault(with(r#""labels":{"a":"1","a":"1"}"#)).0, "/labels/a");
        assert_eq!(fault(with_retry(r#""jitter":0,"jitter":0"#)).0, "/retry/jitter");
        assert_eq!(fault(with_retry(r#""on_status":{"404":"dead","404":"dead"}"#)).0, "/retry/on_status/404");
    }

    #[test]
    fn limits_one_below_and_one_above() {
        let labels = |count: usize| {
            let each: Vec<_> = (0..count).map(|n| format!(r#""l{n}":"v""#)).collect();
            with(&format!(r#""labels":{{{}}}"#, each.join(",")))
        };
        assert_eq!(labels(LABELS_MAX).unwrap().labels.len(), LABELS_MAX);
        assert_eq!(fault(labels(LABELS_MAX + 1)).0, "/labels");
        let value = |len: usize| with(&format!(r#""labels":{{"l":"{}"}}"#, "é".repeat(len)));
        assert!(value(LABEL_VALUE_LEN_MAX).is_ok());
        assert_eq!(fault(value(LABEL_VALUE_LEN_MAX + 1)).0, "/labels/l");
        let id = |len: usize| with(&format!(r#""task_id":"{}""#, "i".repeat(len)));
        assert!(id(TASK_NAME_LEN_MAX).is_ok());
        assert_eq!(fault(id(TASK_NAME_LEN_MAX + 1)).0, "/task_id");
        let payload = |len: usize| {
            let empty = r#"{"url":""}"#.len();
            parse(&format!(r#"{{"task_type":"http_request","payload":{{"url":"{}"}}}}"#, "u".repeat(len - empty)))
        };
        assert_eq!(payload(100).unwrap().payload.len(), 100);
        assert_eq!(fault(payload(101)).0, "/payload");
    }

    #[test]
    fn ranges_one_below_and_one_above() {
        let year = 366 * 86_400;
        for (field, good, bad) in [
            ("priority", "0", "-1"),
            ("priority", "9", "10"),
            ("priority", "5", "5.5"),
            ("priority", "9.0", "10.0"),
            ("priority", "0.5e1", "5e-1"),
            ("priority", "-0.0", "1e9"),
            ("timeout", "\"1ms\"", "0"),
            ("timeout", "86400", "\"86400001ms\""),
            ("delay", "0", "-1"),
            ("delay", &(5 * year).to_string(), &format!("\"{}001ms\"", 5 * year)),
            ("task_id", "\"...\"", "\"..\""),
            ("task_id", "\"batches\"", "\"batch\""),
            ("labels", "{}", "{\"\":\"x\"}"),
        ] {
            assert!(with(&format!(r#""{field}":{good}"#)).is_ok(), "{field} {good}");
            assert!(fault(with(&format!(r#""{field}":{bad}"#))).0.starts_with(&format!("/{field}")), "{field} {bad}");
        }
        for (field, good, bad) in [
            ("max_attempts", "1", "0"),
            ("max_attempts", "1000000", "1000001"),
            ("min_backoff", "0", "\"1\u{e9}\""),
            ("max_backoff", &year.to_string(), &format!("\"{year}001ms\"")),
            ("max_doublings", "64", "65"),
            ("max_retry_duration", "\"1ms\"", "0"),
            ("jitter", "0", "-0.1"),
            ("jitter", "1", "1.1"),
            ("stop_when", "\"any\"", "\"both\""),
            ("credential_wait_max", &year.to_string(), &format!("\"{year}001ms\"")),
            ("on_status", "{\"200\":\"dead\"}", "{\"199\":\"dead\"}"),
            ("on_status", "{\"599\":\"done\"}", "{\"600\":\"done\"}"),
            ("on_status", "{\"404\":\"retry\"}", "{\"404\":\"retri\"}"),
            ("on_status", "{}", "{\"+404\":\"retry\"}"),
        ] {
            assert!(with_retry(&format!(r#""{field}":{good}"#)).is_ok(), "{field} {good}");
            let at = fault(with_retry(&format!(r#""{field}":{bad}"#))).0;
            assert!(at.starts_with(&format!("/retry/{field}")), "{field} {bad}: {at}");
        }
        assert_eq!(fault(with_retry(r#""min_backoff":2,"max_backoff":1"#)).0, "/retry/min_backoff");
    }

    #[test]
    fn times_fit_each_other() {
        let at = |offset: i64| WallMs::new(noon().get() + offset).to_string();
        assert_eq!(fault(with(r#""delay":"1s","run_at":"2026-12-01T00:00:00Z""#)).1, "give either delay or run_at");
        let expires = |when: &str, offset: i64| with(&format!(r#"{when}"expires_at":"{}""#, at(offset)));
        assert!(expires("", 1).is_ok());
        assert_eq!(fault(expires("", 0)).0, "/expires_at");
        assert!(expires(r#""delay":"5s","#, 5_001).is_ok());
        assert_eq!(fault(expires(r#""delay":"5s","#, 5_000)).0, "/expires_at");
        let run_at = format!(r#""run_at":"{}","#, at(9_000));
        assert!(expires(&run_at, 9_001).is_ok());
        assert_eq!(fault(expires(&run_at, 9_000)).0, "/expires_at");
        assert!(expires(r#""task_id":"n","#, -1).is_ok(), "it may be the repeat of a task that was in time");
        let past = format!(r#""run_at":"{}","#, at(-9));
        assert_eq!(fault(expires(&past, 0)).0, "/expires_at");
        let past = format!(r#""task_id":"n",{past}"#);
        assert!(expires(&past, -8).is_ok());
        assert_eq!(fault(expires(&past, -9)).0, "/expires_at", "this never made sense");
        let ahead = i64::try_from(RUN_AHEAD_MAX.as_millis()).unwrap();
        assert!(with(&format!(r#""run_at":"{}""#, at(ahead))).is_ok());
        assert_eq!(fault(with(&format!(r#""run_at":"{}""#, at(ahead + 1)))).0, "/run_at");
        assert_eq!(fault(expires("", ahead + 1)).0, "/expires_at");
        assert_eq!(with(&format!(r#""run_at":"{}""#, at(-9))).unwrap().when, When::Now);
        assert_eq!(with(&format!(r#""run_at":"{}""#, at(9))).unwrap().when, When::At(WallMs::new(noon().get() + 9)));
    }

    #[test]
    fn what_the_handler_says_comes_under_its_pointer_and_code() {
        let code = |body: &str| {
            let problem = parse(body).unwrap_err();
            (problem["code"].as_str().unwrap().to_owned(), problem["errors"][0]["pointer"].as_str().unwrap().to_owned())
        };
        let egress = r#"{"task_type":"http_request","payload":{"url":"http://169.254.169.254/"}}"#;
        assert_eq!(code(egress), ("egress_refused".to_owned(), "/payload/url".to_owned()));
        let unknown = r#"{"task_type":"http_reqest","payload":{}}"#;
        assert_eq!(code(unknown), ("unknown_task_type".to_owned(), "/task_type".to_owned()));
        assert!(fault(parse(unknown)).1.ends_with("did you mean `http_request`?"));
        assert_eq!(code(r#"{"task_type":"http_request","payload":{}}"#).1, "/payload/url");
        let mixed = r#"{"task_type":"http_request","payload":{"url":"http://169.254.169.254/"},"priority":77}"#;
        assert_eq!(code(mixed).0, "invalid_task", "kinds that differ are just faults");
    }

    #[test]
    fn a_batch_is_whole_or_refused() {
        let good = r#"{"task_type":"http_request","payload":{"url":"u"}}"#;
        let many = |count: usize| format!("[{}]", vec![good; count].join(","));
        assert_eq!(parse_batch(&many(BATCH_TASKS_MAX)).unwrap().len(), BATCH_TASKS_MAX);
        for wrong in [many(BATCH_TASKS_MAX + 1), "[]".to_owned(), "{}".to_owned()] {
            assert_eq!(pointers(&parse_batch(&wrong).unwrap_err()), [""]);
        }
        let problem = parse_batch(&format!(r#"[{good},7,{{"task_type":"http_request","payload":{{}}}}]"#)).unwrap_err();
        assert_eq!(pointers(&problem), ["/1", "/2/payload/url"]);
        let named = r#"{"task_type":"http_request","payload":{"url":"u"},"task_id":"n"}"#;
        assert_eq!(pointers(&parse_batch(&format!("[{named},{good},{named}]")).unwrap_err()), ["/2/task_id"]);
        let all_wrong = format!("[{}]", vec!["7"; FAULTS_REPORTED_MAX + 1].join(","));
        assert_eq!(pointers(&parse_batch(&all_wrong).unwrap_err()).len(), FAULTS_REPORTED_MAX);
        assert_eq!(parse_batch("[1,").unwrap_err()["code"], "malformed_json");
    }
}
