//! `/docs`: the OpenAPI document as a page (Swagger UI), served from the binary alone.
//!
//! Nothing is loaded from elsewhere and nothing runs inline, and the content security policy says so to the browser.
//! The page needs no key and holds no data: whoever wants to try a call pastes a key of their own.

use std::borrow::Cow;
use std::future::ready;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use super::error::{Code, Problem};
use super::state::Api;

/// Only this origin, only files; pictures may stand in style sheets; never in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Every header that the page and its parts carry besides their type.
const HEADERS: [(HeaderName, &str); 2] =
    [(header::CONTENT_SECURITY_POLICY, POLICY), (header::REFERRER_POLICY, "no-referrer")];

/// The files that the page consists of, each at `/docs/…`. They belong to the page, not to the API: the document does
/// not list them.
pub(super) const PARTS: [(&str, Part); 5] = [
    ("/docs/start.js", Part::Own("text/javascript; charset=utf-8", include_str!("docs/start.js"))),
    ("/docs/index.css", Part::Vendored("index.css")),
    ("/docs/swagger-ui.css", Part::Vendored("swagger-ui.css")),
    ("/docs/swagger-ui-bundle.js", Part::Vendored("swagger-ui-bundle.js")),
    ("/docs/favicon-32x32.png", Part::Vendored("favicon-32x32.png")),
];

/// Where a part of the page comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Written here: its type and its text.
    Own(&'static str, &'static str),
    /// A file of Swagger UI.
    Vendored(&'static str),
}

/// `GET /docs`.
#[utoipa::path(
    get, path = "/docs", operation_id = "get_docs", tag = "operations", security(),
    summary = "This document as a page", description = "Swagger UI, without any file from elsewhere. Needs no key.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(super) async fn page() -> Response {
    (HEADERS, Html(include_str!("docs/page.html"))).into_response()
}

/// The routes of [`PARTS`].
pub(super) fn parts() -> Router<Api> {
    PARTS.into_iter().fold(Router::new(), |router, (path, part)| router.route(path, get(move || ready(answer(part)))))
}

fn answer(part: Part) -> Response {
    match part {
        Part::Own(kind, text) => (HEADERS, [(header::CONTENT_TYPE, kind)], text).into_response(),
        Part::Vendored(name) => vendored(name),
    }
}

/// A file of Swagger UI. It is in the binary as gzip, and goes out so: whoever shows a page can read it.
fn vendored(name: &str) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(name, Arc::new(Config::default())) else {
        return Problem::new(Code::NoSuchRoute, "this file of the page is not in the binary").into_response();
    };
    let mut kind = file.content_type;
    if kind.starts_with("text/") {
        kind.push_str("; charset=utf-8");
    }
    let body = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = (HEADERS, [(header::CONTENT_TYPE, kind)], body).into_response();
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    }
    response
}
