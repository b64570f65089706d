//! The same few threads and loops in many orders: what must hold whoever comes first.
//!
//! Where real threads meet (the line to the writing thread, the checkpointer's requests, the pool of readers), the store's
//! own files are compiled a second time, over a scheduler that decides at every lock, wait and hand-over who goes on
//! ([`threads`]). Where futures meet (callers, handle, engine, attempts, stop), the real engine runs over the memory
//! store, and a seed draws which future is polled next ([`futures`]).
//!
//! Not covered: orders that only a weak memory model allows (locks and channels carry all that crosses threads; the
//! atomics in the store's `disk` are figures); timeouts of the writer and checkpointer, which never pass here; SQLite's
//! own locking; what tokio's channels do inside one call, which is taken as one step; and the pool's own loop, whose
//! futures the executor's stand for. A random search shows faults, never their absence.
//!
//! `SENDOFF_INTERLEAVINGS` is the number of orders tried by each of two schedulers, and of seeds for the futures;
//! `SENDOFF_INTERLEAVING_SEED` is the first seed.

mod futures;
mod threads;

use crate::support::suites;

/// Orders to try of each scene.
fn orders() -> u64 {
    suites::number("SENDOFF_INTERLEAVINGS", 300)
}

/// The first seed.
fn seed() -> u64 {
    suites::number("SENDOFF_INTERLEAVING_SEED", 1)
}
