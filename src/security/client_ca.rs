//! Certificates by which clients say who they are: from whom they have to be, and what is in them.
//!
//! rustls checks one in the handshake, and refuses a bad one there. That alone would not do: a connection may live for
//! longer than the certificate or the CA in force, and a session that is resumed is not checked again. So whoever asks is
//! checked with each request, which a memory of what was checked makes cheap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::server_tls::TlsSetupError;
use crate::config::{SanKind, SanName};
use crate::task::WallMs;
use crate::task::limits::{CERTIFICATE_NAME_LEN_MAX, CLIENT_CERTIFICATES_KEPT_MAX};

/// Who may issue client certificates. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Issuers(Option<Arc<dyn ClientCertVerifier>>);

impl Issuers {
    /// The CAs in this file; without one, clients are not asked for certificates.
    pub(super) fn read(path: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Self, TlsSetupError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let wrong = |why: String| TlsSetupError::ClientCa { path: path.to_owned(), why };
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = builder.allow_unauthenticated().build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Some(verifier)))
    }
}

/// What a good certificate says.
#[derive(Debug)]
pub struct ClientNames {
    /// The names for which it was issued (subject alternative names of the kinds that grants can be for).
    pub names: BTreeSet<SanName>,
    expires: WallMs,
}

/// The check of client certificates that is in force.
#[derive(Debug)]
pub struct ClientCertificates {
    provider: Arc<CryptoProvider>,
    issuers: RwLock<Issuers>,
    /// What was good under them, by the digest of the chain.
    checked: Mutex<BTreeMap<[u8; 32], Arc<ClientNames>>>,
}

impl ClientCertificates {
    pub(super) fn new(provider: &Arc<CryptoProvider>, issuers: Issuers) -> Self {
        Self { provider: Arc::clone(provider), issuers: RwLock::new(issuers), checked: Mutex::default() }
    }

