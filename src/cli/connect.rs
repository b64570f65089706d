//! Where the server is, with which key, trusting whom: flag, then variable, then the configuration of this machine.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use url::{Host, Url};

use crate::config::Loaded;

use super::args::{ConnectOptions, ServerOptions};
use super::exit::{Exit, Failed};

/// A server, found.
#[derive(Clone)]
pub(super) struct Destination {
    /// Its URL, without a slash at the end of its path.
    pub(super) url: Url,
    /// Who said that it is there: `--url`, `SENDOFF_URL`, `server.listen (config.yaml:3)`.
    pub(super) said_by: String,
    /// The key.
    pub(super) key: Secret,
    /// Where the key came from.
    pub(super) key_from: String,
    /// The CA to trust, and nobody else; `None`: those that the system trusts.
    pub(super) ca: Option<PathBuf>,
    /// Where the URL's host is, without asking DNS: a server on this machine whose certificate has a public name.
    pub(super) at: Option<SocketAddr>,
}

/// A URL, who said it, and where its host is if DNS is not to be asked.
type Place = (Url, String, Option<SocketAddr>);

/// A key; never shown.
#[derive(Clone, Default)]
pub(super) struct Secret(String);

impl Secret {
    /// The text, for the one header that carries it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// Finds the server of a command.
///
/// # Errors
/// Says which of flag, variable and configuration is wrong or missing, and what to do.
pub(super) fn find(options: &ConnectOptions, before: &ServerOptions) -> Result<Destination, Failed> {
    let search = Search::new(options, before);
    let (url, said_by, at) = search.url()?;
    let (key, key_from) = search.key(&url)?;
    let ca = search.ca(&url)?;
    Ok(Destination { url, said_by, key: Secret(key), key_from, ca, at })
}

/// As [`find`], for a request that needs no key.
pub(super) fn find_without_key(options: &ConnectOptions, before: &ServerOptions) -> Result<Destination, Failed> {
    let search = Search::new(options, before);
    let (url, said_by, at) = search.url()?;
    let ca = search.ca(&url)?;
    Ok(Destination { url, said_by, key: Secret::default(), key_from: String::new(), ca, at })
}

/// What is looked through. The configuration is only read where flags and variables leave something open.
struct Search<'a> {
    options: &'a ConnectOptions,
    server: ServerOptions,
    environment: Vec<(String, String)>,
    loaded: OnceCell<Loaded>,
}

