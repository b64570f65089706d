//! What tasks are read from: lines, one JSON array, or one JSON task over several lines, told apart by content.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::cli::exit::{Exit, Failed};
use crate::task::limits::{BATCH_BYTES_MAX, BULK_LINE_BYTES_MAX, LINES_PIECE_BYTES};

/// An input that has been opened, as lines of one task each.
pub(super) struct Source {
    /// The lines.
    pub(super) lines: Box<dyn BufRead + Send>,
    /// How it is called in messages.
    pub(super) name: String,
    /// What a line of it is.
    pub(super) form: Form,
    /// Its bytes, where that is known.
    pub(super) bytes: Option<u64>,
    /// Device and inode, if it is a file.
    pub(super) file: Option<(u64, u64)>,
}

/// What an input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A task a line.
    Lines,
    /// One array; a line of [`Source::lines`] is an element.
    Array,
    /// One task.
    One,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        if path == Path::new("-") {
            return Self::of(Box::new(io::stdin()), "standard input".to_owned(), None);
        }
        let name = path.display().to_string();
        let unreadable = |error: io::Error| Failed::told(Exit::Usage, format!("{name}: failed to read it: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(Failed::Usage(format!("{name}: this is a directory, not a file")));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        let source = Self::of(Box::new(file), name, bytes)?;
        Ok(Self { file: Some((metadata.dev(), metadata.ino())), ..source })
    }

    /// Looks at how the input begins. Only an array or a task over several lines is read whole.
    fn of(input: Box<dyn Read + Send>, name: String, bytes: Option<u64>) -> Result<Self, Failed> {
        let fail = |error: io::Error| Failed::told(Exit::Failure, format!("{name}: failed to read it: {error}"));
        let mut input = BufReader::with_capacity(LINES_PIECE_BYTES, input);
        let mut head = Vec::new();
        let first = first_byte(&mut input, &mut head).map_err(fail)?;
        let mut form = Form::Lines;
        if first == Some(b'[') {
            read_up_to(&mut input, &mut head, BATCH_BYTES_MAX + 1).map_err(fail)?;
            head = elements(&head).map_err(|why| Failed::Usage(format!("{name}: {why}")))?;
            form = Form::Array;
        } else if first == Some(b'{') && begins_an_object_over_lines(&mut input, &mut head).map_err(fail)? {
            read_up_to(&mut input, &mut head, BULK_LINE_BYTES_MAX + 1).map_err(fail)?;
            if head.len() <= BULK_LINE_BYTES_MAX && serde_json::from_slice::<IgnoredAny>(&head).is_ok() {
                head = on_one_line(&head);
                form = Form::One;
            }
        }
        let bytes = if form == Form::Lines { bytes } else { Some(head.len() as u64) };
        let lines: Box<dyn BufRead + Send> =
            if form == Form::Lines { Box::new(Cursor::new(head).chain(input)) } else { Box::new(Cursor::new(head)) };
        Ok(Self { lines, name, form, bytes, file: None })
    }

    /// Whether a person is expected to type.
    pub(super) fn is_typed(path: &Path) -> bool {
        path == Path::new("-") && io::stdin().is_terminal()
    }
}

impl Form {
    /// Where a line is, as compilers say it.
    pub(super) fn place(self, name: &str, line: u64) -> String {
        match self {
            Self::Lines => format!("{name}:{line}"),
            Self::Array => format!("{name}: element {line}"),
            Self::One => name.to_owned(),
        }
    }
}

