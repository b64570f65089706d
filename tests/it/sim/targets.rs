//! The targets: hosts that work, fail, hang, dawdle, flap or ask for patience, as the seed says.

use std::time::Duration;

use bytes::Bytes;
use sendoff::clock::Chance;
use sendoff::task::{Outcome, OutcomeClass, Span};

use super::oracle::Heard;

/// Hosts there are; their lanes are `http://host0:80` and so on.
pub(super) const HOSTS: u64 = 7;

/// What a host is like.
#[derive(Debug, Clone, Copy)]
enum Temper {
    Works,
    Fails,
    Hangs,
    Dawdles,
    /// Works for so many milliseconds, then fails for as many.
    Flaps(i64),
    /// Answers 429 to most, with `Retry-After`.
    Busy,
    /// A bit of everything.
    Moody,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Targets {
    chance: Chance,
    tempers: Vec<Temper>,
}

impl Targets {
    pub(super) fn new(mut chance: Chance) -> Self {
        let mut temper = || match chance.below(9) {
            0 => Temper::Fails,
            1 => Temper::Hangs,
            2 => Temper::Dawdles,
            3 => Temper::Flaps(20_000 + i64::try_from(chance.below(600_000)).unwrap()),
            4 => Temper::Busy,
            5 | 6 => Temper::Moody,
            _ => Temper::Works,
        };
        let tempers = (0..HOSTS).map(|_| temper()).collect();
        Self { chance, tempers }
    }

    pub(super) fn lane(host: u64) -> String {
        format!("http://host{host}:80")
    }

    /// What comes of a request at `at` with this deadline, and after how many milliseconds.
    pub(super) fn answer(&mut self, lane: &str, at: i64, timeout: u64) -> (Outcome, u64) {
        let host = (0..HOSTS).find(|host| Self::lane(*host) == lane).unwrap_or(0);
        let temper = self.tempers[usize::try_from(host).unwrap()];
        let mood = self.chance.below(100);
        let quick = 1 + self.chance.below(800);
        match temper {
            _ if mood < 2 => without(OutcomeClass::Released, "not sent", quick),
            _ if mood < 4 => answered(404, quick),
            Temper::Works => answered(200, quick),
            Temper::Fails if mood < 80 => answered(500 + u16::try_from(mood % 5).unwrap(), quick),
            Temper::Hangs if mood < 60 => without(OutcomeClass::TimeoutBeforeHeaders, "hung", timeout),
            Temper::Dawdles => {
                let took = 5_000 + self.chance.below(40_000);
                if took < timeout {
                    answered(200, took)
                } else {
                    without(OutcomeClass::TimeoutBody, "dawdled", timeout)
                }
            }
            Temper::Flaps(period) if at / period % 2 == 1 => without(OutcomeClass::Connect, "refused", quick / 10),
            Temper::Busy if mood < 70 => {
                let (outcome, took) = answered(if mood < 60 { 429 } else { 503 }, quick);
                let wait = self.chance.below(400);
                (Outcome { retry_after: (wait < 300).then(|| Span::from_secs(wait)), ..outcome }, took)
            }
            Temper::Moody if mood < 15 => answered(500, quick),
            Temper::Moody if mood < 25 => without(OutcomeClass::Reset, "reset", quick),
            Temper::Moody if mood < 28 => without(OutcomeClass::Dns, "no such host", quick),
            Temper::Moody if mood < 30 => answered(302, quick),
            Temper::Fails | Temper::Hangs | Temper::Flaps(_) | Temper::Busy | Temper::Moody => answered(204, quick),
        }
    }

    /// What comes of a request that is cut off.
    pub(super) fn cut_off(&mut self) -> (Outcome, u64) {
        let class = if self.chance.below(4) == 0 { OutcomeClass::Released } else { OutcomeClass::Interrupted };
        without(class, "aborted", 1 + self.chance.below(1_500))
    }
}

/// What the promise makes of an outcome, worked out anew for the oracle.
pub(super) fn heard(outcome: &Outcome) -> Heard {
    let asked = outcome.retry_after.map_or(0, |span| i64::try_from(span.as_millis()).unwrap());
    match (outcome.class, outcome.http_status) {
        (OutcomeClass::Released, _) => Heard::Released,
        (_, Some(200..=299)) => Heard::Done,
        (_, Some(408 | 409 | 425 | 429 | 500..=599) | None) => Heard::Retry(asked),
        (_, Some(_)) => Heard::Permanent,
    }
}

fn answered(status: u16, took: u64) -> (Outcome, u64) {
    (Outcome::answered(status, Bytes::new(), Duration::from_millis(took)), took)
}

fn without(class: OutcomeClass, why: &str, took: u64) -> (Outcome, u64) {
    (Outcome::without_answer(class, why, Duration::from_millis(took)), took)
}
