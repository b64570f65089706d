//! The metrics of the core, in one registry. Labels are bounded: queues and routes come from configuration and code,
//! never from clients.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::task::{CredentialName, QueueName, Status, WallMs};

/// A cheap handle on the metrics of this process.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    metrics: Metrics,
}

/// The live figures of one queue, as the engine knows them.
#[derive(Debug, Clone, Copy)]
pub struct QueueFigures<'a> {
    /// Which queue.
    pub queue: &'a QueueName,
    /// Tasks in each state, in the order of [`Status::ALL`].
    pub tasks: [u64; Status::ALL.len()],
    /// For how long the task that is due the longest has been waiting; `None` when none is due.
    pub oldest_ready: Option<Duration>,
}

impl Telemetry {
    /// What [`Telemetry::encode`] returns, as HTTP names it.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A registry with everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sendoff");
        let metrics = Metrics::register(&mut registry);
        Self(Arc::new(Inner { registry, metrics }))
    }

    /// Takes over the live figures of one queue.
    pub fn set_queue(&self, figures: &QueueFigures<'_>) {
        let queue = QueueLabel(figures.queue.clone());
        for (status, count) in Status::ALL.into_iter().zip(figures.tasks) {
            let labels = StateLabels { queue: queue.clone(), state: status.as_str() };
            self.0.metrics.tasks.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let age = figures.oldest_ready.unwrap_or_default().as_secs_f64();
        self.0.metrics.oldest_ready_age.get_or_create(&QueueLabels { queue }).set(age);
    }

    /// Everything in the `OpenMetrics` text format ([`Telemetry::CONTENT_TYPE`]).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if text::encode(&mut text, &self.0.registry).is_err() {
            // Half a scrape would look like counters that vanished; without `# EOF` a scraper refuses it.
            text.clear();
        }
        text
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Every metric; only facts change them.
#[derive(Debug)]
pub struct Metrics {
    tasks: Family<StateLabels, Gauge>,
    oldest_ready_age: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    pub(super) created: Family<QueueLabels, Counter>,
    pub(super) attempts: Family<ClassLabels, Counter>,
    pub(super) finished: Family<OutcomeLabels, Counter>,
    pub(super) removed: Family<RemovalLabels, Counter>,
    pub(super) redriven: Family<QueueLabels, Counter>,
    pub(super) dispatch_lag: Histogram,
    pub(super) attempt_duration: Histogram,
    pub(super) commit_duration: Histogram,
    pub(super) commit_changes: Histogram,
    pub(super) http_requests: Family<RequestLabels, Counter>,
    pub(super) http_duration: Histogram,
    pub(super) connections_failed: Counter,
    pub(super) authentication_failures: Family<FailureLabels, Counter>,
    pub(super) issuer_fetches: Family<IssuerLabels, Counter>,
    pub(super) token_fetches: Family<FetchLabels, Counter>,
    pub(super) token_cache_hits: Family<CredentialLabels, Counter>,
    pub(super) token_wait: Histogram,
    pub(super) audit_lines: Family<AuditLabels, Counter>,
    pub(super) audit_failures: Counter,
    pub(super) stale_settles: Counter,
    pub(super) wall_jumps: Counter,
    pub(super) accepting: Gauge,
    pub(super) config_reloads: Family<ReloadLabels, Counter>,
    pub(super) config_reload_ok: Gauge,
    config_reload_at: Gauge<f64, AtomicU64>,
    certificate_expiry: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    pub(super) certificate_load_ok: Gauge,
    pub(super) certificates_refused: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            tasks: Family::default(),
            oldest_ready_age: Family::default(),
            created: Family::default(),
            attempts: Family::default(),
            finished: Family::default(),
            removed: Family::default(),
            redriven: Family::default(),
            // 1 ms … 4.6 h
            dispatch_lag: Histogram::new(exponential_buckets(0.001, 4.0, 13)),
            // 1 ms … 4.6 h
            attempt_duration: Histogram::new(exponential_buckets(0.001, 4.0, 13)),
            // 0.1 ms … 13 s
            commit_duration: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            // 1 … 65,536
            commit_changes: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            http_requests: Family::default(),
            // 0.1 ms … 105 s
            http_duration: Histogram::new(exponential_buckets(0.000_1, 4.0, 11)),
            connections_failed: Counter::default(),
            authentication_failures: Family::default(),
            issuer_fetches: Family::default(),
            token_fetches: Family::default(),
            token_cache_hits: Family::default(),
            // 0.1 ms … 26 s
            token_wait: Histogram::new(exponential_buckets(0.000_1, 4.0, 10)),
            audit_lines: Family::default(),
            audit_failures: Counter::default(),
            stale_settles: Counter::default(),
            wall_jumps: Counter::default(),
            accepting: Gauge::default(),
            config_reloads: Family::default(),
            config_reload_ok: Gauge::default(),
            config_reload_at: Gauge::default(),
            certificate_expiry: Family::default(),
            certificate_load_ok: Gauge::default(),
            certificates_refused: Counter::default(),
        };
        metrics.accepting.set(1);
        metrics.config_reload_ok.set(1);
        metrics.certificate_load_ok.set(1);
        // There from the start, so that the first of each is seen to be an increase.
        for outcome in ["applied", "unchanged", "refused"] {
            metrics.config_reloads.get_or_create(&ReloadLabels { outcome }).inc_by(0);
        }
        for answer in ["unauthenticated", "rate_limited"] {
            metrics.authentication_failures.get_or_create(&FailureLabels { answer }).inc_by(0);
        }
        metrics.register_tasks(registry);
        metrics.register_process(registry);
        metrics.register_config(registry);
        metrics.register_credentials(registry);
        metrics.register_certificate(registry);
        metrics.register_audit(registry);
        metrics
    }

    /// The configuration in force was read at this moment.
    pub(super) fn set_config_read(&self, at: WallMs) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        self.config_reload_at.set(at.get() as f64 / 1_000.0);
    }

    /// The certificate that is served comes from there, and ends then.
    pub(super) fn set_certificate_expiry(&self, source: &'static str, at: WallMs) {
        // There is one certificate at a time.
        self.certificate_expiry.clear();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        self.certificate_expiry.get_or_create(&SourceLabels { source }).set(at.get() as f64 / 1_000.0);
    }

    fn register_tasks(&self, registry: &mut Registry) {
        registry.register("tasks", "Tasks by queue and state", self.tasks.clone());
        let age = "Since when the task that is due the longest has been waiting";
        registry.register_with_unit("oldest_ready_age", age, Unit::Seconds, self.oldest_ready_age.clone());
        registry.register("tasks_created", "Tasks accepted, repeats not counted", self.created.clone());
        registry.register("attempts", "Attempts ended, by class of outcome", self.attempts.clone());
        registry.register("tasks_finished", "Tasks ended, by how", self.finished.clone());
        registry.register("tasks_removed", "Ended tasks removed, by why", self.removed.clone());
        registry.register("tasks_redriven", "Dead letters put back", self.redriven.clone());
        let lag = "From the moment a task was due to the start of its attempt";
        registry.register_with_unit("dispatch_lag", lag, Unit::Seconds, self.dispatch_lag.clone());
        let took = "From hand-over to the end of an attempt";
        registry.register_with_unit("attempt_duration", took, Unit::Seconds, self.attempt_duration.clone());
        let stale = "Outcomes refused because their lease was no longer the task's";
        registry.register("stale_settles", stale, self.stale_settles.clone());
    }

    fn register_process(&self, registry: &mut Registry) {
        let commit = "How long commits took";
        registry.register_with_unit("commit_duration", commit, Unit::Seconds, self.commit_duration.clone());
        registry.register("commit_changes", "Changes made durable by one commit", self.commit_changes.clone());
        registry.register("http_requests", "Requests answered", self.http_requests.clone());
        let http = "From a request's head to its answer's, long polls included";
        registry.register_with_unit("http_request_duration", http, Unit::Seconds, self.http_duration.clone());
        let failed = "Connections that ended before their first request (accept or TLS handshake failed)";
        registry.register("connections_failed", failed, self.connections_failed.clone());
        let failed = "Requests with an API key or a token that is not accepted, by how they were answered";
        registry.register("authentication_failures", failed, self.authentication_failures.clone());
        let fetches = "Fetches of the keys of issuers of tokens, by how they ended";
        registry.register("issuer_fetches", fetches, self.issuer_fetches.clone());
        registry.register("wall_jumps", "Jumps of the wall clock", self.wall_jumps.clone());
        registry.register("accepting", "1 while there is disk space for new tasks", self.accepting.clone());
        let build = Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") });
        registry.register("build", "What is running", build);
    }

    fn register_credentials(&self, registry: &mut Registry) {
        let fetches = "Tokens asked of their issuers, by credential and result";
        registry.register("token_fetches", fetches, self.token_fetches.clone());
        let hits = "Calls whose token was there, by credential";
        registry.register("token_cache_hits", hits, self.token_cache_hits.clone());
        let wait = "For how long calls waited for their token";
        registry.register_with_unit("token_wait", wait, Unit::Seconds, self.token_wait.clone());
    }

    fn register_config(&self, registry: &mut Registry) {
        let reloads = "Reloads of the configuration: applied, unchanged, refused";
        registry.register("config_reloads", reloads, self.config_reloads.clone());
        let ok = "1 unless the last reload was refused";
        registry.register("config_last_reload_successful", ok, self.config_reload_ok.clone());
        let at = "When the configuration in force was read, at the start or by a reload, since 1970";
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            at,
            Unit::Seconds,
            self.config_reload_at.clone(),
        );
    }

    fn register_audit(&self, registry: &mut Registry) {
        let lines = "Administrative acts in the audit log, by what came of them";
        registry.register("audit_lines", lines, self.audit_lines.clone());
        let failures =
            "Administrative acts that were refused, or are missing in the audit log, because it could not be written";
        registry.register("audit_failures", failures, self.audit_failures.clone());
    }

    fn register_certificate(&self, registry: &mut Registry) {
        let expiry = "When the certificate that is served ends, since 1970";
        let name = "certificate_expiry_timestamp";
        registry.register_with_unit(name, expiry, Unit::Seconds, self.certificate_expiry.clone());
        let ok = "1 unless the last certificate that was to be served was refused";
        registry.register("certificate_last_load_successful", ok, self.certificate_load_ok.clone());
        let refused = "Certificates that were to be served and could not be";
        registry.register("certificates_refused", refused, self.certificates_refused.clone());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AuditLabels {
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

/// A queue's name as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct QueueLabel(QueueName);

impl EncodeLabelValue for QueueLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

impl From<&QueueName> for QueueLabel {
    fn from(queue: &QueueName) -> Self {
        Self(queue.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueueLabels {
    pub(super) queue: QueueLabel,
}

impl From<&QueueName> for QueueLabels {
    fn from(queue: &QueueName) -> Self {
        Self { queue: queue.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    queue: QueueLabel,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClassLabels {
    pub(super) queue: QueueLabel,
    pub(super) class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) queue: QueueLabel,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RemovalLabels {
    pub(super) queue: QueueLabel,
    pub(super) why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) method: &'static str,
    pub(super) route: String,
    pub(super) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReloadLabels {
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabels {
    pub(super) answer: &'static str,
}

/// A credential's name as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CredentialLabel(CredentialName);

impl EncodeLabelValue for CredentialLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

impl From<&CredentialName> for CredentialLabel {
    fn from(credential: &CredentialName) -> Self {
        Self(credential.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CredentialLabels {
    pub(super) credential: CredentialLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FetchLabels {
    pub(super) credential: CredentialLabel,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct IssuerLabels {
    /// As the configuration calls it.
    pub(super) issuer: String,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_queue_are_taken_over_and_replaced() {
        let telemetry = Telemetry::new();
        let queue = QueueName::parse("mail").unwrap();
        for (queued, oldest_ready) in [(7, Some(Duration::from_millis(1_500))), (2, None)] {
            let tasks = [1, queued, 0, 0, 5, 0, 0, 0];
            telemetry.set_queue(&QueueFigures { queue: &queue, tasks, oldest_ready });
            let text = telemetry.encode();
            for line in [
                "sendoff_tasks{queue=\"mail\",state=\"scheduled\"} 1".to_owned(),
                format!("sendoff_tasks{{queue=\"mail\",state=\"queued\"}} {queued}"),
                "sendoff_tasks{queue=\"mail\",state=\"succeeded\"} 5".to_owned(),
                "sendoff_tasks{queue=\"mail\",state=\"expired\"} 0".to_owned(),
                format!(
                    "sendoff_oldest_ready_age_seconds{{queue=\"mail\"}} {:?}",
                    oldest_ready.unwrap_or_default().as_secs_f64()
                ),
            ] {
                assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
            }
        }
    }

    #[test]
    fn every_line_is_a_comment_or_a_name_of_ours_with_a_number_and_the_end_is_marked() {
        let text = Telemetry::default().encode();
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("sendoff_"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.contains(&format!("sendoff_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
        assert!(text.contains("# UNIT sendoff_commit_duration_seconds seconds"));
    }
}
