//! Sends one chunk until it is answered: again after what passes, without the lines that are refused where that is
//! wanted. The key stays the same, so whatever happened before, no task is made twice.

use std::cell::Cell;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::cli::call::{CallError, Problem};
use crate::cli::client::{Answer, Client};
use crate::cli::exit::Exit;
use crate::clock::{Chance, Clock};
use crate::task::limits::{BULK_RETRY_PAUSE_MAX, BULK_RETRY_PAUSE_MIN};

use super::cut::Chunk;
use super::rejects::Earlier;

/// What all chunks of a run are sent with.
pub(super) struct Sender<'a> {
    pub(super) client: &'a Client,
    pub(super) clock: &'a Clock,
    /// Lines that earlier runs left out, where refused lines are left out and the rest is sent.
    pub(super) earlier: Option<Earlier>,
    /// How long one chunk is tried again.
    pub(super) retry_for: Duration,
    /// Ends the waiting between tries.
    pub(super) cancel: CancellationToken,
    /// Whether somebody was ever there: before that, no connection is more likely a wrong address than bad weather.
    pub(super) answered: Cell<bool>,
    /// Why some chunk is being tried again, until it goes on.
    pub(super) trouble: Cell<Option<String>>,
}

/// What came of a chunk.
pub(super) struct Sent {
    /// What was sent in the end.
    pub(super) chunk: Chunk,
    /// Lines that were left out because they are refused.
    pub(super) refused: Vec<Refused>,
    /// How it ended.
    pub(super) end: Result<Done, Stop>,
}

/// Tasks that exist.
pub(super) struct Done {
    /// Their ids, in order.
    pub(super) ids: Vec<String>,
    /// Whether an earlier request made them.
    pub(super) already: bool,
    /// Whether names of their own told that, for want of the key.
    pub(super) by_name: bool,
}

/// A line that the server refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The number of its line in the input.
    pub(super) place: u64,
    /// The line.
    pub(super) line: Vec<u8>,
    /// The pointer of the first fault, within the task, and what it is.
    pub(super) why: String,
}

/// Why a chunk was given up.
pub(super) enum Stop {
    /// These lines are refused: nothing of the chunk was accepted.
    Lines(Vec<Refused>, Exit),
    /// Nothing of it was accepted, and trying again would not help.
    Refused(CallError),
    /// The time for trying again is over; whether it was accepted is known to be not so, or not known.
    GivenUp {
        /// The last error.
        error: CallError,
        /// Whether one of the tries may have been accepted.
        maybe: bool,
    },
    /// There was no time to try again: Ctrl-C.
    Interrupted {
        /// Whether one of the tries may have been accepted.
        maybe: bool,
    },
}

/// The code that says that this key came with another body.
pub(super) const MISMATCH: &str = "idempotency_mismatch";

#[derive(Deserialize)]
struct Ids {
    task_ids: Vec<String>,
}

