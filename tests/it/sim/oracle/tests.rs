//! The oracle itself: sequences of facts made by hand, each with one promise broken, and its innocent twin.

use sendoff::task::retry::StopWhen;
use sendoff::task::{RetryPolicy, Span, Status, TaskKey, WallMs, When};

use super::*;

/// What the wall clock shows in the beginning.
const WALL: i64 = 1_790_000_000_000;
const EPOCH: u32 = 1;

/// An oracle that has seen a process open a store, with one task in it after another.
struct Story {
    oracle: Oracle,
    skew: i64,
}

fn key(number: i64) -> TaskKey {
    TaskKey::from_i64(number).unwrap()
}

fn limits(rate: Option<f64>, concurrent: u32, host: u32) -> Limits {
    let queue = QueueLimits { rate, burst: 1, concurrent };
    let queues = BTreeMap::from([("q".to_owned(), queue)]);
    Limits { workers: 10, host, hosts: BTreeMap::new(), queues, unnamed: queue }
}

fn ask(when: When) -> Ask {
    let policy = RetryPolicy { max_attempts: 2, jitter: 0.0, ..RetryPolicy::default() };
    Ask { queue: "q".to_owned(), host: "h".to_owned(), when, policy, expires_at: None, by_name: false }
}

fn record(number: i64, status: Status, epoch: u32) -> Record {
    Record {
        key: key(number),
        ask: Some(number.unsigned_abs()),
        status,
        series: 1,
        attempts: 0,
        epoch,
        due: WALL,
        on_wall: false,
        ahead: false,
    }
}

impl Story {
    fn under(limits: Limits) -> Self {
        let mut story = Self { oracle: Oracle::default(), skew: 0 };
        story.at(0, Fact::Opened(limits));
        story
    }

    fn new() -> Self {
        Self::under(limits(None, 10, 10))
    }

    fn at(&mut self, at: i64, fact: Fact) -> &mut Self {
        self.oracle.hear(Moment { at, wall: WALL + at + self.skew }, fact);
        self
    }

    /// A client asks, the task is committed, and the client is told.
    fn accept(&mut self, at: i64, number: i64, asked: Ask) -> &mut Self {
        let wish = number.unsigned_abs();
        self.at(at, Fact::Asked(wish, Box::new(asked)))
            .at(at, Fact::Written(record(number, Status::Queued, EPOCH)))
            .at(at, Fact::Acknowledged(wish, key(number)))
    }

    fn accepted() -> Self {
        let mut story = Self::new();
        story.accept(0, 1, ask(When::Now));
        story
    }

    /// An attempt starts: it is committed under this epoch, and the target gets a request.
    fn start(&mut self, at: i64, number: i64, (epoch, attempts): (u32, u32)) -> &mut Self {
        self.at(at, Fact::Turn)
            .at(at, Fact::Written(Record { attempts, ..record(number, Status::Running, epoch) }))
            .at(at, Fact::Started(key(number), epoch))
    }

    /// An attempt is over, and the task goes on as `status` under the next epoch.
    fn settle(&mut self, at: i64, number: i64, (epoch, attempts): (u32, u32), to: (Heard, Status)) -> &mut Self {
        self.at(at, Fact::Turn)
            .at(at, Fact::Settled(key(number), epoch, to.0))
            .at(at, Fact::Written(Record { attempts, ..record(number, to.1, epoch + 1) }))
    }

    /// The first violation, or nothing: what was written last is what the store holds.
    fn verdict(&mut self) -> String {
        self.oracle.violations.first().cloned().unwrap_or_default()
    }

    fn finish(self, stored: &[Record]) -> String {
        self.oracle.finish(stored).first().cloned().unwrap_or_default()
    }
}

const FAILED: (Heard, Status) = (Heard::Retry(0), Status::Retrying);
const DONE: (Heard, Status) = (Heard::Done, Status::Succeeded);

#[track_caller]
fn caught(verdict: &str, words: &str) {
    assert!(verdict.contains(words), "`{words}` was to be found, not `{verdict}`");
}

#[track_caller]
fn innocent(verdict: &str) {
    assert_eq!(verdict, "");
}

