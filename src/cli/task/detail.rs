//! One task for people: what it is, how it stands, and its attempts.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::output::moment;
use crate::cli::output::text::{visible, wrap};
use crate::cli::output::{Cell, Column, Look, On, Page, Shown, palette};
use crate::task::WallMs;

use super::seen::{AttemptSeen, TaskSeen, state_style};

/// The whole of it, no line wider than `room`.
pub(in crate::cli) fn of(task: &TaskSeen, look: &Look, room: Option<usize>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String, style: anstyle::Style| {
        let lines = wrap(&visible(&value), room.map_or(usize::MAX, |room| room.saturating_sub(11).max(1)));
        let head = palette::HEAD;
        for (index, line) in lines.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            if writeln!(out, "{head}{name:<10}{head:#} {style}{line}{style:#}").is_err() {
                tracing::debug!("a string refused to grow");
            }
        }
    };
    let plain = palette::PLAIN;
    line("Task", task.task_id.clone(), plain);
    line("Status", status(task), state_style(task.state()));
    line("Type", task.task_type.clone().unwrap_or_default(), plain);
    if let Some(target) = task.target() {
        line("Target", target, plain);
    }
    line("Queue", format!("{}, priority {}", task.queue, task.priority), plain);
    if !task.labels.is_empty() {
        let labels: Vec<_> = task.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        line("Labels", labels.join(", "), plain);
    }
    line("Created", both(&task.submitted_at, look), plain);
    match &task.processed_at {
        Some(ended) => line("Ended", both(ended, look), plain),
        None => line("Due", both(&task.run_at, look), plain),
    }
    if let Some(expires) = &task.expires_at {
        line("Expires", both(expires, look), plain);
    }
    if let Some(timeout) = &task.timeout {
        line("Timeout", timeout.clone(), plain);
    }
    if let Some(error) = &task.last_error {
        line("Error", error.told(), palette::CARE);
    }
    if let Some(damaged) = &task.damaged {
        line("Damaged", damaged.clone(), palette::BAD);
    }
    if !task.attempts.is_empty() {
        let rows = task.attempts.iter().map(|attempt| attempt.cells(look));
        out.push('\n');
        out.push_str(&Page::new(AttemptSeen::COLUMNS, On::Table, rows).table(true, room));
    }
    out
}

fn status(task: &TaskSeen) -> String {
    let tries =
        if task.attempt_count == 1 { "1 attempt".to_owned() } else { format!("{} attempts", task.attempt_count) };
    let series = if task.series > 1 { format!(", series {}", task.series) } else { String::new() };
    let reason = task.dead_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{reason} ({tries}{series})", task.status)
}

/// The time, and how far away it is.
fn both(text: &str, look: &Look) -> String {
    if look.people && WallMs::parse(text).is_ok() { format!("{} ({text})", look.time(text)) } else { text.to_owned() }
}

impl Shown for AttemptSeen {
    const COLUMNS: &'static [Column] = &[
        Column::of("series").number(),
        Column::of("attempt").number(),
        Column::of("started_at").at_least(13),
        Column::of("took").number().at_least(6).only(On::Table),
        Column::of("took_ms").number().only(On::Tsv),
        Column::of("result").elastic(),
        Column::of("answer").elastic(),
    ];

    fn name(&self) -> &str {
        &self.started_at
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let took = moment::took(Duration::from_millis(self.took_ms));
        let answer = self.response.as_ref().and_then(|response| response.text.as_deref());
        let style = if self.class == "ok" { palette::GOOD } else { palette::CARE };
        vec![
            Cell::new(self.series.to_string()),
            Cell::new(self.number.to_string()),
            Cell::new(started(&self.started_at, look)),
            Cell::new(took),
            Cell::new(self.took_ms.to_string()),
            Cell::new(self.told()).styled(style),
            Cell::from(answer),
        ]
    }
}

/// The time of the day for people, if it was within the last one.
fn started<'a>(text: &'a str, look: &Look) -> &'a str {
    let recent = |then: WallMs| look.now.since(then) < Duration::from_secs(86_400);
    let time = text.split_once('T').map(|(_, time)| time);
    time.filter(|_| look.people && WallMs::parse(text).is_ok_and(recent)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"task_id":"order:7","task_type":"http_request","queue":"mail","status":"dead","priority":5,
        "payload":{"url":"https://api.example.com/charge"},"labels":{"tenant":"42"},"run_at":"2026-11-24T12:00:04.000Z",
        "expires_at":null,"timeout":"10s","retry":{},"submitted_at":"2026-11-24T12:00:00.000Z",
        "processed_at":"2026-11-24T12:00:05.000Z","series":2,"attempt_count":2,"retry_count":1,
        "last_error":{"class":"http_status","http_status":503,"error":null},"dead_reason":"max_attempts",
        "attempts":[
          {"ordinal":1,"series":1,"number":1,"started_at":"2026-11-24T12:00:00.100Z","took_ms":81,"class":"http_status",
           "http_status":503,"error":null,"response":{"text":"try \u001b[31mlater\n"}},
          {"ordinal":2,"series":2,"number":1,"started_at":"2026-11-24T12:00:04.000Z","took_ms":1500,"class":"connect",
           "http_status":null,"error":"connection refused","response":null}]}"#;

    fn shown(room: Option<usize>) -> String {
        let task: TaskSeen = serde_json::from_str(TASK).unwrap();
        let now = WallMs::parse("2026-11-24T12:03:00Z").unwrap();
        anstream::adapter::strip_str(&of(&task, &Look { now, people: true }, room)).to_string()
    }

    #[test]
    fn a_task_is_shown_with_its_attempts() {
        insta::assert_snapshot!(shown(None));
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        for room in [20, 40, 60, 80] {
            let shown = shown(Some(room));
            let widest = shown.lines().map(crate::cli::output::text::width).max();
            assert!(widest <= Some(room), "{room}:\n{shown}");
        }
    }
}
