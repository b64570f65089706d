//! What comes back: the first bytes of the body are kept, a little more is read so that the connection can be used
//! again, and `Retry-After` is understood.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use reqwest::Response;

use super::{AttemptContext, Deadline, broken};
use crate::sabotage::{self, Sin};
use crate::security::http_answer::{describe, retry_after};
use crate::task::limits::{RESPONSE_DRAIN_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::task::{Outcome, OutcomeClass};
use crate::worker::classify;

/// Reads the answer to its end, to the deadline, or to the bound on what is read, whichever comes first.
///
/// An answer that goes on beyond the bound is complete for us: its status stands, its connection is closed. One that
/// breaks or is late below the bound has not been received, whatever its status said.
pub(super) async fn take(
    mut response: Response,
    attempt: &AttemptContext,
    mut deadline: Deadline,
    place: &str,
) -> Outcome {
    let status = response.status().as_u16();
    let retry_after = match status {
        429 | 503 => {
            let field = response.headers().get(RETRY_AFTER).and_then(|field| field.to_str().ok());
            field.and_then(|field| retry_after(field, attempt.now().wall))
        }
        _ => None,
    };
    let uncapped = sabotage::commits(Sin::NoBodyCap);
    let mut head = Vec::new();
    let mut read: usize = 0;
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = response.chunk() => chunk,
            () = &mut deadline => {
                let why = format!("calling {place}: the answer did not end within {}", attempt.work().timeout);
                return broken(OutcomeClass::TimeoutBody, status, head.into(), why, attempt);
            }
        };
        match chunk {
            Ok(Some(chunk)) => {
                let kept_max = if uncapped { usize::MAX } else { RESPONSE_HEAD_BYTES_MAX };
                let room = kept_max.saturating_sub(head.len());
                head.extend(chunk.iter().take(room));
                read = read.saturating_add(chunk.len());
            }
            Ok(None) => break,
            Err(error) => {
                let class = classify::class_of(&error);
                let why = format!("calling {place}: within the answer's body: {}", describe(error));
                return broken(class, status, head.into(), why, attempt);
            }
        }
        if read > RESPONSE_DRAIN_BYTES_MAX && !uncapped {
            break;
        }
    }
    let answered = Outcome::answered(status, Bytes::from(head), attempt.took());
    Outcome { retry_after, ..answered }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::clock::Clock;
    use crate::task::WallMs;
    use crate::worker::attempt::tests::work;

    #[tokio::test]
    async fn a_deadline_within_the_body_keeps_what_arrived() {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let attempt = AttemptContext::new(work(), clock);
        let first = stream::iter([Ok::<_, std::io::Error>("some")]);
        let body = reqwest::Body::wrap_stream(first.chain(stream::pending()));
        let deadline = attempt.hand_over();
        let mut taking = Box::pin(take(http::Response::new(body).into(), &attempt, deadline, "http://a:80"));
        hand.advance(Duration::from_millis(29_999));
        assert!(futures_util::poll!(&mut taking).is_pending(), "not early");
        hand.advance(Duration::from_millis(1));
        let outcome = taking.await;
        assert_eq!((outcome.class, outcome.http_status), (OutcomeClass::TimeoutBody, Some(200)));
        assert_eq!((&outcome.response_head[..], outcome.took), (b"some".as_slice(), Duration::from_secs(30)));
        assert_eq!(outcome.error.as_deref(), Some("calling http://a:80: the answer did not end within 30s"));
    }
}
