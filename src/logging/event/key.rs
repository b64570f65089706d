//! Facts about API keys. Never a secret: a key is named by its public part.

use std::net::IpAddr;

use tracing::{debug, error, info, warn};

use super::Fact;
use crate::logging::metrics::{FailureLabels, Metrics};
use crate::task::WallMs;

/// An API key was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCreated {
    /// Its public part.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do, each scope as it was given.
    pub scopes: String,
    /// When it ends.
    pub expires_at: Option<WallMs>,
    /// The public part of the key that made it.
    pub by: String,
}

impl Fact for KeyCreated {
    fn log(&self) {
        info!(
            event = "key_created",
            key_id = self.id.as_str(),
            name = self.name.as_str(),
            scopes = self.scopes.as_str(),
            expires_at = self.expires_at.map(tracing::field::display),
            by = self.by.as_str(),
            "API key created"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// An API key was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRevoked {
    /// Its public part.
    pub id: String,
    /// The public part of the key that revoked it.
    pub by: String,
}

impl Fact for KeyRevoked {
    fn log(&self) {
        info!(event = "key_revoked", key_id = self.id.as_str(), by = self.by.as_str(), "API key revoked");
    }

    fn count(&self, _: &Metrics) {}
}

/// The record of an API key is damaged: nobody gets in by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDamaged {
    /// Which, and what is wrong with it.
    pub what: String,
}

impl Fact for KeyDamaged {
    fn log(&self) {
        error!(event = "key_damaged", what = self.what.as_str(), "an API key is void, because its record is damaged");
    }

    fn count(&self, _: &Metrics) {}
}

/// When API keys were used last could not be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsesLost {
    /// What went wrong.
    pub error: String,
}

impl Fact for KeyUsesLost {
    fn log(&self) {
        warn!(
            event = "key_uses_lost",
            error = self.error.as_str(),
            "failed to write down when API keys were used last"
        );
    }

    fn count(&self, _: &Metrics) {}
}

/// Somebody presented what is no key in force, or no token that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticationFailed {
    /// From where.
    pub address: IpAddr,
    /// Whether there had been too many from there.
    pub limited: bool,
    /// `api_key`, or what is wrong with the token.
    pub why: &'static str,
}

impl Fact for AuthenticationFailed {
    fn log(&self) {
        // A flood of guesses is no flood of lines: what the limit refuses is told to those who look closely.
        let (address, limited, why) = (self.address, self.limited, self.why);
        if limited {
            debug!(event = "authentication_failed", %address, limited, why, "too many wrong API keys or tokens");
        } else {
            info!(event = "authentication_failed", %address, limited, why, "wrong API key or token");
        }
    }

    fn count(&self, metrics: &Metrics) {
        let answer = if self.limited { "rate_limited" } else { "unauthenticated" };
        metrics.authentication_failures.get_or_create(&FailureLabels { answer }).inc();
    }
}
