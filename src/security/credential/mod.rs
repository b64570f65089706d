//! What calls carry: named credentials, each for the hosts it may go to.
//!
//! [`Credentials`] is built from the configuration and replaced whole by a reload. [`Credentials::check`] says at enqueue
//! what can be seen there, [`Credentials::headers`] checks again and gives the headers just before a request is sent.
//!
//! A kind is a variant of `CredentialKind` in the configuration, a variant of `Source` here (of `token_source::Grant`, if
//! it has tokens fetched), and a file beside this one that makes its headers.

mod assertion;
mod cache;
mod client_credentials;
mod fixed;
mod issuer;
mod secret;
mod service_account;
mod token;
mod token_source;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use url::Url;

use self::client_credentials::Grant;
use self::fixed::Fixed;
pub use self::issuer::Outside;
use self::secret::Secret;
pub use self::secret::SecretError;
use self::service_account::Account;
pub use self::token_source::{LentToken, Unavailable};
use self::token_source::{Tokens, Wish};
use self::webhook::Signer;
use crate::clock::Now;
use crate::config::{Config, CredentialConfig, CredentialKind, is_this_machine};
use crate::security::http_client::ClientIdentity;
use crate::task::{CredentialName, QueueName};

/// The credentials in force. To be shared in an [`Arc`].
#[derive(Debug)]
pub struct Credentials {
    current: RwLock<Arc<Set>>,
    outside: Outside,
}

/// Credentials that are ready to be used, and not used yet.
#[derive(Debug)]
#[must_use = "hand them to `Credentials::replace`"]
pub struct NextCredentials {
    next: Arc<Set>,
    /// Those whose secrets have changed where the configuration says they are, and nothing else.
    pub other_secrets: Vec<CredentialName>,
}

/// Why no credential could be made.
#[derive(Debug, thiserror::Error)]
#[error("credential `{name}`: {key}: {why}")]
pub struct CredentialError {
    /// Which credential.
    pub name: CredentialName,
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong with it; never what was found.
    pub why: String,
}

/// Why a credential may not go where a task wants to take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such credential.
    #[error("there is no credential `{name}`{}", did_you_mean(nearest.as_ref()))]
    Unknown {
        /// The name.
        name: CredentialName,
        /// The known name most like it, if one is like it.
        nearest: Option<CredentialName>,
    },
    /// It is for other hosts.
    #[error("the credential `{name}` may not go to {host}; name it in credentials.{name}.hosts of the configuration")]
    Host {
        /// The credential.
        name: CredentialName,
        /// The host and its port.
        host: String,
    },
    /// It is shown in a handshake, and there is none.
    #[error("the credential `{name}` is a client certificate, which only https shows; call {host} by https")]
    NoHandshake {
        /// The credential.
        name: CredentialName,
        /// The host and its port.
        host: String,
    },
    /// Anybody on the way could read it.
    #[error(
        "the credential `{name}` may not go to {host} over plain http; call https, or set \
         credentials.{name}.allow_plain_http: true in the configuration"
    )]
    PlainHttp {
        /// The credential.
        name: CredentialName,
        /// The host and its port.
        host: String,
    },
}

fn did_you_mean(nearest: Option<&CredentialName>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// Why a call cannot carry its credential now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It may not go there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no token to be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// This call cannot be signed.
    #[error("the credential `{0}` cannot sign this call: {1}")]
    Unsigned(CredentialName, String),
}

/// What a call carries.
#[derive(Debug, Default)]
pub struct Carried {
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The token among them, if there is one that was fetched.
    pub token: Option<LentToken>,
    /// The client certificate that it is called with, if there is one.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// The request that the headers are for.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Where it goes.
    pub url: &'a Url,
    /// Its method.
    pub method: &'a Method,
    /// The bytes of its body; empty when it has none.
    pub body: &'a Bytes,
    /// The task, as its target knows it.
    pub task_id: &'a str,
    /// The task and its series, without a full stop: the same over all attempts of the series.
    pub webhook_id: &'a str,
    /// Which attempt of the series, from 1.
    pub attempt: u32,
    /// The moment.
    pub now: Now,
    /// Whether a token has to be fresh, because the target has refused the one before.
    pub fresh: bool,
}

/// All credentials of one configuration.
#[derive(Debug, Default)]
struct Set {
    by_name: BTreeMap<CredentialName, Arc<Credential>>,
    of_queues: BTreeMap<QueueName, Option<CredentialName>>,
    of_others: Option<CredentialName>,
}

#[derive(Debug)]
struct Credential {
    config: CredentialConfig,
    /// Of its secrets: tells whether they have changed.
    digest: [u8; 32],
    source: Source,
}

