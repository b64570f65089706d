//! A dead letter as a row: why, since when, and what was said last.

use serde::Deserialize;

use crate::cli::output::{Cell, Column, Look, On, Shown, palette};
use crate::cli::task::{LastError, TaskSeen};

/// A dead letter: a task that was given up.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct DeadSeen(TaskSeen);

impl Shown for DeadSeen {
    const COLUMNS: &'static [Column] = &[
        Column::of("task_id"),
        Column::of("queue"),
        Column::of("reason"),
        Column::of("tries").number(),
        Column::of("died").only(On::Table),
        Column::of("last_error").elastic(),
        Column::of("target").elastic(),
        Column::of("task_type").only(On::Tsv),
        Column::of("submitted_at").only(On::Tsv),
        Column::of("died_at").only(On::Tsv),
    ];

    fn name(&self) -> &str {
        &self.0.task_id
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let task = &self.0;
        let died = task.processed_at.as_deref();
        vec![
            Cell::new(&task.task_id),
            Cell::new(&task.queue),
            Cell::from(task.dead_reason.as_deref()).styled(palette::BAD),
            Cell::new(task.attempt_count.to_string()),
            Cell::from(died.map(|died| look.time(died))),
            Cell::from(task.last_error.as_ref().map(LastError::told)),
            Cell::from(task.target()),
            Cell::from(task.task_type.as_deref()),
            Cell::new(&task.submitted_at),
            Cell::from(died),
        ]
    }
}
