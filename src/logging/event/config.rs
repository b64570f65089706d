//! Facts of the configuration: what a reload changed, or why it changed nothing.

use tracing::{Level, enabled, error, info, warn};

use super::Fact;
use crate::logging::metrics::{Metrics, ReloadLabels};
use crate::task::WallMs;

/// The configuration was read again, and what can change live is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigReloaded {
    /// What changed, `key: old → new; …`; empty when nothing did.
    pub changed: String,
    /// What differs from what runs and waits for a restart, in the same form.
    pub needs_restart: String,
    /// When.
    pub at: WallMs,
}

impl ConfigReloaded {
    /// Whether its line would be written under the log's filter as it is now.
    pub fn is_logged() -> bool {
        enabled!(Level::INFO)
    }
}

impl Fact for ConfigReloaded {
    fn log(&self) {
        let (changed, needs_restart) = (self.changed.as_str(), self.needs_restart.as_str());
        match (changed.is_empty(), needs_restart.is_empty()) {
            (true, true) => info!(event = "config_reloaded", "configuration read again: nothing has changed"),
            (false, true) => info!(event = "config_reloaded", changed, "configuration reloaded"),
            (true, false) => warn!(
                event = "config_reloaded",
                needs_restart, "configuration read again: what has changed needs a restart, until then the old holds"
            ),
            (false, false) => warn!(
                event = "config_reloaded",
                changed,
                needs_restart,
                "configuration reloaded, except for what needs a restart: there the old holds until then"
            ),
        }
    }

    fn count(&self, metrics: &Metrics) {
        let outcome = if self.changed.is_empty() { "unchanged" } else { "applied" };
        metrics.config_reloads.get_or_create(&ReloadLabels { outcome }).inc();
        metrics.config_reload_ok.set(1);
        metrics.set_config_read(self.at);
    }
}

/// The configuration was read again and is faulty, or cannot be put in force: everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRefused {
    /// How many faults.
    pub faults: usize,
    /// Every fault with its place, one a line.
    pub why: String,
}

impl Fact for ConfigRefused {
    fn log(&self) {
        error!(
            event = "config_refused",
            faults = self.faults,
            why = self.why.as_str(),
            "the configuration was not reloaded: everything goes on as it was"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.config_reloads.get_or_create(&ReloadLabels { outcome: "refused" }).inc();
        metrics.config_reload_ok.set(0);
    }
}
