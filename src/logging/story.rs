//! Facts as a story: a line for each thing that happens to a task, for people who watch (`sendoff dev`).
//!
//! The facts are those of the log ([`super::event`]), each told in its words; nothing else is counted or kept. What is
//! neither about a task or a queue nor a warning stays untold.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Local, Utc};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;
use crate::task::{Span, WallMs};

/// Columns of an id that we gave (a UUID, RFC 9562 section 4).
const ID_COLUMNS: usize = 36;
/// Columns that a queue's name has at least.
const QUEUE_COLUMNS: usize = 8;

/// Writes the lines: time of day, id (whole, so that it can be copied into a command), queue, what happened.
pub(super) struct Story {
    pub(super) clock: Clock,
    pub(super) colour: bool,
}

impl<S, N> FormatEvent<S, N> for Story
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut told = Told::default();
        event.record(&mut told);
        let Some((words, style)) = told.words(*event.metadata().level()) else { return Ok(()) };
        let paint = |style: Style, text: &str| {
            if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
        };
        let dim = Style::new().dimmed();
        let time = paint(dim, &time_of_day(self.clock.now().wall));
        let id = format!("{:<ID_COLUMNS$}", told.get("task_id").unwrap_or_default());
        let queue = told.get("queue").unwrap_or_default();
        writeln!(writer, "{time}  {}  {queue:<QUEUE_COLUMNS$}  {}", paint(dim, &id), paint(style, &words))
    }
}

/// Hours to milliseconds, where the reader is.
fn time_of_day(wall: WallMs) -> String {
    let utc = DateTime::<Utc>::from_timestamp_millis(wall.get()).unwrap_or_default();
    utc.with_timezone(&Local).format("%H:%M:%S%.3f").to_string()
}

