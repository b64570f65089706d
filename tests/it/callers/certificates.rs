//! Callers that show a client certificate: what they may do, which certificates are refused, and for how long one is good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use reqwest::Method;
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sendoff::config::{CertificateGrant, Config, SanPattern};
use sendoff::task::CallerName;
use sendoff::task::scope::Scopes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::client::{Answer, Client};
use crate::support::server::{Home, TestServer, install_provider, task};

use super::{last_act_by, refusal};

/// Who issues client certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        install_provider();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these names until the beginning of this year, and its key, as one PEM.
    fn until(&self, year: i32, names: &[SanType]) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.0).unwrap().pem() + &key.serialize_pem()
    }

    /// One that is good for long.
    pub(crate) fn leaf(&self, names: &[SanType]) -> String {
        self.until(2099, names)
    }
}

pub(super) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn email(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

fn grant(config: &mut Config, san: &str, scopes: &[&str]) {
    let name = CallerName::parse(&format!("grant{}", config.callers.certificates.len())).unwrap();
    let (san, scopes) = (SanPattern::parse(san).unwrap(), Scopes::parse(scopes.iter().copied()).unwrap());
    config.callers.certificates.insert(name, CertificateGrant { san, scopes });
}

fn grants(config: &mut Config, ca: &Path) {
    config.server.tls.client_ca = Some(ca.to_owned());
    grant(config, "dns:*.robots.example", &["read", "enqueue"]);
    grant(config, "uri:spiffe://a.example/metrics/*", &["metrics"]);
    grant(config, "email:*@ops.example", &["manage:mail"]);
}

/// A server that takes certificates of an authority, and the file with that authority's own.
struct Stage {
    server: TestServer,
    authority: Authority,
    file: PathBuf,
}

impl Stage {
    async fn set() -> Self {
        let (home, authority) = (Home::new(), Authority::new());
        let file = home.path().join("clients.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let home = home.with_queue("mail", |_| {}).with(|config| grants(config, &file));
        Self { server: home.start().await, authority, file }
    }

    /// A client that shows a certificate, with new connections.
    fn client(&self, pem: &str) -> Client {
        self.server.client.with_certificate(&self.server.config().certs_dir.join("ca.pem"), pem)
    }
}

/// What a client without any key is answered.
async fn asks(client: &Client, method: Method, path: &str) -> Result<Answer, reqwest::Error> {
    client.send(client.bare(method, path)).await
}

/// The status when it wants to read.
async fn reads(client: &Client) -> u16 {
    asks(client, Method::GET, "/tasks").await.expect("an answer").status.as_u16()
}

#[tokio::test]
async fn a_certificate_may_do_what_the_grants_for_its_names_allow_and_nothing_else() {
    let stage = Stage::set().await;
    for (names, read, metrics, pause) in [
        (vec![dns("a.robots.example")], 200, 403, 403),
        (vec![dns("A.Robots.Example")], 200, 403, 403),
        (vec![uri("spiffe://a.example/metrics/prometheus")], 403, 200, 403),
        (vec![email("me@ops.example")], 403, 403, 200),
        (vec![dns("x.example"), dns("a.robots.example"), uri("spiffe://a.example/metrics/x")], 200, 200, 403),
        (vec![dns("robots.example")], 403, 403, 403),
        (vec![dns("a.robots.example.evil.example")], 403, 403, 403),
        (vec![uri("a.robots.example")], 403, 403, 403),
        (vec![email("me@ops.example.evil.example")], 403, 403, 403),
        (vec![], 403, 403, 403),
    ] {
        let client = stage.client(&stage.authority.leaf(&names));
        let mut found = Vec::new();
        for (method, path) in [(Method::GET, "/tasks"), (Method::GET, "/metrics"), (Method::POST, "/queues/mail/pause")]
        {
            found.push(asks(&client, method, path).await.expect("an answer").status.as_u16());
        }
        assert_eq!(found, [read, metrics, pause], "{names:?}");
        assert_eq!(asks(&client, Method::GET, "/keys").await.expect("an answer").status, 403, "{names:?}");
    }
}

#[tokio::test]
async fn whoever_shows_none_may_show_a_key_and_a_key_is_what_counts() {
    let stage = Stage::set().await;
    let nobody = &stage.server.client;
    let refused = asks(nobody, Method::GET, "/tasks").await.expect("an answer");
    assert_eq!(refusal(&refused), (401, "unauthenticated"));
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(nobody.get("/tasks").await.status, 200, "by its key");
    let client = stage.client(&stage.authority.leaf(&[dns("a.robots.example")]));
    assert_eq!((reads(&client).await, client.get("/keys").await.status.as_u16()), (200, 200), "the key may do more");
    assert_eq!(client.with_key("so_nobody00_nothing").get("/tasks").await.status, 401, "a wrong key is a wrong key");
}

#[tokio::test]
async fn a_certificate_that_is_not_good_ends_the_handshake() {
    let stage = Stage::set().await;
    let names = [dns("a.robots.example")];
    for (what, pem) in
        [("from elsewhere", Authority::new().leaf(&names)), ("expired", stage.authority.until(2020, &names))]
    {
        let asked = asks(&stage.client(&pem), Method::GET, "/healthz").await;
        assert!(asked.is_err(), "{what}: {asked:?}");
    }
    assert_eq!(reads(&stage.client(&stage.authority.leaf(&names))).await, 200);
    let metrics = stage.server.client.get("/metrics").await.body;
    assert!(!metrics.as_str().expect("text").contains("sendoff_connections_failed_total 0\n"), "they are counted");
}

#[tokio::test]
async fn a_renewed_certificate_is_the_same_caller() {
    let stage = Stage::set().await;
    let body = task("http://127.0.0.1:9/", &json!({"delay": "1h"})).to_string();
    let mut ids = Vec::new();
    for (name, status) in [("a", 201), ("a", 200), ("b", 201)] {
        let client = stage.client(&stage.authority.leaf(&[dns(&format!("{name}.robots.example")), dns("0.example")]));
        let request = client.bare(Method::POST, "/tasks").header("content-type", "application/json");
        let answer = client.send(request.header("idempotency-key", "one").body(body.clone())).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{name}: {:?}", answer.body);
        ids.push(answer.body["task_id"].as_str().expect("an id").to_owned());
    }
    assert!(ids[0] == ids[1] && ids[0] != ids[2]);
}

#[tokio::test]
async fn the_audit_log_names_the_name_that_a_grant_is_for() {
    let stage = Stage::set().await;
    let client = stage.client(&stage.authority.leaf(&[dns("0.example"), email("me@ops.example")]));
    assert_eq!(asks(&client, Method::POST, "/queues/mail/pause").await.expect("an answer").status, 200);
    assert_eq!(last_act_by(&stage.server), "email:me@ops.example");
}

#[tokio::test]
async fn another_ca_in_the_file_holds_for_open_connections_too() {
    let stage = Stage::set().await;
    let names = [dns("a.robots.example")];
    let (old, second) = (stage.client(&stage.authority.leaf(&names)), Authority::new());
    assert_eq!(reads(&old).await, 200);
    std::fs::write(&stage.file, second.pem()).unwrap();
    // A change is acted on at the second look that sees it.
    let replaced = async {
        while reads(&old).await == 200 {
            stage.server.hand().advance(Duration::from_secs(5));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced).await.expect("noticed");
    assert_eq!(reads(&old).await, 401, "on the connection of before");
    assert_eq!(reads(&stage.client(&second.leaf(&names))).await, 200);
    assert!(asks(&stage.client(&stage.authority.leaf(&names)), Method::GET, "/healthz").await.is_err());
}

#[tokio::test]
async fn the_ca_comes_and_goes_with_a_reload_and_a_bad_one_is_refused() {
    let mut stage = Stage::set().await;
    let pem = stage.authority.leaf(&[dns("a.robots.example")]);
    let client = stage.client(&pem);
    assert_eq!(reads(&client).await, 200);
    std::fs::write(&stage.file, "nonsense").unwrap();
    let refused = stage.server.reload(|config| config.payload_bytes_max = 1).await.unwrap_err().to_string();
    assert!(refused.contains("server.tls.client_ca: ") && refused.contains("clients.pem"), "{refused}");
    assert_eq!(reads(&client).await, 200, "as before");
    let without = |config: &mut Config| {
        config.server.tls.client_ca = None;
        config.callers.certificates.clear();
    };
    stage.server.reload(without).await.unwrap();
    assert_eq!(reads(&client).await, 401);
    assert_eq!(reads(&stage.client(&pem)).await, 401, "nobody asks it for a certificate");
    std::fs::write(&stage.file, stage.authority.pem()).unwrap();
    stage.server.reload(|config| grants(config, &stage.file)).await.unwrap();
    assert_eq!(reads(&stage.client(&pem)).await, 200);
}

/// One request on a connection of its own: how its handshake went, and the status.
async fn exchange(config: &Arc<rustls::ClientConfig>, server: &TestServer) -> (HandshakeKind, String) {
    let address = server.client.url().trim_start_matches("https://");
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await.unwrap();
    stream.write_all(b"GET /tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().expect("it is over");
    (kind, String::from_utf8_lossy(&answer).get(9..12).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_session_that_is_resumed_brings_no_certificate_back_that_is_refused_now() {
    let mut stage = Stage::set().await;
    let pem = stage.authority.leaf(&[dns("a.robots.example")]);
    let mut roots = rustls::RootCertStore::empty();
    let ca = stage.server.config().certs_dir.join("ca.pem");
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key);
    let config = Arc::new(config.unwrap());
    assert_eq!(exchange(&config, &stage.server).await, (HandshakeKind::Full, "200".to_owned()));
    assert_eq!(exchange(&config, &stage.server).await, (HandshakeKind::Resumed, "200".to_owned()));
    std::fs::write(&stage.file, Authority::new().pem()).unwrap();
    stage.server.reload(|_| {}).await.unwrap();
    assert_eq!(exchange(&config, &stage.server).await, (HandshakeKind::Resumed, "401".to_owned()));
}
