//! What has come of a run so far, and how it is told: what exists, what does not, what is not known, how to go on.

use std::collections::VecDeque;

use serde::Serialize;

use crate::cli::call::CallError;
use crate::cli::exit::{Exit, Failed};
use crate::cli::output::text::{grouped, visible};
use crate::task::limits::FAULTS_SHOWN_MAX;

use super::cut::{Chunk, CutError};
use super::progress::counted;
use super::send::{MISMATCH, Refused, Sent, Stop};
use super::source::Form;

/// See the module.
pub(super) struct Tally {
    name: String,
    form: Form,
    /// Tasks that this run made.
    pub(super) created: u64,
    /// Tasks that an earlier run made.
    pub(super) already: u64,
    /// Lines that were left out.
    pub(super) refused: u64,
    /// Bytes of the input that are done.
    pub(super) read: u64,
    /// Why the input could not be cut to its end.
    pub(super) cut: Option<CutError>,
    /// Whether somebody pressed Ctrl-C.
    pub(super) interrupted: bool,
    /// Why refused lines or ids could not be written.
    pub(super) unwritten: Option<Failed>,
    /// Whether the names of some tasks told that they are there.
    by_name: bool,
    /// First and last lines of runs of chunks that were accepted.
    accepted: Vec<(u64, u64)>,
    /// The same of those of which it is not known.
    unknown: Vec<(u64, u64)>,
    /// Chunks that are in flight: first and last line.
    flying: VecDeque<(u64, u64)>,
    /// The last line of the last chunk that came back.
    last: u64,
    /// The first chunk that was not accepted: its first line.
    go_on_at: Option<u64>,
    stop: Option<Stop>,
}

#[derive(Serialize)]
struct Summary<'a> {
    created: u64,
    already_there: u64,
    refused: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_on_at_line: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    accepted_lines: &'a [(u64, u64)],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unknown_lines: &'a [(u64, u64)],
}

impl Tally {
    /// Of an input that has been opened.
    pub(super) fn new(name: String, form: Form) -> Self {
        Self {
            name,
            form,
            created: 0,
            already: 0,
            refused: 0,
            read: 0,
            cut: None,
            interrupted: false,
            unwritten: None,
            by_name: false,
            accepted: Vec::new(),
            unknown: Vec::new(),
            flying: VecDeque::new(),
            last: 0,
            go_on_at: None,
            stop: None,
        }
    }

    /// A chunk has been sent.
    pub(super) fn sent(&mut self, chunk: &Chunk) {
        self.flying.push_back(chunk.span());
    }

    /// The oldest chunk in flight came back. False says that no more should be sent.
    pub(super) fn take(&mut self, sent: Sent) -> bool {
        let span = self.flying.pop_front().unwrap_or_else(|| sent.chunk.span());
        let previous = std::mem::replace(&mut self.last, span.1);
        let stop = match sent.end {
            Ok(done) => {
                let count = done.ids.len() as u64;
                *(if done.already { &mut self.already } else { &mut self.created }) += count;
                self.refused += sent.refused.len() as u64;
                self.by_name |= done.by_name;
                if self.go_on_at.is_none() {
                    self.read = sent.chunk.read;
                }
                if count > 0 {
                    join(&mut self.accepted, span, previous);
                }
                return self.stop.is_none() && self.unwritten.is_none();
            }
            Err(stop) => stop,
        };
        if stop.maybe() {
            join(&mut self.unknown, span, previous);
        }
        self.go_on_at.get_or_insert(span.0);
        self.stop.get_or_insert(stop);
        false
    }

    /// Tasks whose chunks came back.
    pub(super) fn answered(&self) -> u64 {
        self.created + self.already
    }

    fn is_complete(&self) -> bool {
        let stopped = self.stop.is_some() || self.cut.is_some() || self.interrupted || self.unwritten.is_some();
        !stopped && self.flying.is_empty()
    }

    /// The line with which the next run will go on.
    fn next_line(&self) -> u64 {
        self.go_on_at.or_else(|| self.flying.front().map(|span| span.0)).unwrap_or(self.last + 1)
    }

