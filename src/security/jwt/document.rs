//! What an issuer publishes: its discovery document (OIDC Discovery 1.0, RFC 8414) and its keys. Fetched
//! through the guarded clients, so that the egress policy holds and no redirect is followed, within a bound of time and
//! of size.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::World;
use super::keys::{self, Key};
use crate::config::{IssuerConfig, is_trustworthy};
use crate::security::egress::Refusal;
use crate::security::http_answer::{cause, describe, retry_after};
use crate::security::http_client;
use crate::task::Span;
use crate::task::limits::{
    ISSUER_ANSWER_MAX, ISSUER_DOCUMENT_BYTES_MAX, ISSUER_KEYS_FRESH_DEFAULT, ISSUER_KEYS_FRESH_MAX,
    ISSUER_KEYS_FRESH_MIN,
};

/// Where the keys of an issuer are found.
#[derive(Debug, Clone)]
pub(super) struct Place {
    issuer: String,
    jwks_url: Option<String>,
}

/// Keys as they were published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) keys: Vec<Arc<Key>>,
    /// For how long they may be taken as they are.
    pub(super) fresh_for: Duration,
}

/// Why there are none.
#[derive(Debug)]
pub(super) struct FetchFault {
    /// Of what kind it is: a label.
    pub(super) kind: &'static str,
    /// In words.
    pub(super) why: String,
    /// When the issuer wants to be asked again.
    pub(super) retry_after: Option<Span>,
}

impl FetchFault {
    fn new(kind: &'static str, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None }
    }
}

impl Place {
    pub(super) fn of(config: &IssuerConfig) -> Self {
        Self { issuer: config.issuer.clone(), jwks_url: config.jwks_url.clone() }
    }

    /// Asks for the keys.
    pub(super) async fn fetch(self: Arc<Self>, world: World) -> Result<Published, FetchFault> {
        tokio::select! {
            biased;
            fetched = self.keys(&world) => fetched,
            () = world.clock.sleep(ISSUER_ANSWER_MAX.to_duration()) => {
                Err(FetchFault::new("no_answer", format!("{} did not answer within {ISSUER_ANSWER_MAX}", self.issuer)))
            }
        }
    }

    async fn keys(&self, world: &World) -> Result<Published, FetchFault> {
        let url = match &self.jwks_url {
            Some(url) => parse(url)?,
            None => self.discovered(world).await?,
        };
        let (head, body) = get(&url, world).await?;
        let keys = keys::parse(&body).ok_or_else(|| FetchFault::new("answer", format!("{url} is no key set")))?;
        Ok(Published { keys, fresh_for: fresh_for(&head) })
    }

    /// Where the discovery document says that the keys are. It has to be this issuer's own (RFC 8414 section 3.3):
    /// otherwise whoever may put documents on its host could speak for it.
    async fn discovered(&self, world: &World) -> Result<Url, FetchFault> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let url = parse(&format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/')))?;
        let (_, body) = get(&url, world).await?;
        let no_document = || FetchFault::new("answer", format!("{url} has no issuer and jwks_uri"));
        let found: Discovery = serde_json::from_slice(&body).ok().ok_or_else(no_document)?;
        if found.issuer != self.issuer {
            let why = format!("{url} is the document of another issuer than {}", self.issuer);
            return Err(FetchFault::new("issuer", why));
        }
        let keys = Url::parse(&found.jwks_uri).ok().filter(is_trustworthy);
        keys.ok_or_else(|| FetchFault::new("answer", format!("the jwks_uri in {url} is no https URL")))
    }
}

fn parse(url: &str) -> Result<Url, FetchFault> {
    Url::parse(url).map_err(|error| FetchFault::new("answer", format!("{url} cannot be called: {error}")))
}

async fn get(url: &Url, world: &World) -> Result<(HeaderMap, Vec<u8>), FetchFault> {
    let client = world.clients.client_for(url).map_err(|refusal| FetchFault::new("egress", refusal.to_string()))?;
    let mut request = reqwest::Request::new(Method::GET, url.clone());
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(http_client::USER_AGENT));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let broken = |error| match cause::<Refusal>(&error) {
        Some(refusal) => FetchFault::new("egress", refusal.to_string()),
        None => FetchFault::new("no_answer", format!("calling {url}: {}", describe(error))),
    };
    let mut answer = client.execute(request).await.map_err(broken)?;
    if answer.status() != StatusCode::OK {
        let field = answer.headers().get(RETRY_AFTER).and_then(|field| field.to_str().ok());
        let retry_after = field.and_then(|field| retry_after(field, world.clock.now().wall));
        let why = format!("{url} answered {}", answer.status().as_u16());
        return Err(FetchFault { retry_after, ..FetchFault::new("http_status", why) });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if body.len().saturating_add(chunk.len()) > ISSUER_DOCUMENT_BYTES_MAX {
            let why = format!("{url} has more than {ISSUER_DOCUMENT_BYTES_MAX} bytes");
            return Err(FetchFault::new("answer", why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((answer.headers().clone(), body))
}

/// As long as `Cache-Control` says (RFC 9111 section 5.2.2), within bounds.
fn fresh_for(head: &HeaderMap) -> Duration {
    let fields = head.get_all(CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let words = fields.flat_map(|field| field.split(',')).map(|word| word.trim().to_ascii_lowercase());
    let mut asked = ISSUER_KEYS_FRESH_DEFAULT.to_duration();
    for word in words {
        if word == "no-store" || word == "no-cache" {
            asked = Duration::ZERO;
            break;
        }
        if let Some(age) = word.strip_prefix("max-age=") {
            asked = age.trim_matches('"').parse().map_or(asked, Duration::from_secs);
        }
    }
    asked.clamp(ISSUER_KEYS_FRESH_MIN.to_duration(), ISSUER_KEYS_FRESH_MAX.to_duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_issuer_whose_name_leads_inward_is_not_called() {
        let url = Url::parse("https://login.example/").unwrap();
        for address in http_client::inward::ADDRESSES {
            let world = World {
                clients: http_client::inward::clients(address),
                clock: crate::clock::Clock::system(),
                telemetry: crate::logging::Telemetry::new(),
                run: Arc::new(drop),
            };
            let fault = get(&url, &world).await.expect_err("refused");
            assert_eq!(fault.kind, "egress", "{address}: {}", fault.why);
        }
    }

    #[test]
    fn keys_are_fresh_as_long_as_their_issuer_says_within_bounds() {
        let read = |fields: &[&'static str]| {
            let mut head = HeaderMap::new();
            for field in fields {
                head.append(CACHE_CONTROL, HeaderValue::from_static(field));
            }
            fresh_for(&head).as_secs()
        };
        assert_eq!(read(&[]), 600);
        assert_eq!(read(&["public, max-age=1200"]), 1_200);
        assert_eq!(read(&["public", "Max-Age=\"1200\""]), 1_200);
        assert_eq!(read(&["max-age=0"]), 60);
        assert_eq!(read(&["max-age=1200, no-cache"]), 60);
        assert_eq!(read(&["max-age=99999999"]), 3_600);
        assert_eq!(read(&["max-age=-1"]), 600);
        assert_eq!(read(&["max-age=soon"]), 600);
    }
}
