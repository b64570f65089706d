//! What is said when a server did not start, or stopped by itself, and with which exit code: what, where, what to do.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::app::StartError;
use crate::queue::engine::Fatal;
use crate::task::limits::PROBE_MAX;

use super::complain;
use super::exit::Exit;

/// What `GET /healthz` of a sendoff says.
const HEALTHY: &str = r#"{"status":"ok"}"#;

/// Says why the server did not start; the exit code of this process.
pub(super) async fn failed(error: &StartError) -> ExitCode {
    let advice = match error {
        StartError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            is_sendoff(*address).await.then_some(
                "\n  a sendoff is listening there already: stop that one, or use it (`sendoff queue list` asks it)",
            )
        }
        StartError::Store { .. } | StartError::Key(_) | StartError::Tls(_) if may_not_write(error) => Some(
            "\n  it may not write there: start it in a directory of its own, or name directories that this user may \
             write to with --data-dir DIR and --certs-dir DIR (SENDOFF_DATA_DIR, SENDOFF_CERTS_DIR)",
        ),
        StartError::Listen { .. }
        | StartError::Store { .. }
        | StartError::Key(_)
        | StartError::Tls(_)
        | StartError::Recover(_)
        | StartError::Keys(_)
        | StartError::Clients(_)
        | StartError::Credentials(_)
        | StartError::Serve(_) => None,
    };
    complain(&format!("sendoff: {}{}", whole(error), advice.unwrap_or_default()));
    // A directory that may not be written to is a setting that is wrong, not a disk that fails.
    if may_not_write(error) { Exit::Config.into() } else { error.exit_code().into() }
}

/// Says how a server ended that had started; the exit code of this process.
pub(super) fn fatal(ended: Result<(), Fatal>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            complain(&format!("sendoff: {}; the next start reads what is on disk", whole(&fatal)));
            Exit::Disk.into()
        }
    }
}

/// An error, and those of its causes that it does not name itself.
fn whole(error: &dyn Error) -> String {
    causes(error).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Whether the operating system refused to let us write.
fn may_not_write(error: &StartError) -> bool {
    let refused = |cause: &(dyn Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    };
    !matches!(error, StartError::Listen { .. }) && causes(error).any(refused)
}

/// Whether a sendoff answers at `address`. Nothing that is secret is sent, so any certificate will do.
async fn is_sendoff(address: SocketAddr) -> bool {
    let at = super::connect::reachable(address);
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tls_danger_accept_invalid_certs(true)
        .timeout(PROBE_MAX.to_duration())
        .build();
    let Ok(client) = client else { return false };
    for scheme in ["https", "http"] {
        let answer = client.get(format!("{scheme}://{at}/healthz")).send().await;
        if let Ok(answer) = answer.and_then(reqwest::Response::error_for_status) {
            return answer.content_length().is_none_or(|len| len < 1_024)
                && answer.text().await.is_ok_and(|said| said.trim() == HEALTHY);
        }
    }
    false
}
