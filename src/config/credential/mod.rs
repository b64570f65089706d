//! `credentials`: what calls may carry, to which hosts, and where its secrets are found.
//!
//! A secret never stands in the configuration itself, only where it is (`env:NAME`, `file:PATH`); so a [`Config`] can be
//! shown, compared and logged. What was written where a reference belongs is not repeated in a fault: it may be the
//! secret.
//!
//! [`Config`]: super::Config

mod given;
mod read;

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::host_pattern::HostPattern;
use super::raw::Scalar;
use super::secret::Secret;
use super::value::path;
use crate::task::CredentialName;

pub use given::credential_given;
pub(super) use read::{check_issuer, credentials, reference};
pub use read::{faults_of_company, is_this_machine, issuer_fault, token_url};

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialConfig {
    /// The hosts it may go to; with none, it may go nowhere.
    pub hosts: Vec<HostPattern>,
    /// Whether it may go over plain HTTP to hosts other than this machine.
    pub allow_plain_http: bool,
    /// Others that go along with it, each to its own hosts only.
    pub also: Vec<CredentialName>,
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
    /// A token by the client credentials grant of OAuth 2.0 (RFC 6749 section 4.4).
    ClientCredentials(Box<ClientCredentials>),
    /// A token for a service account, by a key file in Google's format and the JWT bearer grant (RFC 7523).
    ServiceAccount {
        /// The key file.
        key: SecretRef,
        /// What is asked for.
        wanted: Wanted,
    },
    /// An ID token of our own for each call.
    Oidc {
        /// Whom the tokens are for; `None`: the origin of each target.
        audience: Option<String>,
    },
    /// A client certificate, shown in the handshake (RFC 8446 section 4.4.2).
    Mtls {
        /// The certificate and those between it and its CA, in PEM.
        certificate: SecretRef,
        /// Its key, in PEM.
        key: SecretRef,
    },
    /// Signatures as Standard Webhooks define them.
    StandardWebhooks {
        /// What is signed with; more than one while receivers change over to another.
        secrets: Vec<SecretRef>,
    },
}

/// `kind: oauth2_client_credentials`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Where tokens are issued.
    pub token_url: Url,
    /// Who we are there.
    pub client_id: String,
    /// How we show it.
    pub auth: ClientAuth,
    /// What the tokens are to allow.
    pub scopes: Vec<String>,
    /// Whom they are for: the parameter `audience`, which many issuers know.
    pub audience: Option<String>,
}

/// How a client shows the issuer who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// By its secret, as `Authorization: Basic` (RFC 6749 section 2.3.1).
    SecretBasic(SecretRef),
    /// By its secret, in the form.
    SecretPost(SecretRef),
    /// By a signature (RFC 7523 section 2.2).
    PrivateKeyJwt {
        /// The key, in PEM.
        key: SecretRef,
        /// Which of its keys it is: the header `kid`.
        key_id: Option<String>,
    },
}

/// What tokens a service account asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Access tokens with these scopes.
    Scopes(Vec<String>),
    /// ID tokens for an audience; `None`: for the origin of each target.
    Audience(Option<String>),
}

/// A value that is no secret, as `config show` writes it.
#[derive(Debug, Clone, Copy)]
pub enum Plain<'a> {
    /// One.
    Text(&'a str),
    /// A list of them.
    List(&'a [String]),
}

/// Where a secret is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In a variable of the environment.
    Env(String),
    /// In a file; a line break at its end is none of the secret's.
    File(PathBuf),
    /// Here: it was given with the credential, by the API. Never in the configuration.
    Given(Secret),
}

/// A kind as `kind:` names it, before its keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bearer,
    Basic,
    Header,
    ClientCredentials,
    ServiceAccount,
    Oidc,
    Mtls,
    StandardWebhooks,
}