impl Sender<'_> {
    /// Sends a chunk.
    pub(super) async fn send(&self, mut chunk: Chunk) -> Sent {
        let (mut refused, mut keyed) = (Vec::new(), true);
        let end = loop {
            if chunk.places.is_empty() {
                break Ok(Done { ids: Vec::new(), already: false, by_name: false });
            }
            let problem = match self.until_answered(&chunk, keyed).await {
                Ok(done) => break Ok(done),
                Err(Stop::Refused(CallError::Refused(problem))) => problem,
                Err(stop) => break Err(stop),
            };
            if problem.code == "task_id_taken" && keyed && chunk.lines().all(|(_, line)| named(line).task_id.is_some())
            {
                // With a key none of a batch may be an older task's. Where each has a name of its own, the names
                // tell as well what is there.
                keyed = false;
                continue;
            }
            let faulty = if problem.code == MISMATCH {
                // An earlier run left lines out of this chunk, and found them in ways that the server no longer comes
                // to: they are in the file of that run.
                let known = chunk.lines().filter(|(_, line)| self.left_out(line));
                known.map(|(place, line)| Refused { place, line: line.to_vec(), why: String::new() }).collect()
            } else {
                with_same_queue(&problem, &chunk, faulty_lines(&problem, &chunk))
            };
            if faulty.is_empty() {
                break Err(Stop::Refused(CallError::Refused(problem)));
            }
            if self.earlier.is_none() {
                break Err(Stop::Lines(faulty, CallError::Refused(problem).exit()));
            }
            let places: Vec<u64> = faulty.iter().map(|line| line.place).collect();
            chunk = chunk.without(|place, _| places.binary_search(&place).is_ok());
            refused.extend(faulty);
        };
        refused.sort_by_key(|line| line.place);
        Sent { chunk, refused, end }
    }

    /// Whether the file of refused lines has this line already.
    pub(super) fn had(&self, line: &[u8]) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.had(line))
    }

    fn left_out(&self, line: &[u8]) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.left_out(line))
    }

    /// Tries until there is an answer that will not change by trying again.
    async fn until_answered(&self, chunk: &Chunk, keyed: bool) -> Result<Done, Stop> {
        let mut chance = Chance::from_system();
        let (mut until, mut pause, mut maybe) = (None, BULK_RETRY_PAUSE_MIN.to_duration(), false);
        loop {
            let error = match self.try_once(chunk, keyed).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !self.passes(&error) {
                return Err(Stop::Refused(error));
            }
            maybe |= may_be_accepted(&error);
            if maybe && !keyed {
                // Names are free again once their records are removed: without a key this may be no repeat.
                return Err(Stop::GivenUp { error, maybe });
            }
            let now = self.clock.now().mono;
            let until = *until.get_or_insert(now.saturating_add(self.retry_for));
            let wait = pause.mul_f64(0.5 + chance.unit() / 2.0).max(asked_to_wait(&error));
            if now.saturating_add(wait) > until {
                return Err(Stop::GivenUp { error, maybe });
            }
            self.trouble.set(Some(first_line(&error)));
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = self.cancel.cancelled() => return Err(Stop::Interrupted { maybe }),
            }
            pause = longer(pause);
        }
    }

    async fn try_once(&self, chunk: &Chunk, keyed: bool) -> Result<Done, CallError> {
        let mut request = self.client.request(Method::POST, &["tasks", "batch"]);
        if keyed {
            let key = HeaderValue::from_str(&chunk.key)
                .map_err(|_kind| CallError::Strange { text: "the key does not fit a header".to_owned() })?;
            request = request.header("idempotency-key", key);
        }
        let answer = request.body("application/x-ndjson", chunk.body.clone()).send().await;
        // Whoever breaks a connection off was there, too.
        if let Ok(_) | Err(CallError::Refused(_) | CallError::NoAnswer { .. }) = &answer {
            self.answered.set(true);
        }
        let answer = answer?;
        self.trouble.set(None);
        let ids = answer.parse::<Ids>()?.task_ids;
        if ids.len() != chunk.places.len() {
            let text = format!("{} tasks were sent, and {} ids came back", chunk.places.len(), ids.len());
            return Err(CallError::Strange { text });
        }
        Ok(Done { ids, already: is_replay(&answer), by_name: !keyed })
    }

    /// Whether it makes sense to try again.
    fn passes(&self, error: &CallError) -> bool {
        match error {
            CallError::Refused(problem) => matches!(problem.status, 408 | 429 | 500..),
            CallError::Proxy { .. } | CallError::NoAnswer { .. } => true,
            CallError::NoConnection { .. } => self.answered.get(),
            CallError::Strange { .. } => false,
        }
    }
}

/// The pause after this one.
fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(BULK_RETRY_PAUSE_MAX.to_duration())
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.contains_key("idempotency-replayed")
}

/// Whether the request may have been accepted though this came back. 5xx means so, but for those that say otherwise.
fn may_be_accepted(error: &CallError) -> bool {
    match error {
        CallError::Refused(problem) => problem.status == 500,
        CallError::NoAnswer { .. } | CallError::Proxy { .. } => true,
        CallError::NoConnection { .. } | CallError::Strange { .. } => false,
    }
}

fn asked_to_wait(error: &CallError) -> Duration {
    match error {
        CallError::Refused(problem) => Duration::from_secs(problem.retry_after_secs.unwrap_or_default()),
        CallError::Proxy { retry_after_secs, .. } => Duration::from_secs(retry_after_secs.unwrap_or_default()),
        CallError::NoConnection { .. } | CallError::NoAnswer { .. } | CallError::Strange { .. } => Duration::ZERO,
    }
}

