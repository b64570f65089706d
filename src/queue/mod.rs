//! The heart: the engine that owns all queue state, and the store beneath it.

pub mod lease;
pub mod store;
