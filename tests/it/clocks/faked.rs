//! The real binary under libfaketime: its wall clock is ours to move while it runs, its monotonic clock is the machine's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sendoff::clock::{Clock, Now};
use sendoff::task::WallMs;
use serde_json::{Value, json};

use super::target::{Call, Target};
use crate::support::process::{Process, log_of};

/// How long after the clock was moved the server may still have gone by what it read before.
const TURN: Duration = Duration::from_secs(1);

/// The library that fakes the wall clock, where Debian's package puts it.
pub(super) fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    places.map(|place| place.path().join("faketime/libfaketime.so.1")).find(|library| library.exists())
}

/// A directory with a server over it (while there is one), its clock, its target, and what was seen to be wrong.
pub(super) struct Faked {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    /// Every offset so far, in seconds, and since when it is in force.
    offsets: Vec<(Duration, i64)>,
    pub(super) clock: Clock,
    pub(super) target: Target,
    /// Everything that was acknowledged.
    pub(super) acknowledged: Vec<String>,
    pub(super) faults: Vec<String>,
}

impl Faked {
    /// Nothing runs yet; the clock is `offset` seconds off.
    pub(super) async fn new(library: &Path, offset: i64, sin: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), "queues: { default: {}, held: {} }\n").unwrap();
        let file = dir.path().join("clock");
        let mut environment: Vec<(String, String)> = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
            ("NO_FAKE_STAT", "1"),
            ("SENDOFF_SERVER__PLAIN_HTTP", "true"),
            ("SENDOFF_LOGGING__FORMAT", "json"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        environment.extend(sin.map(|sin| ("SENDOFF_SABOTAGE".to_owned(), sin.to_owned())));
        let clock = Clock::system();
        let target = Target::start(clock.clone()).await;
        let (acknowledged, faults) = (Vec::new(), Vec::new());
        let mut faked =
            Self { dir, environment, process: None, offsets: Vec::new(), clock, target, acknowledged, faults };
        faked.set_clock(offset);
        faked
    }

    /// Moves the server's wall clock to `offset` seconds off the machine's, whether it runs or not.
    pub(super) fn set_clock(&mut self, offset: i64) {
        let (file, new) = (self.dir.path().join("clock"), self.dir.path().join("clock.new"));
        // By renaming, so that the server never reads half of it.
        std::fs::write(&new, format!("{offset:+}\n")).unwrap();
        std::fs::rename(new, file).unwrap();
        self.offsets.push((self.clock.now().mono, offset));
    }

    pub(super) fn start(&mut self) {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.process = Some(Process::start(self.dir.path(), &environment));
    }

    /// Stops the server, by `kill -9` or in an orderly way.
    pub(super) fn stop(&mut self, kill: bool) {
        let process = self.process.take().expect("it runs");
        if kill { process.kill() } else { process.terminate(self.dir.path()) }
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// The server's wall clock, `by` seconds further.
    pub(super) fn wall_plus(&self, by: i64) -> String {
        let offset = self.offsets.last().expect("set").1;
        WallMs::new(self.clock.now().wall.get() + (offset + by) * 1_000).to_string()
    }

    /// Creates a task for this path of the target, with these fields besides; it must be acknowledged.
    pub(super) async fn create(&mut self, path: &str, fields: Value) -> String {
        let mut task = json!({"task_type": "http_request", "payload": {"url": self.target.url(path)}});
        task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.running().client.post("/tasks", &task).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let id = answer.body["task_id"].as_str().unwrap().to_owned();
        self.acknowledged.push(id.clone());
        id
    }

    pub(super) async fn act(&self, path: &str) {
        let answer = self.running().client.post(path, &json!({})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }

    pub(super) async fn status(&self, id: &str) -> String {
        let answer = self.running().client.get(&format!("/tasks/{id}")).await;
        answer.body["status"].as_str().unwrap_or("gone").to_owned()
    }

    /// A fault unless the task is in one of these states.
    pub(super) async fn expect(&mut self, what: &str, id: &str, statuses: &[&str]) {
        let status = self.status(id).await;
        if !statuses.contains(&status.as_str()) {
            self.faults.push(format!("{what}: {status}, not {statuses:?}"));
        }
    }

    /// Waits for the end of a task that nothing blocks: a fault if it does not come, or is another; gives the task.
    pub(super) async fn until(&mut self, what: &str, id: &str, status: &str) -> Value {
        let task = self.running().client.get(&format!("/tasks/{id}?wait=20s")).await.body;
        if task["status"] != status {
            self.faults.push(format!("{what}: {}, not {status}", task["status"]));
        }
        task
    }

    /// Waits for the end of a task, or for as long as the server lets us.
    pub(super) async fn wait(&self, id: &str) {
        self.running().client.get(&format!("/tasks/{id}?wait=20s")).await;
    }

    /// A fault if the task was called before its `run_at` by the server's clock.
    pub(super) fn expect_not_early(&mut self, what: &str, id: &str, run_at: &str) {
        let run_at = WallMs::parse(run_at).unwrap();
        for call in self.target.calls(id) {
            let shown = self.server_clock_at(call.at);
            if shown < run_at {
                self.faults.push(format!("{what}: called at {shown}, before {run_at}"));
            }
        }
    }

    /// The latest that the server may have believed it to be at that moment.
    fn server_clock_at(&self, at: Now) -> WallMs {
        let ends = self.offsets.iter().skip(1).map(|(since, _)| *since).chain([Duration::MAX]);
        let lately = self
            .offsets
            .iter()
            .zip(ends)
            .filter(|((since, _), end)| *since <= at.mono && end.saturating_add(TURN) >= at.mono);
        let most = lately.map(|((_, offset), _)| *offset).max().expect("one is in force");
        WallMs::new(at.wall.get() + most * 1_000)
    }

    /// A fault unless the task was called so often, and first no sooner than `after` this moment.
    pub(super) fn expect_calls(&mut self, what: &str, id: &str, count: usize, since: (Duration, Duration)) {
        let calls: Vec<Call> = self.target.calls(id);
        let (posted, after) = since;
        if calls.len() != count {
            self.faults.push(format!("{what}: {} calls, not {count}", calls.len()));
        }
        if let Some(call) = calls.last().filter(|call| call.at.mono < posted + after) {
            self.faults.push(format!(
                "{what}: called {:?} after it was sent, not {after:?}",
                call.at.mono.saturating_sub(posted)
            ));
        }
    }

    /// A fault if the task was called at all.
    pub(super) fn expect_not_called(&mut self, what: &str, id: &str) {
        if !self.target.calls(id).is_empty() {
            self.faults.push(format!("{what}: called early"));
        }
    }

    /// Everything acknowledged is there.
    pub(super) async fn expect_nothing_lost(&mut self) {
        for id in self.acknowledged.clone() {
            if self.status(&id).await == "gone" {
                self.faults.push(format!("{id} is lost"));
            }
        }
    }

    /// The jump was logged and counted.
    pub(super) async fn expect_jump_told(&mut self) {
        let metrics = self.running().client.get("/metrics").await.body;
        let counted = metrics
            .as_str()
            .unwrap_or_default()
            .lines()
            .any(|line| line.strip_prefix("sendoff_wall_jumps_total ").is_some_and(|count| count.trim() != "0"));
        if !counted {
            self.faults.push("the jump is not in /metrics".to_owned());
        }
        if !log_of(self.dir.path()).contains("wall_jump") {
            self.faults.push("the jump is not in the log".to_owned());
        }
    }
}
