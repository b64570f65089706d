//! The server's certificate while the server runs: renewed in time, and replaced when somebody replaces its files.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::audit::Audit;
use crate::clock::{Clock, Now};
use crate::logging::audit::{Act, Outcome, Who};
use crate::logging::event::{CertificateReady, CertificateRefused, Event};
use crate::logging::{Fact, Telemetry, chain};
use crate::security::server_tls::{Change, ServerTls, TlsFacts, TlsSetupError};
use crate::task::limits::CERTIFICATE_LOOK_INTERVAL;

/// How often the own CA is asked whether it is time for another certificate: that lives for months, a server may live for
/// years.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(86_400);

/// Serves what somebody puts in the place of the certificate, and has the own CA renew its leaf in time.
#[expect(clippy::disallowed_methods, reason = "part of the composition root; `stop` ends the loop")]
pub(super) fn keep(tls: Arc<ServerTls>, clock: Clock, (telemetry, audit): (Telemetry, Audit)) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut state = State { renewed: clock.now().mono, refused: false };
        loop {
            clock.sleep(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
            let (tls, now) = (Arc::clone(&tls), clock.now());
            // Files are read: on a thread where that holds up nobody.
            let looked = tokio::task::spawn_blocking(move || state.look(&tls, now)).await;
            let Ok((next, told)) = looked else { continue };
            state = next;
            for (event, act) in told {
                event.emit(&telemetry);
                audit.record(act).await;
            }
        }
    })
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// When the CA was asked last.
    renewed: Duration,
    /// Whether the files were refused when they were read last.
    refused: bool,
}

impl State {
    fn look(mut self, tls: &ServerTls, now: Now) -> (Self, Vec<(Event, Act)>) {
        let mut told = Vec::new();
        let replaced = Act::here(Who::Local, "certificate_replaced");
        told.extend(tls.look(now.wall).and_then(|looked| self.told(looked, replaced)));
        if now.mono.saturating_sub(self.renewed) >= RENEWAL_INTERVAL {
            self.renewed = now.mono;
            told.extend(self.told(tls.refresh(now.wall), Act::here(Who::Server, "certificate_renewed")));
        }
        (self, told)
    }

    /// What there is to tell; nothing, where all is as it was. Files that are good again are told, though they are what is
    /// served all along.
    fn told(&mut self, result: Result<TlsFacts, TlsSetupError>, act: Act) -> Option<(Event, Act)> {
        let was_refused = std::mem::replace(&mut self.refused, result.is_err());
        match result {
            Ok(facts) => {
                let is_new = !matches!(facts.change, Change::Kept | Change::KeptInDoubt);
                let act = Act { after: Some(json!({"expires": facts.expires.to_string()})), ..act };
                (is_new || was_refused).then(|| (ready(&facts).into(), act))
            }
            Err(error) => {
                let refused = CertificateRefused { why: chain(&error) };
                Some((refused.into(), Act { outcome: Outcome::Refused("certificate_refused"), ..act }))
            }
        }
    }
}

/// There is a certificate to serve.
pub(super) fn ready(facts: &TlsFacts) -> CertificateReady {
    CertificateReady {
        change: change(facts.change),
        expires: facts.expires,
        ca_sha256: facts.ca.as_ref().map(|ca| ca.fingerprint_sha256.clone()),
    }
}

/// The word for what was done to the certificate.
pub(super) fn change(change: Change) -> &'static str {
    match change {
        Change::Kept | Change::KeptInDoubt => "kept",
        Change::Created => "created",
        Change::Renewed => "renewed",
        Change::Replaced => "replaced",
    }
}
