//! The command line's own HTTP client: one server, one key, and like `curl` no egress policy.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method};
use serde::de::DeserializeOwned;
use url::Url;

use crate::task::limits::{CLIENT_ANSWER_MAX, CLIENT_CONNECT_MAX};

use super::call::CallError;
use super::connect::{Destination, is_loopback};
use super::exit::{Exit, Failed};
use super::output::{Item, Shown};

/// A client of one server.
pub(super) struct Client {
    http: reqwest::Client,
    to: Destination,
}

impl Client {
    /// A client of the server at `to`. A server on this machine is reached without any proxy of the environment.
    pub(super) fn new(to: Destination) -> Result<Self, Failed> {
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed already");
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sendoff-cli/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CLIENT_CONNECT_MAX.to_duration());
        if is_loopback(&to.url) || to.at.is_some() {
            builder = builder.no_proxy();
        }
        if let (Some(at), Some(host)) = (to.at, to.url.host_str()) {
            builder = builder.resolve(host, at);
        }
        if let Some(ca) = to.ca.as_ref().filter(|_| to.url.scheme() == "https") {
            let unusable = |what: String| {
                Failed::Usage(format!("the CA file {} {what}; name another with --ca or SENDOFF_CA", ca.display()))
            };
            let pem = std::fs::read(ca).map_err(|error| unusable(format!("cannot be read: {error}")))?;
            let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if found.is_empty() {
                return Err(unusable("has no PEM certificate in it".to_owned()));
            }
            builder = builder.tls_certs_only(found);
        }
        let http = builder
            .build()
            .map_err(|error| Failed::told(Exit::Failure, format!("failed to make an HTTP client: {error}")))?;
        Ok(Self { http, to })
    }

    /// Whether whoever sees the wire sees the key.
    pub(super) fn shows_its_key(&self) -> bool {
        self.to.url.scheme() == "http" && !is_loopback(&self.to.url) && !self.to.key.expose().is_empty()
    }

    /// The server's URL.
    pub(super) fn url(&self) -> &str {
        self.to.url.as_str().trim_end_matches('/')
    }

    /// A request to the path of these segments, each sent as it stands: `["tasks", id]`.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Request<'_> {
        let mut url = self.to.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Request {
            client: self,
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            within: CLIENT_ANSWER_MAX.to_duration(),
        }
    }
}

/// A request in the making.
#[must_use]
pub(super) struct Request<'a> {
    client: &'a Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<reqwest::Body>,
    within: Duration,
}

impl Request<'_> {
    /// With a parameter of the query.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// With a header.
    pub(super) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a JSON body.
    pub(super) fn json(self, text: String) -> Self {
        self.body("application/json", text)
    }

    /// With a body of this media type.
    pub(super) fn body(mut self, kind: &'static str, body: impl Into<reqwest::Body>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.body = Some(body.into());
        self
    }

    /// With more (or less) time for the whole answer than [`CLIENT_ANSWER_MAX`].
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Sends it; one request on the wire, no repeats.
    pub(super) async fn send(self) -> Result<Answer, CallError> {
        let to = &self.client.to;
        let mut request = self.client.http.request(self.method, self.url).headers(self.headers).timeout(self.within);
        if !to.key.expose().is_empty() {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", to.key.expose()))
                .map_err(|_kind| CallError::Strange { text: "the API key does not fit a header".to_owned() })?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let broken = |error: reqwest::Error| CallError::of_transport(&error, to);
        let response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.bytes().await.map_err(broken)?;
        if (200..300).contains(&status) {
            let text = String::from_utf8_lossy(&text).into_owned();
            return Ok(Answer { headers, text, url: self.client.url().to_owned() });
        }
        let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Err(CallError::of_answer(status, retry_after, &text, to))
    }
}

/// A 2xx.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) text: String,
    url: String,
}

impl Answer {
    /// Its body as something that has a row.
    pub(super) fn item<T: Shown>(&self) -> Result<Item<T>, CallError> {
        let seen = self.parse()?;
        Ok(Item { raw: self.parse()?, seen })
    }

    /// Its body as JSON.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_str(&self.text).map_err(|error| CallError::Strange {
            text: format!("the answer of {} is not what this command line understands: {error}", self.url),
        })
    }
}
