//! Every fact once: which counter it moves, and the line it writes.

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::logging::subscriber::{LineFormat, capture};
use crate::task::outcome::DeadReason;
use crate::task::{
    CallerName, CredentialName, IdTail, OutcomeClass, QueueName, Span, Status, TaskId, TaskKey, TaskType, WallMs,
};

fn id() -> TaskId {
    TaskId { key: TaskKey::from_i64(1 << 40).unwrap(), tail: IdTail::new(7) }
}

fn queue() -> QueueName {
    QueueName::parse("mail").unwrap()
}

/// The metric lines (less histogram buckets) that differ after `fact` was emitted, and its line as JSON.
fn told(fact: &dyn Fact) -> (Vec<String>, Option<serde_json::Value>) {
    let telemetry = Telemetry::new();
    let before = telemetry.encode();
    let (clock, _) = Clock::manual(WallMs::parse("2026-11-24T10:00:00.250Z").unwrap());
    let text = capture(LineFormat::Json, "trace", clock, || fact.emit(&telemetry));
    let changed = telemetry
        .encode()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket") && !before.lines().any(|old| old == *line))
        .map(str::to_owned)
        .collect();
    assert!(text.lines().count() <= 1, "one fact, one line: {text}");
    (changed, text.lines().next().map(|line| serde_json::from_str(line).unwrap()))
}

fn ended(status: Status) -> Event {
    TaskEnded { id: id(), queue: queue(), status, attempts: 2 }.into()
}

fn removed(why: Removal) -> Event {
    Removed { queue: queue(), count: 3, why }.into()
}

fn task_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let task_type = TaskType::parse("http_request").unwrap();
    let accepted = TaskAccepted { id: id(), queue: queue(), task_type, repeat: false };
    let finished = AttemptFinished {
        id: id(),
        queue: queue(),
        class: OutcomeClass::HttpStatus,
        http_status: Some(500),
        took: Duration::from_millis(500),
        attempt: 1,
        series: 1,
    };
    let lag = Duration::from_millis(250);
    vec![
        (TaskAccepted { repeat: true, ..accepted.clone() }.into(), "task_accepted", "DEBUG", &[]),
        (accepted.into(), "task_accepted", "DEBUG", &["sendoff_tasks_created_total{queue=\"mail\"} 1"]),
        (
            AttemptStarted { id: id(), queue: queue(), attempt: 1, lag }.into(),
            "attempt_started",
            "DEBUG",
            &["sendoff_dispatch_lag_seconds_sum 0.25", "sendoff_dispatch_lag_seconds_count 1"],
        ),
        (
            finished.into(),
            "attempt_finished",
            "DEBUG",
            &[
                "sendoff_attempts_total{queue=\"mail\",class=\"http_status\"} 1",
                "sendoff_attempt_duration_seconds_sum 0.5",
                "sendoff_attempt_duration_seconds_count 1",
            ],
        ),
        (
            ended(Status::Succeeded),
            "task_ended",
            "DEBUG",
            &["sendoff_tasks_finished_total{queue=\"mail\",outcome=\"succeeded\"} 1"],
        ),
        (
            ended(Status::Expired),
            "task_ended",
            "INFO",
            &["sendoff_tasks_finished_total{queue=\"mail\",outcome=\"expired\"} 1"],
        ),
        (
            Redriven { id: id(), queue: queue(), series: 2 }.into(),
            "redriven",
            "INFO",
            &["sendoff_tasks_redriven_total{queue=\"mail\"} 1"],
        ),
        (
            removed(Removal::Retention),
            "removed",
            "DEBUG",
            &["sendoff_tasks_removed_total{queue=\"mail\",why=\"retention\"} 3"],
        ),
        (removed(Removal::Purge), "removed", "INFO", &["sendoff_tasks_removed_total{queue=\"mail\",why=\"purge\"} 3"]),
        (
            removed(Removal::DeadLetterBound),
            "removed",
            "WARN",
            &["sendoff_tasks_removed_total{queue=\"mail\",why=\"dead_letter_bound\"} 3"],
        ),
        (
            StaleSettle { id: Some(id()), epoch: 3, current: Some(4) }.into(),
            "stale_settle",
            "WARN",
            &["sendoff_stale_settles_total 1"],
        ),
    ]
}

