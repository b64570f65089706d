//! Failed authentication, limited by address: guessing is slow, and costs us a bounded amount of memory.
//!
//! Only failures are counted, and only failures are refused: whoever has a correct secret is never asked to wait,
//! whatever others did from the same address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::task::limits::{AUTH_FAILURE_EVERY, AUTH_FAILURE_SOURCES_MAX, AUTH_FAILURES_BURST};

/// From where failures come: one IPv4 address, or an IPv6 network of 64 bits (what one subscriber is given, RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(u32),
    V6(u64),
    /// All those for whom there is no room any more.
    Others,
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6(network(v6)),
        }
    }
}

/// The upper 64 bits.
fn network(v6: Ipv6Addr) -> u64 {
    let [a, b, c, d, ..] = v6.segments();
    [a, b, c, d].into_iter().fold(0, |bits, part| (bits << 16) | u64::from(part))
}

/// Who failed lately. [`AUTH_FAILURES_BURST`] failures at once, then one every [`AUTH_FAILURE_EVERY`].
#[derive(Debug, Default)]
pub struct FailureLimit {
    /// For each source the moment (monotonic) at which nothing would be left of its failures: the generic cell rate
    /// algorithm (ITU-T I.371), one number each.
    clear_at: BTreeMap<Source, Duration>,
}

impl FailureLimit {
    /// Counts a failure from `address` at `now`. False when there were too many: it is then not counted, so that the
    /// wait never grows beyond [`AUTH_FAILURE_EVERY`].
    pub fn admits(&mut self, address: IpAddr, now: Duration) -> bool {
        let every = AUTH_FAILURE_EVERY.to_duration();
        let source = self.place(Source::of(address), now);
        let clear_at = self.clear_at.get(&source).copied().unwrap_or_default().max(now) + every;
        if clear_at.saturating_sub(now) > every * AUTH_FAILURES_BURST {
            return false;
        }
        self.clear_at.insert(source, clear_at);
        true
    }

    /// The source itself if there is room for it. When there is none, those whose failures are forgotten make room; if
    /// there are none such, all further sources are counted as one.
    fn place(&mut self, source: Source, now: Duration) -> Source {
        if self.clear_at.contains_key(&source) || self.clear_at.len() < AUTH_FAILURE_SOURCES_MAX {
            return source;
        }
        // At most once in a step of the algorithm: looking through all of them is work that a guesser could ask for.
        if self.clear_at.get(&Source::Others).is_none_or(|clear_at| *clear_at <= now) {
            self.clear_at.retain(|_, clear_at| *clear_at > now);
        }
        if self.clear_at.len() < AUTH_FAILURE_SOURCES_MAX { source } else { Source::Others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const EVERY: Duration = AUTH_FAILURE_EVERY.to_duration();

    fn burst(limit: &mut FailureLimit, address: IpAddr, now: Duration) -> u32 {
        (0..AUTH_FAILURES_BURST + 5).map(|_| u32::from(limit.admits(address, now))).sum()
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let mut limit = FailureLimit::default();
        let start = Duration::from_secs(1_000);
        assert_eq!(burst(&mut limit, ip("192.0.2.1"), start), AUTH_FAILURES_BURST);
        assert!(!limit.admits(ip("192.0.2.1"), start + EVERY / 2));
        assert!(limit.admits(ip("192.0.2.1"), start + EVERY));
        assert!(!limit.admits(ip("192.0.2.1"), start + EVERY), "a refused one does not count, an admitted one does");
        let later = start + EVERY * (AUTH_FAILURES_BURST + 1);
        assert_eq!(burst(&mut limit, ip("192.0.2.1"), later), AUTH_FAILURES_BURST, "all is forgotten");
    }

    #[test]
    fn sources_are_apart_and_a_network_of_64_bits_is_one() {
        let mut limit = FailureLimit::default();
        let now = Duration::ZERO;
        assert_eq!(burst(&mut limit, ip("2001:db8:0:1::1"), now), AUTH_FAILURES_BURST);
        assert!(!limit.admits(ip("2001:db8:0:1:ffff::2"), now), "the same network");
        assert!(limit.admits(ip("2001:db8:0:2::1"), now), "another network");
        assert_eq!(burst(&mut limit, ip("192.0.2.1"), now), AUTH_FAILURES_BURST);
        assert!(!limit.admits(ip("::ffff:192.0.2.1"), now), "the same address, written as IPv6");
        assert!(limit.admits(ip("192.0.2.2"), now));
    }

    #[test]
    fn memory_is_bounded_and_the_forgotten_make_room() {
        let mut limit = FailureLimit::default();
        let number = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..AUTH_FAILURE_SOURCES_MAX {
            assert!(limit.admits(number(n), Duration::ZERO));
        }
        let further: u32 = (0..100).map(|n| u32::from(limit.admits(number(1 << 24 | n), Duration::ZERO))).sum();
        assert_eq!(further, AUTH_FAILURES_BURST, "all further sources are one");
        assert_eq!(limit.clear_at.len(), AUTH_FAILURE_SOURCES_MAX + 1);
        let later = EVERY * (AUTH_FAILURES_BURST + 1);
        assert!(limit.admits(ip("192.0.2.1"), later));
        assert_eq!(limit.clear_at.len(), 1);
    }
}