#[test]
fn a_whole_innocent_life() {
    let mut story = Story::accepted();
    story.start(0, 1, (2, 1)).settle(500, 1, (2, 1), FAILED).start(1_500, 1, (4, 2)).settle(1_600, 1, (4, 2), DONE);
    innocent(&story.finish(&[Record { attempts: 2, ..record(1, Status::Succeeded, 5) }]));
}

#[test]
fn early_by_a_delay_a_backoff_and_a_moment() {
    let delayed = |start| {
        let mut story = Story::new();
        story.accept(0, 1, ask(When::Delay(Span::from_secs(5)))).start(start, 1, (2, 1));
        story.verdict()
    };
    caught(&delayed(4_999), "early");
    innocent(&delayed(5_000));

    let retried = |start| {
        let mut story = Story::accepted();
        story.start(0, 1, (2, 1)).settle(100, 1, (2, 1), (Heard::Retry(7_000), Status::Retrying));
        story.start(start, 1, (4, 2)).verdict()
    };
    caught(&retried(7_099), "early");
    innocent(&retried(7_100));

    let given_a_moment = |start, skew| {
        let mut story = Story::new();
        story.accept(0, 1, ask(When::At(WallMs::new(WALL + 9_000))));
        story.skew = skew;
        story.start(start, 1, (2, 1)).verdict()
    };
    caught(&given_a_moment(8_999, 0), "early");
    caught(&given_a_moment(9_000, -1_000), "early");
    innocent(&given_a_moment(9_000, 0));
    innocent(&given_a_moment(1, 86_400_000));
}

#[test]
fn a_delay_does_not_begin_again_after_a_crash() {
    let restarted = |crash, start, skew| {
        let mut story = Story::new();
        story.accept(0, 1, ask(When::Delay(Span::from_secs(5)))).at(crash, Fact::Turn).at(crash, Fact::Crashed);
        story.skew = skew;
        story.at(crash + 100, Fact::Opened(limits(None, 10, 10))).start(start, 1, (2, 1)).verdict()
    };
    innocent(&restarted(1_000, 5_000, 0));
    caught(&restarted(1_000, 4_000, 0), "early");
    // By the clock that the next process has.
    innocent(&restarted(1_000, 1_200, 3_600_000));
    // Its moment had been reached: whatever the clock shows now, that is so.
    innocent(&restarted(6_000, 6_200, -3_600_000));
    caught(&restarted(1_000, 5_000, -3_600_000), "early");
}

#[test]
fn twice_live() {
    let mut story = Story::accepted();
    story.start(0, 1, (2, 1));
    let mut twin = Story::accepted();
    twin.start(0, 1, (2, 1)).settle(100, 1, (2, 1), FAILED).start(1_100, 1, (4, 2));
    innocent(&twin.verdict());
    caught(&story.at(5_000, Fact::Started(key(1), 2)).verdict(), "two live leases");
}

#[test]
fn lost() {
    caught(&Story::accepted().finish(&[]), "acknowledged and lost");
    let mut unanswered = Story::new();
    unanswered.at(0, Fact::Asked(1, Box::new(ask(When::Now))));
    innocent(&unanswered.finish(&[]));
    let mut crashed = Story::accepted();
    crashed.at(1, Fact::Crashed);
    innocent(&crashed.at(2, Fact::Found(vec![record(1, Status::Queued, EPOCH)])).verdict());
    caught(&crashed.at(2, Fact::Found(vec![record(1, Status::Queued, 7)])).verdict(), "written as");
}

