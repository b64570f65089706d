//! The composition root: builds everything, and owns the order in which it starts, stops and is reconfigured.
//!
//! `start`: listener bound → store opened (lock, recovery) → key and certificate → engine → pool → API → ready.
//! `stop`: not ready → no new attempts → (in-flight work ends, or `shutdown_grace` passes and it is cut) → long polls
//! answered → API closed → engine's last commit → pool → store closed. Until the API is closed, it goes on accepting.
//! `reload`: everything that may fail is prepared → the engine commits → the rest is put in force.

mod audit;
mod callers;
mod certificate;
mod credentials;
mod keys;
mod reload;
mod signing_keys;
mod start;
mod stop;
mod wiring;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::api::server::ServerHandle;
use crate::clock::Clock;
use crate::config::Config;
use crate::logging::event::CommitUnknown;
use crate::logging::{Fact, Telemetry, chain};
use crate::queue::Queues;
use crate::queue::engine::Fatal;
use crate::queue::engine::shell::{Phase, Progress};
use crate::queue::store::Store;
use crate::security::credential::Credentials;
use crate::security::http_client::OutgoingClients;
use crate::security::server_tls::{ServerTls, TlsFacts};
use crate::worker::pool::Pool;

use audit::Audit;
use callers::Callers;
use keys::Keys;

pub use reload::{OnRefused, ReadConfig, ReloadError, Reloads};
pub use start::StartError;

/// A server that runs.
pub struct App {
    /// What a person needs to know to use it.
    pub facts: Facts,
    /// The handle on its queues.
    pub queues: Queues,
    clock: Clock,
    telemetry: Telemetry,
    config: Arc<Config>,
    store: Arc<dyn Store>,
    ready: Arc<AtomicBool>,
    server: ServerHandle,
    metrics_server: Option<ServerHandle>,
    tls: Option<Arc<ServerTls>>,
    callers: Callers,
    keys: Keys,
    loops: Loops,
    audit: Audit,
    clients: Arc<OutgoingClients>,
    credentials: Arc<Credentials>,
    payload_bytes_max: Arc<AtomicU64>,
    engine: JoinHandle<Result<(), Fatal>>,
    pool: Pool,
    phase: watch::Sender<Phase>,
    progress: watch::Receiver<Progress>,
}

/// What goes on beside the engine as long as the server runs.
struct Loops {
    certificate: Option<JoinHandle<()>>,
    key_uses: JoinHandle<()>,
    credential_changes: JoinHandle<()>,
    signing_keys: JoinHandle<()>,
}

impl Loops {
    fn end(self) {
        let Self { certificate, key_uses, credential_changes, signing_keys } = self;
        let all = [key_uses, credential_changes, signing_keys].into_iter().chain(certificate);
        all.for_each(|running| running.abort());
    }
}

/// What a person needs to know to use a server.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where metrics listen, if apart.
    pub metrics_address: Option<SocketAddr>,
    /// The certificate in use; `None` over plain HTTP.
    pub tls: Option<TlsFacts>,
    /// The file that holds the admin key.
    pub key_file: PathBuf,
    /// The admin key, if it was made just now.
    pub new_key: Option<String>,
    /// From the start to ready.
    pub took: Duration,
}

impl App {
    /// Waits until `stop_asked` ends, then stops in order; or until the engine stops by itself, which is an error.
    /// What `stop_asked` gives is the signal that asked.
    pub async fn run_until(self, stop_asked: impl Future<Output = &'static str>) -> Result<(), Fatal> {
        self.run(stop_asked, Reloads::never()).await
    }

    /// The same, and reads the configuration again whenever `reloads` asks for it; never while it stops.
    pub async fn run(
        mut self,
        stop_asked: impl Future<Output = &'static str>,
        mut reloads: Reloads,
    ) -> Result<(), Fatal> {
        tokio::pin!(stop_asked);
        loop {
            tokio::select! {
                biased;
                ended = &mut self.engine => {
                    self.ready.store(false, Ordering::Release);
                    let ended = engine_ended(ended, &self.telemetry);
                    self.audit.close(stop::told("the engine", &ended)).await;
                    return ended;
                }
                signal = &mut stop_asked => return self.stop(signal).await,
                () = reloads.asked() => {}
            }
            // Whoever wants to stop does not wait for a file on a network that is gone.
            tokio::select! {
                biased;
                signal = &mut stop_asked => return self.stop(signal).await,
                () = self.read_again(&reloads) => {}
            }
        }
    }
}

/// What the end of the engine means. An error is told, whether it comes out of the blue or with the last commit of a stop.
fn engine_ended(ended: Result<Result<(), Fatal>, JoinError>, telemetry: &Telemetry) -> Result<(), Fatal> {
    let result = ended.unwrap_or_else(|panic| Err(Fatal::Panicked(panic.to_string())));
    if let Err(fatal) = &result {
        CommitUnknown { error: chain(fatal) }.emit(telemetry);
    }
    result
}
