//! `service_account`: tokens for a key file in Google's format, by the JWT bearer grant (RFC 7523 section 2.1): access
//! tokens for scopes, or ID tokens for an audience.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::assertion::{Lifetime, SigningKey};
use super::client_credentials::{issued, no_token};
use super::issuer::Outside;
use super::secret::Secret;
use super::token::{FetchError, FetchFault, Issued};
use crate::clock::Now;
use crate::config::{Wanted, token_url};
use crate::task::limits::ASSERTION_LIFE;

/// RFC 7523 section 2.1.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A service account, and what tokens it asks for.
#[derive(Debug)]
pub(super) struct Account {
    email: String,
    key: SigningKey,
    token_uri: Url,
    wanted: Wanted,
}

/// What is read of a key file.
#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: String,
}

/// An answer with an access token (RFC 6749 section 5.1).
#[derive(Deserialize)]
struct Access {
    access_token: String,
    expires_in: Option<u64>,
}

/// An answer with an ID token.
#[derive(Deserialize)]
struct Identity {
    id_token: String,
}

impl Account {
    /// The account of a key file. The error says what is wrong, not with what.
    pub(super) fn new(file: &Secret, wanted: &Wanted, allow_plain_http: bool) -> Result<Self, String> {
        let expected =
            "expected a key file of a service account (JSON with type, client_email, private_key and token_uri)";
        // An error of the parser may quote what it found.
        let file: KeyFile = serde_json::from_str(file.expose()).map_err(|_error| expected.to_owned())?;
        if file.r#type != "service_account" {
            return Err(format!("{expected}; its type is another"));
        }
        let key = SigningKey::parse(&Secret::new(file.private_key), file.private_key_id.as_deref());
        let key = key.map_err(|why| format!("private_key: {why}"))?;
        let token_uri = token_url(&file.token_uri, allow_plain_http)
            .map_err(|expected| format!("token_uri: expected {expected}"))?;
        Ok(Self { email: file.client_email, key, token_uri, wanted: wanted.clone() })
    }

    /// Whom its tokens for this target are for.
    pub(super) fn audience(&self, target: &Url) -> String {
        match &self.wanted {
            Wanted::Scopes(_) => String::new(),
            Wanted::Audience(Some(audience)) => audience.clone(),
            Wanted::Audience(None) => target.origin().ascii_serialization(),
        }
    }

    /// Asks the issuer for a token.
    pub(super) async fn fetch(&self, audience: &str, outside: &Outside) -> Result<Issued, FetchError> {
        let now = outside.clock.now();
        let assertion = self.assertion(audience, now).map_err(|why| FetchError::new(FetchFault::Request, why))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", &assertion)
            .finish();
        let request = http::Request::post(self.token_uri.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.into_bytes())
            .map_err(|_error| FetchError::new(FetchFault::Request, "token_uri cannot be called"))?;
        let answer = outside.ask(request).await?;
        match &self.wanted {
            Wanted::Scopes(_) => {
                let Access { access_token, expires_in } = read(answer.body(), "access_token")?;
                issued(&access_token, expires_in.map(Duration::from_secs))
            }
            Wanted::Audience(_) => {
                let Identity { id_token } = read(answer.body(), "id_token")?;
                issued(&id_token, life_of(&id_token, now))
            }
        }
    }

    fn assertion(&self, audience: &str, now: Now) -> Result<String, String> {
        let Lifetime { iat, exp } = Lifetime::of(now, ASSERTION_LIFE.to_duration());
        let mut claims = json!({
            "iss": self.email, "sub": self.email, "aud": self.token_uri.as_str(), "iat": iat, "exp": exp,
        });
        let (claim, value) = match &self.wanted {
            Wanted::Scopes(scopes) => ("scope", scopes.join(" ")),
            Wanted::Audience(_) => ("target_audience", audience.to_owned()),
        };
        if let Some(claims) = claims.as_object_mut() {
            claims.insert(claim.to_owned(), Value::from(value));
        }
        self.key.sign(&claims)
    }
}

/// What an answer holds; an error of the parser may quote a token.
fn read<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|_error| no_token(expected))
}

/// How long an ID token is valid by its own word. It is for its target to verify, so it is only read here.
fn life_of(token: &str, now: Now) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    let now = u64::try_from(now.wall.get() / 1_000).ok()?;
    Some(Duration::from_secs(exp.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::task::WallMs;

    fn file(change: impl FnOnce(&mut Value)) -> Secret {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let mut file = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": pem,
            "client_email": "me@p.example", "token_uri": "https://issuer.example/token",
        });
        change(&mut file);
        Secret::of(&file.to_string())
    }

    #[test]
    fn what_is_no_key_file_is_refused_and_not_shown() {
        let wanted = Wanted::Audience(None);
        assert!(Account::new(&file(|_| {}), &wanted, false).is_ok());
        for (bad, told) in [
            (Secret::of("hunter2"), "expected a key file"),
            (file(|file| file["type"] = json!("hunter2")), "its type is another"),
            (file(|file| file["private_key"] = json!("hunter2")), "private_key: expected a private key"),
            (file(|file| file["token_uri"] = json!("http://hunter2.example/")), "token_uri: expected an https URL"),
            (file(|file| drop(file.as_object_mut().unwrap().remove("client_email"))), "expected a key file"),
        ] {
            let error = Account::new(&bad, &wanted, false).unwrap_err();
            assert!(error.contains(told) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_id_token_is_for_the_targets_origin_unless_another_audience_is_given() {
        let target = Url::parse("https://API.example.com:8443/a?b").unwrap();
        let audience = |wanted| Account::new(&file(|_| {}), &wanted, false).unwrap().audience(&target);
        assert_eq!(audience(Wanted::Audience(None)), "https://api.example.com:8443");
        assert_eq!(audience(Wanted::Audience(Some("x".to_owned()))), "x");
        assert_eq!(audience(Wanted::Scopes(vec!["a".to_owned()])), "");
    }

    #[test]
    fn an_id_token_says_itself_how_long_it_lives() {
        let now = Clock::manual(WallMs::new(1_000_000)).0.now();
        let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(life_of(&token(r#"{"exp":4600}"#), now), Some(Duration::from_secs(3_600)));
        assert_eq!(life_of(&token(r#"{"exp":1}"#), now), Some(Duration::ZERO));
        assert_eq!((life_of(&token("{}"), now), life_of("x", now)), (None, None));
    }
}
