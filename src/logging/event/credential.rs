//! Facts about credentials. Never a secret: a credential is named, and of a failure only what its issuer's status says.

use std::time::Duration;

use tracing::{debug, trace, warn};

use super::{Fact, ms};
use crate::logging::metrics::{CredentialLabels, FetchLabels, Metrics};
use crate::task::CredentialName;

/// A token was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFetched {
    /// For which credential.
    pub credential: CredentialName,
    /// `ok`, or of what kind the failure was.
    pub result: &'static str,
    /// From the question to the answer.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<String>,
}

impl Fact for TokenFetched {
    fn log(&self) {
        let (credential, result, took_ms) = (self.credential.as_str(), self.result, ms(self.took));
        match self.error.as_deref() {
            None => debug!(event = "token_fetched", credential, result, took_ms, "token fetched"),
            Some(error) => warn!(event = "token_fetched", credential, result, took_ms, error, "no token to be had"),
        }
    }

    fn count(&self, metrics: &Metrics) {
        let labels = FetchLabels { credential: (&self.credential).into(), result: self.result };
        metrics.token_fetches.get_or_create(&labels).inc();
    }
}

/// A call got its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLent {
    /// Of which credential.
    pub credential: CredentialName,
    /// Whether it was there.
    pub was_there: bool,
    /// For how long the call waited.
    pub waited: Duration,
}

impl Fact for TokenLent {
    fn log(&self) {
        let (credential, was_there, waited_ms) = (self.credential.as_str(), self.was_there, ms(self.waited));
        trace!(event = "token_lent", credential, was_there, waited_ms, "token lent");
    }

    fn count(&self, metrics: &Metrics) {
        metrics.token_wait.observe(self.waited.as_secs_f64());
        if self.was_there {
            metrics.token_cache_hits.get_or_create(&CredentialLabels { credential: (&self.credential).into() }).inc();
        }
    }
}
