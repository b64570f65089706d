//! Reading the configuration again while the server runs: all that can change live changes, or nothing does.
//!
//! First everything that may fail is made and not used yet: the log's filter, outgoing clients with their CA files, the
//! certificate. Then the engine takes the new limits, in a turn and a commit like everything else. What is left cannot
//! fail, and is put in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::mpsc;

use super::{App, certificate};
use crate::clock::Clock;
use crate::config::{Change, Config, ConfigFault, ConfigFaults, Difference, Loaded, in_force, one_line};
use crate::logging::audit::{Act, Outcome, Who};
use crate::logging::event::{ConfigRefused, ConfigReloaded};
use crate::logging::{Fact, LogFilter, LogLevel, chain};
use crate::queue::command::EngineError;
use crate::security::credential::{Credentials, CredentialsError, NextCredentials};
use crate::security::http_client::{NextClients, OutgoingClients};
use crate::security::server_tls::{NextCertificate, ServerTls, TlsSetupError};

/// Reads the configuration again from where it came from.
pub type ReadConfig = Arc<dyn Fn() -> Result<Loaded, ConfigFaults> + Send + Sync>;

/// Told of every reload that was refused, and why, in words for people.
pub type OnRefused = Box<dyn Fn(&ReloadError) + Send + Sync>;

