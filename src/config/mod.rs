//! Configuration: read tolerantly, validated whole, every fault reported at once with its path and line.
//!
//! `raw` makes a tree of the file that keeps every line, `overrides` lays environment and flags into it, `shape` is the
//! table of all keys and checks spelling, `validate` reads the tree into [`Config`] (`value`, `address`: the readers of
//! single values; `section`: where it reads from). `show` writes a [`Config`] back as YAML, `schema` describes every key
//! to editors. [`load`] is the whole way.
//! `diff` compares two of them: what a reload changes, and what waits for a restart.
//!
//! Relative paths (`data_dir`, `certs_dir`, TLS and CA files) are relative to the current directory, wherever the file
//! itself lies, so that the file and the flags mean the same by the same words.

mod address;
mod callers;
mod credential;
mod diff;
mod fault;
mod host_pattern;
mod load;
pub mod model;
mod overrides;
mod raw;
mod schema;
mod secret;
mod section;
mod shape;
mod show;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use callers::{
    CallersConfig, CertificateGrant, ClaimGrant, IssuerConfig, SanKind, SanName, SanPattern, is_trustworthy,
};
pub use credential::{
    ClientAuth, ClientCredentials, CredentialConfig, CredentialKind, DESCRIBED as CREDENTIAL_KEYS,
    KINDS as CREDENTIAL_KINDS, Plain, SecretRef, Wanted, credential_given, faults_of_company, is_this_machine,
    issuer_fault, token_url,
};
pub use diff::{Change, Difference, in_force, one_line};
pub use fault::{ConfigFault, ConfigFaults, Origin};
pub use host_pattern::HostPattern;
pub use load::{DEFAULT_FILE, FileSource, Flags, Loaded, Sources, environment, load, load_again, variable};
pub use model::{
    Bound, Config, EgressConfig, HostConfig, HostsConfig, LogFormat, LoggingConfig, MetricsConfig, QueueConfig,
    ServerConfig, StorageConfig, TlsConfig, TlsVersion, WorkersConfig,
};
pub use schema::schema;
pub use secret::Secret;
pub use show::show;
