//! `sendoff serve`: runs the server, tells the newcomer what to try next, and obeys signals.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::app::{App, Facts, OnRefused, ReadConfig, Reloads};
use crate::clock::{Chance, Clock};
use crate::config::{Loaded, LogFormat, Sources};
use crate::logging::event::{ConfigRefused, ForcedStop};
use crate::logging::{Fact, LineFormat};

use super::welcome::{self, Notices};
use super::{complain, say, start};

/// Runs the server with `loaded`, which came from `sources`: there it is read again on SIGHUP.
pub(super) fn run(loaded: Loaded, sources: Sources) -> ExitCode {
    let clock = Clock::system();
    let format = match loaded.config.logging.format {
        LogFormat::Auto => LineFormat::auto(),
        LogFormat::Text => LineFormat::text(),
        LogFormat::Json => LineFormat::Json,
    };
    let log = match crate::logging::subscriber::install(format, &loaded.config.logging.level, clock.clone()) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("sendoff: failed to set up logging: {error}"));
            return ExitCode::from(78);
        }
    };
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
    // One more is kept while a reload runs: whatever was changed meanwhile is read by it.
    let (reload, asked) = tokio::sync::mpsc::channel(1);
    // Once there was a file, there has to be one: `load_again`.
    let from_file = AtomicBool::new(loaded.file.is_some());
    let read: ReadConfig = Arc::new(move || {
        let load = if from_file.load(Ordering::Relaxed) { crate::config::load_again } else { crate::config::load };
        let loaded = load(&sources)?;
        from_file.store(loaded.file.is_some(), Ordering::Relaxed);
        Ok(loaded)
    });
    let reloads = Reloads::new(asked, read, Some(log), on_refused(format));
    let code = runtime.block_on(serve(loaded, clock, reload, reloads));
    // Everything is written and closed. A thread that still waits for a name server, or for a file on a network that is
    // gone, is not waited for.
    runtime.shutdown_background();
    code
}

/// People read the faults as a list below their line; a machine finds them in it.
fn on_refused(format: LineFormat) -> OnRefused {
    match format {
        LineFormat::Text { .. } => Box::new(|error| complain(&error.to_string())),
        LineFormat::Json | LineFormat::Story { .. } => Box::new(|_error| {}),
    }
}

async fn serve(loaded: Loaded, clock: Clock, reload: Sender<()>, reloads: Reloads) -> ExitCode {
    // Before anything else: a signal that comes during the start is obeyed after it.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
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
    let served = app.run(async { stop_asked.await.unwrap_or("nobody") }, reloads);
    tokio::pin!(served);
    let mut asked = Some(asked);
    loop {
        tokio::select! {
            ended = &mut served => return start::fatal(ended),
            signal = signals.next() => match signal {
                Asked::Reload if asked.is_some() => {
                    if let Err(TrySendError::Closed(())) = reload.try_send(()) {
                        tracing::debug!("the server has ended");
                    }
                }
                Asked::Reload => {
                    ConfigRefused { faults: 0, why: "the server is stopping".to_owned() }.log();
                }
                Asked::Stop(signal) => {
                    if asked.take().map(|asked| asked.send(signal)).is_none() {
                        ForcedStop { signal }.log();
                        complain(
                            "sendoff: asked to stop twice, stopping at once; attempts in flight count as interrupted",
                        );
                        return ExitCode::FAILURE;
                    }
                }
            },
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

/// What a signal asks for.
enum Asked {
    Stop(&'static str),
    Reload,
}

/// The signals that are obeyed.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether standard error was a terminal at the start: when it is none any more, SIGHUP says that it was closed.
    terminal: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            terminal: std::io::stderr().is_terminal(),
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _got = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _got = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _got = self.hangup.recv() => {
                // Nobody can read or stop with Ctrl-C what runs in a window that is gone.
                let gone = self.terminal && !std::io::stderr().is_terminal();
                if gone { Asked::Stop("SIGHUP of its terminal") } else { Asked::Reload }
            }
        }
    }
}
