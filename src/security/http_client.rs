//! The factory of every client with which the server calls out: the only place that decides which client sends.
//!
//! What makes it safe: the egress policy is asked for every DNS answer, in the resolver hook of the client, so that the
//! address checked is the address connected to; literal addresses, for which that hook is not called, are checked
//! before a client is given out. Redirects are not followed, the environment's proxies are not used.
//!
//! What makes one attempt one request: the client's own retries are off. Beneath it hyper-util's pool takes another
//! connection when the idle one it had chosen turns out closed *before the first byte of the request was written*
//! (`retry_canceled_requests`, which reqwest does not expose). Nothing has then been sent, so it stays one request on
//! the wire; once a byte may have left, a broken connection is an error.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client};
use tokio::sync::Semaphore;
use url::Url;

use super::egress::{EgressPolicy, Refusal};
use crate::config::EgressConfig;
use crate::task::limits;

/// Who we say we are to targets.
pub const USER_AGENT: &str = concat!("sendoff/", env!("CARGO_PKG_VERSION"));

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// A file of `egress.ca_files` was not read.
    #[error("cannot read {}, named in egress.ca_files", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of `egress.ca_files` holds no certificates.
    #[error("{}, named in egress.ca_files, holds no PEM certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file of `egress.ca_files` holds something that is no certificate.
    #[error("{}, named in egress.ca_files, holds a damaged certificate", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: reqwest::Error,
    },
    /// The client was not built; most likely the machine has no CA certificates.
    #[error("cannot prepare TLS for calls (install the system's CA certificates, or name some in egress.ca_files)")]
    Build(#[source] reqwest::Error),
}

/// Gives out the clients that call targets. Cheap to ask, to be shared in an [`Arc`].
#[derive(Debug)]
pub struct OutgoingClients {
    current: RwLock<Arc<Current>>,
    lookups: Arc<Semaphore>,
}

/// A policy and the clients whose connections it has checked: they come and go together.
#[derive(Debug)]
struct Current {
    policy: Arc<EgressPolicy>,
    general: Client,
    /// The resolver hook is not told the port, so each port that we listen on ourselves has a client of its own, whose
    /// hook knows it.
    by_own_port: BTreeMap<u16, Client>,
}

impl OutgoingClients {
    /// Clients under `config`, for a server that listens on `own`.
    pub fn new(config: &EgressConfig, own: Vec<SocketAddr>) -> Result<Self, ClientsError> {
        let lookups = Arc::new(Semaphore::new(limits::DNS_LOOKUPS_MAX));
        let current = RwLock::new(Arc::new(Current::build(config, own, &lookups)?));
        Ok(Self { current, lookups })
    }

    /// Puts another configuration in force. Connections made under the old one are not used again.
    pub fn replace(&self, config: &EgressConfig, own: Vec<SocketAddr>) -> Result<(), ClientsError> {
        let next = Arc::new(Current::build(config, own, &self.lookups)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.current().policy)
    }

    /// The client to call `url` with; refused when the URL itself already shows that it may not be called.
    pub fn client_for(&self, url: &Url) -> Result<Client, Refusal> {
        let current = self.current();
        current.policy.check_url(url)?;
        let own = url.port_or_known_default().and_then(|port| current.by_own_port.get(&port));
        Ok(own.unwrap_or(&current.general).clone())
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn build(config: &EgressConfig, own: Vec<SocketAddr>, lookups: &Arc<Semaphore>) -> Result<Self, ClientsError> {
        let policy = Arc::new(EgressPolicy::new(config, own).with_local(is_local));
        let certificates = read_certificates(&config.ca_files)?;
        let client = |port| {
            let resolver = GuardedResolver { policy: Arc::clone(&policy), port, lookups: Arc::clone(lookups) };
            build_client(resolver, certificates.clone())
        };
        let general = client(0)?;
        let by_own_port = policy.own_ports().map(|port| Ok((port, client(port)?))).collect::<Result<_, _>>()?;
        Ok(Self { policy: Arc::clone(&policy), general, by_own_port })
    }
}

fn build_client(resolver: GuardedResolver, certificates: Vec<Certificate>) -> Result<Client, ClientsError> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .dns_resolver(resolver)
        .tls_certs_merge(certificates)
        .tcp_nodelay(true)
        .pool_idle_timeout(limits::CONNECTION_IDLE_MAX.to_duration())
        .pool_max_idle_per_host(limits::CONNECTIONS_IDLE_PER_HOST_MAX)
        // A silent HTTP/2 connection would otherwise swallow every request that is sent to its host.
        .http2_keep_alive_interval(limits::HTTP2_PING_INTERVAL.to_duration())
        .http2_keep_alive_timeout(limits::HTTP2_PING_ANSWER_MAX.to_duration())
        .build()
        .map_err(ClientsError::Build)
}

