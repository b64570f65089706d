//! The store's threads over shuttle: `line`, `requests` and `readers` as they are in the server, with a scheduler's
//! primitives in place of the system's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Plain};

use sendoff::queue::store::{CommitError, StoreError};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, future, rand::Rng, thread};

use super::{orders, seed};

/// What the store's files find as `super::sync`.
mod sync {
    pub(super) use shuttle::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

#[path = "../../../src/queue/store/sqlite/line.rs"]
mod line;
#[path = "../../../src/queue/store/sqlite/readers.rs"]
mod readers;
#[path = "../../../src/queue/store/sqlite/requests.rs"]
mod requests;

use line::{Failure, Line, Work, line, serve};
use readers::Readers;
use requests::Requests;

/// Who does something wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nobody,
    /// The writer answers, then writes.
    AnswersFirst,
    /// The writer goes on after a commit of which nothing is known.
    ForgetsFailure,
    /// Whoever closes does it past the line.
    ClosesPastTheLine,
    /// A checkpointer that fails tells nobody that it has gone.
    GoesSilently,
    /// The checkpointer looks at what is written before it takes the request.
    LooksTooEarly,
    /// The pool of readers is not waited for.
    DoesNotWait,
}

/// Runs `scene` in many random orders, and in as many of few, far-reaching switches.
fn explore(name: &str, scene: impl Fn() + Send + Sync + Clone + 'static) {
    let count = usize::try_from(orders()).unwrap();
    Runner::new(RandomScheduler::new_from_seed(seed(), count), Config::new()).run(scene.clone());
    Runner::new(PctScheduler::new_from_seed(seed(), 3, count), Config::new()).run(scene);
    println!("FIGURES interleaving: {name}, {} orders, 0 violations, seed {}", 2 * count, seed());
}

/// Whether some order of `scene` breaks an assertion.
fn is_caught(scene: impl Fn() + Send + Sync + 'static) -> bool {
    let tried = RandomScheduler::new_from_seed(seed(), 2_000);
    catch_unwind(AssertUnwindSafe(|| Runner::new(tried, Config::new()).run(scene))).is_err()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A commit is durable.
    Written(u32),
    /// The store had failed by the end of that commit.
    Spoilt(u32),
    /// A commit failed; nothing is known of it.
    Failed,
    /// The stop was marked as clean.
    Clean,
}

/// What happened, in order. A plain lock: looking on is no step of the scene.
#[derive(Debug, Clone, Default)]
struct Record(Arc<Plain<Vec<Seen>>>);

impl Record {
    fn note(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    fn has(&self, seen: Seen) -> bool {
        self.0.lock().unwrap().contains(&seen)
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }
}

/// A disk in words. One commit may fail.
struct Disk {
    record: Record,
    failure: Arc<Failure>,
    requests: Arc<Requests>,
    fails_at: Option<u32>,
    late: Vec<u32>,
    wrong: Wrong,
}

impl Work<u32> for Disk {
    fn commit(&mut self, change: &u32) -> Result<(), CommitError> {
        thread::yield_now();
        if self.fails_at == Some(*change) {
            self.record.note(Seen::Failed);
            let forgets = self.wrong == Wrong::ForgetsFailure;
            return if forgets { Ok(()) } else { Err(CommitError::Unknown("the sync failed".into())) };
        }
        if self.wrong == Wrong::AnswersFirst {
            self.late.push(*change);
            return Ok(());
        }
        self.record.note(Seen::Written(*change));
        if self.failure.why().is_some() {
            self.record.note(Seen::Spoilt(*change));
        }
        Ok(())
    }

    fn after_commit(&mut self) {
        for change in self.late.drain(..) {
            thread::yield_now();
            self.record.note(Seen::Written(change));
        }
        if self.failure.why().is_some() {
            return;
        }
        if shuttle::rand::thread_rng().gen_bool(0.5) { self.requests.ask() } else { self.requests.ask_and_wait() }
    }

    fn has_idle_work(&self) -> bool {
        false
    }

    fn idle(&mut self) {}

