//! The audit log of a running server: who may begin an administrative act, and how its line gets into the file.
//!
//! An act is admitted while its line can be written, and room for it is set aside; then it is done; then its line is made
//! durable; then its answer leaves. So an act has one line, which says what came of it, and when the log cannot be
//! written, nothing is done that would be missing in it. What is left is a disk that breaks, or a crash, between the act
//! and its line: the first is told as an error event, after the second nobody has got an answer.
//!
//! A server whose log cannot be written goes on delivering tasks, and refuses administrative acts until it can.

mod file;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::api::{AuditTrail, NotAdmitted};
use crate::clock::Clock;
use crate::logging::audit::{AUDIT_FILE, Act, Link, Outcome};
use crate::logging::event::{ActAudited, AuditFailed};
use crate::logging::{Fact, Telemetry};
use crate::queue::store::Later;
use crate::security::failure_limit::FailureLimit;
use crate::task::limits::{AUDIT_ACTS_MAX, CUT_GRACE};

use file::AuditFile;

/// The log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Audit(Arc<Inner>);

struct Inner {
    file: Mutex<AuditFile>,
    clock: Clock,
    telemetry: Telemetry,
    /// One permit an act under way.
    acts: Arc<Semaphore>,
    /// Acts are done to their end, whoever has gone meanwhile.
    running: TaskTracker,
    /// Refused attempts, which cost whoever makes them nothing, get lines at a bounded rate from each address.
    refusals: Mutex<FailureLimit>,
    /// Those that got none since the last line.
    unwritten: AtomicU64,
}

impl Audit {
    /// The log in `data_dir`, opened with its first line.
    pub(super) fn new(data_dir: &Path, clock: &Clock, telemetry: &Telemetry) -> Self {
        Self(Arc::new(Inner {
            file: Mutex::new(AuditFile::at(data_dir.join(AUDIT_FILE))),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            acts: Arc::new(Semaphore::new(AUDIT_ACTS_MAX)),
            running: TaskTracker::new(),
            refusals: Mutex::default(),
            unwritten: AtomicU64::new(0),
        }))
    }

    /// Says whether a line could be written now.
    pub(super) async fn prepared(&self) -> Result<(), String> {
        let prepared = self.on_the_file(Inner::prepare).await;
        if let Err(error) = &prepared {
            AuditFailed { error: error.clone(), lost: None }.emit(&self.0.telemetry);
        }
        prepared
    }

    /// Writes down what was done, or what was refused; durable when this returns.
    pub(super) async fn record(&self, act: Act) {
        if self.is_one_refusal_too_many(&act) {
            self.0.unwritten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (operation, result) = (act.operation.as_ref().to_owned(), act.outcome.as_str());
        match self.on_the_file(move |inner, file| inner.write(file, &act)).await {
            Ok(Link { seq, hash }) => ActAudited { seq, operation, result, hash }.emit(&self.0.telemetry),
            Err(error) => AuditFailed { error, lost: Some(operation) }.emit(&self.0.telemetry),
        }
    }

    /// Writes the last line, after those of all acts under way: whatever these wait for has ended. A disk that does not
    /// answer any more is not waited for.
    pub(super) async fn close(&self, last: Act) {
        self.0.running.close();
        let closing = async {
            self.0.running.wait().await;
            self.record(last).await;
        };
        tokio::select! {
            () = closing => {}
            () = self.0.clock.sleep(CUT_GRACE.to_duration()) => {
                let error = "what was under way did not end in time".to_owned();
                AuditFailed { error, lost: Some("server_stop".to_owned()) }.emit(&self.0.telemetry);
            }
        }
    }

    fn is_one_refusal_too_many(&self, act: &Act) -> bool {
        let (Outcome::Refused(_), Some(from)) = (act.outcome, act.from) else { return false };
        let now = self.0.clock.now().mono;
        !self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner).admits(from.ip(), now)
    }

    /// Runs something on the file, on a thread where that holds up nobody.
    async fn on_the_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut AuditFile) -> Result<T, file::AuditFileError> + Send + 'static,
    ) -> Result<T, String> {
        let inner = Arc::clone(&self.0);
        let worked = tokio::task::spawn_blocking(move || {
            let mut file = inner.file.lock().unwrap_or_else(PoisonError::into_inner);
            work(&inner, &mut file).map_err(|error| error.to_string())
        });
        worked.await.unwrap_or_else(|panic| Err(panic.to_string()))
    }
}

impl Inner {
    fn prepare(&self, file: &mut AuditFile) -> Result<(), file::AuditFileError> {
        for found in file.prepare(self.clock.now().wall)? {
            found.emit(&self.telemetry);
        }
        Ok(())
    }

    fn write(&self, file: &mut AuditFile, act: &Act) -> Result<Link, file::AuditFileError> {
        self.prepare(file)?;
        let unwritten = self.unwritten.load(Ordering::Relaxed);
        let link = file.append(self.clock.now().wall, unwritten, act)?;
        self.unwritten.fetch_sub(unwritten, Ordering::Relaxed);
        Ok(link)
    }
}

