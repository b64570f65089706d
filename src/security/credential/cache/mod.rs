//! The tokens of one credential, by audience: each is used until it is old, and fetched by one at a time.
//!
//! There is no future of its own for a fetch: it is shared by those who wait for it, and goes on as long as one of them
//! does. Whoever finds a token that is getting old fetches the next one; the others go on with the old one meanwhile. A
//! failed fetch is remembered briefly, so that a thousand tasks are no thousand questions.
//!
//! The lock is held for look-ups only, never while somebody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::token::{FetchError, Issued, Token};
use crate::clock::Clock;
use crate::task::Span;
use crate::task::limits::{
    TOKEN_AUDIENCES_MAX, TOKEN_FAILURE_KEPT_MAX, TOKEN_FAILURE_KEPT_MIN, TOKEN_FRESH_MAX, TOKEN_RETRY_AFTER_MAX,
};

/// Whom tokens are for.
pub(super) type Audience = Arc<str>;
/// What a fetch ends with, for all who wait for it.
type Fetched = Result<Arc<Token>, Failure>;
type Fetch = BoxFuture<'static, Fetched>;

/// The tokens of one credential. Cheap to clone: the same tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenCache(Arc<Mutex<Slots>>);

#[derive(Debug, Default)]
struct Slots {
    by_audience: BTreeMap<Audience, Slot>,
    /// Counts looks, so that the audience that nobody has asked for longest is known.
    looks: u64,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<Arc<Token>>,
    fetching: Option<WeakShared<Fetch>>,
    failure: Option<Failure>,
    looked_at: u64,
}

/// A fetch that failed, and until when nobody tries again.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: Arc<FetchError>,
    pub(super) until: Duration,
    in_a_row: u32,
}

/// A token for one call.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) token: Arc<Token>,
    /// Whether it was fetched for this call, or is as good as that: it cannot have grown invalid since.
    pub(super) fresh: bool,
    /// Whether it was there, so that nothing had to be waited for.
    pub(super) was_there: bool,
}

/// What a look at a slot comes to.
enum Step {
    Use(Lent),
    Fail(Failure),
    Wait { fetch: Shared<Fetch>, meanwhile: Option<Arc<Token>> },
}

/// How a token is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Not an old one: the target has just refused it.
    pub(super) fresh: bool,
    /// Chance in `[0, 1)`, for the life of a token that is fetched.
    pub(super) unit: f64,
}

impl TokenCache {
    /// A token for `audience`: the one that is there, or the one that `fetch` gets.
    pub(super) async fn get(
        &self,
        audience: &Audience,
        clock: &Clock,
        how: How,
        fetch: impl FnOnce() -> BoxFuture<'static, Result<Issued, FetchError>>,
    ) -> Result<Lent, Failure> {
        let step = self.look(audience, clock, how, fetch);
        match step {
            Step::Use(lent) => Ok(lent),
            Step::Fail(failure) => Err(failure),
            Step::Wait { fetch, meanwhile } => match (fetch.await, meanwhile) {
                (Ok(token), _) => Ok(Lent { token, fresh: true, was_there: false }),
                // The old one still holds.
                (Err(_), Some(token)) => Ok(Lent { token, fresh: false, was_there: true }),
                (Err(failure), None) => Err(failure),
            },
        }
    }

    /// Forgets exactly this token; one that has taken its place stays.
    pub(super) fn forget(&self, audience: &Audience, token: &Arc<Token>) {
        let mut slots = self.lock();
        if let Some(slot) = slots.by_audience.get_mut(audience) {
            slot.token.take_if(|kept| Arc::ptr_eq(kept, token));
        }
    }

