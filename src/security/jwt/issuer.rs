//! The keys of one issuer: fetched by one at a time, used while they are fresh, and for a while longer when the issuer
//! cannot be asked.
//!
//! A fetch is shared by all who need it, and seen through to its end by nobody in particular: whoever sends a token and
//! hangs up starts no fetch anew, and stops none. Keys that are no longer fresh are used once more while the next ones are
//! fetched. Tokens with keys that nobody knows cause a fetch every now and then at most, however many they are.
//!
//! The lock is held for look-ups only, never while somebody waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::World;
use super::document::{FetchFault, Place, Published};
use super::keys::{self, Found, Key, Wanted};
use crate::config::IssuerConfig;
use crate::logging::Fact;
use crate::logging::event::IssuerKeysFetched;
use crate::task::limits::{
    ISSUER_FAILURE_KEPT, ISSUER_KEYS_STALE_MAX, ISSUER_RETRY_AFTER_MAX, ISSUER_UNKNOWN_KEY_EVERY,
};
use crate::task::{CallerName, Span};

type Fetch = BoxFuture<'static, Result<Arc<Held>, Failure>>;

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyError {
    /// It is for other algorithms.
    WrongAlgorithm,
    /// The issuer has none such.
    Unknown,
    /// The issuer did not say; it is asked again after this long.
    Unavailable(Span),
}

/// See the module.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    name: CallerName,
    place: Arc<Place>,
    world: World,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    fetching: Option<Shared<Fetch>>,
    failure: Option<Failure>,
}

/// Keys that were fetched. Times are monotonic.
#[derive(Debug)]
struct Held {
    keys: Vec<Arc<Key>>,
    fetched_at: Duration,
    fresh_until: Duration,
}

/// A fetch that failed, and until when nobody tries again (monotonic).
#[derive(Debug, Clone, Copy)]
struct Failure {
    until: Duration,
}

/// What a look comes to.
enum Step {
    Done(Result<Arc<Key>, KeyError>),
    Wait(Shared<Fetch>),
}

impl IssuerKeys {
    pub(super) fn new(name: &CallerName, config: &IssuerConfig, world: World) -> Self {
        Self { name: name.clone(), place: Arc::new(Place::of(config)), world, state: Mutex::default() }
    }

    /// The key that a token names.
    pub(super) async fn find(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<Arc<Key>, KeyError> {
        match self.look(wanted) {
            Step::Done(found) => found,
            Step::Wait(fetch) => match fetch.await {
                Ok(held) => held.find(wanted).unwrap_or(Err(KeyError::Unknown)),
                Err(failure) => Err(failure.told(self.world.clock.now().mono)),
            },
        }
    }

    fn look(self: &Arc<Self>, wanted: Wanted<'_>) -> Step {
        let now = self.world.clock.now().mono;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = state.held.clone().filter(|held| now < held.fetched_at + ISSUER_KEYS_STALE_MAX.to_duration());
        let failure = state.failure.filter(|failure| now < failure.until);
        let found = held.as_ref().and_then(|held| held.find(wanted));
        if let (Some(held), Some(found)) = (&held, found) {
            if now >= held.fresh_until && state.fetching.is_none() && failure.is_none() {
                drop(self.begin(&mut state, now));
            }
            return Step::Done(found);
        }
        if let Some(fetch) = &state.fetching {
            return Step::Wait(fetch.clone());
        }
        if let Some(failure) = failure {
            return Step::Done(Err(failure.told(now)));
        }
        // Only an issuer that has told its keys has said that this is none of them; one that failed is asked again.
        let every = ISSUER_UNKNOWN_KEY_EVERY.to_duration();
        if held.is_some_and(|held| now < held.fetched_at + every) {
            return Step::Done(Err(KeyError::Unknown));
        }
        Step::Wait(self.begin(&mut state, now))
    }

    fn begin(self: &Arc<Self>, state: &mut State, now: Duration) -> Shared<Fetch> {
        let keys = Arc::clone(self);
        let fetch: Fetch = Box::pin(async move {
            let fetched = Arc::clone(&keys.place).fetch(keys.world.clone()).await;
            keys.ended(now, fetched)
        });
        let fetch = fetch.shared();
        state.fetching = Some(fetch.clone());
        (self.world.run)(Box::pin(fetch.clone().map(drop)));
        fetch
    }

    fn ended(&self, began: Duration, fetched: Result<Published, FetchFault>) -> Result<Arc<Held>, Failure> {
        let now = self.world.clock.now().mono;
        let told = IssuerKeysFetched {
            issuer: self.name.clone(),
            result: fetched.as_ref().map_or_else(|fault| fault.kind, |_| "ok"),
            keys: fetched.as_ref().map_or(0, |published| published.keys.len()),
            took: now.saturating_sub(began),
            error: fetched.as_ref().err().map(|fault| fault.why.clone()),
        };
        told.emit(&self.world.telemetry);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fetching = None;
        match fetched {
            Ok(Published { keys, fresh_for }) => {
                let held = Arc::new(Held { keys, fetched_at: now, fresh_until: now.saturating_add(fresh_for) });
                (state.held, state.failure) = (Some(Arc::clone(&held)), None);
                Ok(held)
            }
            Err(fault) => {
                let asked = fault.retry_after.unwrap_or_default();
                let kept = asked.clamp(ISSUER_FAILURE_KEPT, ISSUER_RETRY_AFTER_MAX);
                let failure = Failure { until: now.saturating_add(kept.to_duration()) };
                state.failure = Some(failure);
                Err(failure)
            }
        }
    }
}

impl Held {
    /// `None` where only the issuer can tell.
    fn find(&self, wanted: Wanted<'_>) -> Option<Result<Arc<Key>, KeyError>> {
        match keys::find(&self.keys, wanted) {
            Found::Key(key) => Some(Ok(key)),
            Found::WrongAlgorithm => Some(Err(KeyError::WrongAlgorithm)),
            Found::Nothing => None,
        }
    }
}

impl Failure {
    fn told(self, now: Duration) -> KeyError {
        let left = u64::try_from(self.until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        KeyError::Unavailable(Span::from_millis(left))
    }
}
