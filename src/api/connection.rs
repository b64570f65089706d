//! One connection: its place among those allowed, and the watch over whether it is being used.

use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::clock::{Clock, Sleep};

/// Where a connection comes from. A type of its own, because axum-server chooses the listener by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Address for Peer {
    type Stream = Held;
    type Listener = Gate;
}

impl Connected<Peer> for SocketAddr {
    fn connect_info(peer: Peer) -> Self {
        peer.0
    }
}

/// A listener that accepts only while there is a place.
#[derive(Debug)]
pub(super) struct Gate {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new(listener: TcpListener, places: Arc<Semaphore>) -> Self {
        Self { listener, places }
    }
}

impl AddrListener<Held, Peer> for Gate {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a gate is made of a listener, not of an address"))
    }

    async fn accept_stream(&self) -> io::Result<(Held, Peer)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        Ok((Held { stream, place }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}

/// An accepted connection and its place.
#[derive(Debug)]
pub(super) struct Held {
    stream: TcpStream,
    place: OwnedSemaphorePermit,
}

/// Puts a watch over each accepted connection: idle or stalled for too long, and it is cut.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) clock: Clock,
    pub(super) idle: Duration,
    pub(super) stalled: Duration,
}

impl<S> Accept<Held, S> for Guard {
    type Stream = Watched;
    type Service = Counted<S>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, held: Held, inner: S) -> Self::Future {
        let Held { stream, place } = held;
        if let Err(error) = stream.set_nodelay(true) {
            return ready(Err(error));
        }
        let activity = Arc::new(Activity {
            clock: self.clock.clone(),
            requests: AtomicU32::new(0),
            last_ms: AtomicU64::new(millis(self.clock.now().mono)),
        });
        let watch = Watch { guard: self.clone(), activity: Arc::clone(&activity), timer: None };
        ready(Ok((Watched { stream, watch, _place: place }, Counted { inner, activity })))
    }
}

/// What happens on one connection: shared by its stream, which looks, and its requests, which tell.
#[derive(Debug)]
struct Activity {
    clock: Clock,
    /// Requests being worked on, their answers' bodies included.
    requests: AtomicU32,
    /// When a request last began, went on or ended (monotonic).
    last_ms: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        self.last_ms.store(millis(self.clock.now().mono), Ordering::Relaxed);
    }
}

/// The timer of one connection. It is armed for `idle` at most, so that a request costs no timer, and set again when it
/// fires too early.
struct Watch {
    guard: Guard,
    activity: Arc<Activity>,
    timer: Option<Sleep>,
}

impl Watch {
    /// An error once the connection has not been used for too long; wakes the reader when it is time to look again.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let timer = match &mut self.timer {
                Some(timer) => timer,
                none => none.insert(self.guard.clock.sleep(self.guard.idle.min(self.guard.stalled))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            let busy = self.activity.requests.load(Ordering::Relaxed) > 0;
            let allowed = if busy { self.guard.stalled } else { self.guard.idle };
            let last = Duration::from_millis(self.activity.last_ms.load(Ordering::Relaxed));
            let left = (last + allowed).saturating_sub(self.guard.clock.now().mono);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.timer = Some(self.guard.clock.sleep(left.min(self.guard.idle)));
        }
    }
}

/// A connection under watch. Dropping it frees its place.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Watch,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.watch.check(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.check(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.check(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A service that tells its connection what it is working on.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<CountedBody<R>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let busy = Busy::new(&self.activity);
        CountedFuture { inner: self.inner.call(request), busy: Some(busy) }
    }
}

/// One request being worked on.
#[derive(Debug)]
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.touch();
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// An answer being made.
    pub(super) struct CountedFuture<F> {
        #[pin]
        inner: F,
        busy: Option<Busy>,
    }
}

impl<F, R, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CountedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = std::task::ready!(this.inner.poll(cx))?;
        let busy = this.busy.take();
        Poll::Ready(Ok(answer.map(|inner| CountedBody { inner, busy })))
    }
}

pin_project! {
    /// An answer's body being sent.
    pub(super) struct CountedBody<B> {
        #[pin]
        inner: B,
        busy: Option<Busy>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = std::task::ready!(this.inner.poll_frame(cx));
        match (&frame, &this.busy) {
            (Some(_), Some(busy)) => busy.0.touch(),
            _ => *this.busy = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
