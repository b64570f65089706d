//! Moments and durations as people write them: RFC 3339 times and `"1h30m"` durations.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment of the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(i64);

impl WallMs {
    /// A moment from Unix milliseconds.
    pub const fn new(ms: i64) -> Self {
        Self(ms)
    }

    /// Unix milliseconds.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The moment `by` later, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses an RFC 3339 time (`2026-12-01T00:00:00Z`, any offset); fractions finer than a millisecond are cut.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        DateTime::parse_from_rfc3339(text)
            .map(|time| Self(time.timestamp_millis()))
            .map_err(|source| TimeError::NotRfc3339 { given: clip(text), source })
    }
}

impl fmt::Display for WallMs {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// A duration with millisecond steps, as configuration and tasks carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same as a [`Duration`].
    pub const fn to_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Parses `"1h30m"`, `"250ms"`, `"7d"`, `"1.5s"`, or a bare number of seconds (`"90"`).
    ///
    /// Units: `ms`, `s`, `m`, `h`, `d`, each at most once, largest first. Anything finer than a millisecond is refused
    /// rather than rounded away.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::NotADuration { given: clip(text) };
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return number_in_unit(text, 1_000).map(Self).ok_or_else(wrong);
        }
        let (mut rest, mut total, mut last_unit) = (text, 0_u64, u64::MAX);
        while !rest.is_empty() {
            let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, tail) = rest.split_at(number_len);
            let unit_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit_len);
            let unit_ms = unit_ms(unit).filter(|unit_ms| *unit_ms < last_unit).ok_or_else(wrong)?;
            let part = number_in_unit(number, unit_ms).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            (rest, last_unit) = (tail, unit_ms);
        }
        Ok(Self(total))
    }

    /// A number of seconds, as JSON and YAML numbers mean it; refused when negative, not finite, or finer than 1 ms.
    pub fn from_secs_f64(secs: f64) -> Result<Self, TimeError> {
        let wrong = || TimeError::NotADuration { given: format!("{secs}") };
        if !(0.0..=1e12).contains(&secs) {
            return Err(wrong());
        }
        Self::parse(&format!("{secs}"))
    }
}

impl fmt::Display for Span {
    /// The shortest form that [`Span::parse`] reads back: `1h30m`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            let whole = rest / unit_ms;
            rest %= unit_ms;
            if whole > 0 {
                write!(f, "{whole}{unit}")?;
            }
        }
        Ok(())
    }
}

/// Why a text is no time or no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("`{given}` is not an RFC 3339 time such as 2026-12-01T00:00:00Z: {source}")]
    NotRfc3339 {
        /// What was given, cut to a readable length.
        given: String,
        /// What the parser objected to.
        source: chrono::ParseError,
    },
    /// Not a duration.
    #[error("`{given}` is not a duration such as \"1h30m\", \"250ms\" or a number of seconds (steps of 1 ms)")]
    NotADuration {
        /// What was given, cut to a readable length.
        given: String,
    },
}

/// Error messages quote what was given, but never pages of it.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

fn unit_ms(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// `number` (digits with at most one point) times `unit_ms`, if that is a whole number of milliseconds.
fn number_in_unit(number: &str, unit_ms: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole_ms = whole.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Some(whole_ms);
    }
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = fraction.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    if !scaled.is_multiple_of(scale) {
        return None;
    }
    whole_ms.checked_add(scaled / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, ms) in [
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("90", 90_000),
            ("1.5s", 1_500),
            ("0.25", 250),
            ("7d", 604_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(Span::parse(text), Ok(Span::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "-1s",
            "1x",
            "s",
            "1s1h",
            "1s1s",
            "0.0001s",
            "1.",
            ".5s",
            "1.2.3",
            "1e3",
            "99999999999999999999s",
            "1 h",
            "é",
        ] {
            assert!(Span::parse(text).is_err(), "{text:?}");
        }
        for secs in [-1.0, f64::NAN, f64::INFINITY, 1e13, 0.000_1] {
            assert!(Span::from_secs_f64(secs).is_err(), "{secs}");
        }
        assert_eq!(Span::from_secs_f64(1.5), Ok(Span::from_millis(1_500)));
    }

    #[test]
    fn times_are_rfc3339_with_any_offset() {
        let time = WallMs::parse("2026-12-01T01:00:00.250+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-12-01T00:00:00.250Z");
        assert!(WallMs::parse("2026-12-01").is_err());
        assert_eq!(WallMs::new(i64::MAX).to_string(), format!("{} ms", i64::MAX));
        assert_eq!(WallMs::new(5).since(WallMs::new(9)), Duration::ZERO);
    }

    #[test]
    fn moments_saturate() {
        assert_eq!(WallMs::new(5).plus(Duration::from_millis(3)), WallMs::new(8));
        assert_eq!(WallMs::new(5).plus(Duration::MAX), WallMs::new(i64::MAX));
        assert_eq!(WallMs::new(9).since(WallMs::new(5)), Duration::from_millis(4));
        assert_eq!(Span::from_secs(2).to_duration(), Duration::from_secs(2));
        assert_eq!(Span::from_secs(u64::MAX).as_millis(), u64::MAX);
    }

    #[test]
    fn what_is_complained_about_is_quoted_but_never_pages_of_it() {
        let long = "x".repeat(41);
        let error = Span::parse(&long).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{}` is not a duration such as", &long[..40])), "{error}");
        let error = WallMs::parse(&long).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{}` is not an RFC 3339 time", &long[..40])), "{error}");
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_it_was_written(ms in 0_u64..=u64::MAX / 2) {
            let span = Span::from_millis(ms);
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }
    }
}
