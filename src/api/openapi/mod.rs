//! The OpenAPI document: what every path takes and answers, for people (`/docs`) and for generators of clients.
//!
//! ```text
//! handlers (#[utoipa::path])   path, parameters, body, what success looks like
//! answers (derive ToSchema)    the very structs that are serialised
//! bodies, parameters, words    what is read by hand, declared here; tests hold both together
//! refusals                     which operation can say which code; the rest comes from `error::Code`
//! ```
//!
//! `docs/openapi.json` is the document in the repository; a test compares it with the one made here.

use std::sync::LazyLock;

use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, HeaderBuilder, ObjectBuilder, Ref, RefOr, Type};

use super::router::{Audited, audited, needs};
use super::{batch, credentials, dlq, docs, keys, ops, queues, tasks, well_known};

/// A named component of the document, never a value.
macro_rules! component {
    ($(#[$doc:meta])* $name:ident = $schema:expr) => {
        $(#[$doc])*
        pub(in crate::api) enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $schema.into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    };
}

pub(super) mod bodies;
#[cfg(test)]
pub(super) mod contract_tests;
pub(super) mod parameters;
pub(super) mod refusals;
#[cfg(test)]
mod tests;
pub(super) mod words;

/// Reads well where a document is shown, above all operations.
const ABOUT: &str = "\
The HTTP task queue you run yourself.

- **Key**: `Authorization: Bearer so_…` for everything but health, this document and its page, and `/.well-known`; or a \
token of an issuer that the configuration names.
- **Scopes**: a key holds some of `enqueue`, `read`, `read_payload`, `manage`, `redrive`, `metrics`, `admin`, all but the \
last two of every queue or of some; `x-required-scope` says which one an operation needs. What a key may not see is not \
there: 404, or left out of lists.
- **Audited**: operations that can be refused with `audit_unavailable` are administrative acts: each has a line in the \
audit log before it is answered.
- **Durable**: a task that was answered with 200 or 201 is on disk. A 4xx is a refusal. After a 5xx or no answer it is \
not known: repeat with the same `Idempotency-Key`.
- **Pages**: pass `next` as `cursor` for the page after; `null` means there is none.
- **Refusals** are `application/problem+json` (RFC 9457) with a stable `code`; `errors` name every fault at once.
- `HEAD` works wherever `GET` does; `OPTIONS` answers 204 with `Allow`. Every path is also served under `/v1`.";

#[derive(OpenApi)]
#[openapi(
    info(title = "sendoff", description = ABOUT),
    servers((url = "/"), (url = "/v1", description = "The same, by version")),
    tags(
        (name = "tasks", description = "Enqueue, look, wait, cancel, run now"),
        (name = "queues", description = "How queues stand; pause and resume"),
        (name = "dead letters", description = "Tasks that were given up: look, redrive, purge"),
        (name = "keys", description = "API keys: make, list, revoke"),
        (name = "credentials", description = "What calls carry: give, list, remove"),
        (name = "operations", description = "For those who run the server"),
    ),
    security(("api_key" = [])),
    components(schemas(
        bodies::HttpRequest, bodies::NewTask, words::CredentialName, words::KeyId, words::KeyScope, bodies::RetryOverrides, refusals::ProblemCode, super::error::ProblemBody,
        super::tasks::RemovedTask, words::DeadLetterReason, words::QueueName, words::StatusVerdict, words::TaskId, words::TaskStatus, words::TaskType, words::True,
    )),
    paths(
        tasks::create, batch::create, tasks::list, tasks::show, tasks::cancel, tasks::run,
        queues::list, queues::show, queues::pause, queues::resume,
        dlq::list, dlq::show, dlq::redrive, dlq::redrive_all, dlq::purge, dlq::purge_all,
        keys::list, keys::create, keys::show, keys::revoke,
        credentials::list, credentials::show, credentials::put, credentials::remove,
        ops::metrics, ops::healthz, ops::readyz, openapi, docs::page, well_known::configuration, well_known::keys,
    ),
)]
struct Document;

/// The text of the document, made once.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(text()));

/// The document as JSON, indented, with a line feed at its end.
fn text() -> String {
    // Strings and numbers only: there is nothing in it that could not be written.
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// `GET /openapi.json`.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "operations", security(),
    summary = "This document", description = "OpenAPI 3.1. Needs no key.",
    responses((status = 200, description = "The document.", body = super::openapi::words::AnyObject)),
)]
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// The document: what the attributes say, and to every operation what all of them have.
fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("so_<id>_<secret>");
    let key = key.description(Some("An API key; the first one is in `data/admin.key`. Or a bearer token (JWT) of an issuer that the configuration names."));
    components.add_security_scheme("api_key", SecurityScheme::Http(key.build()));
    let id = ObjectBuilder::new().schema_type(Type::String);
    let id = HeaderBuilder::new().schema(Some(id)).description(Some("The id of this request: yours, else a new one."));
    components.headers.insert("X-Request-Id".to_owned(), RefOr::T(id.build()));
    components.parameters.insert("X-Request-Id".to_owned(), RefOr::T(parameters::request_id()));
    for (path, item) in &mut document.paths.paths {
        complete(path, item, components);
        let id = Ref::new("#/components/parameters/X-Request-Id");
        item.parameters.get_or_insert_default().push(RefOr::Ref(id));
        for operation in operations(item) {
            for response in operation.responses.responses.values_mut() {
                with_request_id(response);
            }
        }
    }
    for response in components.responses.values_mut() {
        with_request_id(response);
    }
    document
}

/// Adds to each operation of a path what follows from the router's table: the scope it needs, whether it is an
/// administrative act, and how it can be refused.
fn complete(path: &str, item: &mut PathItem, components: &mut Components) {
    let methods = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ];
    for (method, operation) in methods {
        let Some(operation) = operation else { continue };
        if let Some(scope) = needs(&method, path) {
            let said = Extensions::from_iter([("x-required-scope", scope.as_str())]);
            operation.extensions.get_or_insert_default().merge(said);
        }
        let is_act = audited(&method, path) == Some(Audited::Always);
        if is_act {
            operation
                .description
                .get_or_insert_default()
                .push_str(" An administrative act: it has a line in the audit log.");
        }
        refuse(operation, is_act, components);
    }
}

/// The operations of a path. There are others in OpenAPI; this API has none of them.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// Adds every refusal that an operation can answer with, as a reference to a component.
fn refuse(operation: &mut Operation, is_act: bool, components: &mut Components) {
    let refusals = operation.operation_id.as_deref().and_then(|id| refusals::by_status(id, is_act)).unwrap_or_default();
    for (status, codes) in refusals {
        let name = refusals::component(&codes);
        let reference = Ref::from_response_name(&name);
        components.responses.entry(name).or_insert_with(|| RefOr::T(refusals::response(status, &codes)));
        operation.responses.responses.insert(status.to_string(), RefOr::Ref(reference));
    }
}

fn with_request_id(response: &mut RefOr<utoipa::openapi::Response>) {
    if let RefOr::T(response) = response {
        let header = RefOr::Ref(Ref::new("#/components/headers/X-Request-Id"));
        response.headers.insert("X-Request-Id".to_owned(), header);
    }
}
