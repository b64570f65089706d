//! The task type `http_request`: one attempt is one HTTP request.
//!
//! `payload` reads what was posted, `headers` says what is sent besides, `answer` takes what comes back.

mod answer;
mod headers;
mod payload;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};

pub use self::payload::FIELDS;
use self::payload::HttpPayload;
use super::{AttemptContext, CheckError, Handler};
use crate::clock::Sleep;
use crate::security::credential::{Call, Carried, Credentials, LentToken, Refused, Unusable};
use crate::security::egress::Refusal;
use crate::security::http_answer::describe;
use crate::security::http_client::{IdentityError, OutgoingClients};
use crate::task::{Fault, LaneName, Outcome, OutcomeClass, QueueName};
use crate::worker::classify;

/// Runs `http_request`.
#[derive(Debug, Clone)]
pub struct HttpHandler {
    clients: Arc<OutgoingClients>,
    credentials: Arc<Credentials>,
}

impl HttpHandler {
    /// A handler that calls out through `clients`, with `credentials`.
    pub fn new(clients: Arc<OutgoingClients>, credentials: Arc<Credentials>) -> Self {
        Self { clients, credentials }
    }

    async fn attempt(&self, attempt: &AttemptContext) -> Outcome {
        let payload = match payload::parse(&attempt.work().body.payload) {
            Ok(payload) => payload,
            Err(faults) => return unreadable(attempt, faults.first().map(|fault| fault.detail.as_str())),
        };
        if let Err(refusal) = self.clients.policy().check_url(&payload.url) {
            return refused(attempt, &refusal);
        }
        let place = payload.place();
        let carried = match self.carried(&payload, attempt).await {
            Ok(carried) => carried,
            Err(outcome) => return outcome,
        };
        let Carried { headers, token, identity } = carried;
        // Only now: the policy may have changed while a token was waited for.
        let client = match &identity {
            None => self.clients.client_for(&payload.url).map_err(IdentityError::from),
            Some(identity) => self.clients.client_as(identity, &payload.url),
        };
        let client = match client {
            Ok(client) => client,
            Err(IdentityError::Refused(refusal)) => return refused(attempt, &refusal),
            Err(error @ IdentityError::Clients(_)) => {
                return Outcome::without_answer(OutcomeClass::AuthUnavailable, error.to_string(), attempt.took());
            }
        };
        let request = match request(&client, payload, headers, attempt) {
            Ok(request) => request,
            Err(error) => return unreadable(attempt, Some(&describe(error))),
        };
        let mut deadline = attempt.hand_over();
        let sent = tokio::select! {
            biased;
            sent = client.execute(request) => sent,
            () = &mut deadline => return timed_out_before_headers(attempt, &place),
        };
        match sent {
            Ok(response) => {
                let outcome = answer::take(response, attempt, deadline, &place).await;
                match token {
                    Some(token) => judged(outcome, &token),
                    None => outcome,
                }
            }
            Err(error) => {
                let class = classify::class_of(&error);
                let why = format!("calling {place}: {}", describe(error));
                Outcome::without_answer(class, why, attempt.took())
            }
        }
    }
}

impl HttpHandler {
    /// What the task's credential adds to its request; nothing when it has none.
    async fn carried(&self, payload: &HttpPayload, attempt: &AttemptContext) -> Result<Carried, Outcome> {
        let work = attempt.work();
        let Some(name) = self.credentials.name_for(payload.auth.as_ref(), &work.queue) else {
            return Ok(Carried::default());
        };
        let (task_id, nothing) = (headers::shown_id(work), Bytes::new());
        let webhook_id = headers::series_id(work);
        let call = Call {
            url: &payload.url,
            method: &payload.method,
            body: payload.body.as_ref().unwrap_or(&nothing),
            task_id: &task_id,
            queue: &work.queue,
            webhook_id: &webhook_id,
            attempt: work.header.attempts,
            now: attempt.now(),
            fresh: matches!(work.previous, Some((OutcomeClass::Auth, _))),
        };
        self.credentials.headers(&name, &call).await.map_err(|unusable| without(&unusable, attempt))
    }

    /// What can be seen of the credential before the task is accepted.
    fn check_credential(&self, payload: &HttpPayload, queue: &QueueName) -> Result<(), CheckError> {
        let Some(name) = self.credentials.name_for(payload.auth.as_ref(), queue) else { return Ok(()) };
        let sets = self.credentials.check(&name, &payload.url)?;
        let given =
            payload.header_names.iter().filter(|given| sets.iter().any(|set| given.eq_ignore_ascii_case(set.as_str())));
        let fault = |given: &String| {
            let detail = format!("this header is set by the credential `{name}` and cannot be given beside it");
            Fault::new(format!("/headers/{}", payload::escape(given)), detail)
        };
        let faults: Vec<Fault> = given.map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(CheckError::Faults(faults)) }
    }
}

impl Handler for HttpHandler {
    fn check(&self, payload: &[u8], queue: &QueueName) -> Result<LaneName, CheckError> {
        let payload = payload::parse(payload).map_err(CheckError::Faults)?;
        self.clients.policy().check_url(&payload.url)?;
        self.check_credential(&payload, queue)?;
        Ok(LaneName::new(&payload.place()))
    }

    fn run<'a>(&'a self, attempt: &'a AttemptContext) -> BoxFuture<'a, Outcome> {
        Box::pin(self.attempt(attempt))
    }
}

fn request(
    client: &reqwest::Client,
    payload: HttpPayload,
    carried: Vec<(HeaderName, HeaderValue)>,
    attempt: &AttemptContext,
) -> Result<reqwest::Request, reqwest::Error> {
    let mut headers = headers::outgoing(&payload, attempt.work(), attempt.now().wall);
    for (name, value) in carried {
        headers.insert(name, value);
    }
    let request = client.request(payload.method, payload.url).headers(headers);
    match payload.body {
        Some(body) => request.body(body).build(),
        None => request.build(),
    }
}

/// Why nothing is sent. A credential that is not there may come back with the next reload, as a token may with the next
/// question; where it may not go is for people to change, as are the rules of egress.
fn without(unusable: &Unusable, attempt: &AttemptContext) -> Outcome {
    let class = match unusable {
        Unusable::Unavailable(_) | Unusable::Refused(Refused::Unknown { .. } | Refused::Unreadable { .. }) => {
            OutcomeClass::AuthUnavailable
        }
        Unusable::Refused(
            Refused::Host { .. } | Refused::PlainHttp { .. } | Refused::NoHandshake { .. } | Refused::Clash { .. },
        )
        | Unusable::Unsigned(..) => OutcomeClass::CredentialRefused,
    };
    let outcome = Outcome::without_answer(class, unusable.to_string(), attempt.took());
    match unusable {
        Unusable::Unavailable(why) => {
            Outcome { retry_after: Some(why.retry_after), refused_by_issuer: why.refused_by_issuer, ..outcome }
        }
        Unusable::Refused(_) | Unusable::Unsigned(..) => outcome,
    }
}

/// A 401 to a token that had been fetched before may be the token's fault: it is forgotten, and another is tried. One to
/// a fresh token is what any 401 is.
fn judged(outcome: Outcome, token: &LentToken) -> Outcome {
    if outcome.class != OutcomeClass::HttpStatus || outcome.http_status != Some(401) {
        return outcome;
    }
    if token.fresh {
        return Outcome { error: Some("the target refused a fresh token".to_owned()), ..outcome };
    }
    token.forget();
    let why = "the target refused a token that had been fetched before; the next attempt takes a fresh one";
    Outcome { class: OutcomeClass::Auth, error: Some(why.to_owned()), ..outcome }
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
