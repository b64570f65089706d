//! Starting: in which order what is built, and what can go wrong on the way.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::audit::Audit;
use super::callers::Callers;
use super::credentials::Keeper;
use super::keys::Keys;
use super::{App, Facts, Loops, certificate, signing_keys, wiring};
use crate::api::server::{Limits, Server, ServerHandle, Surroundings};
use crate::api::{Api, Wiring};
use crate::clock::{Chance, Clock};
use crate::config::Config;
use crate::logging::audit::{Act, Who};
use crate::logging::event::Ready;
use crate::logging::{Fact, Telemetry, chain};
use crate::queue::engine::shell::Engine;
use crate::queue::engine::{Fatal, Machine};
use crate::queue::store::sqlite::{SqliteOptions, SqliteStore};
use crate::queue::store::{Store, StoreError};
use crate::security::api_key::{AdminKey, AdminKeyError};
use crate::security::credential::sealed::{SealingKey, SealingKeyError};
use crate::security::credential::{Credentials, CredentialsError, Outside};
use crate::security::http_client::{ClientsError, OutgoingClients};
use crate::security::server_tls::{Change, ServerTls, TlsSetupError};
use crate::worker::handler::Handlers;
use crate::worker::pool::Pool;

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
    /// The API keys could not be read.
    #[error("failed to read the API keys: {why}", why = chain(.0))]
    Keys(#[source] StoreError),
    /// No admin key.
    #[error("failed to set up the admin key: {0}")]
    Key(#[from] AdminKeyError),
    /// No certificate.
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] TlsSetupError),
    /// No client for outgoing calls.
    #[error("failed to set up outgoing calls: {0}")]
    Clients(#[from] ClientsError),
    /// A credential of the configuration cannot be used, or we cannot issue ID tokens.
    #[error("failed to set up credentials: {why}", why = chain(.0))]
    Credentials(#[from] CredentialsError),
    /// The key of `credentials_key` cannot be used.
    #[error("failed to read the key that credentials_key names: {0}")]
    SealingKey(#[from] SealingKeyError),
    /// The listener did not start.
    #[error("failed to serve: {0}")]
    Serve(#[source] io::Error),
}

impl StartError {
    /// The exit code of `sysexits.h` that says what kind of help is needed: 74 for the store, 78 for settings.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { .. } | Self::Recover(_) | Self::Keys(_) => 74,
            Self::Key(_) | Self::Tls(_) | Self::Clients(_) | Self::Credentials(_) | Self::SealingKey(_) => 78,
            Self::Listen { .. } | Self::Serve(_) => 1,
        }
    }
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
        let ground = Ground::lay(&config, &clock, listener, &mut chance)?;
        let Ground { listeners, addresses, key, key_created, tls, around, audit, outgoing } = ground;
        let telemetry = around.telemetry.clone();
        let machine = machine(&store, &config, &around, Chance::from_seed(chance.draw())).await?;
        let keys = Keys::load(&key, &store, &clock, &telemetry).await.map_err(StartError::Keys)?;
        let callers = Callers::new(keys.ring(), &config.callers, &outgoing.clients, &around);
        let keeper = Keeper::load(&outgoing.credentials, outgoing.sealing_key, &store, (&clock, &telemetry));
        let (change_credentials, credential_changes) = keeper.await.map_err(StartError::Keys)?.start();
        let (engine, ports) = Engine::new(machine, Arc::clone(&store), clock.clone(), telemetry.clone());
        let pool = Pool::start(Arc::clone(&outgoing.handlers), clock.clone(), ports.leases, ports.settles);
        #[expect(clippy::disallowed_methods, reason = "this is the composition root; `stop` awaits the engine's end")]
        let engine = tokio::spawn(engine.run());

        let (ready, payload_bytes_max) = (Arc::default(), Arc::new(AtomicU64::new(config.payload_bytes_max)));
        let api = Api::new(Wiring {
            queues: ports.queues.clone(),
            clock: clock.clone(),
            chance,
            check_payload: wiring::check_payload(outgoing.handlers),
            authenticate: callers.authenticate(),
            authenticate_token: callers.authenticate_token(),
            authenticate_certificate: callers.authenticate_certificate(tls.as_ref()),
            keys: keys.ring(),
            change_keys: keys.change(),
            credentials: Arc::clone(&outgoing.credentials),
            change_credentials,
            audit: Arc::new(audit.clone()),
            metrics: wiring::metrics_text(&telemetry),
            ready: wiring::is_set(&ready),
            on_access: wiring::on_access(&telemetry),
            payload_bytes_max: wiring::number(&payload_bytes_max),
        });
        audit.record(told(addresses.0, key_created, tls.as_deref())).await;
        let (server, metrics_server) = serve(&api, listeners, tls.as_ref(), &around)?;
        ready.store(true, Ordering::Release);
        let took = clock.now().mono.saturating_sub(began);
        Ready { address: addresses.0, tls: tls.is_some(), took, at: clock.now().wall }.emit(&telemetry);
        let new_key = key_created.then(|| key.reveal().to_owned());
        let facts = facts(&config, addresses, tls.as_deref(), new_key, took);
        let told = || (telemetry.clone(), audit.clone());
        let loops = Loops {
            certificate: tls.as_ref().map(|tls| certificate::keep(Arc::clone(tls), clock.clone(), told())),
            key_uses: keys.keep_uses_regularly(),
            credential_changes,
            signing_keys: signing_keys::keep(&outgoing.credentials, &clock),
        };
        Ok(Self {
            facts,
            queues: ports.queues,
            clock,
            telemetry,
            config: Arc::new(config),
            store,
            ready,
            server,
            metrics_server,
            tls,
            loops,
            callers,
            keys,
            audit,
            clients: outgoing.clients,
            credentials: outgoing.credentials,
            payload_bytes_max,
            engine,
            pool,
            phase: ports.phase,
            progress: ports.progress,
        })
    }
}

