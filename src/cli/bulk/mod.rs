//! What is long: many tasks from a file, many dead letters at once, waiting until a queue is empty; each with its progress.

pub(in crate::cli) mod create;
mod cut;
pub(in crate::cli) mod dead_letters;
pub(in crate::cli) mod progress;
mod rejects;
mod send;
mod source;
mod tally;
