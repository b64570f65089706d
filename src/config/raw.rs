//! YAML text to a tree that remembers where everything stood; nothing is interpreted yet.
//!
//! `serde_yaml` gives no line to a value and stops at the first fault, but a reader wants every fault with its line. So
//! the tree is built from the events of `saphyr-parser` (pure Rust, no `unsafe`, YAML 1.2), and that one parser alone
//! decides what a file, or a list or map in an environment variable, means. `serde_yaml` writes the scalars of
//! `config show` (see [`super::show`]).
//!
//! A file that is hostile or broken costs little: its size and nesting are bounded, and anchors, aliases and tags are
//! refused rather than expanded.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::fault::{ConfigFaults, Origin, child};
use crate::task::limits::CONFIG_DEPTH_MAX;

/// A part of the configuration, and where it stood.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) kind: Kind,
}

/// What a part is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
}

/// Key to value; a repeated key is a fault, and its first value is kept.
pub(super) type Map = BTreeMap<String, Entry>;

/// A value under a key.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where the key stood.
    pub(super) origin: Origin,
    pub(super) value: Node,
}

/// A scalar as it was written; what it means is decided by the key it stands under.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes, so that it may be a number, a word or null.
    pub(super) plain: bool,
}

impl Scalar {
    /// A null as YAML 1.2 writes it; an empty value is one.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node {
    /// A scalar that was given whole, by a variable or a flag.
    pub(super) fn scalar(origin: Origin, text: &str) -> Self {
        Self { origin, kind: Kind::Scalar(Scalar { text: text.to_owned(), plain: true }) }
    }

    /// The map, if it is one.
    pub(super) fn as_map(&self) -> Option<&Map> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            Kind::Scalar(_) | Kind::List(_) => None,
        }
    }

    /// What it is, for the words "got …".
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Scalar(scalar) => super::fault::quote(&scalar.text, scalar.plain),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}

/// Reads one document.
///
/// `origin` says where a line (counted from 1) is. `Ok(None)` is an empty text. `Err`: the text could not be read to
/// its end, so what else it holds is not known; the reason is among the faults.
pub(super) fn parse(
    text: &str,
    path: &str,
    origin: &dyn Fn(usize) -> Origin,
    faults: &mut ConfigFaults,
) -> Result<Option<Node>, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { path, frames: Vec::new(), root: None, documents: 0, faults };
    // The parser takes a NUL for the end of the text; what follows would be ignored without a word.
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    if let Some((at, found)) = text.char_indices().find(|(_, c)| control(*c)) {
        let line = text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
        let detail = format!("character {found:?} may not stand in YAML; is this a text file in UTF-8?");
        builder.faults.push(&origin(line), path, detail);
        return Err(Unreadable);
    }
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, origin(span.start.line()))?,
            Err(error) => {
                let detail = format!("no valid YAML at column {}: {}", error.marker().col() + 1, error.info());
                builder.faults.push(&origin(error.marker().line()), path, detail);
                return Err(Unreadable);
            }
        }
    }
    Ok(builder.root)
}

/// The text could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A list or map whose end has not been seen.
enum Frame {
    List { origin: Origin, items: Vec<Node> },
    Map { origin: Origin, map: Map, key: Option<(String, Origin)> },
}

