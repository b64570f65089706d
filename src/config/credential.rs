//! `credentials`: what calls may carry, to which hosts, and where its secrets are found.
//!
//! A secret never stands in the configuration itself, only where it is (`env:NAME`, `file:PATH`); so a [`Config`] can be
//! shown, compared and logged. What was written where a reference belongs is not repeated in a fault: it may be the
//! secret.
//!
//! [`Config`]: super::Config

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::fault::{ConfigFaults, child};
use super::host_pattern::HostPattern;
use super::raw::Scalar;
use super::section::Section;
use super::value::{path, truth, word};
use crate::task::limits::{CREDENTIAL_HOSTS_MAX, CREDENTIAL_TEXT_LEN_MAX, CREDENTIALS_MAX};
use crate::task::reserved::is_reserved;
use crate::task::{CredentialName, name::NameError};

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialConfig {
    /// The hosts it may go to; with none, it may go nowhere.
    pub hosts: Vec<HostPattern>,
    /// Whether it may go over plain HTTP to hosts other than this machine.
    pub allow_plain_http: bool,
    /// What it is.
    pub kind: CredentialKind,
}

/// What a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: Bearer` and a token (RFC 6750).
    Bearer {
        /// The token.
        token: SecretRef,
    },
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretRef,
    },
    /// A header of its own, such as `X-Api-Key`.
    Header {
        /// Its name, in lower case.
        name: String,
        /// Its value.
        value: SecretRef,
    },
}

/// Where a secret is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretRef {
    /// In a variable of the environment.
    Env(String),
    /// In a file; a line break at its end is none of the secret's.
    File(PathBuf),
}

/// A kind as `kind:` names it, before its keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bearer,
    Basic,
    Header,
}

/// The kinds, and the keys that each has beside those of all.
const KINDS: [(Kind, &str, &[&str]); 3] = [
    (Kind::Bearer, "bearer", &["token"]),
    (Kind::Basic, "basic", &["username", "password"]),
    (Kind::Header, "header", &["name", "value"]),
];
const WORDS: [(&str, Kind); 3] = [(KINDS[0].1, KINDS[0].0), (KINDS[1].1, KINDS[1].0), (KINDS[2].1, KINDS[2].0)];
/// The keys of every kind.
const OF_ALL: [&str; 3] = ["kind", "hosts", "allow_plain_http"];

/// Every key of a credential, and what editors say about it.
pub(super) const DESCRIBED: &[(&str, &str)] = &[
    ("kind", "What the credential is: bearer, basic or header. Required."),
    (
        "hosts",
        "The hosts it may go to: api.example.com (the scheme's own port), *.example.com:8443, 10.0.0.7:* (any port) or \
         * (any host). None: it may go nowhere.",
    ),
    (
        "allow_plain_http",
        "true: it may go over plain HTTP to hosts other than this machine, where anybody can read it.",
    ),
    ("token", "bearer: where the token is found, env:NAME or file:PATH."),
    ("username", "basic: the user."),
    ("password", "basic: where the password is found, env:NAME or file:PATH."),
    ("name", "header: the header's name, such as X-Api-Key."),
    ("value", "header: where the header's value is found, env:NAME or file:PATH."),
];

impl CredentialKind {
    /// Its word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
        }
    }

    /// Its secrets, each with the key that names it.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Bearer { token } => vec![("token", token)],
            Self::Basic { password, .. } => vec![("password", password)],
            Self::Header { value, .. } => vec![("value", value)],
        }
    }

    /// Its plain values, each with its key.
    pub(super) fn plain(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Bearer { .. } => Vec::new(),
            Self::Basic { username, .. } => vec![("username", username)],
            Self::Header { name, .. } => vec![("name", name)],
        }
    }
}

