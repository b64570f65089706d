//! Which credential goes where, what it sets, and what a reload makes of it.

use super::*;
use crate::config::{CredentialConfig, HostPattern, QueueConfig, SecretRef};

/// A place for secrets, and configurations that refer to it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, secret: &str) -> SecretRef {
        let path = self.0.path().join("secret");
        std::fs::write(&path, secret).unwrap();
        SecretRef::File(path)
    }

    /// A `bearer` named `billing` for these hosts.
    fn config(&self, secret: &str, hosts: &[&str], allow_plain_http: bool) -> Config {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        let kind = CredentialKind::Bearer { token: self.put(secret) };
        let credential = CredentialConfig { hosts, allow_plain_http, also: Vec::new(), kind };
        Config { credentials: [(name("billing"), credential)].into(), ..Config::default() }
    }
}

fn outside() -> Outside {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let egress = crate::config::EgressConfig { http: true, loopback: true, ..Default::default() };
    Outside {
        clients: Arc::new(crate::security::http_client::OutgoingClients::new(&egress, Vec::new()).unwrap()),
        clock: crate::clock::Clock::manual(crate::task::WallMs::new(0)).0,
        chance: Arc::new(std::sync::Mutex::new(crate::clock::Chance::from_seed(1))),
        telemetry: crate::logging::Telemetry::new(),
    }
}

#[tokio::test]
async fn an_issuer_whose_name_leads_inward_is_not_called() {
    use crate::security::http_client::inward;
    for address in inward::ADDRESSES {
        let outside = Outside { clients: inward::clients(address), ..outside() };
        let request = http::Request::post("https://issuer.example/token").body(Vec::new()).unwrap();
        let error = outside.ask(request).await.expect_err("refused");
        assert_eq!(error.fault, super::token::FetchFault::Egress, "{address}: {error}");
    }
}

fn made(config: &Config) -> Result<Credentials, CredentialsError> {
    Credentials::new(config, outside())
}

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn check(credentials: &Credentials, to: &str) -> Result<(), Refused> {
    credentials.check(&name("billing"), &url(to)).map(drop)
}

async fn carried(credentials: &Credentials, to: &str) -> String {
    let (to, body) = (url(to), Bytes::new());
    let now = credentials.outside.clock.now();
    let queue = QueueName::parse("mail").unwrap();
    let call = Call {
        url: &to,
        method: &Method::POST,
        body: &body,
        task_id: "t",
        queue: &queue,
        webhook_id: "t-1",
        attempt: 1,
        now,
        fresh: false,
    };
    let headers = credentials.headers(&name("billing"), &call).await.unwrap().headers;
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    lines.collect::<Vec<_>>().join("; ")
}

#[test]
fn it_goes_to_the_hosts_it_names_and_nowhere_by_default() {
    let place = Place::new();
    let credentials = made(&place.config("s", &["api.example.com", "*.b.example:8443"], false)).unwrap();
    assert_eq!(check(&credentials, "https://api.example.com/x"), Ok(()));
    assert_eq!(check(&credentials, "https://a.b.example:8443/x"), Ok(()));
    let refused = check(&credentials, "https://evil.example/").unwrap_err();
    assert_eq!(refused, Refused::Host { name: name("billing"), host: "evil.example:443".to_owned() });
    assert!(refused.to_string().contains("name it in credentials.billing.hosts of the configuration"));
    let nowhere = made(&place.config("s", &[], false)).unwrap();
    assert!(matches!(check(&nowhere, "https://api.example.com/"), Err(Refused::Host { .. })));
}

#[test]
fn plain_http_leaves_this_machine_only_where_that_is_allowed() {
    let place = Place::new();
    let credentials = made(&place.config("s", &["*:*"], false)).unwrap();
    for to in
        ["http://127.0.0.1:9/", "http://127.9.9.9/", "http://[::1]/", "http://localhost:80/", "https://a.example/"]
    {
        assert_eq!(check(&credentials, to), Ok(()), "{to}");
    }
    for to in ["http://a.example/", "http://10.0.0.7/", "http://localhost.example/", "http://[::ffff:10.0.0.1]/"] {
        assert!(matches!(check(&credentials, to), Err(Refused::PlainHttp { .. })), "{to}");
    }
    let allowed = made(&place.config("s", &["*:*"], true)).unwrap();
    assert_eq!(check(&allowed, "http://a.example/"), Ok(()));
}

#[test]
fn an_unknown_name_is_told_with_the_nearest() {
    let place = Place::new();
    let credentials = made(&place.config("s", &["*"], false)).unwrap();
    let refused = credentials.check(&name("biling"), &url("https://a.example/")).unwrap_err();
    assert_eq!(refused.to_string(), "there is no credential `biling`; did you mean `billing`?");
    let refused = credentials.check(&name("orders"), &url("https://a.example/")).unwrap_err();
    assert_eq!(refused.to_string(), "there is no credential `orders`");
}

#[test]
fn a_task_names_its_own_or_has_that_of_its_queue() {
    let queue = |text| QueueName::parse(text).unwrap();
    let place = Place::new();
    let mut config = place.config("s", &["*"], false);
    config.queue_defaults.auth = Some(name("billing"));
    let open = QueueConfig { auth: None, ..config.queue_defaults.clone() };
    config.queues = [(queue("open"), open), (queue("mail"), config.queue_defaults.clone())].into();
    let credentials = made(&config).unwrap();
    assert_eq!(credentials.name_for(None, &queue("mail")), Some(name("billing")));
    assert_eq!(credentials.name_for(None, &queue("open")), None);
    assert_eq!(credentials.name_for(None, &queue("taken-out")), Some(name("billing")), "as the defaults have it");
    assert_eq!(credentials.name_for(Some(&name("own")), &queue("mail")), Some(name("own")));
}

#[tokio::test]
async fn a_reload_reads_secrets_again_and_says_whose_are_others() {
    let place = Place::new();
    let config = place.config("first", &["*"], false);
    let credentials = made(&config).unwrap();
    let next = credentials.prepare(&config).unwrap();
    assert!(next.other_secrets.is_empty());
    place.put("second");
    let next = credentials.prepare(&config).unwrap();
    assert_eq!(next.other_secrets, [name("billing")]);
    assert_eq!(carried(&credentials, "https://a.example/").await, "authorization: Bearer first", "not in force yet");
    credentials.replace(next);
    assert_eq!(carried(&credentials, "https://a.example/").await, "authorization: Bearer second");
}

#[test]
fn a_secret_that_cannot_be_used_is_told_by_its_key_and_never_shown() {
    let place = Place::new();
    let error = made(&place.config("hunter2 x", &["*"], false)).unwrap_err();
    let CredentialsError::Credential(error) = error else { panic!("{error}") };
    assert_eq!((error.name.as_str(), error.key), ("billing", "token"));
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let credentials = made(&place.config("hunter2", &["*"], false)).unwrap();
    assert!(!format!("{credentials:?}").contains("hunter2"));
}
