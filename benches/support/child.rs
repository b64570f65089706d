//! Processes that are measured: the real binary, and this one in a bare role. What they used is read from `/proc`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use sendoff::clock::Clock;
use tempfile::TempDir;

use super::Outcome;
use super::table::figure;
use super::wire::{Dialer, Wire};

/// A process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// This binary in a bare role.
    pub(crate) fn bare(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // What the index builds in passing goes back to the system at once, so that only what stays is seen.
        command.args(arguments).env("MALLOC_MMAP_THRESHOLD_", "65536");
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Outcome<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("a child without an output")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a child ended without saying anything".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// What it has used of the processors.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        resident(&self.child.id().to_string())
    }
}

/// User and system time of a process (`self` is this one), in ticks of the system's clock.
pub(crate) fn cpu(process: &str) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, whatever is in it.
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/…/stat")?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || -> Outcome<u64> { Ok(fields.next().ok_or("too few fields in /proc/…/stat")?.parse()?) };
    let used = ticks()? + ticks()?;
    Ok(Duration::from_millis(used * 1000 / rustix::param::clock_ticks_per_second()))
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(process: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/…/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Microseconds of CPU for each of `count`.
pub(crate) fn micros_each(used: Duration, count: u64) -> f64 {
    used.as_secs_f64() * 1e6 / figure(count.max(1))
}

/// A directory in which servers live, one after the other.
pub(crate) struct Home(TempDir);

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self(tempfile::Builder::new().prefix("sendoff-bench-").tempdir()?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Starts a server there, on a free port, with the configuration's defaults.
    pub(crate) fn start(&self) -> Outcome<Server> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sendoff"));
        command.current_dir(self.path()).args(["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--data-dir", "data", "--certs-dir", "certs"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENDOFF_")) {
            command.env_remove(name);
        }
        command.stderr(std::fs::File::options().create(true).append(true).open(self.path().join("log"))?);
        let clock = Clock::system();
        let mut process = Process::spawn(&mut command)?;
        let ready = process.line()?;
        let ready_after = clock.now().mono;
        let place = ready.strip_prefix("sendoff is ready on https://").ok_or_else(|| format!("not ready: {ready}"))?;
        let address: SocketAddr = place.split_whitespace().next().unwrap_or_default().parse()?;
        let key = std::fs::read_to_string(self.path().join("data/admin.key"))?.trim().to_owned();
        let dialer = Dialer::trusting(&self.path().join("certs/ca.pem"), address, key)?;
        Ok(Server { process, ready_after, dialer })
    }
}

/// A running server. Dropped, it is killed with signal 9.
pub(crate) struct Server {
    /// Its process.
    pub(crate) process: Process,
    /// From its start to its saying that it is ready.
    pub(crate) ready_after: Duration,
    /// Opens connections to it.
    pub(crate) dialer: Dialer,
}

impl Server {
    /// Pauses or resumes the default queue.
    pub(crate) async fn set_paused(&self, wire: &mut Wire, paused: bool) -> Outcome {
        let path = if paused { "/queues/default/pause" } else { "/queues/default/resume" };
        wire.expect(&self.dialer.post(path, ""), 200).await
    }

    /// Waits until nothing is queued or running in the default queue.
    pub(crate) async fn until_idle(&self, wire: &mut Wire, clock: &Clock) -> Outcome {
        let look = self.dialer.get("/queues/default");
        loop {
            wire.expect(&look, 200).await?;
            let queue: serde_json::Value = serde_json::from_slice(wire.body())?;
            let busy = |status: &str| queue.pointer(&format!("/tasks/{status}")).and_then(serde_json::Value::as_u64);
            if busy("queued").unwrap_or(0) + busy("running").unwrap_or(0) + busy("retrying").unwrap_or(0) == 0 {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(2)).await;
        }
    }
}