/// Who asks for reloads, where the configuration is read from, and what of the process follows it.
pub struct Reloads {
    asked: Option<mpsc::Receiver<()>>,
    read: ReadConfig,
    log: Option<LogLevel>,
    on_refused: OnRefused,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is faulty, or names files that are.
    #[error(transparent)]
    Faults(#[from] ConfigFaults),
    /// The engine did not take it.
    #[error("the engine did not take it: {0}")]
    Engine(#[from] EngineError),
    /// It could not be written down.
    #[error("it could not be written down, so nothing was done: {0}")]
    Audit(String),
    /// A fault of ours.
    #[error("reading the configuration failed: {0}")]
    Panicked(String),
}

impl Reloads {
    /// Reads the configuration by `read` whenever something comes out of `asked`. Of what is asked for while a reload
    /// runs, one has to be kept: a channel with room for one, that is not waited for when it is full.
    pub fn new(asked: mpsc::Receiver<()>, read: ReadConfig, log: Option<LogLevel>, on_refused: OnRefused) -> Self {
        Self { asked: Some(asked), read, log, on_refused }
    }

    /// Nobody asks.
    pub(super) fn never() -> Self {
        let read = || Ok(Loaded::from(Config::default()));
        Self { asked: None, read: Arc::new(read), log: None, on_refused: Box::new(|_| {}) }
    }

    /// Waits until somebody asks; for ever, when nobody can any more.
    pub(super) async fn asked(&mut self) {
        let asked = match &mut self.asked {
            Some(asked) => asked.recv().await,
            None => None,
        };
        if asked.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Debug for Reloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reloads")
    }
}

/// All that a reload puts in force, ready to be.
struct Prepared {
    config: Arc<Config>,
    difference: Difference,
    filter: Option<LogFilter>,
    clients: Option<NextClients>,
    credentials: Option<NextCredentials>,
    certificate: Option<NextCertificate>,
}

/// What preparing needs: handles, so that files can be read on a thread where that holds up nobody.
struct Preparing {
    running: Arc<Config>,
    clients: Arc<OutgoingClients>,
    credentials: Arc<Credentials>,
    tls: Option<Arc<ServerTls>>,
    clock: Clock,
}

impl App {
    /// Puts `loaded` in force as far as that can be done live; tells what changed, and what waits for a restart.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub async fn reload(&mut self, loaded: Loaded) -> Result<Difference, ReloadError> {
        self.reload_from(Arc::new(move || Ok(loaded.clone())), None).await
    }

    /// One reload that was asked for.
    pub(super) async fn read_again(&mut self, reloads: &Reloads) {
        if let Err(error) = self.reload_from(Arc::clone(&reloads.read), reloads.log.as_ref()).await {
            (reloads.on_refused)(&error);
        }
    }

    async fn reload_from(&mut self, read: ReadConfig, log: Option<&LogLevel>) -> Result<Difference, ReloadError> {
        if let Err(why) = self.audit.prepared().await {
            let error = ReloadError::Audit(why);
            refused(&error).emit(&self.telemetry);
            return Err(error);
        }
        let result = self.attempt(read, log).await;
        if let Err(error) = &result {
            refused(error).emit(&self.telemetry);
        }
        self.audit.record(told(&result)).await;
        result
    }

    async fn attempt(&mut self, read: ReadConfig, log: Option<&LogLevel>) -> Result<Difference, ReloadError> {
        let preparing = Preparing {
            running: Arc::clone(&self.config),
            clients: Arc::clone(&self.clients),
            credentials: Arc::clone(&self.credentials),
            tls: self.tls.clone(),
            clock: self.clock.clone(),
        };
        let prepared = tokio::task::spawn_blocking(move || preparing.prepare(&read()?)).await;
        let prepared = match prepared {
            Ok(prepared) => prepared.map_err(ReloadError::Faults),
            Err(panic) => Err(ReloadError::Panicked(panic.to_string())),
        };
        self.take_over(prepared?, log).await
    }

    async fn take_over(&mut self, prepared: Prepared, log: Option<&LogLevel>) -> Result<Difference, ReloadError> {
        if prepared.config != self.config {
            self.queues.configure(Arc::clone(&prepared.config)).await?;
        }
        Ok(self.put_in_force(prepared, log))
    }

    fn put_in_force(&mut self, prepared: Prepared, log: Option<&LogLevel>) -> Difference {
        let Prepared { config, difference, filter, clients, credentials, certificate } = prepared;
        if let Some(clients) = clients {
            self.clients.replace(clients);
        }
        if let Some(credentials) = credentials {
            self.credentials.replace(credentials);
        }
        if let (Some(tls), Some(next)) = (&self.tls, certificate) {
            // Also when it is the same: before, the files may have been refused.
            certificate::ready(&next.facts).emit(&self.telemetry);
            tls.replace(next);
        }
        self.callers.replace(&config.callers);
        self.payload_bytes_max.store(config.payload_bytes_max, Ordering::Relaxed);
        self.config = config;
        let reloaded = ConfigReloaded {
            changed: one_line(&difference.live),
            needs_restart: one_line(&difference.restart),
            at: self.clock.now().wall,
        };
        // Told under the filter that lets it through, the old one or the new one.
        let told_before = ConfigReloaded::is_logged();
        if told_before {
            reloaded.emit(&self.telemetry);
        }
        if let (Some(log), Some(filter)) = (log, filter) {
            log.set(filter);
        }
        if !told_before {
            reloaded.emit(&self.telemetry);
        }
        difference
    }
}

impl Preparing {
    /// Makes everything that may fail, and puts none of it in force; or says all that is wrong with it.
    fn prepare(&self, loaded: &Loaded) -> Result<Prepared, ConfigFaults> {
        let mut difference = Difference::between(&self.running, &loaded.config);
        let config = Arc::new(in_force(&self.running, loaded.config.clone()));
        let mut faults = ConfigFaults::default();
        let filter = noted(self.filter(&config, loaded), &mut faults);
        let clients = noted(self.clients(&config, loaded), &mut faults);
        let credentials = noted(self.credentials(&config, loaded), &mut faults);
        // Last: a certificate of the local CA may have to be written.
        let certificate = noted(self.certificate(&config, loaded), &mut faults);
        if clients.as_ref().is_some_and(|clients| clients.other_files) {
            difference.live.push(content("egress.ca_files", "other CAs".to_owned()));
        }
        for name in credentials.iter().flat_map(|credentials| &credentials.other_secrets) {
            let what = Some("what was there".to_owned());
            let new = Some("another secret".to_owned());
            difference.live.push(Change { path: format!("credentials.{name}"), old: what, new });
        }
        let is_told = difference.live.iter().any(|change| change.path == CERTIFICATE);
        if let Some(next) = certificate.as_ref().filter(|next| next.is_other && !is_told) {
            difference.live.push(content(CERTIFICATE, format!("another, until {}", next.facts.expires)));
        }
        faults.or(Prepared { config, difference, filter, clients, credentials, certificate })
    }

