//! `/.well-known`: what handlers need to verify our ID tokens with an ordinary library (OIDC Discovery 1.0,
//! RFC 7517). Public, and nothing in it is secret.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Code, Problem};
use super::openapi::words::JsonWebKeySet;
use super::state::Api;
use crate::security::credential::Published;
use crate::task::limits::ISSUER_DOCUMENTS_KEPT;

/// Where the public keys are, below the issuer.
const KEYS: &str = "/.well-known/jwks.json";

/// The server as an issuer of ID tokens.
#[derive(Serialize, ToSchema)]
struct OpenIdConfiguration {
    /// `server.public_url`: the claim `iss` of every token.
    #[schema(format = "uri")]
    issuer: String,
    /// Where the public keys are.
    #[schema(format = "uri")]
    jwks_uri: String,
    /// Nobody logs in here: tokens are given to tasks only.
    #[schema(value_type = Vec<String>)]
    response_types_supported: [&'static str; 1],
    /// A `sub` is the same for every audience.
    #[schema(value_type = Vec<String>)]
    subject_types_supported: [&'static str; 1],
    /// What signs the tokens.
    #[schema(value_type = Vec<String>)]
    id_token_signing_alg_values_supported: [&'static str; 1],
    /// What the tokens say.
    #[schema(value_type = Vec<String>)]
    claims_supported: [&'static str; 7],
}

/// `GET /.well-known/openid-configuration`.
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", operation_id = "get_openid_configuration", tag = "operations",
    security(), summary = "This server as an issuer of ID tokens",
    description = "OpenID Connect Discovery 1.0, for handlers that verify the tokens of the calls they get. Needs no key.",
    responses((status = 200, description = "Who issues, and where its keys are.", body = OpenIdConfiguration)),
)]
pub(super) async fn configuration(State(api): State<Api>) -> Result<Response, Problem> {
    let Published { issuer, .. } = published(&api)?;
    Ok(kept(OpenIdConfiguration {
        jwks_uri: format!("{issuer}{KEYS}"),
        issuer,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
        claims_supported: ["iss", "sub", "aud", "iat", "exp", "jti", "sendoff"],
    }))
}

/// `GET /.well-known/jwks.json`.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "get_jwks", tag = "operations", security(),
    summary = "The keys of the ID tokens",
    description = "Public keys (RFC 7517): those that sign, those that will soon, those whose last tokens still hold. \
                   Needs no key.",
    responses((status = 200, description = "The keys.", body = JsonWebKeySet)),
)]
pub(super) async fn keys(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(kept(published(&api)?.keys))
}

fn published(api: &Api) -> Result<Published, Problem> {
    let detail = "server.public_url is not set in the configuration; the operator of this server has to set it";
    api.wiring().credentials.published(api.clock().now().wall).ok_or_else(|| Problem::new(Code::NoIssuer, detail))
}

/// Copies may be kept for a while: keys are published for much longer before they sign.
fn kept<T: Serialize>(document: T) -> Response {
    let cache = format!("public, max-age={}", ISSUER_DOCUMENTS_KEPT.as_millis() / 1_000);
    ([(header::CACHE_CONTROL, cache)], Json(document)).into_response()
}