fn engine_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let recovered = Recovered { tasks: 9, damaged: 0, clean: true, took: Duration::from_millis(3) };
    vec![
        (QueuePaused { queue: queue() }.into(), "queue_paused", "INFO", &[]),
        (QueueResumed { queue: queue() }.into(), "queue_resumed", "INFO", &[]),
        (QueueHeld { queue: queue(), tasks: 3 }.into(), "queue_held", "WARN", &[]),
        (WallJump { by_ms: -400_000 }.into(), "wall_jump", "WARN", &["sendoff_wall_jumps_total 1"]),
        (ClockTrusted.into(), "clock_trusted", "INFO", &[]),
        (Interrupted { attempts: 2 }.into(), "interrupted", "WARN", &[]),
        (Recovered { damaged: 1, ..recovered.clone() }.into(), "recovered", "WARN", &[]),
        (recovered.into(), "recovered", "INFO", &[]),
        (StorePressure { free_bytes: 1, reserve_bytes: 2 }.into(), "store_pressure", "WARN", &["sendoff_accepting 0"]),
        (PressureEased.into(), "pressure_eased", "INFO", &[]),
        (StoreFull.into(), "store_full", "ERROR", &["sendoff_accepting 0"]),
        (CommitUnknown { error: "fsync: EIO".to_owned() }.into(), "commit_unknown", "ERROR", &[]),
    ]
}

fn process_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let failed =
        |peer: Option<&str>| ConnectionFailed { peer: peer.map(|peer| peer.parse().unwrap()), error: "x".into() };
    let address = "127.0.0.1:8443".parse().unwrap();
    let expires = WallMs::new(3_500);
    vec![
        (failed(Some("192.0.2.1:5")).into(), "connection_failed", "DEBUG", &["sendoff_connections_failed_total 1"]),
        (failed(None).into(), "connection_failed", "WARN", &["sendoff_connections_failed_total 1"]),
        (
            CertificateReady { change: "kept", expires, ca_sha256: None }.into(),
            "certificate_ready",
            "INFO",
            &["sendoff_certificate_expiry_timestamp_seconds{source=\"files\"} 3.5"],
        ),
        (
            CertificateRefused { why: "x".to_owned() }.into(),
            "certificate_refused",
            "ERROR",
            &["sendoff_certificate_last_load_successful 0", "sendoff_certificates_refused_total 1"],
        ),
        (Exposed { address, names: "localhost".into(), loopback_refused: true }.into(), "exposed", "WARN", &[]),
        (IdentityChanged::Ca { path: "ca.pem".into() }.into(), "identity_changed", "WARN", &[]),
        (IdentityChanged::AdminKey { path: "admin.key".into() }.into(), "identity_changed", "WARN", &[]),
        (
            Ready { address, tls: true, took: Duration::ZERO, at: WallMs::new(1_500) }.into(),
            "ready",
            "INFO",
            &["sendoff_config_last_reload_success_timestamp_seconds 1.5"],
        ),
        (
            ShutdownStep::Begun { signal: "SIGTERM", running: 1, grace: Span::from_secs(30) }.into(),
            "shutdown",
            "INFO",
            &[],
        ),
        (ShutdownStep::Drained { aborted: 1 }.into(), "shutdown", "INFO", &[]),
        (ShutdownStep::ApiClosed.into(), "shutdown", "INFO", &[]),
        (ShutdownStep::StoreClosed { took: Duration::ZERO }.into(), "shutdown", "INFO", &[]),
        (ForcedStop { signal: "SIGTERM" }.into(), "forced_stop", "WARN", &[]),
    ]
}

fn config_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let reloaded = |changed: &str, needs_restart: &str| ConfigReloaded {
        changed: changed.to_owned(),
        needs_restart: needs_restart.to_owned(),
        at: WallMs::new(2_500),
    };
    let applied: &[&str] = &[
        "sendoff_config_reloads_total{outcome=\"applied\"} 1",
        "sendoff_config_last_reload_success_timestamp_seconds 2.5",
    ];
    let unchanged: &[&str] = &[
        "sendoff_config_reloads_total{outcome=\"unchanged\"} 1",
        "sendoff_config_last_reload_success_timestamp_seconds 2.5",
    ];
    let refused: &[&str] =
        &["sendoff_config_reloads_total{outcome=\"refused\"} 1", "sendoff_config_last_reload_successful 0"];
    vec![
        (reloaded("a: 1 → 2", "").into(), "config_reloaded", "INFO", applied),
        (reloaded("a: 1 → 2", "b: 1 → 2").into(), "config_reloaded", "WARN", applied),
        (reloaded("", "b: 1 → 2").into(), "config_reloaded", "WARN", unchanged),
        (reloaded("", "").into(), "config_reloaded", "INFO", unchanged),
        (
            ConfigRefused { faults: 2, why: "c.yaml:1: x\nc.yaml:2: y".to_owned() }.into(),
            "config_refused",
            "ERROR",
            refused,
        ),
    ]
}

