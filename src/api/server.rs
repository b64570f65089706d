//! Connections: who may have one, for how long, over which protocol, and how they all end. The rest of the API is an
//! [`axum::Router`] that knows nothing of this.
//!
//! Every connection is one future on the runtime's threads, which axum-server spawns; nowhere else is that decided.
//! Against clients that hold on to what they do not use:
//!
//! | what they are slow at | what ends it |
//! |---|---|
//! | the TLS handshake | [`Limits::handshake`] |
//! | the first request's head | [`Limits::first_request`] |
//! | the next request's head, or none at all | [`Limits::idle`], over HTTP/1.1 and HTTP/2 alike, whatever they send meanwhile |
//! | reading an answer, answering pings | [`Limits::stalled`], [`Limits::ping`] |
//! | sending a request's body | [`limits::BODY_READ_MAX`], where bodies are read (`extract`) |
//! | having many connections | [`Limits::connections`]: further ones wait in the kernel's queue |

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server as HttpServer};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::api::connection::{Gate, Guard, Peer};
use crate::clock::Clock;
use crate::logging::event::ConnectionFailed;
use crate::logging::{Fact, Telemetry};
use crate::task::limits;

/// What one connection, and all of them together, may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at one time; at most `u32::MAX`.
    pub connections: u32,
    /// From the TCP connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the end of the first request's head.
    pub first_request: Duration,
    /// From the end of the last answer to the end of the next request's head.
    pub idle: Duration,
    /// Without any progress while a request is being worked on; longer than the longest long poll and the time that a
    /// body has.
    pub stalled: Duration,
    /// HTTP/2: a ping is sent this often, and must be answered as quickly.
    pub ping: Duration,
    /// HTTP/2: requests at one time on one connection.
    pub streams: u32,
    /// Bytes of a request's head (HTTP/1.1: at least 8 KiB).
    pub head_bytes: u32,
    /// HTTP/2: streams the client reset that we may still have to look at; more end the connection (CVE-2023-44487).
    pub resets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CLIENT_CONNECTIONS_MAX,
            handshake: limits::TLS_HANDSHAKE_MAX.to_duration(),
            first_request: limits::FIRST_REQUEST_MAX.to_duration(),
            idle: limits::CLIENT_IDLE_MAX.to_duration(),
            stalled: limits::CLIENT_STALLED_MAX.to_duration(),
            ping: limits::HTTP2_PING_EVERY.to_duration(),
            streams: limits::HTTP2_STREAMS_MAX,
            head_bytes: limits::REQUEST_HEAD_BYTES_MAX,
            resets: limits::HTTP2_RESETS_MAX,
        }
    }
}

/// What the listener works with besides its router.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Bounds.
    pub limits: Limits,
    /// For idle and stalled connections.
    pub clock: Clock,
    /// Where failed connections are told.
    pub telemetry: Telemetry,
}

/// A listener that serves.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    handle: Handle<Peer>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    served: JoinHandle<io::Result<()>>,
}

/// Starts to serve.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Serves `router` on `listener`, over TLS if `tls` says how (plain HTTP otherwise), until [`ServerHandle::stop`].
    ///
    /// Handlers may ask for `ConnectInfo<SocketAddr>`, and over TLS for `Extension<Arc<axum_server::tls::TlsInfo>>`.
    /// Must be called within a tokio runtime; fails when the listener cannot be used with it.
    #[expect(clippy::disallowed_methods, reason = "the listener's loop; its end is awaited in `ServerHandle::stop`")]
    pub fn start(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        router: Router,
        around: Surroundings,
    ) -> io::Result<ServerHandle> {
        let Surroundings { limits, clock, telemetry } = around;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Semaphore::new(usize::try_from(limits.connections).unwrap_or(usize::MAX)));
        let gate = Gate::new(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&connections));
        let handle = Handle::new();
        let mut listening = HttpServer::<Peer>::from_listener(gate)
            .handle(handle.clone())
            .first_request_timeout(limits.first_request)
            .accept_error_handler(move |peer: Option<&Peer>, error| {
                ConnectionFailed { peer: peer.map(|peer| peer.0), error: error.to_string() }.emit(&telemetry);
            });
        set_protocols(listening.http_builder(), &limits);
        let guard = Guard { clock, idle: limits.idle, stalled: limits.stalled };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let served = if let Some(config) = tls {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config)).handshake_timeout(limits.handshake);
            tokio::spawn(listening.acceptor(acceptor.acceptor(guard)).serve(service))
        } else {
            tokio::spawn(listening.acceptor(guard).serve(service))
        };
        Ok(ServerHandle { address, handle, connections, connections_max: limits.connections, served })
    }
}

