//! One queue for people: how it stands, and its limits as in force.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::output::text::{bytes, cut, grouped, visible};
use crate::cli::output::{Look, palette};
use crate::task::Status;

use super::seen::QueueSeen;

/// The whole of it, no line wider than `room`.
pub(super) fn of(queue: &QueueSeen, look: &Look, room: Option<usize>) -> String {
    let mut lines = vec![
        ("Queue".to_owned(), queue.name.clone(), palette::PLAIN),
        ("State".to_owned(), queue.state().to_owned(), queue.state_style()),
    ];
    for state in Status::ALL {
        let count = queue.tasks.get(state.as_str()).copied().unwrap_or_default();
        let mut value = grouped(count);
        if state == Status::Dead && count > 0 {
            let reasons = queue.dead_letters_by_reason.iter().filter(|(_, count)| **count > 0);
            let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
            value = format!("{value} ({})", reasons.join(", "));
        }
        let style = if count == 0 { palette::DIM } else { palette::PLAIN };
        lines.push((format!("  {}", state.as_str()), value, style));
    }
    lines.push(("Payloads".to_owned(), bytes(queue.bytes), palette::PLAIN));
    if let Some(oldest) = &queue.oldest_ready_at {
        lines.push(("Oldest ready".to_owned(), look.time(oldest), palette::PLAIN));
    }
    lines.push(("Limits".to_owned(), String::new(), palette::PLAIN));
    limits("  ", &queue.config, &mut lines);
    let wide = lines.iter().map(|(name, _, _)| name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (name, value, style) in lines {
        let value = visible(&value).into_owned();
        let value = room.map_or_else(|| value.clone(), |room| cut(&value, room.saturating_sub(wide + 2)).into_owned());
        let head = palette::HEAD;
        if writeln!(out, "{head}{name:<wide$}{head:#}  {style}{value}{style:#}").is_err() {
            tracing::debug!("a string refused to grow");
        }
    }
    out
}

/// The limits under the names of the configuration; maps below maps are indented.
fn limits(indent: &str, config: &Value, lines: &mut Vec<(String, String, anstyle::Style)>) {
    let Some(map) = config.as_object() else { return };
    for (name, value) in map {
        let (shown, style) = match value {
            Value::String(text) => (text.clone(), palette::PLAIN),
            Value::Object(inner) if !inner.is_empty() => (String::new(), palette::PLAIN),
            Value::Null | Value::Object(_) => ("none".to_owned(), palette::DIM),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => (value.to_string(), palette::PLAIN),
        };
        lines.push((format!("{indent}{name}"), shown, style));
        limits(&format!("{indent}  "), value, lines);
    }
}
