//! `/credentials`: give, see and remove what calls carry. A secret goes in and never comes out.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::config::{CREDENTIAL_KEYS, CredentialConfig, Plain, Secret, credential_given};
use crate::security::credential::{KeptIn, Seen};
use crate::task::limits::CREDENTIAL_BODY_BYTES_MAX;

use super::access::Caller;
use super::audit::Telling;
use super::error::{Code, Problem};
use super::extract::{CredentialInPath, NoQuery, Prefixed, json_body};
use super::openapi::{bodies, parameters, words};
use super::state::{Api, CredentialChange};
use super::wire::{Findings, Object};

/// A credential as those see it who may: never its secrets.
#[derive(Serialize, ToSchema)]
#[schema(as = Credential)]
struct Shown {
    /// Its name.
    #[schema(value_type = words::CredentialName)]
    name: String,
    /// What it is; `null` where it cannot be read.
    #[schema(required)]
    kind: Option<&'static str>,
    /// The hosts it may go to.
    hosts: Vec<String>,
    /// Whether it may go over plain HTTP to hosts other than this machine.
    allow_plain_http: bool,
    /// The credentials that go along with it.
    #[schema(value_type = Vec<words::CredentialName>)]
    also: Vec<String>,
    /// What else was said of it, but for its secrets.
    #[schema(value_type = words::AnyObject)]
    settings: Map<String, Value>,
    /// Where it is kept.
    kept_in: Place,
    /// When it was given; `null` where the configuration says it.
    #[schema(required, value_type = Option<words::Time>)]
    changed_at: Option<String>,
    /// Why it cannot be used; `null`: it can.
    #[schema(required)]
    unreadable: Option<String>,
}

/// Where a credential is kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CredentialPlace)]
enum Place {
    /// In the configuration: the API does not change it.
    Configuration,
    /// In the store, sealed.
    Store,
}

impl Shown {
    fn of(seen: &Seen) -> Self {
        let config = seen.config.as_ref();
        let (kept_in, changed_at, unreadable) = match &seen.kept_in {
            KeptIn::Configuration => (Place::Configuration, None, None),
            KeptIn::Store { changed_at, unreadable } => {
                (Place::Store, Some(changed_at.to_string()), unreadable.clone())
            }
        };
        let texts = |items: &dyn Fn(&CredentialConfig) -> Vec<String>| config.map(items).unwrap_or_default();
        Self {
            name: seen.name.to_string(),
            kind: config.map(|config| config.kind.as_str()),
            hosts: texts(&|config| config.hosts.iter().map(ToString::to_string).collect()),
            allow_plain_http: config.is_some_and(|config| config.allow_plain_http),
            also: texts(&|config| config.also.iter().map(ToString::to_string).collect()),
            settings: config.map(settings).unwrap_or_default(),
            kept_in,
            changed_at,
            unreadable,
        }
    }
}

fn settings(config: &CredentialConfig) -> Map<String, Value> {
    let shown = |value| match value {
        Plain::Text(text) => Value::from(text),
        Plain::List(items) => Value::from(items),
    };
    config.kind.plain().into_iter().map(|(key, value)| (key.to_owned(), shown(value))).collect()
}

/// Every credential.
#[derive(Serialize, ToSchema)]
#[schema(as = CredentialList)]
struct Listed {
    /// By name.
    credentials: Vec<Shown>,
}

/// `GET /credentials`.
#[utoipa::path(
    get, path = "/credentials", operation_id = "list_credentials", tag = "credentials",
    summary = "List credentials",
    description = "Those of the configuration and those that were given, without their secrets.",
    responses((status = 200, description = "Every credential.", body = Listed)),
)]
pub(super) async fn list(State(api): State<Api>, _: NoQuery) -> Response {
    let credentials = api.wiring().credentials.all_seen().iter().map(Shown::of).collect();
    Json(Listed { credentials }).into_response()
}

