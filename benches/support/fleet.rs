//! A closed loop: so many connections, each sending its next request when the last one was answered.

use std::sync::Arc;
use std::time::Duration;

use sendoff::clock::Clock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Outcome;
use super::table::figure;
use super::wire::{Dialer, Wire};

/// Connections that are used round after round.
pub(crate) struct Fleet {
    wires: Vec<Wire>,
    /// The clock that everything is measured by.
    pub(crate) clock: Clock,
}

/// What one round brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Requests answered with 201.
    pub(crate) count: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Round {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        figure(self.count) / self.took.as_secs_f64()
    }
}

impl Fleet {
    /// Opens `count` connections.
    pub(crate) async fn dial(dialer: &Dialer, count: usize, clock: &Clock) -> Outcome<Self> {
        let mut wires = Vec::with_capacity(count);
        for _ in 0..count {
            wires.push(dialer.dial().await?);
        }
        Ok(Self { wires, clock: clock.clone() })
    }

    /// Sends `request` over all connections for the time of a round. With `slots`, each request takes one, which
    /// somebody else has to give back.
    pub(crate) async fn run(
        &mut self,
        request: &Arc<[u8]>,
        lasting: Duration,
        slots: Option<Arc<Semaphore>>,
    ) -> Outcome<Round> {
        let began = self.clock.now().mono;
        let mut loops = JoinSet::new();
        for wire in self.wires.drain(..) {
            let (request, slots, clock) = (Arc::clone(request), slots.clone(), self.clock.clone());
            loops.spawn(one(wire, request, slots, (clock, began + lasting)));
        }
        let mut count = 0;
        while let Some(ended) = loops.join_next().await {
            let (wire, sent) = ended??;
            self.wires.push(wire);
            count += sent;
        }
        Ok(Round { count, took: self.clock.now().mono.saturating_sub(began) })
    }

    /// One of the connections.
    pub(crate) fn first(&mut self) -> Outcome<&mut Wire> {
        self.wires.first_mut().ok_or_else(|| "no connection".into())
    }

    /// The durations of `count` requests, one after the other on one connection, in milliseconds.
    pub(crate) async fn singles(&mut self, request: &[u8], count: usize) -> Outcome<Vec<f64>> {
        let clock = self.clock.clone();
        let wire = self.first()?;
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let began = clock.now().mono;
            wire.expect(request, 201).await?;
            took.push((clock.now().mono.saturating_sub(began)).as_secs_f64() * 1e3);
        }
        Ok(took)
    }
}

async fn one(
    mut wire: Wire,
    request: Arc<[u8]>,
    slots: Option<Arc<Semaphore>>,
    (clock, until): (Clock, Duration),
) -> Outcome<(Wire, u64)> {
    let mut count = 0;
    while clock.now().mono < until {
        if let Some(slots) = &slots {
            slots.acquire().await?.forget();
        }
        wire.expect(&request, 201).await?;
        count += 1;
    }
    Ok((wire, count))
}
