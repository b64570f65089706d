//! An issuer of bearer tokens on loopback: its discovery document, its keys, and tokens signed by a library that is not
//! ours; good ones and all kinds of bad ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use sendoff::config::{ClaimGrant, Config, IssuerConfig};
use sendoff::task::scope::Scopes;
use sendoff::task::{CallerName, Glob, WallMs};
use serde_json::{Value, json};

use super::target::{Reply, Target};

/// What our tokens are for.
pub(crate) const AUDIENCE: &str = "sendoff";
/// Where the keys are.
pub(crate) const KEYS: &str = "/keys";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A key pair, and what is published of it.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    /// The public key as JWK; `alg` says that it is for this algorithm only.
    pub(crate) public: Value,
    /// The public key as PEM.
    pub(crate) pem: String,
}

impl Signer {
    /// ECDSA with P-256.
    pub(crate) fn ec(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self::new(id, Algorithm::ES256, key, pair.public_key_pem())
    }

    /// Ed25519.
    pub(crate) fn ed(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let key = EncodingKey::from_ed_der(&pair.serialize_der());
        let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "alg": "EdDSA", "use": "sig"});
        Self { id: id.to_owned(), algorithm: Algorithm::EdDSA, key, public, pem: pair.public_key_pem() }
    }

    /// RSA: the same key for all, because making one takes its time.
    pub(crate) fn rsa(id: &str, algorithm: Algorithm) -> Self {
        static PEM: LazyLock<(String, String)> = LazyLock::new(|| {
            let size = rcgen::RsaKeySize::_2048;
            let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("a key");
            (pair.serialize_pem(), pair.public_key_pem())
        });
        let key = EncodingKey::from_rsa_pem(PEM.0.as_bytes()).expect("a key");
        Self::new(id, algorithm, key, PEM.1.clone())
    }

    fn new(id: &str, algorithm: Algorithm, key: EncodingKey, pem: String) -> Self {
        let mut public = Jwk::from_encoding_key(&key, algorithm).expect("a public key");
        public.common.key_id = Some(id.to_owned());
        let public = serde_json::to_value(public).expect("JSON");
        Self { id: id.to_owned(), algorithm, key, public, pem }
    }

    /// What is published of it, with something changed; null takes it out.
    pub(crate) fn published(&self, changes: &Value) -> Value {
        merged(self.public.clone(), changes)
    }

    /// Signs claims, under a header that `change` has changed.
    pub(crate) fn sign(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        change(&mut header);
        encode(&header, claims, &self.key).expect("a token")
    }

    /// Signs them with the public key as a shared secret, as who wants to be mistaken for the issuer would.
    pub(crate) fn sign_as_secret(&self, claims: &Value, secret: &[u8]) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.id.clone());
        encode(&header, claims, &EncodingKey::from_secret(secret)).expect("a token")
    }

    /// A token that says that it is not signed.
    pub(crate) fn unsigned(&self, claims: &Value, algorithm: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({"alg": algorithm, "typ": "JWT", "kid": self.id})), part(claims))
    }
}

/// See the module.
pub(crate) struct Issuer {
    pub(crate) target: Target,
}

impl Issuer {
    /// One that publishes the keys of these signers.
    pub(crate) async fn start(signers: &[&Signer]) -> Self {
        let target = Target::start().await;
        let issuer = Self { target };
        issuer.discover(&json!({}));
        issuer.publish(signers);
        issuer
    }

    /// How its tokens name it.
    pub(crate) fn url(&self) -> String {
        self.target.url("")
    }

    /// Publishes its discovery document, with something changed.
    pub(crate) fn discover(&self, changes: &Value) {
        let document = merged(json!({"issuer": self.url(), "jwks_uri": self.target.url(KEYS)}), changes);
        self.target.on(DISCOVERY, [document_of(&document, &[])]);
    }

    /// Publishes the keys of these signers.
    pub(crate) fn publish(&self, signers: &[&Signer]) {
        self.target.on(KEYS, [keys_of(signers)]);
    }

    /// How often it was asked for its keys.
    pub(crate) fn fetches(&self) -> usize {
        self.target.requests().iter().filter(|request| request.path == KEYS).count()
    }

    /// Good claims at `now`, with something changed; null takes it out.
    pub(crate) fn claims(&self, now: WallMs, changes: &Value) -> Value {
        let now = now.get() / 1_000;
        let claims = json!({"iss": self.url(), "aud": AUDIENCE, "sub": "robot", "iat": now, "exp": now + 300});
        merged(claims, changes)
    }

    /// Has `config` trust it, with these grants.
    pub(crate) fn trusted_by(&self, config: &mut Config, grants: BTreeMap<CallerName, ClaimGrant>) {
        let issuer = IssuerConfig {
            issuer: self.url(),
            audience: vec![AUDIENCE.to_owned()],
            jwks_url: None,
            algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
            grants,
        };
        config.callers.jwt.insert(CallerName::parse("company").expect("a name"), issuer);
    }
}

/// An answer with a document.
pub(crate) fn document_of(document: &Value, headers: &[(&str, &str)]) -> Reply {
    let headers = [&[("content-type", "application/json")], headers].concat();
    Reply::with(200, &headers, document.to_string().as_bytes())
}

/// The key set of these signers.
pub(crate) fn keys_of(signers: &[&Signer]) -> Reply {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.public).collect();
    document_of(&json!({"keys": keys}), &[])
}

/// Grants by which the claim `can` names the scopes that a token has, each of them as text.
pub(crate) fn grants(scopes: &[&str]) -> BTreeMap<CallerName, ClaimGrant> {
    let grant = |(at, scope): (usize, &&str)| {
        let (claim, value) = ("can".to_owned(), Glob::parse(scope).expect("a pattern"));
        let scopes = Scopes::parse([*scope]).expect("a scope");
        (CallerName::parse(&format!("grant{at}")).expect("a name"), ClaimGrant { claim, value, scopes })
    };
    scopes.iter().enumerate().map(grant).collect()
}

fn merged(mut value: Value, changes: &Value) -> Value {
    let fields = value.as_object_mut().expect("an object");
    fields.extend(changes.as_object().expect("an object").clone());
    fields.retain(|_, value| !value.is_null());
    value
}
