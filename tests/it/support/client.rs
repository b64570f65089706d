//! A client as a user would write one: the CA, the key, JSON.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Method, StatusCode};
use serde_json::Value;

use super::contract;

/// How long an answer may take, long polls included: whatever hangs is to fail, and not to hang the suite.
const PATIENCE: Duration = Duration::from_secs(180);

/// See the module.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Client {
    /// A client of the server at `url`, trusting the CA in `ca`, with the key in `key_file`.
    pub(crate) fn of(url: &str, ca: &Path, key_file: &Path) -> Self {
        let key = std::fs::read_to_string(key_file).expect("the admin key").trim().to_owned();
        let mut builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        if let Ok(pem) = std::fs::read(ca) {
            builder = builder.tls_certs_only([Certificate::from_pem(&pem).expect("a certificate")]);
        }
        Self { http: builder.build().expect("a client"), url: url.to_owned(), key }
    }

    /// The same client with connections of its own, on which it shows a certificate (PEM, with its key).
    pub(crate) fn with_certificate(&self, ca: &Path, pem: &str) -> Self {
        let ca = Certificate::from_pem(&std::fs::read(ca).expect("the CA")).expect("a certificate");
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).expect("a certificate and its key");
        let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([ca]);
        Self { http: builder.identity(identity).build().expect("a client"), ..self.clone() }
    }

    /// The same client with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The server's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A request with our key, to be refined.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// A request without any key.
    pub(crate) fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request; an error when no whole answer came back. Whatever comes is documented.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let (http, request) = request.build_split();
        let request = request?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = http.execute(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        contract::check(&method, &path, status.as_u16(), &headers, &bytes);
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, headers, body })
    }

    /// `POST` with a JSON body.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.to_string())).await
    }

    /// `POST` with a JSON body, to a server that is there.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.expect("an answer")
    }

    /// `PUT` with a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::PUT, path).header("content-type", "application/json");
        self.send(request.body(body.to_string())).await.expect("an answer")
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await.expect("an answer")
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await.expect("an answer")
    }

    /// Every task that the server holds, over all pages.
    pub(crate) async fn all_tasks(&self) -> Vec<Value> {
        let (mut tasks, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/tasks?limit=1000{cursor}")).await;
            assert_eq!(page.status, StatusCode::OK, "{:?}", page.body);
            tasks.extend(page.body["tasks"].as_array().expect("tasks").iter().cloned());
            match page.body["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return tasks,
            }
        }
    }
}
