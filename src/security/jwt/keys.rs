//! The keys of an issuer (JWK Set, RFC 7517), and which of them may have signed a token.
//!
//! A key decides how it is used: by its `alg` where it has one, else by its type. What cannot be used is passed over, so
//! that an issuer may have keys of kinds that are not known here.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::task::limits::ISSUER_KEYS_MAX;

/// A public key for signatures.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// What it is for; never empty.
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// Which key a token says has signed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) algorithm: Algorithm,
}

/// What there is of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// It.
    Key(T),
    /// A key of this id, for other algorithms.
    WrongAlgorithm,
    /// No key of this id; or several that could be meant by a token that names none.
    Nothing,
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let to_verify = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let of_type = of_type(&jwk.algorithm);
        let algorithms = match common.key_algorithm {
            None => of_type.to_vec(),
            Some(named) => {
                let named = Algorithm::try_from(named).ok()?;
                of_type.iter().copied().filter(|algorithm| *algorithm == named).collect()
            }
        };
        let usable = for_signatures && to_verify && !algorithms.is_empty();
        let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| usable)?;
        Some(Self { id: common.key_id.clone(), algorithms, decoding })
    }
}

/// What keys of this type can be for. A shared secret that an issuer publishes is none.
fn of_type(parameters: &AlgorithmParameters) -> &'static [Algorithm] {
    const RSA: [Algorithm; 6] =
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    if let AlgorithmParameters::RSA(_) = parameters {
        &RSA
    } else if let AlgorithmParameters::EllipticCurve(key) = parameters {
        if key.curve == EllipticCurve::P256 {
            &[Algorithm::ES256]
        } else if key.curve == EllipticCurve::P384 {
            &[Algorithm::ES384]
        } else {
            &[]
        }
    } else if let AlgorithmParameters::OctetKeyPair(key) = parameters {
        if key.curve == EllipticCurve::Ed25519 { &[Algorithm::EdDSA] } else { &[] }
    } else {
        &[]
    }
}

/// The keys in a document; `None` when it is no key set, or has more keys than anybody needs.
pub(super) fn parse(document: &[u8]) -> Option<Vec<Arc<Key>>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let Set { keys } = serde_json::from_slice(document).ok()?;
    let fits = keys.len() <= ISSUER_KEYS_MAX;
    fits.then(|| keys.into_iter().filter_map(Key::parse).map(Arc::new).collect())
}

/// Which of the keys is wanted. A token that names no key is taken to mean the only one that could be.
pub(super) fn find(keys: &[Arc<Key>], wanted: Wanted<'_>) -> Found<Arc<Key>> {
    let named = keys.iter().filter(|key| wanted.id.is_none() || key.id.as_deref() == wanted.id);
    let mut fitting = named.clone().filter(|key| key.is_for(wanted.algorithm));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Found::Key(Arc::clone(key)),
        (None, _) if wanted.id.is_some() && named.count() > 0 => Found::WrongAlgorithm,
        (Some(_), Some(_)) | (None, _) => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The RSA key of RFC 7517, appendix A.1.
    const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn\
                     jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR\
                     L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    /// The curve key there.
    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn rsa(more: &Value) -> Value {
        with(json!({"kty": "RSA", "n": N, "e": "AQAB"}), more)
    }

    fn ec(more: &Value) -> Value {
        with(json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y}), more)
    }

    fn with(mut key: Value, more: &Value) -> Value {
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn algorithms(key: Value) -> Option<Vec<Algorithm>> {
        Key::parse(key).map(|key| key.algorithms)
    }

    #[test]
    fn a_key_is_for_what_it_says_or_what_its_type_can() {
        assert_eq!(algorithms(rsa(&json!({}))).unwrap().len(), 6);
        assert_eq!(algorithms(rsa(&json!({"alg": "PS256", "use": "sig"}))), Some(vec![Algorithm::PS256]));
        assert_eq!(algorithms(ec(&json!({}))), Some(vec![Algorithm::ES256]));
        assert_eq!(algorithms(ec(&json!({"key_ops": ["verify"]}))), Some(vec![Algorithm::ES256]));
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(algorithms(ed), Some(vec![Algorithm::EdDSA]));
        for useless in [
            rsa(&json!({"alg": "ES256"})),
            rsa(&json!({"alg": "HS256"})),
            rsa(&json!({"alg": "RSA-OAEP"})),
            rsa(&json!({"alg": "RS256", "use": "enc"})),
            rsa(&json!({"key_ops": ["encrypt"]})),
            ec(&json!({"crv": "P-521"})),
            ec(&json!({"crv": "secp256k1"})),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "RSA", "e": "AQAB"}),
            json!({"kty": "new"}),
            json!("key"),
        ] {
            assert_eq!(algorithms(useless.clone()), None, "{useless}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_no_set_is_none() {
        let set = |keys: Value| parse(json!({"keys": keys, "more": 1}).to_string().as_bytes());
        assert_eq!(set(json!([{"kty": "new"}, rsa(&json!({}))])).unwrap().len(), 1);
        assert_eq!(set(json!([])).unwrap().len(), 0);
        for no_set in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(parse(no_set.as_bytes()).is_none(), "{no_set}");
        }
        assert!(set(json!(vec![ec(&json!({})); ISSUER_KEYS_MAX])).is_some());
        assert!(set(json!(vec![ec(&json!({})); ISSUER_KEYS_MAX + 1])).is_none());
    }

    #[test]
    fn a_token_gets_the_key_that_it_names_for_what_that_is_for() {
        let document = json!({"keys": [
            rsa(&json!({"kid": "r", "alg": "RS256"})), ec(&json!({"kid": "e"})), ec(&json!({"kid": "f"})),
        ]});
        let keys = parse(document.to_string().as_bytes()).unwrap();
        let asked = |id: Option<&str>, algorithm| match find(&keys, Wanted { id, algorithm }) {
            Found::Key(key) => Found::Key(key.id.clone().unwrap()),
            Found::WrongAlgorithm => Found::WrongAlgorithm,
            Found::Nothing => Found::Nothing,
        };
        assert_eq!(asked(Some("r"), Algorithm::RS256), Found::Key("r".to_owned()));
        assert_eq!(asked(Some("f"), Algorithm::ES256), Found::Key("f".to_owned()));
        assert_eq!(asked(Some("r"), Algorithm::PS256), Found::WrongAlgorithm);
        assert_eq!(asked(Some("e"), Algorithm::RS256), Found::WrongAlgorithm);
        assert_eq!(asked(Some("x"), Algorithm::RS256), Found::Nothing);
        assert_eq!(asked(None, Algorithm::RS256), Found::Key("r".to_owned()));
        assert_eq!(asked(None, Algorithm::ES256), Found::Nothing, "which of the two?");
        assert_eq!(asked(None, Algorithm::EdDSA), Found::Nothing);
    }
}
