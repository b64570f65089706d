//! The server's certificate while the server runs: renewed in time, and replaced when somebody replaces its files.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::audit::Audit;
use super::chain;
use crate::clock::{Clock, Now};
use crate::logging::audit::{Act, Outcome, Who};
use crate::logging::event::{CertificateReady, CertificateRefused, Event};
use crate::logging::{Fact, Telemetry};
use crate::security::server_tls::{Change, ServerTls, TlsFacts, TlsSetupError};
use crate::task::limits::CERTIFICATE_LOOK_INTERVAL;

/// How often the own CA is asked whether it is time for another certificate: that lives for months, a server may live for
/// years.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(86_400);

/// Serves what somebody puts in the place of the certificate, and has the own CA renew its leaf in time.
#[expect(clippy::disallowed_methods, reason = "part of the composition root; `stop` ends the loop")]
pub(super) fn keep(tls: Arc<ServerTls>, clock: Clock, (telemetry, audit): (Telemetry, Audit)) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut renewed = clock.now().mono;
        loop {
            clock.sleep(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
            let now = clock.now();
            let replaced = tls.look(now.wall).map(|looked| (looked, Some("replaced")));
            let renewed = renewal(&tls, now, &mut renewed).map(|renewed| (renewed, None));
            for (result, change) in replaced.into_iter().chain(renewed) {
                let act = act(&result, change);
                told(result, change).emit(&telemetry);
                audit.record(act).await;
            }
        }
    })
}

/// Once a day; `None` when nothing is new.
fn renewal(tls: &ServerTls, now: Now, renewed: &mut Duration) -> Option<Result<TlsFacts, TlsSetupError>> {
    if now.mono.saturating_sub(*renewed) < RENEWAL_INTERVAL {
        return None;
    }
    *renewed = now.mono;
    match tls.refresh(now.wall) {
        Ok(TlsFacts { change: Change::Kept | Change::KeptInDoubt, .. }) => None,
        other => Some(other),
    }
}

/// For the audit log: somebody put files there, or the server renewed its own.
fn act(result: &Result<TlsFacts, TlsSetupError>, change: Option<&'static str>) -> Act {
    let (who, operation) = match change {
        Some(_) => (Who::Local, "certificate_replaced"),
        None => (Who::Server, "certificate_renewed"),
    };
    let act = Act::here(who, operation);
    match result {
        Ok(facts) => Act { after: Some(json!({"expires": facts.expires.to_string()})), ..act },
        Err(_) => Act { outcome: Outcome::Refused("certificate_refused"), ..act },
    }
}

fn told(result: Result<TlsFacts, TlsSetupError>, change: Option<&'static str>) -> Event {
    match result {
        Ok(facts) => ready(&facts, change).into(),
        Err(error) => CertificateRefused { why: chain(&error) }.into(),
    }
}

/// There is a certificate to serve; `change` where somebody else made it.
pub(super) fn ready(facts: &TlsFacts, change: Option<&'static str>) -> CertificateReady {
    CertificateReady {
        change: change.unwrap_or(self::change(facts.change)),
        expires: facts.expires,
        ca_sha256: facts.ca.as_ref().map(|ca| ca.fingerprint_sha256.clone()),
    }
}

/// The word for what the server itself did to its certificate.
pub(super) fn change(change: Change) -> &'static str {
    match change {
        Change::Kept | Change::KeptInDoubt => "kept",
        Change::Created => "created",
        Change::Renewed => "renewed",
    }
}
