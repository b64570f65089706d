//! How a command ends: the one list of exit codes, and the ways in which a command fails, each with its code.

use std::process::ExitCode;

use crate::config::ConfigFaults;

use super::call::CallError;

/// Every exit code of the program (documented in `docs/cli.md`; 74 and 78 are those of `sysexits.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// It was done.
    Ok = 0,
    /// It failed, for none of the reasons below.
    Failure = 1,
    /// The command line, or the task that it describes, is not valid.
    Usage = 2,
    /// There is no such task, queue, dead letter or API key.
    NotFound = 3,
    /// The server does not know the key, it may not do this, or there is none.
    Auth = 4,
    /// The task's state, or an earlier request, does not allow this.
    Conflict = 5,
    /// No answer from the server.
    Unreachable = 6,
    /// Only some of what was asked for was done.
    Partly = 7,
    /// The store: its disk failed or may have, it is damaged, or another server has it (`EX_IOERR`).
    Disk = 74,
    /// The configuration is not valid (`EX_CONFIG`).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// What was said on the command line does not hold together, in a way that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigFaults),
    /// The server did not do it, or could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Anything else, with its code.
    #[error("{text}")]
    Told {
        /// How to end.
        exit: Exit,
        /// What to say: what, where, what to do.
        text: String,
    },
    /// Standard output could not be written.
    #[error("failed to write to standard output: {0}")]
    Output(std::io::Error),
    /// Whoever read standard output has gone (`| head`): nothing is left to do, and nothing to say.
    #[error("nobody reads standard output any more")]
    AudienceGone,
}

impl Failed {
    /// A failure with a code and a sentence.
    pub(super) fn told(exit: Exit, text: impl Into<String>) -> Self {
        Self::Told { exit, text: text.into() }
    }

    /// Its exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            Self::Call(error) => error.exit(),
            Self::Told { exit, .. } => *exit,
            Self::Output(_) => Exit::Failure,
            Self::AudienceGone => Exit::Ok,
        }
    }
}

impl From<std::io::Error> for Failed {
    /// Of standard output: nothing else is written or read by way of this.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::AudienceGone } else { Self::Output(error) }
    }
}