/// A byte order mark, which some editors put before UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads into `head` until there is something to see; the first byte that is no blank.
fn first_byte(input: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<Option<u8>> {
    loop {
        let before = head.len();
        let ready = input.fill_buf()?.len().clamp(1, LINES_PIECE_BYTES);
        let more = read_up_to(input, head, before + ready)?;
        if head.starts_with(MARK) {
            head.drain(..MARK.len());
        }
        let first = head.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some() || !more || head.len() > LINES_PIECE_BYTES {
            return Ok(first);
        }
    }
}

/// Reads on until `head` has `size` bytes; false when the input ended before.
fn read_up_to(input: &mut impl BufRead, head: &mut Vec<u8>, size: usize) -> io::Result<bool> {
    let wanted = size.saturating_sub(head.len());
    let got = input.by_ref().take(wanted as u64).read_to_end(head)?;
    Ok(got >= wanted)
}

/// Whether the first line holds the beginning of a JSON value and not the whole of one.
fn begins_an_object_over_lines(input: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<bool> {
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    let line_end = |head: &[u8]| head.iter().skip(start).position(|byte| *byte == b'\n').map(|at| start + at);
    if line_end(head).is_none() {
        input.by_ref().take(BULK_LINE_BYTES_MAX as u64).read_until(b'\n', head)?;
    }
    let line = head.get(start..line_end(head).unwrap_or(head.len())).unwrap_or_default();
    Ok(serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof()))
}

/// The elements of an array, a line each.
fn elements(text: &[u8]) -> Result<Vec<u8>, String> {
    if text.len() > BATCH_BYTES_MAX {
        return Err(format!(
            "this is a JSON array of more than {BATCH_BYTES_MAX} bytes: make it lines, one task each (jq -c '.[]')"
        ));
    }
    let items: Vec<&RawValue> =
        serde_json::from_slice(text).map_err(|error| format!("this begins like a JSON array, and is none: {error}"))?;
    let mut lines = Vec::with_capacity(text.len());
    for item in items {
        lines.extend(on_one_line(item.get().as_bytes()));
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Valid JSON has ends of lines only where a blank would do.
fn on_one_line(json: &[u8]) -> Vec<u8> {
    json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl Into<Vec<u8>>) -> Result<(Form, String), String> {
        let input = Cursor::new(text.into());
        let mut source = Source::of(Box::new(input), "f".to_owned(), None).map_err(|error| error.to_string())?;
        let mut all = String::new();
        source.lines.read_to_string(&mut all).unwrap();
        Ok((source.form, all))
    }

    #[test]
    fn forms_are_told_apart_by_how_they_begin() {
        for lines in
            ["", "\n \n", "{\"a\":1}", "{\"a\":1}\n{\"b\":\n", "\r\n{}\n{}\n", "7\n", "{]\n}", "{\"a\":\nnonsense"]
        {
            assert_eq!(read(lines), Ok((Form::Lines, lines.to_owned())));
        }
        assert_eq!(read("\u{feff}{\"a\":1}\n"), Ok((Form::Lines, "{\"a\":1}\n".to_owned())));
        let one = "\n{\n  \"a\": [1,\r\n 2]}\n";
        assert_eq!(read(one), Ok((Form::One, " {   \"a\": [1,   2]} ".to_owned())));
        let array = " [\n{\"a\":\n1},\n {\"b\":\"\\n\"}, 7]\n";
        assert_eq!(read(array), Ok((Form::Array, "{\"a\": 1}\n{\"b\":\"\\n\"}\n7\n".to_owned())));
        assert_eq!(read("[]"), Ok((Form::Array, String::new())));
    }

    #[test]
    fn what_is_no_array_after_all_is_refused_with_its_place() {
        let why = read("[{\"a\":1},\n]").unwrap_err();
        assert!(why.starts_with("f: this begins like a JSON array, and is none: ") && why.contains("line 2"), "{why}");
    }

    #[test]
    fn an_array_is_as_large_as_a_batch_may_be() {
        let array = |bytes: usize| format!("[{}7]", " ".repeat(bytes - 3));
        assert_eq!(read(array(BATCH_BYTES_MAX)), Ok((Form::Array, "7\n".to_owned())));
        assert!(read(array(BATCH_BYTES_MAX + 1)).unwrap_err().contains("jq -c"));
    }

    #[test]
    fn many_blanks_at_the_beginning_are_not_read_whole() {
        let blank = "\n".repeat(4 * LINES_PIECE_BYTES) + "[7]";
        assert_eq!(read(blank.clone()), Ok((Form::Lines, blank)));
        let long = format!("{{\"a\":\"{}\"}}\n{{}}\n", "x".repeat(3 * LINES_PIECE_BYTES));
        assert_eq!(read(long.clone()), Ok((Form::Lines, long)));
    }
}
