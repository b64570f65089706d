//! Text of others on a terminal: nothing in it may move the cursor, change colours or reorder what is read.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether a character acts on the terminal, or on the order of what follows, instead of being seen: C0 and C1 controls,
/// line and paragraph separators, and the bidirectional controls (UAX #9).
pub(in crate::cli) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every such character spelled out: `\n`, `\t`, `\u{1b}`.
pub(in crate::cli) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Columns that the text takes on a terminal.
pub(in crate::cli) fn width(text: &str) -> usize {
    text.width()
}

/// The text, cut to `max` columns; a cut is marked by `…`.
pub(in crate::cli) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    let mut room = max.saturating_sub(1);
    for c in text.chars() {
        let takes = c.width().unwrap_or(0);
        if takes > room {
            break;
        }
        room -= takes;
        kept.push(c);
    }
    if max > 0 {
        kept.push('…');
    }
    Cow::Owned(kept)
}

/// The text in lines of at most `room` columns, broken between words where that wastes less than half a line.
pub(in crate::cli) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut filled) = (String::new(), 0);
    for c in text.chars() {
        let takes = c.width().unwrap_or(0);
        if filled + takes > room && !line.is_empty() {
            let rest = match line.rfind(' ') {
                Some(at) if c != ' ' && at * 2 > line.len() => line.split_off(at),
                Some(_) | None => String::new(),
            };
            lines.push(std::mem::replace(&mut line, rest.trim_start().to_owned()));
            filled = width(&line);
        }
        if !(line.is_empty() && c == ' ') {
            line.push(c);
            filled += takes;
        }
    }
    lines.push(line);
    lines
}

/// A number with a comma at every thousand.
pub(in crate::cli) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Bytes as people read them: `512 B`, `1.5 MiB`.
pub(in crate::cli) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut rest, mut unit) = (count, 0, 0);
    while whole >= 1024 && unit + 1 < units.len() {
        (whole, rest, unit) = (whole / 1024, whole % 1024, unit + 1);
    }
    let mut shown = whole.to_string();
    let tenth = rest * 10 / 1024;
    if tenth > 0 && whole < 100 && write!(shown, ".{tenth}").is_err() {
        tracing::debug!("a string refused to grow");
    }
    format!("{shown} {}", units.get(unit).copied().unwrap_or_default())
}

/// "; did you mean `x`?", when one of the known words is near.
pub(in crate::cli) fn did_you_mean<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> String {
    let near = known
        .map(|word| (strsim::osa_distance(given, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min();
    near.map(|(_, word)| format!("; did you mean `{word}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_spelled_out() {
        for (given, expected) in [
            ("plain ✓ é", "plain ✓ é"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("exe\u{202e}gpj", "exe\\u{202e}gpj"),
        ] {
            assert_eq!(visible(given), expected);
        }
    }

    #[test]
    fn a_cut_fits_and_says_that_it_is_one() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("日本語", 5), "日本…", "wide characters take two columns");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn long_text_is_wrapped_and_nothing_is_lost() {
        assert_eq!(wrap("connection refused by host", 12), ["connection", "refused by", "host"]);
        assert_eq!(wrap("a bcdefghijkl", 6), ["a bcde", "fghijk", "l"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("", 4), [""]);
        let text = "calling http://127.0.0.1:9: error sending request: Connection refused (os error 111)";
        for room in 1..100 {
            let lines = wrap(text, room);
            assert!(lines.iter().all(|line| width(line) <= room), "{room}: {lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""), "{room}");
        }
    }

    #[test]
    fn numbers_and_sizes_are_readable() {
        let shown: Vec<_> = [0, 999, 1_000, 1_234_567].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown: Vec<_> = [0, 1_023, 1_024, 1_536, 10 << 20, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "10 MiB", "16383 PiB"]);
    }

    #[test]
    fn near_words_are_offered() {
        let known = || ["default", "mail"].into_iter();
        assert_eq!(did_you_mean("mial", known()), "; did you mean `mail`?");
        assert_eq!(did_you_mean("reports", known()), "");
    }
}
