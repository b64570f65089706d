//! One question to an issuer of tokens: through the guarded client, so that the egress policy holds and no redirect is
//! followed, within a bound of time and of size.
//!
//! Of an answer that is no token only its status and its error code (RFC 6749 section 5.2) are told: whatever else it
//! says may repeat what it was sent.

use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use serde::Deserialize;
use url::Url;

use super::token::{FetchError, FetchFault};
use crate::clock::{Chance, Clock};
use crate::logging::Telemetry;
use crate::security::egress::Refusal;
use crate::security::http_answer::{cause, describe, retry_after};
use crate::security::http_client::{self, OutgoingClients};
use crate::task::limits::{TOKEN_ANSWER_BYTES_MAX, TOKEN_FETCH_MAX};

/// What credentials need of the world. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The clients that call out.
    pub clients: Arc<OutgoingClients>,
    /// Time.
    pub clock: Clock,
    /// Chance, for the life of tokens and the names of assertions.
    pub chance: Arc<Mutex<Chance>>,
    /// Where facts are told.
    pub telemetry: Telemetry,
}

impl Outside {
    /// Draws from chance.
    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a request to an issuer; what it answers with 200.
    pub(super) async fn ask(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, FetchError> {
        let late = || {
            let why = format!("the token issuer did not answer within {TOKEN_FETCH_MAX}");
            FetchError::new(FetchFault::NoAnswer, why)
        };
        tokio::select! {
            biased;
            answer = self.exchange(request) => answer,
            () = self.clock.sleep(TOKEN_FETCH_MAX.to_duration()) => Err(late()),
        }
    }

    async fn exchange(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, FetchError> {
        let impossible = || FetchError::new(FetchFault::Request, "the URL of the token issuer cannot be called");
        let url = Url::parse(&request.uri().to_string()).map_err(|_error| impossible())?;
        let client = self.clients.client_for(&url).map_err(|refusal| {
            FetchError::new(FetchFault::Egress, format!("the token issuer may not be called: {refusal}"))
        })?;
        let mut request = reqwest::Request::try_from(request).map_err(|_error| impossible())?;
        request.headers_mut().insert(USER_AGENT, http::HeaderValue::from_static(http_client::USER_AGENT));
        let mut answer = client.execute(request).await.map_err(broken)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if body.len().saturating_add(chunk.len()) > TOKEN_ANSWER_BYTES_MAX {
                let why = format!("the token issuer answered with more than {TOKEN_ANSWER_BYTES_MAX} bytes");
                return Err(FetchError::new(FetchFault::Answer, why));
            }
            body.extend_from_slice(&chunk);
        }
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(&answer, &body));
        }
        let mut whole = http::Response::new(body);
        if let Some(content_type) = answer.headers().get(CONTENT_TYPE) {
            whole.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        Ok(whole)
    }

    fn refusal(&self, answer: &reqwest::Response, body: &[u8]) -> FetchError {
        let status = answer.status();
        let fault = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => FetchFault::Refused,
            _ => FetchFault::Status,
        };
        let code = error_code(body).map(|code| format!(": {code}")).unwrap_or_default();
        let why = format!("the token issuer answered {}{code}", status.as_u16());
        let field = answer.headers().get(RETRY_AFTER).and_then(|field| field.to_str().ok());
        let retry_after = field.and_then(|field| retry_after(field, self.clock.now().wall));
        FetchError { retry_after, ..FetchError::new(fault, why) }
    }
}

fn broken(error: reqwest::Error) -> FetchError {
    if let Some(refusal) = cause::<Refusal>(&error) {
        return FetchError::new(FetchFault::Egress, format!("the token issuer may not be called: {refusal}"));
    }
    FetchError::new(FetchFault::NoAnswer, format!("calling the token issuer: {}", describe(error)))
}

/// The `error` of an answer (RFC 6749 section 5.2), if it is a word such as the standards define.
fn error_code(body: &[u8]) -> Option<String> {
    const CODE_LEN_MAX: usize = 64;
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let Refusal { error } = serde_json::from_slice(body).ok()?;
    let word = !error.is_empty() && error.len() <= CODE_LEN_MAX;
    let plain = error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (word && plain).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_of_an_answer_is_told() {
        let code = |body: &str| error_code(body.as_bytes());
        assert_eq!(
            code(r#"{"error":"invalid_client","error_description":"hunter2"}"#).as_deref(),
            Some("invalid_client")
        );
        for body in ["", "{}", r#"{"error":"hunter2"}"#, r#"{"error":""}"#, r#"{"error":{"a":1}}"#, "<html>"] {
            assert_eq!(code(body), None, "{body}");
        }
        let long = |len: usize| code(&format!(r#"{{"error":"{}"}}"#, "x".repeat(len)));
        assert!(long(64).is_some() && long(65).is_none());
    }
}