    /// Puts other issuers in force, at once and for all connections.
    pub(super) fn replace(&self, issuers: Issuers) {
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = issuers;
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What the certificate says with which this chain (DER) begins, if it is good at `now`.
    pub fn recognise(&self, chain: &[Vec<u8>], now: WallMs) -> Option<Arc<ClientNames>> {
        let mut hash = Sha256::new();
        for certificate in chain {
            hash.update((certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = checked.get(&digest) {
            return Some(Arc::clone(names)).filter(|names| now < names.expires);
        }
        // Under the lock, so that nothing is remembered of issuers that were replaced meanwhile.
        let names = Arc::new(self.check(chain, now)?);
        if checked.len() >= CLIENT_CERTIFICATES_KEPT_MAX {
            checked.clear();
        }
        checked.insert(digest, Arc::clone(&names));
        Some(names)
    }

    fn check(&self, chain: &[Vec<u8>], now: WallMs) -> Option<ClientNames> {
        let verifier = self.current()?;
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, others) = chain.split_first()?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.get()).ok()?));
        verifier.verify_client_cert(leaf, others, at).ok()?;
        let ends =
            chain.iter().map(|der| Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp()));
        let ends = ends.min()??;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let names = parsed.subject_alternative_name().ok()?.map(|names| names.value.general_names.iter());
        let names = names.into_iter().flatten().filter_map(name).collect();
        // The second that it names is still good.
        Some(ClientNames { names, expires: WallMs::new(ends.saturating_add(1).saturating_mul(1_000)) })
    }

    fn current(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// A name that a grant can be for. One that is very long, or has control characters in it, is none.
fn name(name: &GeneralName<'_>) -> Option<SanName> {
    let (kind, text) = if let GeneralName::DNSName(name) = name {
        (SanKind::Dns, *name)
    } else if let GeneralName::URI(uri) = name {
        (SanKind::Uri, *uri)
    } else if let GeneralName::RFC822Name(address) = name {
        (SanKind::Email, *address)
    } else {
        return None;
    };
    let fits = (1..=CERTIFICATE_NAME_LEN_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
    fits.then(|| SanName::new(kind, text))
}

/// Delegates to what is in force, because a listener keeps the verifier that it has begun with. A client without a
/// certificate may still show a key.
impl ClientCertVerifier for ClientCertificates {
    fn offer_client_auth(&self) -> bool {
        self.current().is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: they would have to outlive what is in force. A client then sends the certificate that it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier =
            self.current().ok_or_else(|| Error::General("no client certificate was asked for".to_owned()))?;
        verifier.verify_client_cert(leaf, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    const NOON: WallMs = WallMs::new(1_763_985_600_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A certificate that begins and ends with these years.
    fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, years: (i32, i32)) -> Vec<Vec<u8>> {
        let mut params = CertificateParams::new(["Robot.Example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://a/B".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("me@a.example".try_into().unwrap()));
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
        vec![params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().to_vec()]
    }

    fn issuers(pem: &str) -> Result<Issuers, TlsSetupError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        Issuers::read(Some(file.path()), &Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
    }

    fn in_force(issuers: Issuers) -> ClientCertificates {
        ClientCertificates::new(&Arc::new(rustls::crypto::aws_lc_rs::default_provider()), issuers)
    }

    #[test]
    fn a_certificate_says_its_names_while_it_is_good_and_not_a_second_longer() {
        let ca = authority();
        let certificates = in_force(issuers(&ca.pem()).unwrap());
        let chain = leaf(&ca, (2025, 2026));
        let found = certificates.recognise(&chain, NOON).unwrap();
        let names: Vec<String> = found.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["dns:robot.example", "uri:spiffe://a/B", "email:me@a.example"]);
        let end = WallMs::parse("2026-01-01T00:00:00Z").unwrap();
        let last = WallMs::new(end.get() + 999);
        for at in [last, last] {
            assert!(certificates.recognise(&chain, at).is_some(), "remembered or not");
        }
        assert!(certificates.recognise(&chain, WallMs::new(end.get() + 1_000)).is_none(), "remembered");
        let fresh = in_force(issuers(&ca.pem()).unwrap());
        assert!(fresh.recognise(&chain, end.plus(DAY)).is_none(), "not remembered");
        assert!(fresh.recognise(&leaf(&ca, (2027, 2028)), NOON).is_none(), "not yet");
        assert!(fresh.recognise(&leaf(&authority(), (2025, 2026)), NOON).is_none(), "from elsewhere");
        assert!(fresh.recognise(&[], NOON).is_none());
        assert!(fresh.recognise(&[vec![0x30]], NOON).is_none());
    }

    #[test]
    fn names_that_could_not_be_told_are_passed_over() {
        let long = |len: usize| "x".repeat(len);
        let found = |text: &str| name(&GeneralName::URI(text)).is_some();
        assert!(found(&long(CERTIFICATE_NAME_LEN_MAX)) && !found(&long(CERTIFICATE_NAME_LEN_MAX + 1)));
        assert!(!found("") && !found("a\nb"));
        assert!(name(&GeneralName::IPAddress(&[127, 0, 0, 1])).is_none());
    }

    #[test]
    fn another_ca_holds_at_once_for_certificates_that_were_good_before() {
        let (first, second) = (authority(), authority());
        let certificates = in_force(issuers(&first.pem()).unwrap());
        let (old, new) = (leaf(&first, (2025, 2026)), leaf(&second, (2025, 2026)));
        assert!(certificates.recognise(&old, NOON).is_some() && certificates.recognise(&new, NOON).is_none());
        certificates.replace(issuers(&second.pem()).unwrap());
        assert!(certificates.recognise(&old, NOON).is_none() && certificates.recognise(&new, NOON).is_some());
        certificates.replace(issuers(&format!("{}{}", first.pem(), second.pem())).unwrap());
        assert!(certificates.recognise(&old, NOON).is_some() && certificates.recognise(&new, NOON).is_some());
        assert!(certificates.offer_client_auth());
        let nobody = Issuers::read(None, &certificates.provider).unwrap();
        certificates.replace(nobody);
        assert!(certificates.recognise(&new, NOON).is_none() && !certificates.offer_client_auth());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let ca = authority();
        let certificates = in_force(issuers(&ca.pem()).unwrap());
        let chain = leaf(&ca, (2025, 2026));
        // One leaf with other certificates behind it is another chain.
        let others: Vec<Vec<u8>> = (0..7).map(|_| authority().der().to_vec()).collect();
        for at in 0..=CLIENT_CERTIFICATES_KEPT_MAX {
            let behind = (0..7).filter(|bit| at >> bit & 1 == 1).map(|bit: usize| others[bit].clone());
            let chain: Vec<Vec<u8>> =
                chain.iter().cloned().chain(behind).chain(vec![others[0].clone(); at / 128]).collect();
            let found = certificates.recognise(&chain, NOON);
            assert!(found.is_some(), "{at}");
            assert!(certificates.checked.lock().unwrap().len() <= CLIENT_CERTIFICATES_KEPT_MAX);
        }
    }

    #[test]
    fn a_file_without_certificates_is_told() {
        for wrong in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"] {
            let error = issuers(wrong).unwrap_err();
            assert!(matches!(error, TlsSetupError::ClientCa { .. }), "{wrong}: {error}");
        }
        let absent = Issuers::read(Some(Path::new("absent.pem")), &in_force(Issuers(None)).provider).unwrap_err();
        assert!(absent.to_string().contains("absent.pem"), "{absent}");
    }
}
