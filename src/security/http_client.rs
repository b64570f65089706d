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
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::{fmt, fs, io};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Identity};
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

/// Who knows the addresses of host names. Every answer of it is checked against the policy.
pub trait Names: fmt::Debug + Send + Sync {
    /// Looks `host` up; with port 0, as the client takes the URL's. May block: it is called on a
    /// thread for that.
    fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system: its hosts file, its name servers.
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        (host, 0).to_socket_addrs().map(Iterator::collect)
    }
}

/// Gives out the clients that call targets. Cheap to ask, to be shared in an [`Arc`].
#[derive(Debug)]
pub struct OutgoingClients {
    current: RwLock<Arc<Current>>,
    lookups: Lookups,
}

/// Where names are looked up, and how many at one time.
#[derive(Debug, Clone)]
struct Lookups {
    names: Arc<dyn Names>,
    permits: Arc<Semaphore>,
}

/// Clients that are ready to be used, and not used yet.
#[derive(Debug)]
#[must_use = "hand them to `OutgoingClients::replace`"]
pub struct NextClients {
    next: Arc<Current>,
    /// Whether what has changed is the content of files in `egress.ca_files`, and nothing else.
    pub other_files: bool,
}

/// A policy and the clients whose connections it has checked: they come and go together.
#[derive(Debug)]
struct Current {
    policy: Arc<EgressPolicy>,
    anonymous: Clients,
    /// The files of `egress.ca_files`, as they were read.
    certificates: Vec<Vec<u8>>,
    /// The authorities in them.
    trusted: Vec<Certificate>,
}

/// Clients whose connections may be used for each other's calls.
#[derive(Debug, Clone)]
struct Clients {
    general: Client,
    /// The resolver hook is not told the port, so each port that we listen on ourselves has a client of its own, whose
    /// hook knows it.
    by_own_port: BTreeMap<u16, Client>,
}

/// A client certificate, and the clients that show it: no connection made with it is used by anybody else, nor under
/// another policy than the one it was made under.
pub struct ClientIdentity {
    identity: Identity,
    made: Mutex<Option<(Weak<Current>, Clients)>>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// Why there is no client for a call with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The URL may not be called.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No client was made.
    #[error(transparent)]
    Clients(#[from] ClientsError),
}

impl OutgoingClients {
    /// Clients under `config`, for a server that listens on `own`; names are looked up as the operating system does.
    pub fn new(config: &EgressConfig, own: Vec<SocketAddr>) -> Result<Self, ClientsError> {
        Self::with_names(config, own, Arc::new(SystemNames))
    }

    /// The same, with names looked up by `names`.
    pub fn with_names(
        config: &EgressConfig,
        own: Vec<SocketAddr>,
        names: Arc<dyn Names>,
    ) -> Result<Self, ClientsError> {
        let lookups = Lookups { names, permits: Arc::new(Semaphore::new(limits::DNS_LOOKUPS_MAX)) };
        let certificates = read_files(&config.ca_files)?;
        let current = RwLock::new(Arc::new(Current::build(config, own, certificates, &lookups)?));
        Ok(Self { current, lookups })
    }

    /// Makes clients under another configuration, for [`OutgoingClients::replace`]; `None` when they would be the same:
    /// neither the configuration nor a file of CAs that it names has changed.
    pub fn prepare(&self, config: &EgressConfig) -> Result<Option<NextClients>, ClientsError> {
        let current = self.current();
        let same_policy = current.policy.config() == config;
        let certificates = read_files(&config.ca_files)?;
        if same_policy && certificates == current.certificates {
            return Ok(None);
        }
        let next = Current::build(config, current.policy.own(), certificates, &self.lookups)?;
        Ok(Some(NextClients { next: Arc::new(next), other_files: same_policy }))
    }

    /// Puts other clients in force. Connections made under the old configuration are not used again; calls that are
    /// under way on them are finished.
    pub fn replace(&self, next: NextClients) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.next;
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.current().policy)
    }

    /// The client to call `url` with; refused when the URL itself already shows that it may not be called.
    pub fn client_for(&self, url: &Url) -> Result<Client, Refusal> {
        let current = self.current();
        current.policy.check_url(url)?;
        Ok(current.anonymous.for_port_of(url))
    }

    /// The client to call `url` with that shows a certificate.
    pub fn client_as(&self, identity: &ClientIdentity, url: &Url) -> Result<Client, IdentityError> {
        let current = self.current();
        current.policy.check_url(url)?;
        let mut made = identity.made.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = made.as_ref().filter(|(under, _)| std::ptr::eq(under.as_ptr(), Arc::as_ptr(&current)));
        if let Some((_, clients)) = kept {
            return Ok(clients.for_port_of(url));
        }
        let clients = Clients::build(&current.policy, &current.trusted, Some(&identity.identity), &self.lookups)?;
        let client = clients.for_port_of(url);
        *made = Some((Arc::downgrade(&current), clients));
        Ok(client)
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn build(
        config: &EgressConfig,
        own: Vec<SocketAddr>,
        certificates: Vec<Vec<u8>>,
        lookups: &Lookups,
    ) -> Result<Self, ClientsError> {
        let policy = Arc::new(EgressPolicy::new(config, own).with_local(is_local));
        let trusted = parse_certificates(&config.ca_files, &certificates)?;
        let anonymous = Clients::build(&policy, &trusted, None, lookups)?;
        Ok(Self { policy, anonymous, certificates, trusted })
    }
}

impl Clients {
    fn build(
        policy: &Arc<EgressPolicy>,
        trusted: &[Certificate],
        identity: Option<&Identity>,
        lookups: &Lookups,
    ) -> Result<Self, ClientsError> {
        let client = |port| {
            let resolver = GuardedResolver { policy: Arc::clone(policy), port, lookups: lookups.clone() };
            build_client(resolver, trusted.to_vec(), identity.cloned())
        };
        let general = client(0)?;
        let by_own_port = policy.own_ports().map(|port| Ok((port, client(port)?))).collect::<Result<_, _>>()?;
        Ok(Self { general, by_own_port })
    }

