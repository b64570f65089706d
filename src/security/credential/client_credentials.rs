//! `oauth2_client_credentials`: access tokens by the client credentials grant (RFC 6749 section 4.4).
//!
//! The crate `oauth2` speaks the protocol; the requests it makes are sent by [`Outside::ask`]. Errors are made here rather
//! than taken from it: its own carry the answer along.

use std::time::Duration;

use futures_util::future::BoxFuture;
use oauth2::basic::{BasicClient, BasicTokenType};
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
};
use serde_json::json;

use super::assertion::{Lifetime, SigningKey, unique};
use super::fixed::sensitive;
use super::issuer::Outside;
use super::secret::Secret;
use super::token::{FetchError, FetchFault, Issued};
use crate::config::{ClientAuth, ClientCredentials};
use crate::task::limits::ASSERTION_LIFE;

/// How a signed assertion is announced (RFC 7523 section 2.2).
const BY_JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client of an issuer, with what it shows it by.
#[derive(Debug)]
pub(super) struct Grant {
    config: ClientCredentials,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Basic(Secret),
    Post(Secret),
    Jwt(Box<SigningKey>),
}

/// The client that the crate sends its requests by.
struct Guarded(Outside);

impl<'c> AsyncHttpClient<'c> for Guarded {
    type Error = FetchError;
    type Future = BoxFuture<'c, Result<HttpResponse, FetchError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.0.ask(request))
    }
}

impl Grant {
    /// A client by its configuration and the secret that this names. The error says what is wrong, not with what.
    pub(super) fn new(config: &ClientCredentials, secret: &Secret) -> Result<Self, String> {
        let proof = match &config.auth {
            ClientAuth::SecretBasic(_) => Proof::Basic(secret.clone()),
            ClientAuth::SecretPost(_) => Proof::Post(secret.clone()),
            ClientAuth::PrivateKeyJwt { key_id, .. } => {
                Proof::Jwt(Box::new(SigningKey::parse(secret, key_id.as_deref())?))
            }
        };
        Ok(Self { config: config.clone(), proof })
    }

    /// Whom its tokens are for.
    pub(super) fn audience(&self) -> &str {
        self.config.audience.as_deref().unwrap_or_default()
    }

    /// Asks the issuer for a token.
    pub(super) async fn fetch(&self, outside: &Outside) -> Result<Issued, FetchError> {
        let client = BasicClient::new(ClientId::new(self.config.client_id.clone()))
            .set_token_uri(TokenUrl::from_url(self.config.token_url.clone()));
        let client = match &self.proof {
            Proof::Basic(secret) => client
                .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
                .set_auth_type(AuthType::BasicAuth),
            Proof::Post(secret) => client
                .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
                .set_auth_type(AuthType::RequestBody),
            Proof::Jwt(_) => client.set_auth_type(AuthType::RequestBody),
        };
        let mut request = client.exchange_client_credentials();
        if let Proof::Jwt(key) = &self.proof {
            let assertion = self.assertion(key, outside)?;
            request =
                request.add_extra_param("client_assertion_type", BY_JWT).add_extra_param("client_assertion", assertion);
        }
        if let Some(audience) = &self.config.audience {
            request = request.add_extra_param("audience", audience.clone());
        }
        let request = request.add_scopes(self.config.scopes.iter().cloned().map(Scope::new));
        let answer = request.request_async(&Guarded(outside.clone())).await.map_err(|error| match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                no_token("access_token and token_type (RFC 6749 section 5.1)")
            }
        })?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(no_token("a token of the type Bearer"));
        }
        issued(answer.access_token().secret(), answer.expires_in())
    }

    /// RFC 7523 section 3: who we are, to whom, for how long, and once.
    fn assertion(&self, key: &SigningKey, outside: &Outside) -> Result<String, FetchError> {
        let Lifetime { iat, exp } = Lifetime::of(outside.clock.now(), ASSERTION_LIFE.to_duration());
        let (id, jti) = (self.config.client_id.as_str(), outside.draw(unique));
        let claims = json!({
            "iss": id, "sub": id, "aud": self.config.token_url.as_str(), "iat": iat, "exp": exp, "jti": jti,
        });
        key.sign(&claims).map_err(|why| FetchError::new(FetchFault::Request, why))
    }
}

/// A bearer token that can be sent.
pub(super) fn issued(token: &str, life: Option<Duration>) -> Result<Issued, FetchError> {
    let usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = Some(format!("Bearer {token}")).filter(|_| usable).and_then(|value| sensitive(&value).ok());
    value.map(|value| Issued { value, life }).ok_or_else(|| no_token("a token of visible characters"))
}

/// An answer with 200 that holds no token.
pub(super) fn no_token(expected: &str) -> FetchError {
    FetchError::new(FetchFault::Answer, format!("the token issuer answered 200 without {expected}"))
}
