//! The only place that knows which status an error has: every problem the API can answer (RFC 9457).

mod causes;

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::queue::command::AcceptError;
use crate::security::jwt::TokenFault;
use crate::security::scope::Scope;
use crate::task::limits::{AUTH_FAILURE_EVERY, ISSUER_FAILURE_KEPT};
use crate::task::{Fault, Span};

use super::openapi::refusals::ProblemCode;

/// The stable code of a problem; documented in `docs/api.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    MalformedJson,
    InvalidQuery,
    InvalidIdempotencyKey,
    BodyUnreadable,
    Unauthenticated,
    InsufficientScope,
    NotFound,
    NoSuchRoute,
    NoIssuer,
    MethodNotAllowed,
    BodyTimeout,
    WrongState,
    TaskIdTaken,
    TooManyKeys,
    KeyInFile,
    CredentialInConfiguration,
    NoCredentialsKey,
    TooManyCredentials,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidTask,
    InvalidFilter,
    InvalidKey,
    InvalidCredential,
    UnknownQueue,
    UnknownTaskType,
    EgressRefused,
    UnknownCredential,
    CredentialNotAllowed,
    CredentialOverPlainHttp,
    IdempotencyMismatch,
    QueueFull,
    AuthRateLimited,
    Internal,
    UnknownOutcome,
    StorageDamaged,
    Busy,
    Stopping,
    StorageFull,
    StorageUnavailable,
    AuditUnavailable,
    NotReady,
    IssuerUnavailable,
}

impl Code {
    /// Every code, in the order of their statuses.
    pub(super) const ALL: [Self; 43] = [
        Self::MalformedJson,
        Self::InvalidQuery,
        Self::InvalidIdempotencyKey,
        Self::BodyUnreadable,
        Self::Unauthenticated,
        Self::InsufficientScope,
        Self::NotFound,
        Self::NoSuchRoute,
        Self::NoIssuer,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::WrongState,
        Self::TaskIdTaken,
        Self::TooManyKeys,
        Self::KeyInFile,
        Self::CredentialInConfiguration,
        Self::NoCredentialsKey,
        Self::TooManyCredentials,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidTask,
        Self::InvalidFilter,
        Self::InvalidKey,
        Self::InvalidCredential,
        Self::UnknownQueue,
        Self::UnknownTaskType,
        Self::EgressRefused,
        Self::UnknownCredential,
        Self::CredentialNotAllowed,
        Self::CredentialOverPlainHttp,
        Self::IdempotencyMismatch,
        Self::QueueFull,
        Self::AuthRateLimited,
        Self::Internal,
        Self::UnknownOutcome,
        Self::StorageDamaged,
        Self::Busy,
        Self::Stopping,
        Self::StorageFull,
        Self::StorageUnavailable,
        Self::AuditUnavailable,
        Self::NotReady,
        Self::IssuerUnavailable,
    ];

