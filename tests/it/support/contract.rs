//! Holds every answer that a test sees against `docs/openapi.json`: its status, its headers, its code, its body.
//!
//! The unit tests of the API include this file too (`src/api/openapi/contract_tests.rs`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use http::{HeaderMap, Method};
use jsonschema::Validator;
use serde_json::{Value, json};

/// The committed document.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    // From beside this file: the package that includes it may be another one (`tests/fuzz`).
    serde_json::from_str(include_str!("../../../docs/openapi.json")).expect("it is JSON")
});

/// What has been compiled so far, by the pointer to its schema.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Headers that HTTP itself or the page's policy brings along.
const PLAIN_HEADERS: [&str; 12] = [
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
];

/// Panics when the document does not say that this request may be answered so.
pub(crate) fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    let Some(at) = operation(method, path, status, body) else { return };
    let answered = format!("{method} {path} was answered {status} {}", String::from_utf8_lossy(body));
    let at = resolve(&format!("{at}/responses/{status}"))
        .unwrap_or_else(|| panic!("{answered}: this status is not in docs/openapi.json"));
    let documented = |header: &str| {
        let named = DOCUMENT.pointer(&format!("{at}/headers")).and_then(Value::as_object);
        named.is_some_and(|named| named.keys().any(|name| name.eq_ignore_ascii_case(header)))
    };
    for header in headers.keys().map(http::HeaderName::as_str) {
        assert!(PLAIN_HEADERS.contains(&header) || documented(header), "{answered}: `{header}` is not documented");
    }
    for header in DOCUMENT.pointer(&format!("{at}/headers")).and_then(Value::as_object).into_iter().flatten() {
        // A status can carry codes with and without it.
        assert!(header.0 == "Retry-After" || headers.contains_key(header.0), "{answered}: no `{}`", header.0);
    }
    if method == Method::HEAD {
        return;
    }
    let kind = headers.get("content-type").map_or("", |kind| kind.to_str().expect("text"));
    let Some(content) = DOCUMENT.pointer(&format!("{at}/content")).and_then(Value::as_object) else {
        assert!(body.is_empty() && kind.is_empty(), "{answered}: no body is documented");
        return;
    };
    let essence = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_owned();
    let media = content.keys().find(|media| essence(media) == essence(kind));
    let media = media.unwrap_or_else(|| panic!("{answered}: `{kind}` is not among {:?}", content.keys()));
    if essence(kind).ends_with("json") {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let schema = format!("{at}/content/{}/schema", media.replace('/', "~1"));
        let faults: Vec<_> = validator(&schema).iter_errors(&body).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{answered}: {faults:#?}");
    }
}

/// The pointer to the operation that answers; `None` where the router itself does, or a part of `/docs`.
fn operation(method: &Method, path: &str, status: u16, body: &[u8]) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let found = paths.keys().find(|known| *known == path).or_else(|| paths.keys().find(|known| fits(known, path)));
    let code = serde_json::from_slice::<Value>(body).unwrap_or_default()["code"].clone();
    let Some(found) = found else {
        let refused = matches!(status, 401 | 404) && (code == "no_such_route" || status == 401 || body.is_empty());
        assert!(refused || path.starts_with("/docs/"), "{method} {path} was answered {status} but is not documented");
        return None;
    };
    let verb = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    if paths[found].get(&verb).is_some() {
        return Some(format!("/paths/{}/{verb}", found.replace('/', "~1")));
    }
    let refused = if method == Method::OPTIONS { status == 204 } else { status == 405 };
    assert!(refused || status == 401, "{method} {path} was answered {status} but is not documented");
    None
}

/// Whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(known, given)| known == given || (known.starts_with('{') && !given.is_empty()))
}

/// The pointer to what stands at `at`, or to what it refers to.
fn resolve(at: &str) -> Option<String> {
    let reference = DOCUMENT.pointer(at)?.get("$ref").and_then(Value::as_str);
    Some(reference.map_or_else(|| at.to_owned(), |reference| reference.trim_start_matches('#').to_owned()))
}

/// The validator of the schema at a pointer.
pub(crate) fn validator(schema: &str) -> Arc<Validator> {
    let mut known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let compile = || {
        let root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": DOCUMENT["components"],
            "allOf": [DOCUMENT.pointer(schema).unwrap_or_else(|| panic!("no schema at {schema}"))],
        });
        Arc::new(jsonschema::options().should_validate_formats(true).build(&root).expect("a schema"))
    };
    Arc::clone(known.entry(schema.to_owned()).or_insert_with(compile))
}
