//! Client certificates at a real target that asks for one.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;

use super::*;
use crate::support::server::install_provider;

/// A CA that issues certificates for servers and for clients.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

struct Issued {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        install_provider();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Issued {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Issued { certificate: leaf.der().clone(), pem: leaf.pem(), key: key.serialize_pem() }
    }

    /// A target that talks only to clients with a certificate of this CA.
    async fn target(&self) -> Target {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let Issued { certificate, key, .. } = self.issue("127.0.0.1");
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Target::start_tls(config).await
    }
}

/// A credential of this certificate.
fn mtls(home: &Home, file: &str, issued: &Issued) -> CredentialConfig {
    let certificate = secret(home.path(), &format!("{file}.pem"), &issued.pem);
    let key = secret(home.path(), &format!("{file}.key"), &issued.key);
    of_kind(CredentialKind::Mtls { certificate, key }, &["127.0.0.1:*"])
}

/// A home that trusts the authority's targets.
fn trusting(authority: &Authority) -> Home {
    let home = Home::new();
    let ca = home.path().join("targets-ca.pem");
    std::fs::write(&ca, authority.0.pem()).unwrap();
    home.with(|config| config.egress.ca_files = vec![ca])
}

#[tokio::test]
async fn each_certificate_is_shown_by_its_own_tasks_and_by_nobody_else() {
    let authority = Authority::new();
    let (target, one, two) = (authority.target().await, authority.issue("one"), authority.issue("two"));
    let home = trusting(&authority);
    let token = secret(home.path(), "token", "s3cret-token");
    let both =
        CredentialConfig { also: vec![name("two")], ..of_kind(CredentialKind::Bearer { token }, &["127.0.0.1:*"]) };
    let all = [(name("one"), mtls(&home, "one", &one)), (name("two"), mtls(&home, "two", &two)), (name("both"), both)];
    let server = home.with(|config| config.credentials = all.into()).start().await;
    for auth in ["one", "two", "one", "both"] {
        let id = server.create(&target.url("/"), &with_auth(&target.url("/"), auth)).await;
        server.until(&id, "succeeded").await;
    }
    let shown: Vec<_> = target.requests().iter().map(|request| request.client_certificate.clone()).collect();
    let (one, two) = (Some(one.certificate.to_vec()), Some(two.certificate.to_vec()));
    assert_eq!(shown, [one.clone(), two.clone(), one, two]);
    let connections: Vec<_> = target.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 1, 2], "connections are kept, each for its own certificate");
    assert_eq!(target.requests()[3].header("authorization"), Some("Bearer s3cret-token"));

    let mut without = json!({"retry": {"max_attempts": 1}});
    without["delay"] = json!(0);
    let id = server.create(&target.url("/"), &without).await;
    server.until(&id, "dead").await;
    assert_eq!(target.requests().len(), 4, "without a certificate nothing gets through");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_a_reload_and_a_foreign_key_is_refused() {
    let authority = Authority::new();
    let (target, old, new) = (authority.target().await, authority.issue("one"), authority.issue("one"));
    let home = trusting(&authority);
    let credential = mtls(&home, "one", &old);
    let dir = home.path().to_owned();
    let mut server = home.with(|config| config.credentials = [(name("one"), credential)].into()).start().await;
    let call = async |server: &TestServer| {
        let id = server.create(&target.url("/"), &with_auth(&target.url("/"), "one")).await;
        server.until(&id, "succeeded").await;
    };
    call(&server).await;
    secret(&dir, "one.pem", &new.pem);
    let refused = server.reload(|_| {}).await.expect_err("the key is another's").to_string();
    assert!(refused.contains("credentials.one.private_key: expected a private key in PEM that belongs"), "{refused}");
    call(&server).await;
    secret(&dir, "one.key", &new.key);
    server.reload(|_| {}).await.expect("taken");
    call(&server).await;
    let shown: Vec<_> = target.requests().iter().map(|request| request.client_certificate.clone().unwrap()).collect();
    let (old, new) = (old.certificate.to_vec(), new.certificate.to_vec());
    assert_eq!(shown, [old.clone(), old, new]);
}

#[tokio::test]
async fn a_certificate_is_for_https_and_the_egress_policy_holds_for_it_too() {
    let authority = Authority::new();
    let (target, one) = (authority.target().await, authority.issue("one"));
    let home = trusting(&authority);
    let credential = mtls(&home, "one", &one);
    let mut server = home.with(|config| config.credentials = [(name("one"), credential)].into()).start().await;
    let plain = refusal(&server, "http://127.0.0.1:9/", json!({"auth": "one"})).await;
    assert_eq!(plain, (422, "credential_over_plain_http".to_owned(), "/payload/url".to_owned()));

    let id = server.create(&target.url("/"), &with_auth(&target.url("/"), "one")).await;
    server.until(&id, "succeeded").await;
    let mut later = with_auth(&target.url("/"), "one");
    later["delay"] = json!("1s");
    let id = server.create(&target.url("/"), &later).await;
    let deny = |config: &mut Config| config.egress.deny_nets = vec!["127.0.0.1/32".parse().expect("a network")];
    server.reload(deny).await.expect("taken");
    server.advance(SEC).await;
    assert_eq!(server.until(&id, "dead").await["dead_reason"], "egress_refused");
    assert_eq!(target.requests().len(), 1, "the kept connection of the old policy is not used");
}