    /// `1,200 tasks created, 300 already there, 2 refused`.
    pub(super) fn words(&self) -> String {
        let mut words = match (self.created, self.already) {
            (0, 1..) => "no new task".to_owned(),
            (created, _) => counted(created, "task created", "tasks created"),
        };
        if self.already > 0 {
            words = format!("{words}, {} already there", grouped(self.already));
        }
        if self.refused > 0 {
            words = format!("{words}, {} refused", grouped(self.refused));
        }
        words
    }

    /// The line at the end.
    pub(super) fn sentence(&self, rejects: Option<&str>) -> String {
        match rejects.filter(|_| self.refused > 0) {
            Some(rejects) => format!("{} (see {rejects})", self.words()),
            None => self.words(),
        }
    }

    /// The same for programs.
    pub(super) fn json(&self) -> String {
        let complete = self.is_complete();
        let unknown: Vec<_> = self.unknown.iter().chain(&self.flying).copied().collect();
        let summary = Summary {
            created: self.created,
            already_there: self.already,
            refused: self.refused,
            complete,
            go_on_at_line: (!complete).then(|| self.next_line()),
            accepted_lines: if complete { &[] } else { &self.accepted },
            unknown_lines: &unknown,
        };
        // Numbers only: there is nothing in it that could not be written.
        serde_json::to_string(&summary).unwrap_or_default()
    }

    /// What to say of a run that did nothing, since that may not be what was meant.
    pub(super) fn hint(&self) -> Option<&'static str> {
        // Where names told that the tasks are there, they would do so again.
        let is_repeat = self.is_complete() && self.created == 0 && self.already > 0 && !self.by_name;
        is_repeat.then_some("the same input was sent within 24 h; --salt TEXT creates its tasks once more")
    }

    /// Why it is not complete, if so, and how to go on.
    pub(super) fn failure(&self) -> Option<Failed> {
        if self.is_complete() {
            return None;
        }
        let (exit, why) = self.why();
        let mut text = why;
        text.push_str(&self.state());
        text.push_str(&self.advice());
        Some(Failed::told(exit, text))
    }

    fn why(&self) -> (Exit, String) {
        if let Some(failed) = &self.unwritten {
            return (failed.exit(), failed.to_string());
        }
        match (&self.stop, &self.cut) {
            (Some(Stop::Lines(lines, exit)), _) => (*exit, self.faults(lines)),
            (Some(Stop::Refused(error)), _) => (error.exit(), self.refusal(error)),
            (Some(Stop::GivenUp { error, .. }), _) => (error.exit(), format!("gave up trying: {error}")),
            (Some(Stop::Interrupted { .. }) | None, None) => {
                let exit = if self.answered() > 0 { Exit::Partly } else { Exit::Failure };
                (exit, "interrupted".to_owned())
            }
            (_, Some(error @ CutError::LineTooLong { line })) => {
                (Exit::Usage, format!("{}: {error}", self.form.place(&self.name, *line)))
            }
            (_, Some(error @ CutError::Read(_))) => (Exit::Failure, format!("{}: {error}", self.name)),
        }
    }

    fn faults(&self, lines: &[Refused]) -> String {
        let shown = lines.iter().take(FAULTS_SHOWN_MAX);
        let each = shown.map(|line| format!("{}: {}", self.form.place(&self.name, line.place), visible(&line.why)));
        let text = each.collect::<Vec<_>>().join("\n  ");
        match lines.len().saturating_sub(FAULTS_SHOWN_MAX) {
            0 => text,
            more => format!("{text}\n  and {more} more"),
        }
    }

    fn refusal(&self, error: &CallError) -> String {
        let line = self.form.place(&self.name, self.next_line());
        match error {
            CallError::Refused(problem) if problem.code == MISMATCH => format!(
                "{line}: an earlier run of this file left out refused lines here: use the same --skip-invalid file as then"
            ),
            CallError::Refused(_)
            | CallError::NoConnection { .. }
            | CallError::NoAnswer { .. }
            | CallError::Proxy { .. }
            | CallError::Strange { .. } => error.to_string(),
        }
    }

    /// What exists and what is not known.
    fn state(&self) -> String {
        let unknown: Vec<_> = self.unknown.iter().chain(&self.flying).copied().collect();
        let accepted = match self.answered() {
            0 if unknown.is_empty() => "\n  Nothing was accepted".to_owned(),
            0 => "\n  Nothing is known to be accepted".to_owned(),
            count => format!("\n  Accepted: {}{}", counted(count, "task", "tasks"), spans(&self.accepted)),
        };
        if unknown.is_empty() {
            return accepted;
        }
        format!("{accepted}\n  Not known, for want of an answer:{}", spans(&unknown))
    }

    fn advice(&self) -> String {
        let line = self.next_line();
        match (&self.stop, &self.cut) {
            (Some(Stop::Lines(..)), _) if self.answered() > 0 || !self.unknown.is_empty() => "\n  \
                 Leave this file as it is, or what comes after a change is created again. Run the command again with\n  \
                 --skip-invalid REJECTS: it goes on and creates nothing twice (within 24 h); then mend REJECTS and send that"
                .to_owned(),
            (Some(Stop::Lines(..)), _) => "\n  Mend it and run the command again, or use --skip-invalid REJECTS".to_owned(),
            (_, Some(CutError::LineTooLong { .. })) => String::new(),
            (Some(Stop::Refused(CallError::Refused(problem))), _) if problem.code == MISMATCH => String::new(),
            _ => format!(
                "\n  Run the same command again within 24 h: it goes on at line {line} and creates nothing twice"
            ),
        }
    }
}

