//! The playground: a configuration under which one sees something happen within seconds, and the first tasks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;

use crate::config::{Config, Loaded, QueueConfig, show};
use crate::queue::command::Accept;
use crate::queue::store::digest;
use crate::task::{LaneName, Priority, QueueName, RetryOverrides, Span, TaskSpec, TaskType, When};

/// How a configuration begins that `sendoff dev` wrote, and may therefore write anew.
pub(super) const MARK: &str = "# Written by `sendoff dev`, and written anew each time it starts";

/// The queue that is paced, so that one sees it.
const DEMO: &str = "demo";
/// What the first tasks call: three that show the pace, and one of each kind that does not simply work.
const CALLED: [&str; 6] = ["/ok", "/flaky", "/fail", "/slow", "/ok", "/ok"];

/// The configuration of a playground in `dir`.
pub(super) fn config(dir: &Path, listen: SocketAddr) -> Config {
    let mut config = listening_on(Config::default(), listen);
    config.data_dir = dir.join("data");
    config.certs_dir = dir.join("certs");
    config.server.shutdown_grace = Span::from_secs(1);
    // A dead letter within seconds, and delays that are round numbers.
    let retry = &mut config.queue_defaults.retry;
    (retry.max_attempts, retry.jitter) = (3, 0.0);
    (retry.min_backoff, retry.max_backoff) = (Span::from_secs(1), Span::from_secs(4));
    let paced =
        QueueConfig { max_dispatches_per_second: Some(2.0), max_burst_size: 1, ..config.queue_defaults.clone() };
    let queues = [("default", config.queue_defaults.clone()), (DEMO, paced)];
    config.queues =
        queues.into_iter().filter_map(|(name, queue)| Some((QueueName::parse(name).ok()?, queue))).collect();
    config
}

/// The same, on the port that it was given.
pub(super) fn listening_on(mut config: Config, listen: SocketAddr) -> Config {
    config.server.listen = listen;
    config
}

/// The configuration as a file.
pub(super) fn written(config: &Config) -> String {
    let loaded = Loaded { config: config.clone(), file: None, origins: BTreeMap::new() };
    format!("{MARK}.\n# `sendoff --config` with this file finds its server, key and CA.\n\n{}", show(&loaded))
}

/// The tasks that are there from the start; `target` is the built-in one.
pub(super) fn tasks(target: SocketAddr) -> Accept {
    Accept { specs: CALLED.iter().filter_map(|path| task(target, path)).collect(), idempotency: None }
}

fn task(target: SocketAddr, path: &str) -> Option<TaskSpec> {
    let lane = format!("http://{target}");
    let payload = Bytes::from(serde_json::json!({"url": format!("{lane}{path}"), "body": {"hello": path}}).to_string());
    Some(TaskSpec {
        name: None,
        task_type: TaskType::parse("http_request").ok()?,
        queue: QueueName::parse(DEMO).ok()?,
        lane: LaneName::new(&lane),
        priority: Priority::default(),
        when: When::Now,
        expires_at: None,
        timeout: None,
        labels: Vec::new(),
        retry: RetryOverrides::default(),
        digest: digest(&payload),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Sources, load};

    #[test]
    fn what_is_written_loads_to_the_same() {
        let dir = tempfile::Builder::new().prefix("it's # \"a\" dir: ").tempdir().unwrap();
        let config = config(dir.path(), "127.0.0.1:4433".parse().unwrap());
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, written(&config)).unwrap();
        let flags = Flags { config: Some(file), ..Flags::default() };
        assert_eq!(load(&Sources::new(Vec::new(), flags)).unwrap().config, config);
    }

    #[test]
    fn every_first_task_is_one() {
        let accept = tasks("127.0.0.1:80".parse().unwrap());
        assert_eq!(accept.specs.len(), CALLED.len());
        let queues = config(Path::new("x"), "127.0.0.1:0".parse().unwrap()).queues;
        assert!(accept.specs.iter().all(|spec| queues.contains_key(&spec.queue)));
    }
}
