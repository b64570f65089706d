//! Certificates, handshakes and HTTP/2.

use super::*;

/// A CA, and a server configuration with a certificate of it for `names`.
fn authority(names: &[&str], alpn: &[&[u8]]) -> (String, rustls::ServerConfig) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (ca.pem(), config)
}

/// A pool that trusts `ca`.
fn trusting(ca: &str) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, ca).unwrap();
    Rig::with(&EgressConfig { ca_files: vec![path], ..egress() })
}

#[tokio::test]
async fn certificates_are_checked_and_further_authorities_can_be_named() {
    let (ca, config) = authority(&["127.0.0.1"], &[]);
    let target = Target::start_tls(config).await;
    let url = json!({"url": target.url("/")});
    assert_eq!(seen(&trusting(&ca).call(url.clone()).await), ("ok", Some(200)));

    let (other_ca, config) = authority(&["elsewhere.example"], &[]);
    let wrong_name = Target::start_tls(config).await;
    let stranger = trusting(&other_ca).call(url).await;
    assert_eq!(seen(&stranger), ("certificate_refused", None), "{:?}", stranger.error);
    let named = trusting(&other_ca).call(json!({"url": wrong_name.url("/")})).await;
    assert_eq!(seen(&named), ("certificate_refused", None), "{:?}", named.error);
    assert_eq!((target.requests().len(), wrong_name.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_handshake_that_fails_otherwise_may_be_tried_again() {
    let mut rig = Rig::start();
    for reply in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b""] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, reply).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(rig.call(json!({"url": format!("https://{addr}/")})), server);
        assert_eq!(seen(&outcome), ("tls_connect", None), "{:?}", outcome.error);
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_the_target_offers_it() {
    let (ca, config) = authority(&["127.0.0.1"], &[b"h2", b"http/1.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (versions, mut seen_versions) = mpsc::channel(8);
    let server = async move {
        let (socket, _) = listener.accept().await.unwrap();
        let stream = hyper_util::rt::TokioIo::new(acceptor.accept(socket).await.unwrap());
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            versions.try_send((request.version(), request.uri().path().to_owned())).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(hyper::Response::new(String::from("hello"))))
        });
        let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        builder.serve_connection(stream, service).await.unwrap();
    };
    let mut rig = trusting(&ca);
    let calls = async {
        for path in ["/1", "/2"] {
            let outcome = rig.call(json!({"url": format!("https://{addr}{path}"), "body": 1})).await;
            assert_eq!(seen(&outcome), ("ok", Some(200)), "{:?}", outcome.error);
            assert_eq!(outcome.response_head, "hello");
        }
    };
    // One connection serves both calls: the server takes no second one.
    tokio::select! {
        () = calls => {}
        () = server => panic!("the connection ended"),
    }
    for path in ["/1", "/2"] {
        assert_eq!(seen_versions.recv().await, Some((hyper::Version::HTTP_2, path.to_owned())));
    }
}

/// Speaks just enough HTTP/2 to refuse the first stream, which the protocol allows a client to repeat by itself; then
/// counts the requests (HEADERS frames) that come.
async fn refuse_streams<S>(mut socket: S, count: &std::cell::Cell<usize>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const HEADERS: u8 = 1;
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let mut preface = [0; 24];
    socket.read_exact(&mut preface).await.unwrap();
    socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut frame = [0; 9];
    while socket.read_exact(&mut frame).await.is_ok() {
        let mut rest = vec![0; u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize];
        socket.read_exact(&mut rest).await.unwrap();
        if frame[3] == HEADERS {
            count.set(count.get() + 1);
            socket.write_all(&[&[0, 0, 4, 3, 0], &frame[5..9], &REFUSED_STREAM].concat()).await.unwrap();
            socket.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_refused_by_http_2_is_not_sent_again_within_the_attempt() {
    let (ca, config) = authority(&["127.0.0.1"], &[b"h2"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let count = std::cell::Cell::new(0);
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        refuse_streams(acceptor.accept(socket).await.unwrap(), &count).await;
    };
    let mut rig = trusting(&ca);
    let outcome = tokio::select! {
        outcome = rig.call(json!({"url": url, "method": "GET"})) => outcome,
        () = server => panic!("the connection ended"),
    };
    assert_eq!(seen(&outcome), ("reset", None), "{:?}", outcome.error);
    assert_eq!(count.get(), 1);
}
