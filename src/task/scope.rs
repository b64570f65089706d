//! Scopes: what a caller may do, and to which queues. Whatever no scope allows is denied.
//!
//! ```text
//! read              every queue
//! enqueue:mail-*    the queues whose names the glob admits: `*` stands for any run of characters, also for none
//! ```

use std::fmt;
use std::sync::Arc;

use super::glob;
use super::limits::{KEY_SCOPES_MAX, NAME_LEN_MAX};
use super::name::QueueName;

/// What can be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Accept tasks.
    Enqueue,
    /// See tasks, queues and dead letters, without payloads and answers of targets.
    Read,
    /// See payloads and answers of targets too. Includes [`Scope::Read`] of the same queues: there is no seeing the
    /// payload of a task that is not seen.
    ReadPayload,
    /// Cancel and run tasks, pause and resume queues.
    Manage,
    /// Redrive and purge dead letters.
    Redrive,
    /// Read the metrics.
    Metrics,
    /// Make, see and revoke API keys. Who may do that can give itself any other scope.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] =
        [Self::Enqueue, Self::Read, Self::ReadPayload, Self::Manage, Self::Redrive, Self::Metrics, Self::Admin];

    /// Its public word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Read => "read",
            Self::ReadPayload => "read_payload",
            Self::Manage => "manage",
            Self::Redrive => "redrive",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    /// Whether it is about queues. The metrics are those of the whole server, and so are its keys.
    pub fn is_of_queues(self) -> bool {
        !matches!(self, Self::Metrics | Self::Admin)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether whoever holds this one may do what `asked` allows.
    fn includes(self, asked: Self) -> bool {
        self == asked || (self == Self::ReadPayload && asked == Self::Read)
    }
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No such word.
    #[error("there is no scope `{word}`: it is one of {}", Scope::ALL.map(Scope::as_str).join(", "))]
    Unknown {
        /// What was given.
        word: String,
    },
    /// Limited to queues, and not about queues.
    #[error("`{}` is of the whole server: it cannot be limited to queues", scope.as_str())]
    NotOfQueues {
        /// Which.
        scope: Scope,
    },
    /// What names the queues is no glob.
    #[error("queues are named by 1 to {NAME_LEN_MAX} of [A-Za-z0-9._-] and `*`")]
    Glob,
    /// None at all.
    #[error("at least one scope is needed")]
    None,
    /// Too many.
    #[error("at most {KEY_SCOPES_MAX} scopes")]
    TooMany,
}

/// A pattern for names of queues: `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueGlob(Arc<str>);

impl QueueGlob {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*');
        if text.is_empty() || text.len() > NAME_LEN_MAX || !text.bytes().all(fits) {
            return Err(ScopeError::Glob);
        }
        Ok(Self(Arc::from(text)))
    }

    /// Whether the pattern admits this queue.
    pub fn admits(&self, queue: &QueueName) -> bool {
        glob::admits(&self.0, queue.as_str())
    }
}

/// Queues that one of several patterns admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueGlobs(Arc<[QueueGlob]>);

impl QueueGlobs {
    /// Whether one of the patterns admits this queue.
    pub fn admits(&self, queue: &QueueName) -> bool {
        self.0.iter().any(|glob| glob.admits(queue))
    }
}

impl FromIterator<QueueGlob> for QueueGlobs {
    fn from_iter<I: IntoIterator<Item = QueueGlob>>(globs: I) -> Self {
        Self(globs.into_iter().collect())
    }
}

/// One scope, of every queue or of some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    scope: Scope,
    queues: Option<QueueGlob>,
}

impl Grant {
    fn parse(text: &str) -> Result<Self, ScopeError> {
        let (word, glob) = text.split_once(':').map_or((text, None), |(word, glob)| (word, Some(glob)));
        let scope = Scope::parse(word).ok_or_else(|| {
            let shown = word.chars().take(NAME_LEN_MAX).collect();
            ScopeError::Unknown { word: shown }
        })?;
        if glob.is_some() && !scope.is_of_queues() {
            return Err(ScopeError::NotOfQueues { scope });
        }
        Ok(Self { scope, queues: glob.map(QueueGlob::parse).transpose()? })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope.as_str())?;
        self.queues.as_ref().map_or(Ok(()), |glob| write!(f, ":{}", glob.0))
    }
}

