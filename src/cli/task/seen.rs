//! A task as the API gives it, as far as the command line reads it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::output::{Cell, Column, Look, On, Shown, palette};
use crate::task::{Status, TaskName};

/// See the module. What is missing from an answer is empty here: a newer or older server is no reason to fail.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct TaskSeen {
    pub(in crate::cli) task_id: String,
    pub(in crate::cli) task_type: Option<String>,
    pub(in crate::cli) queue: String,
    pub(in crate::cli) status: String,
    pub(in crate::cli) priority: u8,
    pub(in crate::cli) payload: Value,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) run_at: String,
    pub(in crate::cli) expires_at: Option<String>,
    pub(in crate::cli) timeout: Option<String>,
    pub(in crate::cli) submitted_at: String,
    pub(in crate::cli) processed_at: Option<String>,
    pub(in crate::cli) series: u32,
    pub(in crate::cli) attempt_count: u32,
    pub(in crate::cli) last_error: Option<LastError>,
    pub(in crate::cli) dead_reason: Option<String>,
    pub(in crate::cli) attempts: Vec<AttemptSeen>,
    pub(in crate::cli) damaged: Option<String>,
}

/// What went wrong last.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct LastError {
    pub(in crate::cli) class: String,
    pub(in crate::cli) http_status: Option<u16>,
    pub(in crate::cli) error: Option<String>,
}

/// One attempt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct AttemptSeen {
    pub(in crate::cli) ordinal: u32,
    pub(in crate::cli) series: u32,
    pub(in crate::cli) number: u32,
    pub(in crate::cli) started_at: String,
    pub(in crate::cli) took_ms: u64,
    pub(in crate::cli) class: String,
    pub(in crate::cli) http_status: Option<u16>,
    pub(in crate::cli) error: Option<String>,
    pub(in crate::cli) response: Option<ResponseSeen>,
}

/// The beginning of a target's answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct ResponseSeen {
    pub(in crate::cli) text: Option<String>,
}

impl TaskSeen {
    /// Its state, if this command line knows it.
    pub(in crate::cli) fn state(&self) -> Option<Status> {
        Status::parse(&self.status)
    }

    /// What an `http_request` calls: `POST https://…`.
    pub(in crate::cli) fn target(&self) -> Option<String> {
        let url = self.payload.get("url")?.as_str()?;
        let method = self.payload.get("method").and_then(Value::as_str).unwrap_or("POST");
        Some(format!("{method} {url}"))
    }

    /// When it is due next, while it waits; how long ago it ended.
    fn when(&self, look: &Look) -> Cell {
        match (self.state(), &self.processed_at) {
            (_, Some(ended)) => Cell::new(look.time(ended)).styled(palette::DIM),
            (Some(state), None) if state.is_waiting() => Cell::new(look.time(&self.run_at)),
            (_, None) => Cell::default(),
        }
    }
}

/// The colour of a state.
pub(in crate::cli) fn state_style(state: Option<Status>) -> anstyle::Style {
    match state {
        Some(Status::Succeeded) => palette::GOOD,
        Some(Status::Dead) => palette::BAD,
        Some(Status::Retrying) => palette::CARE,
        Some(Status::Running) => palette::BUSY,
        Some(Status::Cancelled | Status::Expired) => palette::DIM,
        Some(Status::Scheduled | Status::Queued) | None => palette::PLAIN,
    }
}

impl LastError {
    /// `http_status 503: try later`.
    pub(in crate::cli) fn told(&self) -> String {
        result(&self.class, self.http_status, self.error.as_deref())
    }
}

impl AttemptSeen {
    /// `ok 200`, `connect: connection refused`.
    pub(in crate::cli) fn told(&self) -> String {
        result(&self.class, self.http_status, self.error.as_deref())
    }
}

fn result(class: &str, http_status: Option<u16>, error: Option<&str>) -> String {
    let status = http_status.map(|status| format!(" {status}")).unwrap_or_default();
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("{class}{status}{error}")
}

impl Shown for TaskSeen {
    const COLUMNS: &'static [Column] = &[
        Column::of("task_id"),
        Column::of("status"),
        Column::of("queue"),
        Column::of("tries").number(),
        Column::of("when").only(On::Table),
        Column::of("last_error").elastic(),
        Column::of("target").elastic(),
        Column::of("task_type").only(On::Tsv),
        Column::of("priority").only(On::Tsv),
        Column::of("submitted_at").only(On::Tsv),
        Column::of("run_at").only(On::Tsv),
        Column::of("processed_at").only(On::Tsv),
        Column::of("dead_reason").only(On::Tsv),
    ];

    fn name(&self) -> &str {
        &self.task_id
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let dead = self.dead_reason.as_deref().filter(|_| look.people);
        let error = self.last_error.as_ref().map(LastError::told);
        let error = match (dead, error) {
            (Some(dead), Some(error)) => Some(format!("{dead}, {error}")),
            (dead, error) => error.or_else(|| dead.map(str::to_owned)),
        };
        vec![
            Cell::new(&self.task_id),
            Cell::new(&self.status).styled(state_style(self.state())),
            Cell::new(&self.queue),
            Cell::new(self.attempt_count.to_string()),
            self.when(look),
            Cell::from(error),
            Cell::from(self.target()),
            Cell::from(self.task_type.as_deref()),
            Cell::new(self.priority.to_string()),
            Cell::new(&self.submitted_at),
            Cell::new(&self.run_at),
            Cell::from(self.processed_at.as_deref()),
            Cell::from(self.dead_reason.as_deref()),
        ]
    }
}

/// Words that stand for something else in the API's paths; the server takes no such `task_id`.
const RESERVED: [&str; 5] = [".", "..", "batch", "purge", "redrive"];

/// Reads an id, so that what can be none never becomes part of a path.
pub(in crate::cli) fn task_id(text: &str) -> Result<String, String> {
    match TaskName::parse(text) {
        Ok(_) if RESERVED.contains(&text) => Err("no task has this id".to_owned()),
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(format!("no task has this id: {error}")),
    }
}
