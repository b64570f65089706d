//! JSON to words, piece by piece: objects whose fields keep their text, and readers for the kinds of values.
//!
//! Nothing here stops at the first fault: a caller learns of all of them at once.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::task::limits::{FAULTS_REPORTED_MAX, LABEL_VALUE_LEN_MAX, LABELS_MAX};
use crate::task::name::{LabelName, NameError};
use crate::task::{Fault, Span, WallMs};

use super::error::{Code, Problem};

/// The faults found so far, and what kind they are.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: Vec<Fault>,
    /// The code of all of them, as long as they agree.
    code: Option<Code>,
}

impl Findings {
    /// A fault of this kind. Beyond [`FAULTS_REPORTED_MAX`] they are dropped.
    pub(super) fn add(&mut self, code: Code, fault: Fault) {
        let agreed = self.code.is_none_or(|other| other == code);
        self.code = Some(if agreed { code } else { Code::InvalidTask });
        if !self.is_full() {
            self.faults.push(fault);
        }
    }

    /// A value that is not what it should be.
    pub(super) fn invalid(&mut self, at: impl Into<String>, detail: impl Into<String>) {
        self.add(Code::InvalidTask, Fault::new(at, detail));
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.code.is_none()
    }

    /// Whether further faults would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.faults.len() >= FAULTS_REPORTED_MAX
    }

    /// `value`, unless there were faults.
    pub(super) fn or_problem<T>(self, value: Option<T>) -> Result<T, Problem> {
        match (value, self.code) {
            (Some(value), None) => Ok(value),
            (_, code) => Err(Problem::faults(code.unwrap_or(Code::InvalidTask), self.faults)),
        }
    }

    /// As [`Findings::or_problem`], for something else than a task: its code in place of `invalid_task`.
    pub(super) fn or_problem_as<T>(self, code: Code, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            Some(_) | None => Err(Problem::faults(code, self.faults)),
        }
    }
}

/// The fields of a JSON object in the order given, repeated ones included, each value as its text.
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            fields.push((key, value));
        }
        Ok(Fields(fields))
    }
}

/// A key, borrowed unless it was written with escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A JSON object at a place in the body.
pub(super) struct Object<'a> {
    at: String,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads an object whose fields are all among `known`. Unknown and repeated fields are found; anything but an
    /// object is, too, and gives nothing.
    pub(super) fn read(text: &'a str, at: &str, known: &[&str], findings: &mut Findings) -> Option<Self> {
        let object = Self::read_open(text, at, findings)?;
        for (name, _) in object.fields.iter().filter(|(name, _)| !known.contains(&&**name)) {
            let hint = did_you_mean(name, known.iter().copied());
            findings.invalid(object.pointer(name), format!("there is no such field{hint}"));
        }
        Some(object)
    }

    /// Reads an object of any fields, none of them twice.
    pub(super) fn read_open(text: &'a str, at: &str, findings: &mut Findings) -> Option<Self> {
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'a>>(text) else {
            findings.invalid(at, expected("an object", text));
            return None;
        };
        let object = Self { at: at.to_owned(), fields };
        let mut seen = std::collections::HashSet::with_capacity(object.fields.len());
        for (name, _) in object.fields.iter().filter(|(name, _)| !seen.insert(&**name)) {
            findings.invalid(object.pointer(name), "given more than once");
        }
        Some(object)
    }

    /// The pointer to one of its fields.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, clip(name).replace('~', "~0").replace('/', "~1"))
    }

    /// All fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(name, value)| (&**name, *value))
    }

    /// The text of a field, whatever it is.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(given, _)| *given == name).map(|(_, value)| value.get())
    }

    /// The text of a field; `null` counts as not given.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|text| *text != "null")
    }

    /// A field, if it is given and `read` takes it; otherwise its fault is found.
    pub(super) fn get<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        read: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.given(name)?) {
            Ok(value) => Some(value),
            Err(detail) => {
                findings.invalid(self.pointer(name), detail);
                None
            }
        }
    }
}

/// "expected a string, found a number".
pub(super) fn expected(what: &str, text: &str) -> String {
    let found = match text.trim_start().bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number",
        None => "nothing",
    };
    format!("expected {what}, found {found}")
}

/// Reads a string.
pub(super) fn string(text: &str) -> Result<Cow<'_, str>, String> {
    serde_json::from_str::<Key<'_>>(text).map(|key| key.0).map_err(|_kind| expected("a string", text))
}

