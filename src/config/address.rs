//! Hosts, networks and URLs of the configuration, brought to the one form in which they are compared later.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::{Host, Url};

use super::raw::Scalar;
use crate::task::LaneName;
use crate::task::limits::TARGET_URL_LEN_MAX;

/// One entry of `egress.allow` or `egress.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EgressEntry {
    /// A network; a single address is a network of one.
    Net(IpNet),
    /// A host name in lower case, internationalized names in their ASCII form.
    Host(String),
}

/// A CIDR, an address or a host name.
pub(super) fn egress_entry(scalar: &Scalar) -> Result<EgressEntry, String> {
    let text = scalar.text.as_str();
    if let Ok(net) = IpNet::from_str(text) {
        if net.addr() != net.network() {
            return Err(format!("a network without host bits; write {} or {}", net.trunc(), net.addr()));
        }
        return Ok(EgressEntry::Net(net));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(EgressEntry::Net(IpNet::from(address)));
    }
    if scalar.is_null() || text.contains(['*', '/', ':']) {
        let expected = "a network such as 10.0.0.0/8, an address or a host name";
        return Err(format!("{expected}, without scheme, port, path or wildcard"));
    }
    // `Host` reads forms such as `10.1` and `0x7f.1` as addresses; who writes them here hardly means that.
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(Host::Domain(name)) => Ok(EgressEntry::Host(name)),
        Ok(Host::Ipv4(address)) => Err(format!("an address in its usual form; did you mean {address}?")),
        Ok(Host::Ipv6(_)) | Err(_) => {
            Err("a network such as 10.0.0.0/8, an address such as 10.1.2.3 or a host name".to_owned())
        }
    }
}

/// A key of `hosts.overrides`, `scheme://host:port`, as the lane of that host is named.
pub(super) fn host_key(text: &str) -> Result<LaneName, String> {
    let expected = || "scheme://host:port, such as https://api.example.com:443".to_owned();
    let url = web_url(text).ok_or_else(expected)?;
    if url.path() != "/" || text.ends_with('/') {
        return Err(expected());
    }
    let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(expected)?;
    Ok(LaneName::new(&format!("{}://{host}:{port}", url.scheme())))
}

/// `server.public_url`.
pub(super) fn public_url(scalar: &Scalar) -> Result<String, String> {
    let expected =
        || "an http or https URL without user, query or fragment, such as https://tasks.example.com".to_owned();
    let url = web_url(&scalar.text).ok_or_else(expected)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// An absolute `http` or `https` URL with nothing but a path after its host.
pub(super) fn web_url(text: &str) -> Option<Url> {
    let bare = text.len() <= TARGET_URL_LEN_MAX && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    let url = Url::parse(text).ok().filter(|_| bare)?;
    let web = matches!(url.scheme(), "http" | "https") && url.has_host() && text.contains("://");
    let extra =
        !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some();
    (web && !extra).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<EgressEntry, String> {
        egress_entry(&Scalar { text: text.to_owned(), plain: true })
    }

    #[test]
    fn egress_entries_are_networks_addresses_or_names() {
        let net = |text: &str| Ok(EgressEntry::Net(text.parse().unwrap()));
        let host = |text: &str| Ok(EgressEntry::Host(text.to_owned()));
        assert_eq!(entry("10.0.0.0/8"), net("10.0.0.0/8"));
        assert_eq!(entry("192.0.2.7"), net("192.0.2.7/32"));
        assert_eq!(entry("fd00::/8"), net("fd00::/8"));
        assert_eq!(entry("::1"), net("::1/128"));
        assert_eq!(entry("API.Example.com."), host("api.example.com"));
        assert_eq!(entry("bücher.example"), host("xn--bcher-kva.example"));
        assert_eq!(entry("10.0.0.1/8").unwrap_err(), "a network without host bits; write 10.0.0.0/8 or 10.0.0.1");
        assert_eq!(entry("127.1").unwrap_err(), "an address in its usual form; did you mean 127.0.0.1?");
        for text in ["", "null", "*.example.com", "https://a", "a:443", "a/b", "10.0.0.0/33", "a b", "."] {
            assert!(entry(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_are_named_as_their_lanes() {
        for (text, lane) in [
            ("https://API.example.com:443", "https://api.example.com:443"),
            ("https://api.example.com", "https://api.example.com:443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(host_key(text), Ok(LaneName::new(lane)), "{text}");
        }
        for text in [
            "api.example.com",
            "api.example.com:443",
            "ftp://a:1",
            "https://a:443/",
            "https://a/b",
            "https://u@a",
            "https://a?x",
            "https:a",
            "",
        ] {
            assert!(host_key(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_public_url_has_no_secrets_in_it() {
        let read = |text: &str| public_url(&Scalar { text: text.to_owned(), plain: true });
        assert_eq!(read("https://Tasks.example.com/"), Ok("https://tasks.example.com".to_owned()));
        assert_eq!(read("https://example.com/tasks"), Ok("https://example.com/tasks".to_owned()));
        for text in
            ["", "example.com", "https://u:p@example.com", "https://example.com?x=1", "file:///x", "https://a b"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read(&format!("https://a/{}", "x".repeat(TARGET_URL_LEN_MAX))).is_err());
    }
}
