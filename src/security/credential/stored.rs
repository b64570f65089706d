//! Credentials beside the configuration: given by the API, kept in the store by others, in force here.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::source::{Credential, Secrets};
use super::{CredentialError, Credentials, Set};
use crate::config::CredentialConfig;
use crate::task::{CredentialName, WallMs};

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) changed_at: WallMs,
    /// Why it cannot be used, where it cannot.
    pub(super) is: Result<Arc<Credential>, String>,
}

/// A credential that is ready to be kept, and not in force yet.
#[derive(Debug)]
#[must_use = "hand it to `Credentials::put`"]
pub struct NewCredential {
    name: CredentialName,
    stored: Stored,
}

/// Where a credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// In the configuration.
    Configuration,
    /// In the store.
    Store {
        /// Since when.
        changed_at: WallMs,
        /// Why it cannot be used, where it cannot.
        unreadable: Option<String>,
    },
}

/// A credential as those see it who may: never its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: CredentialName,
    /// What it is; `None` where it cannot be read.
    pub config: Option<CredentialConfig>,
    /// Where it is kept.
    pub kept_in: KeptIn,
}

impl NewCredential {
    /// A credential that was given.
    pub fn new(name: CredentialName, config: &CredentialConfig, changed_at: WallMs) -> Result<Self, CredentialError> {
        let secrets = Secrets::read(&name, config)?;
        let credential = Credential::build(config, &secrets)?;
        Ok(Self { name, stored: Stored { changed_at, is: Ok(Arc::new(credential)) } })
    }

    /// One that is kept and cannot be used.
    pub fn unreadable(name: CredentialName, changed_at: WallMs, why: String) -> Self {
        Self { name, stored: Stored { changed_at, is: Err(why) } }
    }

    /// Its name.
    pub fn name(&self) -> &CredentialName {
        &self.name
    }
}

impl Credentials {
    /// Puts one in force, in the place of another of its name.
    pub fn put(&self, new: NewCredential) {
        self.change(|stored| drop(stored.insert(new.name, new.stored)));
    }

    /// It is not in force any more; false if it was not.
    pub fn remove(&self, name: &CredentialName) -> bool {
        let mut was_there = false;
        self.change(|stored| was_there = stored.remove(name).is_some());
        was_there
    }

    /// How many are kept in the store.
    pub fn stored_count(&self) -> usize {
        self.current().stored.len()
    }

    /// One of them, wherever it is kept.
    pub fn seen(&self, name: &CredentialName) -> Option<Seen> {
        self.current().seen(name)
    }

    /// All of them, by name.
    pub fn all_seen(&self) -> Vec<Seen> {
        let current = self.current();
        let mut names: Vec<_> = current.by_name.keys().chain(current.stored.keys()).collect();
        names.sort();
        names.dedup();
        names.into_iter().filter_map(|name| current.seen(name)).collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<CredentialName, Stored>)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut stored = (*current.stored).clone();
        change(&mut stored);
        *current = Arc::new(Set { stored: Arc::new(stored), ..(**current).clone() });
    }
}

impl Set {
    fn seen(&self, name: &CredentialName) -> Option<Seen> {
        if let Some(credential) = self.by_name.get(name) {
            let config = Some(credential.config.clone());
            return Some(Seen { name: name.clone(), config, kept_in: KeptIn::Configuration });
        }
        let Stored { changed_at, is } = self.stored.get(name)?;
        let config = is.as_ref().ok().map(|credential| credential.config.clone());
        let kept_in = KeptIn::Store { changed_at: *changed_at, unreadable: is.as_ref().err().cloned() };
        Some(Seen { name: name.clone(), config, kept_in })
    }
}
