//! What calls carry: named credentials, each for the hosts it may go to.
//!
//! [`Credentials`] is built from the configuration and replaced whole by a reload. [`Credentials::check`] says at enqueue
//! what can be seen there, [`Credentials::headers`] checks again and gives the headers just before a request is sent.
//!
//! A kind is a variant of `CredentialKind` in the configuration, a variant of `source::Source` (of `token_source::Grant`, if
//! it has tokens fetched), and a file beside this one that makes its headers.

mod assertion;
mod cache;
mod client_credentials;
mod fixed;
mod issuer;
mod oidc_issuer;
pub mod sealed;
mod secret;
mod service_account;
mod signing_keys;
mod source;
mod stored;
mod token;
mod token_source;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use url::Url;

pub use self::issuer::Outside;
use self::oidc_issuer::OidcIssuer;
pub use self::oidc_issuer::Published;
pub use self::secret::SecretError;
pub use self::signing_keys::SigningKeysError;
use self::source::{Credential, Secrets, Source};
use self::stored::Stored;
pub use self::stored::{KeptIn, NewCredential, Seen};
pub use self::token_source::{LentToken, Unavailable};
use crate::clock::Now;
use crate::config::{Config, CredentialKind, is_this_machine, issuer_fault};
use crate::security::http_client::ClientIdentity;
use crate::task::{CredentialName, QueueName, WallMs};

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

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// One of them cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// We cannot be an issuer of ID tokens.
    #[error(transparent)]
    SigningKeys(#[from] SigningKeysError),
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
    /// It is kept, and cannot be used.
    #[error("the credential `{name}` cannot be used: {why}")]
    Unreadable {
        /// The credential.
        name: CredentialName,
        /// Why not.
        why: String,
    },
    /// It and one that goes along with it set the same.
    #[error("the credential `{name}` takes `{also}` along, which sets {what} too; change one of them")]
    Clash {
        /// The credential.
        name: CredentialName,
        /// The one that goes along.
        also: CredentialName,
        /// What both set.
        what: String,
    },
    /// It is for other hosts.
    #[error(
        "the credential `{name}` may not go to {host}; name it in credentials.{name}.hosts of the configuration, or in the \
         `hosts` of PUT /credentials/{name} where it was given so"
    )]
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
         credentials.{name}.allow_plain_http: true in the configuration, or in PUT /credentials/{name} where it was given so"
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
    /// Its queue.
    pub queue: &'a QueueName,
    /// The task and its series, without a full stop: the same over all attempts of the series.
    pub webhook_id: &'a str,
    /// Which attempt of the series, from 1.
    pub attempt: u32,
    /// The moment.
    pub now: Now,
    /// Whether a token has to be fresh, because the target has refused the one before.
    pub fresh: bool,
}

/// All credentials: those of one configuration, and those that are kept in the store.
#[derive(Debug, Clone, Default)]
struct Set {
    by_name: BTreeMap<CredentialName, Arc<Credential>>,
    /// What the configuration names goes before what is kept under the same name.
    stored: Arc<BTreeMap<CredentialName, Stored>>,
    of_queues: BTreeMap<QueueName, Option<CredentialName>>,
    of_others: Option<CredentialName>,
    /// We as an issuer of ID tokens, where we are one.
    issuer: Option<Arc<OidcIssuer>>,
}

impl Credentials {
    /// The credentials of a configuration, with their secrets read. Tokens are fetched through `outside`.
    pub fn new(config: &Config, outside: Outside) -> Result<Self, CredentialsError> {
        let (set, _all_are_new) = Set::build(config, &Set::default(), &outside)?;
        Ok(Self { current: RwLock::new(Arc::new(set)), outside })
    }

    /// Makes the credentials of another configuration, for [`Credentials::replace`]. Secrets are read again.
    pub fn prepare(&self, config: &Config) -> Result<NextCredentials, CredentialsError> {
        let (next, other_secrets) = Set::build(config, &self.current(), &self.outside)?;
        Ok(NextCredentials { next: Arc::new(next), other_secrets })
    }

    /// Puts the credentials of another configuration in force. Those that are kept in the store stay.
    pub fn replace(&self, next: NextCredentials) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let NextCredentials { next, .. } = next;
        *current = Arc::new(Set { stored: Arc::clone(&current.stored), ..(*next).clone() });
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
        let (mut carried, current) = (Carried::default(), self.current());
        let issuer = current.issuer.as_deref();
        for (own, credential) in current.company(name, call.url)? {
            credential.source.add_to(&mut carried, &own, call, (issuer, &self.outside)).await?;
        }
        // What may go where may have changed while a token was waited for.
        self.current().company(name, call.url)?;
        Ok(carried)
    }

    /// What whoever verifies our ID tokens has to know at this moment; `None` where we issue none.
    pub fn published(&self, now: WallMs) -> Option<Published> {
        self.current().issuer.as_ref().map(|issuer| issuer.published(now))
    }

    /// Why we cannot issue ID tokens, if we cannot.
    pub fn issuer_fault(&self) -> Option<&'static str> {
        issuer_fault(self.current().issuer.as_ref().map(|issuer| issuer.url()))
    }

    /// Rotates the keys that sign our ID tokens, if there are any and it is time.
    pub fn turn_signing_keys(&self) {
        if let Some(issuer) = &self.current().issuer {
            issuer.turn_keys(&self.outside);
        }
    }

    fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    /// The set of a configuration. What has not changed is taken over from `before`; says whose secrets have.
    fn build(
        config: &Config,
        before: &Self,
        outside: &Outside,
    ) -> Result<(Self, Vec<CredentialName>), CredentialsError> {
        let issuer = OidcIssuer::of(config, before.issuer.as_ref(), outside)?;
        let no_issuer = issuer_fault(config.server.public_url.as_deref());
        let mut set = Self {
            by_name: BTreeMap::new(),
            stored: Arc::default(),
            of_queues: config.queues.iter().map(|(name, queue)| (name.clone(), queue.auth.clone())).collect(),
            of_others: config.queue_defaults.auth.clone(),
            issuer,
        };
        let mut other_secrets = Vec::new();
        for (name, config) in &config.credentials {
            if let (CredentialKind::Oidc { .. }, Some(why)) = (&config.kind, no_issuer) {
                return Err(CredentialError { name: name.clone(), key: "kind", why: why.to_owned() }.into());
            }
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
        let all: Vec<_> = std::iter::once((name.clone(), first)).chain(also).collect();
        // Each may have been changed since they were looked at together.
        for (index, (also, credential)) in all.iter().enumerate() {
            let what = credential.config.kind.sets();
            if all.iter().take(index).any(|(_, before)| before.config.kind.sets() == what) {
                return Err(Refused::Clash { name: name.clone(), also: also.clone(), what: what.to_owned() });
            }
        }
        Ok(all)
    }

    fn allowed(&self, name: &CredentialName, url: &Url) -> Result<Arc<Credential>, Refused> {
        let credential = match (self.by_name.get(name), self.stored.get(name)) {
            (Some(credential), _) | (None, Some(Stored { is: Ok(credential), .. })) => credential,
            (None, Some(Stored { is: Err(why), .. })) => {
                return Err(Refused::Unreadable { name: name.clone(), why: why.clone() });
            }
            (None, None) => return Err(Refused::Unknown { name: name.clone(), nearest: self.nearest(name) }),
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
        self.by_name.keys().chain(self.stored.keys()).filter(near_enough).min_by_key(distance).cloned()
    }
}

/// Host and port, as messages show them.
fn place(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests;