/// Reads a name of some kind.
pub(super) fn name<T>(parse: impl FnOnce(&str) -> Result<T, NameError>) -> impl FnOnce(&str) -> Result<T, String> {
    |text| parse(&string(text)?).map_err(|error| error.to_string())
}

/// Reads `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    serde_json::from_str(text).map_err(|_kind| expected("true or false", text))
}

/// Reads a whole number from `min` to `max`, however it is written: `5`, `5.0` and `5e0` are the same number.
pub(super) fn integer(min: u32, max: u32) -> impl FnOnce(&str) -> Result<u32, String> {
    move |text| {
        let wanted = || format!("a whole number from {min} to {max}");
        let number = serde_json::from_str::<serde_json::Number>(text).map_err(|_kind| expected(&wanted(), text))?;
        let fits = whole(&number).filter(|number| (min..=max).contains(number));
        fits.ok_or_else(|| format!("expected {}, found {}", wanted(), clip(text)))
    }
}

/// A number that is whole and fits, as JSON Schema understands `integer`.
fn whole(number: &serde_json::Number) -> Option<u32> {
    let written_otherwise = || {
        let value =
            number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value))?;
        // Whole and in range (or -0): its shortest text has no point.
        format!("{}", value.abs()).parse().ok()
    };
    number.as_u64().map_or_else(written_otherwise, |number| u32::try_from(number).ok())
}

/// Reads a fraction from 0 to 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let number = serde_json::from_str::<f64>(text).map_err(|_kind| expected("a number from 0 to 1", text))?;
    let fits = Some(number).filter(|number| (0.0..=1.0).contains(number));
    fits.ok_or_else(|| format!("expected a number from 0 to 1, found {}", clip(text)))
}

/// Reads a duration from `min` to `max`: text (`"1h30m"`) or a number of seconds.
pub(super) fn span(min: Span, max: Span) -> impl FnOnce(&str) -> Result<Span, String> {
    move |text| {
        let parsed = if text.starts_with('"') {
            Span::parse(&string(text)?)
        } else {
            let wanted = "a duration such as \"1h30m\" or a number of seconds";
            let secs = serde_json::from_str::<f64>(text).map_err(|_kind| expected(wanted, text))?;
            Span::from_secs_f64(secs)
        };
        let span = parsed.map_err(|error| error.to_string())?;
        if (min..=max).contains(&span) { Ok(span) } else { Err(format!("has to be from {min} to {max}, not {span}")) }
    }
}

/// Reads an RFC 3339 time, at most `max` from now.
pub(super) fn time_ahead(now: WallMs, max: Span) -> impl FnOnce(&str) -> Result<WallMs, String> {
    move |text| {
        let time = WallMs::parse(&string(text)?).map_err(|error| error.to_string())?;
        let latest = now.plus(max.to_duration());
        if time > latest { Err(format!("has to be {latest} or earlier, not {time}")) } else { Ok(time) }
    }
}

/// Reads the field `labels`: at most [`LABELS_MAX`] texts by name; sorted by name.
pub(super) fn labels(of: &Object<'_>, findings: &mut Findings) -> Vec<(LabelName, String)> {
    let Some(text) = of.given("labels") else { return Vec::new() };
    let Some(object) = Object::read_open(text, &of.pointer("labels"), findings) else { return Vec::new() };
    let count = object.fields().count();
    if count > LABELS_MAX {
        findings.invalid(of.pointer("labels"), format!("at most {LABELS_MAX} labels, not {count}"));
        return Vec::new();
    }
    let mut labels = Vec::with_capacity(count);
    for (key, value) in object.fields() {
        match label(key, value.get()) {
            Ok(label) => labels.push(label),
            Err(detail) => findings.invalid(object.pointer(key), detail),
        }
    }
    labels.sort();
    labels
}

fn label(key: &str, value: &str) -> Result<(LabelName, String), String> {
    let key = LabelName::parse(key).map_err(|error| format!("the label's name: {error}"))?;
    let value = string(value)?;
    let len = value.chars().count();
    if len > LABEL_VALUE_LEN_MAX {
        return Err(format!("a label has at most {LABEL_VALUE_LEN_MAX} characters, this one has {len}"));
    }
    Ok((key, value.into_owned()))
}

/// Quotes what was given, but never pages of it.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// "; did you mean `x`?", when one of the known words is near.
pub(super) fn did_you_mean<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> String {
    let given = clip(given);
    let near = known
        .map(|word| (strsim::osa_distance(&given, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min();
    near.map(|(_, word)| format!("; did you mean `{word}`?")).unwrap_or_default()
}
