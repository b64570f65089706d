//! Signed assertions (RFC 7523) by which we ask issuers for tokens, and the keys that sign them.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::json;

use super::secret::Secret;
use crate::clock::{Chance, Now};

/// A key that signs assertions.
pub(super) struct SigningKey {
    header: Header,
    key: EncodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.header.alg).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A private key in PEM: RSA (`RS256`), P-256 (`ES256`) or Ed25519 (`EdDSA`). The error says what is wrong, not with what.
    pub(super) fn parse(pem: &Secret, key_id: Option<&str>) -> Result<Self, String> {
        let pem = pem.expose().as_bytes();
        let found = EncodingKey::from_rsa_pem(pem)
            .map(|key| (Algorithm::RS256, key))
            .or_else(|_not_rsa| EncodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_not_ec| EncodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)));
        let expected = "expected a private key in PEM: RSA of 2048 bits or more, P-256 or Ed25519 (PKCS #8)".to_owned();
        let Ok((algorithm, key)) = found else { return Err(expected) };
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(algorithm) };
        let signing = Self { header, key };
        // A key that reads and cannot sign (too short, another curve) is found now, and not by the first task.
        if signing.sign(&json!({})).is_err() {
            return Err(expected);
        }
        Ok(signing)
    }

    /// These claims, signed.
    pub(super) fn sign<T: Serialize>(&self, claims: &T) -> Result<String, String> {
        encode(&self.header, claims, &self.key).map_err(|_error| "the key does not sign".to_owned())
    }
}

/// When an assertion is made and when it ends, in seconds since 1970.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Lifetime {
    pub(super) iat: u64,
    pub(super) exp: u64,
}

impl Lifetime {
    /// From now on for so long.
    pub(super) fn of(now: Now, life: Duration) -> Self {
        let iat = u64::try_from(now.wall.get() / 1_000).unwrap_or(0);
        Self { iat, exp: iat.saturating_add(life.as_secs()) }
    }
}

/// A name for one assertion: it is used once, and need not be secret.
pub(super) fn unique(chance: &mut Chance) -> String {
    let (high, low) = (chance.draw(), chance.draw());
    uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> Secret {
        Secret::of(&rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem())
    }

    #[test]
    fn the_algorithm_is_that_of_the_key() {
        let algorithm = |pem: &Secret| SigningKey::parse(pem, Some("k1")).map(|key| (key.header.alg, key.header.kid));
        let kid = || Some("k1".to_owned());
        assert_eq!(algorithm(&pem(&rcgen::PKCS_ECDSA_P256_SHA256)), Ok((Algorithm::ES256, kid())));
        assert_eq!(algorithm(&pem(&rcgen::PKCS_ED25519)), Ok((Algorithm::EdDSA, kid())));
        assert_eq!(algorithm(&pem(&rcgen::PKCS_RSA_SHA256)), Ok((Algorithm::RS256, kid())));
    }

    #[test]
    fn what_cannot_sign_is_refused_and_not_shown() {
        for bad in [Secret::of("hunter2"), pem(&rcgen::PKCS_ECDSA_P384_SHA384)] {
            let error = SigningKey::parse(&bad, None).unwrap_err();
            assert!(error.starts_with("expected a private key in PEM") && !error.contains("hunter2"), "{error}");
        }
        let key = SigningKey::parse(&pem(&rcgen::PKCS_ED25519), None).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { algorithm: EdDSA, .. }");
    }

    #[test]
    fn assertions_have_names_of_their_own() {
        let mut chance = Chance::from_seed(1);
        assert_ne!(unique(&mut chance), unique(&mut chance));
    }
}