/// The kinds as `kind:` names them.
const WORDS: [(&str, Kind); 8] = [
    ("bearer", Kind::Bearer),
    ("basic", Kind::Basic),
    ("header", Kind::Header),
    ("oauth2_client_credentials", Kind::ClientCredentials),
    ("service_account", Kind::ServiceAccount),
    ("oidc", Kind::Oidc),
    ("mtls", Kind::Mtls),
    ("standard_webhooks", Kind::StandardWebhooks),
];
/// The words of `kind:`.
pub const KINDS: [&str; 8] =
    ["bearer", "basic", "header", "oauth2_client_credentials", "service_account", "oidc", "mtls", "standard_webhooks"];
/// How a client may show who it is.
const CLIENT_AUTH: [(&str, HowShown); 3] = [
    ("client_secret_basic", HowShown::Basic),
    ("client_secret_post", HowShown::Post),
    ("private_key_jwt", HowShown::Jwt),
];
/// A word of [`CLIENT_AUTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HowShown {
    Basic,
    Post,
    Jwt,
}

/// The keys of every kind.
const OF_ALL: [&str; 4] = ["kind", "hosts", "allow_plain_http", "also"];

/// Every key of a credential, and what is said about it.
pub const DESCRIBED: &[(&str, &str)] = &[
    (
        "kind",
        "What the credential is: bearer, basic, header, oauth2_client_credentials, service_account, oidc (ID tokens that \
         this server issues itself; needs server.public_url), mtls or standard_webhooks. Required.",
    ),
    (
        "hosts",
        "The hosts it may go to: api.example.com (the scheme's own port), *.example.com:8443, 10.0.0.7:* (any port) or \
         * (any host). None: it may go nowhere.",
    ),
    (
        "allow_plain_http",
        "true: it may go over plain HTTP to hosts other than this machine, where anybody can read it.",
    ),
    (
        "also",
        "The names of credentials that go along with this one, such as a signature beside a token. Each goes to its own \
         hosts only.",
    ),
    ("token", "bearer: the token."),
    ("username", "basic: the user."),
    ("password", "basic: the password."),
    ("name", "header: the header's name, such as X-Api-Key."),
    ("value", "header: the header's value."),
    ("token_url", "oauth2_client_credentials: the URL where tokens are issued."),
    ("client_id", "oauth2_client_credentials: who we are to the issuer."),
    (
        "client_auth",
        "oauth2_client_credentials: how we show it, client_secret_basic (the default), client_secret_post or \
         private_key_jwt.",
    ),
    ("client_secret", "oauth2_client_credentials: the client's secret."),
    (
        "private_key",
        "oauth2_client_credentials with private_key_jwt: the client's key; RSA, P-256 or Ed25519, in PEM. mtls: the \
         certificate's key.",
    ),
    ("certificate", "mtls: the client certificate, in PEM, with those between it and its CA after it."),
    (
        "secrets",
        "standard_webhooks: the secrets that sign, a list; whsec_ and base64 (HMAC-SHA256) or whsk_ and base64 \
         (Ed25519). All of them sign: two are for the change from one to the other.",
    ),
    ("key_id", "oauth2_client_credentials with private_key_jwt: which key it is, for the issuer."),
    (
        "scopes",
        "oauth2_client_credentials, service_account: what the tokens are to allow, a list. A service account with \
         scopes asks for access tokens, one without for ID tokens.",
    ),
    (
        "audience",
        "oauth2_client_credentials: whom the tokens are for, where the issuer wants to know. service_account, \
         oidc: whom the ID tokens are for; none: the origin of each target.",
    ),
    ("key", "service_account: the content of the key file (JSON, as Google makes it)."),
];

impl Kind {
    fn word(self) -> &'static str {
        WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// The keys that it has beside those of all kinds.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Bearer => &["token"],
            Self::Basic => &["username", "password"],
            Self::Header => &["name", "value"],
            Self::ClientCredentials => &[
                "token_url",
                "client_id",
                "client_auth",
                "client_secret",
                "private_key",
                "key_id",
                "scopes",
                "audience",
            ],
            Self::ServiceAccount => &["key", "scopes", "audience"],
            Self::Oidc => &["audience"],
            Self::Mtls => &["certificate", "private_key"],
            Self::StandardWebhooks => &["secrets"],
        }
    }
}