#[test]
fn invented() {
    let mut story = Story::accepted();
    caught(&story.at(1, Fact::Written(record(2, Status::Queued, 1))).verdict(), "nobody asked for it");
    let mut twice = Story::accepted();
    let again = Record { key: key(9), ..record(1, Status::Queued, 1) };
    caught(&twice.at(1, Fact::Written(again)).verdict(), "already");
    let purged = |by_name| {
        let mut story = Story::new();
        story.accept(0, 1, Ask { by_name, ..ask(When::Now) });
        story.start(0, 1, (2, 1)).settle(10, 1, (2, 1), (Heard::Permanent, Status::Dead));
        story.at(15, Fact::Wished(Wish::Purge, key(1))).at(20, Fact::Removed(key(1)));
        story.at(30, Fact::Written(Record { key: key(9), ..record(1, Status::Queued, 1) })).verdict()
    };
    caught(&purged(false), "already");
    innocent(&purged(true));
    let mut refused = Story::new();
    refused.at(0, Fact::Asked(1, Box::new(ask(When::Now)))).at(0, Fact::Refused(1));
    caught(&refused.at(1, Fact::Written(record(1, Status::Queued, 1))).verdict(), "refused, and accepted");
    let mut asked_again = Story::new();
    asked_again.at(0, Fact::Asked(1, Box::new(ask(When::Now)))).at(0, Fact::Refused(1));
    innocent(&asked_again.accept(1, 1, ask(When::Now)).verdict());
    caught(&Story::new().finish(&[record(3, Status::Dead, 1)]), "invented");
}

#[test]
fn two_ends_and_changes_after_the_end() {
    let ended = || {
        let mut story = Story::accepted();
        story.start(0, 1, (2, 1)).settle(10, 1, (2, 1), (Heard::Permanent, Status::Dead));
        story
    };
    caught(&ended().at(20, Fact::Written(record(1, Status::Succeeded, 4))).verdict(), "after its end");
    let redriven = Record { series: 2, ..record(1, Status::Queued, 4) };
    caught(&ended().at(20, Fact::Written(redriven.clone())).verdict(), "after its end");
    innocent(&ended().at(15, Fact::Wished(Wish::Redrive, key(1))).at(20, Fact::Written(redriven)).verdict());
    caught(&ended().at(20, Fact::Removed(key(1))).verdict(), "removed");
    innocent(&ended().at(15, Fact::Wished(Wish::Purge, key(1))).at(20, Fact::Removed(key(1))).verdict());
}

#[test]
fn an_end_that_nothing_led_to() {
    let ended = |told: Option<Heard>, status| {
        let mut story = Story::accepted();
        story.start(0, 1, (2, 1));
        if let Some(heard) = told {
            story.at(10, Fact::Settled(key(1), 2, heard));
        }
        story.at(10, Fact::Written(Record { attempts: 1, ..record(1, status, 3) })).verdict()
    };
    caught(&ended(None, Status::Succeeded), "nothing that was seen");
    caught(&ended(Some(Heard::Retry(0)), Status::Succeeded), "nothing that was seen");
    innocent(&ended(Some(Heard::Done), Status::Succeeded));
    caught(&ended(Some(Heard::Retry(0)), Status::Dead), "nothing that was seen");
    innocent(&ended(Some(Heard::Permanent), Status::Dead));
    caught(&ended(None, Status::Cancelled), "nothing that was seen");
    caught(&ended(Some(Heard::Retry(0)), Status::Expired), "nothing that was seen");
}

#[test]
fn more_requests_than_attempts() {
    let after_two = |policy: RetryPolicy, start| {
        let mut story = Story::new();
        story.accept(0, 1, Ask { policy, ..ask(When::Now) });
        story.start(0, 1, (2, 1)).settle(10, 1, (2, 1), FAILED).start(1_010, 1, (4, 2));
        story.settle(1_020, 1, (4, 2), FAILED).start(start, 1, (6, 3)).verdict()
    };
    let any = RetryPolicy { max_attempts: 2, jitter: 0.0, ..RetryPolicy::default() };
    caught(&after_two(any.clone(), 9_000), "request after 2 of 2");
    innocent(&after_two(RetryPolicy { max_attempts: 3, ..any.clone() }, 9_000));
    let short = RetryPolicy { max_attempts: 9, max_retry_duration: Some(Span::from_secs(5)), ..any };
    caught(&after_two(short.clone(), 9_000), "request after 2 of 9");
    innocent(&after_two(short.clone(), 4_000));
    let all = RetryPolicy { max_attempts: 2, stop_when: StopWhen::All, ..short };
    caught(&after_two(all.clone(), 9_000), "request after 2 of 2");
    innocent(&after_two(all, 4_000));
}

