//! The composition root: builds everything, and owns the order in which it starts and stops.
//!
//! Start: listener bound → store opened (lock, recovery) → key and certificate → engine → pool → API → ready.
//! Stop: not ready → no new attempts → (in-flight work ends, or `shutdown_grace` passes and it is cut) → long polls
//! answered → API closed → engine's last commit → pool → store closed. Until the API is closed, it goes on accepting.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::server::{Limits, Server, ServerHandle, Surroundings};
use crate::api::{Access, Api, Caller, PayloadError, Wiring};
use crate::clock::{Chance, Clock};
use crate::config::Config;
use crate::logging::event::{CommitUnknown, Ready, RequestServed, ShutdownStep};
use crate::logging::{Fact, QueueFigures, Telemetry};
use crate::queue::Queues;
use crate::queue::command::QueueView;
use crate::queue::engine::shell::{Engine, Phase, Progress};
use crate::queue::engine::{Fatal, Machine};
use crate::queue::store::sqlite::{SqliteOptions, SqliteStore};
use crate::queue::store::{Store, StoreError};
use crate::security::api_key::{AdminKey, AdminKeyError};
use crate::security::http_client::{ClientsError, OutgoingClients};
use crate::security::server_tls::{ServerTls, TlsFacts, TlsSetupError};
use crate::task::TaskType;
use crate::worker::handler::http::HttpHandler;
use crate::worker::handler::{CheckError, Handlers};
use crate::worker::pool::Pool;

/// How long aborted attempts and open requests have to end before they are left behind.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(
        "failed to listen on {address}: {source}; is another server running there? `--listen` takes another address"
    )]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store did not open.
    #[error("failed to open the store in {dir}: {why}", dir = dir.display(), why = chain(source))]
    Store {
        /// Where it is.
        dir: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// What the dead process left open could not be closed.
    #[error("failed to recover: {why}", why = chain(.0))]
    Recover(#[source] Fatal),
    /// No admin key.
    #[error("failed to set up the admin key: {0}")]
    Key(#[from] AdminKeyError),
    /// No certificate.
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] TlsSetupError),
    /// No client for outgoing calls.
    #[error("failed to set up outgoing calls: {0}")]
    Clients(#[from] ClientsError),
    /// The listener did not start.
    #[error("failed to serve: {0}")]
    Serve(#[source] io::Error),
}

impl StartError {
    /// The exit code of `sysexits.h` that says what kind of help is needed: 74 for the disk, 78 for settings.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { .. } | Self::Recover(_) => 74,
            Self::Key(_) | Self::Tls(_) | Self::Clients(_) => 78,
            Self::Listen { .. } | Self::Serve(_) => 1,
        }
    }
}

/// A server that runs.
pub struct App {
    /// What a person needs to know to use it.
    pub facts: Facts,
    /// The handle on its queues.
    pub queues: Queues,
    clock: Clock,
    telemetry: Telemetry,
    config: Config,
    store: Arc<dyn Store>,
    ready: Arc<AtomicBool>,
    server: ServerHandle,
    metrics_server: Option<ServerHandle>,
    renewal: Option<JoinHandle<()>>,
    engine: JoinHandle<Result<(), Fatal>>,
    pool: Pool,
    phase: watch::Sender<Phase>,
    progress: watch::Receiver<Progress>,
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
    /// Starts a server over the SQLite store in `config.data_dir`.
    pub async fn start(config: Config, clock: Clock, chance: Chance) -> Result<Self, StartError> {
        let began = clock.now().mono;
        let listener = bind(config.server.listen)?;
        let options = SqliteOptions { reserve: config.storage.reserve, clock: clock.clone(), file_bytes_max: None };
        let store = SqliteStore::open(&config.data_dir, options)
            .map_err(|source| StartError::Store { dir: config.data_dir.clone(), source })?;
        Self::start_over(config, (clock, began), chance, (listener, Arc::new(store))).await
    }