/// What makes the headers of a credential.
#[derive(Debug)]
enum Source {
    Fixed(Fixed),
    Tokens(Tokens),
    Certificate(Arc<ClientIdentity>),
    Signer(Signer),
}

impl Credentials {
    /// The credentials of a configuration, with their secrets read. Tokens are fetched through `outside`.
    pub fn new(config: &Config, outside: Outside) -> Result<Self, CredentialError> {
        let (set, _all_are_new) = Set::build(config, &Set::default())?;
        Ok(Self { current: RwLock::new(Arc::new(set)), outside })
    }

    /// Makes the credentials of another configuration, for [`Credentials::replace`]. Secrets are read again.
    pub fn prepare(&self, config: &Config) -> Result<NextCredentials, CredentialError> {
        let (next, other_secrets) = Set::build(config, &self.current())?;
        Ok(NextCredentials { next: Arc::new(next), other_secrets })
    }

    /// Puts other credentials in force.
    pub fn replace(&self, next: NextCredentials) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.next;
    }

    /// The credential that holds for a task of this queue: its own, or its queue's.
    pub fn name_for(&self, own: Option<&CredentialName>, queue: &QueueName) -> Option<CredentialName> {
        let current = self.current();
        let of_queue = || current.of_queues.get(queue).unwrap_or(&current.of_others).clone();
        own.cloned().or_else(of_queue)
    }

    /// Whether the credential, and those that go along with it, may go there; then the headers that they set, which
    /// nobody else may give.
    pub fn check(&self, name: &CredentialName, url: &Url) -> Result<Vec<HeaderName>, Refused> {
        let all = self.current().company(name, url)?;
        Ok(all.iter().flat_map(|(_, credential)| credential.source.sets()).collect())
    }

    /// What `call` carries by the credential, if it may still go there.
    pub async fn headers(&self, name: &CredentialName, call: &Call<'_>) -> Result<Carried, Unusable> {
        let mut carried = Carried::default();
        for (name, credential) in self.current().company(name, call.url)? {
            credential.source.add_to(&mut carried, &name, call, &self.outside).await?;
        }
        Ok(carried)
    }

    fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    /// The set of a configuration. What has not changed is taken over from `before`; says whose secrets have.
    fn build(config: &Config, before: &Self) -> Result<(Self, Vec<CredentialName>), CredentialError> {
        let mut set = Self {
            by_name: BTreeMap::new(),
            of_queues: config.queues.iter().map(|(name, queue)| (name.clone(), queue.auth.clone())).collect(),
            of_others: config.queue_defaults.auth.clone(),
        };
        let mut other_secrets = Vec::new();
        for (name, config) in &config.credentials {
            let old = before.by_name.get(name).filter(|old| old.config == *config);
            let secrets = Secrets::read(name, config)?;
            let same = old.filter(|old| old.digest == secrets.digest());
            if old.is_some() && same.is_none() {
                other_secrets.push(name.clone());
            }
            let credential = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(Credential::build(config, &secrets)?),
            };
            set.by_name.insert(name.clone(), credential);
        }
        Ok((set, other_secrets))
    }

    /// A credential and those that go along with it, if all of them may go there.
    fn company(&self, name: &CredentialName, url: &Url) -> Result<Vec<(CredentialName, Arc<Credential>)>, Refused> {
        let first = self.allowed(name, url)?;
        let also = first.config.also.iter().map(|also| Ok((also.clone(), self.allowed(also, url)?)));
        let also = also.collect::<Result<Vec<_>, Refused>>()?;
        Ok(std::iter::once((name.clone(), first)).chain(also).collect())
    }

    fn allowed(&self, name: &CredentialName, url: &Url) -> Result<Arc<Credential>, Refused> {
        let Some(credential) = self.by_name.get(name) else {
            return Err(Refused::Unknown { name: name.clone(), nearest: self.nearest(name) });
        };
        let (name, host) = (name.clone(), || place(url));
        if !credential.config.hosts.iter().any(|pattern| pattern.admits(url)) {
            return Err(Refused::Host { name, host: host() });
        }
        if url.scheme() != "https" && matches!(credential.source, Source::Certificate(_)) {
            return Err(Refused::NoHandshake { name, host: host() });
        }
        if url.scheme() != "https" && !credential.config.allow_plain_http && !is_this_machine(url) {
            return Err(Refused::PlainHttp { name, host: host() });
        }
        Ok(Arc::clone(credential))
    }

    /// The known name most like `given`: at most a third of it misspelt.
    fn nearest(&self, given: &CredentialName) -> Option<CredentialName> {
        let distance = |known: &&CredentialName| strsim::damerau_levenshtein(known.as_str(), given.as_str());
        let near_enough = |known: &&CredentialName| distance(known) <= (given.as_str().len() / 3).max(1);
        self.by_name.keys().filter(near_enough).min_by_key(distance).cloned()
    }
}

