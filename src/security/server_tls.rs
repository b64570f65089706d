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

use super::local_ca::{self, damaged, validity};
use super::private_file::{self, FileError};
use crate::config::{ServerConfig, TlsVersion};
use crate::task::WallMs;

/// The server's TLS: hand [`ServerTls::rustls`] to the listener, keep this for [`ServerTls::refresh`].
#[derive(Debug)]
pub struct ServerTls {
    /// What the listener serves with. Follows every [`ServerTls::refresh`] by itself.
    pub rustls: Arc<rustls::ServerConfig>,
    /// What was found or made at start.
    pub facts: TlsFacts,
    current: Arc<Current>,
    source: Source,
}

/// What there is to tell about the certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The local CA that clients need to trust; `None` for configured certificates.
    pub ca: Option<LocalCa>,
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
    /// There was none.
    Created,
    /// The one that was there was about to end, or named other hosts.
    Renewed,
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
        "the local CA {} ended on {expired}: move it, ca.key, server.pem and server.key away to have new ones made, and \
         give the new ca.pem to the clients",
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
enum Source {
    /// The local CA in this directory, for these names.
    Local { dir: PathBuf, names: BTreeSet<String> },
    /// Configured files.
    Files { certificate: PathBuf, key: PathBuf },
}

impl ServerTls {
    /// The TLS that `server` asks for: its configured certificate, or one of the local CA in `certs_dir`, which is made
    /// on the first start (CA for ten years, certificate for 90 days, for `localhost`, `127.0.0.1`, `::1`, the listen
    /// address and the host of `public_url`), and renewed when less than 30 days are left or the names changed.
    pub fn load_or_create(server: &ServerConfig, certs_dir: &Path, now: WallMs) -> Result<Self, TlsSetupError> {
        let source = match (&server.tls.certificate, &server.tls.key) {
            (Some(certificate), Some(key)) => Source::Files { certificate: certificate.clone(), key: key.clone() },
            _ => Source::Local { dir: certs_dir.to_owned(), names: names(server)? },
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (key, facts) = source.load(&provider, now)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let rustls = Arc::new(rustls_config(provider, server.tls.min_version, Arc::clone(&current))?);
        Ok(Self { rustls, facts, current, source })
    }

    /// Looks at the certificate again: renews one of the local CA when it is time, reads configured files anew. New
    /// connections get the result; on an error everything stays as it was.
    pub fn refresh(&self, now: WallMs) -> Result<TlsFacts, TlsSetupError> {
        let (key, facts) = self.source.load(self.rustls.crypto_provider(), now)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(facts)
    }
}

impl Source {
    fn load(&self, provider: &Arc<CryptoProvider>, now: WallMs) -> Result<(CertifiedKey, TlsFacts), TlsSetupError> {
        match self {
            Self::Local { dir, names } => {
                let local = local_ca::load_or_issue(dir, names, provider, now)?;
                let facts = TlsFacts { ca: Some(local.ca), expires: local.expires, change: local.change };
                Ok((local.key, facts))
            }
            Self::Files { certificate, key } => {
                let (chain, expires) = read_chain(certificate)?;
                let pem = configured(key, certificate)?;
                let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| damaged(key, &source))?;
                let certified = CertifiedKey::from_der(chain, der, provider).map_err(|source| {
                    TlsSetupError::Mismatch { certificate: certificate.clone(), key: key.clone(), source }
                })?;
                Ok((certified, TlsFacts { ca: None, expires, change: Change::Kept }))
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
    current: Arc<Current>,
) -> Result<rustls::ServerConfig, TlsSetupError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match oldest {
        TlsVersion::V1_3 => &[&TLS13],
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions are resumed without a table of them in memory.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
