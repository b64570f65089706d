//! The cache on a clock that stands still, with fetches that end when the test says so.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join_all, poll_fn};
use futures_util::{FutureExt, poll};
use http::header::HeaderValue;
use tokio::sync::oneshot;

use super::super::token::FetchFault;
use super::*;
use crate::clock::ManualClock;
use crate::task::WallMs;

const SEC: Duration = Duration::from_secs(1);

/// A cache, its clock, and an issuer whose answers are numbered.
struct Rig {
    cache: TokenCache,
    clock: Clock,
    hand: ManualClock,
    fetches: Arc<AtomicUsize>,
}

fn audience(text: &str) -> Audience {
    Audience::from(text)
}

impl Rig {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        Self { cache: TokenCache::default(), clock, hand, fetches: Arc::default() }
    }

    fn count(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    /// A fetch that ends at once: a token of a hundred seconds with the fetch's number, or a failure.
    fn fetch(&self, error: Option<FetchError>) -> impl FnOnce() -> BoxFuture<'static, Result<Issued, FetchError>> {
        let fetches = Arc::clone(&self.fetches);
        move || {
            let number = fetches.fetch_add(1, Ordering::Relaxed) + 1;
            let issued = Issued {
                value: HeaderValue::from_str(&number.to_string()).unwrap(),
                life: Some(Duration::from_secs(100)),
            };
            async move { error.map_or(Ok(issued), Err) }.boxed()
        }
    }

    async fn get(&self, fresh: bool, error: Option<FetchError>) -> Result<(String, bool), Failure> {
        let how = How { fresh, unit: 0.0 };
        let lent = self.cache.get(&audience("a"), &self.clock, how, self.fetch(error)).await?;
        Ok((lent.token.value.to_str().unwrap().to_owned(), lent.fresh))
    }

    async fn good(&self) -> (String, bool) {
        self.get(false, None).await.unwrap()
    }
}

fn down(retry_after: Option<u64>) -> FetchError {
    let error = FetchError::new(FetchFault::Status, "down");
    FetchError { retry_after: retry_after.map(Span::from_secs), ..error }
}

fn told(number: &str, fresh: bool) -> (String, bool) {
    (number.to_owned(), fresh)
}

#[tokio::test]
async fn a_token_is_used_until_four_fifths_of_its_life_and_then_replaced() {
    let rig = Rig::new();
    assert_eq!(rig.good().await, told("1", true));
    rig.hand.advance(79 * SEC);
    assert_eq!(rig.good().await, told("1", false));
    rig.hand.advance(SEC);
    assert_eq!(rig.good().await, told("2", true));
    rig.hand.advance(200 * SEC);
    assert_eq!(rig.good().await, told("3", true), "one that is over is not sent");
}

#[tokio::test]
async fn while_one_fetches_the_next_the_others_go_on_with_the_old_one() {
    let rig = Rig::new();
    rig.good().await;
    rig.hand.advance(85 * SEC);
    let (answer, answered) = oneshot::channel::<Issued>();
    let slow = || async { answered.await.map_err(|_gone| down(None)) }.boxed();
    let (name, how) = (audience("a"), How { fresh: false, unit: 0.0 });
    let mut first = Box::pin(rig.cache.get(&name, &rig.clock, how, slow));
    assert!(poll!(&mut first).is_pending());
    assert_eq!(rig.good().await, told("1", false));
    assert_eq!(rig.count(), 1, "nobody else asks");
    rig.hand.advance(10 * SEC);
    let mut late = Box::pin(rig.good());
    assert!(poll!(&mut late).is_pending(), "over: now everybody waits");
    answer.send(Issued { value: HeaderValue::from_static("new"), life: None }).unwrap();
    assert_eq!((first.await.unwrap().fresh, late.await), (true, told("new", true)));
    assert_eq!(rig.count(), 1);
}

