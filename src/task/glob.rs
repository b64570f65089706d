//! Patterns in which `*` stands for any run of characters, also for none: for names of queues, values of claims, names in
//! certificates.

use std::fmt;
use std::sync::Arc;

use super::limits::GLOB_LEN_MAX;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is a text of 1 to {GLOB_LEN_MAX} characters, in which `*` stands for any run of characters")]
pub struct GlobError;

/// A pattern for texts of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob(Arc<str>);

impl Glob {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let fits = (1..=GLOB_LEN_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
        if fits { Ok(Self(Arc::from(text))) } else { Err(GlobError) }
    }

    /// Whether the pattern admits the whole of this text, letter by letter.
    pub fn admits(&self, text: &str) -> bool {
        admits(&self.0, text)
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a pattern admits the whole of a text.
pub fn admits(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    // Each piece at its first place leaves the most for those after it.
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = left.get(at + piece.len()..).unwrap_or_default();
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_may_be_in_a_pattern_and_its_length_is_bounded() {
        for (glob, text, admitted) in [
            ("ops-*", "ops-é", true),
            ("ops-*", "dev-ops-", false),
            ("spiffe://a/*", "spiffe://a/b/c", true),
            ("*@ops.example", "me@ops.example", true),
            ("*@ops.example", "me@ops.example.org", false),
            ("[a]?", "[a]?", true),
            ("[a]?", "ab", false),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().admits(text), admitted, "{glob} {text}");
        }
        assert!(Glob::parse(&"é".repeat(GLOB_LEN_MAX)).is_ok());
        for wrong in ["", "a\n", &"é".repeat(GLOB_LEN_MAX + 1)] {
            assert_eq!(Glob::parse(wrong), Err(GlobError), "{wrong}");
        }
    }
}
