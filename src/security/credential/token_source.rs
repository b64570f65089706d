//! Credentials whose header is a token that an issuer gives: what is asked of whom, and the cache between.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use url::Url;

use super::cache::{Audience, Failure, How, TokenCache};
use super::client_credentials;
use super::issuer::Outside;
use super::service_account::Account;
use super::token::{FetchError, FetchFault, Issued, Token};
use crate::logging::Fact;
use crate::logging::event::{TokenFetched, TokenLent};
use crate::task::{CredentialName, Span};

/// How tokens are asked for.
#[derive(Debug)]
enum Grant {
    ClientCredentials(Box<client_credentials::Grant>),
    ServiceAccount(Box<Account>),
}

/// A credential with tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    grant: Arc<Grant>,
    cache: TokenCache,
}

/// What a call wants of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) credential: &'a CredentialName,
    pub(super) target: &'a Url,
    pub(super) fresh: bool,
}

/// A token in one call's hands.
#[derive(Debug)]
pub struct LentToken {
    cache: TokenCache,
    audience: Audience,
    token: Arc<Token>,
    /// Whether it was fetched for this call, or is as good as that. Then the target refuses not the token but what it
    /// allows.
    pub fresh: bool,
}

/// Why there is no token to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no token for the credential `{credential}`: {why}")]
pub struct Unavailable {
    /// Which credential.
    pub credential: CredentialName,
    /// What went wrong.
    pub why: String,
    /// Whether its issuer said no (400, 401).
    pub refused_by_issuer: bool,
    /// When it makes sense to ask again.
    pub retry_after: Span,
}

impl From<client_credentials::Grant> for Tokens {
    fn from(grant: client_credentials::Grant) -> Self {
        Self { grant: Arc::new(Grant::ClientCredentials(Box::new(grant))), cache: TokenCache::default() }
    }
}

impl From<Account> for Tokens {
    fn from(account: Account) -> Self {
        Self { grant: Arc::new(Grant::ServiceAccount(Box::new(account))), cache: TokenCache::default() }
    }
}

impl Tokens {
    /// A token for a call: one that is there, or one that is fetched now.
    pub(super) async fn lend(&self, wish: &Wish<'_>, outside: &Outside) -> Result<LentToken, Unavailable> {
        let audience = self.grant.audience(wish.target);
        let how = How { fresh: wish.fresh, unit: outside.draw(crate::clock::Chance::unit) };
        let since = outside.clock.now().mono;
        let fetch = || self.fetch(wish.credential.clone(), Arc::clone(&audience), outside.clone());
        let lent = self.cache.get(&audience, &outside.clock, how, fetch).await;
        let now = outside.clock.now().mono;
        let lent = lent.map_err(|failure| unavailable(wish.credential, &failure, now))?;
        let waited = now.saturating_sub(since);
        let fact = TokenLent { credential: wish.credential.clone(), was_there: lent.was_there, waited };
        fact.emit(&outside.telemetry);
        Ok(LentToken { cache: self.cache.clone(), audience, token: lent.token, fresh: lent.fresh })
    }

    /// One question to the issuer, told when it is answered.
    fn fetch(
        &self,
        credential: CredentialName,
        audience: Audience,
        outside: Outside,
    ) -> BoxFuture<'static, Result<Issued, FetchError>> {
        let grant = Arc::clone(&self.grant);
        Box::pin(async move {
            let since = outside.clock.now().mono;
            let fetched = grant.fetch(&audience, &outside).await;
            let took = outside.clock.now().mono.saturating_sub(since);
            let failed = fetched.as_ref().err();
            let result = failed.map_or("ok", |error| error.fault.as_str());
            let error = failed.map(|error| error.why.clone());
            TokenFetched { credential, result, took, error }.emit(&outside.telemetry);
            fetched
        })
    }
}

impl Grant {
    fn audience(&self, target: &Url) -> Audience {
        match self {
            Self::ClientCredentials(grant) => Audience::from(grant.audience()),
            Self::ServiceAccount(account) => Audience::from(account.audience(target)),
        }
    }

    async fn fetch(&self, audience: &str, outside: &Outside) -> Result<Issued, FetchError> {
        match self {
            Self::ClientCredentials(grant) => grant.fetch(outside).await,
            Self::ServiceAccount(account) => account.fetch(audience, outside).await,
        }
    }
}

impl LentToken {
    /// The value of `Authorization`.
    pub(super) fn value(&self) -> HeaderValue {
        self.token.value.clone()
    }

    /// The target has refused it: exactly this token is not lent again.
    pub fn forget(&self) {
        self.cache.forget(&self.audience, &self.token);
    }
}

fn unavailable(credential: &CredentialName, failure: &Failure, now: Duration) -> Unavailable {
    let left = failure.until.saturating_sub(now);
    // Not a moment before: whoever comes too early hears the same again.
    let left_ms = left.as_nanos().div_ceil(1_000_000);
    Unavailable {
        credential: credential.clone(),
        why: failure.error.why.clone(),
        refused_by_issuer: failure.error.fault == FetchFault::Refused,
        retry_after: Span::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX)),
    }
}