/// Host and port, as messages show them.
fn place(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// The secrets of one credential, by the keys that name them.
struct Secrets<'a> {
    of: &'a CredentialName,
    found: Vec<(&'static str, Secret)>,
}

impl<'a> Secrets<'a> {
    fn read(of: &'a CredentialName, config: &CredentialConfig) -> Result<Self, CredentialError> {
        let read = |(key, at)| match Secret::read(at) {
            Ok(secret) => Ok((key, secret)),
            Err(error) => Err(CredentialError { name: of.clone(), key, why: error.to_string() }),
        };
        config.kind.secrets().into_iter().map(read).collect::<Result<_, _>>().map(|found| Self { of, found })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (key, secret) in &self.found {
            for part in [*key, secret.expose()] {
                digest.update(part.len().to_le_bytes());
                digest.update(part);
            }
        }
        digest.finalize().into()
    }

    /// What is made of the secret under `key`.
    fn with<T>(&self, key: &'static str, make: impl Fn(&Secret) -> Result<T, String>) -> Result<T, CredentialError> {
        self.with_all(key, |secrets| {
            secrets.first().ok_or_else(|| "is missing".to_owned()).and_then(|first| make(first))
        })
    }

    /// What is made of all secrets under `key`.
    fn with_all<T>(
        &self,
        key: &'static str,
        make: impl Fn(&[&Secret]) -> Result<T, String>,
    ) -> Result<T, CredentialError> {
        let secrets: Vec<_> = self.found.iter().filter(|(found, _)| *found == key).map(|(_, secret)| secret).collect();
        make(&secrets).map_err(|why| CredentialError { name: self.of.clone(), key, why })
    }
}

impl Credential {
    fn build(config: &CredentialConfig, secrets: &Secrets<'_>) -> Result<Self, CredentialError> {
        let source = match &config.kind {
            CredentialKind::Bearer { .. } => Source::Fixed(secrets.with("token", fixed::bearer)?),
            CredentialKind::Basic { username, .. } => {
                Source::Fixed(secrets.with("password", |password| fixed::basic(username, password))?)
            }
            CredentialKind::Header { name, .. } => {
                Source::Fixed(secrets.with("value", |value| fixed::header(name, value))?)
            }
            CredentialKind::ClientCredentials(client) => {
                let key = config.kind.secrets().first().map_or("client_secret", |(key, _)| *key);
                Source::Tokens(secrets.with(key, |secret| Grant::new(client, secret))?.into())
            }
            CredentialKind::ServiceAccount { wanted, .. } => {
                let plain = config.allow_plain_http;
                Source::Tokens(secrets.with("key", |file| Account::new(file, wanted, plain))?.into())
            }
            CredentialKind::Mtls { .. } => {
                let chain = secrets.with("certificate", |chain| Ok(chain.clone()))?;
                let identity = |key: &Secret| ClientIdentity::new(chain.expose(), key.expose());
                Source::Certificate(Arc::new(secrets.with("private_key", identity)?))
            }
            CredentialKind::StandardWebhooks { .. } => Source::Signer(secrets.with_all("secrets", Signer::new)?),
        };
        Ok(Self { config: config.clone(), digest: secrets.digest(), source })
    }
}

impl Source {
    /// The headers that it sets and a task could give.
    fn sets(&self) -> Vec<HeaderName> {
        match self {
            Self::Fixed(Fixed { name, .. }) => vec![name.clone()],
            Self::Tokens(_) => vec![AUTHORIZATION],
            // The names of its headers are reserved.
            Self::Certificate(_) | Self::Signer(_) => Vec::new(),
        }
    }

    /// Adds what `call` carries by it.
    async fn add_to(
        &self,
        carried: &mut Carried,
        name: &CredentialName,
        call: &Call<'_>,
        outside: &Outside,
    ) -> Result<(), Unusable> {
        match self {
            Self::Fixed(Fixed { name, value }) => carried.headers.push((name.clone(), value.clone())),
            Self::Tokens(tokens) => {
                let wish = Wish { credential: name, target: call.url, fresh: call.fresh };
                let token = tokens.lend(&wish, outside).await?;
                carried.headers.push((AUTHORIZATION, token.value()));
                carried.token = Some(token);
            }
            Self::Certificate(identity) => carried.identity = Some(Arc::clone(identity)),
            Self::Signer(signer) => {
                let headers = signer.headers(call).map_err(|why| Unusable::Unsigned(name.clone(), why))?;
                carried.headers.extend(headers);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
