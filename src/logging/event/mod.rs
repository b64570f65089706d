//! One struct per operational fact. Its line carries a stable `event` field; its metrics are counted nowhere else.

mod audit;
mod config;
mod credential;
mod engine;
mod issuer;
mod key;
mod server;
mod task;

use super::metrics::{Metrics, Telemetry};

pub use audit::{ActAudited, AuditFailed, AuditFound};
pub use config::{ConfigRefused, ConfigReloaded};
pub use credential::{
    CredentialPut, CredentialRemoved, CredentialUnreadable, SigningKeyCreated, SigningKeyKept, SigningKeyRemoved,
    TokenFetched, TokenLent,
};
pub use engine::{
    ClockTrusted, CommitDone, CommitUnknown, Interrupted, PressureEased, QueueHeld, QueuePaused, QueueResumed,
    Recovered, StoreFull, StorePressure, WallJump,
};
pub use issuer::IssuerKeysFetched;
pub use key::{AuthenticationFailed, KeyCreated, KeyDamaged, KeyRevoked, KeyUsesLost};
pub use server::{
    CertificateReady, CertificateRefused, ConnectionFailed, Exposed, ForcedStop, IdentityChanged, Ready, RequestServed,
    ShutdownStep,
};
pub use task::{
    AttemptFinished, AttemptStarted, DeadLettered, IndexMismatch, PutAhead, Redriven, Released, Removal, Removed,
    RetryScheduled, StaleSettle, TaskAccepted, TaskEnded,
};

/// A fact: what its log line is, and what it counts.
pub trait Fact {
    /// Writes its log line, if it has one.
    fn log(&self);

    /// Changes its metrics, if it has any.
    fn count(&self, metrics: &Metrics);

    /// Both.
    fn emit(&self, telemetry: &Telemetry) {
        self.log();
        self.count(telemetry.metrics());
    }
}

macro_rules! events {
    ($($name:ident),+ $(,)?) => {
        /// Any fact that is not bound to a borrowed request: what pure code returns.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)+
        }

        $(impl From<$name> for Event {
            fn from(fact: $name) -> Self {
                Self::$name(fact)
            }
        })+

        impl Event {
            fn fact(&self) -> &dyn Fact {
                match self {
                    $(Self::$name(fact) => fact,)+
                }
            }
        }
    };
}

events!(
    TaskAccepted,
    AttemptStarted,
    AttemptFinished,
    RetryScheduled,
    DeadLettered,
    TaskEnded,
    Redriven,
    Removed,
    StaleSettle,
    PutAhead,
    Released,
    IndexMismatch,
    QueuePaused,
    QueueResumed,
    QueueHeld,
    WallJump,
    ClockTrusted,
    Interrupted,
    Recovered,
    StorePressure,
    PressureEased,
    StoreFull,
    CommitDone,
    CommitUnknown,
    CertificateReady,
    CertificateRefused,
    ConnectionFailed,
    Exposed,
    IdentityChanged,
    Ready,
    ShutdownStep,
    ForcedStop,
    ConfigReloaded,
    ConfigRefused,
    KeyCreated,
    KeyRevoked,
    KeyDamaged,
    KeyUsesLost,
    AuthenticationFailed,
    IssuerKeysFetched,
    TokenFetched,
    TokenLent,
    CredentialPut,
    CredentialRemoved,
    CredentialUnreadable,
    SigningKeyCreated,
    SigningKeyRemoved,
    SigningKeyKept,
    ActAudited,
    AuditFailed,
    AuditFound,
);

impl Fact for Event {
    fn log(&self) {
        self.fact().log();
    }

    fn count(&self, metrics: &Metrics) {
        self.fact().count(metrics);
    }
}

/// Milliseconds for log lines, with microseconds as the fraction.
fn ms(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests;