impl AuditTrail for Audit {
    fn admit(&self) -> Later<'static, Result<OwnedSemaphorePermit, NotAdmitted>> {
        let audit = self.clone();
        Box::pin(async move {
            let permit = Arc::clone(&audit.0.acts).try_acquire_owned().map_err(|_all_taken| NotAdmitted::Busy)?;
            audit.prepared().await.map_err(NotAdmitted::Unwritable)?;
            Ok(permit)
        })
    }

    fn record(&self, act: Act) -> Later<'static, ()> {
        let audit = self.clone();
        Box::pin(async move { Self::record(&audit, act).await })
    }

    fn see_through(&self, work: Later<'static, ()>) {
        self.0.running.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::logging::audit::{Walk, Who};
    use crate::task::WallMs;
    use crate::task::limits::{AUTH_FAILURE_EVERY, AUTH_FAILURES_BURST};

    fn log() -> (tempfile::TempDir, Audit, crate::clock::ManualClock) {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let audit = Audit::new(dir.path(), &clock, &Telemetry::new());
        (dir, audit, hand)
    }

    fn refused() -> Act {
        Act {
            from: Some("192.0.2.1:1".parse().unwrap()),
            outcome: Outcome::Refused("insufficient_scope"),
            ..Act::here(Who::Local, "GET /keys")
        }
    }

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.join(AUDIT_FILE)).unwrap();
        let mut walk = Walk::default();
        text.lines().for_each(|line| drop(walk.take(line.as_bytes()).unwrap()));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn acts_at_one_time_keep_the_chain() {
        let (dir, audit, _) = log();
        let acts = (0..100).map(|_| audit.record(Act::here(Who::Local, "act")));
        futures_util::future::join_all(acts).await;
        assert_eq!(lines(dir.path()).len(), 100);
    }

    #[tokio::test]
    async fn as_many_acts_as_there_is_room_for_and_one_more() {
        let (_dir, audit, _) = log();
        let mut admitted = Vec::new();
        for _ in 0..AUDIT_ACTS_MAX {
            admitted.push(audit.admit().await.unwrap());
        }
        assert!(matches!(audit.admit().await, Err(NotAdmitted::Busy)));
        drop(admitted.pop());
        assert!(audit.admit().await.is_ok());
    }

    #[tokio::test]
    async fn a_flood_of_refusals_gets_lines_at_its_rate_and_the_rest_is_counted() {
        let (dir, audit, hand) = log();
        for _ in 0..AUTH_FAILURES_BURST + 5 {
            audit.record(refused()).await;
        }
        assert_eq!(lines(dir.path()).len(), AUTH_FAILURES_BURST as usize);
        audit.record(Act::here(Who::Local, "act")).await;
        hand.advance(AUTH_FAILURE_EVERY.to_duration() + Duration::from_millis(1));
        audit.record(refused()).await;
        let lines = lines(dir.path());
        let unwritten: Vec<_> = lines[AUTH_FAILURES_BURST as usize..].iter().map(|line| &line["unwritten"]).collect();
        assert_eq!(unwritten, [&serde_json::json!(5), &serde_json::Value::Null]);
    }

    #[tokio::test]
    async fn the_last_line_comes_after_acts_under_way_and_does_not_wait_for_ever() {
        let (dir, audit, hand) = log();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let writing = audit.clone();
        audit.see_through(Box::pin(async move {
            drop(gone.await);
            Audit::record(&writing, Act::here(Who::Local, "act")).await;
        }));
        let mut closing = Box::pin(audit.close(Act::here(Who::Local, "server_stop")));
        assert!(futures_util::poll!(&mut closing).is_pending());
        drop(go);
        closing.await;
        let operations: Vec<_> = lines(dir.path()).iter().map(|line| line["operation"].clone()).collect();
        assert_eq!(operations, ["act", "server_stop"]);

        audit.see_through(Box::pin(std::future::pending()));
        let mut closing = Box::pin(audit.close(Act::here(Who::Local, "server_stop")));
        assert!(futures_util::poll!(&mut closing).is_pending());
        hand.advance(CUT_GRACE.to_duration());
        closing.await;
        assert_eq!(lines(dir.path()).len(), 2);
    }

    #[tokio::test]
    async fn nothing_is_admitted_while_the_log_cannot_be_written() {
        let (dir, audit, _) = log();
        std::fs::create_dir(dir.path().join(AUDIT_FILE)).unwrap();
        let Err(NotAdmitted::Unwritable(why)) = audit.admit().await else { panic!("admitted") };
        assert!(why.contains("audit.log"), "{why}");
        // What was done before that was known is told.
        audit.record(Act::here(Who::Local, "certificate_replaced")).await;
        let metrics = audit.0.telemetry.encode();
        assert!(metrics.lines().any(|line| line == "sendoff_audit_failures_total 2"), "{metrics}");
        std::fs::remove_dir(dir.path().join(AUDIT_FILE)).unwrap();
        assert!(audit.admit().await.is_ok());
    }
}
