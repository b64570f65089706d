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
    /// What it printed when it was ready: all lines, to the one that calls `curl`.
    pub(crate) welcome: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that ended it gets an error here that says so.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// Starts the binary over `dir` and waits until it says that it is ready.
    pub(crate) fn start(dir: &Path, environment: &[(&str, &str)]) -> Self {
        Self::ready(spawn(dir, environment), dir)
    }

    /// The same at this address: where an earlier one was.
    pub(crate) fn start_at(dir: &Path, address: &str) -> Self {
        Self::ready(spawned(command_at(dir, address), dir), dir)
    }

    /// Waits until a binary that was started over `dir` says that it is ready.
    pub(crate) fn ready(child: Child, dir: &Path) -> Self {
        Self::ready_or_not(child, dir).unwrap_or_else(|_child| panic!("not ready; its log: {}", log_of(dir)))
    }

    /// The same, and gives a binary back that ends instead.
    pub(crate) fn ready_or_not(mut child: Child, dir: &Path) -> Result<Self, Child> {
        let stdout = child.stdout.take().expect("piped");
        let mut welcome = Vec::new();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            welcome.push(line);
            if welcome.last().is_some_and(|line| line.starts_with("  sed ")) {
                break;
            }
        }
        let Some(url) = welcome.first().and_then(|line| line.strip_prefix("sendoff is ready on ")) else {
            return Err(child);
        };
        let url = url.split_whitespace().next().expect("a URL").to_owned();
        let client = Client::of(&url, &dir.join("certs/ca.pem"), &dir.join("data/admin.key"));
        Ok(Self { child, client, welcome })
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name (`TERM`).
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Stops it (SIGSTOP), and waits until all of it stands still: the signal alone takes a busy machine its time.
    pub(crate) fn stand_still(&self) {
        self.signal("STOP");
        let pid = rustix::process::Pid::from_child(&self.child);
        let stopped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED);
        assert!(stopped.unwrap().is_some_and(|(_, status)| status.stopped()), "it ended instead");
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

/// Starts the binary over `dir`, and does not wait for anything.
pub(crate) fn spawn(dir: &Path, environment: &[(&str, &str)]) -> Child {
    let mut command = command(dir);
    command.envs(environment.iter().copied());
    spawned(command, dir)
}

fn spawned(mut command: Command, dir: &Path) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file(dir)).spawn().expect("the binary starts")
}

/// Sends a signal by its name (`TERM`).
pub(crate) fn signal(child: &Child, name: &str) {
    let pid = rustix::process::Pid::from_child(child);
    let signal = match name {
        "HUP" => rustix::process::Signal::HUP,
        "TERM" => rustix::process::Signal::TERM,
        "STOP" => rustix::process::Signal::STOP,
        "CONT" => rustix::process::Signal::CONT,
        other => panic!("no signal {other}"),
    };
    rustix::process::kill_process(pid, signal).expect("it is there");
}

/// The binary over `dir`, on a free port, with nothing of our own environment that it would read.
pub(crate) fn command(dir: &Path) -> Command {
    command_at(dir, "127.0.0.1:0")
}

fn command_at(dir: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
    command.current_dir(dir).args(["serve", "--listen", address]).args(["--data-dir", "data", "--certs-dir", "certs"]);
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
