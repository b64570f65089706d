//! The line to the thread that writes: commits go in one by one, each gets exactly one answer, and after a failure
//! none is acknowledged any more.

use std::time::Duration;

use tokio::sync::oneshot;

use super::sync::{Mutex, PoisonError, Receiver, RecvTimeoutError, SyncSender, sync_channel};
use super::{CommitError, StoreError};

/// Commits handed over and not yet begun. The engine has one under way at a time; a caller with more waits.
const COMMITS_QUEUED_MAX: usize = 64;
/// How long nobody may have committed before idle time is used.
const IDLE: Duration = Duration::from_millis(100);

/// Why nothing may be committed any more, once there is such a reason.
#[derive(Debug, Default)]
pub(super) struct Failure(Mutex<Option<String>>);

impl Failure {
    /// The reason, if there is one.
    pub(super) fn why(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on no commit is acknowledged. The first reason is kept.
    pub(super) fn note(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}

/// What the writer is asked to do.
pub(super) enum Command<C> {
    /// Make changes durable.
    Commit {
        /// The changes.
        changes: C,
        /// Told the result.
        reply: oneshot::Sender<Result<(), CommitError>>,
    },
    /// Mark the stop as clean, write everything back, end.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The callers' end. `T` is what ends with it: threads to be joined, the lock on the directory.
pub(super) struct Line<C, T>(Mutex<Option<Open<C, T>>>);

/// A line that has been taken out of use and not yet come to its end.
pub(super) struct Open<C, T> {
    commands: SyncSender<Command<C>>,
    rest: T,
}

/// Both ends of a line, the callers' not yet bound to what ends with it.
pub(super) fn line<C>() -> (SyncSender<Command<C>>, Receiver<Command<C>>) {
    sync_channel(COMMITS_QUEUED_MAX)
}

impl<C, T> Line<C, T> {
    /// An open line.
    pub(super) fn new(commands: SyncSender<Command<C>>, rest: T) -> Self {
        Self(Mutex::new(Some(Open { commands, rest })))
    }

    /// Hands over a commit, and gives the way on which its answer comes. `None` when the line is closed. Waits while
    /// very many are handed over and not yet begun.
    pub(super) fn commit(&self, changes: C) -> Option<oneshot::Receiver<Result<(), CommitError>>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = open.as_ref().map(|open| open.commands.clone());
        drop(open);
        let (reply, answer) = oneshot::channel();
        commands?.send(Command::Commit { changes, reply }).ok()?;
        Some(answer)
    }

    /// Takes the line out of use: whoever comes later finds it closed. `None` when somebody has done so before.
    pub(super) fn take(&self) -> Option<Open<C, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<C, T> Open<C, T> {
    /// Asks the writer to close, after all that was handed over before, and gives the way on which its answer comes.
    /// `None` when it has gone.
    pub(super) fn close(&self) -> Option<oneshot::Receiver<Result<(), StoreError>>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Close(reply)).ok()?;
        Some(answer)
    }

    /// Cuts the line: the writer ends when it has done what is on it.
    pub(super) fn cut(self) -> T {
        self.rest
    }
}

/// What the writing thread does.
pub(super) trait Work<C> {
    /// Makes changes durable.
    fn commit(&mut self, changes: &C) -> Result<(), CommitError>;
    /// Looks after the log, once the answer is out.
    fn after_commit(&mut self);
    /// Whether there is something to do in idle time.
    fn has_idle_work(&self) -> bool;
    /// Does some of it.
    fn idle(&mut self);
    /// Marks the stop as clean and writes everything back.
    fn close(&mut self) -> Result<(), StoreError>;
}

/// The body of the writing thread. True when it was closed, false when its callers have gone.
pub(super) fn serve<C>(work: &mut impl Work<C>, failure: &Failure, commands: &Receiver<Command<C>>) -> bool {
    while let Some(command) = next(work, commands) {
        match command {
            Command::Commit { changes, reply } => {
                // Whoever asked may have gone: the commit stands all the same.
                drop(reply.send(commit(work, failure, &changes)));
                work.after_commit();
            }
            Command::Close(reply) => {
                let closed = match failure.why() {
                    Some(why) => Err(StoreError::Unavailable(format!("the store had failed before: {why}").into())),
                    None => work.close(),
                };
                drop(reply.send(closed));
                return true;
            }
        }
    }
    false
}

/// One commit, between two looks at the failure: what another thread found meanwhile (a checkpoint whose sync failed)
/// spoils the answer too.
fn commit<C>(work: &mut impl Work<C>, failure: &Failure, changes: &C) -> Result<(), CommitError> {
    let spoilt = || failure.why().map(|why| CommitError::Unknown(format!("the store had failed before: {why}").into()));
    if let Some(error) = spoilt() {
        return Err(error);
    }
    let ended = work.commit(changes);
    if let Err(CommitError::Unknown(error)) = &ended {
        failure.note(format!("a commit failed: {error}"));
    }
    match (ended, spoilt()) {
        (Ok(()), Some(error)) => Err(error),
        (ended, _) => ended,
    }
}

/// The next command; idle time is used while there is none.
fn next<C>(work: &mut impl Work<C>, commands: &Receiver<Command<C>>) -> Option<Command<C>> {
    while work.has_idle_work() {
        match commands.recv_timeout(IDLE) {
            Ok(command) => return Some(command),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => work.idle(),
        }
    }
    commands.recv().ok()
}
