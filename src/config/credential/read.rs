//! Reading `credentials`: which keys a kind needs, and what may stand under each.

use std::collections::BTreeMap;

use url::{Host, Url};

use super::{
    CLIENT_AUTH, ClientAuth, ClientCredentials, CredentialConfig, CredentialKind, DESCRIBED, HowShown, Kind, OF_ALL,
    SecretRef, WORDS, Wanted,
};
use crate::config::fault::{ConfigFaults, child};
use crate::config::host_pattern::HostPattern;
use crate::config::raw::Scalar;
use crate::config::secret::Secret;
use crate::config::section::Section;
use crate::config::value::{truth, word};
use crate::task::limits::{
    CREDENTIAL_ALSO_MAX, CREDENTIAL_HOSTS_MAX, CREDENTIAL_SCOPES_MAX, CREDENTIAL_SECRETS_MAX, CREDENTIAL_TEXT_LEN_MAX,
    CREDENTIALS_MAX, SECRET_BYTES_MAX, TARGET_URL_LEN_MAX,
};
use crate::task::reserved::is_reserved;
use crate::task::{CredentialName, name::NameError};

/// Reads the section.
pub(in crate::config) fn credentials(
    at: &Section<'_>,
    faults: &mut ConfigFaults,
) -> BTreeMap<CredentialName, CredentialConfig> {
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
            Ok(name) => {
                let read = credential(&entry, Secrets::Referred, faults);
                credentials.extend(read.map(|credential| (name, credential)));
            }
            Err(error) => faults.push(&entry.origin, entry.path.as_str(), no_name(&error)),
        }
    }
    for (name, credential) in &credentials {
        let entry = at.at(name.as_str());
        // One that is faulty itself is there: one fault is told once.
        let sound = |also: &&CredentialName| credentials.contains_key(*also) || !at.has(also.as_str());
        let also: Vec<_> = credential.also.iter().filter(sound).cloned().collect();
        let credential = CredentialConfig { also, ..credential.clone() };
        for fault in faults_of_company(&credential, |also| credentials.get(also).cloned()) {
            faults.push(entry.origin_of("also"), child(&entry.path, "also"), fault);
        }
    }
    credentials
}

/// What is wrong with those that are to go along with a credential.
pub fn faults_of_company(
    credential: &CredentialConfig,
    find: impl Fn(&CredentialName) -> Option<CredentialConfig>,
) -> Vec<String> {
    let (mut faults, mut taken) = (Vec::new(), vec![credential.kind.sets().to_owned()]);
    for also in &credential.also {
        let Some(other) = find(also) else {
            faults.push(format!("there is no credential `{also}`"));
            continue;
        };
        if !other.also.is_empty() {
            faults.push(format!("`{also}` takes others along itself; name them here instead"));
        }
        let sets = other.kind.sets().to_owned();
        if taken.contains(&sets) {
            faults.push(format!("`{also}` sets {sets}, and that is set already"));
        }
        taken.push(sets);
    }
    faults
}

fn no_name(error: &NameError) -> String {
    format!("no name of a credential: {error}")
}

/// Why a server with this `server.public_url` cannot issue ID tokens: those who verify them find its keys there.
pub fn issuer_fault(public_url: Option<&str>) -> Option<&'static str> {
    match public_url.map(Url::parse) {
        None => Some(
            "the kind oidc needs server.public_url: there handlers find the keys that verify our ID tokens; set \
             server: { public_url: \"https://NAME:8443\" }, as handlers reach this server",
        ),
        Some(Ok(url)) if url.scheme() == "http" && !is_this_machine(&url) => Some(
            "the kind oidc needs https in server.public_url: over plain HTTP anybody on the way could give handlers \
             other keys",
        ),
        Some(_) => None,
    }
}

/// Notes credentials that need us to be an issuer of ID tokens, where we cannot be one.
pub(in crate::config) fn check_issuer(
    at: &Section<'_>,
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
    public_url: Option<&str>,
    faults: &mut ConfigFaults,
) {
    let Some(detail) = issuer_fault(public_url) else { return };
    let own = credentials.iter().filter(|(_, credential)| matches!(credential.kind, CredentialKind::Oidc { .. }));
    for (name, _) in own {
        let at = at.at(name.as_str());
        faults.push(at.origin_of("kind"), child(&at.path, "kind"), detail);
    }
}

/// The name of a credential, as a queue gives it.
pub(in crate::config) fn reference(scalar: &Scalar) -> Result<CredentialName, String> {
    CredentialName::parse(&scalar.text).map_err(|error| format!("the name of a credential ({error})"))
}

/// What stands where a secret is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// Where it is found.
    Referred,
    /// The secret itself.
    Given,
}

impl Secrets {
    fn read(self, text: &str) -> Result<SecretRef, String> {
        match self {
            Self::Referred => SecretRef::parse(text),
            Self::Given if text.is_empty() || text.len() > SECRET_BYTES_MAX => {
                Err(format!("the secret itself, 1 to {SECRET_BYTES_MAX} bytes"))
            }
            Self::Given => Ok(SecretRef::Given(Secret::new(text.to_owned()))),
        }
    }
}

/// Reads one.
pub(super) fn credential(at: &Section<'_>, secrets: Secrets, faults: &mut ConfigFaults) -> Option<CredentialConfig> {
    let hosts = at.list("hosts", CREDENTIAL_HOSTS_MAX, |scalar| HostPattern::parse(&scalar.text), faults);
    let allow_plain_http = at.get("allow_plain_http", false, truth, faults);
    let also = at.list("also", CREDENTIAL_ALSO_MAX, reference, faults);
    if !at.has("kind") {
        let known = WORDS.map(|(word, _)| word).join(", ");
        faults.push(&at.origin, child(&at.path, "kind"), format!("is required: one of {known}"));
    }
    let kind = at.get("kind", None, |scalar| word(&WORDS)(scalar).map(Some), faults)?;
    let kind = Reading { at, secrets, faults, allow_plain_http }.kind(kind)?;
    Some(CredentialConfig { hosts, allow_plain_http, also, kind })
}

