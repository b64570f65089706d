//! sendoff: the HTTP task queue you run yourself.
//!
//! `POST` a task over HTTPS; it is on disk before you get your answer; it is called when it is due, at the rate you set,
//! retried with growing delays until it works; and if it never works it waits, with its whole history, in a dead-letter
//! queue.
//!
//! # The map
//!
//! A module may use only what is strictly below it; `tests/it/tidy.rs` holds us to that.
//!
//! ```text
//! 8 cli        one file per subcommand
//! 7 app        the composition root: builds everything, owns the order of start and stop
//! 6 api        the URL space, JSON ↔ words, the only place that knows status codes
//! 5 worker     runs attempts: a pool without a bound of its own, handlers, what an outcome is
//! 4 queue      the engine (single owner of all queue state), its handle, the store beneath it
//! 3 scheduler  pure: what may start now       security  who asks, what calls carry, egress, every outgoing client
//! 2 config     one file, every fault at once  logging   one struct per fact: its line and its metrics
//! 1 clock      time and chance, the only module that reads either
//! 0 task       the words                      sabotage  deliberate sins for negative controls, never in a release
//! ```
//!
//! # The way of a task
//!
//! 1. [`api`] parses it at the door into a [`task::TaskSpec`] and asks [`queue::Queues::accept`]. The handler of its type
//!    has checked the payload by then and named its lane (the target host).
//! 2. The engine's loop ([`queue::engine::shell`]) takes everything that has piled up, and [`queue::engine::Machine`]
//!    decides: accepted tasks become [`queue::store::Change`]s and enter the order in [`scheduler`]; whatever may start
//!    is leased in the same step.
//! 3. One durable commit ([`queue::store::Store::commit`]). Only then do answers, leases and log lines leave.
//! 4. [`worker::pool`] runs the [`queue::lease::Lease`]; [`worker::handler::http`] sends the one request it may send, and
//!    its `classify` says what happened.
//! 5. The [`queue::lease::Settlement`] goes back to the engine, whose `settle` asks [`task::outcome::verdict`] and
//!    [`task::RetryPolicy::after_failure`], and commits: succeeded, retrying, dead, expired.
//!
//! # What is absent on purpose
//!
//! `task` and `scheduler` have no async, no I/O, no serde. Nobody but the engine holds queue state, and there is no lock
//! on it. Nobody but [`clock`] reads a clock or draws chance: both come in as arguments, which is why days of the real
//! engine can be simulated in seconds (`tests/it/sim`). No channel is unbounded. The server calls out only through
//! [`security::http_client`]. Only `config` interprets our environment variables.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod logging;
pub mod queue;
pub mod sabotage;
pub mod scheduler;
pub mod security;
pub mod task;
pub mod worker;
