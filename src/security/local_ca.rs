//! The local CA and the server certificate it issues: made on the first start, checked on every other, renewed in time,
//! never overwritten when something is wrong with them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::private_file::{self, PUBLIC, SECRET};
use super::server_tls::{Change, LocalCa, TlsSetupError};
use crate::task::WallMs;
use crate::task::id::CLOCK_MIN;

const DAY: Duration = Duration::from_secs(86_400);
/// How long the CA is good for: ten years.
const CA_LIFE: Duration = DAY.saturating_mul(3_650);
/// How long a server certificate is good for, from `BACKDATED` before it is made.
const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// A certificate with less time than this left is renewed.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);
/// Certificates begin so much before they are made: for clients whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
const SERIAL_BYTES: usize = 16;

/// The four files in `certs_dir`.
struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    leaf: PathBuf,
    leaf_key: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            leaf: dir.join("server.pem"),
            leaf_key: dir.join("server.key"),
        }
    }
}

/// The files that decide what is served: all but the CA's key.
pub(super) fn files_served(dir: &Path) -> [PathBuf; 3] {
    let Files { ca, leaf, leaf_key, .. } = Files::of(dir);
    [ca, leaf, leaf_key]
}

/// Refuses a directory whose CA is gone.
pub(super) fn is_there(dir: &Path) -> Result<(), TlsSetupError> {
    let Files { ca, leaf, .. } = Files::of(dir);
    match private_file::read(&ca)? {
        Some(_) => Ok(()),
        None => Err(TlsSetupError::Missing { path: ca, needed_for: leaf }),
    }
}

/// A certificate of the local CA, ready to serve.
pub(super) struct Local {
    pub(super) key: CertifiedKey,
    pub(super) ca: LocalCa,
    pub(super) ca_created: bool,
    pub(super) expires: WallMs,
    pub(super) change: Change,
}

/// What is fixed while one certificate is looked at or made.
struct Context<'a> {
    files: Files,
    provider: &'a Arc<CryptoProvider>,
    names: &'a BTreeSet<String>,
    now: WallMs,
}

/// The CA as it lies on disk.
struct Ca {
    der: CertificateDer<'static>,
    expires: WallMs,
    created: bool,
}

/// What is asked of the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The certificate that is there, or another where it is about to end or names other hosts.
    AGoodOne,
    /// Another, however good the one is that is there.
    Another,
}

/// A certificate for `names` of the CA in `dir`; the CA is made too, if there is none.
pub(super) fn certificate(
    dir: &Path,
    names: &BTreeSet<String>,
    provider: &Arc<CryptoProvider>,
    now: WallMs,
    wanted: Wanted,
) -> Result<Local, TlsSetupError> {
    private_file::ensure_dir(dir)?;
    let files = Files::of(dir);
    let context = Context { files, provider, names, now };
    let ca = context.ca()?;
    let old = context.leaf(&ca)?;
    let old_key = context.leaf_key()?;
    let kept = match (&old, &old_key) {
        (Some(leaf), Some(key)) if wanted == Wanted::AGoodOne && context.still_good(leaf, &ca)? => {
            CertifiedKey::from_der(vec![leaf.clone()], key.1.clone_key(), provider).ok().zip(Some(leaf.clone()))
        }
        _ => None,
    };
    let (key, leaf, change) = if let Some((key, leaf)) = kept {
        (key, leaf, if context.in_doubt() { Change::KeptInDoubt } else { Change::Kept })
    } else {
        let leaf = context.issue(&ca, old_key)?;
        let change = if old.is_some() { Change::Renewed } else { Change::Created };
        let key = context.leaf_key()?.ok_or_else(|| context.missing(&context.files.leaf_key))?;
        (CertifiedKey::from_der(vec![leaf.clone()], key.1, provider)?, leaf, change)
    };
    let expires = validity(&leaf, &context.files.leaf)?.1;
    let ca_created = ca.created;
    let ca = LocalCa { path: context.files.ca, fingerprint_sha256: fingerprint(&ca.der) };
    Ok(Local { key, ca, ca_created, expires, change })
}

