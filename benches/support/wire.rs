//! A client that costs next to nothing: a kept connection, a request written as it stands, an answer of which only
//! status and length are read. A dearer one would make every ratio look better than it is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Outcome;

/// Opens connections to one server, and writes requests for it.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: TlsConnector,
    key: String,
}

impl Dialer {
    /// To the server at `address`, which a CA in the file `ca` vouches for and which wants `key`.
    pub(crate) fn trusting(ca: &Path, address: SocketAddr, key: String) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)), key })
    }

    /// The same for another server with the same certificates.
    pub(crate) fn to(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Opens a connection.
    pub(crate) async fn dial(&self) -> Outcome<Wire> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await?;
        Ok(Wire { stream: Box::new(stream), received: Vec::with_capacity(16 * 1024), body_at: 0 })
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A `POST` of JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> Arc<[u8]> {
        self.post_as("application/json", path, body)
    }

    /// A `POST` of lines of JSON.
    pub(crate) fn post_lines(&self, path: &str, body: &str) -> Arc<[u8]> {
        self.post_as("application/x-ndjson", path, body)
    }

    fn post_as(&self, kind: &str, path: &str, body: &str) -> Arc<[u8]> {
        let length = body.len();
        let more = format!("content-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.request("POST", path, &more)
    }

    /// A `GET`.
    pub(crate) fn get(&self, path: &str) -> Arc<[u8]> {
        self.request("GET", path, "\r\n")
    }

    fn request(&self, method: &str, path: &str, rest: &str) -> Arc<[u8]> {
        let (host, key) = (self.address, &self.key);
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n");
        Arc::from((head + rest).into_bytes())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    /// The last answer, whole.
    received: Vec<u8>,
    body_at: usize,
}

impl Wire {
    /// Sends a request and reads its whole answer; gives the status.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Outcome<u16> {
        self.received.clear();
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            self.receive().await?;
            let Some(head) = Head::of(&self.received)? else { continue };
            while self.received.len() < head.length + head.body_length {
                self.receive().await?;
            }
            self.body_at = head.length;
            return Ok(head.status);
        }
    }

    async fn receive(&mut self) -> Outcome {
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err("the server closed the connection within an answer".into());
        }
        Ok(())
    }

    /// The same for a request that has to be answered with `status`.
    pub(crate) async fn expect(&mut self, request: &[u8], status: u16) -> Outcome {
        let given = self.call(request).await?;
        if given == status {
            return Ok(());
        }
        Err(format!("answered {given} instead of {status}: {}", String::from_utf8_lossy(self.body())).into())
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        self.received.get(self.body_at..).unwrap_or_default()
    }

    /// How long the last answer was, in bytes, its head included.
    pub(crate) fn answer_length(&self) -> usize {
        self.received.len()
    }
}

struct Head {
    status: u16,
    length: usize,
    body_length: usize,
}

impl Head {
    /// The head of an answer, if it is there.
    fn of(received: &[u8]) -> Outcome<Option<Self>> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(received.get(..end).unwrap_or_default())?;
        let status = text.split(' ').nth(1).ok_or("an answer without a status")?.parse()?;
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("an answer without a length")?
            .parse()?;
        Ok(Some(Self { status, length: end + 4, body_length: length }))
    }
}
