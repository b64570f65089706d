//! Deliberate sins, for negative controls: a suite that promises to catch a sin is run against it.
//!
//! Compiled in only with the feature `sabotage`, chosen at run time, and never part of a release.

#[cfg(feature = "sabotage")]
mod chosen {
    use std::sync::atomic::{AtomicU8, Ordering};

    static SIN: AtomicU8 = AtomicU8::new(0);

    /// Chooses the sin by its name; unknown names are refused.
    pub fn choose(name: &str) -> bool {
        let code = match name {
            "none" => 0,
            "acknowledge-before-commit" => 1,
            _ => return false,
        };
        SIN.store(code, Ordering::Relaxed);
        true
    }

    pub(crate) fn acknowledges_before_commit() -> bool {
        SIN.load(Ordering::Relaxed) == 1
    }
}

#[cfg(feature = "sabotage")]
pub use chosen::choose;

#[cfg(feature = "sabotage")]
pub(crate) use chosen::acknowledges_before_commit;

/// Whether answers are to leave before their commit. Never, without the feature.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn acknowledges_before_commit() -> bool {
    false
}