impl Stop {
    /// Whether the chunk may have been accepted all the same.
    fn maybe(&self) -> bool {
        match self {
            Self::Lines(..) => false,
            Self::Refused(error) => {
                matches!(error, CallError::NoAnswer { .. } | CallError::Proxy { .. } | CallError::Strange { .. })
            }
            Self::GivenUp { maybe, .. } | Self::Interrupted { maybe } => *maybe,
        }
    }
}

/// Adds a span; one that follows the last (which ended at `previous`) prolongs it.
fn join(spans: &mut Vec<(u64, u64)>, span: (u64, u64), previous: u64) {
    match spans.last_mut() {
        Some(last) if last.1 == previous => last.1 = span.1,
        Some(_) | None => spans.push(span),
    }
}

/// ` (lines 1 to 5000, 10001 to 12000)`.
fn spans(spans: &[(u64, u64)]) -> String {
    let each: Vec<_> = spans.iter().map(|(first, last)| format!("{first} to {last}")).collect();
    format!(" (lines {})", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::send::Done;
    use super::*;

    fn sent(places: std::ops::RangeInclusive<u64>, end: Result<bool, Stop>) -> Sent {
        let places: Vec<u64> = places.collect();
        let ids = places.iter().map(u64::to_string).collect();
        let read = 10 * places.last().copied().unwrap_or_default();
        let chunk = Chunk { body: bytes::Bytes::default(), places, key: String::new(), read };
        Sent { chunk, refused: Vec::new(), end: end.map(|already| Done { ids, already, by_name: false }) }
    }

    fn faulty(place: u64) -> Stop {
        Stop::Lines(vec![Refused { place, line: Vec::new(), why: "/queue: no such\nqueue".to_owned() }], Exit::Usage)
    }

    fn tally() -> Tally {
        Tally::new("f.ndjson".to_owned(), Form::Lines)
    }

    fn told(tally: &Tally) -> (Exit, String) {
        let failed = tally.failure().unwrap();
        (failed.exit(), failed.to_string())
    }

    #[test]
    fn what_was_accepted_is_said_exactly() {
        let mut tally = tally();
        assert!(tally.take(sent(1..=10, Ok(true))));
        assert!(tally.take(sent(12..=20, Ok(false))));
        assert_eq!(tally.read, 200);
        assert!(!tally.take(sent(21..=30, Err(faulty(25)))));
        assert!(!tally.take(sent(31..=40, Ok(false))), "it was in flight");
        assert_eq!(tally.words(), "19 tasks created, 10 already there");
        assert_eq!(tally.read, 200, "the line that the next run begins with");
        let (exit, text) = told(&tally);
        assert_eq!(exit, Exit::Usage);
        assert!(text.starts_with("f.ndjson:25: /queue: no such\\nqueue\n"), "{text}");
        assert!(text.contains("Accepted: 29 tasks (lines 1 to 20, 31 to 40)"), "{text}");
        assert!(text.contains("--skip-invalid REJECTS") && !text.contains("Not known"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&tally.json()).unwrap();
        let expected = serde_json::json!({"created": 19, "already_there": 10, "refused": 0, "complete": false,
            "go_on_at_line": 21, "accepted_lines": [[1, 20], [31, 40]]});
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_not_known_is_said_too() {
        let mut tally = tally();
        assert!(tally.take(sent(1..=10, Ok(false))));
        let error = CallError::NoConnection { text: "no server answers".to_owned() };
        assert!(!tally.take(sent(11..=20, Err(Stop::GivenUp { error, maybe: true }))));
        let (exit, text) = told(&tally);
        assert_eq!(exit, Exit::Unreachable);
        let expected = "gave up trying: no server answers\n  Accepted: 10 tasks (lines 1 to 10)\n  \
                        Not known, for want of an answer: (lines 11 to 20)\n  \
                        Run the same command again within 24 h: it goes on at line 11 and creates nothing twice";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_first_fault_is_simply_to_be_mended() {
        let mut tally = tally();
        assert!(!tally.take(sent(1..=1, Err(faulty(1)))));
        let text = told(&tally).1;
        let expected = "f.ndjson:1: /queue: no such\\nqueue\n  Nothing was accepted\n  \
                        Mend it and run the command again, or use --skip-invalid REJECTS";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_interrupted_run_says_where_it_is() {
        let mut tally = tally();
        tally.interrupted = true;
        assert_eq!(told(&tally).0, Exit::Failure);
        assert!(tally.take(sent(1..=10, Ok(false))));
        tally.sent(&sent(11..=20, Ok(false)).chunk);
        let (exit, text) = told(&tally);
        assert_eq!(exit, Exit::Partly);
        assert!(text.contains("Not known, for want of an answer: (lines 11 to 20)"), "{text}");
        assert!(text.contains("goes on at line 11 "), "{text}");
    }

    #[test]
    fn what_cannot_be_written_stops_the_run_and_what_was_accepted_is_said() {
        let mut tally = tally();
        tally.unwritten = Some(Failed::told(Exit::Failure, "r: no space left"));
        assert!(!tally.take(sent(1..=10, Ok(false))));
        assert!(!tally.take(sent(11..=20, Ok(false))), "it was in flight");
        let (exit, text) = told(&tally);
        assert_eq!(exit, Exit::Failure);
        let expected = "r: no space left\n  Accepted: 20 tasks (lines 1 to 20)\n  \
                        Run the same command again within 24 h: it goes on at line 21 and creates nothing twice";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_run_that_did_nothing_says_how_it_would_do_something() {
        let mut tally = tally();
        assert_eq!(tally.hint(), None);
        assert!(tally.take(sent(1..=10, Ok(true))));
        assert!(tally.hint().is_some_and(|hint| hint.contains("--salt")));
        tally.by_name = true;
        assert_eq!(tally.hint(), None, "salt would change nothing");
        tally.by_name = false;
        assert!(tally.take(sent(11..=20, Ok(false))));
        assert_eq!(tally.hint(), None, "it went on after a break");
    }

    #[test]
    fn a_whole_run_is_one_sentence() {
        let mut tally = tally();
        assert_eq!(tally.sentence(None), "0 tasks created");
        assert!(tally.take(sent(1..=1_000, Ok(false))) && tally.failure().is_none());
        tally.refused = 2;
        assert_eq!(tally.sentence(Some("r")), "1,000 tasks created, 2 refused (see r)");
        assert_eq!(tally.json(), r#"{"created":1000,"already_there":0,"refused":2,"complete":true}"#);
    }
}
