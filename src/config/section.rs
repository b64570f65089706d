//! A view of one map of the tree, from which values are read with their path and origin at hand.

use super::fault::{ConfigFaults, Origin, child, quote};
use super::raw::{Entry, Kind, Map, Node, Scalar};

/// One map of the tree; empty where nothing, or something else, was given (which [`super::shape`] has noted).
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) origin: Origin,
    map: Option<&'a Map>,
}

impl<'a> Section<'a> {
    /// The whole tree.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { path: String::new(), origin: node.origin.clone(), map: node.as_map() }
    }

    /// The same for a part of a tree that stands by itself, under the path that it would have in the whole.
    pub(super) fn part(node: &'a Node, path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::root(node) }
    }

    /// The map under `key`.
    pub(super) fn at(&self, key: &str) -> Self {
        let entry = self.entry(key);
        Self {
            path: child(&self.path, key),
            origin: entry.map_or_else(|| self.origin.clone(), |entry| entry.origin.clone()),
            map: entry.and_then(|entry| entry.value.as_map()),
        }
    }

    /// Where the value under `key` was given; the section's own place when it was not.
    pub(super) fn origin_of(&self, key: &str) -> &Origin {
        self.entry(key).map_or(&self.origin, |entry| &entry.value.origin)
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.into_iter().flat_map(|map| map.keys().map(String::as_str))
    }

    /// Whether anything was given under `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The value under `key`, of which faults do not say what was given.
    pub(super) fn hidden<T>(
        &self,
        key: &str,
        read: impl Fn(&Scalar) -> Result<T, String>,
        faults: &mut ConfigFaults,
    ) -> Option<T> {
        self.value(key, |scalar| read_hidden(scalar, &read), faults)
    }

    /// The value under `key` as `read` reads it; `default` where none was given, or a faulty one.
    pub(super) fn get<T>(
        &self,
        key: &str,
        default: T,
        read: impl Fn(&Scalar) -> Result<T, String>,
        faults: &mut ConfigFaults,
    ) -> T {
        self.value(key, |scalar| read_scalar(scalar, &read), faults).unwrap_or(default)
    }

    fn value<T>(&self, key: &str, read: impl Fn(&Scalar) -> Result<T, String>, faults: &mut ConfigFaults) -> Option<T> {
        let Some(Node { origin, kind: Kind::Scalar(scalar) }) = self.entry(key).map(|entry| &entry.value) else {
            return None;
        };
        read(scalar).map_err(|detail| faults.push(origin, child(&self.path, key), detail)).ok()
    }

    /// The list under `key`, each item as `read` reads it; faulty ones are left out.
    pub(super) fn list<T>(
        &self,
        key: &str,
        items_max: usize,
        read: impl Fn(&Scalar) -> Result<T, String>,
        faults: &mut ConfigFaults,
    ) -> Vec<T> {
        self.items(key, items_max, |scalar| read_scalar(scalar, &read), faults)
    }

    /// The list under `key`, of whose items faults do not say what was given.
    pub(super) fn hidden_list<T>(
        &self,
        key: &str,
        items_max: usize,
        read: impl Fn(&Scalar) -> Result<T, String>,
        faults: &mut ConfigFaults,
    ) -> Vec<T> {
        self.items(key, items_max, |scalar| read_hidden(scalar, &read), faults)
    }

    fn items<T>(
        &self,
        key: &str,
        items_max: usize,
        read: impl Fn(&Scalar) -> Result<T, String>,
        faults: &mut ConfigFaults,
    ) -> Vec<T> {
        let Some(Node { origin, kind: Kind::List(items) }) = self.entry(key).map(|entry| &entry.value) else {
            return Vec::new();
        };
        if items.len() > items_max {
            let detail = format!("got {} entries, expected at most {items_max}", items.len());
            faults.push(origin, child(&self.path, key), detail);
            return Vec::new();
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Kind::Scalar(scalar) = &item.kind else { continue };
            match read(scalar) {
                Ok(value) => values.push(value),
                Err(detail) => faults.push(&item.origin, format!("{}[{index}]", child(&self.path, key)), detail),
            }
        }
        values
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.map.and_then(|map| map.get(key))
    }
}

/// The value, or what is wrong with it.
fn read_scalar<T>(scalar: &Scalar, read: &impl Fn(&Scalar) -> Result<T, String>) -> Result<T, String> {
    read(scalar).map_err(|expected| format!("got {}, expected {expected}", quote(&scalar.text, scalar.plain)))
}

/// The value, or what was expected: what was given may be a secret.
fn read_hidden<T>(scalar: &Scalar, read: &impl Fn(&Scalar) -> Result<T, String>) -> Result<T, String> {
    read(scalar).map_err(|expected| format!("got something else, expected {expected}"))
}
