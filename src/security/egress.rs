//! The egress policy: which URLs and addresses may be called. Pure, so that the same rules answer at `POST` (what can
//! be seen in the URL) and at the moment of connecting (what DNS says then).
//!
//! A user of a task queue chooses what a server inside our network calls: server-side request forgery by design,
//! unless addresses are refused by default (OWASP SSRF prevention: check the address that is connected to).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

use super::address::{self, LOOPBACK};
use crate::config::EgressConfig;

/// Names under which clouds hand out credentials; refused like the addresses behind them.
const METADATA_HOSTS: [&str; 7] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
];

/// Why a target may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The rule's name: `private`, `loopback`, `metadata`, `deny`, `own_listener`, `plain_http`, …
    pub rule: &'static str,
    /// What it refused: an address, with the name it was found under; a host; a scheme.
    pub what: String,
    /// What to change in the configuration to allow it; `None` where nothing does.
    pub fix: Option<String>,
}

impl Refusal {
    fn new(rule: &'static str, what: impl Into<String>, fix: Option<String>) -> Self {
        Self { rule, what: what.into(), fix }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused by the egress rule `{}`", self.what, self.rule)?;
        match &self.fix {
            Some(fix) => write!(f, "; to allow it: {fix}"),
            None => Ok(()),
        }
    }
}

/// What may be called.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    config: EgressConfig,
    own: Vec<SocketAddr>,
    is_local: fn(IpAddr) -> bool,
}

impl EgressPolicy {
    /// The policy of a server that listens on `own` (its real addresses, after binding).
    pub fn new(config: &EgressConfig, own: Vec<SocketAddr>) -> Self {
        Self { config: config.clone(), own, is_local: |_| false }
    }

    /// Asks `is_local` which addresses are this machine's, where a listener is bound to all of them. Without it only
    /// loopback counts.
    #[must_use]
    pub fn with_local(self, is_local: fn(IpAddr) -> bool) -> Self {
        Self { is_local, ..self }
    }

    /// The configuration that it follows.
    pub fn config(&self) -> &EgressConfig {
        &self.config
    }

    /// Where we listen ourselves.
    pub fn own(&self) -> Vec<SocketAddr> {
        self.own.clone()
    }

