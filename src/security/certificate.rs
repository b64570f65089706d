//! The server's certificate as it lies on disk, for people who ask: what it says, and another in its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::local_ca::{self, Wanted, damaged, fingerprint, names_of, parse_certificate, validity};
use super::private_file;
use super::server_tls::{Source, TlsSetupError};
use crate::config::ServerConfig;
use crate::task::WallMs;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Where it lies.
    pub path: PathBuf,
    /// Whom it names as its subject.
    pub subject: String,
    /// Whom it names as its issuer.
    pub issuer: String,
    /// The names and addresses that it is for, sorted.
    pub names: Vec<String>,
    /// From when on it is good.
    pub begins: WallMs,
    /// When it ends.
    pub expires: WallMs,
    /// SHA-256 of the certificate (DER), `AB:CD:…`.
    pub fingerprint_sha256: String,
}

/// The certificate that a server serves, and the local CA that issued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// What is served.
    pub server: CertificateFacts,
    /// What clients trust; `None` for configured files.
    pub ca: Option<CertificateFacts>,
}

/// Reads the certificate that `server` asks for. Nothing is made: `None` when there is none of the local CA yet.
pub fn on_disk(server: &ServerConfig, certs_dir: &Path) -> Result<Option<OnDisk>, TlsSetupError> {
    match Source::of(server, certs_dir)? {
        Source::Files { certificate, .. } => {
            let missing = || TlsSetupError::Missing { path: certificate.clone(), needed_for: certificate.clone() };
            let server = read(&certificate)?.ok_or_else(missing)?;
            Ok(Some(OnDisk { server, ca: None }))
        }
        Source::Local { dir, .. } => {
            let [ca, leaf, _] = local_ca::files_served(&dir);
            let Some(server) = read(&leaf)? else { return Ok(None) };
            Ok(Some(OnDisk { server, ca: read(&ca)? }))
        }
    }
}

/// Has the local CA issue another certificate, good from now on. A server that runs serves it within seconds. `None`
/// for configured files, which are somebody else's to renew.
pub fn renew(server: &ServerConfig, certs_dir: &Path, now: WallMs) -> Result<Option<OnDisk>, TlsSetupError> {
    let Source::Local { dir, names } = Source::of(server, certs_dir)? else { return Ok(None) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    local_ca::certificate(&dir, &names, &provider, now, Wanted::Another)?;
    on_disk(server, certs_dir)
}

fn read(path: &Path) -> Result<Option<CertificateFacts>, TlsSetupError> {
    let Some(pem) = private_file::read(path)? else { return Ok(None) };
    let der: CertificateDer<'static> = parse_certificate(path, &pem)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|source| damaged(path, &source))?;
    let (begins, expires) = validity(&der, path)?;
    Ok(Some(CertificateFacts {
        path: path.to_owned(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        names: names_of(&der, path)?.into_iter().collect(),
        begins,
        expires,
        fingerprint_sha256: fingerprint(&der),
    }))
}
