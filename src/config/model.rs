//! What a valid configuration is: typed, checked, with every default filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::callers::CallersConfig;
use super::credential::{CredentialConfig, SecretRef};
use crate::task::limits;
use crate::task::{CredentialName, LaneName, PriorityOrder, QueueName, RetryPolicy, Span};

/// The whole configuration (DESIGN: one file, every key documented in `config.yaml`).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where and how the API listens.
    pub server: ServerConfig,
    /// Where the store, the admin key and the lock live.
    pub data_dir: PathBuf,
    /// Where the local CA and certificate live.
    pub certs_dir: PathBuf,
    /// What a queue is when it does not say otherwise.
    pub queue_defaults: QueueConfig,
    /// The queues, each with `queue_defaults` filled in; never empty.
    pub queues: BTreeMap<QueueName, QueueConfig>,
    /// The worker pool.
    pub workers: WorkersConfig,
    /// Limits of target hosts.
    pub hosts: HostsConfig,
    /// Which addresses may be called.
    pub egress: EgressConfig,
    /// Who may call us besides the holders of API keys.
    pub callers: CallersConfig,
    /// What calls may carry, by name.
    pub credentials: BTreeMap<CredentialName, CredentialConfig>,
    /// What credentials are sealed with that the API is given; `None`: it takes none.
    pub credentials_key: Option<SecretRef>,
    /// The largest payload of one task, in bytes.
    pub payload_bytes_max: u64,
    /// Disk space.
    pub storage: StorageConfig,
    /// Logs.
    pub logging: LoggingConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
}

/// `server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The URL under which clients reach the server, if it differs.
    pub public_url: Option<String>,
    /// How long running attempts may go on after SIGTERM.
    pub shutdown_grace: Span,
    /// Serve plain HTTP; refused off loopback.
    pub plain_http: bool,
    /// TLS.
    pub tls: TlsConfig,
}

/// `server.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM chain; `None`: a certificate of the own local CA.
    pub certificate: Option<PathBuf>,
    /// PEM private key; given exactly when `certificate` is.
    pub key: Option<PathBuf>,
    /// PEM certificates of those who issue client certificates; `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// The oldest protocol version accepted.
    pub min_version: TlsVersion,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// One queue, or `queue_defaults`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueConfig {
    /// Attempts started per second at most; `None`: no limit.
    pub max_dispatches_per_second: Option<f64>,
    /// Tokens that may be saved up for a burst.
    pub max_burst_size: u32,
    /// Attempts running at one time.
    pub max_concurrent_dispatches: u32,
    /// `priority_aging`.
    pub order: PriorityOrder,
    /// Share of the worker slots against other queues.
    pub weight: u32,
    /// Tasks that have not ended at most; `None`: no limit.
    pub max_tasks: Option<u64>,
    /// Payload bytes of tasks that have not ended at most; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// How its tasks are retried.
    pub retry: RetryPolicy,
    /// How long succeeded, cancelled and expired tasks are kept.
    pub retention: Bound,
    /// How long dead letters are kept.
    pub dead_letters: Bound,
    /// The credential of its tasks that name none.
    pub auth: Option<CredentialName>,
}

/// A bound on kept tasks: whichever is reached first removes the oldest; `None`: no such bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Since they ended; zero removes them at once.
    pub age: Option<Span>,
    /// How many of one queue.
    pub count: Option<u64>,
    /// Payload bytes of one queue.
    pub bytes: Option<u64>,
}

/// `workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersConfig {
    /// Attempts running at one time, over all queues.
    pub max_concurrent: u32,
}

/// `hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsConfig {
    /// What holds for a host that is not named.
    pub defaults: HostConfig,
    /// By lane name (`https://api.example.com:443`).
    pub overrides: BTreeMap<LaneName, HostConfig>,
}

/// One host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostConfig {
    /// Attempts running against it at one time.
    pub max_concurrent: u32,
}

/// `egress`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressConfig {
    /// Networks allowed although they would be refused.
    pub allow_nets: Vec<IpNet>,
    /// Host names allowed whatever they resolve to (lower case).
    pub allow_hosts: Vec<String>,
    /// Networks refused.
    pub deny_nets: Vec<IpNet>,
    /// Host names refused (lower case).
    pub deny_hosts: Vec<String>,
    /// Whether `http:` targets may be called.
    pub http: bool,
    /// PEM files of further CAs that targets' certificates may chain to.
    pub ca_files: Vec<PathBuf>,
    /// Whether loopback targets are allowed: derived, true while `server.listen` is loopback only.
    pub loopback: bool,
}

/// `storage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageConfig {
    /// Free bytes below which new tasks are refused; `None`: min(256 MiB, 5 % of the volume).
    pub reserve: Option<u64>,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsConfig {
    /// A listener of its own, plain HTTP and without a key, loopback only; `None`: on the API.
    pub listen: Option<SocketAddr>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            max_dispatches_per_second: None,
            max_burst_size: 100,
            max_concurrent_dispatches: 1_000,
            order: PriorityOrder::Aging(Span::from_secs(600)),
            weight: 1,
            max_tasks: None,
            max_bytes: None,
            retry: RetryPolicy::default(),
            retention: Bound { age: Some(Span::from_secs(86_400)), count: Some(100_000), bytes: Some(1 << 30) },
            dead_letters: Bound { age: None, count: None, bytes: None },
            auth: None,
        }
    }
}

impl Default for Config {
    /// What holds without any file: the values documented in `config.yaml`.
    fn default() -> Self {
        let queue = QueueConfig::default();
        let queues =
            QueueName::parse("default").map(|name| BTreeMap::from([(name, queue.clone())])).unwrap_or_default();
        Self {
            server: ServerConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
                public_url: None,
                shutdown_grace: Span::from_secs(30),
                plain_http: false,
                tls: TlsConfig { certificate: None, key: None, client_ca: None, min_version: TlsVersion::V1_3 },
            },
            data_dir: PathBuf::from("data"),
            certs_dir: PathBuf::from("certs"),
            queue_defaults: queue,
            queues,
            workers: WorkersConfig { max_concurrent: 1_024 },
            hosts: HostsConfig { defaults: HostConfig { max_concurrent: 64 }, overrides: BTreeMap::new() },
            egress: EgressConfig { http: true, loopback: true, ..EgressConfig::default() },
            callers: CallersConfig::default(),
            credentials: BTreeMap::new(),
            credentials_key: None,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            storage: StorageConfig { reserve: None },
            logging: LoggingConfig { format: LogFormat::Auto, level: "info".to_owned() },
            metrics: MetricsConfig { listen: None },
        }
    }
}
