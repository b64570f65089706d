//! Where a command finds its server, its key and its CA; and where a key never goes.

use std::fs;

use crate::support::process::Process;
use crate::support::server::{Home, TestServer};
use crate::support::target::{Reply, Target};

use super::here::Here;

/// A directory with a configuration that says where this server is, as `sendoff serve` would have been given it.
fn configured(server: &TestServer, more: &str) -> Here {
    let here = Here::alone();
    let config = server.config();
    let address = server.client.url().split("//").nth(1).expect("an address");
    let (data, certs) = (config.data_dir.display(), config.certs_dir.display());
    let plain = !server.client.url().starts_with("https");
    here.write(
        "config.yaml",
        &format!(
            "server: {{ listen: \"{address}\", plain_http: {plain} }}\ndata_dir: {data}\ncerts_dir: {certs}\n{more}"
        ),
    );
    here
}

#[tokio::test]
async fn the_local_configuration_is_enough() {
    let server = TestServer::start().await;
    let here = configured(&server, "");
    assert_eq!(here.run(&["queue", "list", "-o", "name"]).await.ok(), "default\n");
    assert_eq!(here.run(&["healthcheck"]).await.code, 0);
    fs::rename(here.path().join("config.yaml"), here.path().join("other.yaml")).unwrap();
    assert_eq!(here.run(&["queue", "list", "--config", "other.yaml", "-o", "name"]).await.ok(), "default\n");
    assert_eq!(here.run(&["--config", "other.yaml", "queue", "list", "-o", "name"]).await.ok(), "default\n");
}

#[tokio::test]
async fn plain_http_is_spoken_where_the_configuration_says_so() {
    let server = Home::new().with(|config| config.server.plain_http = true).start().await;
    assert!(server.client.url().starts_with("http://"));
    assert_eq!(configured(&server, "").run(&["queue", "list", "-o", "name"]).await.ok(), "default\n");
}

#[tokio::test]
async fn the_real_server_and_the_real_client_meet_in_one_directory() {
    let here = Here::alone().with("SENDOFF_SERVER__LISTEN", "127.0.0.1:0");
    let process = Process::start(here.path(), &[]);
    let address = process.client.url().split("//").nth(1).expect("an address").to_owned();
    let unnamed = here.run(&["queue", "list"]).await.failed(2);
    assert!(unnamed.contains("port 0") && unnamed.contains("--url"), "{unnamed}");
    let any = address.replace("127.0.0.1", "0.0.0.0");
    let here = here.with("SENDOFF_SERVER__LISTEN", &any);
    assert_eq!(here.run(&["queue", "list", "-o", "name"]).await.ok(), "default\n", "0.0.0.0 is here");
    process.terminate(here.path());
    let said = here.run(&["queue", "list"]).await.failed(6);
    let tried = format!("https://{address} (from server.listen, environment SENDOFF_SERVER__LISTEN)");
    assert!(said.contains(&tried), "{said}");
}

#[tokio::test]
async fn flags_are_stronger_than_variables_and_those_than_the_configuration() {
    let server = TestServer::start().await;
    let config = server.config().clone();
    let (key, ca) = (config.data_dir.join("admin.key"), config.certs_dir.join("ca.pem"));
    let here = configured(&server, "").with("SENDOFF_URL", "https://127.0.0.1:1").with("SENDOFF_KEY", "so_x_y");
    here.run(&["queue", "list"]).await.failed(6);
    here.run(&["queue", "list", "--url", server.client.url()]).await.failed(4);
    let reference = format!("file:{}", key.display());
    let words = ["queue", "list", "-o", "name", "--url", server.client.url(), "--key", &reference];
    assert_eq!(here.run(&words).await.ok(), "default\n");
    let here = here.with("SENDOFF_CA", "none.pem");
    assert!(here.run(&words).await.failed(2).contains("the CA file none.pem cannot be read"));
    let ca = ca.display().to_string();
    assert_eq!(here.run(&[words.as_slice(), &["--ca", &ca]].concat()).await.ok(), "default\n");
    let text = fs::read_to_string(&key).unwrap();
    let here = here.with("MY_KEY", &text);
    let words = ["queue", "list", "-o", "name", "--url", server.client.url(), "--ca", &ca, "--key", "env:MY_KEY"];
    assert_eq!(here.run(&words).await.ok(), "default\n");
}

#[tokio::test]
async fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let server = TestServer::start().await;
    let said = Here::of(&server).run(&["queue", "list", "--key", "so_me_secret"]).await.failed(2);
    assert!(said.contains("file:PATH or env:NAME") && said.contains("(ps)"), "{said}");
    assert!(!said.contains("so_me"), "{said}");
    let missing = Here::of(&server).run(&["queue", "list", "--key", "env:NOT_THERE"]).await.failed(2);
    assert!(missing.contains("env:NOT_THERE"), "{missing}");
}