#[test]
fn a_window_sees_more_than_burst_and_rate_allow() {
    let starts = |second: i64| {
        let mut story = Story::under(limits(Some(0.5), 10, 10));
        for number in 1..=3 {
            story.accept(0, number, ask(When::Now));
        }
        story.start(2_000, 1, (2, 1)).start(4_000, 2, (2, 1)).start(4_000 + second, 3, (2, 1)).verdict()
    };
    caught(&starts(1_999), "starts from");
    innocent(&starts(2_000));
}

#[test]
fn more_at_one_time_than_queue_host_and_workers_allow() {
    let two = |limits: Limits| {
        let mut story = Story::under(limits);
        story.accept(0, 1, ask(When::Now)).accept(0, 2, ask(When::Now));
        story.start(0, 1, (2, 1)).start(0, 2, (2, 1)).verdict()
    };
    caught(&two(limits(None, 1, 10)), "at one time in `q`");
    caught(&two(limits(None, 10, 1)), "at one time against h");
    caught(&two(Limits { workers: 1, ..limits(None, 10, 10) }), "workers");
    innocent(&two(Limits { workers: 2, ..limits(None, 2, 2) }));

    let mut lowered = Story::new();
    lowered.accept(0, 1, ask(When::Now)).start(0, 1, (2, 1)).at(1, Fact::Limits(limits(None, 1, 1)));
    innocent(&lowered.verdict());
    caught(&lowered.accept(2, 2, ask(When::Now)).start(2, 2, (2, 1)).verdict(), "at one time");

    let mut paused = Story::accepted();
    paused.at(0, Fact::Paused("q".to_owned(), true));
    caught(&paused.start(1, 1, (2, 1)).verdict(), "paused");
    let mut resumed = Story::accepted();
    resumed.at(0, Fact::Paused("q".to_owned(), true)).at(1, Fact::Paused("q".to_owned(), false));
    innocent(&resumed.start(2, 1, (2, 1)).verdict());
}

#[test]
fn due_and_unblocked_and_not_started_within_a_minute() {
    let waits = |story: &mut Story, until: i64| {
        for second in 0..=until {
            story.at(second * 1_000, Fact::Turn);
        }
        story.verdict()
    };
    caught(&waits(&mut Story::accepted(), 70), "not started");
    innocent(&waits(&mut Story::accepted(), 59));
    innocent(&waits(Story::accepted().at(0, Fact::Paused("q".to_owned(), true)), 300));
    let mut full = Story::under(limits(None, 10, 1));
    full.accept(0, 1, ask(When::Now)).accept(0, 2, ask(When::Now)).start(0, 1, (2, 1));
    innocent(&waits(&mut full, 300));
    innocent(&waits(Story::under(limits(Some(0.001), 10, 10)).accept(0, 1, ask(When::Now)), 900));
    let mut late = Story::new();
    innocent(&waits(late.accept(0, 1, ask(When::Delay(Span::from_secs(200)))), 255));
    caught(&waits(&mut late, 275), "not started");
    let mut overdue = Story::new();
    overdue.accept(0, 1, Ask { expires_at: Some(WALL + 1_000), ..ask(When::Now) });
    caught(&waits(overdue.at(0, Fact::Paused("q".to_owned(), true)), 90), "expired a minute ago");
}

#[test]
fn nothing_expires_on_a_clock_that_has_just_jumped() {
    let expired = |at| {
        let mut story = Story::new();
        story.accept(0, 1, Ask { expires_at: Some(WALL + 3_000_000), ..ask(When::Now) });
        story.skew = 3_600_000;
        story.at(1_000, Fact::Turn).at(at, Fact::Written(record(1, Status::Expired, 2))).verdict()
    };
    caught(&expired(60_999), "nothing that was seen");
    innocent(&expired(61_000));
}

#[test]
fn an_engine_that_spins() {
    let turns = |step: i64, idle: bool| {
        let mut story = Story::new();
        for turn in 0..1_000 {
            story.at(turn * step, Fact::Turn);
            if idle {
                story.at(turn * step, Fact::Idle);
            }
        }
        story.verdict()
    };
    caught(&turns(0, false), "without time moving");
    caught(&turns(1, true), "idle turns");
    innocent(&turns(1, false));
    innocent(&turns(1_000, true));
}