    fn close(&mut self) -> Result<(), StoreError> {
        thread::yield_now();
        self.record.note(Seen::Clean);
        Ok(())
    }
}

/// The checkpointer as the server's, its checkpoint failing now and then.
fn checkpoints(requests: &Requests, failure: &Failure) {
    while let Some(ticket) = requests.next(false) {
        if !requests.is_open(ticket) {
            continue;
        }
        thread::yield_now();
        if shuttle::rand::thread_rng().gen_bool(0.1) {
            failure.note(String::from("a checkpoint failed"));
            requests.stop();
        } else {
            requests.finish(ticket);
        }
    }
}

const CALLERS: u32 = 3;
const COMMITS_EACH: u32 = 2;

/// A few callers, a writer, a checkpointer, and a store that is closed or dropped meanwhile.
fn commits(wrong: Wrong) {
    let (record, failure, requests) = (Record::default(), Arc::new(Failure::default()), Arc::new(Requests::default()));
    let (commands, inbox) = line();
    let doomed = shuttle::rand::thread_rng().gen_range(0..3 * CALLERS * COMMITS_EACH);
    let mut disk = Disk {
        record: record.clone(),
        failure: Arc::clone(&failure),
        requests: Arc::clone(&requests),
        fails_at: Some(doomed),
        late: Vec::new(),
        wrong,
    };
    let (seen, told) = (Arc::clone(&failure), Arc::clone(&requests));
    let writer = thread::spawn(move || {
        if !serve(&mut disk, &seen, &inbox) {
            told.stop();
        }
    });
    let (seen, asked) = (Arc::clone(&failure), Arc::clone(&requests));
    let checkpointer = thread::spawn(move || checkpoints(&asked, &seen));
    let line = Arc::new(Line::new(commands, vec![writer, checkpointer]));
    let callers: Vec<_> = (0..CALLERS).map(|caller| calls(caller, &line, &record)).collect();
    let closed = if shuttle::rand::thread_rng().gen_bool(0.7) {
        Some(close(&line, &requests, &record, wrong))
    } else {
        drop_store(&line, &requests);
        None
    };
    for caller in callers {
        caller.join().unwrap();
    }
    judge(&record.all(), closed);
}

/// One caller: each of its commits gets exactly one answer, and what is acknowledged is there and sound.
fn calls(caller: u32, line: &Arc<Line<u32, Vec<thread::JoinHandle<()>>>>, record: &Record) -> thread::JoinHandle<()> {
    let (line, record) = (Arc::clone(line), record.clone());
    thread::spawn(move || {
        for change in (caller * COMMITS_EACH..).take(COMMITS_EACH as usize) {
            let Some(answer) = line.commit(change) else { continue };
            if shuttle::rand::thread_rng().gen_bool(0.2) {
                // It no longer waits. The commit stands or falls without it.
                continue;
            }
            match future::block_on(answer) {
                Ok(Ok(())) => {
                    assert!(record.has(Seen::Written(change)), "{change} was acknowledged and is not there");
                    assert!(!record.has(Seen::Spoilt(change)), "{change} was acknowledged after the failure");
                }
                Ok(Err(error)) => assert!(matches!(error, CommitError::Unknown(_)), "{error}"),
                Err(_gone) => assert!(!record.has(Seen::Written(change)), "{change} was written, and nobody was told"),
            }
        }
    })
}

/// As `SqliteStore::close` does it.
fn close(
    line: &Line<u32, Vec<thread::JoinHandle<()>>>,
    requests: &Requests,
    record: &Record,
    wrong: Wrong,
) -> Result<(), StoreError> {
    let open = line.take().expect("nobody else closes it");
    requests.stop();
    let closed = if wrong == Wrong::ClosesPastTheLine {
        record.note(Seen::Clean);
        Ok(())
    } else {
        let answer = open.close().expect("the writer is there");
        future::block_on(answer).expect("the writer answers")
    };
    for thread in open.cut() {
        thread.join().unwrap();
    }
    closed
}

/// As the store's `Drop` does it.
fn drop_store(line: &Line<u32, Vec<thread::JoinHandle<()>>>, requests: &Requests) {
    let open = line.take().expect("nobody else closes it");
    requests.stop();
    for thread in open.cut() {
        thread.join().unwrap();
    }
}

fn judge(seen: &[Seen], closed: Option<Result<(), StoreError>>) {
    let at = |wanted: Seen| seen.iter().position(|seen| *seen == wanted);
    let last_write = seen.iter().rposition(|seen| matches!(seen, Seen::Written(_)));
    if let Some(clean) = at(Seen::Clean) {
        assert!(last_write.is_none_or(|write| write < clean), "closed before the last commit: {seen:?}");
        assert!(at(Seen::Failed).is_none(), "a failed store was closed as a clean one: {seen:?}");
    }
    if let Some(failed) = at(Seen::Failed) {
        assert!(last_write.is_none_or(|write| write < failed), "written after the failure: {seen:?}");
    }
    let clean = at(Seen::Clean).is_some();
    assert_eq!(closed.is_some_and(|closed| closed.is_ok()), clean, "what was told of the stop: {seen:?}");
    for change in 0..CALLERS * COMMITS_EACH {
        let times = seen.iter().filter(|seen| **seen == Seen::Written(change)).count();
        assert!(times <= 1, "{change} was written {times} times");
    }
}

fn tells(requests: &Requests, wrong: Wrong) {
    if wrong != Wrong::GoesSilently {
        requests.stop();
    }
}

/// Two who wait for a checkpoint of what they wrote, and somebody who stops the checkpointer.
fn waits(wrong: Wrong) {
    let requests = Arc::new(Requests::default());
    let (written, covered, stopped) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (asked, source, done, gone) =
        (Arc::clone(&requests), Arc::clone(&written), Arc::clone(&covered), Arc::clone(&stopped));
    let checkpointer = thread::spawn(move || {
        let mut early = 0;
        while let Some(ticket) = asked.next(false) {
            if !asked.is_open(ticket) {
                continue;
            }
            if shuttle::rand::thread_rng().gen_bool(0.1) {
                // Its checkpoint fails, and it ends.
                gone.store(true, Ordering::SeqCst);
                // Without the stop, whoever waits would wait for ever.
                return tells(&asked, wrong);
            }
            let now = source.load(Ordering::SeqCst);
            done.store(if wrong == Wrong::LooksTooEarly { early } else { now }, Ordering::SeqCst);
            thread::yield_now();
            early = now;
            asked.finish(ticket);
        }
    });
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (requests, written, covered) = (Arc::clone(&requests), Arc::clone(&written), Arc::clone(&covered));
            let stopped = Arc::clone(&stopped);
            thread::spawn(move || {
                for _ in 0..2 {
                    let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                    requests.ask_and_wait();
                    let there = covered.load(Ordering::SeqCst);
                    assert!(there >= mine || stopped.load(Ordering::SeqCst), "{mine} waited for, {there} covered");
                }
            })
        })
        .collect();
    thread::yield_now();
    if shuttle::rand::thread_rng().gen_bool(0.3) {
        stopped.store(true, Ordering::SeqCst);
        requests.stop();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    requests.stop();
    checkpointer.join().unwrap();
}

