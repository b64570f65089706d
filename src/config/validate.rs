//! The tree becomes a [`Config`]: every value read within its bounds, then what values must be to each other.
//!
//! A faulty value is noted and its default stands in for it, so that the rest is still looked at.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::address::{self, EgressEntry};
use super::callers;
use super::credential::{self, CredentialConfig, SecretRef};
use super::fault::{ConfigFaults, child};
use super::model::{
    Bound, Config, EgressConfig, HostConfig, HostsConfig, LogFormat, LoggingConfig, MetricsConfig, QueueConfig,
    ServerConfig, StorageConfig, TlsConfig, TlsVersion, WorkersConfig,
};
use super::raw::{Node, Scalar};
use super::section::Section;
use super::value::{bytes, nullable, number, path, socket, span, truth, whole, word};
use crate::task::limits;
use crate::task::outcome::{OnStatus, StatusAction};
use crate::task::{CredentialName, LaneName, PriorityOrder, QueueName, RetryPolicy, Span, StopWhen};

/// The shortest span there is.
const ONE_MS: Span = Span::from_millis(1);
const ZERO: Span = Span::from_millis(0);

/// Reads the whole configuration.
pub(super) fn config(root: &Node, faults: &mut ConfigFaults) -> Config {
    let root = Section::root(root);
    let default = Config::default();
    let noted = faults.count();
    let server = server(&root.at("server"), default.server, faults);
    // A server that is faulty itself may have lost its URL: one fault is told once.
    let server_is_sound = faults.count() == noted;
    let queue_defaults = queue(&root.at("queue_defaults"), &default.queue_defaults, faults);
    let loopback = is_loopback(server.listen);
    let payload_bytes = bytes(1, limits::PAYLOAD_BYTES_MAX);
    let credentials = credential::credentials(&root.at("credentials"), faults);
    // A secret itself, given by mistake, is not repeated.
    let reference =
        |scalar: &Scalar| if scalar.is_null() { Ok(None) } else { SecretRef::parse(&scalar.text).map(Some) };
    let credentials_key = root.hidden("credentials_key", reference, faults).flatten();
    // Others may be kept in the store.
    if credentials_key.is_none() {
        check_auth(&root, &credentials, faults);
    }
    if server_is_sound {
        credential::check_issuer(&root.at("credentials"), &credentials, server.public_url.as_deref(), faults);
    }
    Config {
        data_dir: root.get("data_dir", default.data_dir, path, faults),
        certs_dir: root.get("certs_dir", default.certs_dir, path, faults),
        queues: queues(&root.at("queues"), &queue_defaults, faults),
        queue_defaults,
        workers: WorkersConfig {
            max_concurrent: concurrent(&root.at("workers"), default.workers.max_concurrent, faults),
        },
        hosts: hosts(&root.at("hosts"), &default.hosts, faults),
        egress: egress(&root.at("egress"), loopback, default.egress.http, faults),
        callers: callers::callers(&root, &server, faults),
        credentials,
        credentials_key,
        payload_bytes_max: root.at("limits").get("payload_bytes", default.payload_bytes_max, payload_bytes, faults),
        storage: storage(&root.at("storage"), default.storage, faults),
        logging: logging(&root.at("logging"), default.logging, faults),
        metrics: metrics(&root.at("metrics"), server.listen, faults),
        server,
    }
}

fn server(at: &Section<'_>, default: ServerConfig, faults: &mut ConfigFaults) -> ServerConfig {
    let server = ServerConfig {
        listen: at.get("listen", default.listen, socket, faults),
        public_url: at.get("public_url", default.public_url, nullable(address::public_url), faults),
        shutdown_grace: at.get(
            "shutdown_grace",
            default.shutdown_grace,
            span(ZERO, limits::SHUTDOWN_GRACE_MAX),
            faults,
        ),
        plain_http: at.get("plain_http", default.plain_http, truth, faults),
        tls: tls(&at.at("tls"), default.tls, faults),
    };
    if server.plain_http && !is_loopback(server.listen) {
        let detail = format!(
            "plain HTTP is served on loopback only, and server.listen is {} ({}); listen on 127.0.0.1 behind a proxy, \
             or leave plain_http off",
            server.listen,
            at.origin_of("listen")
        );
        faults.push(at.origin_of("plain_http"), "server.plain_http", detail);
    }
    server
}