/// The fields of one fact, as text. Control characters, which a target may have sent, are replaced: they would speak to
/// the terminal.
#[derive(Default)]
struct Told(BTreeMap<&'static str, String>);

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.replace(char::is_control, "\u{fffd}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Told {
    fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    fn or_empty(&self, field: &str) -> &str {
        self.get(field).unwrap_or_default()
    }

    fn number(&self, field: &str) -> u64 {
        self.or_empty(field).parse().unwrap_or(0)
    }

    /// What happened, and how it looks; `None`: not told.
    fn words(&self, level: Level) -> Option<(String, Style)> {
        let (plain, fine) = (Style::new(), AnsiColor::Green.on_default());
        let (unwell, bad) = (AnsiColor::Yellow.on_default(), AnsiColor::Red.on_default().bold());
        let by_hand = AnsiColor::Cyan.on_default();
        Some(match self.or_empty("event") {
            "task_accepted" if self.or_empty("repeat") == "true" => ("created before, not again".to_owned(), plain),
            "task_accepted" => ("created".to_owned(), plain.bold()),
            "attempt_started" => (format!("attempt {} started", self.or_empty("attempt")), plain),
            "attempt_finished" => (self.answer(), if self.or_empty("class") == "ok" { fine } else { unwell }),
            "retry_scheduled" => (self.retry(), unwell),
            "dead_lettered" => (format!("dead: {}", self.verdict()), bad),
            "task_ended" => self.ended(fine.bold(), unwell),
            "redriven" => (format!("redriven: series {} begins", self.or_empty("series")), by_hand),
            "put_ahead" => ("put ahead of its queue".to_owned(), by_hand),
            "released" => ("released before it was sent".to_owned(), plain),
            "removed" => (format!("{} removed: {}", self.or_empty("count"), spaced(self.or_empty("why"))), plain),
            "queue_paused" => ("queue paused".to_owned(), by_hand),
            "queue_resumed" => ("queue resumed".to_owned(), by_hand),
            _ if level <= Level::WARN => (self.warning(level), if level == Level::ERROR { bad } else { unwell }),
            _ => return None,
        })
    }

    fn answer(&self) -> String {
        let what = self.get("http_status").map_or_else(|| spaced(self.or_empty("class")), str::to_owned);
        format!("{what} after {}", took(self.or_empty("took_ms")))
    }

    fn retry(&self) -> String {
        let delay = Span::from_millis(self.number("delay_ms"));
        let next = self.number("attempt").saturating_add(1);
        let mut words = format!("retry in {delay}: attempt {next} of {}", self.or_empty("max_attempts"));
        self.add_error(&mut words);
        words
    }

    fn verdict(&self) -> String {
        let mut words = format!("{} after {}", spaced(self.or_empty("reason")), attempts(self.number("attempts")));
        self.add_error(&mut words);
        words
    }

    fn ended(&self, fine: Style, otherwise: Style) -> (String, Style) {
        let words = format!("{} after {}", self.or_empty("status"), attempts(self.number("attempts")));
        (words, if self.or_empty("status") == "succeeded" { fine } else { otherwise })
    }

    /// What went wrong, where no status says it.
    fn add_error(&self, words: &mut String) {
        if let (Some(error), None) = (self.get("error"), self.get("http_status")) {
            words.push_str(" (");
            words.push_str(error);
            words.push(')');
        }
    }

    /// A fact without words of its own: its message and its fields.
    fn warning(&self, level: Level) -> String {
        let start = if level == Level::ERROR { "error" } else { "warning" };
        let shown = |name: &&str| !["message", "event", "task_id", "queue"].contains(name);
        let fields = self.0.iter().filter(|(name, _)| shown(name)).map(|(name, value)| format!(" {name}={value}"));
        format!("{start}: {}{}", self.or_empty("message"), fields.collect::<String>())
    }
}

/// A word of the API, for people.
fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

fn attempts(count: u64) -> String {
    if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") }
}

/// Milliseconds, as many digits as mean something.
fn took(ms: &str) -> String {
    let ms: f64 = ms.parse().unwrap_or(0.0);
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::{
        AttemptFinished, AttemptStarted, DeadLettered, PutAhead, QueuePaused, Redriven, Released, Removal, Removed,
        RetryScheduled, ShutdownStep, StaleSettle, TaskAccepted, TaskEnded,
    };
    use super::super::subscriber::{LineFormat, capture};
    use super::super::{Event, Fact};
    use super::*;
    use crate::task::outcome::DeadReason;
    use crate::task::{IdTail, OutcomeClass, QueueName, Status, TaskId, TaskKey, TaskType};

    fn lines(colour: bool, events: &[Event]) -> String {
        let (clock, _) = Clock::manual(WallMs::parse("2026-11-24T10:00:00.250Z").unwrap());
        capture(LineFormat::Story { colour }, "debug", clock, || events.iter().for_each(Fact::log))
    }

    fn id() -> TaskId {
        TaskId { key: TaskKey::from_i64(1 << 40).unwrap(), tail: IdTail::new(7) }
    }

    fn queue() -> QueueName {
        QueueName::parse("mail").unwrap()
    }

    fn finished(class: OutcomeClass, http_status: Option<u16>, took: Duration) -> Event {
        AttemptFinished { id: id(), queue: queue(), class, http_status, took, attempt: 1, series: 1 }.into()
    }

    fn retry(http_status: Option<u16>, error: &str) -> Event {
        RetryScheduled {
            id: id(),
            queue: queue(),
            attempt: 1,
            max_attempts: 4,
            delay: Span::from_millis(1_500),
            class: OutcomeClass::Connect,
            http_status,
            error: Some(error.to_owned()),
        }
        .into()
    }

    fn life() -> Vec<Event> {
        let accepted = TaskAccepted {
            id: id(),
            queue: queue(),
            task_type: TaskType::parse("http_request").unwrap(),
            repeat: false,
        };
        let dead = DeadLettered {
            id: id(),
            queue: queue(),
            reason: DeadReason::MaxAttempts,
            attempts: 4,
            max_attempts: 4,
            series: 1,
            class: Some(OutcomeClass::HttpStatus),
            http_status: Some(500),
            error: Some("500".to_owned()),
        };
        let ended = |status, attempts| TaskEnded { id: id(), queue: queue(), status, attempts }.into();
        vec![
            accepted.clone().into(),
            AttemptStarted { id: id(), queue: queue(), attempt: 1, lag: Duration::ZERO }.into(),
            finished(OutcomeClass::HttpStatus, Some(500), Duration::from_micros(3_141)),
            retry(Some(500), "500 Internal Server Error"),
            finished(OutcomeClass::TimeoutBeforeHeaders, None, Duration::from_millis(2_500)),
            retry(None, "no answer"),
            dead.into(),
            Redriven { id: id(), queue: queue(), series: 2 }.into(),
            PutAhead { id: id(), queue: queue() }.into(),
            finished(OutcomeClass::Ok, Some(200), Duration::from_millis(31)),
            ended(Status::Succeeded, 1),
            ended(Status::Cancelled, 0),
            TaskAccepted { repeat: true, ..accepted }.into(),
            Released { id: id(), queue: queue() }.into(),
            Removed { queue: queue(), count: 3, why: Removal::DeadLetterBound }.into(),
            QueuePaused { queue: queue() }.into(),
        ]
    }

    #[test]
    fn a_life_is_told_a_line_a_fact() {
        let whole = id().to_string();
        let text = lines(false, &life());
        let told: Vec<&str> = text.lines().map(|line| line.split_once("  ").expect("a time").1).collect();
        let about = |words: &str| format!("{whole}  mail      {words}");
        let of_queue = |words: &str| format!("{:36}  mail      {words}", "");
        assert_eq!(
            told,
            [
                about("created"),
                about("attempt 1 started"),
                about("500 after 3.1 ms"),
                about("retry in 1s500ms: attempt 2 of 4"),
                about("timeout before headers after 2.5 s"),
                about("retry in 1s500ms: attempt 2 of 4 (no answer)"),
                about("dead: max attempts after 4 attempts"),
                about("redriven: series 2 begins"),
                about("put ahead of its queue"),
                about("200 after 31 ms"),
                about("succeeded after 1 attempt"),
                about("cancelled after 0 attempts"),
                about("created before, not again"),
                about("released before it was sent"),
                of_queue("3 removed: dead letter bound"),
                of_queue("queue paused"),
            ]
        );
        let time = text.split("  ").next().unwrap();
        assert!(time.len() == 12 && time.ends_with(":00.250"), "{time}");
    }

    #[test]
    fn warnings_are_told_with_their_fields_and_the_rest_is_not() {
        let stale = StaleSettle { id: None, epoch: 3, current: Some(4) };
        let text = lines(false, &[ShutdownStep::ApiClosed.into(), stale.into()]);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("warning: outcome refused") && text.ends_with("current=4 epoch=3\n"), "{text}");
    }

    #[test]
    fn colour_is_for_terminals_and_a_target_does_not_speak_to_them() {
        let hostile = [retry(None, "\u{1b}[31mred\nand more")];
        let plain = lines(false, &hostile);
        assert!(!plain.contains('\u{1b}') && plain.lines().count() == 1, "{plain:?}");
        let coloured = lines(true, &hostile);
        assert!(coloured.contains("\u{1b}[33mretry in") && !coloured.contains("[31m\u{1b}"), "{coloured:?}");
        let life = lines(true, &life());
        assert!(life.contains("\u{1b}[31mdead: ") && life.contains("\u{1b}[32m200 after"), "{life:?}");
    }
}
