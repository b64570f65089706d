//! The heart: the engine that owns all queue state, and the store beneath it.

pub mod command;
pub mod engine;
pub mod handle;
pub mod lease;
pub mod store;

pub use handle::Queues;
