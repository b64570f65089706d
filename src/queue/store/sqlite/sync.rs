//! What the threads of a store meet through, named in one place.
//!
//! [`super::line`], [`super::requests`] and [`super::readers`] take their primitives from here and nothing else of this
//! crate but errors, so that `tests/it/interleaving` can compile the same files over a scheduler that tries many orders.

pub(super) use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
