//! `sendoff serve`: runs the server, tells the newcomer what to try next, and obeys signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Facts};
use crate::clock::{Chance, Clock};
use crate::config::{Loaded, LogFormat};
use crate::logging::event::ForcedStop;
use crate::logging::{Fact, LineFormat};

use super::{complain, say};

/// Exit code of `sysexits.h`: the disk failed, or may have.
const EX_IOERR: u8 = 74;

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
    let app = match App::start(loaded.config, clock, Chance::from_system()).await {
        Ok(app) => app,
        Err(error) => {
            complain(&format!("sendoff: {error}"));
            return ExitCode::from(error.exit_code());
        }
    };
    say(&welcome(&app.facts, std::io::stdout().is_terminal()));
    let (asked, stop_asked) = tokio::sync::oneshot::channel();
    let served = app.run_until(async { stop_asked.await.unwrap_or("nobody") });
    tokio::pin!(served);
    let mut asked = Some(asked);
    loop {
        tokio::select! {
            ended = &mut served => return match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(fatal) => {
                    complain(&format!("sendoff: {fatal}; the next start reads what is on disk"));
                    ExitCode::from(EX_IOERR)
                }
            },
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

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _got = terminate.recv() => "SIGTERM",
        _got = interrupt.recv() => "SIGINT",
    }
}

/// What a newcomer needs next; the key itself only where it was just made and a person looks on.
fn welcome(facts: &Facts, terminal: bool) -> String {
    let scheme = if facts.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", facts.address);
    let key_file = facts.key_file.display();
    let mut lines = vec![format!("sendoff is ready on {url} after {} ms", facts.took.as_millis())];
    let mut ca = String::new();
    if let Some(local) = facts.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
        lines.push(format!("  CA certificate  {}  (SHA-256 {})", local.path.display(), local.fingerprint_sha256));
        ca = format!("--cacert {} ", shell_word(&local.path.display().to_string()));
    }
    lines.push(format!("  admin key       in {key_file} (mode 0600)"));
    if let (Some(key), true) = (&facts.new_key, terminal) {
        lines.push(format!("                  {key}  (shown this once)"));
    }
    if let Some(metrics) = facts.metrics_address {
        lines.push(format!("  metrics         http://{metrics}/metrics"));
    }
    let key_word = shell_word(&key_file.to_string());
    lines.push("Create a first task (then ask for it: GET /tasks):".to_owned());
    lines.push(format!(
        "  curl {ca}-H \"Authorization: Bearer $(cat {key_word})\" --json '{{\"task_type\":\"http_request\",\"payload\":{{\"url\":\"http://127.0.0.1:8000/\",\"method\":\"GET\"}}}}' {url}/tasks"
    ));
    lines.join("\n")
}

/// A word that a shell reads back as it is.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_word("data/admin.key"), "data/admin.key");
        assert_eq!(shell_word("my data/it's"), "'my data/it'\\''s'");
    }
}
