//! What happened in an attempt, and what we make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::time::Span;

/// The class of what happened in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeClass {
    /// A final 2xx answer.
    Ok,
    /// Any other final answer; its status decides.
    HttpStatus,
    /// The host's name was not resolved.
    Dns,
    /// No connection to the host.
    Connect,
    /// The TLS handshake failed for another reason than the certificate.
    TlsConnect,
    /// The host's certificate was refused.
    CertificateRefused,
    /// The deadline passed before the answer's headers were there.
    TimeoutBeforeHeaders,
    /// The deadline passed within the answer's body.
    TimeoutBody,
    /// The connection broke after it was made.
    Reset,
    /// The process died, or the attempt was aborted at shutdown after hand-over to the HTTP client.
    Interrupted,
    /// A lease outside this process passed its time.
    LeaseExpired,
    /// Aborted before the request was handed to the HTTP client: as if it had not been started.
    Released,
    /// The egress policy refused the address: nothing was sent.
    EgressRefused,
    /// The stored record is damaged: nothing was sent.
    Corrupt,
    /// The task's credential may not go to its target: nothing was sent.
    CredentialRefused,
    /// The target answered 401 to a token that had been fetched before: the token is forgotten.
    Auth,
    /// There was no credential to go with: nothing was sent, and this is no attempt.
    AuthUnavailable,
}

impl OutcomeClass {
    /// Every class. Its place is its number in stores: append only.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::HttpStatus,
        Self::Dns,
        Self::Connect,
        Self::TlsConnect,
        Self::CertificateRefused,
        Self::TimeoutBeforeHeaders,
        Self::TimeoutBody,
        Self::Reset,
        Self::Interrupted,
        Self::LeaseExpired,
        Self::Released,
        Self::EgressRefused,
        Self::Corrupt,
        Self::CredentialRefused,
        Self::Auth,
        Self::AuthUnavailable,
    ];

    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::HttpStatus => "http_status",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::TlsConnect => "tls_connect",
            Self::CertificateRefused => "certificate_refused",
            Self::TimeoutBeforeHeaders => "timeout_before_headers",
            Self::TimeoutBody => "timeout_body",
            Self::Reset => "reset",
            Self::Interrupted => "interrupted",
            Self::LeaseExpired => "lease_expired",
            Self::Released => "released",
            Self::EgressRefused => "egress_refused",
            Self::Corrupt => "corrupt",
            Self::CredentialRefused => "credential_refused",
            Self::Auth => "auth",
            Self::AuthUnavailable => "auth_unavailable",
        }
    }

    /// Its number in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Reads the number back.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What happened in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The class.
    pub class: OutcomeClass,
    /// The answer's status, when there was an answer.
    pub http_status: Option<u16>,
    /// What went wrong, for people; no secrets, cut to [`super::limits::ERROR_LEN_MAX`].
    pub error: Option<String>,
    /// `Retry-After` of a 429 or 503, as a delay from the answer; without a credential, when it makes sense to ask for
    /// one again.
    pub retry_after: Option<Span>,
    /// Whether there was no credential because whoever issues it said no (400, 401): asking again hardly helps.
    pub refused_by_issuer: bool,
    /// The first bytes of the answer's body.
    pub response_head: Bytes,
    /// From hand-over to the end.
    pub took: Duration,
}

impl Outcome {
    /// An outcome without an answer.
    pub fn without_answer(class: OutcomeClass, error: impl Into<String>, took: Duration) -> Self {
        Self {
            class,
            http_status: None,
            error: Some(error.into()),
            retry_after: None,
            refused_by_issuer: false,
            response_head: Bytes::new(),
            took,
        }
    }

    /// An outcome with an answer of this status.
    pub fn answered(http_status: u16, response_head: Bytes, took: Duration) -> Self {
        let class = if (200..300).contains(&http_status) { OutcomeClass::Ok } else { OutcomeClass::HttpStatus };
        Self {
            class,
            http_status: Some(http_status),
            error: None,
            retry_after: None,
            refused_by_issuer: false,
            response_head,
            took,
        }
    }
}

/// What a user asked to be made of a status (`retry.on_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusAction {
    /// Counts as success.
    Done,
    /// Tried again.
    Retry,
    /// Given up at once.
    Dead,
}

impl StatusAction {
    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }

    /// Reads the public word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Done, Self::Retry, Self::Dead].into_iter().find(|action| action.as_str() == text)
    }
}

/// Statuses that a user treats otherwise than the table does.
pub type OnStatus = BTreeMap<u16, StatusAction>;

/// What we make of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The task succeeded.
    Done,
    /// Try again, if the policy has a try left.
    Retry,
    /// Do not try again.
    GiveUp(DeadReason),
    /// No attempt: wait for a credential, as long as the policy lets it.
    Wait,
    /// Put back to its place, as if the attempt had not been started.
    Release,
}

/// Why a task is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadReason {
    /// `max_attempts` reached.
    MaxAttempts,
    /// `max_retry_duration` reached, or the next retry would have fallen after it.
    MaxRetryDuration,
    /// An answer that is not retried.
    PermanentStatus,
    /// The target's certificate was refused.
    CertificateRefused,
    /// The egress policy refused the address.
    EgressRefused,
    /// The stored record is damaged.
    Corrupt,
    /// The task's credential may not go to its target.
    CredentialRefused,
    /// There was no credential to go with for too long, or whoever issues it said no too often.
    AuthUnavailable,
}

impl DeadReason {
    /// Every reason. Its place is its number in stores: append only.
    pub const ALL: [Self; 8] = [
        Self::MaxAttempts,
        Self::MaxRetryDuration,
        Self::PermanentStatus,
        Self::CertificateRefused,
        Self::EgressRefused,
        Self::Corrupt,
        Self::CredentialRefused,
        Self::AuthUnavailable,
    ];