    fn look(
        &self,
        audience: &Audience,
        clock: &Clock,
        how: How,
        fetch: impl FnOnce() -> BoxFuture<'static, Result<Issued, FetchError>>,
    ) -> Step {
        let now = clock.now().mono;
        let mut slots = self.lock();
        let slot = slots.slot(audience, now);
        let wanted = |token: &&Arc<Token>| {
            let recent = token.asked.saturating_add(TOKEN_FRESH_MAX.to_duration()) >= now;
            now < token.end && (recent || !how.fresh)
        };
        let there = slot.token.as_ref().filter(wanted).cloned();
        let lend = |token: Arc<Token>| Step::Use(Lent { token, fresh: how.fresh, was_there: true });
        let fetching = slot.fetching.as_ref().and_then(WeakShared::upgrade);
        let failure = slot.failure.as_ref().filter(|failure| now < failure.until).cloned();
        match (there, fetching, failure) {
            (Some(token), fetching, failure) if now < token.refresh_at || fetching.is_some() || failure.is_some() => {
                lend(token)
            }
            (None, Some(fetch), _) => Step::Wait { fetch, meanwhile: None },
            (None, None, Some(failure)) => Step::Fail(failure),
            (meanwhile, _, _) => {
                let fetch = self.keep(audience, clock, how.unit, fetch()).shared();
                slot.fetching = fetch.downgrade();
                Step::Wait { fetch, meanwhile }
            }
        }
    }

    /// The fetch, with what it ends with kept.
    fn keep(
        &self,
        audience: &Audience,
        clock: &Clock,
        unit: f64,
        fetch: BoxFuture<'static, Result<Issued, FetchError>>,
    ) -> Fetch {
        let (cache, audience, clock) = (self.clone(), Arc::clone(audience), clock.clone());
        let asked = clock.now().mono;
        Box::pin(async move {
            let fetched = fetch.await.map(|issued| Arc::new(Token::new(issued, asked, unit)));
            cache.ended(&audience, fetched, clock.now().mono)
        })
    }

    fn ended(&self, audience: &Audience, fetched: Result<Arc<Token>, FetchError>, now: Duration) -> Fetched {
        let mut slots = self.lock();
        let slot = slots.slot(audience, now);
        slot.fetching = None;
        match fetched {
            Ok(token) => {
                slot.failure = None;
                slot.token = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(error) => {
                let in_a_row = slot.failure.as_ref().map_or(1, |failure| failure.in_a_row.saturating_add(1));
                let until = now.saturating_add(kept_for(in_a_row, error.retry_after).to_duration());
                let failure = Failure { error: Arc::new(error), until, in_a_row };
                slot.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The slot of an audience. Where there are as many as there may be, one that nobody waits for makes room: the one
    /// that has not been asked for longest.
    fn slot(&mut self, audience: &Audience, now: Duration) -> &mut Slot {
        if !self.by_audience.contains_key(audience) && self.by_audience.len() >= TOKEN_AUDIENCES_MAX {
            let busy = |slot: &Slot| slot.fetching.as_ref().is_some_and(|fetching| fetching.upgrade().is_some());
            let usable = |slot: &Slot| slot.token.as_ref().is_some_and(|token| now < token.end);
            let idle = self.by_audience.iter().filter(|(_, slot)| !busy(slot));
            let oldest =
                idle.min_by_key(|(_, slot)| (usable(slot), slot.looked_at)).map(|(audience, _)| audience.clone());
            oldest.map(|oldest| self.by_audience.remove(&oldest));
        }
        self.looks += 1;
        let slot = self.by_audience.entry(Arc::clone(audience)).or_default();
        slot.looked_at = self.looks;
        slot
    }
}

/// For how long a failure is kept: twice as long after each, or as the issuer asks.
fn kept_for(in_a_row: u32, retry_after: Option<Span>) -> Span {
    let doublings = in_a_row.saturating_sub(1).min(16);
    let grown = TOKEN_FAILURE_KEPT_MIN.as_millis().saturating_mul(1 << doublings);
    let asked = retry_after.unwrap_or_default().min(TOKEN_RETRY_AFTER_MAX);
    Span::from_millis(grown).min(TOKEN_FAILURE_KEPT_MAX).max(asked)
}

#[cfg(test)]
mod tests;
