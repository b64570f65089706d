//! The server's own TLS: which certificate, which versions, and how both reach rustls.
//!
//! Our own `rustls::ServerConfig` rather than a helper's: those allow TLS 1.2 without asking.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::certificate_files::Watch;
use super::client_ca::{ClientCertificates, Issuers};
use super::local_ca::{self, Wanted, damaged, validity};
use super::private_file::{self, FileError};
use crate::config::{ServerConfig, TlsVersion};
use crate::task::WallMs;

/// The server's TLS: hand [`ServerTls::rustls`] to the listener, keep this for [`ServerTls::refresh`] and
/// [`ServerTls::replace`].
#[derive(Debug)]
pub struct ServerTls {
    /// What the listener serves with. Follows every [`ServerTls::refresh`] and [`ServerTls::replace`] by itself.
    pub rustls: Arc<rustls::ServerConfig>,
    /// What was found or made at start.
    pub facts: TlsFacts,
    /// The certificates of clients.
    pub clients: Arc<ClientCertificates>,
    current: Arc<Current>,
}

/// A certificate that is ready to be served, and not served yet.
#[derive(Debug)]
#[must_use = "hand it to `ServerTls::replace`"]
pub struct NextCertificate {
    serving: Serving,
    issuers: Issuers,
    /// Whether it is another than the one that is served.
    pub is_other: bool,
    /// What there is to tell about it.
    pub facts: TlsFacts,
}

/// What there is to tell about the certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The local CA that clients need to trust; `None` for configured certificates.
    pub ca: Option<LocalCa>,
    /// Whether that CA was made just now.
    pub ca_created: bool,
    /// The names and addresses that the server certificate has, sorted.
    pub names: Vec<String>,
    /// When the server certificate ends.
    pub expires: WallMs,
    /// What was done to have it.
    pub change: Change,
}

/// The local CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCa {
    /// Its certificate: what `curl --cacert` wants.
    pub path: PathBuf,
    /// SHA-256 of the certificate (DER), `AB:CD:…`.
    pub fingerprint_sha256: String,
}

/// What was done to have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there, and is good.
    Kept,
    /// It was there, and the clock is too wrong to tell more: it shows a moment from before there was a sendoff.
    KeptInDoubt,
    /// There was none.
    Created,
    /// The one that was there was about to end, or named other hosts.
    Renewed,
    /// Somebody has put another in its place.
    Replaced,
}

/// Why there is no TLS. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file could not be read or written, or a key is open to other users.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error(
        "{} is damaged ({why}): restore it, or move it away together with the other .pem and .key files beside it to \
         have new ones made",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A configured file is not there, or one that is needed to renew the certificate.
    #[error("{} is missing, and {} cannot be served without it", path.display(), needed_for.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The certificate that needs it.
        needed_for: PathBuf,
    },
    /// The server certificate comes from elsewhere.
    #[error(
        "{} was not issued by {}: to serve a certificate of your own, name it in server.tls.certificate and \
         server.tls.key; to have a new one made, move it away",
        path.display(), ca.display()
    )]
    Foreign {
        /// The certificate.
        path: PathBuf,
        /// The CA beside it.
        ca: PathBuf,
    },
    /// The CA has come to its end.
    #[error(
        "the local CA {} ended on {expired}: if the clock of this machine is right, move it, ca.key, server.pem and \
         server.key away to have new ones made, and give the new ca.pem to the clients",
        path.display()
    )]
    CaExpired {
        /// Its certificate.
        path: PathBuf,
        /// When.
        expired: WallMs,
    },
    /// A configured key belongs to another certificate, or is of a kind that cannot be used.
    #[error("{} and {} cannot be used together", certificate.display(), key.display())]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls objected to.
        source: rustls::Error,
    },
    /// Another certificate was to be served, whose time is over.
    #[error("{} ended on {expired}: it is not served in the place of the one that is in use", certificate.display())]
    Expired {
        /// The certificate.
        certificate: PathBuf,
        /// When.
        expired: WallMs,
    },
    /// The file of those who issue client certificates is not one.
    #[error("{} cannot serve as server.tls.client_ca ({why}): it has to be a PEM file with certificates of CAs", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `server.public_url` has no host a certificate could name.
    #[error("server.public_url `{given}` names no host")]
    NoHost {
        /// What was given.
        given: String,
    },
    /// A certificate could not be made.
    #[error("making a certificate")]
    Issue(#[from] rcgen::Error),
    /// rustls refused the set-up.
    #[error("setting up TLS")]
    Rustls(#[from] rustls::Error),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
}

/// Where the certificate comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The local CA in this directory, for these names.
    Local { dir: PathBuf, names: BTreeSet<String> },
    /// Configured files.
    Files { certificate: PathBuf, key: PathBuf },
}

