//! Names: what may stand in one, and nothing that may not.

use std::fmt;
use std::sync::Arc;

use super::limits::{NAME_LEN_MAX, TASK_NAME_LEN_MAX};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing given.
    #[error("a name must not be empty")]
    Empty,
    /// Too long.
    #[error("a name has at most {max} characters, this one has {given}")]
    TooLong {
        /// The bound, in characters.
        max: usize,
        /// How many there were.
        given: usize,
    },
    /// A character that may not stand in it.
    #[error("character {found:?} at position {at} is not one of {allowed}")]
    BadCharacter {
        /// The first one found.
        found: char,
        /// Where, counted from 1 in characters.
        at: usize,
        /// What may stand there.
        allowed: &'static str,
    },
}

fn check(text: &str, len_max: usize, extra: &[char], allowed: &'static str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let bad = text.chars().enumerate().find(|(_, c)| !c.is_ascii_alphanumeric() && !extra.contains(c));
    if let Some((index, found)) = bad {
        return Err(NameError::BadCharacter { found, at: index + 1, allowed });
    }
    if text.len() > len_max {
        return Err(NameError::TooLong { max: len_max, given: text.len() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $len_max:expr, $extra:expr, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name; the error says which character or length is wrong.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $len_max, $extra, $allowed)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a queue: `[A-Za-z0-9._-]{1,128}`.
    QueueName, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// The name of a task type, which selects its handler: `[A-Za-z0-9._-]{1,128}`.
    TaskType, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// The key of a label: `[A-Za-z0-9._-]{1,128}`.
    LabelName, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// What an API key is for: `[A-Za-z0-9._-]{1,128}`. Several keys may have one name.
    KeyName, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// What the configuration calls callers of one kind, or one of their grants: `[A-Za-z0-9._-]{1,128}`.
    CallerName, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// The name of a credential: `[A-Za-z0-9._-]{1,128}`.
    CredentialName, NAME_LEN_MAX, &['.', '_', '-'], "[A-Za-z0-9._-]"
);
name!(
    /// A client's own `task_id`: `[A-Za-z0-9._:~-]{1,256}`.
    TaskName, TASK_NAME_LEN_MAX, &['.', '_', ':', '~', '-'], "[A-Za-z0-9._:~-]"
);

/// What the tasks of one lane share inside a queue: the target host (`https://api.example.com:443`), or the task type.
///
/// Made by handlers, never by clients, so nothing is left to check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName(Arc<str>);

impl LaneName {
    /// A lane named after a host or a task type.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_one_below_and_one_above() {
        assert!(QueueName::parse(&"q".repeat(NAME_LEN_MAX)).is_ok());
        assert_eq!(
            QueueName::parse(&"q".repeat(NAME_LEN_MAX + 1)),
            Err(NameError::TooLong { max: NAME_LEN_MAX, given: NAME_LEN_MAX + 1 })
        );
        assert!(TaskName::parse(&"t".repeat(TASK_NAME_LEN_MAX)).is_ok());
        assert!(TaskName::parse(&"t".repeat(TASK_NAME_LEN_MAX + 1)).is_err());
        assert_eq!(QueueName::parse(""), Err(NameError::Empty));
    }

    #[test]
    fn characters_are_checked_and_the_first_bad_one_is_named() {
        assert!(TaskName::parse("order:7~a.b_c-d").is_ok());
        let error = QueueName::parse("ab c").unwrap_err().to_string();
        assert_eq!(error, "character ' ' at position 3 is not one of [A-Za-z0-9._-]");
        assert!(QueueName::parse("a:b").is_err());
        assert!(LabelName::parse("é").is_err());
        assert!(TaskType::parse("http_request").is_ok());
        assert_eq!(LaneName::new("https://a:443").to_string(), "https://a:443");
        assert_eq!(LaneName::new("https://a:443").as_str(), "https://a:443");
        let name = TaskName::parse("order:7").unwrap();
        assert_eq!((name.as_str(), name.to_string()), ("order:7", "order:7".to_owned()));
    }
}
