//! Tasks that wait: brought in by batches over HTTPS, as anybody would.

use std::time::Duration;

use sendoff::clock::Clock;

use super::child::{Home, Server};
use super::wire::Wire;
use super::{Outcome, Scale, task};

/// Tasks in one batch.
const BATCH: usize = 10_000;
/// Nothing that is loaded comes due while a bench runs.
pub(crate) const FAR: &str = r#","delay":"720h""#;

/// Enqueues `count` tasks by batches.
pub(crate) async fn enqueue(server: &Server, wire: &mut Wire, (url, more): (&str, &str), count: usize) -> Outcome {
    let one = task(url, more);
    let batch =
        |count: usize| server.dialer.post("/tasks/batch", &format!("[{}]", vec![one.as_str(); count].join(",")));
    let full = batch(BATCH);
    for _ in 0..count / BATCH {
        wire.expect(&full, 201).await?;
    }
    if !count.is_multiple_of(BATCH) {
        wire.expect(&batch(count % BATCH), 201).await?;
    }
    Ok(())
}

/// Enqueues `count` tasks that wait for a time that is far away.
pub(crate) async fn enqueue_far(server: &Server, count: usize) -> Outcome {
    let mut wire = server.dialer.dial().await?;
    enqueue(server, &mut wire, ("http://127.0.0.1:9/far", FAR), count).await
}

/// The many waiting tasks, loaded once for all benches that need them.
pub(crate) struct Stock {
    count: usize,
    loaded: Option<Loaded>,
}

/// A directory with many waiting tasks, and what loading them took.
pub(crate) struct Loaded {
    /// The directory; its server was killed after the load.
    pub(crate) home: Home,
    /// How long the load took.
    pub(crate) took: Duration,
    /// The server's memory before, in bytes.
    pub(crate) resident_before: u64,
    /// And after.
    pub(crate) resident_after: u64,
}

impl Stock {
    /// Nothing yet.
    pub(crate) fn new(scale: &Scale) -> Self {
        Self { count: scale.many, loaded: None }
    }

    /// The loaded directory. No server runs there.
    pub(crate) async fn loaded(&mut self) -> Outcome<&Loaded> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => load(self.count).await?,
        };
        Ok(self.loaded.insert(loaded))
    }
}

async fn load(count: usize) -> Outcome<Loaded> {
    let home = Home::new()?;
    let server = home.start()?;
    let clock = Clock::system();
    let resident_before = server.process.resident()?;
    enqueue_far(&server, count).await?;
    let took = clock.now().mono;
    let resident_after = server.process.resident()?;
    drop(server);
    Ok(Loaded { home, took, resident_before, resident_after })
}
