//! `sendoff serve`: runs the server, tells the newcomer what to try next, and obeys signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Facts};
use crate::clock::{Chance, Clock};
use crate::config::{Loaded, LogFormat};
use crate::logging::event::ForcedStop;
use crate::logging::{Fact, LineFormat};

use super::welcome::{self, Notices};
use super::{complain, say, start};

pub(super) fn run(loaded: Loaded) -> ExitCode {
    let clock = Clock::system();
    let format = match loaded.config.logging.format {
        LogFormat::Auto => LineFormat::auto(),
        LogFormat::Text => LineFormat::text(),
        LogFormat::Json => LineFormat::Json,
    };
    if let Err(error) = crate::logging::subscriber::install(format, &loaded.config.logging.level, clock.clone()) {
        complain(&format!("sendoff: failed to set up logging: {error}"));
        return ExitCode::from(78);
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("sendoff: failed to start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(loaded, clock))
}

async fn serve(loaded: Loaded, clock: Clock) -> ExitCode {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            complain(&format!("sendoff: failed to listen for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let app = match App::start(loaded.config.clone(), clock, Chance::from_system()).await {
        Ok(app) => app,
        Err(error) => return start::failed(&error).await,
    };
    greet(&app.facts, &loaded);
    let (asked, stop_asked) = tokio::sync::oneshot::channel();
    let served = app.run_until(async { stop_asked.await.unwrap_or("nobody") });
    tokio::pin!(served);
    let mut asked = Some(asked);
    loop {
        tokio::select! {
            ended = &mut served => return start::fatal(ended),
            signal = either(&mut terminate, &mut interrupt) => {
                if asked.take().map(|asked| asked.send(signal)).is_none() {
                    ForcedStop { signal }.log();
                    complain("sendoff: asked to stop twice, stopping at once; attempts in flight count as interrupted");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
}

/// Prints the welcome; what is out of the ordinary is logged as well.
fn greet(facts: &Facts, loaded: &Loaded) {
    let notices = Notices::of(facts, &loaded.config);
    if let Some(changed) = &notices.changed {
        changed.log();
    }
    if let Some(exposed) = &notices.exposed {
        exposed.log();
    }
    say(&welcome::text(facts, loaded, &notices, std::io::stdout().is_terminal()));
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _got = terminate.recv() => "SIGTERM",
        _got = interrupt.recv() => "SIGINT",
    }
}