/// To which queues a scope reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To all.
    Everywhere,
    /// To those that the patterns admit; to none when there are no patterns.
    Some(QueueGlobs),
}

/// Everything that one caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Vec<Grant>);

impl Scopes {
    /// Every scope of every queue.
    pub fn all() -> Self {
        Self(Scope::ALL.map(|scope| Grant { scope, queues: None }).to_vec())
    }

    /// Parses scopes, each as `scope` or `scope:glob`; the error names the place of the first that is none.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, ScopeError)> {
        let mut grants = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            if index >= KEY_SCOPES_MAX {
                return Err((index, ScopeError::TooMany));
            }
            grants.push(Grant::parse(text).map_err(|error| (index, error))?);
        }
        if grants.is_empty() {
            return Err((0, ScopeError::None));
        }
        Ok(Self::of(grants))
    }

    /// What any of these allows; nothing, when there are none.
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::of(all.into_iter().flat_map(|scopes| scopes.0.iter().cloned()).collect())
    }

    fn of(mut grants: Vec<Grant>) -> Self {
        grants.sort();
        grants.dedup();
        Self(grants)
    }

    /// Whether the scope is held at all, be it of some queues only.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.iter().any(|grant| grant.scope.includes(scope))
    }

    /// Whether the scope is held of this queue.
    pub fn allow(&self, scope: Scope, queue: &QueueName) -> bool {
        let of_scope = |grant: &&Grant| grant.scope.includes(scope);
        self.0.iter().filter(of_scope).any(|grant| grant.queues.as_ref().is_none_or(|glob| glob.admits(queue)))
    }

    /// To which queues the scope reaches.
    pub fn reach(&self, scope: Scope) -> Reach {
        let mut globs = Vec::new();
        for grant in self.0.iter().filter(|grant| grant.scope.includes(scope)) {
            match &grant.queues {
                None => return Reach::Everywhere,
                Some(glob) => globs.push(glob.clone()),
            }
        }
        Reach::Some(globs.into_iter().collect())
    }

    /// Each scope as it was given.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes::parse(texts.iter().copied()).unwrap()
    }

    #[test]
    fn globs_admit_what_they_say_and_nothing_else() {
        for (glob, name, admitted) in [
            ("mail", "mail", true),
            ("mail", "mail-2", false),
            ("mail", "Mail", false),
            ("mail-*", "mail-", true),
            ("mail-*", "mail-eu", true),
            ("mail-*", "mail", false),
            ("mail-*", "gmail-eu", false),
            ("*-eu", "mail-eu", true),
            ("*-eu", "mail-eu-1", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("*", "x", true),
            ("**", "x", true),
            ("a.c", "abc", false),
        ] {
            assert_eq!(QueueGlob::parse(glob).unwrap().admits(&queue(name)), admitted, "{glob} {name}");
        }
        let longest = "q".repeat(NAME_LEN_MAX);
        assert!(QueueGlob::parse(&longest).is_ok());
        for wrong in ["", "a b", "a:b", "é", "a?", "[a]", &format!("{longest}q")] {
            assert_eq!(QueueGlob::parse(wrong), Err(ScopeError::Glob), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        let held = scopes(&["enqueue:mail-*", "enqueue:sms", "manage", "read_payload:mail-eu"]);
        for (scope, name, allowed) in [
            (Scope::Enqueue, "mail-eu", true),
            (Scope::Enqueue, "sms", true),
            (Scope::Enqueue, "default", false),
            (Scope::Manage, "default", true),
            (Scope::Read, "mail-eu", true),
            (Scope::Read, "mail-us", false),
            (Scope::ReadPayload, "mail-eu", true),
            (Scope::Redrive, "mail-eu", false),
            (Scope::Admin, "mail-eu", false),
        ] {
            assert_eq!(held.allow(scope, &queue(name)), allowed, "{scope:?} {name}");
        }
        assert!(held.has(Scope::Read) && !held.has(Scope::Redrive) && !held.has(Scope::Metrics));
        assert_eq!(held.reach(Scope::Manage), Reach::Everywhere);
        assert_eq!(held.reach(Scope::Redrive), Reach::Some([].into_iter().collect()));
        let read_only = scopes(&["read"]);
        assert!(!read_only.allow(Scope::ReadPayload, &queue("a")), "reading is not reading payloads");
    }

    #[test]
    fn every_scope_is_granted_alone_and_all_of_them_together() {
        for scope in Scope::ALL {
            let held = scopes(&[scope.as_str()]);
            for asked in Scope::ALL {
                let included = scope == asked || (scope, asked) == (Scope::ReadPayload, Scope::Read);
                assert_eq!(held.has(asked), included, "{scope:?} {asked:?}");
            }
            assert!(Scopes::all().allow(scope, &queue("any")));
        }
    }

    #[test]
    fn a_text_that_is_no_scope_is_named_with_its_place() {
        let refused = |texts: &[&str]| Scopes::parse(texts.iter().copied()).unwrap_err();
        assert_eq!(refused(&["read", "write"]), (1, ScopeError::Unknown { word: "write".to_owned() }));
        assert_eq!(refused(&["admin:*"]), (0, ScopeError::NotOfQueues { scope: Scope::Admin }));
        assert_eq!(refused(&["metrics:mail"]), (0, ScopeError::NotOfQueues { scope: Scope::Metrics }));
        assert_eq!(refused(&["read:"]), (0, ScopeError::Glob));
        assert_eq!(refused(&["read:a:b"]), (0, ScopeError::Glob));
        assert_eq!(refused(&[]), (0, ScopeError::None));
        assert_eq!(refused(&["READ"]), (0, ScopeError::Unknown { word: "READ".to_owned() }));
        let many: Vec<String> = (0..=KEY_SCOPES_MAX).map(|n| format!("read:q{n}")).collect();
        assert!(Scopes::parse(many.iter().skip(1).map(String::as_str)).is_ok());
        let refused = Scopes::parse(many.iter().map(String::as_str));
        assert_eq!(refused, Err((KEY_SCOPES_MAX, ScopeError::TooMany)));
    }

    #[test]
    fn a_union_allows_what_one_of_its_parts_does() {
        let both = Scopes::union([&scopes(&["read:mail"]), &scopes(&["enqueue", "read:mail"])]);
        assert_eq!(both, scopes(&["enqueue", "read:mail"]));
        let nothing = Scopes::union([]);
        assert!(Scope::ALL.into_iter().all(|scope| !nothing.has(scope) && !nothing.allow(scope, &queue("mail"))));
    }

    #[test]
    fn scopes_read_back_as_they_are_shown() {
        let held = scopes(&["read", "enqueue:mail-*", "read", "admin"]);
        let shown: Vec<_> = held.texts().collect();
        assert_eq!(shown, ["enqueue:mail-*", "read", "admin"]);
        assert_eq!(Scopes::parse(shown.iter().map(String::as_str)), Ok(held));
    }

    /// The plain meaning of a pattern, one character at a time.
    fn naive(glob: &[u8], name: &[u8]) -> bool {
        match (glob.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => naive(rest, name) || name.split_first().is_some_and(|(_, n)| naive(glob, n)),
            (Some((g, rest)), Some((n, more))) => g == n && naive(rest, more),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn globs_mean_what_the_plain_reading_says(glob in "[ab*]{1,8}", name in "[ab]{1,10}") {
            let admitted = QueueGlob::parse(&glob).unwrap().admits(&queue(&name));
            prop_assert_eq!(admitted, naive(glob.as_bytes(), name.as_bytes()));
        }
    }
}
