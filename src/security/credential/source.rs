//! One credential: its secrets, and what is made of them.

use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest, Sha256};

use super::client_credentials::Grant;
use super::fixed::{self, Fixed};
use super::oidc_issuer::{self, OidcIssuer};
use super::service_account::Account;
use super::token_source::{Tokens, Wish};
use super::webhook::Signer;
use super::{Call, Carried, CredentialError, Outside, Unusable, secret};
use crate::config::{CredentialConfig, CredentialKind, Secret};
use crate::security::http_client::ClientIdentity;
use crate::task::CredentialName;

pub(super) struct Credential {
    pub(super) config: CredentialConfig,
    /// Of its secrets: tells whether they have changed.
    pub(super) digest: [u8; 32],
    pub(super) source: Source,
}

/// What makes the headers of a credential.
#[derive(Debug)]
pub(super) enum Source {
    Fixed(Fixed),
    Tokens(Tokens),
    /// For an audience; without one, for the origin of each target.
    IdTokens(Option<String>),
    Certificate(Arc<ClientIdentity>),
    Signer(Signer),
}

/// The secrets of one credential, by the keys that name them.
pub(super) struct Secrets<'a> {
    of: &'a CredentialName,
    found: Vec<(&'static str, Secret)>,
}

impl<'a> Secrets<'a> {
    pub(super) fn read(of: &'a CredentialName, config: &CredentialConfig) -> Result<Self, CredentialError> {
        let read = |(key, at)| match secret::read(at) {
            Ok(secret) => Ok((key, secret)),
            Err(error) => Err(CredentialError { name: of.clone(), key, why: error.to_string() }),
        };
        config.kind.secrets().into_iter().map(read).collect::<Result<_, _>>().map(|found| Self { of, found })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
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

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the digest: a weak secret could be guessed from it.
        f.debug_struct("Credential").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Credential {
    /// The credential of a configuration, with its secrets read.
    pub(super) fn build(config: &CredentialConfig, secrets: &Secrets<'_>) -> Result<Self, CredentialError> {
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
            CredentialKind::Oidc { audience } => Source::IdTokens(audience.clone()),
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
    pub(super) fn sets(&self) -> Vec<HeaderName> {
        match self {
            Self::Fixed(Fixed { name, .. }) => vec![name.clone()],
            Self::Tokens(_) | Self::IdTokens(_) => vec![AUTHORIZATION],
            // The names of its headers are reserved.
            Self::Certificate(_) | Self::Signer(_) => Vec::new(),
        }
    }

    /// Adds what `call` carries by it.
    pub(super) async fn add_to(
        &self,
        carried: &mut Carried,
        name: &CredentialName,
        call: &Call<'_>,
        (issuer, outside): (Option<&OidcIssuer>, &Outside),
    ) -> Result<(), Unusable> {
        match self {
            Self::Fixed(Fixed { name, value }) => carried.headers.push((name.clone(), value.clone())),
            Self::Tokens(tokens) => {
                let wish = Wish { credential: name, target: call.url, fresh: call.fresh };
                let token = tokens.lend(&wish, outside).await?;
                carried.headers.push((AUTHORIZATION, token.value()));
                carried.token = Some(token);
            }
            Self::IdTokens(audience) => {
                let token = oidc_issuer::authorization(issuer, (name, audience.as_deref()), call, outside)?;
                carried.headers.push((AUTHORIZATION, token));
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