impl Context<'_> {
    /// The CA that is there, or a new one.
    fn ca(&self) -> Result<Ca, TlsSetupError> {
        let path = &self.files.ca;
        let (der, created) = match private_file::read(path)? {
            Some(pem) => (parse_certificate(path, &pem)?, false),
            None => (self.make_ca()?, true),
        };
        let (_, expires) = validity(&der, path)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|source| damaged(path, &source))?;
        if !parsed.is_ca() {
            return Err(damaged(path, &"it is no CA certificate"));
        }
        if self.now >= expires {
            return Err(TlsSetupError::CaExpired { path: path.clone(), expired: expires });
        }
        Ok(Ca { der, expires, created })
    }

    /// A CA certificate for the key that is there, or for a new one. The key is written first: a crash between the two
    /// leaves a key without a certificate, which the next start goes on from.
    fn make_ca(&self) -> Result<CertificateDer<'static>, TlsSetupError> {
        let key = if let Some(key) = self.ca_key()? {
            key
        } else {
            let key = KeyPair::generate()?;
            private_file::create(&self.files.ca_key, &key.serialize_pem(), SECRET)?;
            key
        };
        let mut params = self.params(CA_LIFE, None)?;
        // Named after its key: several servers' CAs in one trust store can be told apart.
        let mark: String = fingerprint(&key.subject_public_key_info()).chars().filter(|c| *c != ':').take(8).collect();
        params.distinguished_name.push(DnType::CommonName, format!("sendoff local CA {mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        private_file::create(&self.files.ca, &certificate.pem(), PUBLIC)?;
        Ok(certificate.der().clone())
    }

    fn ca_key(&self) -> Result<Option<KeyPair>, TlsSetupError> {
        let path = &self.files.ca_key;
        let Some(pem) = private_file::read_secret(path)? else { return Ok(None) };
        KeyPair::from_pem(&pem).map(Some).map_err(|source| damaged(path, &source))
    }

    /// The server certificate that is there, if it is one of this CA.
    fn leaf(&self, ca: &Ca) -> Result<Option<CertificateDer<'static>>, TlsSetupError> {
        let path = &self.files.leaf;
        let Some(pem) = private_file::read(path)? else { return Ok(None) };
        let leaf = parse_certificate(path, &pem)?;
        let (begins, _) = validity(&leaf, path)?;
        if self.is_issued_by(ca, &leaf, begins)? {
            return Ok(Some(leaf));
        }
        Err(TlsSetupError::Foreign { path: path.clone(), ca: self.files.ca.clone() })
    }

    fn leaf_key(&self) -> Result<Option<(KeyPair, PrivateKeyDer<'static>)>, TlsSetupError> {
        let path = &self.files.leaf_key;
        let Some(pem) = private_file::read_secret(path)? else { return Ok(None) };
        let pair = KeyPair::from_pem(&pem).map_err(|source| damaged(path, &source))?;
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| damaged(path, &source))?;
        Ok(Some((pair, der)))
    }

    /// Whether a client that trusts `ca` would have accepted `leaf` when it began.
    fn is_issued_by(&self, ca: &Ca, leaf: &CertificateDer<'_>, begins: WallMs) -> Result<bool, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).map_err(|source| damaged(&self.files.ca, &source))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(self.provider))
            .build()
            .map_err(|source| damaged(&self.files.ca, &source))?;
        let name = ServerName::try_from("localhost").map_err(|source| damaged(&self.files.leaf, &source))?;
        let at = UnixTime::since_unix_epoch(since_epoch(begins));
        match verifier.verify_server_cert(leaf, &[], &name, &[], at) {
            // Names are looked at last: everything else was in order.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// Whether `leaf` has enough time left and names exactly what it should.
    fn still_good(&self, leaf: &CertificateDer<'_>, ca: &Ca) -> Result<bool, TlsSetupError> {
        let path = &self.files.leaf;
        let (begins, expires) = validity(leaf, path)?;
        let needed_until = self.now.plus(RENEW_BEFORE).min(ca.expires);
        let in_time = self.in_doubt() || (begins <= self.now && needed_until <= expires);
        Ok(in_time && names_of(leaf, path)? == *self.names)
    }

    /// Whether the clock is certainly wrong: a certificate of its date would be good for nobody.
    fn in_doubt(&self) -> bool {
        self.now < CLOCK_MIN
    }

    /// Has the CA issue a certificate for the key that is there, or for a new one, and puts it in place.
    fn issue(
        &self,
        ca: &Ca,
        key: Option<(KeyPair, PrivateKeyDer<'static>)>,
    ) -> Result<CertificateDer<'static>, TlsSetupError> {
        let ca_key = self.ca_key()?.ok_or_else(|| self.missing(&self.files.ca_key))?;
        let issuer = Issuer::from_ca_cert_der(&ca.der, ca_key).map_err(|source| damaged(&self.files.ca, &source))?;
        let key = if let Some((key, _)) = key {
            key
        } else {
            let key = KeyPair::generate()?;
            private_file::create(&self.files.leaf_key, &key.serialize_pem(), SECRET)?;
            key
        };
        let mut params = self.params(LEAF_LIFE, Some(ca.expires))?;
        params.distinguished_name.push(DnType::CommonName, "sendoff server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        let (begins, _) = validity(certificate.der(), &self.files.leaf)?;
        if !self.is_issued_by(ca, certificate.der(), begins)? {
            return Err(damaged(&self.files.ca_key, &"it is not the key of ca.pem"));
        }
        private_file::replace(&self.files.leaf, &certificate.pem(), PUBLIC)?;
        Ok(certificate.der().clone())
    }

    /// What CA and server certificate have in common; the names are the server's (empty for a CA that has no end to
    /// respect).
    fn params(&self, life: Duration, end: Option<WallMs>) -> Result<CertificateParams, TlsSetupError> {
        let names: Vec<String> = if end.is_some() { self.names.iter().cloned().collect() } else { Vec::new() };
        let mut params = CertificateParams::new(names)?;
        let begins = since_epoch(self.now).saturating_sub(BACKDATED);
        let ends = end.map_or(begins + life, |end| (begins + life).min(since_epoch(end)));
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        (params.not_before, params.not_after) = (epoch + begins, epoch + ends);
        let mut serial = [0_u8; SERIAL_BYTES];
        self.provider.secure_random.fill(&mut serial).or(Err(TlsSetupError::NoRandomness))?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        Ok(params)
    }

    fn missing(&self, path: &Path) -> TlsSetupError {
        TlsSetupError::Missing { path: path.to_owned(), needed_for: self.files.leaf.clone() }
    }
}

/// Names to which a certificate of this server is issued: how it is called on this machine, plus `more` (host names or
/// addresses).
pub(super) fn names(more: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).chain(more).collect()
}

pub(super) fn damaged(path: &Path, why: &dyn std::fmt::Display) -> TlsSetupError {
    TlsSetupError::Damaged { path: path.to_owned(), why: why.to_string() }
}

/// The first certificate of a PEM text.
pub(super) fn parse_certificate(path: &Path, pem: &str) -> Result<CertificateDer<'static>, TlsSetupError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| damaged(path, &source))
}

