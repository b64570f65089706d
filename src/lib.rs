//! sendoff: the HTTP task queue you run yourself.

pub mod api;
pub mod clock;
pub mod config;
pub mod queue;
pub mod task;
