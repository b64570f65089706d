//! API keys between the ring that recognises them and the store that keeps them: durable first, in force afterwards.
//!
//! They are committed beside the engine, which owns tasks only. A commit whose outcome is unknown ends the process by way
//! of the engine: the store acknowledges nothing afterwards.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::api::{ChangeKeys, KeyChange, KeyChangeError};
use crate::clock::Clock;
use crate::logging::event::{KeyCreated, KeyDamaged, KeyRevoked, KeyUsesLost};
use crate::logging::{Fact, Telemetry, chain};
use crate::queue::store::{Change, CommitError, Store, StoreError};
use crate::security::api_key::{AdminKey, KeyRecord};
use crate::security::key_ring::KeyRing;
use crate::task::limits::KEY_USES_KEPT_EVERY;

/// The ring and what keeps it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keys {
    ring: Arc<KeyRing>,
    store: Arc<dyn Store>,
    clock: Clock,
    telemetry: Telemetry,
}

impl Keys {
    /// Reads the keys that were kept. A damaged one is told of and lets nobody in.
    pub(super) async fn load(
        admin: &AdminKey,
        store: &Arc<dyn Store>,
        clock: &Clock,
        telemetry: &Telemetry,
    ) -> Result<Self, StoreError> {
        let mut kept = Vec::new();
        for key in store.api_keys().await? {
            match key {
                Ok(record) => kept.push(record),
                Err(damage) => KeyDamaged { what: damage.what }.emit(telemetry),
            }
        }
        Ok(Self {
            ring: Arc::new(KeyRing::new(admin, kept)),
            store: Arc::clone(store),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
        })
    }

    /// The keys in force.
    pub(super) fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring)
    }

    /// Changes keys, to the end even if whoever asked has gone: a change that is half done would be in the store and not
    /// in force, or the other way round.
    pub(super) fn change(&self) -> ChangeKeys {
        let keys = self.clone();
        Arc::new(move |change, by| {
            let keys = keys.clone();
            #[expect(clippy::disallowed_methods, reason = "this is the composition root; ends with its one commit")]
            let changing = tokio::spawn(async move {
                match change {
                    KeyChange::Create(record) => keys.create(record, &by).await,
                    KeyChange::Revoke(id) => keys.revoke(id, &by).await,
                }
            });
            Box::pin(
                async move { changing.await.unwrap_or_else(|panic| Err(CommitError::Unknown(Box::new(panic)).into())) },
            )
        })
    }

    async fn create(&self, record: KeyRecord, by: &str) -> Result<(), KeyChangeError> {
        let created = KeyCreated {
            id: record.id.as_ref().to_owned(),
            name: record.name.as_str().to_owned(),
            scopes: record.scopes.texts().collect::<Vec<_>>().join(" "),
            expires_at: record.expires_at,
            by: by.to_owned(),
        };
        self.ring.add(record.clone())?;
        let id = Arc::clone(&record.id);
        if let Err(error) = self.store.commit(vec![Change::key_created(record)]).await {
            self.ring.remove(&id);
            return Err(error.into());
        }
        self.ring.put_in_force(&id);
        created.emit(&self.telemetry);
        Ok(())
    }

    async fn revoke(&self, id: Arc<str>, by: &str) -> Result<(), KeyChangeError> {
        if self.ring.record(&id).is_none() {
            return Err(KeyChangeError::NotFound);
        }
        self.store.commit(vec![Change::key_revoked(Arc::clone(&id))]).await?;
        if self.ring.remove(&id) {
            KeyRevoked { id: id.as_ref().to_owned(), by: by.to_owned() }.emit(&self.telemetry);
        }
        Ok(())
    }

    /// Writes down when keys were used last, if any was since the last time: one commit for all of them.
    pub(super) async fn keep_uses(&self) {
        let changes: Vec<_> = self.ring.take_unkept_uses().into_iter().map(Change::key_used).collect();
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.store.commit(changes).await {
            KeyUsesLost { error: chain(&error) }.emit(&self.telemetry);
        }
    }

    /// Does so every [`KEY_USES_KEPT_EVERY`].
    #[expect(clippy::disallowed_methods, reason = "this is the composition root; `stop` ends the loop")]
    pub(super) fn keep_uses_regularly(&self) -> JoinHandle<()> {
        let keys = self.clone();
        tokio::spawn(async move {
            loop {
                keys.clock.sleep(KEY_USES_KEPT_EVERY.to_duration()).await;
                keys.keep_uses().await;
            }
        })
    }
}