fn tls(at: &Section<'_>, default: TlsConfig, faults: &mut ConfigFaults) -> TlsConfig {
    let version = word(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
    let noted = faults.count();
    let tls = TlsConfig {
        certificate: at.get("certificate", default.certificate, nullable(path), faults),
        key: at.get("key", default.key, nullable(path), faults),
        client_ca: at.get("client_ca", default.client_ca, nullable(path), faults),
        min_version: at.get("min_version", default.min_version, version, faults),
    };
    let (given, missing) = match (&tls.certificate, &tls.key) {
        (Some(_), None) => ("certificate", "key"),
        (None, Some(_)) => ("key", "certificate"),
        (Some(_), Some(_)) | (None, None) => return tls,
    };
    if faults.count() == noted {
        let detail =
            format!("{given} needs {missing} beside it; give both, or neither for a certificate of the own CA");
        faults.push(at.origin_of(given), child(&at.path, given), detail);
    }
    tls
}

fn concurrent(at: &Section<'_>, default: u32, faults: &mut ConfigFaults) -> u32 {
    at.get("max_concurrent", default, whole(1, limits::CONCURRENT_MAX), faults)
}

fn queues(at: &Section<'_>, defaults: &QueueConfig, faults: &mut ConfigFaults) -> BTreeMap<QueueName, QueueConfig> {
    let mut queues = BTreeMap::new();
    if at.keys().count() > limits::QUEUES_MAX {
        let detail = format!("got {} queues, expected at most {}", at.keys().count(), limits::QUEUES_MAX);
        faults.push(&at.origin, at.path.as_str(), detail);
        return queues;
    }
    for key in at.keys() {
        let entry = at.at(key);
        match QueueName::parse(key) {
            Ok(name) => {
                queues.insert(name, queue(&entry, defaults, faults));
            }
            Err(error) => faults.push(&entry.origin, entry.path.as_str(), format!("no name of a queue: {error}")),
        }
    }
    if let Ok(name) = QueueName::parse("default") {
        queues.entry(name).or_insert_with(|| defaults.clone());
    }
    queues
}

fn queue(at: &Section<'_>, base: &QueueConfig, faults: &mut ConfigFaults) -> QueueConfig {
    let rate = nullable(number(limits::RATE_PER_SECOND_MIN, limits::RATE_PER_SECOND_MAX));
    let burst = whole(1, limits::BURST_MAX);
    let running = whole(1, limits::CONCURRENT_MAX);
    let weight = whole(1, limits::WEIGHT_MAX);
    let tasks = nullable(whole(1, limits::TASKS_KEPT_MAX));
    let size = nullable(bytes(1, limits::BYTES_KEPT_MAX));
    QueueConfig {
        max_dispatches_per_second: at.get("max_dispatches_per_second", base.max_dispatches_per_second, rate, faults),
        max_burst_size: at.get("max_burst_size", base.max_burst_size, burst, faults),
        max_concurrent_dispatches: at.get("max_concurrent_dispatches", base.max_concurrent_dispatches, running, faults),
        order: at.get("priority_aging", base.order, priority_aging, faults),
        weight: at.get("weight", base.weight, weight, faults),
        max_tasks: at.get("max_tasks", base.max_tasks, tasks, faults),
        max_bytes: at.get("max_bytes", base.max_bytes, size, faults),
        retry: retry(&at.at("retry"), &base.retry, faults),
        retention: bound(&at.at("retention"), base.retention, faults),
        dead_letters: bound(&at.at("dead_letters"), base.dead_letters, faults),
        auth: at.get("auth", base.auth.clone(), nullable(credential::reference), faults),
    }
}

/// Whoever names a credential has to name one that there is; told where it was written.
fn check_auth(root: &Section<'_>, credentials: &BTreeMap<CredentialName, CredentialConfig>, faults: &mut ConfigFaults) {
    let queues = root.at("queues");
    let named = queues.keys().map(|key| queues.at(key)).chain([root.at("queue_defaults")]);
    // A credential that is faulty itself is there: one fault is told once.
    let written: Vec<&str> = root.at("credentials").keys().collect();
    for at in named {
        // What is no name at all was told when it was read.
        let auth = at.get("auth", None, nullable(credential::reference), &mut ConfigFaults::default());
        let Some(auth) = auth.filter(|auth| !written.contains(&auth.as_str())) else { continue };
        let near = super::shape::nearest(auth.as_str(), credentials.keys().map(CredentialName::as_str));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let detail = format!("there is no credential `{auth}`{near}");
        faults.push(at.origin_of("auth"), child(&at.path, "auth"), detail);
    }
}

fn priority_aging(scalar: &Scalar) -> Result<PriorityOrder, String> {
    if scalar.text == "strict" {
        return Ok(PriorityOrder::Strict);
    }
    let aging = span(ONE_MS, limits::BACKOFF_MAX)(scalar).map(PriorityOrder::Aging);
    aging.map_err(|expected| format!("the word strict or {expected}"))
}

fn retry(at: &Section<'_>, base: &RetryPolicy, faults: &mut ConfigFaults) -> RetryPolicy {
    let noted = faults.count();
    let attempts = whole(1, limits::ATTEMPTS_MAX);
    let doublings = whole(0, limits::DOUBLINGS_MAX);
    let backoff = span(ZERO, limits::BACKOFF_MAX);
    let duration = nullable(span(ONE_MS, limits::BACKOFF_MAX));
    let stop = word(&[("any", StopWhen::Any), ("all", StopWhen::All)]);
    let policy = RetryPolicy {
        max_attempts: at.get("max_attempts", base.max_attempts, attempts, faults),
        min_backoff: at.get("min_backoff", base.min_backoff, &backoff, faults),
        max_backoff: at.get("max_backoff", base.max_backoff, &backoff, faults),
        max_doublings: at.get("max_doublings", base.max_doublings, doublings, faults),
        max_retry_duration: at.get("max_retry_duration", base.max_retry_duration, duration, faults),
        jitter: at.get("jitter", base.jitter, number(0.0, 1.0), faults),
        stop_when: at.get("stop_when", base.stop_when, stop, faults),
        credential_wait_max: at.get("credential_wait_max", base.credential_wait_max, &backoff, faults),
        on_status: on_status(&at.at("on_status"), &base.on_status, faults),
    };
    // What is only inherited was looked at where it was written.
    if faults.count() == noted
        && at.keys().next().is_some()
        && let Err(error) = policy.check()
    {
        faults.push(&at.origin, at.path.as_str(), error.to_string());
    }
    policy
}

fn on_status(at: &Section<'_>, base: &OnStatus, faults: &mut ConfigFaults) -> OnStatus {
    let action = word(&[("done", StatusAction::Done), ("retry", StatusAction::Retry), ("dead", StatusAction::Dead)]);
    let mut merged = base.clone();
    for key in at.keys() {
        let status = key.parse::<u16>().ok().filter(|status| (100..=599).contains(status) && key.len() == 3);
        let Some(status) = status else {
            faults.push(&at.at(key).origin, child(&at.path, key), "no HTTP status: expected 100 to 599");
            continue;
        };
        if let Some(action) = at.get(key, None, |scalar| action(scalar).map(Some), faults) {
            merged.insert(status, action);
        }
    }
    merged
}

fn bound(at: &Section<'_>, base: Bound, faults: &mut ConfigFaults) -> Bound {
    Bound {
        age: at.get("age", base.age, nullable(span(ZERO, limits::AGE_KEPT_MAX)), faults),
        count: at.get("count", base.count, nullable(whole(0, limits::TASKS_KEPT_MAX)), faults),
        bytes: at.get("bytes", base.bytes, nullable(bytes(0, limits::BYTES_KEPT_MAX)), faults),
    }
}

fn hosts(at: &Section<'_>, default: &HostsConfig, faults: &mut ConfigFaults) -> HostsConfig {
    let max_concurrent = concurrent(&at.at("defaults"), default.defaults.max_concurrent, faults);
    let overrides = host_overrides(&at.at("overrides"), max_concurrent, faults);
    HostsConfig { defaults: HostConfig { max_concurrent }, overrides }
}

fn host_overrides(at: &Section<'_>, default: u32, faults: &mut ConfigFaults) -> BTreeMap<LaneName, HostConfig> {
    let mut overrides = BTreeMap::new();
    if at.keys().count() > limits::HOST_OVERRIDES_MAX {
        let detail = format!("got {} hosts, expected at most {}", at.keys().count(), limits::HOST_OVERRIDES_MAX);
        faults.push(&at.origin, at.path.as_str(), detail);
        return overrides;
    }
    for key in at.keys() {
        let entry = at.at(key);
        let host = HostConfig { max_concurrent: concurrent(&entry, default, faults) };
        match address::host_key(key) {
            Err(expected) => faults.push(&entry.origin, entry.path.as_str(), format!("no host: expected {expected}")),
            Ok(lane) => {
                if overrides.insert(lane.clone(), host).is_some() {
                    let detail = format!("another key names the same host, {lane}; remove one");
                    faults.push(&entry.origin, entry.path.as_str(), detail);
                }
            }
        }
    }
    overrides
}

fn egress(at: &Section<'_>, loopback: bool, http: bool, faults: &mut ConfigFaults) -> EgressConfig {
    let max = limits::EGRESS_ENTRIES_MAX;
    let (allow_nets, allow_hosts) = split(at.list("allow", max, address::egress_entry, faults));
    let (deny_nets, deny_hosts) = split(at.list("deny", max, address::egress_entry, faults));
    EgressConfig {
        allow_nets,
        allow_hosts,
        deny_nets,
        deny_hosts,
        http: at.get("http", http, truth, faults),
        ca_files: at.list("ca_files", max, path, faults),
        loopback,
    }
}

fn split(entries: Vec<EgressEntry>) -> (Vec<ipnet::IpNet>, Vec<String>) {
    let (mut nets, mut hosts) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            EgressEntry::Net(net) => nets.push(net),
            EgressEntry::Host(host) => hosts.push(host),
        }
    }
    (nets, hosts)
}