    fn for_port_of(&self, url: &Url) -> Client {
        let own = url.port_or_known_default().and_then(|port| self.by_own_port.get(&port));
        own.unwrap_or(&self.general).clone()
    }
}

impl ClientIdentity {
    /// A certificate (with those between it and its CA after it) and its key, both in PEM. The error says what is wrong,
    /// not with what.
    pub fn new(certificate: &str, key: &str) -> Result<Self, String> {
        let expected =
            || "expected a private key in PEM that belongs to the certificate, which is in PEM too".to_owned();
        let identity =
            Identity::from_pem(format!("{key}\n{certificate}").as_bytes()).map_err(|_may_quote| expected())?;
        // Only a client that is built shows whether the two belong together.
        let built = Client::builder().tls_certs_only([]).identity(identity.clone()).build();
        built.map_err(|_may_quote| expected())?;
        Ok(Self { identity, made: Mutex::new(None) })
    }
}

fn build_client(
    resolver: GuardedResolver,
    certificates: Vec<Certificate>,
    identity: Option<Identity>,
) -> Result<Client, ClientsError> {
    let builder = Client::builder();
    let builder = match identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    };
    builder
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

fn read_files(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, ClientsError> {
    let read = |path: &PathBuf| fs::read(path).map_err(|source| ClientsError::CaFile { path: path.clone(), source });
    files.iter().map(read).collect()
}

fn parse_certificates(files: &[PathBuf], contents: &[Vec<u8>]) -> Result<Vec<Certificate>, ClientsError> {
    let mut all = Vec::new();
    for (path, pem) in files.iter().zip(contents) {
        let found = Certificate::from_pem_bundle(pem)
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

/// Asks whoever knows the names, then the policy.
struct GuardedResolver {
    policy: Arc<EgressPolicy>,
    /// The port that will be connected to, where it matters; otherwise 0.
    port: u16,
    lookups: Lookups,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, port, lookups) = (Arc::clone(&self.policy), self.port, self.lookups.clone());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = lookups.addresses(host.clone()).await?;
            let addrs: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
            policy.check_addrs(&host, port, &addrs)?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

impl Lookups {
    /// A lookup keeps its thread, and so its permit, until it is answered, even when the attempt that wanted it has long
    /// been given up: a dead name server must not take the threads that everybody else needs.
    async fn addresses(self, host: String) -> io::Result<Vec<SocketAddr>> {
        let permit = self.permits.acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let found = self.names.addresses(&host);
            drop(permit);
            found
        });
        let found = lookup.await.map_err(io::Error::other)??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses"));
        }
        Ok(found)
    }
}

/// Names that lead inward, for the tests of everything that calls out by a name.
#[cfg(test)]
pub(super) mod inward {
    use super::*;

    /// Where they lead: private, link-local, mapped, unique-local, and good beside bad.
    pub(in crate::security) const ADDRESSES: [&str; 5] =
        ["10.0.0.7", "169.254.169.254", "::ffff:10.0.0.7", "fd00::1", "203.0.113.1 10.0.0.7"];

    #[derive(Debug)]
    struct Inward(&'static str);

    impl Names for Inward {
        fn addresses(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.split(' ').map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect())
        }
    }

    /// Clients for whom every name leads there.
    pub(in crate::security) fn clients(addresses: &'static str) -> Arc<OutgoingClients> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let names = Arc::new(Inward(addresses));
        Arc::new(OutgoingClients::with_names(&EgressConfig::default(), Vec::new(), names).unwrap())
    }
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
            let (policy, lookups) = (clients.policy(), clients.lookups.clone());
            GuardedResolver { policy, port, lookups }.resolve("localhost".parse().unwrap())
        };
        assert!(resolver(0).await.is_ok(), "another port");
        let error = resolver(own.port()).await.err().unwrap();
        assert_eq!(error.downcast_ref::<Refusal>().unwrap().rule, "own_listener");

        let strict = EgressConfig { loopback: false, ..config() };
        clients.replace(clients.prepare(&strict).unwrap().expect("another policy"));
        let url = Url::parse(&format!("http://localhost:{}/", own.port())).unwrap();
        let error = clients.current().anonymous.general.get(url).send().await.unwrap_err();
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
        let next = clients.prepare(&EgressConfig { http: false, ..config() }).unwrap().expect("another policy");
        assert!(!next.other_files);
        assert_eq!(rule("http://127.0.0.1:9/"), Ok(()), "prepared is not in force");
        clients.replace(next);
        assert_eq!(rule("http://127.0.0.1:9/"), Err("plain_http"));
    }

    #[test]
    fn the_same_again_keeps_the_clients_and_other_files_under_old_names_do_not() {
        provider();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let ca = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        fs::write(&path, ca()).unwrap();
        let config = EgressConfig { ca_files: vec![path.clone()], ..config() };
        let clients = OutgoingClients::new(&config, vec!["127.0.0.1:8443".parse().unwrap()]).unwrap();
        assert!(clients.prepare(&config).unwrap().is_none());
        fs::write(&path, ca()).unwrap();
        let next = clients.prepare(&config).unwrap().expect("another CA");
        assert!(next.other_files);
        clients.replace(next);
        assert!(clients.prepare(&config).unwrap().is_none());
        assert_eq!(clients.policy().own_ports().collect::<Vec<_>>(), [8443], "we listen where we did");
        fs::write(&path, "nothing").unwrap();
        assert!(clients.prepare(&config).is_err());
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
