//! What every handler holds, and the few closures through which the rest of the program is wired in.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{Chance, Clock};
use crate::config::{CredentialConfig, Secret};
use crate::logging::audit::Act;
use crate::queue::Queues;
use crate::queue::command::QueueView;
use crate::queue::store::{CommitError, Later};
use crate::security::api_key::KeyRecord;
use crate::security::credential::sealed::CannotSeal;
use crate::security::credential::{Credentials, Refused};
use crate::security::jwt::TokenFault;
use crate::security::key_ring::{AddError, KeyRing};
use crate::task::limits::{BODIES_IN_FLIGHT_BYTES_MAX, CREDENTIALS_MAX, WAITERS_MAX};
use crate::task::{CredentialName, Fault, LaneName, QueueName, Span, TaskType, WallMs};

use super::access::Caller;

/// Why a payload cannot be accepted for its task type.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadError {
    /// Its parts are wrong; pointers are relative to the payload.
    Faults(Vec<Fault>),
    /// Its target may not be called.
    EgressRefused {
        /// The address or name, the rule that refuses it, and the configuration line to change.
        detail: String,
    },
    /// Its credential may not go to its target.
    CredentialRefused(Refused),
    /// Nothing runs this type.
    UnknownType {
        /// The nearest type that exists.
        nearest: Option<String>,
    },
}

/// Checks a payload (JSON text) for its task type and its queue, and names the lane the task belongs to.
pub type CheckPayload = Arc<dyn Fn(&TaskType, &[u8], &QueueName) -> Result<LaneName, PayloadError> + Send + Sync>;

/// What came of a presented key, or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Somebody holds it.
    Granted(Caller),
    /// Nobody does: unknown, wrong, expired or revoked.
    Refused,
    /// It is a token, and not accepted.
    TokenRefused(TokenFault),
    /// Nobody does, and too many such came from this address.
    Limited,
    /// It is a token, and its issuer does not say whether it is good. It is asked again after this long.
    IssuerUnavailable(Span),
}

/// Tells who holds a key presented from an address. Compares in constant time.
pub type Authenticate = Arc<dyn Fn(&str, IpAddr) -> Authentication + Send + Sync>;

/// The same for what is no API key, and may be a bearer token of an issuer that has to be asked first.
pub type AuthenticateToken = Arc<dyn Fn(String, IpAddr) -> Later<'static, Authentication> + Send + Sync>;

/// Who shows these certificates (DER, its own first) on a connection that was set up with them; `None` where they are
/// not, or no longer, good.
pub type AuthenticateCertificate = Arc<dyn Fn(&[Vec<u8>]) -> Option<Caller> + Send + Sync>;

/// What is done to API keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// A new one.
    Create(KeyRecord),
    /// One is void from now on.
    Revoke(Arc<str>),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    /// It could not be added.
    #[error(transparent)]
    Add(#[from] AddError),
    /// There is no such key.
    #[error("there is no such API key")]
    NotFound,
    /// It could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes a change durable and puts it in force, whether or not the caller waits for it. The second argument names who
/// asks.
pub type ChangeKeys = Arc<dyn Fn(KeyChange, Arc<str>) -> Later<'static, Result<(), KeyChangeError>> + Send + Sync>;

/// What is done to the credentials that are kept in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialChange {
    /// One is given, in the place of another of its name.
    Put {
        /// Its name.
        name: CredentialName,
        /// What was given, as it is to be kept.
        given: Secret,
        /// The same, read.
        config: Box<CredentialConfig>,
    },
    /// One is removed.
    Remove(CredentialName),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CredentialChangeError {
    /// There is nothing to seal it with.
    #[error(
        "set credentials_key in the configuration and start anew, or name the credential in the configuration itself"
    )]
    NoKey,
    /// It is kept in the configuration, which is not changed by the API.
    #[error("this credential stands in the configuration: change it there and reload")]
    InConfiguration,
    /// There are as many as there may be.
    #[error("there are {CREDENTIALS_MAX} credentials already: remove those that nobody uses")]
    Full,
    /// There is no such credential.
    #[error("there is no such credential")]
    NotFound,
    /// Something is wrong with it.
    #[error("the credential is not valid")]
    Faults(Vec<Fault>),
    /// Too many are being changed.
    #[error("too many credentials are being changed")]
    Busy,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// It could not be sealed.
    #[error(transparent)]
    NotSealed(#[from] CannotSeal),
    /// It could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes a change durable and puts it in force, whether or not the caller waits for it; says whether there was one of
/// that name. The second argument names who asks.
pub type ChangeCredentials =
    Arc<dyn Fn(CredentialChange, Arc<str>) -> Later<'static, Result<bool, CredentialChangeError>> + Send + Sync>;

/// Why an administrative act may not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// As many are under way as may be.
    #[error("too many administrative acts are under way")]
    Busy,
    /// It could not be written down.
    #[error("{0}")]
    Unwritable(String),
}