    async fn start_over(
        config: Config,
        (clock, began): (Clock, Duration),
        mut chance: Chance,
        (listener, store): (TcpListener, Arc<dyn Store>),
    ) -> Result<Self, StartError> {
        let telemetry = Telemetry::new();
        let address = listener.local_addr().map_err(StartError::Serve)?;
        let metrics_listener = config.metrics.listen.map(bind).transpose()?;
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (key, created) = AdminKey::load_or_create(&config.data_dir)?;
        let new_key = created.then(|| key.reveal().to_owned());
        let tls = (!config.server.plain_http)
            .then(|| ServerTls::load_or_create(&config.server, &config.certs_dir, clock.now().wall))
            .transpose()?;
        let own = std::iter::once(address).chain(metrics_address).collect();
        let handlers = Arc::new(handlers(OutgoingClients::new(&config.egress, own)?));

        let engine_chance = Chance::from_seed(chance.draw());
        let (machine, events) =
            Machine::open(Arc::clone(&store), &config, &clock, engine_chance).await.map_err(StartError::Recover)?;
        for event in events {
            event.emit(&telemetry);
        }
        let (engine, ports) = Engine::new(machine, Arc::clone(&store), clock.clone(), telemetry.clone());
        let pool = Pool::start(Arc::clone(&handlers), clock.clone(), ports.leases, ports.settles);
        #[expect(clippy::disallowed_methods, reason = "this is the composition root; `stop` awaits the engine's end")]
        let engine = tokio::spawn(engine.run());

        let ready = Arc::new(AtomicBool::new(false));
        let api = Api::new(Wiring {
            queues: ports.queues.clone(),
            clock: clock.clone(),
            chance,
            check_payload: Arc::new(move |task_type, payload| check(&handlers, task_type, payload)),
            authenticate: Arc::new(move |presented| key.verify(presented).then(|| Caller { id: Arc::from(key.id()) })),
            metrics: metrics_text(&telemetry),
            ready: is_set(&ready),
            on_access: on_access(&telemetry),
            payload_bytes_max: config.payload_bytes_max,
        });
        let around = Surroundings { limits: Limits::default(), clock: clock.clone(), telemetry: telemetry.clone() };
        let metrics_server = metrics_listener
            .map(|listener| Server::start(listener, None, crate::api::metrics_only(api.clone()), around.clone()))
            .transpose()
            .map_err(StartError::Serve)?;
        let rustls = tls.as_ref().map(|tls| Arc::clone(&tls.rustls));
        let server = Server::start(listener, rustls, crate::api::router(api), around).map_err(StartError::Serve)?;
        ready.store(true, Ordering::Release);
        let took = clock.now().mono.saturating_sub(began);
        Ready { address, tls: tls.is_some(), took }.emit(&telemetry);
        let key_file = config.data_dir.join("admin.key");
        let tls_facts = tls.as_ref().map(|tls| tls.facts.clone());
        let facts = Facts { address, metrics_address, tls: tls_facts, key_file, new_key, took };
        let renewal = tls.map(|tls| renew_daily(tls, clock.clone()));
        Ok(Self {
            facts,
            queues: ports.queues,
            clock,
            telemetry,
            config,
            store,
            ready,
            server,
            metrics_server,
            renewal,
            engine,
            pool,
            phase: ports.phase,
            progress: ports.progress,
        })
    }

    /// Waits until `stop_asked` ends, then stops in order; or until the engine stops by itself, which is an error.
    /// What `stop_asked` gives is the signal that asked.
    pub async fn run_until(mut self, stop_asked: impl Future<Output = &'static str>) -> Result<(), Fatal> {
        tokio::select! {
            ended = &mut self.engine => {
                self.ready.store(false, Ordering::Release);
                let result = ended.unwrap_or_else(|panic| Err(Fatal::Panicked(panic.to_string())));
                if let Err(fatal) = &result {
                    CommitUnknown { error: chain(fatal) }.emit(&self.telemetry);
                }
                result
            }
            signal = stop_asked => self.stop(signal).await,
        }
    }

