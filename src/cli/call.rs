//! What can go wrong with a request, told so that a tired person knows what to do next.

use std::error::Error as _;
use std::fmt;

use serde::Deserialize;

use super::connect::Destination;
use super::exit::Exit;
use super::output::text::visible;

/// Why a request did not lead to what was asked for.
#[derive(Debug)]
pub(super) enum CallError {
    /// The server says so (RFC 9457).
    Refused(Box<Problem>),
    /// No connection, so nothing was done.
    NoConnection {
        /// What was tried, what happened, what to do.
        text: String,
    },
    /// The connection ended before the whole answer was there, so it is not known what was done.
    NoAnswer {
        /// What was tried, what happened, what to do.
        text: String,
    },
    /// A proxy says that the server does not answer it (502, 503 or 504 without a problem of sendoff's), so it is not known
    /// what was done.
    Proxy {
        /// What was tried, and what came.
        text: String,
        /// `Retry-After`, in seconds.
        retry_after_secs: Option<u64>,
    },
    /// An answer that sendoff does not give.
    Strange {
        /// What was tried, and what came.
        text: String,
    },
}

/// A problem as the server described it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    /// The HTTP status.
    pub(super) status: u16,
    /// The stable code (`docs/api.md`).
    pub(super) code: String,
    /// What this code means.
    pub(super) title: String,
    /// What happened this time.
    pub(super) detail: String,
    /// Each fault with its place.
    pub(super) errors: Vec<ProblemItem>,
    /// By which the server's log finds the request.
    pub(super) request_id: String,
    /// `Retry-After`, in seconds.
    #[serde(skip)]
    pub(super) retry_after_secs: Option<u64>,
    /// Where the key came from, for a key that was not accepted.
    #[serde(skip)]
    pub(super) key_from: String,
}

/// One of a problem's `errors`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProblemItem {
    /// A JSON pointer into the body.
    pub(super) pointer: Option<String>,
    /// Or a parameter of the query.
    pub(super) parameter: Option<String>,
    /// What is wrong there.
    pub(super) detail: String,
}

impl CallError {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Refused(problem) => problem.exit(),
            Self::NoConnection { .. } | Self::NoAnswer { .. } | Self::Proxy { .. } => Exit::Unreachable,
            Self::Strange { .. } => Exit::Failure,
        }
    }

    /// The same with something more to say about this occurrence: `; did you mean …`.
    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        if let Self::Refused(problem) = &mut self {
            problem.detail.push_str(hint);
        }
        self
    }

    /// Whether the same request may well be answered in a moment: nobody listens, or the server starts, stops, is busy.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(problem) => matches!(problem.status, 429 | 503) && problem.exit() != Exit::Auth,
            Self::NoConnection { .. } | Self::NoAnswer { .. } | Self::Proxy { .. } => true,
            Self::Strange { .. } => false,
        }
    }

    /// What the transport says about a request to `to`.
    pub(super) fn of_transport(error: &reqwest::Error, to: &Destination) -> Self {
        let (url, said_by) = (to.url.as_str().trim_end_matches('/'), &to.said_by);
        let tried = format!("{url} (from {said_by})");
        let what = innermost(error);
        if let Some(tls) = tls_cause(error) {
            return Self::NoConnection { text: tls_text(tls, &tried, to) };
        }
        if error.is_connect() {
            let text = format!(
                "no server answers at {tried}: {what}\n  \
                 Is it running? Start one here with `sendoff`, or say where it is with --url or SENDOFF_URL"
            );
            return Self::NoConnection { text };
        }
        if is_no_http(error) {
            let text = format!(
                "{tried} does not speak plain HTTP: {what}\n  If the server speaks TLS, its URL begins with https://"
            );
            return Self::NoConnection { text };
        }
        let what = if error.is_timeout() { "it took too long".to_owned() } else { what };
        Self::NoAnswer { text: format!("no whole answer from {tried}: {what}") }
    }

    /// An answer without success.
    pub(super) fn of_answer(status: u16, retry_after_secs: Option<u64>, body: &[u8], to: &Destination) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if !problem.code.is_empty() => {
                Self::Refused(Box::new(Problem { retry_after_secs, key_from: to.key_from.clone(), ..problem }))
            }
            Ok(_) | Err(_) => {
                let said: String = String::from_utf8_lossy(body).chars().take(200).collect();
                let text = format!(
                    "{} (from {}) answered {status}, and not as sendoff does: is it another server, or a proxy?\n  {}",
                    to.url,
                    to.said_by,
                    visible(said.trim())
                );
                if matches!(status, 502..=504) {
                    Self::Proxy { text, retry_after_secs }
                } else {
                    Self::Strange { text }
                }
            }
        }
    }
}

