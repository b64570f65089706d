//! Who asks: by API key, by the token of an issuer, or by a client certificate. Failures of keys and tokens are counted
//! together.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::api::server::Surroundings;
use crate::api::{Authenticate, AuthenticateCertificate, AuthenticateToken, Authentication, Caller};
use crate::clock::{Clock, Now};
use crate::config::{CallersConfig, CertificateGrant, SanName};
use crate::logging::event::AuthenticationFailed;
use crate::logging::{Fact, Telemetry};
use crate::security::failure_limit::FailureLimit;
use crate::security::http_client::OutgoingClients;
use crate::security::jwt::{Bearer, Refusal, RunBeside, Tokens, World};
use crate::security::key_ring::KeyRing;
use crate::security::scope::Scopes;
use crate::security::server_tls::ServerTls;

/// Everybody who is known. Cheap to clone.
#[derive(Clone)]
pub(super) struct Callers {
    ring: Arc<KeyRing>,
    tokens: Arc<Tokens>,
    config: Arc<RwLock<CallersConfig>>,
    failures: Arc<Mutex<FailureLimit>>,
    clock: Clock,
    telemetry: Telemetry,
}

impl Callers {
    /// The holders of the keys in `ring`, and whom `config` names.
    pub(super) fn new(
        ring: Arc<KeyRing>,
        config: &CallersConfig,
        clients: &Arc<OutgoingClients>,
        around: &Surroundings,
    ) -> Self {
        let (clock, telemetry) = (&around.clock, &around.telemetry);
        #[expect(clippy::disallowed_methods, reason = "this is the composition root; a fetch ends by its own bound")]
        let run: RunBeside = Arc::new(|future| drop(tokio::spawn(future)));
        let world = World { clients: Arc::clone(clients), clock: clock.clone(), telemetry: telemetry.clone(), run };
        Self {
            ring,
            tokens: Arc::new(Tokens::new(config, world)),
            config: Arc::new(RwLock::new(config.clone())),
            failures: Arc::default(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
        }
    }

    /// Puts others than the holders of keys in force.
    pub(super) fn replace(&self, config: &CallersConfig) {
        self.tokens.replace(config);
        self.config.write().unwrap_or_else(PoisonError::into_inner).clone_from(config);
    }

    /// Recognises keys, and limits those who present wrong ones. The key comes first: whoever has a correct one is let in
    /// whatever others did from the same address.
    pub(super) fn authenticate(&self) -> Authenticate {
        let callers = self.clone();
        Arc::new(move |presented, address| {
            let now = callers.clock.now();
            match callers.ring.recognise(presented, now.wall) {
                Some(holder) => Authentication::Granted(Caller { id: holder.id, scopes: holder.scopes }),
                None => callers.failed(address, now, "api_key", Authentication::Refused),
            }
        })
    }

    /// Recognises tokens, in the same way. That an issuer cannot be asked is no failure of the caller's.
    pub(super) fn authenticate_token(&self) -> AuthenticateToken {
        let callers = self.clone();
        Arc::new(move |token, address| {
            let callers = callers.clone();
            Box::pin(async move { callers.bearer(&token, address).await })
        })
    }

    /// Recognises certificates; nobody, where there is no TLS. The caller is called by the first name that a grant is for,
    /// so that it stays the same when its certificate is renewed.
    pub(super) fn authenticate_certificate(&self, tls: Option<&Arc<ServerTls>>) -> AuthenticateCertificate {
        let (callers, clients) = (self.clone(), tls.map(|tls| Arc::clone(&tls.clients)));
        Arc::new(move |chain| {
            let found = clients.as_ref()?.recognise(chain, callers.clock.now().wall)?;
            let config = callers.config.read().unwrap_or_else(PoisonError::into_inner);
            let fitting =
                |name: &SanName| config.certificates.values().filter(|grant| grant.san.admits(name)).count() > 0;
            let id = found.names.iter().find(|name| fitting(name)).or_else(|| found.names.first());
            let id = id.map_or_else(|| "certificate".to_owned(), ToString::to_string);
            let fits = |grant: &&CertificateGrant| found.names.iter().any(|name| grant.san.admits(name));
            let scopes = Scopes::union(config.certificates.values().filter(fits).map(|grant| &grant.scopes));
            Some(Caller { id: Arc::from(id), scopes: Arc::new(scopes) })
        })
    }

    async fn bearer(&self, token: &str, address: IpAddr) -> Authentication {
        let recognised = self.tokens.recognise(token).await;
        let now = self.clock.now();
        match recognised {
            Ok(Bearer { id, scopes }) => Authentication::Granted(Caller { id, scopes: Arc::new(scopes) }),
            Err(Refusal::Unavailable(again)) => Authentication::IssuerUnavailable(again),
            // Where no issuer is named, a token is a wrong key.
            Err(Refusal::Fault(_)) if self.tokens.is_empty() => {
                self.failed(address, now, "api_key", Authentication::Refused)
            }
            Err(Refusal::Fault(fault)) => {
                self.failed(address, now, fault.as_str(), Authentication::TokenRefused(fault))
            }
        }
    }

    fn failed(&self, address: IpAddr, now: Now, why: &'static str, otherwise: Authentication) -> Authentication {
        let limited = !self.failures.lock().unwrap_or_else(PoisonError::into_inner).admits(address, now.mono);
        AuthenticationFailed { address, limited, why }.emit(&self.telemetry);
        if limited { Authentication::Limited } else { otherwise }
    }
}
