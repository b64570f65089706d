//! Bearer tokens of issuers that the configuration names (JWT, RFC 7519; access tokens as RFC 9068 has them, ID tokens of
//! OIDC): who presents one, and what it allows.
//!
//! ```text
//! token ─▶ which issuer? ─▶ its keys (`issuer`: cached, fetched by one at a time) ─▶ signature ─▶ `claims` ─▶ scopes
//!                                     ▲ `document`: through the guarded clients
//! ```
//!
//! What the token says of itself before its signature is checked chooses among what the configuration and the issuer
//! allow, and never adds to it: a key decides how it is used (RFC 8725 section 3.1).

mod claims;
mod document;
mod issuer;
mod keys;

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use jsonwebtoken::{AlgorithmFamily, Header, Validation, decode, decode_header};
use serde::Deserialize;

use crate::clock::Clock;
use crate::config::{CallersConfig, IssuerConfig};
use crate::logging::Telemetry;
use crate::security::http_client::OutgoingClients;
use crate::task::limits::JWT_BYTES_MAX;
use crate::task::scope::Scopes;
use crate::task::{CallerName, Span};

use claims::Claims;
use issuer::{IssuerKeys, KeyError};
use keys::Wanted;

/// Sees a future through to its end, whether or not anybody waits for it.
pub type RunBeside = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// What asking issuers needs of the world. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// The clients that call out.
    pub clients: Arc<OutgoingClients>,
    /// Time.
    pub clock: Clock,
    /// Where facts are told.
    pub telemetry: Telemetry,
    /// Fetches keys: a client that goes away must not take the keys of the others with it.
    pub run: RunBeside,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Too long to be looked at.
    #[error("it has more than {JWT_BYTES_MAX} bytes")]
    TooLong,
    /// Not what RFC 7519 says, or with something in its header that has to be understood and is not.
    #[error("it is no signed JSON Web Token of a kind that is accepted here")]
    Malformed,
    /// Of nobody that the configuration names.
    #[error("its issuer is none that this server trusts")]
    Issuer,
    /// Signed otherwise than the configuration, or the key, allows.
    #[error("it is signed by an algorithm that is not allowed for its key")]
    Algorithm,
    /// Its issuer has no such key.
    #[error("it names no key that its issuer has")]
    Key,
    /// The signature is not of that key.
    #[error("its signature is wrong")]
    Signature,
    /// A claim that has to be there is not, or is of another type.
    #[error("`exp`, `iss`, `aud` and `sub` have to be in it, and `exp` and `nbf` to be numbers")]
    Claims,
    /// For somebody else.
    #[error("its audience is not this server")]
    Audience,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// Not yet.
    #[error("it is not valid yet")]
    Premature,
}

impl TokenFault {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Issuer => "token_issuer",
            Self::Algorithm => "token_algorithm",
            Self::Key => "token_key",
            Self::Signature => "token_signature",
            Self::Claims => "token_claims",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::Premature => "token_premature",
        }
    }
}

/// Why nobody was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The token is not good.
    Fault(TokenFault),
    /// It cannot be told: the issuer did not tell its keys. It is asked again after this long.
    Unavailable(Span),
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::Fault(fault)
    }
}

/// Who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Issuer and subject, `https://issuer#subject`: no issuer has a `#` in it, so no two callers have the same.
    pub id: Arc<str>,
    /// What the grants that fit the token allow; nothing, when none does.
    pub scopes: Scopes,
}