fn key_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let created = |expires_at| KeyCreated {
        id: "7fK2pQx0".to_owned(),
        name: "mail".to_owned(),
        scopes: "enqueue:mail-*".to_owned(),
        expires_at,
        by: "admin000".to_owned(),
    };
    let failed = |limited| AuthenticationFailed { address: "192.0.2.1".parse().unwrap(), limited, why: "api_key" };
    let refused: &[&str] = &["sendoff_authentication_failures_total{answer=\"unauthenticated\"} 1"];
    let limited: &[&str] = &["sendoff_authentication_failures_total{answer=\"rate_limited\"} 1"];
    vec![
        (created(None).into(), "key_created", "INFO", &[]),
        (created(Some(WallMs::new(0))).into(), "key_created", "INFO", &[]),
        (KeyRevoked { id: "7fK2pQx0".to_owned(), by: "admin000".to_owned() }.into(), "key_revoked", "INFO", &[]),
        (KeyDamaged { what: "API key x: y".to_owned() }.into(), "key_damaged", "ERROR", &[]),
        (KeyUsesLost { error: "the disk is full".to_owned() }.into(), "key_uses_lost", "WARN", &[]),
        (failed(false).into(), "authentication_failed", "INFO", refused),
        (failed(true).into(), "authentication_failed", "DEBUG", limited),
    ]
}

fn issuer_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let issuer = CallerName::parse("company").unwrap();
    let fetched = IssuerKeysFetched { issuer, result: "ok", keys: 2, took: Duration::ZERO, error: None };
    let failed = IssuerKeysFetched { result: "http_status", error: Some("500".to_owned()), ..fetched.clone() };
    let ok: &[&str] = &["sendoff_issuer_fetches_total{issuer=\"company\",result=\"ok\"} 1"];
    let status: &[&str] = &["sendoff_issuer_fetches_total{issuer=\"company\",result=\"http_status\"} 1"];
    vec![(fetched.into(), "issuer_keys_fetched", "DEBUG", ok), (failed.into(), "issuer_keys_fetched", "WARN", status)]
}

fn token_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let credential = CredentialName::parse("billing").unwrap();
    let fetched = TokenFetched { credential: credential.clone(), result: "ok", took: Duration::ZERO, error: None };
    let failed = TokenFetched { result: "refused", error: Some("the issuer said no".to_owned()), ..fetched.clone() };
    let lent = TokenLent { credential: credential.clone(), was_there: true, waited: Duration::from_millis(250) };
    let ok: &[&str] = &["sendoff_token_fetches_total{credential=\"billing\",result=\"ok\"} 1"];
    let refused: &[&str] = &["sendoff_token_fetches_total{credential=\"billing\",result=\"refused\"} 1"];
    let hit: &[&str] = &[
        "sendoff_token_cache_hits_total{credential=\"billing\"} 1",
        "sendoff_token_wait_seconds_sum 0.25",
        "sendoff_token_wait_seconds_count 1",
    ];
    let put =
        CredentialPut { credential: credential.clone(), kind: "bearer", replaced: false, by: "admin000".to_owned() };
    let removed = CredentialRemoved { credential: credential.clone(), by: "admin000".to_owned() };
    let unreadable = CredentialUnreadable { what: "credential x: y".to_owned() };
    vec![
        (put.into(), "credential_put", "INFO", &[]),
        (removed.into(), "credential_removed", "INFO", &[]),
        (unreadable.into(), "credential_unreadable", "ERROR", &[]),
        (fetched.into(), "token_fetched", "DEBUG", ok),
        (failed.into(), "token_fetched", "WARN", refused),
        (lent.clone().into(), "token_lent", "TRACE", hit),
        (TokenLent { was_there: false, ..lent }.into(), "token_lent", "TRACE", hit.get(1..).unwrap()),
        (
            SigningKeyCreated { kid: "k".to_owned(), signs_from: WallMs::new(0) }.into(),
            "signing_key_created",
            "INFO",
            &[],
        ),
        (SigningKeyRemoved { kid: "k".to_owned() }.into(), "signing_key_removed", "INFO", &[]),
        (SigningKeyKept { error: "the disk is full".to_owned() }.into(), "signing_key_kept", "ERROR", &[]),
    ]
}

fn audit_events() -> Vec<(Event, &'static str, &'static str, &'static [&'static str])> {
    let audited = ActAudited { seq: 7, operation: "POST /keys".to_owned(), result: "ok", hash: "00ff".to_owned() };
    let failed = |lost: Option<&str>| AuditFailed { error: "full".to_owned(), lost: lost.map(str::to_owned) };
    let failures: &[&str] = &["sendoff_audit_failures_total 1"];
    let broken = AuditFound::Broken { at_byte: 9, why: "changed".to_owned() };
    vec![
        (audited.into(), "act_audited", "INFO", &["sendoff_audit_lines_total{result=\"ok\"} 1"]),
        (failed(None).into(), "audit_failed", "ERROR", failures),
        (failed(Some("POST /keys")).into(), "audit_failed", "ERROR", failures),
        (AuditFound::Torn { cut_bytes: 9 }.into(), "audit_log_repaired", "WARN", &[]),
        (broken.into(), "audit_log_broken", "ERROR", &[]),
        (AuditFound::PutAway.into(), "audit_log_continued", "WARN", &[]),
    ]
}

