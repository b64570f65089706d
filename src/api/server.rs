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
        let mut server = HttpServer::<Peer>::from_listener(gate)
            .handle(handle.clone())
            .first_request_timeout(limits.first_request)
            .accept_error_handler(move |peer: Option<&Peer>, error| {
                ConnectionFailed { peer: peer.map(|peer| peer.0), error: error.to_string() }.emit(&telemetry);
            });
        set_protocols(server.http_builder(), &limits);
        let guard = Guard { clock, idle: limits.idle, stalled: limits.stalled };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let served = if let Some(config) = tls {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config)).handshake_timeout(limits.handshake);
            tokio::spawn(server.acceptor(acceptor.acceptor(guard)).serve(service))
        } else {
            tokio::spawn(server.acceptor(guard).serve(service))
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
