//! The HTTP interface: JSON over HTTPS, problems as RFC 9457.
//!
//! ```text
//! request ─▶ layers (request id, key, audit, scope) ─▶ router ─▶ one handler a verb ─▶ Queues
//!                                                 │          │   ▲
//!                                              extract     wire  wire_view      JSON ↔ words
//! answer  ◀─ layers (renders problems) ◀──────────┴──── error (status codes)
//! ```
//!
//! A handler parses at the door (`wire`, `extract`), asks the [`Queues`](crate::queue::Queues) handle, and shows the
//! answer (`wire_view`). It knows nothing of engine, store, or targets: what a payload must look like, who holds a
//! key, and what the metrics say comes in through [`Wiring`].

mod access;
mod audit;
#[cfg(test)]
mod audit_tests;
mod batch;
mod connection;
mod credentials;
pub mod cursor;
mod dlq;
mod docs;
#[cfg(test)]
mod door_tests;
mod error;
mod extract;
mod keys;
mod layers;
mod lines;
mod openapi;
mod ops;
mod queues;
#[cfg(test)]
mod resource_tests;
#[cfg(test)]
mod rig_tests;
mod router;
pub mod server;
mod state;
mod tasks;
mod well_known;
mod wire;
mod wire_task;
mod wire_view;

pub use access::Caller;
pub use router::{metrics_only, router};
pub use state::{
    Access, Api, AuditTrail, Authenticate, AuthenticateCertificate, AuthenticateToken, Authentication,
    ChangeCredentials, ChangeKeys, CheckPayload, CredentialChange, CredentialChangeError, KeyChange, KeyChangeError,
    MetricsText, NotAdmitted, OnAccess, PayloadBytesMax, PayloadError, Ready, Wiring,
};