fn first_line(error: &CallError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The lines that a problem names, in order, each with its first fault.
fn faulty_lines(problem: &Problem, chunk: &Chunk) -> Vec<Refused> {
    let mut faulty: Vec<(usize, String)> = Vec::new();
    for item in &problem.errors {
        let Some((index, rest)) = item.pointer.as_deref().and_then(index_of) else { continue };
        if faulty.iter().any(|(other, _)| *other == index) {
            continue;
        }
        let detail = item.detail.strip_prefix(&format!("line {}: ", index + 1)).unwrap_or(&item.detail);
        faulty.push((index, if rest.is_empty() { detail.to_owned() } else { format!("{rest}: {detail}") }));
    }
    faulty.sort();
    let lines: Vec<(u64, &[u8])> = chunk.lines().collect();
    let refused = |(index, why): (usize, String)| {
        lines.get(index).map(|(place, line)| Refused { place: *place, line: line.to_vec(), why })
    };
    faulty.into_iter().filter_map(refused).collect()
}

/// A queue that does not exist is told of the first task only: the others that name it are refused as well.
fn with_same_queue(problem: &Problem, chunk: &Chunk, faulty: Vec<Refused>) -> Vec<Refused> {
    let ("unknown_queue", [first]) = (problem.code.as_str(), faulty.as_slice()) else { return faulty };
    let Some(queue) = named(&first.line).queue else { return faulty };
    let same = chunk.lines().filter(|(_, line)| named(line).queue.as_ref() == Some(&queue));
    same.map(|(place, line)| Refused { place, line: line.to_vec(), why: first.why.clone() }).collect()
}

/// What a line names.
#[derive(Default, Deserialize)]
struct Named {
    queue: Option<String>,
    task_id: Option<String>,
}

fn named(line: &[u8]) -> Named {
    serde_json::from_slice(line).unwrap_or_default()
}

/// `/7/payload/url` is task 7 and, within it, `/payload/url`.
fn index_of(pointer: &str) -> Option<(usize, &str)> {
    let rest = pointer.strip_prefix('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some((rest.get(..end)?.parse().ok()?, rest.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::call::ProblemItem;

    #[test]
    fn pauses_double_from_the_least_to_the_longest_and_stay_there() {
        let pauses = std::iter::successors(Some(BULK_RETRY_PAUSE_MIN.to_duration()), |pause| Some(longer(*pause)));
        let pauses: Vec<u128> = pauses.map(|pause| pause.as_millis()).take(8).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn faults_are_told_by_the_line_of_the_input_and_the_first_of_each_line() {
        let chunk = Chunk { body: "a\nb\nc\n".into(), places: vec![4, 6, 9], key: String::new(), read: 0 };
        let item = |pointer: &str, detail: &str| ProblemItem {
            pointer: Some(pointer.to_owned()),
            parameter: None,
            detail: detail.to_owned(),
        };
        let errors = vec![
            item("/2/payload/url", "line 3: is required"),
            item("/0", "line 1: column 2: no JSON"),
            item("/2/queue", "line 3: second fault"),
            item("", "too many"),
            item("/9/queue", "there is no such line"),
        ];
        let problem = Problem { errors, ..Problem::default() };
        let refused = |place, line: &str, why: &str| Refused { place, line: line.into(), why: why.to_owned() };
        let expected = [refused(4, "a", "column 2: no JSON"), refused(9, "c", "/payload/url: is required")];
        assert_eq!(faulty_lines(&problem, &chunk), expected);
    }

    #[test]
    fn all_lines_of_a_queue_that_does_not_exist_are_refused_at_once() {
        let body = "{\"queue\":\"a\"}\n{\"queue\":\"b\"}\n{}\n{\"n\":1,\"queue\":\"\\u0062\"}\n";
        let chunk = Chunk { body: body.into(), places: vec![1, 2, 3, 4], key: String::new(), read: 0 };
        let item = ProblemItem { pointer: Some("/1/queue".to_owned()), parameter: None, detail: "none".to_owned() };
        let problem = |code: &str| Problem { code: code.to_owned(), errors: vec![item.clone()], ..Problem::default() };
        let places = |code: &str| {
            let problem = problem(code);
            let faulty = with_same_queue(&problem, &chunk, faulty_lines(&problem, &chunk));
            faulty.into_iter().map(|line| line.place).collect::<Vec<_>>()
        };
        assert_eq!((places("unknown_queue"), places("invalid_task")), (vec![2, 4], vec![2]));
    }
}