/// Where what is served was read, and a watch on those files.
#[derive(Debug)]
struct Origin {
    source: Source,
    client_ca: Option<PathBuf>,
    watch: Watch,
}

impl ServerTls {
    /// The TLS that `server` asks for: its configured certificate, or one of the local CA in `certs_dir`, which is made
    /// on the first start (CA for ten years, certificate for 90 days, for `localhost`, `127.0.0.1`, `::1`, the listen
    /// address and the host of `public_url`), and renewed when less than 30 days are left or the names changed. A clock
    /// that stands before [`CLOCK_MIN`](crate::task::id::CLOCK_MIN) renews nothing that names the right hosts.
    pub fn load_or_create(server: &ServerConfig, certs_dir: &Path, now: WallMs) -> Result<Self, TlsSetupError> {
        let origin = Origin::of(server, certs_dir)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (key, facts) = origin.source.load(&provider, now)?;
        let clients = Arc::new(ClientCertificates::new(&provider, origin.issuers(&provider)?));
        let serving = Serving { key: Arc::new(key), origin: Arc::new(origin) };
        let current = Arc::new(Current(RwLock::new(serving)));
        let shown = (Arc::clone(&current), Arc::clone(&clients));
        let rustls = Arc::new(rustls_config(provider, server.tls.min_version, shown)?);
        Ok(Self { rustls, facts, clients, current })
    }

    /// Looks at the certificate again: renews one of the local CA when it is time, reads configured files anew. New
    /// connections get the result; on an error everything stays as it was.
    pub fn refresh(&self, now: WallMs) -> Result<TlsFacts, TlsSetupError> {
        let origin = self.current.get().origin;
        origin.source.has_its_ca()?;
        let (key, facts) = origin.source.load(self.rustls.crypto_provider(), now)?;
        self.serve(key, &origin);
        Ok(facts)
    }

    /// Whether somebody changed the files since they were last read: then they are read, and new connections get what
    /// they hold. `None`: nobody did. A bad pair is told once, and everything stays as it was. To be
    /// asked every [`CERTIFICATE_LOOK_INTERVAL`](crate::task::limits::CERTIFICATE_LOOK_INTERVAL): a change is acted on
    /// at the second look that sees it.
    pub fn look(&self, now: WallMs) -> Option<Result<TlsFacts, TlsSetupError>> {
        let Serving { key: served, origin } = self.current.get();
        if !origin.watch.has_changed() {
            return None;
        }
        let looked = origin.source.has_its_ca().and_then(|()| {
            let provider = self.rustls.crypto_provider();
            let (key, facts) = origin.source.load_after(&served, provider, now)?;
            self.clients.replace(origin.issuers(provider)?);
            self.serve(key, &origin);
            Ok(facts)
        });
        Some(looked)
    }

    fn serve(&self, key: CertifiedKey, origin: &Arc<Origin>) {
        let mut serving = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
        // Meanwhile the certificate may have been replaced by one from elsewhere.
        if Arc::ptr_eq(&serving.origin, origin) {
            serving.key = Arc::new(key);
        }
    }

