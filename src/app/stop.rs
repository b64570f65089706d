//! Stopping in order: see the map in [`super`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::{App, engine_ended};
use crate::clock::Clock;
use crate::logging::audit::{Act, Who};
use crate::logging::event::ShutdownStep;
use crate::logging::{Fact, chain};
use crate::queue::engine::Fatal;
use crate::queue::engine::shell::{Phase, Progress};
use crate::task::limits::CUT_GRACE;

impl App {
    /// Stops in order.
    pub async fn stop(self, signal: &'static str) -> Result<(), Fatal> {
        let Self { clock, telemetry, store, server, mut progress, phase, .. } = self;
        let began = clock.now().mono;
        let grace = self.config.server.shutdown_grace;
        self.ready.store(false, Ordering::Release);
        ShutdownStep::Begun { signal, running: progress.borrow().in_flight as u64, grace }.emit(&telemetry);
        phase.send_replace(Phase::Drain);
        let drained = idle_within(&mut progress, Phase::Drain, &clock, grace.to_duration()).await;
        phase.send_replace(Phase::Cut);
        let aborted = if drained { 0 } else { progress.borrow().in_flight as u64 };
        if !idle_within(&mut progress, Phase::Cut, &clock, CUT_GRACE.to_duration()).await {
            tracing::warn!("attempts did not end when they were aborted; the next start closes them as interrupted");
        }
        ShutdownStep::Drained { aborted }.emit(&telemetry);
        phase.send_replace(Phase::Hush);
        if let Err(error) = server.stop(CUT_GRACE.to_duration()).await {
            tracing::warn!(%error, "the listener had failed before it was closed");
        }
        if let Some(metrics) = self.metrics_server
            && let Err(error) = metrics.stop(Duration::ZERO).await
        {
            tracing::warn!(%error, "the metrics listener had failed before it was closed");
        }
        self.loops.end();
        self.keys.keep_uses().await;
        ShutdownStep::ApiClosed.emit(&telemetry);
        phase.send_replace(Phase::Stop);
        let ended = engine_ended(self.engine.await, &telemetry);
        self.audit.close(told(signal, &ended)).await;
        ended?;
        self.pool.ended().await;
        store.close().await.map_err(Fatal::Close)?;
        ShutdownStep::StoreClosed { took: clock.now().mono.saturating_sub(began) }.emit(&telemetry);
        Ok(())
    }
}

/// The end of the server, for the audit log; `signal` is what ended it.
pub(super) fn told(signal: &'static str, ended: &Result<(), Fatal>) -> Act {
    let error = ended.as_ref().err().map(|fatal| chain(fatal));
    Act { after: Some(json!({"by": signal, "error": error})), ..Act::here(Who::Local, "server_stop") }
}

/// Waits until the engine has obeyed `phase` and nothing is in flight, at most for `within`; tells whether it came to
/// that.
async fn idle_within(progress: &mut watch::Receiver<Progress>, phase: Phase, clock: &Clock, within: Duration) -> bool {
    tokio::select! {
        idle = progress.wait_for(|told| told.phase >= phase && told.in_flight == 0) => idle.is_ok(),
        () = clock.sleep(within) => false,
    }
}
