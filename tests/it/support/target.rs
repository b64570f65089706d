//! A scripted target, hostile or kind: a bare TCP server that answers each path as told, byte by byte, and remembers
//! exactly what it was sent. It waits for events, never for time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a test waits for an event before it is taken to have failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Which connection it came on, from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Names as sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The certificate that the client showed on its connection (DER).
    pub(crate) client_certificate: Option<Vec<u8>>,
}

impl Recorded {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Holds answers back until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// Lets everybody through from now on.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}

#[derive(Clone)]
enum Step {
    Write(Vec<u8>),
    WriteForEver(Vec<u8>),
    Wait(Gate),
    Hang,
    Close,
    Reset,
}

/// What is done with one request.
#[derive(Clone, Default)]
pub(crate) struct Reply(Vec<Step>);

impl Reply {
    /// An answer of this status with an empty body.
    pub(crate) fn status(status: u16) -> Self {
        Self::with(status, &[], b"")
    }

    /// A whole answer.
    pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        Self::head(status, headers, body.len()).write(body)
    }

    /// Only the head of an answer that promises `body_len` bytes.
    pub(crate) fn head(status: u16, headers: &[(&str, &str)], body_len: usize) -> Self {
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {body_len}\r\n");
        for (name, value) in headers {
            head = head + name + ": " + value + "\r\n";
        }
        Self::default().write((head + "\r\n").as_bytes())
    }

    /// A 200 whose body never ends.
    pub(crate) fn endless() -> Self {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        let mut reply = Self::default().write(head);
        reply.0.push(Step::WriteForEver(chunk));
        reply
    }

    /// Waits for ever with the connection open.
    pub(crate) fn hang() -> Self {
        Self::default().then(Step::Hang)
    }

    /// Resets the connection (RST).
    pub(crate) fn reset() -> Self {
        Self::default().then(Step::Reset)
    }

    /// Closes the connection (FIN).
    pub(crate) fn close() -> Self {
        Self::default().then(Step::Close)
    }

    /// Writes these bytes as they are.
    pub(crate) fn write(self, bytes: &[u8]) -> Self {
        self.then(Step::Write(bytes.to_vec()))
    }

    /// Goes on once the gate is open.
    pub(crate) fn wait(self, gate: &Gate) -> Self {
        self.then(Step::Wait(gate.clone()))
    }

    /// Then what `next` does.
    pub(crate) fn and(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// What has happened so far; only ever grows.
#[derive(Debug, Clone, Default)]
struct Seen {
    requests: Vec<Recorded>,
    connections: usize,
    closed: usize,
}

struct Shared {
    replies: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    seen: watch::Sender<Seen>,
}

/// The running target; gone with all its connections when dropped.
pub(crate) struct Target {
    addr: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    // Ends the server when dropped.
    _server: JoinSet<()>,
}

impl Target {
    /// A target that speaks HTTP/1.1 and answers 200 to whatever it was told nothing about.
    pub(crate) async fn start() -> Self {
        Self::start_with("http", None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(config: ServerConfig) -> Self {
        Self::start_with("https", Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(scheme: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { replies: Mutex::default(), seen: watch::Sender::default() });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, tls, Arc::clone(&shared)));
        Self { addr, scheme, shared, _server: server }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL of this target.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr)
    }

    /// Answers `path` (without query) with these replies in turn; the last one is repeated.
    pub(crate) fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.replies.lock().unwrap().insert(path.to_owned(), replies.into_iter().collect());
    }

    /// The requests so far, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.seen.borrow().requests.clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.seen.borrow().connections
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn requests_at_least(&self, count: usize) -> Vec<Recorded> {
        self.until(|seen| seen.requests.len() >= count).await.requests
    }

    /// Waits until so many connections are over.
    pub(crate) async fn closed_at_least(&self, count: usize) {
        self.until(|seen| seen.closed >= count).await;
    }

    async fn until(&self, reached: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.shared.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| reached(seen))).await.map(|seen| {
            let seen = seen.unwrap();
            seen.clone()
        });
        waited.unwrap_or_else(|_| panic!("waited in vain; so far: {:?}", self.shared.seen.borrow()))
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        let mut number = 0;
        shared.seen.send_modify(|seen| {
            seen.connections += 1;
            number = seen.connections;
        });
        connections.spawn(async move {
            let Some(tls) = tls else { return serve(Wire::new(socket, number), &shared).await };
            if let Ok(stream) = tls.accept(socket).await {
                serve(Wire::new(stream, number), &shared).await;
            }
        });
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;

    fn client_certificate(&self) -> Option<Vec<u8>>;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn client_certificate(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn client_certificate(&self) -> Option<Vec<u8>> {
        self.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.to_vec())
    }
}

/// A connection, and what has been read from it ahead.
struct Wire<S> {
    socket: S,
    ahead: Vec<u8>,
    number: usize,
}

async fn serve<S: Socket>(mut wire: Wire<S>, shared: &Shared) {
    converse(&mut wire, shared).await;
    drop(wire);
    shared.seen.send_modify(|seen| seen.closed += 1);
}

async fn converse<S: Socket>(wire: &mut Wire<S>, shared: &Shared) {
    while let Some(request) = wire.request().await {
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        shared.seen.send_modify(|seen| seen.requests.push(request));
        let reply = next_reply(shared, &path);
        for step in reply.0 {
            if !wire.play(step).await {
                return;
            }
        }
    }
}

fn next_reply(shared: &Shared, path: &str) -> Reply {
    let mut replies = shared.replies.lock().unwrap();
    let Some(queue) = replies.get_mut(path) else { return Reply::status(200) };
    if queue.len() > 1 { queue.pop_front().unwrap() } else { queue.front().cloned().unwrap() }
}

impl<S: Socket> Wire<S> {
    fn new(socket: S, number: usize) -> Self {
        Self { socket, ahead: Vec::new(), number }
    }

    /// Reads more; false at the end of the stream or when it broke.
    async fn read_more(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.ahead).await, Ok(read) if read > 0)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.read_more().await {
                return None;
            }
        }
        Some(self.ahead.drain(..count).collect())
    }

    async fn request(&mut self) -> Option<Recorded> {
        let first = self.line().await?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim_start().to_owned()));
        }
        let client_certificate = self.socket.client_certificate();
        let mut request =
            Recorded { connection: self.number, method, path, headers, body: Vec::new(), client_certificate };
        assert_eq!(request.header("transfer-encoding"), None, "bodies are sent with their length");
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = self.bytes(length).await?;
        Some(request)
    }

    /// Plays one step; false when the connection is over.
    async fn play(&mut self, step: Step) -> bool {
        match step {
            Step::Write(bytes) => self.socket.write_all(&bytes).await.is_ok() && self.socket.flush().await.is_ok(),
            Step::WriteForEver(bytes) => {
                while self.socket.write_all(&bytes).await.is_ok() {}
                false
            }
            Step::Wait(gate) => loop {
                tokio::select! {
                    () = gate.pass() => return true,
                    more = self.read_more() => if !more { return false },
                }
            },
            Step::Hang => {
                while self.read_more().await {}
                false
            }
            Step::Close => {
                drop(self.socket.shutdown().await);
                false
            }
            Step::Reset => {
                self.socket.tcp().set_zero_linger().unwrap();
                false
            }
        }
    }
}
