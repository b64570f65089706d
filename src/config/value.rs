//! Readers of single values: a scalar as it was written → a typed value, or what was expected instead.
//!
//! Each reader is a function made by a small constructor with its bounds, so that a section reads as a table. The error
//! is the text after "expected".

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::raw::Scalar;
use crate::task::Span;
use crate::task::limits::PATH_LEN_MAX;

/// A whole number between two bounds, both included.
pub(super) fn whole<T>(min: T, max: T) -> impl Fn(&Scalar) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |scalar| {
        let digits = scalar.plain && scalar.text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| scalar.text.parse().ok()).flatten();
        number.filter(|number| (&min..=&max).contains(&number)).ok_or_else(|| {
            let quoted = if scalar.plain { "" } else { ", without quotes" };
            format!("a whole number from {min} to {max}{quoted}")
        })
    }
}

/// A number between two bounds, both included.
pub(super) fn number(min: f64, max: f64) -> impl Fn(&Scalar) -> Result<f64, String> {
    move |scalar| {
        let numeric = scalar.plain && scalar.text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let number = numeric.then(|| scalar.text.parse::<f64>().ok()).flatten();
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| format!("a number from {min} to {max}"))
    }
}

/// `true` or `false`.
pub(super) fn truth(scalar: &Scalar) -> Result<bool, String> {
    match scalar.text.as_str() {
        "true" if scalar.plain => Ok(true),
        "false" if scalar.plain => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Scalar) -> Result<T, String> {
    move |scalar| {
        words.iter().find(|(word, _)| *word == scalar.text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let near = super::shape::nearest(&scalar.text, known.iter().copied());
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("{}{near}", known.join(" or "))
        })
    }
}

/// A duration between two bounds, both included.
pub(super) fn span(min: Span, max: Span) -> impl Fn(&Scalar) -> Result<Span, String> {
    move |scalar| {
        let span = Span::parse(&scalar.text).ok().filter(|span| (min..=max).contains(span));
        span.ok_or_else(|| format!("a duration such as 1h30m, 250ms or a number of seconds, from {min} to {max}"))
    }
}

/// A number of bytes between two bounds, both included.
pub(super) fn bytes(min: u64, max: u64) -> impl Fn(&Scalar) -> Result<u64, String> {
    move |scalar| {
        parse_bytes(&scalar.text).filter(|bytes| (min..=max).contains(bytes)).ok_or_else(|| {
            let (min, max) = (show_bytes(min), show_bytes(max));
            format!("a size such as 1MiB, 500KB or a number of bytes, from {min} to {max}")
        })
    }
}

/// `null`, or what `read` reads.
pub(super) fn nullable<T>(
    read: impl Fn(&Scalar) -> Result<T, String>,
) -> impl Fn(&Scalar) -> Result<Option<T>, String> {
    move |scalar| {
        if scalar.is_null() {
            return Ok(None);
        }
        read(scalar).map(Some).map_err(|expected| format!("{expected}; or null"))
    }
}

/// The path of a file or directory; relative ones are relative to the current directory.
pub(super) fn path(scalar: &Scalar) -> Result<PathBuf, String> {
    let text = &scalar.text;
    let usable =
        !scalar.is_null() && !text.is_empty() && text.len() <= PATH_LEN_MAX && !text.contains(char::is_control);
    usable.then(|| PathBuf::from(text)).ok_or_else(|| format!("a path of 1 to {PATH_LEN_MAX} bytes"))
}

/// An address with a port.
pub(super) fn socket(scalar: &Scalar) -> Result<SocketAddr, String> {
    if let Some(port) = scalar.text.strip_prefix("localhost:") {
        return Err(format!("an address, not a name; write 127.0.0.1:{port}"));
    }
    if let Some(port) = scalar.text.strip_prefix(':') {
        return Err(format!(
            "an address before the port; write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface"
        ));
    }
    let expected = || "an address with a port, such as 127.0.0.1:8443 or [::1]:8443".to_owned();
    scalar.text.parse().ok().ok_or_else(expected)
}

/// Units of sizes, in bytes; those that sizes are shown in come first, largest first.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
];

