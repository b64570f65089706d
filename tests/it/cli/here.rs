//! The real binary as a client of a server of this test: what it said, where, and how it ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::server::TestServer;

/// What changes colours, widths, and the way to a server.
const OF_OTHERS: [&str; 10] = [
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// A directory of its own to call `sendoff` in, and the server that its variables name.
pub(crate) struct Here {
    dir: TempDir,
    variables: Vec<(&'static str, String)>,
    kept: Vec<Here>,
}

/// How a command went.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let code = output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, text(&output.stderr)));
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output of a command that went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Standard error of a command that ended with this code.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

impl Here {
    /// With nothing said about any server.
    pub(crate) fn alone() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), variables: Vec::new(), kept: Vec::new() }
    }

    /// With `SENDOFF_URL`, `SENDOFF_KEY` and `SENDOFF_CA` of this server.
    pub(crate) fn of(server: &TestServer) -> Self {
        let config = server.config();
        Self::at(server.client.url(), &config.data_dir.join("admin.key"), &config.certs_dir.join("ca.pem"))
    }

    /// With the three variables.
    pub(crate) fn at(url: &str, key: &Path, ca: &Path) -> Self {
        let variables = vec![
            ("SENDOFF_URL", url.to_owned()),
            ("SENDOFF_KEY", format!("file:{}", key.display())),
            ("SENDOFF_CA", ca.display().to_string()),
        ];
        Self { variables, ..Self::alone() }
    }

    /// With another variable, or another value of one.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Keeps another place, with its files, as long as this one.
    pub(crate) fn keep(&mut self, other: Self) {
        self.kept.push(other);
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file there.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("it can be written");
    }

    /// This program in this place, with nothing of our own environment that `sendoff` would read.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("SENDOFF_") || OF_OTHERS.contains(&&**name))
        {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// `sendoff` with these words.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_sendoff"));
        command.args(words);
        command
    }

    /// Runs `sendoff` with these words.
    pub(crate) async fn run(&self, words: &[&str]) -> Said {
        finish(self.command(words)).await
    }

    /// Runs a line of shell, in which `sendoff` is the binary under test.
    pub(crate) async fn sh(&self, line: &str) -> Said {
        finish(self.shell(line)).await
    }

    /// The same, not yet run.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_sendoff"));
        let beside = binary.parent().expect("a directory").display().to_string();
        let path = std::env::vars().find(|(name, _)| name == "PATH");
        let path = path.map_or_else(|| beside.clone(), |(_, path)| format!("{beside}:{path}"));
        let mut command = self.program("sh");
        command.env("PATH", path).args(["-c", line]);
        command
    }
}

/// Runs it beside the server, which lives in the same process.
async fn finish(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output().expect("it starts"));
    Said::of(&output.await.expect("it ends"))
}