impl SecretRef {
    /// Parses a reference; the error is what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "env:NAME or file:PATH: a secret does not stand in the configuration itself".to_owned();
        let (scheme, rest) = text.split_once(':').ok_or_else(expected)?;
        let variable = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match scheme {
            "env" if variable(rest) => Ok(Self::Env(rest.to_owned())),
            "file" => path(&Scalar { text: rest.to_owned(), plain: false }).map(Self::File).map_err(|_path| expected()),
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Reads the section.
pub(super) fn credentials(at: &Section<'_>, faults: &mut ConfigFaults) -> BTreeMap<CredentialName, CredentialConfig> {
    let mut credentials = BTreeMap::new();
    let count = at.keys().count();
    if count > CREDENTIALS_MAX {
        faults.push(
            &at.origin,
            at.path.as_str(),
            format!("got {count} credentials, expected at most {CREDENTIALS_MAX}"),
        );
        return credentials;
    }
    for key in at.keys() {
        let entry = at.at(key);
        match CredentialName::parse(key) {
            Ok(name) => credentials.extend(credential(&entry, faults).map(|credential| (name, credential))),
            Err(error) => faults.push(&entry.origin, entry.path.as_str(), no_name(&error)),
        }
    }
    credentials
}

fn no_name(error: &NameError) -> String {
    format!("no name of a credential: {error}")
}

/// The name of a credential, as a queue gives it.
pub(super) fn reference(scalar: &Scalar) -> Result<CredentialName, String> {
    CredentialName::parse(&scalar.text).map_err(|error| format!("the name of a credential ({error})"))
}

fn credential(at: &Section<'_>, faults: &mut ConfigFaults) -> Option<CredentialConfig> {
    let hosts = at.list("hosts", CREDENTIAL_HOSTS_MAX, |scalar| HostPattern::parse(&scalar.text), faults);
    let allow_plain_http = at.get("allow_plain_http", false, truth, faults);
    if !at.has("kind") {
        let known = KINDS.map(|(_, word, _)| word).join(", ");
        faults.push(&at.origin, child(&at.path, "kind"), format!("is required: one of {known}"));
    }
    let kind = at.get("kind", None, |scalar| word(&WORDS)(scalar).map(Some), faults)?;
    let kind = Reading { at, faults }.kind(kind)?;
    Some(CredentialConfig { hosts, allow_plain_http, kind })
}

/// One credential, whose kind is known, being read.
struct Reading<'r, 'a> {
    at: &'r Section<'a>,
    faults: &'r mut ConfigFaults,
}

impl Reading<'_, '_> {
    fn kind(&mut self, kind: Kind) -> Option<CredentialKind> {
        self.foreign_keys(kind);
        Some(match kind {
            Kind::Bearer => CredentialKind::Bearer { token: self.secret("token")? },
            Kind::Basic => {
                let (username, password) = (self.required("username", username), self.secret("password"));
                CredentialKind::Basic { username: username?, password: password? }
            }
            Kind::Header => {
                let (name, value) = (self.required("name", header_name), self.secret("value"));
                CredentialKind::Header { name: name?, value: value? }
            }
        })
    }

    /// Notes keys of other kinds.
    fn foreign_keys(&mut self, kind: Kind) {
        let Some((_, word, own)) = KINDS.iter().find(|(known, ..)| *known == kind) else { return };
        let foreign =
            |key: &&str| !OF_ALL.contains(key) && !own.contains(key) && DESCRIBED.iter().any(|(known, _)| known == key);
        for key in self.at.keys().filter(foreign) {
            let detail = format!("is no key of the kind {word}, which has {}", own.join(", "));
            self.faults.push(self.at.origin_of(key), child(&self.at.path, key), detail);
        }
    }

    fn missing(&mut self, key: &str) {
        self.faults.push(&self.at.origin, child(&self.at.path, key), "is required for this kind");
    }

    fn required<T>(&mut self, key: &str, read: impl Fn(&Scalar) -> Result<T, String>) -> Option<T> {
        if !self.at.has(key) {
            self.missing(key);
        }
        self.at.get(key, None, |scalar| read(scalar).map(Some), self.faults)
    }

    fn secret(&mut self, key: &str) -> Option<SecretRef> {
        if !self.at.has(key) {
            self.missing(key);
        }
        self.at.hidden(key, |scalar| SecretRef::parse(&scalar.text), self.faults)
    }
}

/// A text without control characters.
fn text(scalar: &Scalar) -> Result<String, String> {
    let fits = |text: &str| {
        !text.is_empty() && text.len() <= CREDENTIAL_TEXT_LEN_MAX && !text.contains(|c: char| c.is_control())
    };
    let usable = !scalar.is_null() && fits(&scalar.text);
    usable
        .then(|| scalar.text.clone())
        .ok_or_else(|| format!("1 to {CREDENTIAL_TEXT_LEN_MAX} bytes without control characters"))
}

/// RFC 7617 section 2: a colon ends the user.
fn username(scalar: &Scalar) -> Result<String, String> {
    let user = text(scalar)?;
    if user.contains(':') { Err("a user without a colon (RFC 7617)".to_owned()) } else { Ok(user) }
}

fn header_name(scalar: &Scalar) -> Result<String, String> {
    let name = scalar.text.to_ascii_lowercase();
    if is_reserved(&name) {
        return Err("a header that is not set by sendoff or by the connection".to_owned());
    }
    let token = http::HeaderName::from_bytes(name.as_bytes()).is_ok() && name.len() <= CREDENTIAL_TEXT_LEN_MAX;
    token.then_some(name).ok_or_else(|| "the name of a header, such as X-Api-Key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags, tests::load_with};
    use super::*;

    fn read(credential: &str) -> Result<CredentialConfig, Vec<String>> {
        let text = format!("credentials: {{billing: {credential}}}");
        match load_with(&text, &[], Flags::default()) {
            Ok(loaded) => Ok(loaded.config.credentials.into_values().next().unwrap()),
            Err(told) => {
                Err(told.lines().filter_map(|line| line.strip_prefix("  config.yaml:1: ")).map(str::to_owned).collect())
            }
        }
    }

    #[test]
    fn every_kind_is_read_with_its_keys() {
        let bearer = read("{kind: bearer, token: \"env:TOKEN\", hosts: [api.example.com]}").unwrap();
        assert_eq!(bearer.kind, CredentialKind::Bearer { token: SecretRef::Env("TOKEN".to_owned()) });
        assert_eq!((bearer.hosts[0].to_string(), bearer.allow_plain_http), ("api.example.com".to_owned(), false));
        let basic = read("{kind: basic, username: me, password: \"file:secrets/p\", allow_plain_http: true}").unwrap();
        assert!(basic.hosts.is_empty() && basic.allow_plain_http, "with no hosts it may go nowhere");
        assert_eq!(basic.kind.secrets(), [("password", &SecretRef::File("secrets/p".into()))]);
        let header = read("{kind: header, name: X-Api-Key, value: \"env:KEY\"}").unwrap();
        assert_eq!(header.kind.plain(), [("name", "x-api-key")]);
    }

    #[test]
    fn what_is_missing_foreign_or_wrong_is_told_with_its_place() {
        let faults = |credential: &str| read(credential).unwrap_err();
        assert_eq!(faults("{}"), ["credentials.billing.kind: is required: one of bearer, basic, header"]);
        assert_eq!(
            faults("{kind: beaer}"),
            ["credentials.billing.kind: got `beaer`, expected bearer or basic or header; did you mean `bearer`?"]
        );
        assert_eq!(
            faults("{kind: bearer, username: me}"),
            [
                "credentials.billing.username: is no key of the kind bearer, which has token",
                "credentials.billing.token: is required for this kind",
            ]
        );
        assert_eq!(faults("{kind: basic, username: \"a:b\", password: \"env:P\"}").len(), 1);
        for name in ["Host", "sendoff-x", "webhook-id", "a b"] {
            assert_eq!(faults(&format!("{{kind: header, name: \"{name}\", value: \"env:P\"}}")).len(), 1, "{name}");
        }
        let hosts = faults("{kind: bearer, token: \"env:T\", hosts: [\"https://a\"]}");
        assert!(hosts[0].starts_with("credentials.billing.hosts[0]: got the text \"https://a\", expected a host"));
    }

    #[test]
    fn a_secret_written_where_its_place_belongs_is_not_repeated() {
        for credential in [
            "{kind: bearer, token: hunter2}",
            "{kind: bearer, token: \"env:hunter2 x\"}",
            "{kind: basic, username: me, password: [hunter2]}",
            "{kind: header, name: x-key, value: \"hunter2:x\"}",
            "hunter2",
        ] {
            let told = read(credential).unwrap_err().join("\n");
            assert!(!told.is_empty() && !told.contains("hunter2"), "{credential}: {told}");
        }
        let given = ("SENDOFF_CREDENTIALS__BILLING__TOKEN", "hunter2");
        let faults = load_with("credentials: {billing: {kind: bearer}}", &[given], Flags::default()).unwrap_err();
        assert!(!faults.contains("hunter2") && faults.contains("env:NAME or file:PATH"), "{faults}");
    }

    #[test]
    fn texts_and_hosts_one_below_and_one_above() {
        let user = |len: usize| read(&format!("{{kind: basic, username: {}, password: \"env:P\"}}", "u".repeat(len)));
        assert!(user(CREDENTIAL_TEXT_LEN_MAX).is_ok() && user(CREDENTIAL_TEXT_LEN_MAX + 1).is_err());
        let hosts =
            |count: usize| read(&format!("{{kind: bearer, token: \"env:T\", hosts: [{}]}}", "a, ".repeat(count)));
        assert!(hosts(CREDENTIAL_HOSTS_MAX).is_ok() && hosts(CREDENTIAL_HOSTS_MAX + 1).is_err());
        let many = |count: usize| {
            let one = |n| format!("c{n}: {{kind: bearer, token: \"env:T\"}}");
            let all: Vec<String> = (0..count).map(one).collect();
            load_with(&format!("credentials: {{{}}}", all.join(", ")), &[], Flags::default()).is_ok()
        };
        assert!(many(CREDENTIALS_MAX) && !many(CREDENTIALS_MAX + 1));
    }

    #[test]
    fn references_read_back() {
        for text in ["env:A_1", "file:a/b c", "file:/x"] {
            assert_eq!(SecretRef::parse(text).map(|found| found.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "env:", "env:1A", "env:A-B", "file:", "A", "ENV:A", "vault:x"] {
            assert!(SecretRef::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_queue_names_a_credential_that_is_there() {
        let with = |queue: &str| {
            let text = format!("credentials: {{billing: {{kind: bearer, token: \"env:T\"}}}}\n{queue}");
            load_with(&text, &[], Flags::default()).map(|loaded| loaded.config)
        };
        let auth = |config: &Config, queue: &str| {
            let found = config.queues.iter().find(|(name, _)| name.as_str() == queue).unwrap().1;
            found.auth.as_ref().map(ToString::to_string)
        };
        let config = with("queue_defaults: {auth: billing}\nqueues: {mail: {}, open: {auth: null}}").unwrap();
        assert_eq!((auth(&config, "mail"), auth(&config, "open")), (Some("billing".to_owned()), None));
        let told = with("queues: {mail: {auth: biling}}").unwrap_err();
        assert!(told.contains("queues.mail.auth: there is no credential `biling`; did you mean `billing`?"), "{told}");
        let told = with("queue_defaults: {auth: other}\nqueues: {mail: {}}").unwrap_err();
        assert_eq!(told.matches("there is no credential").count(), 1, "told once, where it was written: {told}");
    }
}
