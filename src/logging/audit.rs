//! The audit log as text: one line for each administrative act, chained by hashes. Pure: `app` owns the file.
//!
//! A line is one JSON object whose last member is `hash`: SHA-256, in hexadecimal, of the line as it stands without that
//! member. `prev` is the `hash` of the line before, so a line that was changed, taken out, put in or moved does not fit
//! any more, and neither does what follows it. There is no secret in this: whoever may write the file can write all of it
//! anew. What that takes is in `docs/security.md`.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::task::WallMs;
use crate::task::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_TEXT_CHARS_MAX, AUDIT_VALUE_BYTES_MAX};

/// The log's file in `data_dir`.
pub const AUDIT_FILE: &str = "audit.log";

/// Characters of a hash.
const HASH_LEN: usize = 64;

/// The `prev` of a line that begins a chain.
const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The holder of an API key, of an issuer's token, or of a client certificate.
    Key {
        /// The public part of the key; issuer and subject of the token; or a name in the certificate.
        id: Arc<str>,
        /// What the key is for.
        name: Option<String>,
    },
    /// Somebody on the machine itself: started the server, sent it a signal, put other files in place.
    Local,
    /// The server, of its own accord.
    Server,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not, and this code says why.
    Refused(&'static str),
    /// It may have been done, in part or as a whole.
    Unknown(&'static str),
}

impl Outcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
        }
    }

    fn code(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Refused(code) | Self::Unknown(code) => Some(code),
        }
    }
}

/// One administrative act. Never a secret, never a payload: whoever fills this in sees to that.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// Who.
    pub who: Who,
    /// From where, if over the network.
    pub from: Option<SocketAddr>,
    /// What: `POST /queues/{queue}/pause`, `server_start`.
    pub operation: Cow<'static, str>,
    /// To what: `/queues/mail`.
    pub object: Option<String>,
    /// How it was.
    pub before: Option<Value>,
    /// How it is now, or what was asked for.
    pub after: Option<Value>,
    /// What came of it.
    pub outcome: Outcome,
    /// The id that the answer carries.
    pub request_id: Option<Arc<str>>,
}

impl Act {
    /// An act that was done and did not come over the network.
    pub fn here(who: Who, operation: &'static str) -> Self {
        Self {
            who,
            from: None,
            operation: Cow::Borrowed(operation),
            object: None,
            before: None,
            after: None,
            outcome: Outcome::Done,
            request_id: None,
        }
    }
}

/// The end of a chain: what the next line refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number of the last line; 0 when there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Link {
    /// The end of a chain that has no line yet.
    pub fn none() -> Self {
        Self { seq: 0, hash: NOTHING_BEFORE.to_owned() }
    }

    /// The same, for a line that refers to nothing: what is there cannot be gone on with.
    #[must_use]
    pub fn cut(&self) -> Self {
        Self { seq: self.seq, ..Self::none() }
    }
}

/// A line, less its hash, in the order people read it.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at: String,
    who: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SocketAddr>,
    operation: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Cow<'a, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Cow<'a, Value>>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    /// Refused attempts since the line before that were too many to be written.
    #[serde(skip_serializing_if = "is_zero")]
    unwritten: u64,
    prev: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The line of an act after `last`, with its line feed, and what the line after it refers to. `unwritten` refused attempts
/// got no line.
pub fn line(last: &Link, at: WallMs, unwritten: u64, act: &Act) -> (String, Link) {
    let (who, name) = match &act.who {
        Who::Key { id, name } => (clipped(id), name.as_deref().map(clipped)),
        Who::Local => (Cow::Borrowed("local"), None),
        Who::Server => (Cow::Borrowed("server"), None),
    };
    let line = Line {
        seq: last.seq + 1,
        at: at.to_string(),
        who,
        name,
        from: act.from,
        operation: clipped(&act.operation),
        object: act.object.as_deref().map(clipped),
        before: act.before.as_ref().map(bounded),
        after: act.after.as_ref().map(bounded),
        result: act.outcome.as_str(),
        code: act.outcome.code(),
        request_id: act.request_id.as_deref().map(clipped),
        unwritten,
        prev: &last.hash,
    };
    // Strings, numbers and JSON: there is nothing in it that could not be written.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    let hash = hex_sha256(text.as_bytes());
    text.pop();
    text.push_str(&tail_of_line(&hash));
    text.push('\n');
    (text, Link { seq: line.seq, hash })
}

fn tail_of_line(hash: &str) -> String {
    format!(",\"hash\":\"{hash}\"}}")
}

fn hex_sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

