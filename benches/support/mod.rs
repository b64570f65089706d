//! What the benches share: how large they are, and what they are made of.

pub(crate) mod backlog;
pub(crate) mod child;
pub(crate) mod fleet;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod wire;

use std::pin::Pin;
use std::time::Duration;

use backlog::Stock;

/// A bench stops at the first error.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One bench.
pub(crate) type Bench = for<'a> fn(&'a Scale, &'a mut Stock) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// How large the benches are.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// Times that A and B are measured in turn.
    pub(crate) rounds: usize,
    /// How long one closed loop lasts.
    pub(crate) round: Duration,
    /// Requests one after the other for a latency.
    pub(crate) singles: usize,
    /// Tasks of a backlog that is drained.
    pub(crate) drained: usize,
    /// Waiting tasks that are few.
    pub(crate) few: usize,
    /// Waiting tasks that are many.
    pub(crate) many: usize,
    /// Simulated days, of the seeds from 1; 0: one hour.
    pub(crate) days: u64,
}

impl Scale {
    /// The real one, unless `SENDOFF_BENCH_SMOKE` asks for a tiny one.
    #[expect(clippy::disallowed_methods, reason = "a bench is no server: this is its own switch")]
    pub(crate) fn from_environment() -> Self {
        if std::env::var_os("SENDOFF_BENCH_SMOKE").is_some_and(|value| value == "1") {
            let round = Duration::from_millis(200);
            return Self { rounds: 1, round, singles: 20, drained: 500, few: 100, many: 5_000, days: 0 };
        }
        let round = Duration::from_secs(3);
        Self { rounds: 5, round, singles: 500, drained: 20_000, few: 1_000, many: 1_000_000, days: 5 }
    }
}

/// Connections of a closed loop.
pub(crate) const CONNECTIONS: usize = 32;

/// A task that `POST`s about 200 bytes to `url`; `more` are further fields with a comma before each.
pub(crate) fn task(url: &str, more: &str) -> String {
    let note = "0123456789".repeat(18);
    format!(
        r#"{{"task_type":"http_request","payload":{{"url":"{url}","method":"POST","headers":{{"x-a":"b"}},"body":{{"order":7,"note":"{note}"}}}}{more}}}"#
    )
}

/// The body that such a task sends.
pub(crate) fn body_sent() -> String {
    format!(r#"{{"order":7,"note":"{}"}}"#, "0123456789".repeat(18))
}
