//! What the tests from outside hold answers against (`tests/it/support/contract.rs`), for the tests of this module.

#[path = "../../../tests/it/support/contract.rs"]
mod contract;

pub(in crate::api) use contract::{check, validator};