/// One credential, whose kind is known, being read.
struct Reading<'r, 'a> {
    at: &'r Section<'a>,
    secrets: Secrets,
    faults: &'r mut ConfigFaults,
    allow_plain_http: bool,
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
            Kind::ClientCredentials => CredentialKind::ClientCredentials(Box::new(self.client_credentials()?)),
            Kind::ServiceAccount => {
                let (key, wanted) = (self.secret("key"), self.wanted());
                CredentialKind::ServiceAccount { key: key?, wanted }
            }
            Kind::Oidc => CredentialKind::Oidc { audience: self.audience() },
            Kind::Mtls => {
                let (certificate, key) = (self.secret("certificate"), self.secret("private_key"));
                CredentialKind::Mtls { certificate: certificate?, key: key? }
            }
            Kind::StandardWebhooks => CredentialKind::StandardWebhooks { secrets: self.signing()? },
        })
    }

    fn client_credentials(&mut self) -> Option<ClientCredentials> {
        let plain = self.allow_plain_http;
        if !self.at.has("token_url") {
            self.missing("token_url");
        }
        // Somebody may have put a password into it.
        let token_url = self.at.hidden("token_url", |scalar| token_url(&scalar.text, plain), self.faults);
        let client_id = self.required("client_id", text);
        let scopes = self.scopes();
        let audience = self.audience();
        let how = self.at.get("client_auth", HowShown::Basic, word(&CLIENT_AUTH), self.faults);
        let foreign: &[&str] = if how == HowShown::Jwt { &["client_secret"] } else { &["private_key", "key_id"] };
        for key in foreign.iter().filter(|key| self.at.has(key)) {
            let word = CLIENT_AUTH.iter().find(|(_, known)| *known == how).map_or("", |(word, _)| word);
            let detail = format!("is no key of client_auth: {word}");
            self.faults.push(self.at.origin_of(key), child(&self.at.path, key), detail);
        }
        let auth = match how {
            HowShown::Basic => ClientAuth::SecretBasic(self.secret("client_secret")?),
            HowShown::Post => ClientAuth::SecretPost(self.secret("client_secret")?),
            HowShown::Jwt => ClientAuth::PrivateKeyJwt {
                key: self.secret("private_key")?,
                key_id: self.at.get("key_id", None, |scalar| text(scalar).map(Some), self.faults),
            },
        };
        Some(ClientCredentials { token_url: token_url?, client_id: client_id?, auth, scopes, audience })
    }

    fn wanted(&mut self) -> Wanted {
        let scopes = self.scopes();
        if scopes.is_empty() {
            return Wanted::Audience(self.audience());
        }
        if self.at.has("audience") {
            let detail = "scopes ask for access tokens, an audience for ID tokens; give one of them";
            self.faults.push(self.at.origin_of("audience"), child(&self.at.path, "audience"), detail);
        }
        Wanted::Scopes(scopes)
    }

    fn audience(&mut self) -> Option<String> {
        self.at.get("audience", None, |scalar| text(scalar).map(Some), self.faults)
    }

    fn scopes(&mut self) -> Vec<String> {
        self.at.list("scopes", CREDENTIAL_SCOPES_MAX, scope, self.faults)
    }

    /// Notes keys of other kinds.
    fn foreign_keys(&mut self, kind: Kind) {
        let (word, own) = (kind.word(), kind.keys());
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

    /// The list of `secrets`; one at least.
    fn signing(&mut self) -> Option<Vec<SecretRef>> {
        let known = self.faults.count();
        let how = self.secrets;
        let parse = |scalar: &Scalar| how.read(&scalar.text);
        let secrets = self.at.hidden_list("secrets", CREDENTIAL_SECRETS_MAX, parse, self.faults);
        if secrets.is_empty() && self.faults.count() == known {
            self.missing("secrets");
        }
        Some(secrets).filter(|secrets| !secrets.is_empty())
    }

    fn secret(&mut self, key: &str) -> Option<SecretRef> {
        if !self.at.has(key) {
            self.missing(key);
        }
        let how = self.secrets;
        self.at.hidden(key, |scalar| how.read(&scalar.text), self.faults)
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

/// RFC 6749 section 3.3.
fn scope(scalar: &Scalar) -> Result<String, String> {
    let scope = text(scalar)?;
    let token = scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    token.then_some(scope).ok_or_else(|| "one scope, without blanks (RFC 6749 section 3.3)".to_owned())
}

/// Where tokens are issued: the client's secret goes there.
pub fn token_url(text: &str, allow_plain_http: bool) -> Result<Url, String> {
    let expected = || "an https URL without user or fragment, such as https://issuer.example/token".to_owned();
    let usable = text.len() <= TARGET_URL_LEN_MAX && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    let url = Url::parse(text).ok().filter(|_| usable).ok_or_else(expected)?;
    let plain = url.scheme() == "http" && (allow_plain_http || is_this_machine(&url));
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    ((url.scheme() == "https" || plain) && url.has_host() && bare).then_some(url).ok_or_else(expected)
}

/// Whether what is sent there never leaves this machine (RFC 6761 section 6.3 for the name).
pub fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => matches!(name.strip_suffix('.').unwrap_or(name), "localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
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
