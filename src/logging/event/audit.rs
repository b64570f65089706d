//! Facts about the audit log: each line of it, and what keeps it from being written or trusted.

use tracing::{error, info, warn};

use super::Fact;
use crate::logging::metrics::{AuditLabels, Metrics};

/// An administrative act was written down. With the line's hash, so that the log, which goes elsewhere, tells when the
/// file was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActAudited {
    /// The line's number.
    pub seq: u64,
    /// What was done.
    pub operation: String,
    /// `ok`, `refused`, `unknown`.
    pub result: &'static str,
    /// The line's hash.
    pub hash: String,
}

impl Fact for ActAudited {
    fn log(&self) {
        info!(
            event = "act_audited",
            seq = self.seq,
            operation = self.operation.as_str(),
            result = self.result,
            hash = self.hash.as_str(),
            "administrative act"
        );
    }

    fn count(&self, metrics: &Metrics) {
        metrics.audit_lines.get_or_create(&AuditLabels { result: self.result }).inc();
    }
}

/// The audit log could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFailed {
    /// What went wrong.
    pub error: String,
    /// The act that has no line although it was tried; none: it was refused before anything was done.
    pub lost: Option<String>,
}

impl Fact for AuditFailed {
    fn log(&self) {
        if let Some(lost) = self.lost.as_deref() {
            error!(
                event = "audit_failed",
                error = self.error.as_str(),
                lost,
                "an administrative act is not in the audit log; further ones are refused until it can be written"
            );
        } else {
            error!(
                event = "audit_failed",
                error = self.error.as_str(),
                "an administrative act was refused, because the audit log cannot be written"
            );
        }
    }

    fn count(&self, metrics: &Metrics) {
        metrics.audit_failures.inc();
    }
}

/// The audit log was not as it was left. A line of it says so too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFound {
    /// The last line was not complete, as after a crash.
    Torn {
        /// Bytes that were cut off.
        cut_bytes: u64,
    },
    /// Lines do not fit together: somebody else wrote there. A chain was begun anew.
    Broken {
        /// Where the first line is that does not fit.
        at_byte: u64,
        /// Why it does not.
        why: String,
    },
    /// The file was put away while the server ran. The chain goes on in a new one.
    PutAway,
}

impl Fact for AuditFound {
    fn log(&self) {
        match self {
            Self::Torn { cut_bytes } => warn!(
                event = "audit_log_repaired",
                cut_bytes, "the last line of the audit log was not complete, and was cut off"
            ),
            Self::Broken { at_byte, why } => error!(
                event = "audit_log_broken",
                at_byte,
                why = why.as_str(),
                "the audit log was changed by somebody else: see `sendoff audit verify`, and keep the file"
            ),
            Self::PutAway => {
                warn!(event = "audit_log_continued", "the audit log was put away: its chain goes on in a new file");
            }
        }
    }

    fn count(&self, _: &Metrics) {}
}