    /// The word, the status, the title.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => ("malformed_json", S::BAD_REQUEST, "the body is not JSON"),
            Self::InvalidQuery => ("invalid_query", S::BAD_REQUEST, "the query is not valid"),
            Self::InvalidIdempotencyKey => {
                ("invalid_idempotency_key", S::BAD_REQUEST, "the Idempotency-Key is not valid")
            }
            Self::BodyUnreadable => ("body_unreadable", S::BAD_REQUEST, "the body could not be read"),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, "an API key or a token is needed"),
            Self::InsufficientScope => ("insufficient_scope", S::FORBIDDEN, "your scopes do not allow this"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "not found"),
            Self::NoSuchRoute => ("no_such_route", S::NOT_FOUND, "there is nothing at this path"),
            Self::NoIssuer => ("no_issuer", S::NOT_FOUND, "this server issues no ID tokens"),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "this method is not allowed here"),
            Self::BodyTimeout => ("body_timeout", S::REQUEST_TIMEOUT, "the body took too long to arrive"),
            Self::WrongState => ("wrong_state", S::CONFLICT, "the task's state does not allow this"),
            Self::TaskIdTaken => ("task_id_taken", S::CONFLICT, "another task has this task_id"),
            Self::TooManyKeys => ("too_many_keys", S::CONFLICT, "there are as many API keys as there may be"),
            Self::KeyInFile => ("key_in_file", S::CONFLICT, "the API key is kept in a file"),
            Self::CredentialInConfiguration => {
                ("credential_in_configuration", S::CONFLICT, "the credential is kept in the configuration")
            }
            Self::NoCredentialsKey => ("no_credentials_key", S::CONFLICT, "there is no key to seal credentials with"),
            Self::TooManyCredentials => {
                ("too_many_credentials", S::CONFLICT, "there are as many credentials as there may be")
            }
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "the body has to be JSON")
            }
            Self::InvalidTask => ("invalid_task", S::UNPROCESSABLE_ENTITY, "the task is not valid"),
            Self::InvalidFilter => ("invalid_filter", S::UNPROCESSABLE_ENTITY, "the filter is not valid"),
            Self::InvalidCredential => ("invalid_credential", S::UNPROCESSABLE_ENTITY, "the credential is not valid"),
            Self::InvalidKey => ("invalid_key", S::UNPROCESSABLE_ENTITY, "the API key asked for is not valid"),
            Self::UnknownQueue => ("unknown_queue", S::UNPROCESSABLE_ENTITY, "there is no such queue"),
            Self::UnknownTaskType => ("unknown_task_type", S::UNPROCESSABLE_ENTITY, "there is no such task type"),
            Self::EgressRefused => ("egress_refused", S::UNPROCESSABLE_ENTITY, "the target may not be called"),
            Self::UnknownCredential => ("unknown_credential", S::UNPROCESSABLE_ENTITY, "there is no such credential"),
            Self::CredentialNotAllowed => {
                ("credential_not_allowed", S::UNPROCESSABLE_ENTITY, "the credential may not go to this target")
            }
            Self::CredentialOverPlainHttp => {
                ("credential_over_plain_http", S::UNPROCESSABLE_ENTITY, "the credential may not go over plain HTTP")
            }
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", S::UNPROCESSABLE_ENTITY, "the Idempotency-Key was used for something else")
            }
            Self::QueueFull => ("queue_full", S::TOO_MANY_REQUESTS, "the queue is full"),
            Self::AuthRateLimited => ("auth_rate_limited", S::TOO_MANY_REQUESTS, "too many wrong API keys or tokens"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "the server made a mistake"),
            Self::UnknownOutcome => {
                ("unknown_outcome", S::INTERNAL_SERVER_ERROR, "it is not known whether this was done")
            }
            Self::StorageDamaged => ("storage_damaged", S::INTERNAL_SERVER_ERROR, "the store is damaged"),
            Self::Busy => ("busy", S::SERVICE_UNAVAILABLE, "the server is busy"),
            Self::Stopping => ("stopping", S::SERVICE_UNAVAILABLE, "the server is stopping"),
            Self::StorageFull => ("storage_full", S::SERVICE_UNAVAILABLE, "the disk is nearly full"),
            Self::StorageUnavailable => {
                ("storage_unavailable", S::SERVICE_UNAVAILABLE, "the store cannot be read at the moment")
            }
            Self::AuditUnavailable => {
                ("audit_unavailable", S::SERVICE_UNAVAILABLE, "the audit log cannot be written at the moment")
            }
            Self::NotReady => ("not_ready", S::SERVICE_UNAVAILABLE, "the server is not ready"),
            Self::IssuerUnavailable => {
                ("issuer_unavailable", S::SERVICE_UNAVAILABLE, "the issuer of the token cannot be asked for its keys")
            }
        }
    }

    /// The public word.
    pub(super) fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that goes with it.
    pub(super) fn status(self) -> StatusCode {
        self.row().1
    }

    /// What it means, for people.
    pub(super) fn title(self) -> &'static str {
        self.row().2
    }

    /// Seconds after which a repeat makes sense, for those that pass.
    pub(super) fn retry_after_secs(self) -> Option<u32> {
        if matches!(self, Self::Busy | Self::QueueFull | Self::StorageUnavailable) {
            Some(1)
        } else if matches!(self, Self::Stopping | Self::NotReady | Self::AuditUnavailable) {
            Some(5)
        } else if self == Self::AuthRateLimited {
            // A refused attempt is not counted: after this long there is room for one.
            Some(secs(AUTH_FAILURE_EVERY))
        } else if self == Self::IssuerUnavailable {
            Some(secs(ISSUER_FAILURE_KEPT))
        } else {
            (self == Self::StorageFull).then_some(30)
        }
    }
}

/// As whole seconds, no shorter.
fn secs(span: Span) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// Where in a request a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Place {
    /// A JSON pointer into the body.
    Pointer(String),
    /// A parameter of the query.
    Parameter(String),
}