/// Whether a bearer token is meant to be a JWT, and not an API key.
pub fn is_shaped(token: &str) -> bool {
    !token.starts_with("so_") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The issuers in force.
#[derive(Debug)]
pub struct Tokens {
    world: World,
    issuers: RwLock<Arc<[Issuer]>>,
}

/// One issuer, and its keys.
#[derive(Debug, Clone)]
struct Issuer {
    name: CallerName,
    config: IssuerConfig,
    keys: Arc<IssuerKeys>,
}

/// What says which issuer's keys are needed. Nothing else of a token is read before its signature is checked.
#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

impl Tokens {
    /// The issuers that `config` names. Nobody is asked for keys before a token comes.
    pub fn new(config: &CallersConfig, world: World) -> Self {
        let issuers = build(config, &world, &[]);
        Self { world, issuers: RwLock::new(issuers) }
    }

    /// Puts other issuers in force. Keys are kept of those that stay.
    pub fn replace(&self, config: &CallersConfig) {
        let next = build(config, &self.world, &self.current());
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Whether no issuer is named: then no token is looked at.
    pub fn is_empty(&self) -> bool {
        self.current().is_empty()
    }

    /// Who presents this token.
    pub async fn recognise(&self, token: &str) -> Result<Bearer, Refusal> {
        if token.len() > JWT_BYTES_MAX {
            return Err(TokenFault::TooLong.into());
        }
        let header = decode_header(token).map_err(|_malformed| TokenFault::Malformed)?;
        check_header(&header)?;
        let Unverified { iss } =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_malformed| TokenFault::Claims)?;
        let issuers = self.current();
        let issuer = issuers.iter().find(|issuer| issuer.config.issuer == iss).ok_or(TokenFault::Issuer)?;
        if !issuer.config.algorithms.contains(&header.alg) {
            return Err(TokenFault::Algorithm.into());
        }
        let wanted = Wanted { id: header.kid.as_deref(), algorithm: header.alg };
        let key = issuer.keys.find(wanted).await.map_err(|error| match error {
            KeyError::WrongAlgorithm => Refusal::Fault(TokenFault::Algorithm),
            KeyError::Unknown => Refusal::Fault(TokenFault::Key),
            KeyError::Unavailable(again) => Refusal::Unavailable(again),
        })?;
        // The key was found by the algorithm that it is for. Claims are checked below, by our clock.
        let mut validation = Validation::new(header.alg);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let claims = decode::<Claims>(token, &key.decoding, &validation).map_err(|_wrong| TokenFault::Signature)?;
        let claims = claims.claims;
        let subject = claims.check(&issuer.config, self.world.clock.now().wall)?;
        Ok(Bearer { id: Arc::from(format!("{iss}#{subject}")), scopes: claims.scopes(&issuer.config.grants) })
    }

    fn current(&self) -> Arc<[Issuer]> {
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn build(config: &CallersConfig, world: &World, before: &[Issuer]) -> Arc<[Issuer]> {
    let issuer = |(name, config): (&CallerName, &IssuerConfig)| {
        let stays = |old: &&Issuer| {
            old.name == *name && (&old.config.issuer, &old.config.jwks_url) == (&config.issuer, &config.jwks_url)
        };
        let kept = before.iter().find(stays).map(|old| Arc::clone(&old.keys));
        let keys = kept.unwrap_or_else(|| Arc::new(IssuerKeys::new(name, config, world.clone())));
        Issuer { name: name.clone(), config: config.clone(), keys }
    };
    config.jwt.iter().map(issuer).collect()
}

/// Refuses headers with extensions that would have to be understood (RFC 7515 section 4.1.11), tokens that were made for
/// another purpose (RFC 8725 section 3.11: a `logout+jwt` of the same issuer for the same audience logs nobody in), and
/// signatures with shared secrets.
fn check_header(header: &Header) -> Result<(), TokenFault> {
    let kind = header.typ.as_deref().map(str::to_ascii_lowercase);
    let kind = kind.as_deref().map(|kind| kind.strip_prefix("application/").unwrap_or(kind));
    if header.crit.is_some() || !matches!(kind, None | Some("jwt" | "at+jwt")) {
        return Err(TokenFault::Malformed);
    }
    if header.alg.family() == AlgorithmFamily::Hmac {
        return Err(TokenFault::Algorithm);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_told_apart_by_their_shape() {
        for (text, shaped) in
            [("a.b.c", true), ("..", true), ("so_a.b.c", false), ("a.b", false), ("a.b.c.d", false), ("", false)]
        {
            assert_eq!(is_shaped(text), shaped, "{text}");
        }
    }

    #[test]
    fn headers_that_ask_for_more_than_is_understood_are_refused() {
        let header = |change: fn(&mut Header)| {
            let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
            change(&mut header);
            check_header(&header)
        };
        for typ in [Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/AT+JWT"), None] {
            let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
            header.typ = typ.map(str::to_owned);
            assert_eq!(check_header(&header), Ok(()), "{typ:?}");
        }
        assert_eq!(header(|header| header.typ = Some("logout+jwt".to_owned())), Err(TokenFault::Malformed));
        assert_eq!(header(|header| header.crit = Some(vec!["b64".to_owned()])), Err(TokenFault::Malformed));
        assert_eq!(header(|header| header.alg = jsonwebtoken::Algorithm::HS256), Err(TokenFault::Algorithm));
    }
}
