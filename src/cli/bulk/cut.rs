//! Cuts an input of lines into chunks, one request each: always at the same places, each with a key made of everything
//! up to its end. So a repeat of the same input sends the same chunks with the same keys, and the server tells which it
//! has. Nothing but the chunk at hand is held.

use std::io::{self, BufRead};

use bytes::Bytes;

use crate::queue::store::RunningDigest;
use crate::task::limits::{BULK_CHUNK_BYTES, BULK_CHUNK_TASKS, BULK_LINE_BYTES_MAX};

/// The tasks of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// A line each, with LF.
    pub(super) body: Bytes,
    /// The number of each task's line in the input, from 1.
    pub(super) places: Vec<u64>,
    /// The `Idempotency-Key`.
    pub(super) key: String,
    /// Bytes of the input up to the end of this chunk.
    pub(super) read: u64,
}

impl Chunk {
    /// Its lines, each with its number and without LF.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.places.iter().copied().zip(self.body.split(|byte| *byte == b'\n'))
    }

    /// The same without the lines for which `drop` holds, under the same key.
    pub(super) fn without(&self, drop: impl Fn(u64, &[u8]) -> bool) -> Self {
        let (mut body, mut places) = (Vec::with_capacity(self.body.len()), Vec::new());
        for (place, line) in self.lines().filter(|(place, line)| !drop(*place, line)) {
            places.push(place);
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        Self { body: body.into(), places, key: self.key.clone(), read: self.read }
    }

    /// The numbers of its first and last line.
    pub(super) fn span(&self) -> (u64, u64) {
        (self.places.first().copied().unwrap_or_default(), self.places.last().copied().unwrap_or_default())
    }
}

/// Why an input cannot be cut any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutError {
    /// It cannot be read.
    #[error("failed to read it: {0}")]
    Read(#[from] io::Error),
    /// No server would take this line.
    #[error("the line has more than {BULK_LINE_BYTES_MAX} bytes, which no server takes")]
    LineTooLong {
        /// Its number, from 1.
        line: u64,
    },
}

/// See the module.
pub(super) struct Cutter<R> {
    input: R,
    digest: RunningDigest,
    /// The number of the line that was read last.
    line: u64,
    read: u64,
    /// A line that was read and belongs to the next chunk.
    held: Option<Vec<u8>>,
    at_end: bool,
}

impl<R: BufRead> Cutter<R> {
    /// A cutter whose keys also depend on `salt`.
    pub(super) fn new(input: R, salt: &str) -> Self {
        let mut digest = RunningDigest::default();
        digest.update(&(salt.len() as u64).to_be_bytes());
        digest.update(salt.as_bytes());
        Self { input, digest, line: 0, read: 0, held: None, at_end: false }
    }

