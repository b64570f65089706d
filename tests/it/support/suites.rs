//! How the suites that can run long are steered: numbers from the environment, and what they need of the machine.

/// The number in an environment variable, or this default.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let given = std::env::vars().find(|(key, _)| key == name);
    given.map_or(default, |(_, value)| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Whether whoever runs the tests wants every suite to run, whatever it does to the machine (mounts, loop devices).
pub(crate) fn required() -> bool {
    number("SENDOFF_SUITES_REQUIRED", 0) == 1
}

/// Says aloud that a suite does not run here; where all are required, that is a failure.
pub(crate) fn skipped(suite: &str, missing: &str) {
    assert!(!required(), "{suite} must run here, but {missing}");
    eprintln!("SKIPPED: {suite}: {missing}. SENDOFF_SUITES_REQUIRED=1 makes this a failure.");
}
