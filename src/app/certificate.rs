//! The server's certificate while the server runs: renewed in time, and replaced when somebody replaces its files.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::chain;
use crate::clock::{Clock, Now};
use crate::logging::event::{CertificateReady, CertificateRefused, Event};
use crate::logging::{Fact, Telemetry};
use crate::security::server_tls::{Change, ServerTls, TlsFacts, TlsSetupError};
use crate::task::limits::CERTIFICATE_LOOK_INTERVAL;

/// How often the own CA is asked whether it is time for another certificate: that lives for months, a server may live for
/// years.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(86_400);

/// Serves what somebody puts in the place of the certificate, and has the own CA renew its leaf in time.
#[expect(clippy::disallowed_methods, reason = "part of the composition root; `stop` ends the loop")]
pub(super) fn keep(tls: Arc<ServerTls>, clock: Clock, telemetry: Telemetry) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut renewed = clock.now().mono;
        loop {
            clock.sleep(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
            let now = clock.now();
            let replaced = tls.look(now.wall).map(|looked| told(looked, Some("replaced")));
            let events = replaced.into_iter().chain(renewal(&tls, now, &mut renewed));
            events.for_each(|event| event.emit(&telemetry));
        }
    })
}

/// Once a day; `None` when nothing is new.
fn renewal(tls: &ServerTls, now: Now, renewed: &mut Duration) -> Option<Event> {
    if now.mono.saturating_sub(*renewed) < RENEWAL_INTERVAL {
        return None;
    }
    *renewed = now.mono;
    match tls.refresh(now.wall) {
        Ok(TlsFacts { change: Change::Kept | Change::KeptInDoubt, .. }) => None,
        other => Some(told(other, None)),
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
    let own = match facts.change {
        Change::Kept | Change::KeptInDoubt => "kept",
        Change::Created => "created",
        Change::Renewed => "renewed",
    };
    CertificateReady {
        change: change.unwrap_or(own),
        expires: facts.expires,
        ca_sha256: facts.ca.as_ref().map(|ca| ca.fingerprint_sha256.clone()),
    }
}