fn facts(
    config: &Config,
    (address, metrics_address): (SocketAddr, Option<SocketAddr>),
    tls: Option<&ServerTls>,
    new_key: Option<String>,
    took: Duration,
) -> Facts {
    let tls = tls.map(|tls| tls.facts.clone());
    Facts { address, metrics_address, tls, key_file: config.data_dir.join("admin.key"), new_key, took }
}

/// What a server stands on before its queues are read.
struct Ground {
    listeners: (TcpListener, Option<TcpListener>),
    addresses: (SocketAddr, Option<SocketAddr>),
    key: AdminKey,
    key_created: bool,
    tls: Option<Arc<ServerTls>>,
    around: Surroundings,
    audit: Audit,
    outgoing: Outgoing,
}

impl Ground {
    fn lay(config: &Config, clock: &Clock, listener: TcpListener, chance: &mut Chance) -> Result<Self, StartError> {
        let telemetry = Telemetry::new();
        let address = listener.local_addr().map_err(StartError::Serve)?;
        let metrics_listener = config.metrics.listen.map(bind).transpose()?;
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let addresses = (address, metrics_address);
        let (key, key_created) = AdminKey::load_or_create(&config.data_dir)?;
        let tls = tls(config, clock, &telemetry)?;
        let audit = Audit::new(&config.data_dir, clock, &telemetry);
        let around = Surroundings { limits: Limits::default(), clock: clock.clone(), telemetry };
        let outgoing = Outgoing::new(config, addresses, &around, chance)?;
        let listeners = (listener, metrics_listener);
        Ok(Self { listeners, addresses, key, key_created, tls, around, audit, outgoing })
    }
}

/// All that calls out.
struct Outgoing {
    clients: Arc<OutgoingClients>,
    credentials: Arc<Credentials>,
    handlers: Arc<Handlers>,
    sealing_key: Option<SealingKey>,
}

impl Outgoing {
    /// For a server that listens on `address`, and for metrics perhaps on another.
    fn new(
        config: &Config,
        (address, metrics_address): (SocketAddr, Option<SocketAddr>),
        around: &Surroundings,
        chance: &mut Chance,
    ) -> Result<Self, StartError> {
        let own = std::iter::once(address).chain(metrics_address).collect();
        let clients = Arc::new(OutgoingClients::new(&config.egress, own)?);
        let outside = Outside {
            clients: Arc::clone(&clients),
            clock: around.clock.clone(),
            chance: Arc::new(Mutex::new(Chance::from_seed(chance.draw()))),
            telemetry: around.telemetry.clone(),
        };
        let credentials = Arc::new(Credentials::new(config, outside)?);
        let handlers = Arc::new(wiring::handlers(Arc::clone(&clients), Arc::clone(&credentials)));
        let sealing_key = config.credentials_key.as_ref().map(SealingKey::read).transpose()?;
        Ok(Self { clients, credentials, handlers, sealing_key })
    }
}

/// The engine's state as it was kept; what the dead process left open is closed, and told.
async fn machine(
    store: &Arc<dyn Store>,
    config: &Config,
    around: &Surroundings,
    chance: Chance,
) -> Result<Machine, StartError> {
    let opened = Machine::open(Arc::clone(store), config, &around.clock, chance).await;
    let (machine, events) = opened.map_err(StartError::Recover)?;
    for event in events {
        event.emit(&around.telemetry);
    }
    Ok(machine)
}

/// The start, for the audit log.
fn told(address: SocketAddr, key_created: bool, tls: Option<&ServerTls>) -> Act {
    let certificate = tls
        .map(|tls| json!({"change": certificate::change(tls.facts.change), "expires": tls.facts.expires.to_string()}));
    let after = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": address,
        "admin_key": if key_created { "created" } else { "kept" },
        "certificate": certificate,
    });
    Act { after: Some(after), ..Act::here(Who::Local, "server_start") }
}

/// Starts the API on its listener, and metrics on theirs, if they have one.
fn serve(
    api: &Api,
    (listener, metrics_listener): (TcpListener, Option<TcpListener>),
    tls: Option<&Arc<ServerTls>>,
    around: &Surroundings,
) -> Result<(ServerHandle, Option<ServerHandle>), StartError> {
    let metrics = metrics_listener
        .map(|listener| Server::start(listener, None, crate::api::metrics_only(api.clone()), around.clone()))
        .transpose()
        .map_err(StartError::Serve)?;
    let rustls = tls.map(|tls| Arc::clone(&tls.rustls));
    let server = Server::start(listener, rustls, crate::api::router(api.clone()), around.clone());
    Ok((server.map_err(StartError::Serve)?, metrics))
}

/// The server's TLS, unless it speaks plain HTTP.
fn tls(config: &Config, clock: &Clock, telemetry: &Telemetry) -> Result<Option<Arc<ServerTls>>, TlsSetupError> {
    if config.server.plain_http {
        return Ok(None);
    }
    let tls = ServerTls::load_or_create(&config.server, &config.certs_dir, clock.now().wall)?;
    if tls.facts.change == Change::KeptInDoubt {
        tracing::error!(
            event = "certificate_in_doubt",
            clock = %clock.now().wall,
            "the wall clock is wrong: the certificate cannot be checked by it, and is served as it is"
        );
    }
    certificate::ready(&tls.facts).emit(telemetry);
    Ok(Some(Arc::new(tls)))
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}