/// The last of the causes: what the operating system or the TLS library said.
fn innermost(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Whether what came is no HTTP at all: an alert of TLS, for example.
fn is_no_http(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn tls_cause(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // What an I/O error wraps is not its source, but stands in its place.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map(|inner| inner as &dyn std::error::Error).or_else(|| error.source());
    }
    None
}

fn tls_text(tls: &rustls::Error, tried: &str, to: &Destination) -> String {
    let trusted = to.ca.as_ref().map_or_else(
        || "the system's certificate authorities".to_owned(),
        |ca| format!("the certificate authority in {}", ca.display()),
    );
    if matches!(tls, rustls::Error::InvalidCertificate(_)) {
        format!(
            "the certificate of {tried} is not trusted: {tls}\n  \
             Trusted is {trusted}. Name the server's own with --ca or SENDOFF_CA (its certs_dir has it as ca.pem)"
        )
    } else if matches!(tls, rustls::Error::InvalidMessage(_)) {
        format!("{tried} does not speak TLS: {tls}\n  If the server runs with plain_http, its URL begins with http://")
    } else {
        format!("no TLS connection to {tried}: {tls}")
    }
}

impl Problem {
    /// The exit code; the codes of problems are in `docs/api.md`.
    fn exit(&self) -> Exit {
        match (self.status, self.code.as_str()) {
            (401 | 403, _) | (_, "auth_rate_limited") => Exit::Auth,
            (404, "no_such_route") => Exit::Failure,
            (404, _) | (_, "unknown_queue" | "unknown_task_type") => Exit::NotFound,
            (409, _) | (_, "idempotency_mismatch") => Exit::Conflict,
            (400 | 413 | 415 | 422, _) => Exit::Usage,
            _ => Exit::Failure,
        }
    }

    /// What to do about it, where that is not said yet.
    fn advice(&self) -> Option<String> {
        match self.code.as_str() {
            "unauthenticated" | "insufficient_scope" | "auth_rate_limited" => Some(format!(
                "The key came from {}. Name another with --key file:PATH, --key env:NAME or SENDOFF_KEY",
                self.key_from
            )),
            "no_such_route" | "method_not_allowed" => {
                Some("Is the server older than this command line? Compare with `sendoff version`".to_owned())
            }
            "internal" | "unknown_outcome" => {
                Some("It is not known whether it was done: look, or repeat with the same --idempotency-key".to_owned())
            }
            _ => self.retry_after_secs.map(|secs| format!("Nothing was done. Try again in {secs} s")),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = if self.detail.is_empty() { &self.title } else { &self.detail };
        if self.errors.is_empty() {
            write!(f, "{} ({})", visible(detail), visible(&self.code))?;
        } else {
            write!(f, "{} ({})", visible(&self.title), visible(&self.code))?;
        }
        for item in &self.errors {
            let place = item.pointer.as_deref().or(item.parameter.as_deref()).filter(|place| !place.is_empty());
            write!(f, "\n  {}: {}", visible(place.unwrap_or("the body")), visible(&item.detail))?;
        }
        if let Some(advice) = self.advice() {
            write!(f, "\n  {advice}")?;
        }
        if !self.request_id.is_empty() {
            write!(f, "\n  request id {}", visible(&self.request_id))?;
        }
        Ok(())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => problem.fmt(f),
            Self::NoConnection { text }
            | Self::NoAnswer { text }
            | Self::Proxy { text, .. }
            | Self::Strange { text } => f.write_str(text),
        }
    }
}

impl std::error::Error for CallError {}
