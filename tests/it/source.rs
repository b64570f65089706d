//! A Rust source file as the rules of `tidy` see it: with comments and strings blanked out, and
//! with its test items told apart. A lexer of a hundred lines; what it need not know, it does not.

use std::ops::Range;

/// One file, with the views that the rules need. All views have the same byte offsets.
pub(crate) struct Source {
    /// Relative to the crate, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with comments, strings and characters blanked.
    pub(crate) code: String,
    /// The items behind `#[cfg(test)]`.
    pub(crate) tests: Vec<Range<usize>>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = code_of(text);
        let tests = test_items(&code);
        Self { path: path.into(), text: text.into(), code, tests }
    }

    /// A file that is test code as a whole.
    fn is_test(&self) -> bool {
        let stem = self.path.trim_end_matches(".rs");
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || stem.ends_with("/tests")
            || stem.ends_with("_tests")
    }

    /// The code without tests.
    pub(crate) fn production(&self) -> String {
        if self.is_test() {
            return blank(&self.code);
        }
        let mut out = self.code.clone();
        for span in &self.tests {
            out.replace_range(span.clone(), &blank(&self.code[span.clone()]));
        }
        out
    }

    /// The code of tests alone.
    pub(crate) fn test_code(&self) -> String {
        if self.is_test() {
            return self.code.clone();
        }
        let mut out = blank(&self.code);
        for span in &self.tests {
            out.replace_range(span.clone(), &self.code[span.clone()]);
        }
        out
    }

    /// The line of `at`, and what is wrong there.
    pub(crate) fn fault(&self, at: usize, what: impl Into<String>) -> (usize, String) {
        (self.text[..at].matches('\n').count() + 1, what.into())
    }
}

/// Spaces for everything but line ends.
fn blank(text: &str) -> String {
    text.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect()
}

/// Blanks what is not code.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let opaque = opaque_len(rest);
        let len = opaque.unwrap_or(c.len_utf8());
        let (now, later) = rest.split_at(len);
        out.push_str(&if opaque.is_some() || !c.is_ascii() { blank(now) } else { now.into() });
        rest = later;
    }
    out
}

/// The length of the comment, string or character that begins here, if one does.
fn opaque_len(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_len(rest));
    }
    if rest.starts_with('"') {
        return Some(string_len(rest));
    }
    if let Some(after) = rest.strip_prefix('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let close = format!("\"{}", &after[..hashes]);
        let body = after[hashes..].strip_prefix('"')?;
        let end = body.find(&close).map_or(body.len(), |at| at + close.len());
        return Some(rest.len() - body.len() + end);
    }
    char_len(rest)
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_len(rest: &str) -> usize {
    let mut escaped = true; // the opening quote does not close
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'a'` and `'\n'` are characters, `'a` is a lifetime.
fn char_len(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return inner[2..].find('\'').map(|at| at + 4);
    }
    let len = first.len_utf8();
    inner[len..].starts_with('\'').then_some(len + 2)
}

/// The spans of the items behind `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::<Range<usize>>::new();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (start, _) in code.match_indices(attribute) {
            found.push(start..start + item_len(&code[start..]));
        }
    }
    found.sort_by_key(|span| span.start);
    found
}

/// An item ends with the `}` or `;` that belongs to it.
fn item_len(code: &str) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth < 0 || depth == 0 && matches!(byte, b'}' | b';') {
            return at + 1;
        }
    }
    code.len()
}

/// Every run of letters, digits and `_`, with its offset.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `RetryPolicy` and `retry_policy` are both `retry`, `policy`.
pub(crate) fn parts(word: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut lower_before = false;
    for c in word.chars() {
        if c == '_' || c.is_uppercase() && lower_before {
            out.push(String::new());
        }
        lower_before = c.is_lowercase();
        if c != '_' {
            out.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    out
}

/// Where `needle` stands and is not the tail of a longer word.
pub(crate) fn finds<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(needle).map(|(at, _)| at).filter(|at| !text[..*at].ends_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_code_is_blanked() {
        let text = "a /* b /* c */ d */ \"e\\\" f\" r#\"g \" h\"# 'i' '\\'' 'j: b\"k\" é // l\nm";
        assert_eq!(words(&code_of(text)).map(|(_, word)| word).collect::<Vec<_>>(), ["a", "j", "b", "m"]);
        assert_eq!(code_of(text).len(), text.len());
    }

    #[test]
    fn raw_identifiers_and_lifetimes_stay_code() {
        assert_eq!(code_of("r#type &'a str, 'b'"), "r#type &'a str,    ");
    }

    #[test]
    fn test_items_are_told_apart() {
        let text =
            "fn a() {}\n#[cfg(test)]\nuse b;\nfn c(_: [u8; 2]) {}\n#[cfg(test)]\nmod tests { fn d() { \"}\"; } }\n";
        let source = Source::new("src/x.rs", text);
        let names = |code: &str| words(code).map(|(_, word)| word.to_owned()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&source.production()), "fn a fn c _ u8 2");
        assert_eq!(names(&source.test_code()), "cfg test use b cfg test mod tests fn d");
    }

    #[test]
    fn files_of_tests_are_tests_as_a_whole() {
        for path in ["tests/it/api.rs", "src/queue/tests.rs", "src/queue/tests/engine.rs", "src/queue/engine_tests.rs"]
        {
            assert_eq!(Source::new(path, "fn a() {}").production().trim(), "", "{path}");
        }
        assert_ne!(Source::new("src/queue/engine.rs", "fn a() {}").production().trim(), "");
    }

    #[test]
    fn names_fall_into_parts() {
        assert_eq!(parts("RetryPolicy_max2"), ["retry", "policy", "max2"]);
        assert_eq!(parts("HTTPServer"), ["httpserver"]);
    }
}
