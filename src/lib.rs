//! sendoff: the HTTP task queue you run yourself.

pub mod clock;
pub mod config;
pub mod queue;
pub mod scheduler;
pub mod task;
