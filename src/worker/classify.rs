//! What class of outcome an error of the HTTP client is. Pure; by type, never by text.

use std::io;

use crate::security::egress::Refusal;
use crate::security::http_answer::cause;
use crate::task::OutcomeClass;

/// The class of an error that came instead of an answer's head, or within its body.
pub(super) fn class_of(error: &reqwest::Error) -> OutcomeClass {
    if cause::<Refusal>(error).is_some() {
        return OutcomeClass::EgressRefused;
    }
    if error.is_dns() {
        return OutcomeClass::Dns;
    }
    if error.is_connect() {
        return class_of_connect(error);
    }
    // The connection was there, and something went wrong on it: closed, reset, or not speaking HTTP.
    OutcomeClass::Reset
}

/// The TLS layer wraps all of its errors in an [`io::Error`] of its own; those of TCP come as the system gave them.
fn class_of_connect(error: &reqwest::Error) -> OutcomeClass {
    if let Some(tls) = cause::<rustls::Error>(error) {
        return class_of_tls(tls);
    }
    match cause::<io::Error>(error).map(io::Error::get_ref) {
        Some(Some(_wrapped)) => OutcomeClass::TlsConnect,
        Some(None) | None => OutcomeClass::Connect,
    }
}

fn class_of_tls(error: &rustls::Error) -> OutcomeClass {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; all else is the handshake's")]
    match error {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::UnsupportedNameType
        | rustls::Error::NoCertificatesPresented => OutcomeClass::CertificateRefused,
        _ => OutcomeClass::TlsConnect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_io_errors_wrap_is_found() {
        let error = Outer(io::Error::other(io::Error::other(rustls::Error::DecryptError)));
        assert_eq!(cause::<rustls::Error>(&error), Some(&rustls::Error::DecryptError));
        assert!(cause::<Refusal>(&error).is_none());
    }

    #[test]
    fn only_the_certificates_own_faults_are_final() {
        let invalid = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert_eq!(class_of_tls(&invalid), OutcomeClass::CertificateRefused);
        assert_eq!(class_of_tls(&rustls::Error::DecryptError), OutcomeClass::TlsConnect);
        assert_eq!(class_of_tls(&rustls::Error::General("no common version".to_owned())), OutcomeClass::TlsConnect);
    }
}