impl ServerHandle {
    /// Where it listens (with the port that was found when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open.
    pub fn connection_count(&self) -> usize {
        self.handle.connection_count()
    }

    /// Stops: no further connections, idle ones are closed, requests that are being worked on have `grace` to end and
    /// are then cut. Returns when every connection is gone.
    ///
    /// Fails when the listener itself had failed.
    pub async fn stop(self, grace: Duration) -> io::Result<()> {
        self.handle.graceful_shutdown(Some(grace));
        let served = self.served.await.map_err(io::Error::other)?;
        // What was cut is dropped by its own future, a moment later.
        drop(self.connections.acquire_many(self.connections_max).await);
        served
    }
}

fn set_protocols(builder: &mut Builder<TokioExecutor>, limits: &Limits) {
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    // The number of headers stays at hyper's own bound (`HTTP1_HEADERS_MAX`): naming one costs an allocation a request.
    builder.http1().max_buf_size(head_bytes.max(HTTP1_BUFFER_MIN));
    builder
        .http2()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.resets)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping);
}

/// hyper refuses smaller buffers.
const HTTP1_BUFFER_MIN: usize = 8 * 1024;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "clients of a test run beside it")]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{Config, TlsVersion};
    use crate::security::server_tls::ServerTls;
    use crate::task::WallMs;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    /// Nothing in these tests takes nearly as long, unless it hangs.
    const LONG: Duration = Duration::from_secs(30);

    struct Running {
        server: ServerHandle,
        hand: ManualClock,
        release: Arc<Notify>,
        entered: Arc<Notify>,
    }

    fn start(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>) -> Running {
        let (release, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, enter) = (Arc::clone(&release), Arc::clone(&entered));
        let held = move || async move {
            enter.notify_one();
            wait.notified().await;
            "late"
        };
        let router = Router::new()
            .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }))
            .route("/held", get(held));
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let around = Surroundings { limits, clock, telemetry: Telemetry::new() };
        let server = Server::start(listener, tls, router, around).unwrap();
        Running { server, hand, release, entered }
    }

    fn tls(dir: &Path, oldest: TlsVersion) -> Arc<rustls::ServerConfig> {
        let mut config = Config::default().server;
        config.tls.min_version = oldest;
        ServerTls::load_or_create(&config, dir, Clock::system().now().wall).unwrap().rustls
    }

    fn client(dir: &Path) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(dir.join("ca.pem")).unwrap()).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(LONG)
    }

    /// Everything the server still sends until it closes the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is a close too.
        drop(tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("the server closes"));
        String::from_utf8(text).unwrap()
    }

    async fn read_answer(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[tokio::test]
    async fn both_protocols_are_served_over_tls_to_a_client_that_trusts_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let running = start(Limits::default(), Some(tls(dir.path(), TlsVersion::V1_3)));
        let url = format!("https://localhost:{}/", running.server.address().port());
        for (client, version) in
            [(client(dir.path()).http1_only(), http::Version::HTTP_11), (client(dir.path()), http::Version::HTTP_2)]
        {
            let answer = client.build().unwrap().get(&url).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            assert_eq!(answer.text().await.unwrap(), "127.0.0.1");
        }
        let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
        assert!(stranger.get(&url).send().await.is_err(), "without the CA there is no trust");
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn tls_1_2_is_refused_by_default_and_served_when_configured() {
        let dir = tempfile::tempdir().unwrap();
        let old = || client(dir.path()).max_tls_version(reqwest::tls::Version::TLS_1_2);
        drop(tls(dir.path(), TlsVersion::V1_3));
        for (oldest, served) in [(TlsVersion::V1_3, false), (TlsVersion::V1_2, true)] {
            let running = start(Limits::default(), Some(tls(dir.path(), oldest)));
            let url = format!("https://localhost:{}/", running.server.address().port());
            assert_eq!(old().build().unwrap().get(&url).send().await.is_ok(), served, "{oldest:?}");
            running.server.stop(LONG).await.unwrap();
        }
    }

    #[tokio::test]
    async fn half_a_head_and_half_a_handshake_are_cut() {
        let short = Duration::from_millis(30);
        let limits = Limits { first_request: short, handshake: short, ..Limits::default() };
        let dir = tempfile::tempdir().unwrap();
        for tls in [None, Some(tls(dir.path(), TlsVersion::V1_3))] {
            let running = start(limits, tls);
            let mut slow = TcpStream::connect(running.server.address()).await.unwrap();
            slow.write_all(b"GET / HT").await.unwrap();
            rest(&mut slow).await;
            running.server.stop(LONG).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_cut_when_its_time_is_over_and_not_before() {
        let running = start(Limits::default(), None);
        let idle = Limits::default().idle;
        let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
        for _ in 0..3 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
            running.hand.advance(idle.checked_sub(Duration::from_millis(1)).unwrap());
        }
        // Half of the next head does not buy more time.
        stream.write_all(b"GET / HT").await.unwrap();
        running.hand.advance(idle);
        rest(&mut stream).await;
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_http2_connection_is_cut_although_it_answers_pings() {
        let running = start(Limits { ping: Duration::from_millis(5), ..Limits::default() }, None);
        let stream = TcpStream::connect(running.server.address()).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get("http://a/").body(axum::body::Body::empty()).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().version(), http::Version::HTTP_2);
        running.hand.advance(Limits::default().idle);
        drop(tokio::time::timeout(LONG, connection).await.expect("the server closes"));
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_being_worked_on_is_not_idle_but_may_stall() {
        let limits = Limits::default();
        let running = start(limits, None);
        let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
        let held = b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(held).await.unwrap();
        running.entered.notified().await;
        running.hand.advance(limits.stalled.checked_sub(Duration::from_millis(1)).unwrap());
        running.release.notify_one();
        assert!(read_answer(&mut stream).await.ends_with("late"));
        stream.write_all(held).await.unwrap();
        running.entered.notified().await;
        // The timer looks at most `idle` ahead each time.
        for _ in 0..4 {
            running.hand.advance(limits.idle);
            tokio::task::yield_now().await;
        }
        rest(&mut stream).await;
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn heads_at_the_bound_pass_and_larger_ones_are_refused() {
        let running = start(Limits { head_bytes: 16 * 1024, ..Limits::default() }, None);
        for (size, status) in [(15 * 1024, "200"), (17 * 1024, "431")] {
            let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(size));
            stream.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(rest(&mut stream).await.get(9..12), Some(status), "{size}");
        }
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn headers_at_their_number_pass_and_one_more_is_refused() {
        let running = start(Limits::default(), None);
        for (count, status) in [(limits::HTTP1_HEADERS_MAX, "200"), (limits::HTTP1_HEADERS_MAX + 1, "431")] {
            let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
            let more = "x: y\r\n".repeat(count - 2);
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(rest(&mut stream).await.get(9..12), Some(status), "{count}");
        }
        running.server.stop(LONG).await.unwrap();
    }

    /// A client of HTTP/2 that says whatever it is told to, frame by frame (RFC 9113).
    struct Frames(TcpStream);

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    /// The header ends with this frame, and so does the request.
    const WHOLE: u8 = 0x5;
    const REFUSED_STREAM: u32 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    const MAX_CONCURRENT_STREAMS: u16 = 3;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// `GET /` or `GET /held` of the host `a`, by the static table of HPACK (RFC 7541, appendix A).
    fn get_request(stream: u32, path: &str) -> Vec<u8> {
        let literal =
            |index: u8, text: &str| [&[0x40 | index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let header = [vec![0x82, 0x86], literal(4, path), literal(1, "a")].concat();
        frame(HEADERS, WHOLE, stream, &header)
    }

    impl Frames {
        async fn open(server: &ServerHandle) -> Self {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
            stream.write_all(&hello).await.unwrap();
            Self(stream)
        }

        async fn send(&mut self, frames: &[Vec<u8>]) {
            self.0.write_all(&frames.concat()).await.unwrap();
        }

        async fn frame(&mut self) -> (u8, u32, Vec<u8>) {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.expect("a frame");
            let [a, b, c, kind, _flags, stream @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
            self.0.read_exact(&mut payload).await.expect("its payload");
            (kind, u32::from_be_bytes(stream), payload)
        }

        /// The next frame of this kind: its stream, and its payload.
        async fn next(&mut self, kind: u8) -> (u32, Vec<u8>) {
            let mut frame = (u8::MAX, 0, Vec::new());
            while frame.0 != kind {
                frame = tokio::time::timeout(LONG, self.frame()).await.expect("the server says something");
            }
            (frame.1, frame.2)
        }
    }

    fn number(payload: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
    }

    #[tokio::test]
    async fn streams_that_are_opened_and_reset_end_the_connection_and_nobody_elses() {
        let running = start(Limits { resets: 20, ..Limits::default() }, None);
        let mut neighbour = Frames::open(&running.server).await;
        let flood = |resets: u32| -> Vec<Vec<u8>> {
            let pair = |n: u32| [get_request(2 * n + 1, "/held"), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])];
            (0..resets).flat_map(pair).collect()
        };
        let mut client = Frames::open(&running.server).await;
        client.send(&flood(20)).await;
        client.send(&[get_request(41, "/")]).await;
        assert_eq!(client.next(DATA).await.1, b"127.0.0.1", "as many as may be");
        drop(client);
        let mut client = Frames::open(&running.server).await;
        client.send(&flood(21)).await;
        let (_, payload) = client.next(GOAWAY).await;
        assert_eq!(number(&payload, 4), ENHANCE_YOUR_CALM, "one more");
        neighbour.send(&[get_request(1, "/")]).await;
        assert_eq!(neighbour.next(DATA).await.1, b"127.0.0.1");
        // It answers no pings, and a stop would wait for that.
        drop(neighbour);
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn streams_beyond_their_number_are_refused_and_may_come_again() {
        let running = start(Limits { streams: 2, ..Limits::default() }, None);
        let mut client = Frames::open(&running.server).await;
        let (_, settings) = client.next(SETTINGS).await;
        let told = settings.chunks(6).find(|one| one[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
        assert_eq!(told.map(|one| number(one, 2)), Some(2));
        client.send(&[get_request(1, "/held"), get_request(3, "/held"), get_request(5, "/")]).await;
        let (refused, payload) = client.next(RST_STREAM).await;
        assert_eq!((refused, number(&payload, 0)), (5, REFUSED_STREAM));
        running.entered.notified().await;
        running.release.notify_one();
        assert_eq!(client.next(DATA).await.1, b"late");
        client.send(&[get_request(7, "/")]).await;
        let (stream, payload) = client.next(DATA).await;
        // The answer of the other may come between.
        let payload = if stream == 7 || payload == b"127.0.0.1" { payload } else { client.next(DATA).await.1 };
        assert_eq!(payload, b"127.0.0.1");
        drop(client);
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn http2_heads_at_the_bound_pass_and_larger_ones_are_refused() {
        let running = start(Limits { head_bytes: 16 * 1024, ..Limits::default() }, None);
        for (size, status) in [(15 * 1024, 200), (17 * 1024, 431)] {
            let stream = TcpStream::connect(running.server.address()).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = http::Request::get("http://a/").header("x", "y".repeat(size));
            let answer = client.send_request(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{size}");
            drop(client);
            connection.await.unwrap().unwrap();
        }
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn further_connections_wait_until_there_is_a_place() {
        let running = start(Limits { connections: 1, ..Limits::default() }, None);
        let mut first = TcpStream::connect(running.server.address()).await.unwrap();
        first.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        running.entered.notified().await;
        let mut second = TcpStream::connect(running.server.address()).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert_eq!(running.server.connection_count(), 1);
        running.release.notify_one();
        assert!(rest(&mut first).await.ends_with("late"));
        assert!(rest(&mut second).await.ends_with("127.0.0.1"));
        running.server.stop(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_lets_requests_end_closes_idle_connections_and_listens_no_more() {
        let running = start(Limits::default(), None);
        let address = running.server.address();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut idle).await.starts_with("HTTP/1.1 200"));
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        running.entered.notified().await;
        let stopped = tokio::spawn(running.server.stop(LONG));
        assert_eq!(rest(&mut idle).await, "");
        assert!(!stopped.is_finished());
        running.release.notify_one();
        assert!(rest(&mut busy).await.ends_with("late"));
        stopped.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn what_outlasts_the_grace_is_cut() {
        let running = start(Limits::default(), None);
        let mut busy = TcpStream::connect(running.server.address()).await.unwrap();
        busy.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        running.entered.notified().await;
        running.server.stop(Duration::from_millis(20)).await.unwrap();
        assert_eq!(rest(&mut busy).await, "");
        assert_eq!(Arc::strong_count(&running.entered), 1, "nothing of the request is left");
    }
}