impl CredentialKind {
    /// Its word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => Kind::Bearer,
            Self::Basic { .. } => Kind::Basic,
            Self::Header { .. } => Kind::Header,
            Self::ClientCredentials(_) => Kind::ClientCredentials,
            Self::ServiceAccount { .. } => Kind::ServiceAccount,
            Self::Oidc { .. } => Kind::Oidc,
            Self::Mtls { .. } => Kind::Mtls,
            Self::StandardWebhooks { .. } => Kind::StandardWebhooks,
        }
        .word()
    }

    /// Its secrets, each with the key that names it.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Bearer { token } => vec![("token", token)],
            Self::Basic { password, .. } => vec![("password", password)],
            Self::Header { value, .. } => vec![("value", value)],
            Self::ClientCredentials(client) => match &client.auth {
                ClientAuth::SecretBasic(secret) | ClientAuth::SecretPost(secret) => vec![("client_secret", secret)],
                ClientAuth::PrivateKeyJwt { key, .. } => vec![("private_key", key)],
            },
            Self::ServiceAccount { key, .. } => vec![("key", key)],
            Self::Oidc { .. } => Vec::new(),
            Self::Mtls { certificate, key } => vec![("certificate", certificate), ("private_key", key)],
            Self::StandardWebhooks { secrets } => secrets.iter().map(|secret| ("secrets", secret)).collect(),
        }
    }

    /// What of a request it sets, of which there can be one only.
    pub fn sets(&self) -> &str {
        match self {
            Self::Bearer { .. }
            | Self::Basic { .. }
            | Self::ClientCredentials(_)
            | Self::ServiceAccount { .. }
            | Self::Oidc { .. } => "authorization",
            Self::Header { name, .. } => name,
            Self::Mtls { .. } => "the client certificate",
            Self::StandardWebhooks { .. } => "the webhook signature",
        }
    }

    /// Its plain values, each with its key.
    pub fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
        match self {
            Self::Bearer { .. } | Self::Mtls { .. } | Self::StandardWebhooks { .. } => Vec::new(),
            Self::Basic { username, .. } => vec![("username", Plain::Text(username))],
            Self::Header { name, .. } => vec![("name", Plain::Text(name))],
            Self::ClientCredentials(client) => client.plain(),
            Self::ServiceAccount { wanted: Wanted::Scopes(scopes), .. } => vec![("scopes", Plain::List(scopes))],
            Self::ServiceAccount { wanted: Wanted::Audience(audience), .. } | Self::Oidc { audience } => {
                audience.iter().map(|audience| ("audience", Plain::Text(audience))).collect()
            }
        }
    }
}

impl ClientCredentials {
    fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
        let (how, key_id) = match &self.auth {
            ClientAuth::SecretBasic(_) => (HowShown::Basic, None),
            ClientAuth::SecretPost(_) => (HowShown::Post, None),
            ClientAuth::PrivateKeyJwt { key_id, .. } => (HowShown::Jwt, key_id.as_ref()),
        };
        let how = CLIENT_AUTH.iter().find(|(_, known)| *known == how).map_or("", |(word, _)| word);
        let mut plain = vec![
            ("token_url", Plain::Text(self.token_url.as_str())),
            ("client_id", Plain::Text(&self.client_id)),
            ("client_auth", Plain::Text(how)),
            ("scopes", Plain::List(&self.scopes)),
        ];
        plain.extend(key_id.map(|id| ("key_id", Plain::Text(id))));
        plain.extend(self.audience.as_ref().map(|audience| ("audience", Plain::Text(audience))));
        plain
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
            Self::Given(_) => f.write_str("what was given"),
        }
    }
}

#[cfg(test)]
mod tests;
