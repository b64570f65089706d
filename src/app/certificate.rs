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
        let mut state = State { renewed: clock.now().mono, refused: false };
        loop {
            clock.sleep(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
            let (tls, now) = (Arc::clone(&tls), clock.now());
            // Files are read: on a thread where that holds up nobody.
            let looked = tokio::task::spawn_blocking(move || state.look(&tls, now)).await;
            let Ok((next, events)) = looked else { continue };
            state = next;
            for event in events {
                event.emit(&telemetry);
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
    fn look(mut self, tls: &ServerTls, now: Now) -> (Self, Vec<Event>) {
        let mut events = Vec::new();
        events.extend(tls.look(now.wall).and_then(|looked| self.told(looked)));
        if now.mono.saturating_sub(self.renewed) >= RENEWAL_INTERVAL {
            self.renewed = now.mono;
            events.extend(self.told(tls.refresh(now.wall)));
        }
        (self, events)
    }

    /// What there is to tell; nothing, where all is as it was. Files that are good again are told, though they are what is
    /// served all along.
    fn told(&mut self, result: Result<TlsFacts, TlsSetupError>) -> Option<Event> {
        let was_refused = std::mem::replace(&mut self.refused, result.is_err());
        match result {
            Ok(facts) => {
                let is_new = !matches!(facts.change, Change::Kept | Change::KeptInDoubt);
                (is_new || was_refused).then(|| ready(&facts).into())
            }
            Err(error) => Some(CertificateRefused { why: chain(&error) }.into()),
        }
    }
}

/// There is a certificate to serve.
pub(super) fn ready(facts: &TlsFacts) -> CertificateReady {
    let change = match facts.change {
        Change::Kept | Change::KeptInDoubt => "kept",
        Change::Created => "created",
        Change::Renewed => "renewed",
        Change::Replaced => "replaced",
    };
    CertificateReady {
        change,
        expires: facts.expires,
        ca_sha256: facts.ca.as_ref().map(|ca| ca.fingerprint_sha256.clone()),
    }
}