    /// The ports that we listen on ourselves.
    pub fn own_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.own.iter().map(SocketAddr::port)
    }

    /// Checks all that can be seen in a URL: scheme, user, port, names, literal addresses.
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        match url.scheme() {
            "https" => {}
            "http" if self.config.http => {}
            "http" => return Err(Refusal::new("plain_http", "a plain http URL", Some("egress.http: true".to_owned()))),
            other => return Err(Refusal::new("scheme", format!("scheme `{other}`"), None)),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::new("userinfo", "a URL with a user name or password", None));
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if port == 0 {
            return Err(Refusal::new("port", "port 0", None));
        }
        match url.host() {
            Some(Host::Ipv4(v4)) => self.check_addrs(&v4.to_string(), port, &[v4.into()]),
            Some(Host::Ipv6(v6)) => self.check_addrs(&v6.to_string(), port, &[v6.into()]),
            Some(Host::Domain(name)) => self.check_name(name, port),
            None => Err(Refusal::new("host", "a URL without a host", None)),
        }
    }

    fn check_name(&self, name: &str, port: u16) -> Result<(), Refusal> {
        let plain = plain(name);
        if plain == "localhost" || plain.ends_with(".localhost") {
            // RFC 6761, section 6.3: they are loopback, whoever resolves them.
            return self.check_addrs(name, port, &[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.check_host(name)
    }

    /// Checks what `host` resolved to. One refused address refuses the whole answer: otherwise who controls the name
    /// could have us try the public address first and the private one next.
    pub fn check_addrs(&self, host: &str, port: u16, addrs: &[IpAddr]) -> Result<(), Refusal> {
        self.check_host(host)?;
        let host_allowed = names(&self.config.allow_hosts, host);
        addrs.iter().try_for_each(|addr| self.check_addr(Seen { host, port, addr: *addr }, host_allowed))
    }

    fn check_host(&self, host: &str) -> Result<(), Refusal> {
        let host = plain(host);
        if names(&self.config.deny_hosts, &host) {
            let fix = format!("remove \"{host}\" from egress.deny");
            return Err(Refusal::new("deny", host, Some(fix)));
        }
        if METADATA_HOSTS.contains(&host.as_str()) && !names(&self.config.allow_hosts, &host) {
            let fix = format!("egress.allow: [\"{host}\"]");
            return Err(Refusal::new("metadata", host, Some(fix)));
        }
        Ok(())
    }

    fn check_addr(&self, seen: Seen<'_>, host_allowed: bool) -> Result<(), Refusal> {
        let layers: Vec<IpAddr> = std::iter::once(seen.addr).chain(address::inner(seen.addr)).collect();
        if layers.iter().any(|layer| self.is_own(*layer, seen.port)) {
            return Err(Refusal::new("own_listener", format!("{seen}, port {} of this server", seen.port), None));
        }
        layers.into_iter().try_for_each(|layer| self.check_layer(layer, seen, host_allowed))
    }

    fn check_layer(&self, layer: IpAddr, seen: Seen<'_>, host_allowed: bool) -> Result<(), Refusal> {
        if let Some(net) = self.config.deny_nets.iter().find(|net| net.contains(&layer)) {
            return Err(Refusal::new("deny", seen.to_string(), Some(format!("remove \"{net}\" from egress.deny"))));
        }
        if host_allowed || self.config.allow_nets.iter().any(|net| net.contains(&layer)) {
            return Ok(());
        }
        match address::block(layer) {
            Some(block) if block.rule != LOOPBACK || !self.config.loopback => {
                Err(Refusal::new(block.rule, seen.to_string(), Some(allow_line(block.net))))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn is_own(&self, addr: IpAddr, port: u16) -> bool {
        self.own.iter().filter(|own| own.port() == port).any(|own| {
            let own = own.ip().to_canonical();
            // A connection to the unspecified address ends on loopback.
            let reaches_loopback = addr.is_loopback() || addr.is_unspecified();
            own == addr
                || (own.is_loopback() && addr.is_unspecified())
                || (own.is_unspecified() && (reaches_loopback || (self.is_local)(addr)))
        })
    }
}

/// An address and how we came by it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    host: &'a str,
    port: u16,
    addr: IpAddr,
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse() == Ok(self.addr) {
            return write!(f, "{}", self.addr);
        }
        write!(f, "{} (found for {})", self.addr, self.host)
    }
}

fn allow_line(net: IpNet) -> String {
    format!("egress.allow: [\"{net}\"]")
}

/// A host name as the lists hold it: lower case, without the root's dot. More dots than one name nothing else, and are
/// no way around `egress.deny`.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn names(list: &[String], host: &str) -> bool {
    let host = plain(host);
    list.iter().any(|named| plain(named) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> EgressConfig {
        EgressConfig { http: true, ..EgressConfig::default() }
    }

    fn url(policy: &EgressPolicy, text: &str) -> Result<(), &'static str> {
        policy.check_url(&Url::parse(text).unwrap()).map_err(|refusal| refusal.rule)
    }

    fn strict() -> EgressPolicy {
        EgressPolicy::new(&open(), Vec::new())
    }

    #[test]
    fn what_can_be_seen_in_a_url() {
        for (text, rule) in [
            ("ftp://example.com/", "scheme"),
            ("file:///etc/passwd", "scheme"),
            ("http://user@example.com/", "userinfo"),
            ("http://:secret@example.com/", "userinfo"),
            ("http://example.com:0/", "port"),
            ("http://10.1.2.3/", "private"),
            ("http://0x7f.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://localhost/", "loopback"),
            ("http://LOCALHOST./", "loopback"),
            ("http://any.thing.localhost/", "loopback"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:169.254.169.254]/", "metadata"),
            ("http://[64:ff9b::10.0.0.1]/", "private"),
            ("http://[2002:0a00:1::]/", "private"),
            ("http://[2001:0:0a00:1::80ff:fffe]/", "reserved"),
            ("http://metadata.google.internal/", "metadata"),
            ("http://0.0.0.0/", "unspecified"),
        ] {
            assert_eq!(url(&strict(), text), Err(rule), "{text}");
        }
        for text in ["https://example.com/", "http://1.1.1.1:8080/x?y=z", "https://[2606:4700::1111]/"] {
            assert_eq!(url(&strict(), text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_change_without_the_urls_secrets() {
        let refusal = strict().check_url(&Url::parse("http://10.1.2.3/a?token=s3cret").unwrap()).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "10.1.2.3 is refused by the egress rule `private`; to allow it: egress.allow: [\"10.0.0.0/8\"]"
        );
        let refusal = strict().check_addrs("evil.example", 80, &["fd12::1".parse().unwrap()]).unwrap_err();
        assert_eq!(refusal.what, "fd12::1 (found for evil.example)");
        assert_eq!(refusal.fix.as_deref(), Some("egress.allow: [\"fc00::/7\"]"));
        let refusal = strict().check_url(&Url::parse("gopher://x/").unwrap()).unwrap_err();
        assert_eq!(refusal.to_string(), "scheme `gopher` is refused by the egress rule `scheme`");
    }

    #[test]
    fn plain_http_can_be_switched_off() {
        let policy = EgressPolicy::new(&EgressConfig { http: false, ..open() }, Vec::new());
        assert_eq!(url(&policy, "http://example.com/"), Err("plain_http"));
        assert_eq!(url(&policy, "https://example.com/"), Ok(()));
    }

    #[test]
    fn an_answer_with_one_refused_address_is_refused_whole() {
        let (good, bad): (IpAddr, IpAddr) = ("1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert!(strict().check_addrs("a.example", 443, &[good]).is_ok());
        assert!(strict().check_addrs("a.example", 443, &[good, bad]).is_err());
        assert!(strict().check_addrs("a.example", 443, &[bad, good]).is_err());
    }

    #[test]
    fn allow_opens_and_deny_wins() {
        let config = EgressConfig {
            allow_nets: vec!["10.0.0.0/8".parse().unwrap()],
            allow_hosts: vec!["inside.example".to_owned()],
            deny_nets: vec!["10.9.0.0/16".parse().unwrap(), "8.8.8.8/32".parse().unwrap()],
            deny_hosts: vec!["bad.example".to_owned()],
            ..open()
        };
        let policy = EgressPolicy::new(&config, Vec::new());
        let addrs = |host, addr: &str| {
            policy.check_addrs(host, 443, &[addr.parse().unwrap()]).map_err(|refusal| (refusal.rule, refusal.fix))
        };
        assert_eq!(url(&policy, "http://10.1.2.3/"), Ok(()));
        assert_eq!(url(&policy, "http://[::ffff:10.1.2.3]/"), Ok(()));
        assert_eq!(url(&policy, "http://10.9.2.3/"), Err("deny"));
        assert_eq!(url(&policy, "http://[::ffff:8.8.8.8]/"), Err("deny"));
        assert_eq!(url(&policy, "http://BAD.example./"), Err("deny"));
        assert_eq!(url(&policy, "http://bad.example../"), Err("deny"));
        assert_eq!(addrs("inside.example", "192.168.1.1"), Ok(()));
        assert_eq!(addrs("outside.example", "192.168.1.1").unwrap_err().0, "private");
        let denied = addrs("inside.example", "10.9.0.1").unwrap_err();
        assert_eq!(denied, ("deny", Some("remove \"10.9.0.0/16\" from egress.deny".to_owned())));
    }

    #[test]
    fn an_allowed_carrier_does_not_open_what_it_carries() {
        let config = EgressConfig { allow_nets: vec!["2001::/16".parse().unwrap()], ..open() };
        let policy = EgressPolicy::new(&config, Vec::new());
        assert_eq!(url(&policy, "http://[2001:0:0a00:1::80ff:fffe]/"), Err("private"));
    }

    #[test]
    fn own_listeners_are_refused_whatever_is_allowed() {
        let config = EgressConfig {
            loopback: true,
            allow_nets: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            allow_hosts: vec!["localhost".to_owned()],
            ..open()
        };
        let policy = EgressPolicy::new(&config, vec!["127.0.0.1:8443".parse().unwrap()]);
        for text in [
            "https://127.0.0.1:8443/",
            "https://localhost:8443/",
            "https://[::ffff:127.0.0.1]:8443/",
            "https://0.0.0.0:8443/",
        ] {
            assert_eq!(url(&policy, text), Err("own_listener"), "{text}");
        }
        assert_eq!(url(&policy, "https://127.0.0.1:8444/"), Ok(()));
        assert_eq!(url(&policy, "https://127.0.0.2:8443/"), Ok(()));
        assert_eq!(policy.own_ports().collect::<Vec<_>>(), [8443]);
    }

    #[test]
    fn a_wildcard_listener_owns_every_local_address_on_its_port() {
        let config = EgressConfig { loopback: true, allow_nets: vec!["10.0.0.0/8".parse().unwrap()], ..open() };
        let policy = EgressPolicy::new(&config, vec!["[::]:8443".parse().unwrap()])
            .with_local(|addr| addr == IpAddr::from([10, 0, 0, 7]));
        for text in ["https://127.0.0.9:8443/", "https://[::1]:8443/", "https://10.0.0.7:8443/"] {
            assert_eq!(url(&policy, text), Err("own_listener"), "{text}");
        }
        assert_eq!(url(&policy, "https://10.0.0.8:8443/"), Ok(()));
        assert_eq!(url(&policy, "https://10.0.0.7:443/"), Ok(()));
    }

    #[test]
    fn loopback_is_opened_by_its_switch_alone() {
        let policy = EgressPolicy::new(&EgressConfig { loopback: true, ..open() }, Vec::new());
        for text in ["http://127.0.0.1:9000/", "http://localhost:9000/", "http://[::1]:9000/"] {
            assert_eq!(url(&policy, text), Ok(()), "{text}");
        }
        assert_eq!(url(&policy, "http://0.0.0.0:9000/"), Err("unspecified"));
        assert_eq!(url(&policy, "http://10.0.0.1:9000/"), Err("private"));
    }
}