    /// Reads, or has the local CA issue, the certificate that `server` asks for now, for [`ServerTls::replace`]. Files
    /// are read anew, also those that were configured before. `min_version` and where the server listens stay.
    pub fn prepare(
        &self,
        server: &ServerConfig,
        certs_dir: &Path,
        now: WallMs,
    ) -> Result<NextCertificate, TlsSetupError> {
        let origin = Origin::of(server, certs_dir)?;
        let before = self.current.get();
        if matches!(before.origin.source, Source::Local { .. }) {
            origin.source.has_its_ca()?;
        }
        let (key, facts) = origin.source.load_after(&before.key, self.rustls.crypto_provider(), now)?;
        let is_other = key.cert != before.key.cert;
        let issuers = origin.issuers(self.rustls.crypto_provider())?;
        let serving = Serving { key: Arc::new(key), origin: Arc::new(origin) };
        Ok(NextCertificate { serving, issuers, is_other, facts })
    }

    /// Serves another certificate to new connections; those that are open go on with theirs.
    pub fn replace(&self, next: NextCertificate) {
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = next.serving;
        self.clients.replace(next.issuers);
    }
}

impl Origin {
    fn of(server: &ServerConfig, certs_dir: &Path) -> Result<Self, TlsSetupError> {
        let source = Source::of(server, certs_dir)?;
        let client_ca = server.tls.client_ca.clone();
        let watch = Watch::new(source.files().into_iter().chain(client_ca.clone()).collect());
        Ok(Self { source, client_ca, watch })
    }

    fn issuers(&self, provider: &Arc<CryptoProvider>) -> Result<Issuers, TlsSetupError> {
        Issuers::read(self.client_ca.as_deref(), provider)
    }
}

impl Source {
    pub(super) fn of(server: &ServerConfig, certs_dir: &Path) -> Result<Self, TlsSetupError> {
        Ok(match (&server.tls.certificate, &server.tls.key) {
            (Some(certificate), Some(key)) => Self::Files { certificate: certificate.clone(), key: key.clone() },
            _ => Self::Local { dir: certs_dir.to_owned(), names: names(server)? },
        })
    }

    /// Where what is served comes from.
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Local { dir, .. } => local_ca::files_served(dir).into(),
            Self::Files { certificate, key } => vec![certificate.clone(), key.clone()],
        }
    }

    /// Refuses a certificate of somebody else's whose time is over; the local CA's are renewed in time.
    fn is_in_time(&self, facts: &TlsFacts, now: WallMs) -> Result<(), TlsSetupError> {
        match self {
            Self::Files { certificate, .. } if now >= facts.expires => {
                Err(TlsSetupError::Expired { certificate: certificate.clone(), expired: facts.expires })
            }
            Self::Files { .. } | Self::Local { .. } => Ok(()),
        }
    }

    /// Refuses to go on with a local CA that somebody has taken away: another one would be made without a word, which no
    /// client trusts. A start makes one, and says so.
    fn has_its_ca(&self) -> Result<(), TlsSetupError> {
        match self {
            Self::Local { dir, .. } => local_ca::is_there(dir),
            Self::Files { .. } => Ok(()),
        }
    }

    /// Loads what is to be served in the place of `served`.
    fn load_after(
        &self,
        served: &CertifiedKey,
        provider: &Arc<CryptoProvider>,
        now: WallMs,
    ) -> Result<(CertifiedKey, TlsFacts), TlsSetupError> {
        let (key, mut facts) = self.load(provider, now)?;
        if key.cert != served.cert {
            self.is_in_time(&facts, now)?;
            if matches!(facts.change, Change::Kept | Change::KeptInDoubt) {
                facts.change = Change::Replaced;
            }
        }
        Ok((key, facts))
    }

    fn load(&self, provider: &Arc<CryptoProvider>, now: WallMs) -> Result<(CertifiedKey, TlsFacts), TlsSetupError> {
        match self {
            Self::Local { dir, names } => {
                let local = local_ca::certificate(dir, names, provider, now, Wanted::AGoodOne)?;
                let names = names.iter().cloned().collect();
                let facts = TlsFacts {
                    ca: Some(local.ca),
                    ca_created: local.ca_created,
                    names,
                    expires: local.expires,
                    change: local.change,
                };
                Ok((local.key, facts))
            }
            Self::Files { certificate, key } => {
                let (chain, expires) = read_chain(certificate)?;
                let pem = configured(key, certificate)?;
                let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| damaged(key, &source))?;
                let certified = CertifiedKey::from_der(chain, der, provider).map_err(|source| {
                    TlsSetupError::Mismatch { certificate: certificate.clone(), key: key.clone(), source }
                })?;
                let names = chain_names(&certified.cert, certificate)?;
                Ok((certified, TlsFacts { ca: None, ca_created: false, names, expires, change: Change::Kept }))
            }
        }
    }
}