/// One of a problem's `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fault)]
struct Item {
    #[serde(flatten)]
    #[schema(inline)]
    place: Place,
    /// What is wrong there, and what was expected.
    detail: String,
}

/// What went wrong with a request. As a response it has no body yet: the outermost layer, which knows the request id,
/// renders it ([`Problem::render`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Item>,
    challenge: Option<Cow<'static, str>>,
    cause: Option<String>,
    /// Seconds after which a repeat makes sense, where that is known better than by the code.
    retry_after_secs: Option<u32>,
}

/// A refusal (RFC 9457), in the order people read it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// `urn:sendoff:problem:` and the code.
    #[schema(format = "uri")]
    r#type: String,
    /// What the code means.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    #[schema(value_type = ProblemCode)]
    code: &'a str,
    /// What happened this time, and what to do.
    detail: &'a str,
    /// Every fault that was found, at most 100.
    #[serde(skip_serializing_if = "<[Item]>::is_empty")]
    errors: &'a [Item],
    /// As in `X-Request-Id`.
    request_id: &'a str,
}

impl Problem {
    /// A problem with a sentence about this occurrence.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), challenge: None, cause: None, retry_after_secs: None }
    }

    /// Faults of the body. `code` is their common kind.
    pub(super) fn faults(code: Code, faults: Vec<Fault>) -> Self {
        let errors = faults
            .into_iter()
            .map(|fault| Item { place: Place::Pointer(fault.pointer), detail: fault.detail })
            .collect();
        Self { errors, ..Self::new(code, "") }.summed_up()
    }

    /// Faults of the query: (parameter, what is wrong).
    pub(super) fn query(faults: Vec<(String, String)>) -> Self {
        let errors = faults.into_iter().map(|(name, detail)| Item { place: Place::Parameter(name), detail }).collect();
        Self { errors, ..Self::new(Code::InvalidQuery, "") }.summed_up()
    }

    /// With the first fault as the detail, and how many there are.
    fn summed_up(mut self) -> Self {
        if let Some(Item { place: Place::Pointer(at) | Place::Parameter(at), detail }) = self.errors.first() {
            let more = self.errors.len() - 1;
            let at = if at.is_empty() { "the body" } else { at };
            self.detail =
                if more == 0 { format!("{at}: {detail}") } else { format!("{at}: {detail} (and {more} more)") };
        }
        self
    }

    /// The same with the number of the line before each fault of a task (pointers `/INDEX…`). `line_of` has the line of
    /// each task, by index.
    pub(super) fn on_lines(mut self, line_of: &[usize]) -> Self {
        for item in &mut self.errors {
            let Place::Pointer(pointer) = &item.place else { continue };
            let index = pointer.split('/').nth(1).and_then(|index| index.parse::<usize>().ok());
            if let Some(line) = index.and_then(|index| line_of.get(index)) {
                item.detail = format!("line {line}: {}", item.detail);
            }
        }
        self.summed_up()
    }

    /// No key, or one that nobody holds (`rejected`): RFC 6750 section 3.
    pub(super) fn unauthenticated(rejected: bool) -> Self {
        let (detail, challenge) = if rejected {
            ("this API key is not known, has expired or was revoked", r#"Bearer error="invalid_token""#)
        } else {
            ("send an API key: `Authorization: Bearer so_…`", "Bearer")
        };
        Self { challenge: Some(Cow::Borrowed(challenge)), ..Self::new(Code::Unauthenticated, detail) }
    }

    /// A token that is not accepted: RFC 6750 section 3.1.
    pub(super) fn token_refused(fault: TokenFault) -> Self {
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{fault}""#);
        let detail = format!("this token is not accepted: {fault}");
        Self { challenge: Some(Cow::Owned(challenge)), ..Self::new(Code::Unauthenticated, detail) }
    }

    /// A token of which nobody can tell whether it is good.
    pub(super) fn issuer_unavailable(again: Span) -> Self {
        let detail = "the issuer of this token did not tell its keys: send it again, or use an API key";
        Self { retry_after_secs: Some(secs(again).max(1)), ..Self::new(Code::IssuerUnavailable, detail) }
    }

    /// A caller who may do other things: RFC 6750 section 3.1.
    pub(super) fn insufficient_scope(needed: Scope) -> Self {
        let needed = needed.as_str();
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{needed}""#);
        let detail = format!("this needs the scope `{needed}`");
        Self { challenge: Some(Cow::Owned(challenge)), ..Self::new(Code::InsufficientScope, detail) }
    }

    /// There is no such credential.
    pub(super) fn no_credential() -> Self {
        Self::new(Code::NotFound, "there is no such credential")
    }

    /// There is no such API key.
    pub(super) fn no_key() -> Self {
        Self::new(Code::NotFound, "there is no such API key, or it was revoked")
    }

    /// The same with more to say behind each fault.
    pub(super) fn noting(mut self, note: &str) -> Self {
        for item in &mut self.errors {
            item.detail.push_str(note);
        }
        self.summed_up()
    }

    /// There is no such task.
    pub(super) fn no_task() -> Self {
        Self::new(Code::NotFound, "there is no such task, or its record was removed")
    }

    /// There is no such queue (as a resource: what a task names wrongly is `unknown_queue`).
    pub(super) fn no_queue() -> Self {
        Self::new(Code::NotFound, "there is no such queue")
    }

    /// JSON that does not parse.
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        Self::new(Code::MalformedJson, error.to_string())
    }

    /// A mistake of ours.
    pub(super) fn internal(cause: impl Into<String>) -> Self {
        let detail = "whether the request was carried out is not known: repeat it with the same Idempotency-Key";
        Self::new(Code::Internal, detail).because(cause)
    }

    /// The same with what lies behind it.
    pub(super) fn because(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Its stable code.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// What operators should know and callers need not.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The body: `application/problem+json`.
    pub(super) fn render(&self, request_id: &str) -> Vec<u8> {
        let (code, status, title) = self.code.row();
        let body = ProblemBody {
            r#type: format!("urn:sendoff:problem:{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            errors: &self.errors,
            request_id,
        };
        // Strings and numbers only: there is nothing in it that could not be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Why tasks were not accepted; `in_batch` says whether pointers start with the task's index.
    pub(super) fn accept(error: AcceptError, in_batch: bool) -> Self {
        let pointer =
            |index: usize, field: &str| if in_batch { format!("/{index}/{field}") } else { format!("/{field}") };
        let text = error.to_string();
        match error {
            AcceptError::UnknownQueue { index, nearest, .. } => {
                let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                Self::faults(Code::UnknownQueue, vec![Fault::new(pointer(index, "queue"), text + &hint)])
            }
            AcceptError::RetryPolicy { index, .. } => {
                Self::faults(Code::InvalidTask, vec![Fault::new(pointer(index, "retry"), text)])
            }
            AcceptError::NameTaken { index, .. } => {
                Self::faults(Code::TaskIdTaken, vec![Fault::new(pointer(index, "task_id"), text)])
            }
            AcceptError::KeyDamaged(damage) => damage.into(),
            AcceptError::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, text),
            AcceptError::QueueFull { .. } => Self::new(Code::QueueFull, text),
            AcceptError::StorageFull { .. } => Self::new(Code::StorageFull, text),
            AcceptError::Engine(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.row().1.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = self.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(secs) = self.retry_after_secs.or(self.code.retry_after_secs()) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::command::EngineError;
    use crate::queue::handle::{BulkError, WaitError};
    use crate::queue::store::StoreError;

    #[test]
    fn every_code_is_documented_with_its_status() {
        let source = include_str!("mod.rs");
        let docs = include_str!("../../../docs/api.md");
        let names = source.split("fn row(").nth(1).unwrap().split("/// The public word.").next().unwrap();
        let codes: Vec<_> = names.split("(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(codes.len(), 43, "{codes:?}");
        let missing: Vec<_> = codes.iter().filter(|code| !docs.contains(&format!("| `{code}` |"))).collect();
        assert!(missing.is_empty(), "docs/api.md does not explain {missing:?}");
    }

    #[test]
    fn errors_carry_what_lies_behind_them_for_operators_only() {
        let problem = Problem::from(BulkError::Store(StoreError::Unavailable("no such device".into())));
        assert_eq!(problem.cause(), Some("the store cannot be read: no such device"));
        assert!(!String::from_utf8(problem.render("r")).unwrap().contains("no such device"));
        assert_eq!(Problem::from(BulkError::Engine(EngineError::Busy)).code(), Code::Busy);
        assert_eq!(Problem::from(WaitError::Engine(EngineError::Stopping)).code(), Code::Stopping);
    }
}
