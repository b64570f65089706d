//! A queue as the API gives it, as far as the command line reads it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::output::text::{bytes, grouped};
use crate::cli::output::{Cell, Column, Look, On, Shown, palette};

/// See the module.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct QueueSeen {
    pub(super) name: String,
    pub(super) configured: bool,
    pub(super) paused: bool,
    pub(super) tasks: BTreeMap<String, u64>,
    pub(super) bytes: u64,
    pub(super) oldest_ready_at: Option<String>,
    pub(super) dead_letters_by_reason: BTreeMap<String, u64>,
    pub(super) config: serde_json::Value,
}

impl QueueSeen {
    fn count(&self, state: &str, look: &Look, style: anstyle::Style) -> Cell {
        let count = self.tasks.get(state).copied().unwrap_or_default();
        let style = if count == 0 { palette::DIM } else { style };
        Cell::new(if look.people { grouped(count) } else { count.to_string() }).styled(style)
    }

    /// `paused`, `open`, or what became of one that is no longer configured.
    pub(super) fn state(&self) -> &'static str {
        match (self.configured, self.paused) {
            (true, true) => "paused",
            (true, false) => "open",
            (false, true) => "taken out, held",
            (false, false) => "taken out, resumed",
        }
    }

    /// The colour of that.
    pub(super) fn state_style(&self) -> anstyle::Style {
        if self.paused || !self.configured { palette::CARE } else { palette::GOOD }
    }
}

impl Shown for QueueSeen {
    const COLUMNS: &'static [Column] = &[
        Column::of("queue").elastic(),
        Column::of("state"),
        Column::of("scheduled").number(),
        Column::of("queued").number(),
        Column::of("running").number(),
        Column::of("retrying").number(),
        Column::of("dead").number(),
        Column::of("oldest_ready").only(On::Table),
        Column::of("oldest_ready_at").only(On::Tsv),
        Column::of("size").number().only(On::Table),
        Column::of("bytes").only(On::Tsv),
        Column::of("succeeded").number(),
        Column::of("cancelled").number(),
        Column::of("expired").number(),
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let oldest = self.oldest_ready_at.as_deref();
        vec![
            Cell::new(&self.name),
            Cell::new(self.state()).styled(self.state_style()),
            self.count("scheduled", look, palette::PLAIN),
            self.count("queued", look, palette::PLAIN),
            self.count("running", look, palette::BUSY),
            self.count("retrying", look, palette::CARE),
            self.count("dead", look, palette::BAD),
            Cell::from(oldest.map(|oldest| look.time(oldest))),
            Cell::from(oldest),
            Cell::new(bytes(self.bytes)),
            Cell::new(self.bytes.to_string()),
            self.count("succeeded", look, palette::PLAIN),
            self.count("cancelled", look, palette::PLAIN),
            self.count("expired", look, palette::PLAIN),
        ]
    }
}
