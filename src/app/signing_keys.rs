//! The keys that sign our ID tokens, rotated while the server runs.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::security::credential::Credentials;
use crate::task::limits::SIGNING_KEYS_LOOK_INTERVAL;

/// Looks regularly whether it is time for another key. That writes a small file a few times in a month.
#[expect(clippy::disallowed_methods, reason = "part of the composition root; `stop` ends the loop")]
pub(super) fn keep(credentials: &Arc<Credentials>, clock: &Clock) -> JoinHandle<()> {
    let (credentials, clock) = (Arc::clone(credentials), clock.clone());
    tokio::spawn(async move {
        loop {
            clock.sleep(SIGNING_KEYS_LOOK_INTERVAL.to_duration()).await;
            credentials.turn_signing_keys();
        }
    })
}