fn read_certificates(files: &[PathBuf]) -> Result<Vec<Certificate>, ClientsError> {
    let mut all = Vec::new();
    for path in files {
        let pem = fs::read(path).map_err(|source| ClientsError::CaFile { path: path.clone(), source })?;
        let found = Certificate::from_pem_bundle(&pem)
            .map_err(|source| ClientsError::BadCertificate { path: path.clone(), source })?;
        if found.is_empty() {
            return Err(ClientsError::NoCertificate { path: path.clone() });
        }
        all.extend(found);
    }
    Ok(all)
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

/// Asks the operating system, then the policy.
struct GuardedResolver {
    policy: Arc<EgressPolicy>,
    /// The port that will be connected to, where it matters; otherwise 0.
    port: u16,
    lookups: Arc<Semaphore>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, port, lookups) = (Arc::clone(&self.policy), self.port, Arc::clone(&self.lookups));
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = look_up(host.clone(), lookups).await?;
            let addrs: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
            policy.check_addrs(&host, port, &addrs)?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// A lookup keeps its thread, and so its permit, until the operating system answers, even when the attempt that wanted
/// it has long been given up: a dead name server must not take the threads that everybody else needs.
async fn look_up(host: String, lookups: Arc<Semaphore>) -> io::Result<Vec<SocketAddr>> {
    let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
    let lookup = tokio::task::spawn_blocking(move || {
        let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        drop(permit);
        found
    });
    let found = lookup.await.map_err(io::Error::other)??;
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() {
        // Another test may have been first.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    }

    fn config() -> EgressConfig {
        EgressConfig { http: true, loopback: true, ..EgressConfig::default() }
    }

    fn refused(error: &reqwest::Error) -> Option<&Refusal> {
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Some(refusal);
            }
            source = error.source();
        }
        None
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_refused_address_is_refused_before_connecting() {
        provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let clients = OutgoingClients::new(&config(), vec![own]).unwrap();
        let resolver = |port| {
            let (policy, lookups) = (clients.policy(), Arc::clone(&clients.lookups));
            GuardedResolver { policy, port, lookups }.resolve("localhost".parse().unwrap())
        };
        assert!(resolver(0).await.is_ok(), "another port");
        let error = resolver(own.port()).await.err().unwrap();
        assert_eq!(error.downcast_ref::<Refusal>().unwrap().rule, "own_listener");

        let strict = EgressConfig { loopback: false, ..config() };
        clients.replace(&strict, Vec::new()).unwrap();
        let url = Url::parse(&format!("http://localhost:{}/", own.port())).unwrap();
        let error = clients.current().general.get(url).send().await.unwrap_err();
        assert_eq!(refused(&error).unwrap().rule, "loopback", "asked again by the resolver hook itself");
    }

    #[tokio::test]
    async fn literal_addresses_are_refused_before_a_client_is_given_out() {
        provider();
        let clients = OutgoingClients::new(&config(), vec!["127.0.0.1:8443".parse().unwrap()]).unwrap();
        let rule = |text| clients.client_for(&Url::parse(text).unwrap()).map(drop).map_err(|refusal| refusal.rule);
        assert_eq!(rule("http://10.0.0.1/"), Err("private"));
        assert_eq!(rule("https://127.0.0.1:8443/"), Err("own_listener"));
        assert_eq!(rule("https://elsewhere.example:8443/"), Ok(()));
        clients.replace(&EgressConfig { http: false, ..config() }, Vec::new()).unwrap();
        assert_eq!(rule("http://127.0.0.1:9/"), Err("plain_http"));
    }

    #[test]
    fn ca_files_that_cannot_serve_are_named() {
        provider();
        let dir = tempfile::tempdir().unwrap();
        let with = |name: &str, content: Option<&str>| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let config = EgressConfig { ca_files: vec![path], ..config() };
            OutgoingClients::new(&config, Vec::new()).unwrap_err().to_string()
        };
        assert!(with("missing.pem", None).contains("missing.pem, named in egress.ca_files"));
        assert!(with("empty.pem", Some("")).ends_with("empty.pem, named in egress.ca_files, holds no PEM certificate"));
        let damaged = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(with("bad.pem", Some(damaged)).contains("bad.pem"));
    }

    #[test]
    fn this_machines_addresses_are_known() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
