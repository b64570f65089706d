//! `/keys`: make, see and revoke API keys. A secret is in the answer that makes it, and nowhere else.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::security::api_key::{FreshKey, KeyRecord};
use crate::security::key_ring::AdminSeen;
use crate::security::scope::Scopes;
use crate::task::WallMs;
use crate::task::limits::{KEY_SCOPES_MAX, RUN_AHEAD_MAX, SMALL_BODY_BYTES_MAX};
use crate::task::name::KeyName;

use super::access::Caller;
use super::audit::Telling;
use super::error::{Code, Problem};
use super::extract::{KeyInPath, NoQuery, Prefixed, json_body};
use super::openapi::{bodies, parameters, words};
use super::state::{Api, KeyChange};
use super::wire::{Findings, Object, expected, name, string, time_ahead};
use super::wire_task::required;

/// An API key as those see it who may.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct KeyShown<'a> {
    /// The public part of the key.
    #[schema(value_type = words::KeyId)]
    id: &'a str,
    /// What it is for.
    name: &'a str,
    /// What it may do.
    #[schema(value_type = Vec<words::KeyScope>)]
    scopes: Vec<String>,
    /// `null` for the key in `admin.key`.
    #[schema(required, value_type = Option<words::Time>)]
    created_at: Option<String>,
    /// From when on it is void; `null`: never.
    #[schema(required, value_type = Option<words::Time>)]
    expires_at: Option<String>,
    /// To the minute; `null`: never, or for the key in `admin.key` not since the start.
    #[schema(required, value_type = Option<words::Time>)]
    last_used_at: Option<String>,
    /// `file`: this is the key in `admin.key`, which is revoked by removing the file and starting anew.
    kept_in: KeptIn,
    /// The key itself. Only in the answer that made it: it cannot be shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<&'a str>,
}

/// Where a key is kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ApiKeyPlace)]
enum KeptIn {
    /// In the store, as a hash.
    Store,
    /// In `admin.key`.
    File,
}

impl<'a> KeyShown<'a> {
    fn of(record: &'a KeyRecord, key: Option<&'a str>) -> Self {
        let shown = |at: WallMs| at.to_string();
        Self {
            id: &record.id,
            name: record.name.as_str(),
            scopes: record.scopes.texts().collect(),
            created_at: Some(shown(record.created_at)),
            expires_at: record.expires_at.map(shown),
            last_used_at: record.last_used_at.map(shown),
            kept_in: KeptIn::Store,
            key,
        }
    }

    fn of_admin(admin: &'a AdminSeen) -> Self {
        Self {
            id: &admin.id,
            name: "admin.key",
            scopes: admin.scopes.texts().collect(),
            created_at: None,
            expires_at: None,
            last_used_at: admin.last_used_at.map(|at| at.to_string()),
            kept_in: KeptIn::File,
            key: None,
        }
    }
}

/// Every API key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyList)]
struct Listed<'a> {
    /// The one in `admin.key`, then the others from the oldest on; expired ones too.
    keys: Vec<KeyShown<'a>>,
}

/// `GET /keys`.
#[utoipa::path(
    get, path = "/keys", operation_id = "list_keys", tag = "keys",
    summary = "List API keys", description = "Without their secrets, which nobody can see again.",
    responses((status = 200, description = "Every key.", body = Listed)),
)]
pub(super) async fn list(State(api): State<Api>, _: NoQuery) -> Response {
    let (admin, records) = (api.wiring().keys.admin(), api.wiring().keys.records());
    let rest = records.iter().map(|record| KeyShown::of(record, None));
    Json(Listed { keys: std::iter::once(KeyShown::of_admin(&admin)).chain(rest).collect() }).into_response()
}

/// `POST /keys`.
#[utoipa::path(
    post, path = "/keys", operation_id = "create_key", tag = "keys",
    summary = "Make an API key",
    description = "It is in force at once. Its secret is in this answer, and nowhere else: only a hash of it is kept. To \
                   rotate a key, make a second one, hand it out, and revoke the first.",
    request_body = bodies::NewKey,
    responses((status = 201, description = "The key, with its secret.", body = KeyShown, headers(
        ("Location" = String, description = "The path of the key."),
    ))),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    (at, telling): (Prefixed, Telling),
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let raw = json_body(&api, &parts.headers, body, SMALL_BODY_BYTES_MAX).await?;
    let now = api.clock().now().wall;
    let asked = read(raw.text()?, now)?;
    let fresh = FreshKey::generate().map_err(|error| Problem::internal(error.to_string()))?;
    let record = KeyRecord {
        id: Arc::from(fresh.id()),
        name: asked.name,
        digest: fresh.digest(),
        scopes: Arc::new(asked.scopes),
        created_at: now,
        expires_at: asked.expires_at,
        last_used_at: None,
    };
    telling.object(format!("/keys/{}", record.id));
    telling.after(told(&record));
    (api.wiring().change_keys)(KeyChange::Create(record.clone()), caller.id).await?;
    let location = format!("{}/keys/{}", at.prefix, record.id);
    let shown = Json(KeyShown::of(&record, Some(fresh.reveal())));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], shown).into_response())
}

