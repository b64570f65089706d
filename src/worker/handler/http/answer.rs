//! What comes back: the first bytes of the body are kept, a little more is read so that the connection can be used
//! again, and `Retry-After` is understood.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use reqwest::Response;

use super::{AttemptContext, Deadline, broken};
use crate::sabotage::{self, Sin};
use crate::task::limits::{RESPONSE_DRAIN_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::task::{Outcome, OutcomeClass, Span, WallMs};
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
                let why = format!("calling {place}: within the answer's body: {}", classify::describe(error));
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

/// `Retry-After` (RFC 9110, section 10.2.3) as a delay from `now`: seconds, or a date; anything else is ignored.
pub fn retry_after(field: &str, now: WallMs) -> Option<Span> {
    let text = field.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are longer than any bound on it.
        return Some(Span::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = WallMs::new(0).plus(since_epoch).since(now);
    Some(Span::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::clock::Clock;
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

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let now = WallMs::parse("2026-11-24T10:00:00Z").unwrap();
        let read = |text: &str| retry_after(text, now).map(Span::as_millis);
        assert_eq!(read("120"), Some(120_000));
        assert_eq!(read(" 0 "), Some(0));
        assert_eq!(read("Tue, 24 Nov 2026 10:01:30 GMT"), Some(90_000));
        assert_eq!(read("Tuesday, 24-Nov-26 10:01:30 GMT"), Some(90_000));
        assert_eq!(read("Tue, 24 Nov 2026 09:00:00 GMT"), Some(0), "a date that has passed");
        assert_eq!(read("99999999999999999999999"), Some(u64::MAX), "saturating");
        for nonsense in ["", "-1", "1.5", "soon", "Tue, 99 Nov 2026 10:01:30 GMT"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