/// Two connections, three who read, and somebody who closes the pool.
fn reads(wrong: Wrong) {
    let readers = Arc::new(Readers::new(vec![Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))]));
    let (reading, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (readers, reading, closed) = (Arc::clone(&readers), Arc::clone(&reading), Arc::clone(&closed));
            thread::spawn(move || {
                for _ in 0..2 {
                    read_once(&readers, &reading, &closed);
                }
            })
        })
        .collect();
    if wrong != Wrong::DoesNotWait {
        assert!(future::block_on(readers.close(2)), "nobody closed it before");
    }
    closed.store(true, Ordering::SeqCst);
    assert_eq!(reading.load(Ordering::SeqCst), 0, "closed in the middle of a read");
    for thread in threads {
        thread.join().unwrap();
    }
}

fn read_once(readers: &Arc<Readers<Arc<AtomicBool>>>, reading: &AtomicU64, closed: &AtomicBool) {
    let late = closed.load(Ordering::SeqCst);
    let Some(lent) = future::block_on(Arc::clone(readers).lend()) else {
        // Either it was closed, or a permit came without a connection.
        assert!(!future::block_on(readers.close(2)), "refused while it is open");
        return;
    };
    assert!(!late, "lent after it was closed");
    let conn = lent.conn().expect("a loan has a connection");
    assert!(!conn.swap(true, Ordering::SeqCst), "two reads on one connection");
    reading.fetch_add(1, Ordering::SeqCst);
    thread::yield_now();
    reading.fetch_sub(1, Ordering::SeqCst);
    conn.store(false, Ordering::SeqCst);
}

#[test]
fn every_commit_is_answered_once_and_none_is_acknowledged_after_a_failure() {
    explore("commits", || commits(Wrong::Nobody));
}

#[test]
fn whoever_waits_for_a_checkpoint_gets_one_of_what_was_written_before() {
    explore("checkpoints", || waits(Wrong::Nobody));
}

#[test]
fn a_connection_serves_one_read_at_a_time_and_none_once_the_pool_is_closed() {
    explore("readers", || reads(Wrong::Nobody));
}

#[test]
fn each_wrong_variant_is_caught() {
    for wrong in [Wrong::AnswersFirst, Wrong::ForgetsFailure, Wrong::ClosesPastTheLine] {
        assert!(is_caught(move || commits(wrong)), "{wrong:?} went unnoticed");
    }
    for wrong in [Wrong::GoesSilently, Wrong::LooksTooEarly] {
        assert!(is_caught(move || waits(wrong)), "{wrong:?} went unnoticed");
    }
    assert!(is_caught(|| reads(Wrong::DoesNotWait)), "a close that does not wait went unnoticed");
}
