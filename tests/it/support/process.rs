//! The real binary as a child process, with its own directory and a client that trusts it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::client::Client;

/// A running `sendoff`.
pub(crate) struct Process {
    child: Child,
    /// A client with its admin key and its CA.
    pub(crate) client: Client,
}

impl Process {
    /// Starts the binary over `dir` and waits until it says that it is ready.
    pub(crate) fn start(dir: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = command(dir)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file(dir))
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next().and_then(Result::ok);
        let Some(url) = first.as_deref().and_then(|line| line.strip_prefix("sendoff is ready on ")) else {
            panic!("not ready, but {first:?}; its log: {}", log_of(dir));
        };
        let url = url.split_whitespace().next().expect("a URL").to_owned();
        Self { child, client: Client::of(&url, &dir.join("certs/ca.pem"), &dir.join("data/admin.key")) }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// Sends a signal by its name (`TERM`).
    pub(crate) fn signal(&self, name: &str) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            "STOP" => rustix::process::Signal::STOP,
            "CONT" => rustix::process::Signal::CONT,
            other => panic!("no signal {other}"),
        };
        rustix::process::kill_process(pid, signal).expect("it is there");
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) fn terminate(self, dir: &Path) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}; its log: {}", log_of(dir));
    }
}

/// The binary over `dir`, on a free port, with nothing of our own environment that it would read.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
    command.current_dir(dir).args(["serve", "--listen", "127.0.0.1:0"]).args([
        "--data-dir",
        "data",
        "--certs-dir",
        "certs",
    ]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SENDOFF_")) {
        command.env_remove(name);
    }
    command
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn log_file(dir: &Path) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(log_path(dir)).expect("a log file")
}

/// What all processes over `dir` have logged.
pub(crate) fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(log_path(dir)).unwrap_or_default()
}
