//! Credentials between the API that is given them, the set that is in force and the store that keeps them: sealed, then
//! durable, then in force.
//!
//! One loop makes all changes, so that of two changes of one credential the one that is kept is the one in force. They
//! are committed beside the engine, as API keys are.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::api::{ChangeCredentials, CredentialChange, CredentialChangeError};
use crate::clock::Clock;
use crate::config::{CredentialConfig, CredentialKind, Secret, credential_given, faults_of_company};
use crate::logging::event::{CredentialPut, CredentialRemoved, CredentialUnreadable};
use crate::logging::{Fact, Telemetry};
use crate::queue::store::{Change, Store, StoreError};
use crate::security::credential::sealed::{SealedCredential, SealingKey};
use crate::security::credential::{Credentials, KeptIn, NewCredential};
use crate::task::limits::{CREDENTIAL_CHANGES_MAX, CREDENTIALS_MAX};
use crate::task::{CredentialName, Fault};

/// What changes them.
pub(super) struct Keeper {
    credentials: Arc<Credentials>,
    key: Option<SealingKey>,
    store: Arc<dyn Store>,
    clock: Clock,
    telemetry: Telemetry,
}

/// A change, who asks for it, and who waits for its end.
struct Asked {
    change: CredentialChange,
    by: Arc<str>,
    done: oneshot::Sender<Result<bool, CredentialChangeError>>,
}

impl Keeper {
    /// Puts in force what the store keeps. What cannot be used is told of; tasks that name it wait.
    pub(super) async fn load(
        credentials: &Arc<Credentials>,
        key: Option<SealingKey>,
        store: &Arc<dyn Store>,
        (clock, telemetry): (&Clock, &Telemetry),
    ) -> Result<Self, StoreError> {
        let keeper = Self {
            credentials: Arc::clone(credentials),
            key,
            store: Arc::clone(store),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
        };
        for kept in store.credentials().await? {
            match kept {
                Ok(sealed) => keeper.credentials.put(keeper.opened(sealed)),
                Err(damage) => CredentialUnreadable { what: damage.what }.emit(telemetry),
            }
        }
        Ok(keeper)
    }

    fn opened(&self, sealed: SealedCredential) -> NewCredential {
        let new = self.open(&sealed).and_then(|config| {
            let new = NewCredential::new(sealed.name.clone(), &config, sealed.changed_at);
            new.map_err(|error| format!("{}: {}", error.key, error.why))
        });
        new.unwrap_or_else(|why| {
            CredentialUnreadable { what: format!("credential {}: {why}", sealed.name) }.emit(&self.telemetry);
            NewCredential::unreadable(sealed.name, sealed.changed_at, why)
        })
    }

    fn open(&self, SealedCredential { name, sealed, .. }: &SealedCredential) -> Result<CredentialConfig, String> {
        let key = self.key.as_ref().ok_or("it is sealed, and there is no credentials_key in the configuration")?;
        let given = key.open(name, sealed).map_err(|error| error.to_string())?;
        let value = serde_json::from_str(given.expose()).map_err(|_may_quote| "it is no JSON")?;
        credential_given(&value).map_err(|faults| {
            let told = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            told.collect::<Vec<_>>().join("; ")
        })
    }

    /// Starts the loop, and gives what hands it changes.
    #[expect(clippy::disallowed_methods, reason = "this is the composition root; `stop` ends the loop")]
    pub(super) fn start(self) -> (ChangeCredentials, JoinHandle<()>) {
        let (changes, mut asked) = mpsc::channel::<Asked>(CREDENTIAL_CHANGES_MAX);
        let running = tokio::spawn(async move {
            while let Some(Asked { change, by, done }) = asked.recv().await {
                let result = match change {
                    CredentialChange::Put { name, given, config } => self.put(name, &given, &config, &by).await,
                    CredentialChange::Remove(name) => self.remove(name, &by).await,
                };
                // Who asked may have gone; the change stands.
                drop(done.send(result));
            }
        });
        let change: ChangeCredentials = Arc::new(move |change, by| {
            let (done, result) = oneshot::channel();
            let sent = changes.try_send(Asked { change, by, done }).map_err(|full_or_closed| match full_or_closed {
                mpsc::error::TrySendError::Full(_) => CredentialChangeError::Busy,
                mpsc::error::TrySendError::Closed(_) => CredentialChangeError::Stopping,
            });
            Box::pin(async move {
                sent?;
                result.await.unwrap_or(Err(CredentialChangeError::Stopping))
            })
        });
        (change, running)
    }

    async fn put(
        &self,
        name: CredentialName,
        given: &Secret,
        config: &CredentialConfig,
        by: &str,
    ) -> Result<bool, CredentialChangeError> {
        let before = self.credentials.seen(&name);
        if before.as_ref().is_some_and(|seen| seen.kept_in == KeptIn::Configuration) {
            return Err(CredentialChangeError::InConfiguration);
        }
        let key = self.key.as_ref().ok_or(CredentialChangeError::NoKey)?;
        let replaced = before.is_some();
        if !replaced && self.credentials.stored_count() >= CREDENTIALS_MAX {
            return Err(CredentialChangeError::Full);
        }
        let company = faults_of_company(config, |also| self.credentials.seen(also).and_then(|seen| seen.config));
        if !company.is_empty() {
            let faults = company.into_iter().map(|detail| Fault::new("/also".to_owned(), detail));
            return Err(CredentialChangeError::Faults(faults.collect()));
        }
        let changed_at = self.clock.now().wall;
        if let (CredentialKind::Oidc { .. }, Some(detail)) = (&config.kind, self.credentials.issuer_fault()) {
            return Err(CredentialChangeError::Faults(vec![Fault::new("/kind".to_owned(), detail)]));
        }
        let new = NewCredential::new(name.clone(), config, changed_at)
            .map_err(|error| CredentialChangeError::Faults(vec![Fault::new(format!("/{}", error.key), error.why)]))?;
        let sealed = SealedCredential { sealed: key.seal(&name, given)?, name: name.clone(), changed_at };
        self.store.commit(vec![Change::credential_put(sealed)]).await?;
        self.credentials.put(new);
        CredentialPut { credential: name, kind: config.kind.as_str(), replaced, by: by.to_owned() }
            .emit(&self.telemetry);
        Ok(replaced)
    }

    async fn remove(&self, name: CredentialName, by: &str) -> Result<bool, CredentialChangeError> {
        let seen = self.credentials.seen(&name).ok_or(CredentialChangeError::NotFound)?;
        if seen.kept_in == KeptIn::Configuration {
            return Err(CredentialChangeError::InConfiguration);
        }
        self.store.commit(vec![Change::credential_removed(name.clone())]).await?;
        self.credentials.remove(&name);
        CredentialRemoved { credential: name, by: by.to_owned() }.emit(&self.telemetry);
        Ok(true)
    }
}
