//! Configuration: read tolerantly, validated whole, every fault reported at once with its path and line.

pub mod model;

pub use model::{
    Bound, Config, EgressConfig, HostConfig, HostsConfig, LogFormat, LoggingConfig, MetricsConfig, QueueConfig,
    ServerConfig, StorageConfig, TlsConfig, TlsVersion, WorkersConfig,
};