    /// The public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxAttempts => "max_attempts",
            Self::MaxRetryDuration => "max_retry_duration",
            Self::PermanentStatus => "permanent_status",
            Self::CertificateRefused => "certificate_refused",
            Self::EgressRefused => "egress_refused",
            Self::Corrupt => "corrupt",
            Self::CredentialRefused => "credential_refused",
            Self::AuthUnavailable => "auth_unavailable",
        }
    }

    /// Reads the public word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Its number in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Reads the number back.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The outcome table: what we make of `outcome`, where `on_status` may say otherwise for a status.
pub fn verdict(outcome: &Outcome, on_status: &OnStatus) -> Verdict {
    use OutcomeClass as C;
    match outcome.class {
        C::Ok | C::HttpStatus => status_verdict(outcome.http_status.unwrap_or(0), on_status),
        // The answer was a 401: what the user says of those stands.
        C::Auth if on_status.contains_key(&401) => status_verdict(401, on_status),
        C::AuthUnavailable => Verdict::Wait,
        C::Auth
        | C::Dns
        | C::Connect
        | C::TlsConnect
        | C::TimeoutBeforeHeaders
        | C::TimeoutBody
        | C::Reset
        | C::Interrupted
        | C::LeaseExpired => Verdict::Retry,
        C::CertificateRefused => Verdict::GiveUp(DeadReason::CertificateRefused),
        C::EgressRefused => Verdict::GiveUp(DeadReason::EgressRefused),
        C::Corrupt => Verdict::GiveUp(DeadReason::Corrupt),
        C::CredentialRefused => Verdict::GiveUp(DeadReason::CredentialRefused),
        C::Released => Verdict::Release,
    }
}

fn status_verdict(status: u16, on_status: &OnStatus) -> Verdict {
    match on_status.get(&status) {
        Some(StatusAction::Done) => Verdict::Done,
        Some(StatusAction::Retry) => Verdict::Retry,
        Some(StatusAction::Dead) => Verdict::GiveUp(DeadReason::PermanentStatus),
        None => match status {
            200..=299 => Verdict::Done,
            408 | 409 | 425 | 429 | 500..=599 => Verdict::Retry,
            _ => Verdict::GiveUp(DeadReason::PermanentStatus),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: u16) -> Verdict {
        verdict(&Outcome::answered(status, Bytes::new(), Duration::ZERO), &OnStatus::new())
    }

    #[test]
    fn the_status_table_row_by_row() {
        let dead = Verdict::GiveUp(DeadReason::PermanentStatus);
        for status in 100..=599_u16 {
            let expected = match status {
                200..=299 => Verdict::Done,
                408 | 409 | 425 | 429 | 500..=599 => Verdict::Retry,
                _ => dead,
            };
            assert_eq!(after(status), expected, "{status}");
        }
    }

    #[test]
    fn the_class_table_row_by_row() {
        for class in OutcomeClass::ALL {
            let verdict = verdict(&Outcome::without_answer(class, "why", Duration::ZERO), &OnStatus::new());
            let expected = match class.as_str() {
                "dns"
                | "connect"
                | "tls_connect"
                | "timeout_before_headers"
                | "timeout_body"
                | "reset"
                | "interrupted"
                | "lease_expired"
                | "auth" => Verdict::Retry,
                "auth_unavailable" => Verdict::Wait,
                "certificate_refused" => Verdict::GiveUp(DeadReason::CertificateRefused),
                "egress_refused" => Verdict::GiveUp(DeadReason::EgressRefused),
                "corrupt" => Verdict::GiveUp(DeadReason::Corrupt),
                "credential_refused" => Verdict::GiveUp(DeadReason::CredentialRefused),
                "released" => Verdict::Release,
                _ => Verdict::GiveUp(DeadReason::PermanentStatus),
            };
            assert_eq!(verdict, expected, "{class:?}");
            assert_eq!(OutcomeClass::from_code(class.code()), Some(class));
        }
        assert_eq!(OutcomeClass::from_code(200), None);
    }

    #[test]
    fn a_user_may_treat_a_status_otherwise() {
        let on_status: OnStatus =
            [(404, StatusAction::Retry), (500, StatusAction::Dead), (302, StatusAction::Done)].into();
        let with = |status| verdict(&Outcome::answered(status, Bytes::new(), Duration::ZERO), &on_status);
        assert_eq!(with(404), Verdict::Retry);
        assert_eq!(with(500), Verdict::GiveUp(DeadReason::PermanentStatus));
        assert_eq!(with(302), Verdict::Done);
        assert_eq!(with(503), Verdict::Retry);
        let auth = Outcome { class: OutcomeClass::Auth, ..Outcome::answered(401, Bytes::new(), Duration::ZERO) };
        assert_eq!(verdict(&auth, &on_status), Verdict::Retry);
        let dead = [(401, StatusAction::Dead)].into();
        assert_eq!(verdict(&auth, &dead), Verdict::GiveUp(DeadReason::PermanentStatus));
    }

    #[test]
    fn words_read_back() {
        for reason in DeadReason::ALL {
            assert_eq!(DeadReason::parse(reason.as_str()), Some(reason));
            assert_eq!(DeadReason::from_code(reason.code()), Some(reason));
        }
        for action in ["done", "retry", "dead"] {
            assert_eq!(StatusAction::parse(action).map(StatusAction::as_str), Some(action));
        }
        assert_eq!(StatusAction::parse("maybe"), None);
    }
}
