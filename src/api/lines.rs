//! A batch as lines of JSON, one task a line (NDJSON), read piece by piece as it arrives: what is kept is the tasks and
//! the line that has begun, never the text.

use serde_json::value::RawValue;

use crate::queue::store::RunningDigest;
use crate::task::TaskSpec;
use crate::task::limits::{BATCH_TASKS_MAX, TASK_ENVELOPE_BYTES_MAX};

use super::error::{Code, Problem};
use super::wire_task::{Batch, Rules};

/// What has been read so far.
#[derive(Default)]
pub(super) struct Lines {
    batch: Batch,
    /// The line that has begun and not ended.
    begun: Vec<u8>,
    /// Lines that have ended.
    ended: usize,
    /// The number of each task's line, from 1.
    line_of: Vec<usize>,
    digest: RunningDigest,
    hopeless: bool,
}

/// A batch that was read to its end.
pub(super) struct ReadLines {
    /// The tasks.
    pub(super) specs: Vec<TaskSpec>,
    /// The number of each task's line, from 1.
    pub(super) line_of: Vec<usize>,
    /// The digest of the raw body.
    pub(super) digest: u128,
}

impl Lines {
    /// Takes the next piece of the body. False says that reading on is of no use: what is wrong is known.
    pub(super) fn feed(&mut self, piece: &[u8], rules: &Rules<'_>) -> bool {
        self.digest.update(piece);
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(rest) if self.begun.is_empty() => self.line(rest, rules),
                Some(rest) => {
                    let mut line = std::mem::take(&mut self.begun);
                    line.extend_from_slice(rest);
                    self.line(&line, rules);
                }
                None => self.begun.extend_from_slice(part),
            }
            // One byte more may be the first of CR LF.
            if self.begun.len() > line_bytes_max(rules) + 1 {
                let line = std::mem::take(&mut self.begun);
                self.line(&line, rules);
            }
            if self.hopeless {
                return false;
            }
        }
        true
    }

    /// The end of the body: all tasks, or the faults of all of them. The last line needs no newline.
    pub(super) fn finish(mut self, rules: &Rules<'_>) -> Result<ReadLines, Problem> {
        if !self.hopeless && !self.begun.is_empty() {
            let line = std::mem::take(&mut self.begun);
            self.line(&line, rules);
        }
        if self.batch.count == 0 && self.batch.findings.is_empty() {
            self.batch.findings.invalid("", format!("a batch has 1 to {BATCH_TASKS_MAX} tasks, this one has 0"));
        }
        let (line_of, digest) = (self.line_of, self.digest.finish());
        match self.batch.finish() {
            Ok(specs) => Ok(ReadLines { specs, line_of, digest }),
            Err(problem) => Err(problem.on_lines(&line_of)),
        }
    }

    /// One line without its LF.
    fn line(&mut self, line: &[u8], rules: &Rules<'_>) {
        self.ended += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let max = line_bytes_max(rules);
        if line.len() > max {
            self.begin_task();
            self.batch
                .refuse(Code::BodyTooLarge, format!("a line may have at most {max} bytes, and this one has more"));
            self.hopeless = true;
            return;
        }
        if line.trim_ascii().is_empty() {
            return;
        }
        if self.batch.count >= BATCH_TASKS_MAX {
            let detail = format!("a batch has at most {BATCH_TASKS_MAX} tasks, and line {} holds one more", self.ended);
            self.batch.findings.invalid("", detail);
            self.hopeless = true;
            return;
        }
        self.begin_task();
        match json(line) {
            Ok(text) => self.batch.add(text, rules),
            Err(detail) => self.batch.refuse(Code::MalformedJson, detail),
        }
        self.hopeless = self.batch.findings.is_full();
    }

    fn begin_task(&mut self) {
        self.line_of.push(self.ended);
    }
}

/// Longest line, without its end.
fn line_bytes_max(rules: &Rules<'_>) -> usize {
    usize::try_from(rules.payload_bytes_max).unwrap_or(usize::MAX).saturating_add(TASK_ENVELOPE_BYTES_MAX)
}

