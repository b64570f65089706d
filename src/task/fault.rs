//! A fault in what somebody gave us: where it is, and what was expected.

/// One fault in a request or a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the faulty part: `/retry/jitter`.
    pub pointer: String,
    /// What is wrong, what was expected, what to do; lowercase, no full stop.
    pub detail: String,
}

impl Fault {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }

    /// The same fault, seen from further out: `prefix` is put before its pointer.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        Self { pointer: format!("{prefix}{}", self.pointer), detail: self.detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_from_further_out_only_the_pointer_is_longer() {
        let fault = Fault::new("/url", "is no URL").under("/payload").under("/3");
        assert_eq!(fault, Fault { pointer: "/3/payload/url".to_owned(), detail: "is no URL".to_owned() });
    }
}
