//! A `sendoff` whose words are read while it runs: every line of standard output, as it comes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How long a line that has to come may take; a test that waits for it in vain says what came instead.
const LINE_WITHIN: Duration = Duration::from_secs(60);
/// Lines that may wait to be read.
const LINES_WAITING: usize = 10_000;

/// A running `sendoff`, with what it has said.
pub(crate) struct Spoken {
    child: Child,
    lines: Receiver<String>,
    /// Every line that was read so far.
    pub(crate) said: Vec<String>,
}

impl Drop for Spoken {
    fn drop(&mut self) {
        // A test that failed leaves no process behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `sendoff` with these words in `dir`, in an environment with nothing in it but `PATH`, `HOME` and `TMPDIR`, which is
/// `dir` as well.
pub(crate) fn bare(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
    command.current_dir(dir).args(words).stdin(Stdio::null());
    in_bare_environment(&mut command, dir);
    command
}

fn in_bare_environment(command: &mut Command, dir: &Path) {
    // A run that measures coverage says by a variable of LLVM's where to write.
    let kept = |name: &str| name == "PATH" || name.starts_with("LLVM_");
    command.env_clear().envs(std::env::vars().filter(|(name, _)| kept(name))).env("HOME", dir).env("TMPDIR", dir);
}

/// A line as somebody pastes it into a shell that was opened in `dir`.
pub(crate) fn pasted(dir: &Path, line: &str) -> Output {
    let mut command = Command::new("sh");
    command.current_dir(dir).args(["-c", line]).stdin(Stdio::null());
    in_bare_environment(&mut command, dir);
    command.output().expect("a shell")
}

impl Spoken {
    /// Starts it, with standard error going to the file `errors` in `dir`.
    pub(crate) fn start(dir: &Path, words: &[&str]) -> Self {
        Self::start_with(dir, words, &[])
    }

    /// The same, with these variables.
    pub(crate) fn start_with(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let errors = std::fs::File::create(dir.join("errors")).expect("a file");
        let mut child = bare(dir, words)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = sync_channel(LINES_WAITING);
        // Ends with the process, or when nobody listens any more.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for the next line that has `part` in it.
    pub(crate) fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LINE_WITHIN).unwrap_or_else(|_nothing| {
                panic!("it did not say `{part}`, but: {}", self.said.join("\n"));
            });
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// Waits for its end; its exit code (none: a signal ended it), and everything that it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        while let Ok(line) = self.lines.recv_timeout(LINE_WITHIN) {
            self.said.push(line);
        }
        (status.code(), self.said.join("\n"))
    }
}

/// The file `errors` of [`Spoken::start`].
pub(crate) fn errors(dir: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(dir.join("errors"));
    file.and_then(|mut file| file.read_to_string(&mut text)).expect("the file");
    text
}

/// Standard output and standard error of a run, as text.
pub(crate) fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}