    /// Stops in order; see the module.
    pub async fn stop(self, signal: &'static str) -> Result<(), Fatal> {
        let Self { clock, telemetry, store, server, mut progress, phase, .. } = self;
        let began = clock.now().mono;
        let grace = self.config.server.shutdown_grace;
        self.ready.store(false, Ordering::Release);
        ShutdownStep::Begun { signal, running: progress.borrow().in_flight as u64, grace }.emit(&telemetry);
        phase.send_replace(Phase::Drain);
        let drained = idle_within(&mut progress, Phase::Drain, &clock, grace.to_duration()).await;
        phase.send_replace(Phase::Cut);
        let aborted = if drained { 0 } else { progress.borrow().in_flight as u64 };
        if !idle_within(&mut progress, Phase::Cut, &clock, CUT_GRACE).await {
            tracing::warn!("attempts did not end when they were aborted; the next start closes them as interrupted");
        }
        ShutdownStep::Drained { aborted }.emit(&telemetry);
        phase.send_replace(Phase::Hush);
        if let Err(error) = server.stop(CUT_GRACE).await {
            tracing::warn!(%error, "the listener had failed before it was closed");
        }
        if let Some(metrics) = self.metrics_server
            && let Err(error) = metrics.stop(Duration::ZERO).await
        {
            tracing::warn!(%error, "the metrics listener had failed before it was closed");
        }
        if let Some(renewal) = self.renewal {
            renewal.abort();
        }
        ShutdownStep::ApiClosed.emit(&telemetry);
        phase.send_replace(Phase::Stop);
        self.engine.await.unwrap_or_else(|panic| Err(Fatal::Panicked(panic.to_string())))?;
        self.pool.ended().await;
        store.close().await.map_err(Fatal::Read)?;
        ShutdownStep::StoreClosed { took: clock.now().mono.saturating_sub(began) }.emit(&telemetry);
        Ok(())
    }
}

/// Looks at the certificate once a day: the own CA's leaf lives for months, a server may live for years.
#[expect(clippy::disallowed_methods, reason = "this is the composition root; `stop` ends the loop")]
fn renew_daily(tls: ServerTls, clock: Clock) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            clock.sleep(Duration::from_secs(86_400)).await;
            if let Err(error) = tls.refresh(clock.now().wall) {
                tracing::error!(%error, "failed to renew the certificate; the old one stays in use");
            }
        }
    })
}

fn is_set(flag: &Arc<AtomicBool>) -> crate::api::Ready {
    let flag = Arc::clone(flag);
    Arc::new(move || flag.load(Ordering::Acquire))
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}

/// Waits until the engine has obeyed `phase` and nothing is in flight, at most for `within`; tells whether it came to
/// that.
async fn idle_within(progress: &mut watch::Receiver<Progress>, phase: Phase, clock: &Clock, within: Duration) -> bool {
    tokio::select! {
        idle = progress.wait_for(|told| told.phase >= phase && told.in_flight == 0) => idle.is_ok(),
        () = clock.sleep(within) => false,
    }
}

fn handlers(clients: OutgoingClients) -> Handlers {
    let handlers = Handlers::default();
    match TaskType::parse("http_request") {
        Ok(http_request) => handlers.with(http_request, Arc::new(HttpHandler::new(Arc::new(clients)))),
        Err(_never) => handlers,
    }
}

fn check(handlers: &Handlers, task_type: &TaskType, payload: &[u8]) -> Result<crate::task::LaneName, PayloadError> {
    handlers.check(task_type, payload).map_err(|error| match error {
        CheckError::Faults(faults) => PayloadError::Faults(faults),
        CheckError::Egress(refusal) => PayloadError::EgressRefused { detail: refusal.to_string() },
        CheckError::UnknownType { nearest, .. } => {
            PayloadError::UnknownType { nearest: nearest.map(|nearest| nearest.to_string()) }
        }
    })
}

fn metrics_text(telemetry: &Telemetry) -> crate::api::MetricsText {
    let telemetry = telemetry.clone();
    Arc::new(move |views: &[QueueView], now| {
        for view in views {
            telemetry.set_queue(&QueueFigures {
                queue: &view.name,
                tasks: view.tasks,
                oldest_ready: view.oldest_ready.map(|since| now.since(since)),
            });
        }
        telemetry.encode()
    })
}

fn on_access(telemetry: &Telemetry) -> crate::api::OnAccess {
    let telemetry = telemetry.clone();
    Arc::new(move |access: &Access| {
        RequestServed {
            method: access.method.as_str(),
            route: access.route.as_deref().unwrap_or("none"),
            status: access.status.as_u16(),
            took: access.took,
            request_id: &access.request_id,
        }
        .emit(&telemetry);
    })
}

/// An error and what lies behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