/// At most [`AUDIT_TEXT_CHARS_MAX`] characters.
fn clipped(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(AUDIT_TEXT_CHARS_MAX) {
        None => Cow::Borrowed(text),
        Some((at, _)) => Cow::Owned(format!("{}…", text.get(..at).unwrap_or_default())),
    }
}

/// The value, or if it has more than [`AUDIT_VALUE_BYTES_MAX`] as JSON, the beginning of that as a text.
fn bounded(value: &Value) -> Cow<'_, Value> {
    let text = value.to_string();
    if text.len() <= AUDIT_VALUE_BYTES_MAX {
        return Cow::Borrowed(value);
    }
    let end = (0..=AUDIT_VALUE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(Value::String(format!("{}…", text.get(..end).unwrap_or_default())))
}

/// Why a line does not belong where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No line of ours.
    #[error("this is no line of an audit log: it was changed, or cut short")]
    NoLine,
    /// The text is not the one that was hashed.
    #[error("its text does not fit its `hash`: it was changed")]
    Altered,
    /// It follows another line than the one that stands before it.
    #[error("it does not follow the line before it: lines were taken out, put in, or moved here")]
    Unlinked,
    /// The end of it is missing.
    #[error("it is not complete: a crash in the middle of it, or a server that is writing it just now")]
    Torn,
    /// It is the first, and says that there were others.
    #[error(
        "it is the first, and not the first that was written: lines before it were taken out, or are in another file: \
         name that too, before this one, or its last hash with --anchor"
    )]
    Headless,
}

/// What of a line is needed to see whether it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: String,
    /// The hash of the line before.
    pub prev: String,
    /// The line itself, for the one after it.
    pub link: Link,
}

impl Entry {
    /// Whether it begins a chain.
    pub fn begins(&self) -> bool {
        self.prev == NOTHING_BEFORE
    }
}

/// The members that every line has.
#[derive(Deserialize)]
struct Read {
    seq: u64,
    at: String,
    prev: String,
}

/// Reads a line (without its line feed), and sees whether it is as it was written.
pub fn read(line: &[u8]) -> Result<Entry, Misfit> {
    let line = std::str::from_utf8(line).map_err(|_binary| Misfit::NoLine)?;
    let hash_at = line.len().checked_sub(HASH_LEN + "\"}".len()).ok_or(Misfit::NoLine)?;
    let hash = line.get(hash_at..hash_at + HASH_LEN).ok_or(Misfit::NoLine)?;
    let text = line.strip_suffix(&tail_of_line(hash)).ok_or(Misfit::NoLine)?;
    if line.len() >= AUDIT_LINE_BYTES_MAX {
        return Err(Misfit::NoLine);
    }
    let text = format!("{text}}}");
    if hex_sha256(text.as_bytes()) != hash {
        return Err(Misfit::Altered);
    }
    let Read { seq, at, prev } = serde_json::from_str(&text).map_err(|_other| Misfit::NoLine)?;
    Ok(Entry { at, prev, link: Link { seq, hash: hash.to_owned() } })
}

/// Follows a chain line by line. The first may be any.
#[derive(Debug, Default)]
pub struct Walk {
    last: Option<Link>,
}

impl Walk {
    /// Takes the next line, without its line feed.
    pub fn take(&mut self, line: &[u8]) -> Result<Entry, Misfit> {
        let entry = read(line)?;
        let fits =
            |last: &Link| entry.prev == last.hash && last.seq.checked_add(1).is_some_and(|next| next == entry.link.seq);
        if !self.last.as_ref().is_none_or(fits) {
            return Err(Misfit::Unlinked);
        }
        self.last = Some(entry.link.clone());
        Ok(entry)
    }
}

/// What stands after the last line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// A line that lacks its line feed only.
    Whole,
    /// So many bytes of a line.
    Torn(usize),
}

/// How the end of a log looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The last line that is as it was written.
    pub last: Link,
    /// What is behind it.
    pub rest: Rest,
    /// The first line that does not fit: at which byte it begins, and why not. One that a later line has named
    /// (a chain begins anew there) is not told again.
    pub fault: Option<(usize, Misfit)>,
}