impl<'a> Search<'a> {
    fn new(options: &'a ConnectOptions, before: &ServerOptions) -> Self {
        let server = ServerOptions { config: options.config.clone(), ..ServerOptions::default() }.or(before.clone());
        Self { options, server, environment: super::environment(), loaded: OnceCell::new() }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(given, value)| given == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn local(&self) -> Result<&Loaded, Failed> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = self.server.load(self.environment.clone())?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn url(&self) -> Result<Place, Failed> {
        let given = self.options.url.as_deref().map(|url| (url, "--url"));
        if let Some((text, by)) = given.or_else(|| self.variable("SENDOFF_URL").map(|url| (url, "SENDOFF_URL"))) {
            return Ok((parse_url(text, by)?, by.to_owned(), None));
        }
        let loaded = self.local()?;
        let server = &loaded.config.server;
        let by = format!("server.listen, {}", origin(loaded, "server.listen"));
        let address = reachable(server.listen);
        if address.port() == 0 {
            return Err(Failed::Usage(format!(
                "the server listens on a port that it chose itself (port 0 in {by}): say where it is with --url or \
                 SENDOFF_URL"
            )));
        }
        if let (Some(public), Some(_)) = (&server.public_url, &server.tls.certificate) {
            // The configured certificate is for this name, not for an address; the server is still on this machine.
            let mut url = parse_url(public, "server.public_url")?;
            if url.scheme() == "https" && url.set_port(Some(address.port())).is_ok() {
                url.set_path("");
                return Ok((url, format!("server.public_url, at {address} from {by}"), Some(address)));
            }
        }
        let scheme = if server.plain_http { "http" } else { "https" };
        Ok((parse_url(&format!("{scheme}://{address}"), &by)?, by, None))
    }

    fn key(&self, url: &Url) -> Result<(String, String), Failed> {
        if let Some(reference) = &self.options.key {
            let key = match reference.split_once(':') {
                Some(("file", path)) => read_key(Path::new(path), "--key")?,
                Some(("env", name)) => crate::config::variable(name).ok_or_else(|| {
                    Failed::Usage(format!("--key env:{name}: there is no such variable, or it is not text"))
                })?,
                Some(_) | None => return Err(Failed::Usage(LITERAL_KEY.to_owned())),
            };
            return Ok((trimmed(&key, "--key")?, format!("--key {reference}")));
        }
        if let Some(given) = self.variable("SENDOFF_KEY") {
            let key = match given.strip_prefix("file:") {
                Some(path) => read_key(Path::new(path), "SENDOFF_KEY")?,
                None => given.to_owned(),
            };
            return Ok((trimmed(&key, "SENDOFF_KEY")?, "SENDOFF_KEY".to_owned()));
        }
        let path = self.local()?.config.data_dir.join("admin.key");
        let shown = path.display();
        if self.url_is_given() && !is_loopback(url) {
            return Err(Failed::told(
                Exit::Auth,
                format!(
                    "no API key for {url}: name it with --key file:PATH, --key env:NAME or SENDOFF_KEY\n  \
                     ({shown} is the key of the server on this machine and is not sent elsewhere)"
                ),
            ));
        }
        let key = std::fs::read_to_string(&path).map_err(|error| {
            let text = if error.kind() == std::io::ErrorKind::NotFound {
                format!(
                    "no API key: there is neither --key nor SENDOFF_KEY, and {shown} does not exist\n  \
                     Run this where `sendoff` was started, or name its directory: sendoff --data-dir DIR …"
                )
            } else {
                format!(
                    "no API key: there is neither --key nor SENDOFF_KEY, and {shown} cannot be read: {error}\n  \
                     Run this as the user that runs the server, or name another key with --key file:PATH"
                )
            };
            Failed::told(Exit::Auth, text)
        })?;
        Ok((trimmed(&key, "the admin key")?, shown.to_string()))
    }

    fn ca(&self, url: &Url) -> Result<Option<PathBuf>, Failed> {
        if let Some(path) = &self.options.ca {
            return Ok(Some(path.clone()));
        }
        if let Some(path) = self.variable("SENDOFF_CA") {
            return Ok(Some(PathBuf::from(path)));
        }
        if url.scheme() != "https" || (self.url_is_given() && !is_loopback(url)) {
            return Ok(None);
        }
        let config = &self.local()?.config;
        let path = config.certs_dir.join("ca.pem");
        Ok((config.server.tls.certificate.is_none() && path.exists()).then_some(path))
    }

    fn url_is_given(&self) -> bool {
        self.options.url.is_some() || self.variable("SENDOFF_URL").is_some()
    }
}

/// Why a key is no argument.
const LITERAL_KEY: &str = "--key takes file:PATH or env:NAME, not the key itself: every user of this machine can read \
                           command lines (ps), and shells keep them; or set SENDOFF_KEY";

fn parse_url(text: &str, by: &str) -> Result<Url, Failed> {
    let wrong =
        |why: &str| Failed::Usage(format!("{by}: `{text}` {why}; expected a URL such as https://127.0.0.1:8443"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("is neither an http nor an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failed::Usage(format!("{by}: a URL with a user or a password in it is refused: use --key")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query or a fragment"));
    }
    Ok(url)
}

fn read_key(path: &Path, by: &str) -> Result<String, Failed> {
    std::fs::read_to_string(path)
        .map_err(|error| Failed::told(Exit::Auth, format!("{by}: failed to read {}: {error}", path.display())))
}

/// A key as a header can carry it.
fn trimmed(key: &str, by: &str) -> Result<String, Failed> {
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failed::told(Exit::Auth, format!("{by}: there is no API key in it (they look like so_…)")));
    }
    Ok(key.to_owned())
}

fn origin(loaded: &Loaded, path: &str) -> String {
    loaded.origins.get(path).map_or_else(|| "the default".to_owned(), ToString::to_string)
}

/// An address that can be connected to: one that stands for every interface becomes loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether a URL is of this machine for certain.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        None => false,
    }
}
