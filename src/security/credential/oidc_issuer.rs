//! `oidc`: we are an issuer of ID tokens ourselves, at `server.public_url`. Every call carries a token of its own, made for
//! its target, that any library verifies by our discovery document and our public keys (OIDC Discovery 1.0).

use std::sync::Arc;

use http::header::HeaderValue;
use jsonwebtoken::jwk::JwkSet;
use serde::Serialize;

use super::assertion::{Lifetime, unique};
use super::fixed::sensitive;
use super::issuer::Outside;
use super::signing_keys::{SigningKeys, SigningKeysError};
use super::{Call, Unavailable};
use crate::config::{Config, issuer_fault};
use crate::logging::event::{Event, SigningKeyKept};
use crate::logging::{Fact, chain};
use crate::task::limits::{ID_TOKEN_LIFE, TOKEN_FAILURE_KEPT_MIN};
use crate::task::{CredentialName, WallMs};

/// We as an issuer.
#[derive(Debug)]
pub(super) struct OidcIssuer {
    url: String,
    keys: Arc<SigningKeys>,
}

/// What whoever verifies our tokens has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Who we are: the claim `iss`, and where our documents are.
    pub issuer: String,
    /// Our public keys.
    pub keys: JwkSet,
}

/// What an ID token says (OIDC Core 1.0 section 2).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// The credential's name: what a handler lets in.
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    sendoff: About<'a>,
}

/// Which call the token was made for.
#[derive(Serialize)]
struct About<'a> {
    task_id: &'a str,
    queue: &'a str,
    attempt: u32,
}

impl OidcIssuer {
    /// The issuer of a configuration, if it makes us one: `before` as it is, or with its keys where only its URL is
    /// another. Keys are made where there are none.
    pub(super) fn of(
        config: &Config,
        before: Option<&Arc<Self>>,
        outside: &Outside,
    ) -> Result<Option<Arc<Self>>, SigningKeysError> {
        let Some(url) = config.server.public_url.as_deref() else { return Ok(None) };
        let url = url.trim_end_matches('/');
        let keys = match before {
            Some(before) if before.url == url => return Ok(Some(Arc::clone(before))),
            Some(before) => Arc::clone(&before.keys),
            None => {
                let (keys, events) = SigningKeys::open(&config.data_dir, outside.clock.now().wall)?;
                told(&events, outside);
                Arc::new(keys)
            }
        };
        Ok(Some(Arc::new(Self { url: url.to_owned(), keys })))
    }

    /// Rotates the keys if it is time; tells what it did. When that fails, the keys in force go on.
    pub(super) fn turn_keys(&self, outside: &Outside) {
        match self.keys.turn(outside.clock.now().wall) {
            Ok(events) => told(&events, outside),
            Err(error) => SigningKeyKept { error: chain(&error) }.emit(&outside.telemetry),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn published(&self, now: WallMs) -> Published {
        Published { issuer: self.url.clone(), keys: self.keys.published(now) }
    }
}

/// `Authorization` for a call by this credential: a token that no other call has, for an audience; without one, for the
/// origin of the target.
pub(super) fn authorization(
    issuer: Option<&OidcIssuer>,
    (credential, audience): (&CredentialName, Option<&str>),
    call: &Call<'_>,
    outside: &Outside,
) -> Result<HeaderValue, Unavailable> {
    let Lifetime { iat, exp } = Lifetime::of(call.now, ID_TOKEN_LIFE.to_duration());
    let origin = call.url.origin().ascii_serialization();
    let usable = match issuer_fault(issuer.map(|issuer| issuer.url.as_str())) {
        None => issuer.ok_or_else(String::new),
        Some(fault) => Err(fault.to_owned()),
    };
    let value = usable.and_then(|issuer| {
        let claims = Claims {
            iss: &issuer.url,
            sub: credential.as_str(),
            aud: audience.unwrap_or(&origin),
            iat,
            exp,
            jti: outside.draw(unique),
            sendoff: About { task_id: call.task_id, queue: call.queue.as_str(), attempt: call.attempt },
        };
        let token = issuer.keys.sign(&claims, call.now.wall)?;
        sensitive(&format!("Bearer {token}"))
    });
    value.map_err(|why| Unavailable {
        credential: credential.clone(),
        why,
        refused_by_issuer: false,
        retry_after: TOKEN_FAILURE_KEPT_MIN,
    })
}

fn told(events: &[Event], outside: &Outside) {
    for event in events {
        event.emit(&outside.telemetry);
    }
}