/// The JSON text on a line, without blanks around it; or why it is none, and where.
fn json(line: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("this is not UTF-8: byte {} is wrong", error.valid_up_to() + 1))?;
    let raw = serde_json::from_str::<&RawValue>(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = error.to_string();
        let what = what.strip_suffix(&place).unwrap_or(&what);
        let hint = if text.trim_ascii_start().starts_with('[') { ARRAY_HINT } else { "" };
        format!("column {}: {what}{hint}", error.column())
    })?;
    Ok(raw.get())
}

const ARRAY_HINT: &str = "; each line has to hold one whole task: an array goes as `Content-Type: application/json`";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::rig_tests::{TASK, check, noon};
    use crate::task::limits::FAULTS_REPORTED_MAX;

    const PAYLOAD_MAX: u64 = 100;
    const LINE_MAX: usize = 100 + TASK_ENVELOPE_BYTES_MAX;

    /// What is read of a body that arrives in pieces of this size, and how many of them were taken.
    fn read_cut(body: &[u8], size: usize) -> (Result<ReadLines, Value>, usize) {
        let check = check();
        let rules = Rules { now: noon(), payload_bytes_max: PAYLOAD_MAX, check: &check, keyed: false };
        let mut lines = Lines::default();
        let mut taken = 0;
        for piece in body.chunks(size) {
            taken += 1;
            if !lines.feed(piece, &rules) {
                break;
            }
        }
        let read = lines.finish(&rules).map_err(|problem| serde_json::from_slice(&problem.render("r")).unwrap());
        (read, taken)
    }

    fn read(body: &[u8]) -> Result<ReadLines, Value> {
        read_cut(body, usize::MAX).0
    }

    /// Status and code, then every fault: pointer and detail.
    fn refusal(body: &[u8]) -> (Value, Vec<(String, String)>) {
        let problem = read(body).map(|read| read.specs.len()).unwrap_err();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = problem["errors"].as_array().unwrap().iter();
        let faults = errors.map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect();
        (json!([problem["status"], problem["code"]]), faults)
    }

    fn named(name: &str) -> String {
        TASK.replace("{\"task_type\"", &format!("{{\"task_id\":\"{name}\",\"task_type\""))
    }

    #[test]
    fn tasks_are_the_same_however_the_body_is_cut_and_however_lines_end() {
        let body =
            format!("\n{}\r\n \t\r\n{}\n\n  {}  ", named("a"), named("\u{e9}").replace('\u{e9}', "b"), named("c"));
        let whole = read(body.as_bytes()).unwrap();
        let names: Vec<_> = whole.specs.iter().map(|spec| spec.name.as_ref().unwrap().as_str()).collect();
        assert_eq!((names, &*whole.line_of), (vec!["a", "b", "c"], &[2, 4, 6][..]));
        for size in 1..body.len() {
            let cut = read_cut(body.as_bytes(), size).0.unwrap();
            assert_eq!(
                (cut.specs, cut.line_of, cut.digest),
                (whole.specs.clone(), whole.line_of.clone(), whole.digest)
            );
        }
        let other_ends = read(body.replace("\r\n", "\n").as_bytes()).unwrap();
        assert_eq!(other_ends.specs, whole.specs);
        assert_ne!(other_ends.digest, whole.digest, "the digest is of the raw body");
        let alone = super::super::wire_task::one(
            &named("a"),
            &Rules { now: noon(), payload_bytes_max: PAYLOAD_MAX, check: &check(), keyed: false },
        );
        assert_eq!(alone.unwrap().digest, whole.specs[0].digest, "a repeat by task_id is seen across the forms");
    }

    #[test]
    fn every_fault_names_task_and_line() {
        let body = [
            b"\n".as_slice(),
            TASK.as_bytes(),
            b"\n{\"task_type\":\"http_request\",\n\n",
            b"{\"task_type\":\"http_request\",\"payload\":{}}\n\"\xff\"\n7",
        ];
        let (kind, faults) = refusal(&body.concat());
        assert_eq!(kind, json!([422, "invalid_task"]), "kinds that differ are just faults");
        let expected = [
            ("/1", "line 3: column 28: EOF while parsing an object"),
            ("/2/payload/url", "line 5: is required"),
            ("/3", "line 6: this is not UTF-8: byte 2 is wrong"),
            ("/4", "line 7: expected an object, found a number"),
        ];
        assert_eq!(faults, expected.map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned())));
        let twice = format!("{}\n{TASK}\n{}", named("n"), named("n"));
        let (_, faults) = refusal(twice.as_bytes());
        assert_eq!(faults, [("/2/task_id".to_owned(), "line 3: `n` is given twice in this batch".to_owned())]);
        assert_eq!(refusal(b"{}}").0, json!([400, "malformed_json"]));
    }

    #[test]
    fn an_array_over_many_lines_is_told_how_to_come() {
        let (kind, faults) = refusal(format!("[\n{TASK},\n{TASK}\n]").as_bytes());
        assert_eq!(kind, json!([400, "malformed_json"]));
        assert_eq!(faults[0].1, format!("line 1: column 1: EOF while parsing a list{ARRAY_HINT}"));
    }

    #[test]
    fn a_batch_has_one_to_ten_thousand_tasks() {
        let lines = |count: usize| format!("{TASK}\n\n").repeat(count);
        assert_eq!(read(lines(BATCH_TASKS_MAX).as_bytes()).unwrap().specs.len(), BATCH_TASKS_MAX);
        let (kind, faults) = refusal(lines(BATCH_TASKS_MAX + 1).as_bytes());
        let detail = "a batch has at most 10000 tasks, and line 20001 holds one more";
        assert_eq!((kind, &*faults), (json!([422, "invalid_task"]), &[(String::new(), detail.to_owned())][..]));
        for empty in [&b""[..], b"\n", b" \r\n\n"] {
            assert_eq!(refusal(empty).1, [(String::new(), "a batch has 1 to 10000 tasks, this one has 0".to_owned())]);
        }
    }

    #[test]
    fn a_line_is_as_long_as_a_single_task_may_be() {
        let padded = |len: usize| TASK.to_owned() + &" ".repeat(len - TASK.len());
        for end in ["", "\n", "\r\n"] {
            let body = |len: usize| format!("{TASK}\n{}{end}", padded(len));
            assert_eq!(read(body(LINE_MAX).as_bytes()).unwrap().specs.len(), 2);
            let (kind, faults) = refusal(body(LINE_MAX + 1).as_bytes());
            assert_eq!(kind, json!([413, "body_too_large"]));
            let detail = format!("line 2: a line may have at most {LINE_MAX} bytes, and this one has more");
            assert_eq!(faults, [("/1".to_owned(), detail)]);
            for size in [1_000, 7] {
                assert!(read_cut(body(LINE_MAX).as_bytes(), size).0.is_ok(), "{size}");
                assert!(read_cut(body(LINE_MAX + 1).as_bytes(), size).0.is_err(), "{size}");
            }
        }
    }

    #[test]
    fn what_is_hopeless_is_not_read_to_its_end() {
        let endless = vec![b'x'; 10 * LINE_MAX];
        let (refused, taken) = read_cut(&endless, LINE_MAX / 4);
        assert_eq!(refused.map(|read| read.specs.len()).unwrap_err()["code"], "body_too_large");
        assert_eq!(taken, 5, "no more than a line");
        let wrong = "7\n".repeat(10 * FAULTS_REPORTED_MAX);
        let (refused, taken) = read_cut(wrong.as_bytes(), 2);
        assert_eq!(
            refused.map(|read| read.specs.len()).unwrap_err()["errors"].as_array().unwrap().len(),
            FAULTS_REPORTED_MAX
        );
        assert_eq!(taken, FAULTS_REPORTED_MAX);
    }

    #[test]
    fn once_there_is_a_fault_no_task_is_kept() {
        let check = check();
        let rules = Rules { now: noon(), payload_bytes_max: PAYLOAD_MAX, check: &check, keyed: false };
        let mut lines = Lines::default();
        assert!(lines.feed(format!("{TASK}\n7\n{TASK}\n").as_bytes(), &rules));
        assert_eq!((lines.batch.count, lines.batch.kept()), (3, 0));
    }
}
