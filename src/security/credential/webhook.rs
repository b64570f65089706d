//! `standard_webhooks`: the body of a call signed, so that its receiver knows who sent it and that nobody changed it.
//!
//! <https://www.standardwebhooks.com>, version 1.0.0. Each secret gives one signature; while receivers change over from
//! one secret to the next there are two, and each receiver finds the one it can check.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue};

use super::Call;
use super::fixed::sensitive;
use super::secret::Secret;
use crate::task::limits::{WEBHOOK_SECRET_BYTES_MAX, WEBHOOK_SECRET_BYTES_MIN};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Bytes of an Ed25519 seed, and of the public key that some tools write after it.
const SEED: usize = 32;

/// What signs: one key for each secret.
#[derive(Debug)]
pub(super) struct Signer(Vec<Key>);

#[derive(Debug)]
enum Key {
    Hmac(Box<hmac::Key>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Signer {
    /// A signer by its secrets. The error says what is wrong, not with what.
    pub(super) fn new(secrets: &[&Secret]) -> Result<Self, String> {
        secrets.iter().map(|secret| Key::parse(secret)).collect::<Result<_, _>>().map(Self)
    }

    /// The headers of this call.
    pub(super) fn headers(&self, call: &Call<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let seconds = call.now.wall.get().div_euclid(1_000).to_string();
        let mut content = format!("{}.{seconds}.", call.webhook_id).into_bytes();
        content.extend_from_slice(call.body);
        let signatures: Vec<String> = self.0.iter().map(|key| key.sign(&content)).collect();
        let plain = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        Ok(vec![
            (ID, plain(call.webhook_id)?),
            (TIMESTAMP, plain(&seconds)?),
            (SIGNATURE, sensitive(&signatures.join(" "))?),
        ])
    }
}

impl Key {
    fn parse(secret: &Secret) -> Result<Self, String> {
        let text = secret.expose();
        let decode = |base64: &str| STANDARD.decode(base64).map_err(|_may_quote| expected());
        if let Some(base64) = text.strip_prefix("whsec_") {
            let bytes = decode(base64)?;
            if !(WEBHOOK_SECRET_BYTES_MIN..=WEBHOOK_SECRET_BYTES_MAX).contains(&bytes.len()) {
                return Err(expected());
            }
            return Ok(Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        let bytes = decode(text.strip_prefix("whsk_").ok_or_else(expected)?)?;
        let pair = match bytes.split_at_checked(SEED) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err(expected()),
        };
        pair.map(Box::new).map(Self::Ed25519).map_err(|_rejected| expected())
    }

    fn sign(&self, content: &[u8]) -> String {
        match self {
            Self::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content))),
            Self::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content))),
        }
    }
}

fn expected() -> String {
    format!(
        "expected whsec_ and base64 of {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} bytes, or whsk_ and \
         base64 of an Ed25519 key ({SEED} bytes, or {SEED} and its public key)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::task::WallMs;
    use aws_lc_rs::signature::{ED25519, KeyPair, UnparsedPublicKey};
    use bytes::Bytes;

    fn signer(secrets: &[&str]) -> Result<Signer, String> {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::of(secret)).collect();
        Signer::new(&secrets.iter().collect::<Vec<_>>())
    }

    fn headers(signer: &Signer, id: &str, seconds: i64, body: &'static str) -> Vec<String> {
        let (url, body) = (url::Url::parse("https://a.example/").unwrap(), Bytes::from_static(body.as_bytes()));
        let now = Now { wall: WallMs::new(seconds * 1_000 + 999), mono: std::time::Duration::ZERO };
        let call = Call {
            url: &url,
            method: &http::Method::POST,
            body: &body,
            task_id: "a.b",
            webhook_id: id,
            attempt: 1,
            now,
            fresh: false,
        };
        let headers = signer.headers(&call).unwrap();
        headers.into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    /// The vector of the reference implementations (their test "sign").
    #[test]
    fn the_reference_vector_is_signed_as_by_the_reference() {
        let signer = signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        let found = headers(&signer, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let expected = [
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp: 1614265330",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn each_secret_signs_and_the_asymmetric_one_is_checked_by_its_public_key() {
        let seed = [7_u8; 32];
        let public = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap().public_key().as_ref().to_vec();
        let alone = format!("whsk_{}", STANDARD.encode(seed));
        let both = format!("whsk_{}", STANDARD.encode([&seed[..], &public].concat()));
        let hmac = format!("whsec_{}", STANDARD.encode([1_u8; 24]));
        let signer = signer(&[&alone, &both, &hmac]).unwrap();
        let found = headers(&signer, "id-1", 5, "body");
        let signatures: Vec<&str> = found[2].strip_prefix("webhook-signature: ").unwrap().split(' ').collect();
        let [one, two, three] = signatures[..] else { panic!("{found:?}") };
        assert!(one == two && three.starts_with("v1,"), "{found:?}");
        let signature = STANDARD.decode(one.strip_prefix("v1a,").unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, public);
        assert!(key.verify(b"id-1.5.body", &signature).is_ok());
        assert!(key.verify(b"id-1.5.bodY", &signature).is_err());
    }

    #[test]
    fn lengths_one_below_and_one_above_and_nothing_is_shown() {
        let of = |prefix: &str, bytes: usize| signer(&[&format!("{prefix}{}", STANDARD.encode(vec![9_u8; bytes]))]);
        assert!(of("whsec_", WEBHOOK_SECRET_BYTES_MIN).is_ok() && of("whsec_", WEBHOOK_SECRET_BYTES_MAX).is_ok());
        assert!(of("whsec_", WEBHOOK_SECRET_BYTES_MIN - 1).is_err());
        assert!(of("whsec_", WEBHOOK_SECRET_BYTES_MAX + 1).is_err());
        assert!(of("whsk_", 31).is_err() && of("whsk_", 33).is_err() && of("whsk_", 32).is_ok());
        for bad in ["hunter2", "whsec_hunter2", "whsk_hunter2", "whpk_hunter2", ""] {
            assert!(!signer(&[bad]).unwrap_err().contains("hunter2"));
        }
        assert!(of("whsk_", 64).is_err(), "a public key that is not the seed's");
        let shown = format!("{:?}", of("whsec_", 24).unwrap());
        assert!(!shown.contains('9'), "{shown}");
    }
}
