//! Faults of a configuration: each says where, what was given, what was expected; all are reported at once.

use std::fmt;
use std::sync::Arc;

use crate::task::limits::FAULTS_REPORTED_MAX;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file; line 0 is the file as a whole.
    File {
        /// The file's path as it was given.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(Arc<str>),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// Nobody said anything: the default holds.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where the faulty value came from.
    pub origin: Origin,
    /// The key, from the top: `queues.mail.retry.jitter`; empty for the file as a whole.
    pub path: String,
    /// What was given, what was expected, what to do; lowercase, no full stop.
    pub detail: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.detail)
    }
}

/// Every fault of a configuration, at most [`FAULTS_REPORTED_MAX`] of them spelled out.
///
/// The command line prints it and exits 78 (`EX_CONFIG` of `sysexits.h`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigFaults {
    faults: Vec<ConfigFault>,
    more: usize,
}

impl ConfigFaults {
    /// The faults, in the order of the file, then the environment, then flags.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigFault> {
        self.faults.iter()
    }

    /// How many faults there are, those not spelled out included.
    pub fn count(&self) -> usize {
        self.faults.len().saturating_add(self.more)
    }

    /// Notes one more fault.
    pub fn add(&mut self, fault: ConfigFault) {
        self.push(&fault.origin, fault.path, fault.detail);
    }

    /// Notes one more fault.
    pub(super) fn push(&mut self, origin: &Origin, path: impl Into<String>, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_REPORTED_MAX {
            self.faults.push(ConfigFault { origin: origin.clone(), path: path.into(), detail: detail.into() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// The faults in reading order, or `value` when there are none.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.faults.is_empty() {
            return Ok(value);
        }
        self.faults.sort_by(|a, b| a.origin.cmp(&b.origin));
        Err(self)
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => writeln!(f, "the configuration has 1 fault")?,
            count => writeln!(f, "the configuration has {count} faults")?,
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        if self.more > 0 {
            writeln!(f, "  and {} more", self.more)?;
        }
        f.write_str("correct them and look again with `sendoff config check`; config.yaml explains every key")
    }
}

impl std::error::Error for ConfigFaults {}

/// What was given, cut to a readable length, for the words "got …".
pub(super) fn quote(text: &str, plain: bool) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(readable).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    match (plain, shown.is_empty()) {
        (true, true) => "nothing".to_owned(),
        (true, false) => format!("`{shown}`"),
        (false, _) => format!("the text \"{shown}\""),
    }
}

/// `path` with one more key; keys that would be hard to tell from the dots around them are quoted.
pub(super) fn child(path: &str, key: &str) -> String {
    let simple = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let key = if simple { key.to_owned() } else { format!("{:?}", key.chars().take(200).collect::<String>()) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Control characters are shown escaped, everything else as it is.
fn readable(c: char) -> String {
    if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(count: usize) -> ConfigFaults {
        let mut faults = ConfigFaults::default();
        for line in (1..=count).rev() {
            faults.push(&Origin::File { file: "c.yaml".into(), line }, "a.b", "got `x`, expected y");
        }
        faults
    }

    #[test]
    fn faults_read_in_the_order_of_the_file_and_end_with_what_to_do() {
        assert_eq!(faults(0).or(7), Ok(7));
        assert_eq!(
            faults(2).or(()).unwrap_err().to_string(),
            "the configuration has 2 faults\n  c.yaml:1: a.b: got `x`, expected y\n  \
             c.yaml:2: a.b: got `x`, expected y\n\
             correct them and look again with `sendoff config check`; config.yaml explains every key"
        );
        assert!(faults(1).to_string().starts_with("the configuration has 1 fault\n"));
    }

    #[test]
    fn a_flood_of_faults_is_cut_and_counted() {
        assert!(!faults(FAULTS_REPORTED_MAX).to_string().contains(" more\n"));
        let text = faults(FAULTS_REPORTED_MAX + 1).to_string();
        assert!(text.contains("has 101 faults\n") && text.contains("\n  and 1 more\n"), "{text}");
        assert_eq!(faults(FAULTS_REPORTED_MAX + 1).iter().count(), FAULTS_REPORTED_MAX);
    }

    #[test]
    fn what_was_given_is_shown_readably() {
        assert_eq!(quote("", true), "nothing");
        assert_eq!(quote("a\u{1b}b", true), "`a\\u{1b}b`");
        assert_eq!(quote("5", false), "the text \"5\"");
        assert_eq!(quote(&"x".repeat(61), true), format!("`{}…`", "x".repeat(60)));
        assert_eq!(child("hosts.overrides", "https://a:1"), "hosts.overrides.\"https://a:1\"");
    }
}