/// `GET /credentials/{name}`.
#[utoipa::path(
    get, path = "/credentials/{name}", operation_id = "get_credential", tag = "credentials",
    summary = "Look at a credential", description = "Without its secrets, which nobody can see again.",
    params(parameters::CredentialInPath),
    responses((status = 200, description = "The credential.", body = Shown)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    CredentialInPath(name): CredentialInPath,
    _: NoQuery,
) -> Result<Response, Problem> {
    let seen = api.wiring().credentials.seen(&name).ok_or_else(Problem::no_credential)?;
    Ok(Json(Shown::of(&seen)).into_response())
}

/// `PUT /credentials/{name}`.
#[utoipa::path(
    put, path = "/credentials/{name}", operation_id = "put_credential", tag = "credentials",
    summary = "Give a credential",
    description = "In the place of another of this name. It is in force when this is answered, also for tasks that wait; it \
                   is kept sealed with the key that the configuration names in `credentials_key`. What stands in the \
                   configuration is changed there.",
    params(parameters::CredentialInPath),
    request_body = bodies::NewCredential,
    responses(
        (status = 200, description = "It took the place of another.", body = Shown),
        (status = 201, description = "There was none of this name.", body = Shown, headers(
            ("Location" = String, description = "The path of the credential."),
        )),
    ),
)]
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    CredentialInPath(name): CredentialInPath,
    (at, _, telling): (Prefixed, NoQuery, Telling),
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let raw = json_body(&api, &parts.headers, body, CREDENTIAL_BODY_BYTES_MAX).await?;
    let text = raw.text()?;
    let config = Box::new(read(text)?);
    if let Some(before) = api.wiring().credentials.seen(&name) {
        telling.before(told(&before));
    }
    let change = CredentialChange::Put { name: name.clone(), given: Secret::new(text.to_owned()), config };
    let replaced = (api.wiring().change_credentials)(change, caller.id).await?;
    let seen = api.wiring().credentials.seen(&name).ok_or_else(Problem::no_credential)?;
    telling.after(told(&seen));
    let shown = Json(Shown::of(&seen));
    if replaced {
        return Ok(shown.into_response());
    }
    let location = format!("{}/credentials/{name}", at.prefix);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], shown).into_response())
}

/// `DELETE /credentials/{name}`.
#[utoipa::path(
    delete, path = "/credentials/{name}", operation_id = "remove_credential", tag = "credentials",
    summary = "Remove a credential",
    description = "It is not in force any more, and not in the store; sealed bytes of it may stay in free pages of the file until they \
                   are used again. Tasks that name it wait for one of its name, at most `retry.credential_wait_max`.",
    params(parameters::CredentialInPath),
    responses((status = 204, description = "It is gone.")),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    CredentialInPath(name): CredentialInPath,
    (_, telling): (NoQuery, Telling),
) -> Result<Response, Problem> {
    if let Some(before) = api.wiring().credentials.seen(&name) {
        telling.before(told(&before));
    }
    (api.wiring().change_credentials)(CredentialChange::Remove(name), caller.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the audit log says of it: never its secrets.
fn told(seen: &Seen) -> Value {
    let shown = Shown::of(seen);
    json!({
        "kind": shown.kind, "hosts": shown.hosts, "allow_plain_http": shown.allow_plain_http, "also": shown.also,
        "settings": shown.settings,
    })
}

/// Reads a credential that is given. No fault repeats what was given: it may be the secret.
pub(super) fn read(text: &str) -> Result<CredentialConfig, Problem> {
    let value: Value = serde_json::from_str(text).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    if value.is_object() {
        let known: Vec<&str> = CREDENTIAL_KEYS.iter().map(|(key, _)| *key).collect();
        Object::read(text, "", &known, &mut findings);
    } else {
        findings.invalid("", "expected an object");
    }
    findings.or_problem_as(Code::InvalidCredential, Some(()))?;
    credential_given(&value).map_err(|faults| Problem::faults(Code::InvalidCredential, faults))
}