#[tokio::test]
async fn the_local_key_goes_to_the_local_server_only() {
    let server = TestServer::start().await;
    let here = configured(&server, "");
    // An address of documentation (RFC 5737): were it asked, nobody would answer.
    let said = here.run(&["queue", "list", "--url", "https://192.0.2.1:8443"]).await.failed(4);
    assert!(said.contains("no API key for https://192.0.2.1:8443") && said.contains("not sent elsewhere"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_trusted() {
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let ca = other.config().certs_dir.join("ca.pem").display().to_string();
    let said = Here::of(&server).run(&["queue", "list", "--ca", &ca]).await.failed(6);
    assert!(said.contains("is not trusted") && said.contains(&ca) && said.contains("SENDOFF_CA"), "{said}");
}

#[tokio::test]
async fn a_certificate_with_a_public_name_is_met_at_the_address_of_this_machine() {
    let server = TestServer::start().await;
    let config = server.config();
    let certs = config.certs_dir.display();
    let address = server.client.url().split("//").nth(1).expect("an address");
    let here = Here::alone().with("SENDOFF_CA", &config.certs_dir.join("ca.pem").display().to_string());
    here.write(
        "config.yaml",
        &format!(
            "server:\n  listen: \"{address}\"\n  public_url: https://localhost:1/behind/a/proxy\n  tls: {{ certificate: {certs}/server.pem, key: {certs}/server.key }}\ndata_dir: {}\n",
            config.data_dir.display()
        ),
    );
    assert_eq!(here.run(&["queue", "list", "-o", "name"]).await.ok(), "default\n");
    let here = here.with("SENDOFF_CA", "");
    let said = here.run(&["queue", "list"]).await.failed(6);
    assert!(said.contains("server.public_url, at ") && said.contains("the system's"), "{said}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_is_not_trusted() {
    let server = Home::new().with(|config| config.server.plain_http = true).start().await;
    let secure = server.client.url().replace("http:", "https:");
    let said = Here::of(&server).with("SENDOFF_CA", "").run(&["queue", "list", "--url", &secure]).await.failed(6);
    assert!(said.contains("does not speak TLS") && said.contains("begins with http://"), "{said}");
}

#[tokio::test]
async fn without_any_server_here_it_says_what_is_missing() {
    let said = Here::alone().run(&["queue", "list"]).await.failed(4);
    assert!(said.contains("data/admin.key does not exist") && said.contains("--data-dir"), "{said}");
    let here = Here::alone();
    fs::create_dir_all(here.path().join("data/admin.key")).unwrap();
    let said = here.run(&["queue", "list"]).await.failed(4);
    assert!(said.contains("data/admin.key cannot be read: ") && said.contains("as the user"), "{said}");
    for (url, part) in [
        ("nonsense", "is not a URL"),
        ("ftp://127.0.0.1", "neither an http nor an https URL"),
        ("https://user:pw@127.0.0.1", "is refused"),
        ("https://127.0.0.1/?a=b", "has a query"),
    ] {
        let said = Here::alone().run(&["queue", "list", "--url", url]).await.failed(2);
        assert!(said.contains(part), "{url}: {said}");
    }
}

#[tokio::test]
async fn another_server_is_told_from_sendoff() {
    let target = Target::start().await;
    target.on("/queues", [Reply::with(404, &[], b"<html>\x1b[2J")]);
    let server = TestServer::start().await;
    let here = Here::of(&server).with("SENDOFF_URL", &target.url("/"));
    let said = here.run(&["queue", "list"]).await.failed(1);
    assert!(said.contains("answered 404, and not as sendoff does") && said.contains("<html>\\u{1b}[2J"), "{said}");
    target.on("/queues", [Reply::with(200, &[], b"{}")]);
    assert!(here.run(&["queue", "list"]).await.failed(1).contains("the server's list of queues is missing"));
}

#[tokio::test]
async fn proxies_are_for_servers_elsewhere() {
    let (server, proxy) = (TestServer::start().await, Target::start().await);
    let here = Here::of(&server).with("http_proxy", &proxy.url("")).with("https_proxy", &proxy.url(""));
    assert_eq!(here.run(&["queue", "list", "-o", "name"]).await.ok(), "default\n");
    assert_eq!(proxy.requests(), [], "a server on this machine is asked itself");
    // A name that exists nowhere (RFC 6761): only the proxy can be asked for it.
    let said = here.run(&["queue", "list", "--url", "http://queue.invalid"]).await;
    assert_eq!(proxy.requests().first().map(|request| request.path.as_str()), Some("http://queue.invalid/queues"));
    assert!(said.err.contains("warning: the API key goes to http://queue.invalid unencrypted"), "{said:?}");
}