    fn filter(&self, config: &Config, loaded: &Loaded) -> Result<Option<LogFilter>, ConfigFault> {
        if config.logging.level == self.running.logging.level {
            return Ok(None);
        }
        let filter = LogFilter::parse(&config.logging.level);
        filter.map(Some).map_err(|error| loaded.fault("logging.level", chain(&error)))
    }

    fn clients(&self, config: &Config, loaded: &Loaded) -> Result<Option<NextClients>, ConfigFault> {
        self.clients.prepare(&config.egress).map_err(|error| loaded.fault("egress.ca_files", chain(&error)))
    }

    fn credentials(&self, config: &Config, loaded: &Loaded) -> Result<Option<NextCredentials>, ConfigFault> {
        let next = self.credentials.prepare(config).map(Some);
        next.map_err(|error| match error {
            CredentialsError::Credential(error) => {
                loaded.fault(&format!("credentials.{}.{}", error.name, error.key), error.why)
            }
            CredentialsError::SigningKeys(error) => loaded.fault("server.public_url", chain(&error)),
        })
    }

    fn certificate(&self, config: &Config, loaded: &Loaded) -> Result<Option<NextCertificate>, ConfigFault> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let next = tls.prepare(&config.server, &config.certs_dir, self.clock.now().wall);
        let path = if config.server.tls.certificate.is_some() { CERTIFICATE } else { "certs_dir" };
        next.map(Some).map_err(|error| {
            let path = if matches!(error, TlsSetupError::ClientCa { .. }) { "server.tls.client_ca" } else { path };
            loaded.fault(path, chain(&error))
        })
    }
}

/// The key that names the certificate.
const CERTIFICATE: &str = "server.tls.certificate";

/// What was made, or its fault noted.
fn noted<T>(made: Result<Option<T>, ConfigFault>, faults: &mut ConfigFaults) -> Option<T> {
    match made {
        Ok(made) => made,
        Err(fault) => {
            faults.add(fault);
            None
        }
    }
}

/// A file whose content changed under a name that did not.
fn content(path: &str, new: String) -> Change {
    Change { path: path.to_owned(), old: Some("what the file held".to_owned()), new: Some(new) }
}

/// For the audit log. What a fault says may quote the file, and so does not belong there; it is in the server's log.
fn told(result: &Result<Difference, ReloadError>) -> Act {
    let act = Act::here(Who::Local, "config_reload");
    match result {
        Ok(difference) => {
            let (changed, needs_restart) = (one_line(&difference.live), one_line(&difference.restart));
            Act { after: Some(json!({"changed": changed, "needs_restart": needs_restart})), ..act }
        }
        Err(ReloadError::Engine(EngineError::Unknown)) => Act { outcome: Outcome::Unknown("unknown_outcome"), ..act },
        Err(_) => Act { outcome: Outcome::Refused("config_refused"), ..act },
    }
}

fn refused(error: &ReloadError) -> ConfigRefused {
    match error {
        ReloadError::Faults(faults) => {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            ConfigRefused { faults: faults.count(), why: lines.join("\n") }
        }
        ReloadError::Engine(_) | ReloadError::Audit(_) | ReloadError::Panicked(_) => {
            ConfigRefused { faults: 0, why: error.to_string() }
        }
    }
}
