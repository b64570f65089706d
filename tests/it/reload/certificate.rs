//! What is served, and what is trusted, over TLS after a reload.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::server::{Home, TestServer, install_provider};
use crate::support::target::Target;

/// A CA with one certificate for `127.0.0.1`.
pub(super) struct Authority {
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::until(2099)
    }

    /// Whose certificate ends with the beginning of this year.
    pub(super) fn until(year: i32) -> Self {
        install_provider();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let leaf = params.signed_by(&key, &ca).unwrap();
        Self { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() }
    }

    fn target_config(&self) -> rustls::ServerConfig {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
    }
}

/// Where a configured pair lies.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { certificate: dir.join("served.pem"), key: dir.join("served.key") }
    }

    pub(super) fn write(&self, certificate: &str, key: &str) {
        std::fs::write(&self.certificate, certificate).unwrap();
        std::fs::write(&self.key, key).unwrap();
        std::fs::set_permissions(&self.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// One connection, kept open.
pub(super) struct Wire(TlsStream<TcpStream>);

impl Wire {
    /// A new connection, by a client that has never been here and trusts `ca`, to the server as `name`.
    pub(super) async fn open(server: &TestServer, ca: &str, name: &str) -> std::io::Result<Self> {
        let address: SocketAddr = server.client.url().trim_start_matches("https://").parse().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.map(Self)
    }

    /// The certificate that it was shown.
    fn shown(&self) -> CertificateDer<'static> {
        self.0.get_ref().1.peer_certificates().expect("certificates")[0].clone().into_owned()
    }

    /// Asks for `/healthz` on this very connection.
    pub(super) async fn is_well(&mut self) -> bool {
        self.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        head.starts_with("http/1.1 200")
    }
}

/// A server that serves `first` from files, and where they lie.
pub(super) async fn serving(first: &Authority) -> (TestServer, Pair) {
    let home = Home::new();
    let pair = Pair::in_dir(home.path());
    pair.write(&first.certificate, &first.key);
    let (certificate, key) = (pair.certificate.clone(), pair.key.clone());
    let home = home.with(|config| {
        // For the client of the tests, which trusts what lies there.
        std::fs::create_dir_all(&config.certs_dir).unwrap();
        std::fs::write(config.certs_dir.join("ca.pem"), &first.ca).unwrap();
        config.server.tls.certificate = Some(certificate);
        config.server.tls.key = Some(key);
    });
    (home.start().await, pair)
}

#[tokio::test]
async fn another_pair_in_the_same_files_is_shown_to_new_connections_while_old_ones_go_on() {
    let (first, second) = (Authority::new(), Authority::new());
    let (mut server, pair) = serving(&first).await;
    let mut old = Wire::open(&server, &first.ca, "127.0.0.1").await.unwrap();
    assert!(old.is_well().await);
    pair.write(&second.certificate, &second.key);
    let changed = server.reload(|_| {}).await.unwrap();
    let paths: Vec<&str> = changed.live.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["server.tls.certificate"]);
    assert!(old.is_well().await, "the connection of before");
    assert!(Wire::open(&server, &first.ca, "127.0.0.1").await.is_err(), "the old certificate is no longer shown");
    let mut new = Wire::open(&server, &second.ca, "127.0.0.1").await.unwrap();
    assert!(new.is_well().await);
    assert_eq!(new.shown(), CertificateDer::from_pem_slice(second.certificate.as_bytes()).unwrap());
    assert!(server.reload(|_| {}).await.unwrap().live.is_empty(), "the same again");
    server.stop().await;
}

#[tokio::test]
async fn a_bad_pair_is_refused_and_the_good_one_kept() {
    let (first, second) = (Authority::new(), Authority::new());
    let (mut server, pair) = serving(&first).await;
    for (certificate, key) in [
        (second.certificate.as_str(), first.key.as_str()),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", second.key.as_str()),
        ("", second.key.as_str()),
        (second.certificate.as_str(), ""),
    ] {
        pair.write(certificate, key);
        let refused = server.reload(|config| config.payload_bytes_max = 1).await.unwrap_err().to_string();
        assert!(refused.contains("server.tls.certificate: ") && refused.contains("served."), "{refused}");
        assert!(Wire::open(&server, &first.ca, "127.0.0.1").await.unwrap().is_well().await);
    }
    pair.write(&second.certificate, &second.key);
    server.reload(|_| {}).await.unwrap();
    assert!(Wire::open(&server, &second.ca, "127.0.0.1").await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn the_local_certificate_follows_the_public_name() {
    let mut server = TestServer::start().await;
    let ca = std::fs::read_to_string(server.config().certs_dir.join("ca.pem")).unwrap();
    let mut old = Wire::open(&server, &ca, "localhost").await.unwrap();
    assert!(Wire::open(&server, &ca, "queue.example").await.is_err());
    server.reload(|config| config.server.public_url = Some("https://queue.example/".to_owned())).await.unwrap();
    let mut named = Wire::open(&server, &ca, "queue.example").await.unwrap();
    assert!(named.is_well().await && old.is_well().await);
    assert_ne!(named.shown(), old.shown());
    // From files, and back.
    let other = Authority::new();
    let pair = Pair::in_dir(server.config().data_dir.as_path());
    pair.write(&other.certificate, &other.key);
    server
        .reload(|config| {
            config.server.tls.certificate = Some(pair.certificate.clone());
            config.server.tls.key = Some(pair.key.clone());
        })
        .await
        .unwrap();
    assert!(Wire::open(&server, &other.ca, "127.0.0.1").await.is_ok());
    server.reload(|config| (config.server.tls.certificate, config.server.tls.key) = (None, None)).await.unwrap();
    assert!(Wire::open(&server, &ca, "queue.example").await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn further_authorities_of_targets_are_read_again() {
    let (first, second) = (Authority::new(), Authority::new());
    let (one, two) = (Target::start_tls(first.target_config()).await, Target::start_tls(second.target_config()).await);
    let home = Home::new();
    let file = home.path().join("target-ca.pem");
    std::fs::write(&file, &first.ca).unwrap();
    let mut server = home.start().await;
    let ends = async |server: &TestServer, target: &Target| {
        let id = server.create(&target.url("/"), &json!({"retry": {"max_attempts": 1}})).await;
        let task = server.until_it(&id, |task| task["status"] == "succeeded" || task["status"] == "dead").await;
        task["attempts"][0]["class"].clone()
    };
    assert_eq!(ends(&server, &one).await, "certificate_refused");
    server.reload(|config| config.egress.ca_files = vec![file.clone()]).await.unwrap();
    assert_eq!((ends(&server, &one).await, ends(&server, &two).await), (json!("ok"), json!("certificate_refused")));
    std::fs::write(&file, &second.ca).unwrap();
    let changed = server.reload(|_| {}).await.unwrap();
    assert_eq!(
        changed.live.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["egress.ca_files: what the file held → other CAs"]
    );
    assert_eq!((ends(&server, &one).await, ends(&server, &two).await), (json!("certificate_refused"), json!("ok")));
    server.stop().await;
}
