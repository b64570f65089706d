//! The simulated world of `tests/it/sim`, without its tests.
#![expect(dead_code, reason = "a bench only lets days pass, the suite asks for more")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_imports,
    reason = "test code: a fault of it ends the run"
)]
#![cfg_attr(
    test,
    expect(unused_imports, reason = "without a harness the tests within are left out, what they use is not")
)]

#[path = "../tests/it/sim/arrivals.rs"]
mod arrivals;
#[path = "../tests/it/sim/faults.rs"]
mod faults;
#[path = "../tests/it/sim/oracle/mod.rs"]
mod oracle;
#[path = "../tests/it/sim/targets.rs"]
mod targets;
#[path = "../tests/it/sim/world/mod.rs"]
pub(crate) mod world;