/// From when until when a certificate is good.
pub(super) fn validity(der: &CertificateDer<'_>, path: &Path) -> Result<(WallMs, WallMs), TlsSetupError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|source| damaged(path, &source))?;
    let ms = |time: x509_parser::time::ASN1Time| WallMs::new(time.timestamp().saturating_mul(1_000));
    Ok((ms(parsed.validity().not_before), ms(parsed.validity().not_after)))
}

/// The names and addresses that a certificate is for.
pub(super) fn names_of(der: &CertificateDer<'_>, path: &Path) -> Result<BTreeSet<String>, TlsSetupError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|source| damaged(path, &source))?;
    let extension = parsed.subject_alternative_name().map_err(|source| damaged(path, &source))?;
    let text = |name: &GeneralName<'_>| {
        if let GeneralName::IPAddress(bytes) = name {
            address(bytes)
        } else if let GeneralName::DNSName(name) = name {
            (*name).to_owned()
        } else {
            name.to_string()
        }
    };
    Ok(extension.map(|extension| extension.value.general_names.iter().map(text).collect()).unwrap_or_default())
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).map_or_else(|_| format!("{bytes:?}"), |address| address.to_string())
}

/// SHA-256 as people compare it: `AB:CD:…`.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn since_epoch(at: WallMs) -> Duration {
    at.since(WallMs::new(0))
}