fn storage(at: &Section<'_>, default: StorageConfig, faults: &mut ConfigFaults) -> StorageConfig {
    let reserve = nullable(bytes(limits::RESERVE_BYTES_MIN, limits::BYTES_KEPT_MAX));
    StorageConfig { reserve: at.get("reserve", default.reserve, reserve, faults) }
}

fn logging(at: &Section<'_>, default: LoggingConfig, faults: &mut ConfigFaults) -> LoggingConfig {
    let format = word(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
    LoggingConfig {
        format: at.get("format", default.format, format, faults),
        level: at.get("level", default.level, log_level, faults),
    }
}

/// A level, or a filter. A lone word that is no level would be taken for a module's name and silence everything else.
fn log_level(scalar: &Scalar) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let text = scalar.text.trim();
    let known = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let lone = |part: &str| !part.contains(['=', '[', ']', '{', '}']);
    let stray = text.split(',').map(str::trim).find(|part| lone(part) && !known(part) && !text.contains('['));
    let near = super::shape::nearest(stray.unwrap_or_default(), LEVELS.into_iter());
    let filter = tracing_subscriber::EnvFilter::builder().parse(text);
    if stray.is_some() || filter.is_err() || text.contains(char::is_control) {
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(format!("one of {}, or a filter such as `info,sendoff::queue=debug`{near}", LEVELS.join(", ")));
    }
    Ok(text.to_owned())
}

fn metrics(at: &Section<'_>, api: SocketAddr, faults: &mut ConfigFaults) -> MetricsConfig {
    let listen = at.get("listen", None, nullable(socket), faults);
    if let Some(listen) = listen {
        let origin = at.origin_of("listen");
        if !is_loopback(listen) {
            let detail = format!(
                "metrics are served there without a key, so expected a loopback address such as 127.0.0.1:{}; null \
                 serves them on the API with one",
                listen.port()
            );
            faults.push(origin, "metrics.listen", format!("got `{listen}`: {detail}"));
        } else if listen == api && listen.port() != 0 {
            faults.push(origin, "metrics.listen", format!("server.listen is {api} too; take another port, or null"));
        }
    }
    MetricsConfig { listen }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
