//! A target that answers 200 to everything and costs next to nothing: it looks for the end of a request, no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sendoff::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Outcome;

/// What has arrived.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrivals {
    /// Whole requests so far.
    pub(crate) count: u64,
    /// When the last of them was there, on the clock that the target was given.
    pub(crate) last: Duration,
}

/// The running target; gone when dropped.
pub(crate) struct Target {
    address: SocketAddr,
    seen: Arc<watch::Sender<Arrivals>>,
    /// Each arrival gives one back.
    pub(crate) slots: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

impl Target {
    /// Starts on a free port, with so many slots.
    pub(crate) async fn start(clock: &Clock, slots: usize) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (seen, slots) = (Arc::new(watch::Sender::default()), Arc::new(Semaphore::new(slots)));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, clock.clone(), Arc::clone(&seen), Arc::clone(&slots)));
        Ok(Self { address, seen, slots, _serving: serving })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Arrivals so far.
    pub(crate) fn arrived(&self) -> Arrivals {
        *self.seen.borrow()
    }

    /// Waits until so many have arrived.
    pub(crate) async fn arrived_at_least(&self, count: u64) -> Outcome<Arrivals> {
        Ok(*self.seen.subscribe().wait_for(|seen| seen.count >= count).await?)
    }
}

async fn accept(listener: TcpListener, clock: Clock, seen: Arc<watch::Sender<Arrivals>>, slots: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    // A listener that fails leaves the bench without arrivals, which it then says.
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, clock.clone(), Arc::clone(&seen), Arc::clone(&slots)));
    }
}

async fn serve(mut stream: TcpStream, clock: Clock, seen: Arc<watch::Sender<Arrivals>>, slots: Arc<Semaphore>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut received = Vec::with_capacity(4096);
    while matches!(stream.read_buf(&mut received).await, Ok(read) if read > 0) {
        while let Some(length) = request_length(&received).filter(|length| *length <= received.len()) {
            received.drain(..length);
            let last = clock.now().mono;
            seen.send_modify(|seen| *seen = Arrivals { count: seen.count + 1, last });
            slots.add_permits(1);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// How long the request is that begins here, once its head is there.
fn request_length(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(received.get(..end)?).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some(end + length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0))
}