fn configured(path: &Path, certificate: &Path) -> Result<String, TlsSetupError> {
    private_file::read(path)?
        .ok_or_else(|| TlsSetupError::Missing { path: path.to_owned(), needed_for: certificate.to_owned() })
}

/// A configured chain, and when its first certificate (the server's) ends.
fn read_chain(path: &Path) -> Result<(Vec<CertificateDer<'static>>, WallMs), TlsSetupError> {
    let pem = configured(path, path)?;
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| damaged(path, &source))?;
    let expires = chain.first().map(|leaf| validity(leaf, path));
    let expires = expires.ok_or_else(|| damaged(path, &"it holds no certificate"))??.1;
    Ok((chain, expires))
}

/// The names that the first certificate of a chain (the server's) has.
fn chain_names(chain: &[CertificateDer<'_>], path: &Path) -> Result<Vec<String>, TlsSetupError> {
    let names = chain.first().map(|leaf| local_ca::names_of(leaf, path)).transpose()?;
    Ok(names.into_iter().flatten().collect())
}

fn names(server: &ServerConfig) -> Result<BTreeSet<String>, TlsSetupError> {
    let listen = Some(server.listen.ip().to_canonical()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let public = server.public_url.as_deref().map(host).transpose()?;
    Ok(local_ca::names(listen.into_iter().chain(public)))
}

fn host(url: &str) -> Result<String, TlsSetupError> {
    let wrong = || TlsSetupError::NoHost { given: url.to_owned() };
    let parsed = url::Url::parse(url).ok().ok_or_else(wrong)?;
    match parsed.host().ok_or_else(wrong)? {
        url::Host::Domain(name) => Ok(name.to_owned()),
        url::Host::Ipv4(ip) => Ok(ip.to_string()),
        url::Host::Ipv6(ip) => Ok(ip.to_string()),
    }
}

fn rustls_config(
    provider: Arc<CryptoProvider>,
    oldest: TlsVersion,
    (current, clients): (Arc<Current>, Arc<ClientCertificates>),
) -> Result<rustls::ServerConfig, TlsSetupError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match oldest {
        TlsVersion::V1_3 => &[&TLS13],
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(current);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions are resumed without a table of them in memory.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// A certificate with its key, and where it came from.
#[derive(Debug, Clone)]
struct Serving {
    key: Arc<CertifiedKey>,
    origin: Arc<Origin>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Serving>);

impl Current {
    fn get(&self) -> Serving {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConnection};
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::Duration;

    const FILES: [&str; 4] = ["ca.key", "ca.pem", "server.key", "server.pem"];

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 86_400)
    }

    fn today() -> WallMs {
        Clock::system().now().wall
    }

    fn load(dir: &Path, now: WallMs) -> Result<ServerTls, TlsSetupError> {
        ServerTls::load_or_create(&Config::default().server, dir, now)
    }

    fn bytes(dir: &Path) -> BTreeMap<&'static str, Vec<u8>> {
        FILES.into_iter().map(|name| (name, fs::read(dir.join(name)).unwrap_or_default())).collect()
    }

    fn client(ca: &Path, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// A whole handshake without a network; the version and protocol agreed on.
    fn shake(tls: &ServerTls, client: ClientConfig, name: &str) -> Result<(ProtocolVersion, Vec<u8>), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(&tls.rustls))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client.protocol_version().unwrap(), client.alpn_protocol().unwrap_or_default().to_vec()))
    }

    #[test]
    fn a_first_start_makes_what_a_client_with_the_ca_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        let mut config = Config::default().server;
        config.listen = "192.0.2.7:8443".parse().unwrap();
        config.public_url = Some("https://queue.example.com/".to_owned());
        let tls = ServerTls::load_or_create(&config, &certs, today()).unwrap();
        assert_eq!((tls.facts.change, tls.facts.ca_created), (Change::Created, true));
        let named = ["127.0.0.1", "192.0.2.7", "::1", "localhost", "queue.example.com"];
        assert_eq!(tls.facts.names, named);
        let ca = tls.facts.ca.clone().unwrap();
        assert_eq!(ca.path, certs.join("ca.pem"));
        for name in ["localhost", "127.0.0.1", "::1", "192.0.2.7", "queue.example.com"] {
            let agreed = shake(&tls, client(&ca.path, &TLS13), name).unwrap();
            assert_eq!(agreed, (ProtocolVersion::TLSv1_3, b"h2".to_vec()), "{name}");
        }
        assert!(shake(&tls, client(&ca.path, &TLS13), "other.example.com").is_err());
    }

    #[test]
    fn a_clock_from_before_there_was_a_sendoff_keeps_the_certificate_and_the_next_start_is_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), today()).unwrap();
        let before = bytes(dir.path());
        let last_wrong = WallMs::new(crate::task::id::CLOCK_MIN.get() - 1);
        for wrong in [WallMs::new(0), last_wrong] {
            assert_eq!(load(dir.path(), wrong).unwrap().facts.change, Change::KeptInDoubt, "{wrong}");
        }
        assert_eq!(load(dir.path(), today()).unwrap().facts.change, Change::Kept);
        assert_eq!(bytes(dir.path()), before);
        let mut other = Config::default().server;
        other.public_url = Some("https://queue.example.com/".to_owned());
        let renewed = ServerTls::load_or_create(&other, dir.path(), last_wrong).unwrap();
        assert_eq!(renewed.facts.change, Change::Renewed, "other names need another certificate");
    }

    #[test]
    fn keys_are_private_and_the_second_start_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        let first = load(&certs, today()).unwrap();
        let mode = |name: &str| fs::metadata(certs.join(name)).unwrap().mode() & 0o777;
        assert_eq!(FILES.map(mode), [0o600, 0o644, 0o600, 0o644]);
        assert_eq!(fs::metadata(&certs).unwrap().mode() & 0o777, 0o700);
        let before = bytes(&certs);
        let second = load(&certs, today()).unwrap();
        assert_eq!(second.facts, TlsFacts { change: Change::Kept, ca_created: false, ..first.facts });
        assert_eq!(bytes(&certs), before);
        let fingerprint = second.facts.ca.unwrap().fingerprint_sha256;
        assert_eq!(fingerprint.split(':').filter(|pair| pair.len() == 2).count(), 32, "{fingerprint}");
    }

    #[test]
    fn tls_1_2_is_refused_unless_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default().server;
        let tls = ServerTls::load_or_create(&config, dir.path(), today()).unwrap();
        let ca = dir.path().join("ca.pem");
        assert!(shake(&tls, client(&ca, &TLS12), "localhost").is_err());
        config.tls.min_version = TlsVersion::V1_2;
        let tls = ServerTls::load_or_create(&config, dir.path(), today()).unwrap();
        for (version, agreed) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            assert_eq!(shake(&tls, client(&ca, version), "localhost").unwrap().0, agreed);
        }
    }

    #[test]
    fn the_certificate_is_renewed_with_30_days_left_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let start = today();
        let first = load(dir.path(), start).unwrap();
        let before = bytes(dir.path());
        let lives = first.facts.expires.since(start);
        assert!(lives < days(90) && lives > days(89), "{lives:?}");
        let last_moment = WallMs::new(first.facts.expires.get() - 30 * 86_400_000);
        assert_eq!(load(dir.path(), last_moment).unwrap().facts.change, Change::Kept);
        let renewed = load(dir.path(), last_moment.plus(Duration::from_secs(1))).unwrap();
        assert_eq!(renewed.facts.change, Change::Renewed);
        assert!(renewed.facts.expires > first.facts.expires);
        let after = bytes(dir.path());
        for name in ["ca.key", "ca.pem", "server.key"] {
            assert_eq!(after[name], before[name], "{name} stays");
        }
        assert_ne!(after["server.pem"], before["server.pem"]);
        assert_eq!(renewed.facts.ca, first.facts.ca);
    }

    #[test]
    fn a_running_server_renews_without_a_new_listener() {
        let dir = tempfile::tempdir().unwrap();
        let now = today();
        let old = WallMs::new(now.get() - 100 * 86_400_000);
        let tls = load(dir.path(), old).unwrap();
        let ca = dir.path().join("ca.pem");
        assert!(shake(&tls, client(&ca, &TLS13), "localhost").is_err(), "it ended ten days ago");
        assert_eq!(tls.refresh(now).unwrap().change, Change::Renewed);
        shake(&tls, client(&ca, &TLS13), "localhost").unwrap();
        assert_eq!(tls.refresh(now).unwrap().change, Change::Kept);
    }

    #[test]
    fn other_names_renew_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), today()).unwrap();
        let mut config = Config::default().server;
        for url in ["https://q.example.com:8443", "https://192.0.2.9", "https://[2001:db8::1]"] {
            config.public_url = Some(url.to_owned());
            let tls = ServerTls::load_or_create(&config, dir.path(), today()).unwrap();
            assert_eq!(tls.facts.change, Change::Renewed, "{url}");
            let tls = ServerTls::load_or_create(&config, dir.path(), today()).unwrap();
            assert_eq!(tls.facts.change, Change::Kept, "{url}");
        }
        config.public_url = Some("nonsense".to_owned());
        let error = ServerTls::load_or_create(&config, dir.path(), today()).unwrap_err();
        assert!(matches!(error, TlsSetupError::NoHost { .. }), "{error}");
    }

    #[test]
    fn what_is_damaged_is_told_and_left_alone() {
        for name in FILES {
            let dir = tempfile::tempdir().unwrap();
            load(dir.path(), today()).unwrap();
            let path = dir.path().join(name);
            fs::write(&path, "-----BEGIN NOTHING-----\n").unwrap();
            let before = bytes(dir.path());
            // Late enough for a renewal, so that every file is needed.
            let error = load(dir.path(), today().plus(days(70))).unwrap_err();
            assert!(matches!(error, TlsSetupError::Damaged { .. }), "{name}: {error}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert_eq!(bytes(dir.path()), before, "{name}");
        }
    }

    #[test]
    fn a_certificate_or_key_from_elsewhere_is_told_and_left_alone() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        load(here.path(), today()).unwrap();
        load(there.path(), today()).unwrap();
        fs::copy(there.path().join("server.pem"), here.path().join("server.pem")).unwrap();
        let error = load(here.path(), today()).unwrap_err();
        assert!(matches!(error, TlsSetupError::Foreign { .. }), "{error}");
        fs::remove_file(here.path().join("server.pem")).unwrap();
        fs::copy(there.path().join("ca.key"), here.path().join("ca.key")).unwrap();
        let error = load(here.path(), today()).unwrap_err();
        assert!(error.to_string().contains("not the key of ca.pem"), "{error}");
        assert!(!here.path().join("server.pem").exists());
    }

    #[test]
    fn an_exposed_key_is_refused() {
        for name in ["server.key", "ca.key"] {
            let dir = tempfile::tempdir().unwrap();
            load(dir.path(), today()).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
            let error = load(dir.path(), today().plus(days(70))).unwrap_err();
            assert!(matches!(error, TlsSetupError::File(FileError::Exposed { .. })), "{name}: {error}");
        }
    }

    #[test]
    fn a_ca_key_kept_elsewhere_is_only_missed_at_renewal() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), today()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert_eq!(load(dir.path(), today()).unwrap().facts.change, Change::Kept);
        let error = load(dir.path(), today().plus(days(70))).unwrap_err();
        assert!(matches!(error, TlsSetupError::Missing { .. }), "{error}");
    }

    #[test]
    fn a_crash_between_two_files_of_the_first_start_heals() {
        for (kept, trusts_old_ca) in
            [(&["ca.key"][..], true), (&["ca.key", "ca.pem", "server.key"], true), (&[], false)]
        {
            let dir = tempfile::tempdir().unwrap();
            load(dir.path(), today()).unwrap();
            let old_ca = dir.path().join("old-ca.pem");
            fs::copy(dir.path().join("ca.pem"), &old_ca).unwrap();
            for name in FILES.into_iter().filter(|name| !kept.contains(name)) {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
            let tls = load(dir.path(), today()).unwrap();
            assert_eq!(tls.facts.change, Change::Created);
            assert_eq!(shake(&tls, client(&old_ca, &TLS13), "localhost").is_ok(), trusts_old_ca, "{kept:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), today()).unwrap();
        fs::remove_file(dir.path().join("server.key")).unwrap();
        let tls = load(dir.path(), today()).unwrap();
        shake(&tls, client(&dir.path().join("ca.pem"), &TLS13), "localhost").unwrap();
    }

    #[test]
    fn a_ca_at_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path(), today()).unwrap();
        let almost = today().plus(days(3_645));
        let tls = load(dir.path(), almost).unwrap();
        assert!(tls.facts.expires < almost.plus(days(6)), "no certificate outlives its CA");
        assert_eq!(
            load(dir.path(), almost).unwrap().facts.change,
            Change::Kept,
            "and it is not renewed at every start"
        );
        let error = load(dir.path(), today().plus(days(3_650))).unwrap_err();
        assert!(matches!(error, TlsSetupError::CaExpired { .. }), "{error}");
    }

    #[test]
    fn configured_files_are_served_and_their_faults_named() {
        let dir = tempfile::tempdir().unwrap();
        let (own, unused) = (dir.path().join("own"), dir.path().join("unused"));
        load(&own, today()).unwrap();
        let mut config = Config::default().server;
        config.tls.certificate = Some(own.join("server.pem"));
        config.tls.key = Some(own.join("server.key"));
        let tls = ServerTls::load_or_create(&config, &unused, today()).unwrap();
        assert_eq!((tls.facts.ca.clone(), tls.facts.change), (None, Change::Kept));
        assert!(!unused.exists());
        shake(&tls, client(&own.join("ca.pem"), &TLS13), "localhost").unwrap();
        let fault = |config: &ServerConfig| ServerTls::load_or_create(config, &unused, today()).unwrap_err();
        config.tls.key = Some(own.join("ca.key"));
        assert!(matches!(fault(&config), TlsSetupError::Mismatch { .. }));
        config.tls.key = Some(own.join("absent.key"));
        assert!(fault(&config).to_string().contains("absent.key is missing"));
        fs::write(own.join("empty.pem"), "").unwrap();
        config.tls.certificate = Some(own.join("empty.pem"));
        assert!(matches!(fault(&config), TlsSetupError::Damaged { .. }));
    }
}
