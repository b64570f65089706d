//! `sendoff dev`: a whole sendoff to play with, in one command, of which nothing stays behind.
//!
//! [`scratch`] is where it keeps its data, [`playground`] its configuration and first tasks, [`target`] what they call,
//! [`guide`] what is printed. The lines that follow are the log, told as a story ([`LineFormat::story`]).

mod guide;
mod playground;
mod scratch;
mod target;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::clock::{Chance, Clock};
use crate::logging::LineFormat;
use crate::logging::subscriber::{STORY_FILTER, install};
use crate::task::limits::DEV_RUNTIME_END_MAX;

use super::args::ServerOptions;
use super::context::finish;
use super::exit::{Exit, Failed};
use super::start;
use super::{complain, say};
use scratch::Scratch;

/// What it takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Dev {
    /// The address of the API; loopback only; port 0 takes a free one [default: 127.0.0.1:0].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// The address of the built-in target; loopback only; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    target_listen: String,
    /// Keep the data in this directory, instead of a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// No line per event: the guide and warnings only.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs it to its end. `before` are the server options that stood before the command.
pub(super) fn run(options: &Dev, before: &ServerOptions) -> ExitCode {
    let addresses = match addresses(options, before) {
        Ok(addresses) => addresses,
        Err(failed) => return finish(Err(failed)),
    };
    let clock = Clock::system();
    let filter = if options.quiet { "warn" } else { STORY_FILTER };
    if let Err(error) = install(LineFormat::story(), filter, clock.clone()) {
        return finish(Err(Failed::told(Exit::Config, format!("failed to set up logging: {error}"))));
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failed::told(Exit::Failure, format!("failed to start the runtime: {error}")))),
    };
    in_scratch(options, addresses, clock, runtime)
}

/// Where the API and the target listen.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    api: SocketAddr,
    target: SocketAddr,
}

/// What the whole run needs.
struct Play<'a> {
    scratch: &'a Scratch,
    clock: Clock,
    quiet: bool,
}

fn addresses(options: &Dev, before: &ServerOptions) -> Result<Addresses, Failed> {
    if before.config.is_some() || before.data_dir.is_some() || before.certs_dir.is_some() {
        return Err(Failed::Usage(
            "dev makes its own configuration and directories, so --config, --data-dir and --certs-dir mean nothing to \
             it; to keep what it makes: sendoff dev --keep DIR; to run yours: sendoff serve"
                .to_owned(),
        ));
    }
    let listen = options.listen.as_deref().or(before.listen.as_deref()).unwrap_or("127.0.0.1:0");
    Ok(Addresses { api: loopback("--listen", listen)?, target: loopback("--target-listen", &options.target_listen)? })
}

/// A playground is this machine's alone: its target answers anybody who reaches it.
fn loopback(flag: &str, text: &str) -> Result<SocketAddr, Failed> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().to_canonical().is_loopback());
    address.ok_or_else(|| {
        Failed::Usage(format!(
            "{flag}: got `{text}`, expected a loopback address and a port, such as 127.0.0.1:8443; a server for other \
             machines is `sendoff serve`"
        ))
    })
}

/// Signals are listened for before there is anything to clean up; the directory outlives everything that writes to it.
fn in_scratch(options: &Dev, addresses: Addresses, clock: Clock, runtime: Runtime) -> ExitCode {
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()
    };
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            return finish(Err(Failed::told(Exit::Failure, format!("failed to listen for signals: {error}"))));
        }
    };
    let scratch = match Scratch::make(options.keep.as_deref()) {
        Ok(scratch) => scratch,
        Err(failed) => return finish(Err(failed)),
    };
    let ended =
        runtime.block_on(play(Play { scratch: &scratch, clock, quiet: options.quiet }, addresses, &mut signals));
    runtime.shutdown_timeout(DEV_RUNTIME_END_MAX.to_duration());
    match scratch.end() {
        Ok(said) => say(&said),
        Err(failed) => return finish(Err(failed)),
    }
    ended
}

async fn play(play: Play<'_>, addresses: Addresses, signals: &mut Signals) -> ExitCode {
    let Play { scratch, clock, quiet } = play;
    let target = match TcpListener::bind(addresses.target).await.and_then(|bound| Ok((bound.local_addr()?, bound))) {
        Ok(target) => target,
        Err(error) => {
            let text = format!(
                "failed to listen on {} for the built-in target: {error}; --target-listen takes another address",
                addresses.target
            );
            return finish(Err(Failed::told(Exit::Failure, text)));
        }
    };
    let config = playground::config(scratch.dir(), addresses.api);
    let app = match App::start(config.clone(), clock.clone(), Chance::from_system()).await {
        Ok(app) => app,
        Err(error) => return start::failed(&error).await,
    };
    let config = playground::listening_on(config, app.facts.address);
    if let Err(failed) = scratch.write_config(&config) {
        let stopped = app.stop("a fault").await;
        let code = finish(Err(failed));
        return if stopped.is_ok() { code } else { start::fatal(stopped) };
    }
    say(&guide::text(scratch, &app.facts, target.0, quiet));
    if let Err(error) = app.queues.accept(playground::tasks(target.0)).await {
        complain(&format!("sendoff: the first tasks were not accepted: {error}"));
    }
    until_asked(app, axum::serve(target.1, target::router(clock)).into_future(), signals).await
}

/// Runs until a signal asks for the end, then stops in order, the target last: what runs may still call it.
async fn until_asked(app: App, target: impl Future<Output = std::io::Result<()>>, signals: &mut Signals) -> ExitCode {
    let (asked, stop_asked) = tokio::sync::oneshot::channel();
    let served = app.run_until(async { stop_asked.await.unwrap_or("nobody") });
    // A target that ends by itself leaves the rest to be looked at.
    let target = async {
        if let Err(error) = target.await {
            tracing::warn!(%error, "the built-in target has ended");
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(served, target);
    let mut asked = Some(asked);
    loop {
        tokio::select! {
            ended = &mut served => return start::fatal(ended),
            () = &mut target => {}
            signal = signals.next() => {
                if asked.take().map(|asked| asked.send(signal)).is_none() {
                    complain("sendoff: asked to stop twice, stopping at once");
                    return ExitCode::FAILURE;
                }
                say(&format!("{signal}: stopping"));
            }
        }
    }
}

/// The signals that end it: also that its window was closed, because nobody else would remove its directory.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _got = self.terminate.recv() => "SIGTERM",
            _got = self.interrupt.recv() => "Ctrl-C",
            _got = self.hangup.recv() => "SIGHUP",
        }
    }
}
