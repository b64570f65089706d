//! Which refusals an operation can answer with. Status, title and `Retry-After` of each come from
//! [`Code`]; what is written down here is only who can say what.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::{AllOfBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, Response, ResponseBuilder, Type};

use crate::api::error::Code;

use super::words::one_of_words;

component!(
    /// The stable code of a problem.
    ProblemCode = one_of_words("What went wrong; stable.", Code::ALL.map(Code::as_str))
);

/// A key or a token is needed, with the scope of the operation.
const KEY: &[Code] = &[Code::Unauthenticated, Code::AuthRateLimited, Code::InsufficientScope, Code::IssuerUnavailable];
/// Parameters of the query are read, or there must be none.
const QUERY: &[Code] = &[Code::InvalidQuery];
/// A body is read (`extract`).
const BODY: &[Code] = &[
    Code::MalformedJson,
    Code::BodyUnreadable,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::Busy,
];
/// The engine is asked (`EngineError`).
pub(in crate::api) const ENGINE: &[Code] = &[Code::Busy, Code::Stopping, Code::UnknownOutcome];
/// The store is read (`StoreError`).
pub(in crate::api) const STORE: &[Code] = &[Code::StorageDamaged, Code::StorageUnavailable];
/// API keys are changed (`KeyChangeError`).
const KEPT: &[Code] = &[Code::StorageFull, Code::UnknownOutcome];
/// Something is done to one task (`TaskActionError`, without the engine's part).
pub(in crate::api) const ACTION: &[Code] = &[Code::NotFound, Code::WrongState, Code::StorageDamaged];
/// It is written to the audit log first and last (`NotAdmitted`).
const AUDIT: &[Code] = &[Code::Busy, Code::AuditUnavailable];
/// Tasks are accepted (`AcceptError`, without the engine's part).
pub(in crate::api) const ACCEPT: &[Code] = &[
    Code::InvalidTask,
    Code::UnknownQueue,
    Code::TaskIdTaken,
    Code::IdempotencyMismatch,
    Code::QueueFull,
    Code::StorageFull,
];
/// Tasks are read (`wire_task`), and an `Idempotency-Key`.
const TASK: &[Code] = &[
    Code::UnknownTaskType,
    Code::EgressRefused,
    Code::UnknownCredential,
    Code::CredentialNotAllowed,
    Code::CredentialOverPlainHttp,
    Code::InvalidIdempotencyKey,
];

/// A credential is given (`CredentialChangeError`).
const CREDENTIAL: &[Code] = &[
    Code::NotFound,
    Code::InvalidCredential,
    Code::CredentialInConfiguration,
    Code::NoCredentialsKey,
    Code::TooManyCredentials,
    Code::Stopping,
];

/// The refusals of an operation; `None` for one that is not known here.
fn of(operation: &str) -> Option<Vec<&'static [Code]>> {
    Some(match operation {
        "create_task" | "create_tasks" => vec![KEY, QUERY, BODY, TASK, ACCEPT, ENGINE, STORE],
        "list_tasks" => vec![KEY, QUERY, STORE],
        "get_task" => vec![KEY, QUERY, &[Code::NotFound], ENGINE, STORE],
        "cancel_task" | "run_task" | "redrive_dead_letter" | "purge_dead_letter" => {
            vec![KEY, QUERY, ACTION, ENGINE, STORE]
        }
        "list_queues" => vec![KEY, QUERY, ENGINE],
        "get_queue" | "pause_queue" | "resume_queue" => vec![KEY, QUERY, &[Code::NotFound], ENGINE],
        "list_dead_letters" => vec![KEY, QUERY, ENGINE, STORE],
        "get_dead_letter" => vec![KEY, QUERY, &[Code::NotFound], STORE],
        "redrive_dead_letters" | "purge_dead_letters" => {
            vec![KEY, QUERY, BODY, &[Code::InvalidFilter], ENGINE, STORE]
        }
        "get_key" | "get_credential" => vec![KEY, QUERY, &[Code::NotFound]],
        "create_key" => vec![KEY, QUERY, BODY, &[Code::InvalidKey, Code::TooManyKeys], KEPT],
        "revoke_key" => vec![KEY, QUERY, &[Code::NotFound, Code::KeyInFile], KEPT],
        "put_credential" => vec![KEY, QUERY, BODY, CREDENTIAL, KEPT],
        "remove_credential" => {
            vec![KEY, QUERY, &[Code::NotFound, Code::CredentialInConfiguration, Code::Busy, Code::Stopping], KEPT]
        }
        "get_metrics" | "list_keys" | "list_credentials" => vec![KEY, QUERY],
        "get_readiness" => vec![&[Code::NotReady]],
        "get_openid_configuration" | "get_jwks" => vec![&[Code::NoIssuer]],
        "get_health" | "get_openapi" | "get_docs" => Vec::new(),
        _ => return None,
    })
}

/// The refusals of an operation by status, in the order of [`Code::ALL`]; `audited` says whether it is an administrative
/// act. A mistake of ours can happen anywhere.
pub(in crate::api) fn by_status(operation: &str, audited: bool) -> Option<BTreeMap<u16, Vec<Code>>> {
    let mut sets = of(operation)?;
    sets.extend(audited.then_some(AUDIT));
    let can = |code: &Code| *code == Code::Internal || sets.iter().any(|set| set.contains(code));
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in Code::ALL.into_iter().filter(can) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    Some(by_status)
}

/// The name of the component that documents these codes.
pub(super) fn component(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(".")
}

/// The answer that carries one of these codes, all of one status.
pub(super) fn response(status: u16, codes: &[Code]) -> Response {
    let words = codes.iter().map(|code| code.as_str());
    let narrowed = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("status", ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([status])))
        .property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(narrowed);
    let content = utoipa::openapi::ContentBuilder::new().schema(Some(schema)).build();
    let lines = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title()));
    let mut response = ResponseBuilder::new()
        .description(lines.collect::<Vec<_>>().join("; "))
        .content("application/problem+json", content);
    if codes.iter().any(|code| code.retry_after_secs().is_some()) {
        response = response.header("Retry-After", retry_after());
    }
    if codes.contains(&Code::Unauthenticated) || codes.contains(&Code::InsufficientScope) {
        response = response.header("WWW-Authenticate", challenge());
    }
    response.build()
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_u32)).examples([json!(1)]);
    HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds after which a repeat makes sense.")).build()
}

fn challenge() -> Header {
    let challenge = ObjectBuilder::new().schema_type(Type::String).examples([json!("Bearer")]);
    HeaderBuilder::new().schema(Some(challenge)).description(Some("RFC 6750 section 3.")).build()
}
