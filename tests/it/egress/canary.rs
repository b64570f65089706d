//! What would notice a forbidden call: a listener on every address of this machine that counts who comes. And the
//! names under which it is called: a resolver that answers as the test says.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use sendoff::security::http_client::Names;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Counts connections, and closes each at once.
pub(super) struct Canary {
    address: SocketAddr,
    /// Whether it hears IPv6 too.
    pub(super) ipv6: bool,
    seen: watch::Receiver<usize>,
    // Ends the listener when dropped.
    _accepting: JoinSet<()>,
}

impl Canary {
    /// On all addresses of this machine: those of IPv4 only where it has no IPv6.
    pub(super) async fn everywhere() -> Self {
        match TcpListener::bind("[::]:0").await {
            Ok(listener) => Self::over(listener, true),
            Err(_no_ipv6) => Self::over(TcpListener::bind("0.0.0.0:0").await.unwrap(), false),
        }
    }

    /// On one address; an error where that cannot be had.
    pub(super) async fn on(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpListener::bind(address).await?, address.is_ipv6()))
    }

    fn over(listener: TcpListener, ipv6: bool) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(0);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
                sender.send_modify(|count| *count += 1);
            }
        });
        Self { address, ipv6, seen, _accepting: accepting }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many came so far. A last knock of ours goes through the same queue, so whoever came before is counted.
    pub(super) async fn visits(&self) -> usize {
        let before = *self.seen.borrow();
        let address = match self.address.ip() {
            ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], self.port())),
            _ => self.address,
        };
        drop(TcpStream::connect(address).await.unwrap());
        self.at_least(before + 1).await - 1
    }

    /// Waits until so many have come.
    pub(super) async fn at_least(&self, count: usize) -> usize {
        let mut seen = self.seen.clone();
        let waited = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|seen| *seen >= count)).await;
        *waited.unwrap_or_else(|_| panic!("waited in vain for visitor {count}")).unwrap()
    }
}

/// Names with the answers that they give in turn; the last one is repeated. What it was not told does not exist.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    /// `name` resolves to these in turn, each answer a list parted by commas.
    pub(super) fn answer(&self, name: &str, turns: &[&str]) {
        let read = |turn: &&str| turn.split(',').map(|address| address.trim().parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), turns.iter().map(read).collect());
    }

    /// How often `name` was looked up.
    pub(super) fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

impl Names for Scripted {
    fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let host = host.trim_end_matches('.');
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let turns = answers.get_mut(host).ok_or_else(|| io::Error::other("no such name"))?;
        let turn = if turns.len() > 1 { turns.pop_front() } else { turns.front().cloned() };
        Ok(turn.unwrap_or_default().into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}
