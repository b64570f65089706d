//! Facts of the process: start, requests, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::{Fact, ms};
use crate::logging::metrics::{Metrics, RequestLabels};
use crate::task::{Span, WallMs};

/// A request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestServed<'a> {
    /// Its method, as it came.
    pub method: &'a str,
    /// The route that matched (`/tasks/{id}`), never the path; `unmatched` when none did.
    pub route: &'a str,
    /// The answer's status.
    pub status: u16,
    /// From its head to the answer's.
    pub took: Duration,
    /// The id that the answer carries.
    pub request_id: &'a str,
    /// Who asked, once that was known: the public part of a key, issuer and subject of a token, a name in a certificate.
    pub caller: Option<&'a str>,
    /// What lay behind a failure of ours: the answer says no more than that the log tells it.
    pub cause: Option<&'a str>,
}

impl Fact for RequestServed<'_> {
    fn log(&self) {
        if let Some(cause) = self.cause {
            error!(
                event = "request_failed",
                method = self.method,
                route = self.route,
                status = self.status,
                took_ms = ms(self.took),
                request_id = self.request_id,
                caller = self.caller,
                cause,
                "request failed"
            );
            return;
        }
        debug!(
            event = "request_served",
            method = self.method,
            route = self.route,
            status = self.status,
            took_ms = ms(self.took),
            request_id = self.request_id,
            caller = self.caller,
            "request served"
        );
    }

    fn count(&self, metrics: &Metrics) {
        let (method, route) = (known_method(self.method), self.route.to_owned());
        metrics.http_requests.get_or_create(&RequestLabels { method, route, status: self.status }).inc();
        metrics.http_duration.observe(self.took.as_secs_f64());
    }
}

/// Methods are the client's to invent; labels are not.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// A connection ended before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFailed {
    /// From where, if it came that far.
    pub peer: Option<SocketAddr>,
    /// What went wrong.
    pub error: String,
}

impl Fact for ConnectionFailed {
    fn log(&self) {
        // Without a peer it is our own listener that fails: no descriptors left, say.
        if let Some(peer) = self.peer {
            debug!(event = "connection_failed", peer = %peer, error = self.error.as_str(), "connection failed");
        } else {
            warn!(event = "connection_failed", error = self.error.as_str(), "no connection could be accepted");
        }
    }

    fn count(&self, metrics: &Metrics) {
        metrics.connections_failed.inc();
    }
}

/// There is a certificate to serve with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateReady {
    /// `created`, `renewed`, `kept`, or `replaced` by somebody while the server ran.
    pub change: &'static str,
    /// When it ends.
    pub expires: WallMs,
    /// Fingerprint of the local CA, if it is from there.
    pub ca_sha256: Option<String>,
}

impl Fact for CertificateReady {
    fn log(&self) {
        info!(
            event = "certificate_ready",
            change = self.change, expires = %self.expires, ca_sha256 = self.ca_sha256.as_deref(),
            "certificate ready"
        );
    }

    fn count(&self, metrics: &Metrics) {
        let source = if self.ca_sha256.is_some() { "local_ca" } else { "files" };
        metrics.set_certificate_expiry(source, self.expires);
        metrics.certificate_load_ok.set(1);
    }
}

/// A certificate was to be served that cannot be: the old one stays in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRefused {
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl Fact for CertificateRefused {
    fn log(&self) {
        error!(
            event = "certificate_refused",
            why = self.why.as_str(),
            "the certificate was not renewed or replaced: the old one stays in use"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.certificates_refused.inc();
        metrics.certificate_load_ok.set(0);
    }
}

/// The API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether over TLS.
    pub tls: bool,
    /// Since the process started.
    pub took: Duration,
    /// When: the configuration in force is as old.
    pub at: WallMs,
}

impl Fact for Ready {
    fn log(&self) {
        info!(
            event = "ready",
            address = %self.address, tls = self.tls, took_ms = ms(self.took), version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.set_config_read(self.at);
    }
}

/// The API is reachable from other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// Where it listens.
    pub address: SocketAddr,
    /// The names that its certificate has; empty over plain HTTP.
    pub names: String,
    /// Whether tasks may therefore not call loopback.
    pub loopback_refused: bool,
}

impl Fact for Exposed {
    fn log(&self) {
        warn!(
            event = "exposed",
            address = %self.address, names = self.names.as_str(), loopback_refused = self.loopback_refused,
            "other machines can reach this server, and the admin key may do everything"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// Half of what a first start makes was missing, and was made anew: clients may have to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityChanged {
    /// The CA, although there was an admin key.
    Ca {
        /// Its certificate.
        path: PathBuf,
    },
    /// The admin key, although there was a CA.
    AdminKey {
        /// Its file.
        path: PathBuf,
    },
}

impl Fact for IdentityChanged {
    fn log(&self) {
        let (what, path, message) = match self {
            Self::Ca { path } => ("ca", path, "a new CA was made beside old data: clients need the new ca.pem"),
            Self::AdminKey { path } => {
                ("admin_key", path, "a new admin key was made beside old certificates: the old key is void")
            }
        };
        warn!(event = "identity_changed", what, path = %path.display(), "{message}");
    }

    fn count(&self, _: &Metrics) {}
}

/// A step of the orderly stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownStep {
    /// Asked to stop: not ready any more, nothing new starts.
    Begun {
        /// By what: `SIGTERM`, `SIGINT`.
        signal: &'static str,
        /// Attempts that are running.
        running: u64,
        /// How long they have.
        grace: Span,
    },
    /// Attempts have ended, or were cut off.
    Drained {
        /// Still running when the grace had passed, and aborted.
        aborted: u64,
    },
    /// The listener is closed, requests and long polls have ended.
    ApiClosed,
    /// The last commit is made, the store closed.
    StoreClosed {
        /// Since the stop begun.
        took: Duration,
    },
}

impl Fact for ShutdownStep {
    fn log(&self) {
        match *self {
            Self::Begun { signal, running, grace } => {
                info!(event = "shutdown", step = "begun", signal, running, grace = %grace, "stopping");
            }
            Self::Drained { aborted } => {
                info!(event = "shutdown", step = "drained", aborted, "no attempt is running");
            }
            Self::ApiClosed => info!(event = "shutdown", step = "api_closed", "listener closed"),
            Self::StoreClosed { took } => {
                info!(event = "shutdown", step = "store_closed", took_ms = ms(took), "stopped");
            }
        }
    }

    fn count(&self, _: &Metrics) {}
}

/// Asked a second time to stop: everything is dropped where it stands; the next start recovers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForcedStop {
    /// By what.
    pub signal: &'static str,
}

impl Fact for ForcedStop {
    fn log(&self) {
        warn!(
            event = "forced_stop",
            signal = self.signal,
            "stopping at once: the next start recovers what was running"
        );
    }

    fn count(&self, _: &Metrics) {}
}