/// Where administrative acts are written down.
pub trait AuditTrail: Send + Sync {
    /// Lets an act begin whose line could be written now. Held until the line is written.
    fn admit(&self) -> Later<'static, Result<OwnedSemaphorePermit, NotAdmitted>>;

    /// Writes a line; durable when this returns. That it could not be written is told by whoever implements this.
    fn record(&self, act: Act) -> Later<'static, ()>;

    /// Runs an act to its end, whether or not somebody waits for it.
    fn see_through(&self, work: Later<'static, ()>);
}

/// Renders all metrics as `OpenMetrics` text; takes over how the queues stand first.
pub type MetricsText = Arc<dyn Fn(&[QueueView], WallMs) -> String + Send + Sync>;

/// Whether the server takes new work (`/readyz`).
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// The largest payload of one task, in bytes: `limits.payload_bytes` as it is in force.
pub type PayloadBytesMax = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Told of every answer.
pub type OnAccess = Arc<dyn Fn(&Access) + Send + Sync>;

/// One answered request, for logs and metrics.
#[derive(Debug, Clone)]
pub struct Access {
    /// The id the caller gave, or ours.
    pub request_id: Arc<str>,
    /// The method.
    pub method: Method,
    /// The route (`/tasks/{id}`), not the path: bounded, and without ids. `None` when nothing matched.
    pub route: Option<String>,
    /// The answer's status.
    pub status: StatusCode,
    /// The stable code of a problem.
    pub code: Option<&'static str>,
    /// What lay behind a problem, for operators; never shown to the caller.
    pub cause: Option<String>,
    /// Who asked, once that was known.
    pub caller: Option<Caller>,
    /// From the request's headers to the answer's.
    pub took: Duration,
}

/// What the composition root hands to the API.
#[derive(Clone)]
pub struct Wiring {
    /// The engine and the store's read side.
    pub queues: Queues,
    /// Time.
    pub clock: Clock,
    /// Chance, for request ids.
    pub chance: Chance,
    /// Checks payloads.
    pub check_payload: CheckPayload,
    /// Checks keys.
    pub authenticate: Authenticate,
    /// Checks tokens.
    pub authenticate_token: AuthenticateToken,
    /// Checks certificates of clients.
    pub authenticate_certificate: AuthenticateCertificate,
    /// The keys in force.
    pub keys: Arc<KeyRing>,
    /// Changes them.
    pub change_keys: ChangeKeys,
    /// The credentials in force.
    pub credentials: Arc<Credentials>,
    /// Changes those in the store.
    pub change_credentials: ChangeCredentials,
    /// Writes down administrative acts.
    pub audit: Arc<dyn AuditTrail>,
    /// Renders `/metrics`.
    pub metrics: MetricsText,
    /// Answers `/readyz`.
    pub ready: Ready,
    /// Told of every answer.
    pub on_access: OnAccess,
    /// The largest payload.
    pub payload_bytes_max: PayloadBytesMax,
}

/// What every handler holds. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    wiring: Wiring,
    bodies: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    request_id_seed: u64,
    requests: AtomicU64,
}

impl Api {
    /// Puts the API together.
    pub fn new(mut wiring: Wiring) -> Self {
        let request_id_seed = wiring.chance.draw();
        Self(Arc::new(Shared {
            wiring,
            bodies: Arc::new(Semaphore::new(BODIES_IN_FLIGHT_BYTES_MAX)),
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            request_id_seed,
            requests: AtomicU64::new(0),
        }))
    }

    pub(super) fn wiring(&self) -> &Wiring {
        &self.0.wiring
    }

    pub(super) fn queues(&self) -> &Queues {
        &self.0.wiring.queues
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.wiring.clock
    }

    /// One permit a byte of request bodies in memory.
    pub(super) fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    /// One permit a long poll.
    pub(super) fn waiters(&self) -> &Arc<Semaphore> {
        &self.0.waiters
    }

    /// A new request id: a `UUIDv7` of the clock and of a counted stream of chance (no lock, no system call).
    pub(super) fn request_id(&self) -> Arc<str> {
        let count = self.0.requests.fetch_add(1, Ordering::Relaxed);
        let mut chance = Chance::from_seed(self.0.request_id_seed ^ count.rotate_left(32));
        let mut random = [0_u8; 10];
        let drawn = [chance.draw().to_be_bytes(), chance.draw().to_be_bytes()].concat();
        random.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        let ms = u64::try_from(self.clock().now().wall.get()).unwrap_or(0);
        Arc::from(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid().hyphenated().to_string())
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wiring")
    }
}