    /// The next chunk; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, CutError> {
        let (mut body, mut places) = (Vec::new(), Vec::new());
        while places.len() < BULK_CHUNK_TASKS {
            let Some(line) = self.next_line()? else { break };
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            let blank = text.trim_ascii().is_empty();
            if !blank && !body.is_empty() && body.len() + text.len() >= BULK_CHUNK_BYTES {
                self.held = Some(line);
                break;
            }
            self.digest.update(&line);
            self.digest.update(b"\n");
            if !blank {
                body.extend_from_slice(text);
                body.push(b'\n');
                places.push(self.line);
            }
        }
        let Some(last) = places.last() else { return Ok(None) };
        let key = format!("bulk-{:032x}-{last}", self.digest.clone().finish());
        Ok(Some(Chunk { body: body.into(), key, read: self.read, places }))
    }

    /// The next line without LF; its number is `self.line` then.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, CutError> {
        if let Some(line) = self.held.take() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        while !self.at_end {
            let given = match self.input.fill_buf() {
                Ok(given) => given,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let end = given.iter().position(|byte| *byte == b'\n');
            let part = given.get(..end.unwrap_or(given.len())).unwrap_or_default();
            if line.len() + part.len() > BULK_LINE_BYTES_MAX {
                return Err(CutError::LineTooLong { line: self.line + 1 });
            }
            line.extend_from_slice(part);
            self.at_end = given.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.read += used as u64;
            if end.is_some() {
                self.line += 1;
                return Ok(Some(line));
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn cut_with(input: &[u8], buffer: usize, salt: &str) -> Result<Vec<Chunk>, CutError> {
        let mut cutter = Cutter::new(BufReader::with_capacity(buffer, input), salt);
        let mut chunks = Vec::new();
        while let Some(chunk) = cutter.next()? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    fn cut(input: &[u8]) -> Vec<Chunk> {
        cut_with(input, 1 << 16, "").unwrap()
    }

    fn keys(chunks: &[Chunk]) -> Vec<&str> {
        chunks.iter().map(|chunk| &*chunk.key).collect()
    }

    fn tasks(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect()
    }

    #[test]
    fn blank_lines_and_ends_of_lines_are_no_tasks_and_count_as_lines() {
        let chunks = cut(b"\n{\"a\":1}\r\n \t\n\r\n{\"b\":2}");
        let [chunk] = &chunks[..] else { panic!("{chunks:?}") };
        assert_eq!((&chunk.body[..], &*chunk.places), (&b"{\"a\":1}\n{\"b\":2}\n"[..], &[2, 5][..]));
        assert_eq!(chunk.read, 22);
        assert!(cut(b"").is_empty() && cut(b"\n\n \r\n").is_empty());
    }

    #[test]
    fn chunks_end_after_so_many_tasks_and_before_too_many_bytes() {
        let sizes = |input: &[u8]| cut(input).iter().map(|chunk| chunk.places.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&tasks(BULK_CHUNK_TASKS)), [BULK_CHUNK_TASKS]);
        assert_eq!(sizes(&tasks(BULK_CHUNK_TASKS + 1)), [BULK_CHUNK_TASKS, 1]);
        let line = |bytes: usize| [vec![b'x'; bytes - 1], b"\n".to_vec()].concat();
        let half = BULK_CHUNK_BYTES / 2;
        assert_eq!(sizes(&[line(half), line(half)].concat()), [2], "exactly as many bytes as may be");
        assert_eq!(sizes(&[line(half), line(half + 1)].concat()), [1, 1]);
        assert_eq!(
            sizes(&[line(9), line(2 * BULK_CHUNK_BYTES), line(9)].concat()),
            [1, 1, 1],
            "a large one goes alone"
        );
    }

    #[test]
    fn a_line_may_be_as_long_as_any_server_takes() {
        let line = |bytes: usize| [b"7\n".to_vec(), vec![b'x'; bytes]].concat();
        assert_eq!(cut(&line(BULK_LINE_BYTES_MAX)).len(), 2);
        let refused = cut_with(&line(BULK_LINE_BYTES_MAX + 1), 1 << 16, "");
        assert!(matches!(refused, Err(CutError::LineTooLong { line: 2 })), "{refused:?}");
    }

    #[test]
    fn the_same_input_gives_the_same_keys_however_it_is_read() {
        let input = tasks(2 * BULK_CHUNK_TASKS + 5);
        let chunks = cut(&input);
        for buffer in [1, 7, 4_096] {
            assert_eq!(cut_with(&input, buffer, "").unwrap(), chunks);
        }
        assert!(chunks.windows(2).all(|pair| pair[0].key != pair[1].key && pair[0].read < pair[1].read));
    }

    #[test]
    fn a_change_changes_the_keys_from_there_on() {
        let input = tasks(3 * BULK_CHUNK_TASKS);
        let chunks = cut(&input);
        let before = keys(&chunks);
        let mut changed = input.clone();
        let middle = changed.len() / 2;
        changed[middle] = if changed[middle] == b'1' { b'2' } else { b'1' };
        let chunks = cut(&changed);
        let after = keys(&chunks);
        assert_eq!(before[0], after[0]);
        assert!(before[1] != after[1] && before[2] != after[2], "{after:?}");
        // The last chunk alone is the same content, in another place.
        let moved = cut(&[b"\n".as_slice(), &input].concat());
        assert!(keys(&moved).iter().all(|key| !before.contains(key)));
        let salted = cut_with(&input, 4_096, "again").unwrap();
        assert!(keys(&salted).iter().all(|key| !before.contains(key)));
        assert_eq!(
            salted.iter().map(|chunk| &chunk.body).collect::<Vec<_>>(),
            cut(&input).iter().map(|chunk| &chunk.body).collect::<Vec<_>>()
        );
    }

    #[test]
    fn lines_are_left_out_under_the_same_key() {
        let chunks = cut(b"a\n\nb\nc\n");
        let less = chunks[0].without(|place, line| place == 3 || line == b"c");
        assert_eq!((&less.body[..], &*less.places, &less.key), (&b"a\n"[..], &[1][..], &chunks[0].key));
        assert_eq!(chunks[0].span(), (1, 4));
    }
}
