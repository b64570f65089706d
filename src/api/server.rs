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
//! | sending a request's body | [`body_deadline`], a layer for the router |
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
use tower_http::timeout::RequestBodyDeadlineLayer;

use crate::api::connection::{Gate, Guard, Peer};
use crate::clock::Clock;
use crate::logging::event::ConnectionFailed;
use crate::logging::{Fact, Telemetry};

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
    /// Without any progress while a request is being worked on; longer than the longest long poll and the time
    /// given to [`body_deadline`].
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
            connections: 10_000,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stalled: Duration::from_secs(180),
            ping: Duration::from_secs(20),
            streams: 250,
            head_bytes: 32 * 1024,
            resets: 50,
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

/// A layer that ends a request whose body is not there after `within`, however steadily it trickles.
///
/// The body then yields an error, which extractors answer with a 4xx.
pub fn body_deadline(within: Duration) -> RequestBodyDeadlineLayer {
    RequestBodyDeadlineLayer::new(within)
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
    // The number of headers stays at hyper's own bound of 100: naming one costs an allocation a request.
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
    use axum::body::Bytes;
    use axum::extract::ConnectInfo;
    use axum::routing::{get, post};
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
            .route("/held", get(held))
            .route("/echo", post(|body: Bytes| async move { body }))
            .layer(body_deadline(Duration::from_millis(50)));
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
    async fn a_body_that_does_not_come_is_answered_with_a_4xx() {
        let running = start(Limits::default(), None);
        let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
        stream.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhal").await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 4"));
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