/// `GET /keys/{id}`.
#[utoipa::path(
    get, path = "/keys/{id}", operation_id = "get_key", tag = "keys",
    summary = "Look at an API key", description = "Without its secret, which nobody can see again.",
    params(parameters::KeyInPath),
    responses((status = 200, description = "The key.", body = KeyShown)),
)]
pub(super) async fn show(State(api): State<Api>, KeyInPath(id): KeyInPath, _: NoQuery) -> Result<Response, Problem> {
    let keys = &api.wiring().keys;
    let admin = keys.admin();
    if *admin.id == *id {
        return Ok(Json(KeyShown::of_admin(&admin)).into_response());
    }
    let record = keys.record(&id).ok_or_else(Problem::no_key)?;
    Ok(Json(KeyShown::of(&record, None)).into_response())
}

/// `DELETE /keys/{id}`.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "revoke_key", tag = "keys",
    summary = "Revoke an API key",
    description = "It is void when this is answered, for good; requests under way with it go on. The key in `admin.key` \
                   cannot be revoked so: remove the file and start anew.",
    params(parameters::KeyInPath),
    responses((status = 204, description = "It is void.")),
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    KeyInPath(id): KeyInPath,
    telling: Telling,
    _: NoQuery,
) -> Result<Response, Problem> {
    if let Some(record) = api.wiring().keys.record(&id) {
        telling.before(told(&record));
    }
    if *api.wiring().keys.admin().id == *id {
        let detail = "this is the key in `admin.key`: remove that file and start the server anew, and it makes another";
        return Err(Problem::new(Code::KeyInFile, detail));
    }
    (api.wiring().change_keys)(KeyChange::Revoke(Arc::from(id)), caller.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the audit log is told of a key.
fn told(record: &KeyRecord) -> Value {
    json!({
        "name": record.name.as_str(),
        "scopes": record.scopes.texts().collect::<Vec<_>>(),
        "expires_at": record.expires_at.map(|at| at.to_string()),
    })
}

/// What `POST /keys` asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    name: KeyName,
    scopes: Scopes,
    expires_at: Option<WallMs>,
}

/// The fields of a new key.
pub(super) const KEY_FIELDS: [&str; 3] = ["name", "scopes", "expires_at"];

/// Reads a new key.
pub(super) fn read(text: &str, now: WallMs) -> Result<Asked, Problem> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| Problem::malformed(&error))?;
    let mut findings = Findings::default();
    let Some(object) = Object::read(text, "", &KEY_FIELDS, &mut findings) else {
        return findings.or_problem_as(Code::InvalidKey, None);
    };
    required(&object, "name", &mut findings);
    required(&object, "scopes", &mut findings);
    let key_name = object.get("name", &mut findings, name(KeyName::parse));
    let key_scopes = scopes(&object, &mut findings);
    let expires_at = object.get("expires_at", &mut findings, |text| {
        let at = time_ahead(now, RUN_AHEAD_MAX)(text)?;
        if at > now { Ok(at) } else { Err(format!("has to be later than now, {now}, not {at}")) }
    });
    let asked = key_name.zip(key_scopes).map(|(name, scopes)| Asked { name, scopes, expires_at });
    findings.or_problem_as(Code::InvalidKey, asked)
}

fn scopes(object: &Object<'_>, findings: &mut Findings) -> Option<Scopes> {
    let texts = object.get("scopes", findings, |text| {
        let items: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(text).map_err(|_kind| expected("an array of scopes", text))?;
        items.into_iter().take(KEY_SCOPES_MAX + 1).map(|item| string(item.get())).collect::<Result<Vec<_>, _>>()
    })?;
    match Scopes::parse(texts.iter().map(AsRef::as_ref)) {
        Ok(scopes) => Some(scopes),
        Err((index, error)) => {
            let at = if texts.is_empty() { "/scopes".to_owned() } else { format!("/scopes/{index}") };
            findings.invalid(at, error.to_string());
            None
        }
    }
}
