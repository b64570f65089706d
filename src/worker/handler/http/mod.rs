//! The task type `http_request`: one attempt is one HTTP request.
//!
//! `payload` reads what was posted, `headers` says what is sent besides, `answer` takes what comes back.

mod answer;
mod headers;
mod payload;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::answer::retry_after;
pub use self::payload::FIELDS;
use self::payload::HttpPayload;
use super::{AttemptContext, CheckError, Handler};
use crate::clock::Sleep;
use crate::security::egress::Refusal;
use crate::security::http_client::OutgoingClients;
use crate::task::{LaneName, Outcome, OutcomeClass};
use crate::worker::classify;

/// Runs `http_request`.
#[derive(Debug, Clone)]
pub struct HttpHandler {
    clients: Arc<OutgoingClients>,
}

impl HttpHandler {
    /// A handler that calls out through `clients`.
    pub fn new(clients: Arc<OutgoingClients>) -> Self {
        Self { clients }
    }

    async fn attempt(&self, attempt: &AttemptContext) -> Outcome {
        let payload = match payload::parse(&attempt.work().body.payload) {
            Ok(payload) => payload,
            Err(faults) => return unreadable(attempt, faults.first().map(|fault| fault.detail.as_str())),
        };
        let client = match self.clients.client_for(&payload.url) {
            Ok(client) => client,
            Err(refusal) => return refused(attempt, &refusal),
        };
        let place = payload.place();
        let request = match request(&client, payload, attempt) {
            Ok(request) => request,
            Err(error) => return unreadable(attempt, Some(&classify::describe(error))),
        };
        let mut deadline = attempt.hand_over();
        let sent = tokio::select! {
            biased;
            sent = client.execute(request) => sent,
            () = &mut deadline => return timed_out_before_headers(attempt, &place),
        };
        match sent {
            Ok(response) => answer::take(response, attempt, deadline, &place).await,
            Err(error) => {
                let class = classify::class_of(&error);
                let why = format!("calling {place}: {}", classify::describe(error));
                Outcome::without_answer(class, why, attempt.took())
            }
        }
    }
}

impl Handler for HttpHandler {
    fn check(&self, payload: &[u8]) -> Result<LaneName, CheckError> {
        let payload = payload::parse(payload).map_err(CheckError::Faults)?;
        self.clients.policy().check_url(&payload.url)?;
        Ok(LaneName::new(&payload.place()))
    }

    fn run<'a>(&'a self, attempt: &'a AttemptContext) -> BoxFuture<'a, Outcome> {
        Box::pin(self.attempt(attempt))
    }
}

fn request(
    client: &reqwest::Client,
    payload: HttpPayload,
    attempt: &AttemptContext,
) -> Result<reqwest::Request, reqwest::Error> {
    let headers = headers::outgoing(&payload, attempt.work(), attempt.now().wall);
    let request = client.request(payload.method, payload.url).headers(headers);
    match payload.body {
        Some(body) => request.body(body).build(),
        None => request.build(),
    }
}

fn refused(attempt: &AttemptContext, refusal: &Refusal) -> Outcome {
    Outcome::without_answer(OutcomeClass::EgressRefused, refusal.to_string(), attempt.took())
}

/// It was checked when it was accepted, so the record has changed since, or the rules have.
fn unreadable(attempt: &AttemptContext, why: Option<&str>) -> Outcome {
    let why = format!("the payload is no http_request: {}", why.unwrap_or("it cannot be read"));
    Outcome::without_answer(OutcomeClass::Corrupt, why, attempt.took())
}

fn timed_out_before_headers(attempt: &AttemptContext, place: &str) -> Outcome {
    let why = format!("calling {place}: no answer within {}", attempt.work().timeout);
    Outcome::without_answer(OutcomeClass::TimeoutBeforeHeaders, why, attempt.took())
}

/// The part of an answer that arrived before something went wrong within its body.
fn broken(class: OutcomeClass, status: u16, head: Bytes, why: String, attempt: &AttemptContext) -> Outcome {
    Outcome { http_status: Some(status), response_head: head, ..Outcome::without_answer(class, why, attempt.took()) }
}

/// The time that is left of an attempt.
type Deadline = Sleep;
