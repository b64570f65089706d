//! Facts about credentials. Never a secret: a credential is named, and of a failure only what its issuer's status says.

use std::time::Duration;

use tracing::{debug, error, info, trace, warn};

use super::{Fact, ms};
use crate::logging::metrics::{CredentialLabels, FetchLabels, Metrics};
use crate::task::{CredentialName, WallMs};

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

/// A credential was given by the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialPut {
    /// Its name.
    pub credential: CredentialName,
    /// What it is.
    pub kind: &'static str,
    /// Whether there was another of its name.
    pub replaced: bool,
    /// Who gave it.
    pub by: String,
}

impl Fact for CredentialPut {
    fn log(&self) {
        let Self { credential, kind, replaced, by } = self;
        info!(
            event = "credential_put",
            credential = credential.as_str(),
            kind,
            replaced,
            by = by.as_str(),
            "credential kept"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// A credential was removed by the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRemoved {
    /// Its name.
    pub credential: CredentialName,
    /// Who removed it.
    pub by: String,
}

impl Fact for CredentialRemoved {
    fn log(&self) {
        let (credential, by) = (self.credential.as_str(), self.by.as_str());
        info!(event = "credential_removed", credential, by, "credential removed");
    }

    fn count(&self, _: &Metrics) {}
}

/// A credential that is kept cannot be used: tasks that name it wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUnreadable {
    /// Which, and why not.
    pub what: String,
}

impl Fact for CredentialUnreadable {
    fn log(&self) {
        error!(
            event = "credential_unreadable",
            what = self.what.as_str(),
            "a credential cannot be used; give it again"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// A key for our ID tokens was made. It is published from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyCreated {
    /// Its id.
    pub kid: String,
    /// When it begins to sign.
    pub signs_from: WallMs,
}

impl Fact for SigningKeyCreated {
    fn log(&self) {
        let kid = self.kid.as_str();
        info!(event = "signing_key_created", kid, signs_from = %self.signs_from, "key for ID tokens made and published");
    }

    fn count(&self, _: &Metrics) {}
}

/// A key for our ID tokens is gone: its last token was over long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRemoved {
    /// Its id.
    pub kid: String,
}

impl Fact for SigningKeyRemoved {
    fn log(&self) {
        info!(event = "signing_key_removed", kid = self.kid.as_str(), "key for ID tokens removed");
    }

    fn count(&self, _: &Metrics) {}
}

/// It was time for another key for our ID tokens, and that failed: the old one goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyKept {
    /// What went wrong.
    pub error: String,
}

impl Fact for SigningKeyKept {
    fn log(&self) {
        let error = self.error.as_str();
        error!(event = "signing_key_kept", error, "failed to rotate the keys for ID tokens: those in force go on");
    }

    fn count(&self, _: &Metrics) {}
}