/// Parses `1MiB`, `500KB`, `65536`: a whole number and at most one unit, without a space.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = if unit.is_empty() { 1 } else { UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The shortest form that reads back as the same size.
pub(super) fn show_bytes(bytes: u64) -> String {
    let unit = UNITS.iter().take(4).find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), plain: true }
    }

    fn quoted(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), plain: false }
    }

    #[test]
    fn whole_numbers_are_plain_digits_within_bounds() {
        let read = whole(1_u32, 1_000);
        assert_eq!(read(&plain("1")), Ok(1));
        assert_eq!(read(&plain("1000")), Ok(1_000));
        for text in ["0", "1001", "-1", "+1", "1.0", "1_000", "1e2", "", "0x10", "99999999999999999999"] {
            assert_eq!(read(&plain(text)), Err("a whole number from 1 to 1000".to_owned()), "{text}");
        }
        assert_eq!(read(&quoted("5")), Err("a whole number from 1 to 1000, without quotes".to_owned()));
    }

    #[test]
    fn numbers_words_and_truth() {
        let read = number(0.0, 1.0);
        assert_eq!((read(&plain("0.25")), read(&plain("1e-1"))), (Ok(0.25), Ok(0.1)));
        for text in ["1.01", "-0.1", "nan", "inf", ".inf", "", "0,5"] {
            assert!(read(&plain(text)).is_err(), "{text}");
        }
        assert_eq!((truth(&plain("true")), truth(&plain("false"))), (Ok(true), Ok(false)));
        for scalar in [plain("yes"), plain("True"), quoted("true"), plain("")] {
            assert_eq!(truth(&scalar), Err("true or false".to_owned()));
        }
        let read = word(&[("any", 1), ("all", 2)]);
        assert_eq!(read(&plain("all")), Ok(2));
        assert_eq!(read(&plain("Any")), Err("any or all; did you mean `any`?".to_owned()));
        assert_eq!(read(&plain("both")), Err("any or all".to_owned()));
    }

    #[test]
    fn null_is_only_what_yaml_calls_null() {
        let read = nullable(whole(1_u32, 9));
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(read(&plain(text)), Ok(None), "{text:?}");
        }
        assert_eq!(read(&quoted("null")), Err("a whole number from 1 to 9, without quotes; or null".to_owned()));
        assert_eq!(read(&plain("none")), Err("a whole number from 1 to 9; or null".to_owned()));
    }

    #[test]
    fn spans_and_sizes_as_people_write_them() {
        let read = span(Span::from_millis(1), Span::from_secs(60));
        assert_eq!((read(&plain("1m")), read(&plain("1ms"))), (Ok(Span::from_secs(60)), Ok(Span::from_millis(1))));
        assert_eq!(
            read(&plain("61")),
            Err("a duration such as 1h30m, 250ms or a number of seconds, from 1ms to 1m".to_owned())
        );
        assert!(read(&plain("0")).is_err());
        for (text, size) in
            [("0", 0), ("65536", 65_536), ("1KiB", 1_024), ("500KB", 500_000), ("2kB", 2_000), ("7B", 7)]
        {
            assert_eq!(parse_bytes(text), Some(size), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "1 MiB", "1mib", "-1", "99999999TiB", "1é"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_and_paths() {
        assert_eq!(socket(&plain("[::1]:0")), Ok(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0))));
        assert!(socket(&plain("localhost:80")).unwrap_err().ends_with("write 127.0.0.1:80"));
        assert!(socket(&plain(":80")).unwrap_err().contains("0.0.0.0:80"));
        assert!(socket(&plain("127.0.0.1")).is_err());
        assert_eq!(path(&plain("a/b")), Ok(PathBuf::from("a/b")));
        assert_eq!(path(&quoted("null")), Ok(PathBuf::from("null")));
        assert!(path(&plain(&"p".repeat(PATH_LEN_MAX))).is_ok());
        for scalar in [plain("null"), plain(""), quoted(""), quoted("a\0b"), plain(&"p".repeat(PATH_LEN_MAX + 1))] {
            assert_eq!(path(&scalar), Err("a path of 1 to 4096 bytes".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn a_size_reads_back_as_it_was_shown(size in any::<u64>(), shift in 0_u32..64) {
            let size = (size >> shift) << (shift / 2);
            prop_assert_eq!(parse_bytes(&show_bytes(size)), Some(size));
        }
    }
}