#[test]
fn each_fact_writes_its_line_and_moves_its_metrics_only() {
    for (event, name, level, metrics) in [
        task_events(),
        engine_events(),
        process_events(),
        config_events(),
        key_events(),
        token_events(),
        audit_events(),
        issuer_events(),
    ]
    .concat()
    {
        let (changed, line) = told(&event);
        let line = line.unwrap_or_else(|| panic!("{event:?} wrote no line"));
        assert_eq!((line["event"].as_str(), line["level"].as_str()), (Some(name), Some(level)), "{event:?}");
        assert_eq!(changed, metrics, "{event:?}");
    }
}

#[test]
fn a_retry_tells_its_delay_and_count() {
    let retry = RetryScheduled {
        id: id(),
        queue: queue(),
        attempt: 3,
        max_attempts: 20,
        delay: Span::from_secs(4),
        class: OutcomeClass::Reset,
        http_status: None,
        error: Some("connection \"reset\"\nby peer".to_owned()),
    };
    let expected = serde_json::json!({
        "timestamp": "2026-11-24T10:00:00.250Z", "level": "INFO", "message": "attempt failed, will be tried again",
        "event": "retry_scheduled", "task_id": id().to_string(), "queue": "mail", "attempt": 3, "max_attempts": 20,
        "delay_ms": 4_000, "class": "reset", "error": "connection \"reset\"\nby peer",
    });
    assert_eq!(told(&retry), (vec![], Some(expected)));
}

#[test]
fn a_dead_letter_tells_its_whole_reason() {
    let dead = DeadLettered {
        id: id(),
        queue: queue(),
        reason: DeadReason::MaxAttempts,
        attempts: 20,
        max_attempts: 20,
        series: 1,
        class: Some(OutcomeClass::HttpStatus),
        http_status: Some(503),
        error: None,
    };
    let expected = serde_json::json!({
        "timestamp": "2026-11-24T10:00:00.250Z", "level": "WARN", "message": "task given up, now a dead letter",
        "event": "dead_lettered", "task_id": id().to_string(), "queue": "mail", "reason": "max_attempts",
        "attempts": 20, "max_attempts": 20, "series": 1, "class": "http_status", "http_status": 503,
    });
    let counted = vec!["sendoff_tasks_finished_total{queue=\"mail\",outcome=\"dead\"} 1".to_owned()];
    assert_eq!(told(&dead), (counted, Some(expected)));
}

#[test]
fn commits_are_counted_and_not_logged() {
    let (changed, line) = told(&CommitDone { took: Duration::from_millis(2), changes: 40 });
    assert!(line.is_none());
    let expected = [
        "sendoff_commit_duration_seconds_sum 0.002",
        "sendoff_commit_duration_seconds_count 1",
        "sendoff_commit_changes_sum 40.0",
        "sendoff_commit_changes_count 1",
    ];
    assert_eq!(changed, expected);
}

#[test]
fn a_request_is_labelled_by_its_route_and_never_by_what_a_client_invents() {
    let served = RequestServed {
        method: "BREW",
        route: "/tasks/{id}",
        status: 405,
        took: Duration::from_millis(1),
        request_id: "r1",
        caller: Some("7fK2pQx0"),
        cause: None,
    };
    let (changed, line) = told(&served);
    assert_eq!(changed[0], "sendoff_http_requests_total{method=\"other\",route=\"/tasks/{id}\",status=\"405\"} 1");
    let line = line.unwrap();
    assert_eq!((&line["method"], &line["request_id"]), (&"BREW".into(), &"r1".into()));
    let (changed, _) = told(&RequestServed { method: "GET", ..served });
    assert!(changed[0].contains("method=\"GET\""), "{changed:?}");
}

#[test]
fn what_lay_behind_a_failure_is_in_the_log_by_the_id_that_its_answer_carries() {
    let failed = RequestServed {
        method: "GET",
        route: "/tasks/{id}",
        status: 500,
        took: Duration::from_millis(1),
        request_id: "r1",
        caller: Some("7fK2pQx0"),
        cause: Some("the payload of task 7 is damaged"),
    };
    let (changed, line) = told(&failed);
    assert!(changed[0].contains("status=\"500\""), "{changed:?}");
    let line = line.unwrap();
    let said = ["event", "level", "request_id", "cause"].map(|field| line[field].as_str().unwrap_or_default());
    assert_eq!(said, ["request_failed", "ERROR", "r1", "the payload of task 7 is damaged"]);
}
