//! What answers and errors of those we call say: in words for people, and as a time to come again.

use std::error::Error;
use std::io;
use std::time::UNIX_EPOCH;

use crate::task::{Span, WallMs};

/// The error in words for people: every cause, outermost first, none said twice, and never the URL (whose query may
/// hold a secret).
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = String::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = next {
        let part = error.to_string();
        if !words.ends_with(&part) {
            let separator = if words.is_empty() { "" } else { ": " };
            words.push_str(separator);
            words.push_str(&part);
        }
        next = error.source();
    }
    words
}

/// The first `T` among an error and its causes. Looks into [`io::Error`]s, which hide what they wrap from `source`.
pub fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
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
    use super::*;

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
