//! A whole server in this process, over a directory of its own and a clock that the test moves.

use std::path::Path;
use std::time::Duration;

use sendoff::app::{App, ReloadError, StartError};
use sendoff::clock::{Chance, Clock, ManualClock};
use sendoff::config::{Config, Difference, Loaded, QueueConfig};
use sendoff::task::{QueueName, WallMs};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;

/// The moment at which every test begins.
pub(crate) const NOON: &str = "2026-11-24T12:00:00Z";

/// How long a test waits for an event before it is taken to have failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct TestServer {
    /// A client with its admin key and its CA.
    pub(crate) client: Client,
    app: App,
    clock: Clock,
    hand: ManualClock,
    dir: Home,
    config: Config,
}

/// Where a server lives: given back by a stopped server, so that it can be started again.
pub(crate) struct Home {
    dir: TempDir,
    clock: Option<(Clock, ManualClock)>,
    config: Config,
}

impl Home {
    /// A new place, with the default configuration.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.data_dir = dir.path().join("data");
        config.certs_dir = dir.path().join("certs");
        Self { dir, clock: None, config }
    }

    /// The same place with a configuration changed by `change`.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// The same place with a queue more, changed from the defaults by `change`.
    pub(crate) fn with_queue(self, name: &str, change: impl FnOnce(&mut QueueConfig)) -> Self {
        let mut queue = self.config.queue_defaults.clone();
        change(&mut queue);
        let name = QueueName::parse(name).expect("a name");
        self.with(|config| drop(config.queues.insert(name, queue)))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Why no server starts there.
    pub(crate) async fn refused(&self) -> StartError {
        install_provider();
        let clock = self.clock.as_ref().map_or_else(Clock::system, |(clock, _)| clock.clone());
        let started = App::start(self.config.clone(), clock, Chance::from_seed(1)).await;
        started.map(drop).expect_err("it does not start")
    }

    /// Starts a server there. Its clock goes on where a former server's stood.
    pub(crate) async fn start(mut self) -> TestServer {
        install_provider();
        let noon = WallMs::parse(NOON).expect("a time");
        let (clock, hand) = self.clock.take().unwrap_or_else(|| Clock::manual(noon));
        let app = App::start(self.config.clone(), clock.clone(), Chance::from_seed(1)).await.expect("it starts");
        let scheme = if app.facts.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", app.facts.address);
        let (ca, key) = (self.config.certs_dir.join("ca.pem"), self.config.data_dir.join("admin.key"));
        let config = self.config.clone();
        TestServer { client: Client::of(&url, &ca, &key), app, clock, hand, dir: self, config }
    }
}

/// The crypto provider is the process's, and `main` installs it in the binary.
pub(crate) fn install_provider() {
    // A second installation is refused, and the first one stands.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

impl TestServer {
    /// A server over a new place, with the default configuration.
    pub(crate) async fn start() -> Self {
        Home::new().start().await
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Reloads it with its configuration changed by `change`.
    pub(crate) async fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Result<Difference, ReloadError> {
        let mut config = self.config.clone();
        change(&mut config);
        let reloaded = self.app.reload(Loaded::from(config.clone())).await?;
        self.config = config;
        Ok(reloaded)
    }

    /// What its clock shows.
    pub(crate) fn now(&self) -> WallMs {
        self.clock.now().wall
    }

    /// The hand on its clock.
    pub(crate) fn hand(&self) -> &ManualClock {
        &self.hand
    }

    /// Moves its clock on, and waits until the engine has had a turn at the new time: whatever that turn started is
    /// committed then.
    pub(crate) async fn advance(&self, by: Duration) {
        self.hand.advance(by);
        self.turn().await;
    }

    /// Waits until the engine has had a turn.
    pub(crate) async fn turn(&self) {
        self.app.queues.queues().await.expect("the engine answers");
    }

    /// Creates an `http_request` task for `url`, with `more` fields; gives its id.
    pub(crate) async fn create(&self, url: &str, more: &Value) -> String {
        let answer = self.client.post("/tasks", &task(url, more)).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        answer.body["task_id"].as_str().expect("an id").to_owned()
    }

    /// One task, whole.
    pub(crate) async fn task(&self, id: &str) -> Value {
        let answer = self.client.get(&format!("/tasks/{id}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.body
    }

    /// Waits until the task is in this state. Each look is a request, so this neither sleeps nor spins.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        self.until_it(id, |task| task["status"] == status).await
    }

    /// Waits until the task is as it should be, or long enough to say that it never will.
    pub(crate) async fn until_it(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let looking = async {
            last = self.task(id).await;
            while !reached(&last) {
                last = self.task(id).await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        assert!(looked.is_ok(), "waited in vain; so far: {last}");
        last
    }

    /// Stops it in order, and gives its place back.
    pub(crate) async fn stop(self) -> Home {
        self.app.stop("the test").await.expect("a clean stop");
        Home { clock: Some((self.clock, self.hand)), ..self.dir }
    }

    /// Stops it although attempts run that would never end: their grace passes in the same moment.
    pub(crate) async fn stop_at_once(self) -> Home {
        let grace = self.config.server.shutdown_grace.to_duration();
        let (stopped, _client, hand) = self.stopping();
        // The stop is polled first: its grace has begun when the clock moves.
        tokio::join!(stopped, async { hand.advance(grace) }).0
    }

    /// Begins to stop it; what the future gives is its place.
    pub(crate) fn stopping(self) -> (impl Future<Output = Home>, Client, ManualClock) {
        let (client, hand) = (self.client.clone(), self.hand.clone());
        (self.stop(), client, hand)
    }
}

/// An `http_request` task for `url`, with `more` fields laid over it.
pub(crate) fn task(url: &str, more: &Value) -> Value {
    let mut task = json!({"task_type": "http_request", "payload": {"url": url}});
    if let (Some(task), Some(more)) = (task.as_object_mut(), more.as_object()) {
        task.extend(more.clone());
    }
    task
}