#[tokio::test]
async fn a_thousand_at_the_moment_of_expiry_are_one_fetch_for_each_audience() {
    let rig = Rig::new();
    rig.good().await;
    rig.hand.advance(100 * SEC);
    let (open, opened) = oneshot::channel::<()>();
    let opened = opened.shared();
    let in_flight = Arc::new(AtomicUsize::new(0));
    let names: Vec<Audience> = (0..1_000).map(|n| audience(if n % 2 == 0 { "a" } else { "b" })).collect();
    let all = names.iter().map(|name| {
        let (opened, in_flight) = (opened.clone(), Arc::clone(&in_flight));
        let once = async move {
            assert!(in_flight.fetch_add(1, Ordering::Relaxed) < 2, "one in flight for each audience");
            opened.await.unwrap();
            Ok(Issued { value: HeaderValue::from_static("n"), life: Some(SEC) })
        };
        let fetch = move || once.boxed();
        rig.cache.get(name, &rig.clock, How { fresh: false, unit: 0.0 }, fetch)
    });
    let mut all = Box::pin(join_all(all));
    assert!(poll!(&mut all).is_pending());
    open.send(()).unwrap();
    let lent = all.await;
    assert!(lent.iter().all(|lent| lent.as_ref().is_ok_and(|lent| lent.fresh)));
    assert_eq!(in_flight.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_first_of_those_who_wait_is_gone_and_ends_with_the_last() {
    let rig = Rig::new();
    let (answer, answered) = oneshot::channel::<Issued>();
    let slow = || async { answered.await.map_err(|_gone| down(None)) }.boxed();
    let (name, how) = (audience("a"), How { fresh: false, unit: 0.0 });
    let mut first = Box::pin(rig.cache.get(&name, &rig.clock, how, slow));
    assert!(poll!(&mut first).is_pending());
    let mut second = Box::pin(rig.good());
    assert!(poll!(&mut second).is_pending());
    drop(first);
    answer.send(Issued { value: HeaderValue::from_static("new"), life: None }).unwrap();
    assert_eq!(second.await, told("new", true));

    let never = || poll_fn(|_| std::task::Poll::Pending).boxed();
    let other = audience("b");
    let mut alone = Box::pin(rig.cache.get(&other, &rig.clock, how, never));
    assert!(poll!(&mut alone).is_pending());
    drop(alone);
    let after = rig.cache.get(&other, &rig.clock, how, rig.fetch(None)).await;
    assert!(after.is_ok(), "nobody waits for a fetch that nobody drives");
}

#[tokio::test]
async fn failures_are_kept_briefly_and_longer_each_time() {
    let rig = Rig::new();
    for (number, kept) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)] {
        assert!(rig.get(false, Some(down(None))).await.is_err());
        assert_eq!(rig.count(), number);
        rig.hand.advance(Duration::from_millis(kept * 1_000 - 1));
        assert!(rig.get(false, None).await.is_err());
        assert_eq!(rig.count(), number, "left alone for {kept} s");
        rig.hand.advance(Duration::from_millis(1));
    }
    assert_eq!(rig.good().await, told("7", true));
    rig.hand.advance(100 * SEC);
    rig.get(false, Some(down(None))).await.unwrap_err();
    rig.hand.advance(SEC);
    assert_eq!(rig.good().await.0, "9", "a success begins the count anew");
}

#[test]
fn an_issuers_retry_after_is_heeded_to_its_bound() {
    assert_eq!(kept_for(1, Some(Span::from_secs(30))), Span::from_secs(30));
    assert_eq!(kept_for(9, Some(Span::from_secs(3))), TOKEN_FAILURE_KEPT_MAX);
    assert_eq!(kept_for(1, Some(TOKEN_RETRY_AFTER_MAX)), TOKEN_RETRY_AFTER_MAX);
    assert_eq!(kept_for(1, Some(Span::from_secs(u64::MAX / 1_000))), TOKEN_RETRY_AFTER_MAX);
    assert_eq!(kept_for(u32::MAX, None), TOKEN_FAILURE_KEPT_MAX);
}

#[tokio::test]
async fn a_failed_refresh_leaves_the_old_token_in_use() {
    let rig = Rig::new();
    rig.good().await;
    rig.hand.advance(85 * SEC);
    assert_eq!(rig.get(false, Some(down(Some(60)))).await.unwrap(), told("1", false));
    assert_eq!(rig.get(false, None).await.unwrap(), told("1", false), "and the issuer alone");
    assert_eq!(rig.count(), 2);
    rig.hand.advance(6 * SEC);
    let failure = rig.get(false, None).await.unwrap_err();
    assert_eq!(
        failure.until.saturating_sub(rig.clock.now().mono),
        54 * SEC,
        "the old one is over, and the issuer is not asked yet"
    );
}

#[tokio::test]
async fn exactly_the_token_that_was_refused_is_forgotten() {
    let rig = Rig::new();
    let (name, how) = (audience("a"), How { fresh: false, unit: 0.0 });
    let refused = rig.cache.get(&name, &rig.clock, how, rig.fetch(None)).await.unwrap();
    rig.cache.forget(&name, &refused.token);
    assert_eq!(rig.good().await, told("2", true));
    rig.cache.forget(&name, &refused.token);
    assert_eq!(rig.good().await, told("2", false), "another one has taken its place");
}

#[tokio::test]
async fn one_that_is_to_be_fresh_is_young_or_fetched() {
    let rig = Rig::new();
    rig.good().await;
    rig.hand.advance(TOKEN_FRESH_MAX.to_duration());
    assert_eq!(rig.get(true, None).await.unwrap(), told("1", true));
    rig.hand.advance(Duration::from_millis(1));
    assert_eq!(rig.get(true, None).await.unwrap(), told("2", true));
}

#[tokio::test]
async fn audiences_are_bounded_and_the_one_not_asked_for_longest_makes_room() {
    let rig = Rig::new();
    let get = |n: usize| {
        let (name, how) = (audience(&n.to_string()), How { fresh: false, unit: 0.0 });
        let (cache, clock, fetch) = (rig.cache.clone(), rig.clock.clone(), rig.fetch(None));
        async move { cache.get(&name, &clock, how, fetch).await.unwrap().was_there }
    };
    for n in 0..TOKEN_AUDIENCES_MAX {
        assert!(!get(n).await);
    }
    assert!(get(0).await, "they all fit");
    assert!(!get(TOKEN_AUDIENCES_MAX).await);
    assert!(get(0).await && !get(1).await, "1 had not been asked for longest");
    assert_eq!(rig.cache.lock().by_audience.len(), TOKEN_AUDIENCES_MAX);
}
