//! Which hosts a credential may go to: `api.example.com`, `*.example.com:8443`, `10.0.0.7:*`.
//!
//! As in the host sources of the Content Security Policy (CSP level 3, section 6.7.2.7): without a port the default one
//! of the scheme is meant, `:*` is any port, and `*.` in front stands for one label or more. Beyond that a `*` within a
//! label stands for any run of characters that is no dot. Addresses are admitted only by themselves, or by a lone `*`.

use std::fmt;

use url::{Host, Url};

use crate::task::glob::admits;

/// A pattern for the hosts of URLs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    /// In lower case, internationalized names in their ASCII form, IPv6 in brackets.
    host: String,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// The scheme's own.
    Default,
    Any,
    One(u16),
}

/// The characters of a label beside letters and digits.
const LABEL_EXTRA: [char; 3] = ['-', '_', '*'];

impl HostPattern {
    /// Parses a pattern; the error is what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, "*")) => (host, Port::Any),
            Some((host, digits)) if !digits.contains(']') => (host, Port::One(port(digits)?)),
            Some(_) | None => (text, Port::Default),
        };
        Ok(Self { host: host_name(host)?, port })
    }

    /// Whether a URL leads to a host of the pattern.
    pub fn admits(&self, url: &Url) -> bool {
        let port = match self.port {
            Port::Default => url.port().is_none(),
            Port::Any => true,
            Port::One(port) => url.port_or_known_default() == Some(port),
        };
        port && url.host().is_some_and(|host| self.admits_host(&host))
    }

    fn admits_host(&self, host: &Host<&str>) -> bool {
        if self.host == "*" {
            return true;
        }
        match host {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let (wanted, given): (Vec<_>, Vec<_>) = (self.host.split('.').collect(), name.split('.').collect());
                let any_depth = self.host.starts_with("*.") && given.len() >= wanted.len();
                let skipped = usize::from(any_depth);
                (any_depth || wanted.len() == given.len())
                    && wanted
                        .iter()
                        .skip(skipped)
                        .rev()
                        .zip(given.iter().rev())
                        .all(|(glob, label)| admits(glob, label))
            }
            Host::Ipv4(_) | Host::Ipv6(_) => self.host == host.to_string(),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Port::Default => Ok(()),
            Port::Any => f.write_str(":*"),
            Port::One(port) => write!(f, ":{port}"),
        }
    }
}

fn expected() -> String {
    "a host, or host:port, such as api.example.com, *.example.com:8443 or 10.0.0.7:*".to_owned()
}

fn port(digits: &str) -> Result<u16, String> {
    let port = digits.parse().ok().filter(|port| *port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    port.ok_or_else(expected)
}

/// A host as URLs write it, or a pattern of labels.
fn host_name(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    if !text.contains('*') {
        return match Host::parse(text) {
            Ok(Host::Ipv4(address)) if address.to_string() != text => {
                Err(format!("an address in its usual form; did you mean {address}?"))
            }
            Ok(host) => Ok(host.to_string()),
            Err(_) => Err(expected()),
        };
    }
    let label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || LABEL_EXTRA.contains(&c));
    if !text.split('.').all(label) {
        return Err(expected());
    }
    if text.rsplit('.').next().is_some_and(|last| last.contains('*')) {
        return Err("a pattern whose last label is written out, such as *.example.com; a lone * is any host".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(pattern: &str, url: &str) -> bool {
        HostPattern::parse(pattern).unwrap().admits(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_host_is_admitted_at_the_port_that_is_meant() {
        for (pattern, url) in [
            ("api.example.com", "https://API.example.com/x"),
            ("API.Example.com.", "https://api.example.com./"),
            ("api.example.com", "http://api.example.com:80/"),
            ("api.example.com:8443", "https://api.example.com:8443/"),
            ("api.example.com:443", "https://api.example.com/"),
            ("api.example.com:*", "https://api.example.com:9/"),
            ("bücher.example", "https://xn--bcher-kva.example/"),
            ("10.0.0.7", "https://10.0.0.7/"),
            ("[::1]:8080", "http://[::1]:8080/"),
            ("*", "https://10.0.0.7/"),
            ("*:*", "http://anything.example:99/"),
        ] {
            assert!(admits(pattern, url), "{pattern} {url}");
        }
        for (pattern, url) in [
            ("api.example.com", "https://api.example.com:8443/"),
            ("api.example.com", "http://api.example.com:443/"),
            ("api.example.com:8443", "https://api.example.com/"),
            ("api.example.com", "https://api.example.com.evil.example/"),
            ("api.example.com", "https://xapi.example.com/"),
            ("api.example.com", "https://api.example.com@evil.example/"),
            ("10.0.0.7", "https://10.0.0.70/"),
        ] {
            assert!(!admits(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn a_star_in_front_is_any_depth_and_one_within_a_label_stays_there() {
        for (pattern, url) in [
            ("*.example.com", "https://a.example.com/"),
            ("*.example.com", "https://a.b.example.com/"),
            ("api-*.example.com", "https://api-7.example.com/"),
            ("api-*.example.com", "https://api-.example.com/"),
            ("a*b*c.example.com", "https://axbyc.example.com/"),
            ("*.eu-*.example.com", "https://x.y.eu-west.example.com/"),
        ] {
            assert!(admits(pattern, url), "{pattern} {url}");
        }
        for (pattern, url) in [
            ("*.example.com", "https://example.com/"),
            ("*.example.com", "https://badexample.com/"),
            ("*.example.com", "https://a.example.com.evil.example/"),
            ("api-*.example.com", "https://api-7.evil.example.com/"),
            ("a*b*c.example.com", "https://acb.example.com/"),
            ("*.0.0.7", "https://10.0.0.7/"),
        ] {
            assert!(!admits(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_and_what_is_one_reads_back() {
        for text in [
            "",
            ".",
            "https://a.example",
            "a.example/x",
            "u@a.example",
            "a b",
            "a.example:",
            "a.example:0",
            "::1",
            "a.example:65536",
            "a.example:+1",
            "*.com*",
            "10.0.0.*",
            "a..*.b",
            "*.",
            "127.1",
            "[::1",
            "a.example:80:90",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["a.example", "*.a.example:8443", "*", "*:*", "10.0.0.7:*", "[::1]:1", "x-*.a.example"] {
            let pattern = HostPattern::parse(text).unwrap();
            assert_eq!(pattern.to_string(), text);
            assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
        }
    }
}