/// Looks at the end of a log, from the beginning of some line on.
pub fn inspect(tail: &[u8]) -> Tail {
    let mut walk = Walk::default();
    let mut found = Tail { last: Link::none(), rest: Rest::Nothing, fault: None };
    let mut end = 0;
    for piece in tail.split_inclusive(|byte| *byte == b'\n') {
        let at = end;
        end += piece.len();
        let Some(line) = piece.strip_suffix(b"\n") else {
            found.rest = Rest::Torn(piece.len());
            if let Ok(entry) = walk.take(piece) {
                (found.last, found.rest) = (entry.link, Rest::Whole);
            }
            break;
        };
        match walk.take(line) {
            Ok(entry) => {
                found.fault = found.fault.filter(|_| !entry.begins());
                found.last = entry.link;
            }
            Err(misfit) => {
                found.fault = found.fault.or(Some((at, misfit)));
                let Ok(entry) = read(line) else { continue };
                found.fault = found.fault.filter(|_| !entry.begins());
                walk = Walk { last: Some(entry.link.clone()) };
                found.last = entry.link;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn noon() -> WallMs {
        WallMs::parse("2026-11-24T12:00:00Z").unwrap()
    }

    fn pause(queue: &str) -> Act {
        Act {
            who: Who::Key { id: "7fK2pQx0".into(), name: Some("ops".to_owned()) },
            from: Some("192.0.2.1:1234".parse().unwrap()),
            object: Some(format!("/queues/{queue}")),
            before: Some(json!({"paused": false})),
            after: Some(json!({"paused": true})),
            request_id: Some("r-1".into()),
            ..Act::here(Who::Local, "POST /queues/{queue}/pause")
        }
    }

    /// A log of so many lines.
    fn log(count: usize) -> Vec<String> {
        let mut last = Link::none();
        let lines = (0..count).map(|n| {
            let (text, link) = line(&last, noon(), 0, &pause(&format!("q{n}")));
            last = link;
            text
        });
        lines.collect()
    }

    /// The number of the first line that does not fit, and why.
    fn misfit(lines: &[String]) -> Option<(usize, Misfit)> {
        let mut walk = Walk::default();
        let taken = lines.iter().map(|line| walk.take(line.trim_end().as_bytes()));
        taken.enumerate().find_map(|(at, taken)| taken.err().map(|misfit| (at + 1, misfit)))
    }

    #[test]
    fn a_line_says_who_did_what_from_where_with_what_result() {
        let (text, link) = line(&Link::none(), noon(), 3, &pause("mail"));
        let said: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            said,
            json!({
                "seq": 1, "at": "2026-11-24T12:00:00.000Z", "who": "7fK2pQx0", "name": "ops", "from": "192.0.2.1:1234",
                "operation": "POST /queues/{queue}/pause", "object": "/queues/mail", "before": {"paused": false},
                "after": {"paused": true}, "result": "ok", "request_id": "r-1", "unwritten": 3, "prev": NOTHING_BEFORE,
                "hash": link.hash,
            })
        );
        assert!(text.starts_with("{\"seq\":1,\"at\":") && text.ends_with("\"}\n") && text.lines().count() == 1);
        for (outcome, result) in [(Outcome::Refused("busy"), "refused"), (Outcome::Unknown("busy"), "unknown")] {
            let act = Act { outcome, ..Act::here(Who::Server, "x") };
            let said: Value = serde_json::from_str(&line(&link, noon(), 0, &act).0).unwrap();
            assert_eq!(
                (&said["who"], &said["result"], &said["code"]),
                (&json!("server"), &json!(result), &json!("busy"))
            );
            assert_eq!((&said["seq"], &said["prev"]), (&json!(2), &json!(link.hash)));
        }
    }

    #[test]
    fn an_edit_a_deletion_an_insertion_a_swap_and_a_cut_are_found_where_they_are() {
        let sound = log(9);
        assert_eq!(misfit(&sound), None);
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = sound.clone();
            change(&mut lines);
            misfit(&lines)
        };
        assert_eq!(with(&|lines| lines[4] = lines[4].replace("q4", "q5")), Some((5, Misfit::Altered)));
        assert_eq!(with(&|lines| drop(lines.remove(4))), Some((5, Misfit::Unlinked)));
        assert_eq!(with(&|lines| lines.insert(4, lines[1].clone())), Some((5, Misfit::Unlinked)));
        assert_eq!(with(&|lines| lines.swap(4, 5)), Some((5, Misfit::Unlinked)));
        assert_eq!(with(&|lines| lines[4].truncate(100)), Some((5, Misfit::NoLine)));
        assert_eq!(with(&|lines| lines[4].clear()), Some((5, Misfit::NoLine)));
        // Whoever changes a line and its hash has to change all that follow.
        let forged = line(
            &Link { seq: 4, hash: read(sound[3].trim_end().as_bytes()).unwrap().link.hash },
            noon(),
            0,
            &pause("x"),
        );
        assert_eq!(with(&|lines| lines[4].clone_from(&forged.0)), Some((6, Misfit::Unlinked)));
        // Every single byte counts.
        for at in 0..sound[4].len() - 1 {
            let found = with(&|lines| {
                let mut bytes = lines[4].clone().into_bytes();
                bytes[at] = b'0' + u8::from(bytes[at] == b'0');
                lines[4] = String::from_utf8(bytes).unwrap();
            });
            assert!(matches!(found, Some((5, Misfit::Altered | Misfit::NoLine))), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_sound_torn_or_broken_and_a_named_break_is_not_told_again() {
        let lines = log(4);
        let text = lines.concat();
        let last = read(lines[3].trim_end().as_bytes()).unwrap().link;
        let sound = Tail { last: last.clone(), rest: Rest::Nothing, fault: None };
        assert_eq!(inspect(text.as_bytes()), sound);
        assert_eq!(inspect(&text.as_bytes()[lines[0].len()..]), sound, "from the second line on");
        assert_eq!(inspect(b""), Tail { last: Link::none(), ..sound.clone() });
        let whole = Tail { rest: Rest::Whole, ..sound.clone() };
        assert_eq!(inspect(text.trim_end().as_bytes()), whole);
        let third = read(lines[2].trim_end().as_bytes()).unwrap().link;
        let torn = &text[..text.len() - 2];
        let cut = Tail { last: third, rest: Rest::Torn(lines[3].len() - 2), fault: None };
        assert_eq!(inspect(torn.as_bytes()), cut);
        let broken = text.replace("q1", "qx");
        let fault = Some((lines[0].len(), Misfit::Altered));
        assert_eq!(inspect(broken.as_bytes()), Tail { fault, ..sound.clone() });
        let (anew, link) = line(&last.cut(), noon(), 0, &Act::here(Who::Server, "audit_log_broken"));
        assert_eq!(link.seq, 5);
        assert_eq!(inspect((broken + &anew).as_bytes()), Tail { last: link, ..sound });
    }

    #[test]
    fn texts_and_values_are_bounded_at_their_limits_and_the_longest_line_is_a_line() {
        let said = |act: &Act| -> Value { serde_json::from_str(&line(&Link::none(), noon(), 0, act).0).unwrap() };
        for (chars, kept) in [(AUDIT_TEXT_CHARS_MAX, true), (AUDIT_TEXT_CHARS_MAX + 1, false)] {
            let object = "é".repeat(chars);
            let act = Act { object: Some(object.clone()), ..pause("q") };
            assert_eq!(said(&act)["object"] == object, kept);
            assert!(said(&act)["object"].as_str().unwrap().chars().count() <= AUDIT_TEXT_CHARS_MAX + 1);
        }
        // A text of JSON has two quotes around it.
        for (bytes, kept) in [(AUDIT_VALUE_BYTES_MAX - 2, true), (AUDIT_VALUE_BYTES_MAX - 1, false)] {
            let value = json!("x".repeat(bytes));
            assert_eq!(said(&Act { after: Some(value.clone()), ..pause("q") })["after"] == value, kept);
        }
        let text = "\u{1}".repeat(AUDIT_TEXT_CHARS_MAX * 2);
        let value = Some(json!("\"é\u{1}".repeat(AUDIT_VALUE_BYTES_MAX)));
        let act = Act {
            who: Who::Key { id: text.as_str().into(), name: Some(text.clone()) },
            operation: Cow::Owned(text.clone()),
            object: Some(text.clone()),
            before: value.clone(),
            after: value,
            request_id: Some(text.as_str().into()),
            ..pause("q")
        };
        let (longest, _) = line(&Link::none(), noon(), u64::MAX, &act);
        assert!(longest.len() <= AUDIT_LINE_BYTES_MAX, "{}", longest.len());
        assert!(read(longest.trim_end().as_bytes()).is_ok());
        // With its line feed a line has one byte more.
        for (len, is_line) in [(AUDIT_LINE_BYTES_MAX - 1, true), (AUDIT_LINE_BYTES_MAX, false)] {
            let fixed = "{\"seq\":1,\"at\":\"\",\"prev\":\"\",\"x\":\"\"}";
            let pad = len - fixed.len() - (tail_of_line(NOTHING_BEFORE).len() - 1);
            let text = fixed.replace("\"x\":\"", &format!("\"x\":\"{}", "x".repeat(pad)));
            let line = text[..text.len() - 1].to_owned() + &tail_of_line(&hex_sha256(text.as_bytes()));
            assert_eq!((line.len(), read(line.as_bytes()).is_ok()), (len, is_line));
        }
    }
}
