//! Tokens: what an issuer gives, for how long it is used, and why there was none.

use std::fmt;
use std::time::Duration;

use http::header::HeaderValue;

use crate::task::Span;
use crate::task::limits::{TOKEN_END_MARGIN_MAX, TOKEN_LIFE_DEFAULT, TOKEN_LIFE_MAX};

/// A token as its issuer gave it.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    /// The value of `Authorization`.
    pub(super) value: HeaderValue,
    /// For how long it is valid, if the issuer said so.
    pub(super) life: Option<Duration>,
}

/// A token that is kept. Moments are of the monotonic clock.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) value: HeaderValue,
    /// When it was asked for.
    pub(super) asked: Duration,
    /// From when on another one is fetched, while this one is still sent.
    pub(super) refresh_at: Duration,
    /// Until when it is sent.
    pub(super) end: Duration,
}

impl Token {
    /// A token that was asked for at `asked`; its life counts from then, because it may have begun at once. Another one
    /// is fetched at 80 % of it, or up to a tenth of that earlier, by `unit` in `[0, 1)`: servers that were started
    /// together do not ask together for ever.
    pub(super) fn new(issued: Issued, asked: Duration, unit: f64) -> Self {
        let life = issued.life.unwrap_or(TOKEN_LIFE_DEFAULT.to_duration()).min(TOKEN_LIFE_MAX.to_duration());
        let margin = (life / 10).min(TOKEN_END_MARGIN_MAX.to_duration());
        let refresh_at = asked.saturating_add(life.mul_f64(0.8 * (1.0 - 0.1 * unit)));
        Self { value: issued.value, asked, refresh_at, end: asked.saturating_add(life.saturating_sub(margin)) }
    }
}

/// Of what kind a failed fetch is: the word of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchFault {
    /// The issuer said no: 400 or 401.
    Refused,
    /// It gave another status.
    Status,
    /// No answer, or not in time.
    NoAnswer,
    /// The egress policy refused its address.
    Egress,
    /// An answer that holds no token.
    Answer,
    /// What we would ask with cannot be made.
    Request,
}

impl FetchFault {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Status => "http_status",
            Self::NoAnswer => "no_answer",
            Self::Egress => "egress_refused",
            Self::Answer => "invalid_answer",
            Self::Request => "invalid_request",
        }
    }
}

/// Why there is no token. Its words hold nothing of what was sent or of what an answer said but its status and its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchError {
    pub(super) fault: FetchFault,
    pub(super) why: String,
    /// When the issuer asks to come again.
    pub(super) retry_after: Option<Span>,
}

impl FetchError {
    pub(super) fn new(fault: FetchFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into(), retry_after: None }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for FetchError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life: Option<u64>, unit: f64) -> (u64, u64) {
        let issued = Issued { value: HeaderValue::from_static("x"), life: life.map(Duration::from_secs) };
        let token = Token::new(issued, Duration::from_secs(1_000), unit);
        (token.refresh_at.as_secs() - 1_000, token.end.as_secs() - 1_000)
    }

    #[test]
    fn it_is_replaced_at_four_fifths_of_its_life_and_not_sent_at_its_very_end() {
        assert_eq!(token(Some(3_600), 0.0), (2_880, 3_590));
        assert_eq!(token(Some(3_600), 0.999), (2_592, 3_590), "a tenth earlier at most");
        assert_eq!(token(Some(50), 0.0), (40, 45));
        assert_eq!(token(Some(0), 0.5), (0, 0), "one that is over at once is for those who waited for it");
        assert_eq!(token(None, 0.0), (240, 290), "the default, where the issuer does not say");
        assert_eq!(token(Some(u64::MAX), 0.0).1, 86_390);
    }
}
