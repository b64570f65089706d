//! What tests share.

pub(crate) mod client;
pub(crate) mod contract;
pub(crate) mod counter;
pub(crate) mod issuer;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod spoken;
pub(crate) mod story;
pub(crate) mod suites;
pub(crate) mod target;
pub(crate) mod volume;
