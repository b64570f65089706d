//! Runs attempts: takes leases, calls what the task type says, and settles with what happened.
//!
//! Nothing here decides what follows from an outcome; that is the engine's business.

mod attempt;
mod classify;
pub mod handler;
pub mod pool;
