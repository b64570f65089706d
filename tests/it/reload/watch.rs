//! A certificate whose files somebody replaces is served without a signal; a bad one is not, and nobody notices either.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sendoff::task::limits::CERTIFICATE_LOOK_INTERVAL;
use tokio::task::JoinSet;

use super::certificate::{Authority, Pair, Wire, serving};
use crate::support::server::TestServer;

/// Looks that are more than enough for any change.
const LOOKS_MAX: usize = 200;

/// Lets the server look at its files again and again, until a new client that trusts only this CA gets through.
async fn until_served(server: &TestServer, authority: &Authority) {
    for _ in 0..LOOKS_MAX {
        server.advance(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
        if Wire::open(server, &authority.ca, "127.0.0.1").await.is_ok() {
            return;
        }
    }
    panic!("the certificate is not served");
}

/// Lets the server look until its metrics say this.
async fn until_counted(server: &TestServer, line: &str) {
    for _ in 0..LOOKS_MAX {
        server.advance(CERTIFICATE_LOOK_INTERVAL.to_duration()).await;
        if metrics(server).await.lines().any(|found| found == line) {
            return;
        }
    }
    panic!("{line} is not in {}", metrics(server).await);
}

async fn metrics(server: &TestServer) -> String {
    server.client.get("/metrics").await.body.as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_pair_that_is_replaced_is_served_without_a_signal_and_a_bad_one_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let (server, pair) = serving(&first).await;
    let mut old = Wire::open(&server, &first.ca, "127.0.0.1").await.unwrap();
    assert!(old.is_well().await);
    assert!(metrics(&server).await.contains("sendoff_certificate_expiry_timestamp_seconds{source=\"files\"}"));

    for (refused, certificate, key) in
        [(1, second.certificate.as_str(), first.key.as_str()), (2, "no certificate", second.key.as_str())]
    {
        pair.write(certificate, key);
        until_counted(&server, &format!("sendoff_certificates_refused_total {refused}")).await;
        until_counted(&server, "sendoff_certificate_last_load_successful 0").await;
        assert!(Wire::open(&server, &first.ca, "127.0.0.1").await.unwrap().is_well().await, "the old one is served");
    }
    pair.write(&second.certificate, &second.key);
    until_served(&server, &second).await;
    until_counted(&server, "sendoff_certificate_last_load_successful 1").await;
    assert!(Wire::open(&server, &first.ca, "127.0.0.1").await.is_err());
    assert!(metrics(&server).await.contains("sendoff_certificates_refused_total 2\n"), "each is told once");
    server.stop().await;
}

#[tokio::test]
async fn a_pair_that_is_put_back_after_a_bad_one_is_told_to_be_good_again() {
    let (first, second) = (Authority::new(), Authority::new());
    let (mut server, pair) = serving(&first).await;
    let refused = "sendoff_certificate_last_load_successful 0";
    let good = "sendoff_certificate_last_load_successful 1";
    pair.write(&second.certificate, &first.key);
    until_counted(&server, refused).await;
    pair.write(&first.certificate, &first.key);
    until_counted(&server, good).await;

    pair.write(&second.certificate, &first.key);
    until_counted(&server, refused).await;
    pair.write(&first.certificate, &first.key);
    server.reload(|_| {}).await.expect("it is a pair again");
    assert!(metrics(&server).await.contains(good), "a reload says so at once");
    server.stop().await;
}

#[tokio::test]
async fn a_local_ca_that_is_taken_away_is_missed_and_no_other_is_made() {
    let mut server = TestServer::start().await;
    let ca = server.config().certs_dir.join("ca.pem");
    let away = ca.with_extension("away");
    std::fs::rename(&ca, &away).unwrap();
    until_counted(&server, "sendoff_certificates_refused_total 1").await;
    let refused = server.reload(|_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("ca.pem is missing"), "{refused}");
    assert!(!ca.exists(), "clients trust the one that was taken away, and no other");
    std::fs::rename(&away, &ca).unwrap();
    until_counted(&server, "sendoff_certificate_last_load_successful 1").await;
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_refused() {
    let (first, ended) = (Authority::new(), Authority::until(2025));
    let (mut server, pair) = serving(&first).await;
    pair.write(&ended.certificate, &ended.key);
    until_counted(&server, "sendoff_certificates_refused_total 1").await;
    let refused = server.reload(|_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("ended on 2025-01-01T00:00:00.000Z"), "{refused}");
    assert!(Wire::open(&server, &first.ca, "127.0.0.1").await.unwrap().is_well().await);
    server.stop().await;
}

/// As Kubernetes mounts a secret: a link to a directory is swapped, nothing is written.
#[tokio::test]
async fn a_link_that_is_swapped_under_the_files_is_noticed() {
    let (first, second) = (Authority::new(), Authority::new());
    let (server, pair) = serving(&first).await;
    let dir = pair.certificate.parent().unwrap().to_owned();
    for (name, authority) in [("one", &first), ("two", &second)] {
        std::fs::create_dir(dir.join(name)).unwrap();
        Pair::in_dir(&dir.join(name)).write(&authority.certificate, &authority.key);
    }
    for name in ["two", "one"] {
        let now = dir.join("now");
        drop(std::fs::remove_file(&now));
        symlink(dir.join(name), &now).unwrap();
        for file in [&pair.certificate, &pair.key] {
            std::fs::remove_file(file).unwrap();
            symlink(now.join(file.file_name().unwrap()), file).unwrap();
        }
        until_served(&server, if name == "two" { &second } else { &first }).await;
    }
    server.stop().await;
}

/// A client that trusts both authorities, over one version of HTTP, on kept connections or on a new one each time.
fn client(authorities: &[&Authority], h2: bool, kept: bool) -> reqwest::Client {
    let trusted = authorities.iter().map(|one| reqwest::Certificate::from_pem(one.ca.as_bytes()).unwrap());
    let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only(trusted);
    builder = if h2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    // A request that failed must not be sent again behind our back.
    builder = builder.retry(reqwest::retry::never());
    if kept { builder } else { builder.pool_max_idle_per_host(0) }.build().unwrap()
}

/// Asks one question after the other until told to stop; each has to be answered.
async fn ask((client, h2): (reqwest::Client, bool), url: String, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    while !stop.load(Ordering::Acquire) {
        let answer = client.get(&url).send().await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version() == reqwest::Version::HTTP_2, h2);
        answer.bytes().await.unwrap();
        answered.fetch_add(1, Ordering::AcqRel);
    }
}

async fn reaches(answered: &AtomicU64, count: u64) {
    while answered.load(Ordering::Acquire) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_replaced_certificates_under_load_fail_no_request() {
    let (first, second) = (Authority::new(), Authority::new());
    let (server, pair) = serving(&first).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let url = format!("{}/healthz", server.client.url());
    let mut load = JoinSet::new();
    for (h2, kept) in [(false, true), (false, false), (true, true), (true, false)] {
        let client = client(&[&first, &second], h2, kept);
        load.spawn(ask((client, h2), url.clone(), Arc::clone(&stop), Arc::clone(&answered)));
    }
    for round in 0..20 {
        let before = answered.load(Ordering::Acquire);
        let next = if round % 2 == 0 { &second } else { &first };
        pair.write(&next.certificate, &next.key);
        until_served(&server, next).await;
        // Everybody has asked again, on average, before the next one.
        let more = reaches(&answered, before + 8);
        tokio::time::timeout(Duration::from_secs(60), more).await.expect("the load goes on");
    }
    stop.store(true, Ordering::Release);
    while let Some(ended) = load.join_next().await {
        ended.expect("no request failed");
    }
    server.stop().await;
}
