//! Facts about issuers of bearer tokens. Never of a token: an issuer is called what the configuration calls it.

use std::time::Duration;

use tracing::{debug, warn};

use super::{Fact, ms};
use crate::logging::metrics::{IssuerLabels, Metrics};
use crate::task::CallerName;

/// The keys of an issuer were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKeysFetched {
    /// Whose.
    pub issuer: CallerName,
    /// `ok`, or of what kind the failure was.
    pub result: &'static str,
    /// How many of them can be used.
    pub keys: usize,
    /// From the question to the answer.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<String>,
}

impl Fact for IssuerKeysFetched {
    fn log(&self) {
        let (issuer, result, keys, took_ms) = (self.issuer.as_str(), self.result, self.keys, ms(self.took));
        match self.error.as_deref() {
            None => debug!(event = "issuer_keys_fetched", issuer, result, keys, took_ms, "keys of an issuer fetched"),
            Some(error) => {
                warn!(event = "issuer_keys_fetched", issuer, result, took_ms, error, "no keys of an issuer to be had");
            }
        }
    }

    fn count(&self, metrics: &Metrics) {
        let labels = IssuerLabels { issuer: self.issuer.as_str().to_owned(), result: self.result };
        metrics.issuer_fetches.get_or_create(&labels).inc();
    }
}