struct Builder<'a> {
    path: &'a str,
    frames: Vec<Frame>,
    root: Option<Node>,
    documents: usize,
    faults: &'a mut ConfigFaults,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, origin: Origin) -> Result<(), Unreadable> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_node(&origin, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                self.scalar(text.into_owned(), plain, origin);
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain_node(&origin, anchor, tag.is_some());
                self.open(Frame::List { origin: origin.clone(), items: Vec::new() }, &origin)
            }
            Event::MappingStart(anchor, tag) => {
                self.plain_node(&origin, anchor, tag.is_some());
                self.open(Frame::Map { origin: origin.clone(), map: Map::new(), key: None }, &origin)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = match self.frames.pop() {
                    Some(Frame::List { origin, items }) => Node { origin, kind: Kind::List(items) },
                    Some(Frame::Map { origin, map, .. }) => Node { origin, kind: Kind::Map(map) },
                    None => return Ok(()),
                };
                self.add(closed);
                Ok(())
            }
            Event::Alias(_) => {
                self.fault(&origin, "aliases (`*name`) are not read; write the value out");
                Err(Unreadable)
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fault(&origin, "a second document begins here (`---`); everything belongs in one");
                    return Err(Unreadable);
                }
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// Anchors and tags are faults, but the value under them is still read.
    fn plain_node(&mut self, origin: &Origin, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.fault(origin, "anchors (`&name`) are not read; write values out, or use `queue_defaults`");
        }
        if tagged {
            self.fault(origin, "tags (`!name`) are not read; quote a value that is meant as text");
        }
    }

    fn open(&mut self, frame: Frame, origin: &Origin) -> Result<(), Unreadable> {
        if let Some(Frame::Map { key: None, .. }) = self.frames.last() {
            self.fault(origin, "a key must be a word, not a list or a map");
            return Err(Unreadable);
        }
        if self.frames.len() >= CONFIG_DEPTH_MAX {
            self.fault(origin, format!("nested deeper than {CONFIG_DEPTH_MAX} levels"));
            return Err(Unreadable);
        }
        self.frames.push(frame);
        Ok(())
    }

    fn scalar(&mut self, text: String, plain: bool, origin: Origin) {
        match self.frames.last_mut() {
            Some(Frame::Map { key: key @ None, .. }) => *key = Some((text, origin)),
            Some(Frame::Map { key: Some(_), .. } | Frame::List { .. }) | None => {
                self.add(Node { origin, kind: Kind::Scalar(Scalar { text, plain }) });
            }
        }
    }

    fn add(&mut self, value: Node) {
        match self.frames.last_mut() {
            None => self.root = Some(value),
            Some(Frame::List { items, .. }) => items.push(value),
            Some(Frame::Map { map, key, .. }) => {
                let Some((key, origin)) = key.take() else { return };
                if let Some(first) = map.get(&key) {
                    let detail = format!("given twice, the first time at {}; remove one", first.origin);
                    let path = child(&self.here(), &key);
                    self.faults.push(&origin, path, detail);
                } else {
                    map.insert(key, Entry { origin, value });
                }
            }
        }
    }

    fn fault(&mut self, origin: &Origin, detail: impl Into<String>) {
        let path = self.here();
        self.faults.push(origin, path, detail);
    }

    /// The path to what is being read.
    fn here(&self) -> String {
        let mut path = self.path.to_owned();
        for frame in &self.frames {
            match frame {
                Frame::List { items, .. } => path = format!("{path}[{}]", items.len()),
                Frame::Map { key: Some((key, _)), .. } => path = child(&path, key),
                Frame::Map { key: None, .. } => {}
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Result<Option<Node>, Unreadable>, Vec<String>) {
        let mut faults = ConfigFaults::default();
        let origin = |line| Origin::File { file: "f".into(), line };
        let node = parse(text, "", &origin, &mut faults);
        (node, faults.iter().map(ToString::to_string).collect())
    }

    fn faults(text: &str) -> Vec<String> {
        read(text).1
    }

    fn outline(node: &Node) -> String {
        match &node.kind {
            Kind::Scalar(scalar) => format!("{}@{}", node.describe(), scalar.plain),
            Kind::List(items) => format!("[{}]", items.iter().map(outline).collect::<Vec<_>>().join(" ")),
            Kind::Map(map) => {
                let line = |entry: &Entry| entry.origin.to_string();
                let each =
                    |(key, entry): (&String, &Entry)| format!("{key}({})={}", line(entry), outline(&entry.value));
                format!("{{{}}}", map.iter().map(each).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn a_tree_keeps_lines_and_how_scalars_were_written() {
        let (node, faults) = read("\u{feff}# hi\na: 1\nb:\n  - x\n  - \"1\"\nc: {d: }\n");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(
            outline(&node.unwrap().unwrap()),
            "{a(f:2)=`1`@true b(f:3)=[`x`@true the text \"1\"@false] c(f:6)={d(f:6)=nothing@true}}"
        );
    }

    #[test]
    fn an_empty_text_is_nothing() {
        for text in ["", "\n", "# only a comment\n"] {
            assert!(matches!(read(text), (Ok(None), faults) if faults.is_empty()), "{text:?}");
        }
        assert!(matches!(read("---\n"), (Ok(Some(_)), faults) if faults.is_empty()));
    }

    #[test]
    fn what_is_not_read_is_named_with_its_line() {
        assert_eq!(faults("a: 1\nb: 2\na: 3\n"), ["f:3: a: given twice, the first time at f:1; remove one"]);
        assert_eq!(
            faults("a: &x 1\nb: !!str 2\n"),
            [
                "f:1: a: anchors (`&name`) are not read; write values out, or use `queue_defaults`",
                "f:2: b: tags (`!name`) are not read; quote a value that is meant as text",
            ]
        );
        assert_eq!(
            faults("a: &x 1\nb: *x\n").last().unwrap(),
            "f:2: b: aliases (`*name`) are not read; write the value out"
        );
        assert_eq!(
            faults("a: 1\n---\nb: 1\n"),
            ["f:2: a second document begins here (`---`); everything belongs in one"]
        );
        assert_eq!(faults("? [a]\n: 1\n"), ["f:1: a key must be a word, not a list or a map"]);
        assert_eq!(
            faults("a: 1\nb: \0x\n"),
            ["f:2: character '\\0' may not stand in YAML; is this a text file in UTF-8?"]
        );
        assert!(faults("a: [1,\nb: 2\n").first().unwrap().starts_with("f:2: no valid YAML at column 1: "));
    }

    #[test]
    fn depth_one_below_and_one_above() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(faults(&deep(CONFIG_DEPTH_MAX)).is_empty());
        assert!(faults(&deep(CONFIG_DEPTH_MAX + 1)).first().unwrap().ends_with("nested deeper than 16 levels"));
    }

    #[test]
    fn a_megabyte_of_malice_ends() {
        let n = 1 << 20;
        for text in
            ["[", "{", "- ", "? ", "&a ", "[\n", "a: ", "\"", "'", "!", "%a\n", "--- ", "*a ", "[{", "a,", "{---"]
        {
            let _result = read(&text.repeat(n / text.len()));
        }
        let keys = (0..n / 8).map(|i| format!("{i}: v\n")).collect::<Vec<_>>().concat();
        assert!(faults(&keys).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[a-c:\\-\\[\\]{}&*!|>%@`'\"#,? \n\t]{0,60}") {
            let _result = read(&text);
        }
    }
}
