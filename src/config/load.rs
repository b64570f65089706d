//! From file, environment and flags to one [`Config`], or to every fault at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, ConfigFaults, Origin, child};
use super::model::Config;
use super::raw::{self, Kind, Map, Node};
use super::{overrides, shape, validate};
use crate::task::limits::CONFIG_BYTES_MAX;

/// The file that is read when no flag names one, if it exists.
pub const DEFAULT_FILE: &str = "config.yaml";

/// Which file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// The user named it: it must exist.
    Given(PathBuf),
    /// It may be missing: then the defaults hold.
    Default(PathBuf),
}

/// The command line's overrides; each is stronger than file and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`: the file to read.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--certs-dir`.
    pub certs_dir: Option<String>,
    /// `--listen`: an address with a port.
    pub listen: Option<String>,
}

/// Where a configuration comes from: file, then environment over it, then flags over both.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The file.
    pub file: FileSource,
    /// Environment variables, ours among others; see [`environment`].
    pub env: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
}

impl Sources {
    /// The sources of a process: the file of `--config`, or [`DEFAULT_FILE`] in the current directory if it exists.
    pub fn new(env: Vec<(String, String)>, flags: Flags) -> Self {
        let file = match &flags.config {
            Some(path) => FileSource::Given(path.clone()),
            None => FileSource::Default(PathBuf::from(DEFAULT_FILE)),
        };
        Self { file, env, flags }
    }
}

/// A valid configuration, and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read; `None` when there was none.
    pub file: Option<PathBuf>,
    /// By path (`queues.mail.weight`, lists as a whole): everything that was given rather than left to its default.
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// A fault that shows only when the value at `path` is used: a file that it names cannot be read, say.
    pub fn fault(&self, path: &str, detail: impl Into<String>) -> ConfigFault {
        let origin = self.origins.get(path).cloned().unwrap_or(Origin::Default);
        ConfigFault { origin, path: path.to_owned(), detail: detail.into() }
    }
}

impl From<Config> for Loaded {
    /// A configuration that came from nowhere: a program that holds the server within itself has made it.
    fn from(config: Config) -> Self {
        Self { config, file: None, origins: BTreeMap::new() }
    }
}

/// The variables of this process whose names begin with `SENDOFF_`, as [`Sources::env`] wants them.
///
/// The only place that reads the process's environment for configuration. What is not UTF-8 carries U+FFFD in it and
/// is refused by [`load`].
pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(overrides::PREFIX.as_bytes()))
        .map(|(name, value)| (lossy(name), lossy(value)))
        .collect()
}

/// One variable of this process, for a reference `env:NAME` that somebody gave; `None` if it is not there, or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the module whose business it is")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and checks the configuration.
///
/// # Errors
/// Every fault that was found, each with its place, what was expected and what to do. The file can only be unreadable
/// as a whole (missing, too large, no YAML); then names of variables are still checked, values are not.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigFaults> {
    load_if(sources, false)
}

/// Reads and checks the configuration of a server that already runs with one from a file. That the file is gone, or that
/// nothing at all is in it, is a fault here: this is how it looks while somebody is writing it, and a server that took
/// it for the wish to have the defaults would drop its queues and its egress rules.
///
/// # Errors
/// As [`load`].
pub fn load_again(sources: &Sources) -> Result<Loaded, ConfigFaults> {
    load_if(sources, true)
}

fn load_if(sources: &Sources, file_needed: bool) -> Result<Loaded, ConfigFaults> {
    let mut faults = ConfigFaults::default();
    let (tree, file) = match read_file(&sources.file, file_needed, &mut faults) {
        Ok(Some((tree, path))) => (Some(tree), Some(path)),
        Ok(None) => (Some(empty()), None),
        Err(raw::Unreadable) => (None, None),
    };
    let readable = tree.is_some();
    let mut tree = tree.unwrap_or_else(empty);
    shape::ROOT.check(&tree, "", &mut faults);
    overrides::environment(&mut tree, &sources.env, &mut faults);
    overrides::flags(
        &mut tree,
        &[
            ("--data-dir", "data_dir", sources.flags.data_dir.as_ref()),
            ("--certs-dir", "certs_dir", sources.flags.certs_dir.as_ref()),
            ("--listen", "server.listen", sources.flags.listen.as_ref()),
        ],
    );
    let config = if readable { validate::config(&tree, &mut faults) } else { Config::default() };
    let mut origins = BTreeMap::new();
    collect_origins(&tree, "", &mut origins);
    faults.or(Loaded { config, file, origins })
}

fn empty() -> Node {
    Node { origin: Origin::Default, kind: Kind::Map(Map::new()) }
}

fn read_file(
    source: &FileSource,
    needed: bool,
    faults: &mut ConfigFaults,
) -> Result<Option<(Node, PathBuf)>, raw::Unreadable> {
    let (FileSource::Given(path) | FileSource::Default(path)) = source;
    let name = path.display().to_string();
    let origin = |line| Origin::File { file: name.as_str().into(), line };
    let read = match read_text(path) {
        Ok(text) if needed && text.trim().is_empty() => Err(ReadError::Emptied),
        Err(ReadError::Missing) if needed => Err(ReadError::Gone),
        other => other,
    };
    let text = match read {
        Ok(text) => text,
        Err(ReadError::Missing) if matches!(source, FileSource::Default(_)) => return Ok(None),
        Err(error) => {
            faults.push(&origin(0), "", error.to_string());
            return Err(raw::Unreadable);
        }
    };
    let tree = raw::parse(&text, "", &origin, faults)?;
    Ok(Some((tree.unwrap_or_else(empty), path.clone())))
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("there is no such file; name another with --config, or leave the flag out to use the defaults")]
    Missing,
    #[error("the file is gone; put it back, or start the server anew to run it with the defaults")]
    Gone,
    #[error("the file is empty; fill it, or start the server anew to run it with the defaults")]
    Emptied,
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the file has more than {CONFIG_BYTES_MAX} bytes; is it the right one?")]
    TooLarge,
    #[error("the file is not UTF-8 at byte {at}; save it as UTF-8")]
    NotUtf8 {
        at: usize,
        #[source]
        source: std::string::FromUtf8Error,
    },
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    let file = File::open(path)
        .map_err(|error| if error.kind() == ErrorKind::NotFound { ReadError::Missing } else { ReadError::Io(error) })?;
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|source| ReadError::NotUtf8 { at: source.utf8_error().valid_up_to(), source })
}

fn collect_origins(node: &Node, path: &str, into: &mut BTreeMap<String, Origin>) {
    match &node.kind {
        Kind::Map(map) => {
            for (key, entry) in map {
                collect_origins(&entry.value, &child(path, key), into);
            }
        }
        Kind::Scalar(_) | Kind::List(_) => {
            into.insert(path.to_owned(), node.origin.clone());
        }
    }
}
