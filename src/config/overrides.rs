//! What lies over the file: environment variables, then flags. Both are laid into the tree before it is read.
//!
//! `SENDOFF_DATA_DIR` is `data_dir`, `SENDOFF_QUEUES__MAIL__WEIGHT` is `queues.mail.weight`. A single value is taken as
//! it stands; where the key holds a list or a map, the variable is read as YAML and replaces the whole of it.

use super::fault::{ConfigFaults, Origin, child};
use super::raw::{self, Entry, Kind, Map, Node};
use super::shape::{self, ROOT, Shape};

/// What every variable of ours begins with.
pub(super) const PREFIX: &str = "SENDOFF_";
/// Read by the command line's client, not by the server.
const OF_THE_CLIENT: [&str; 3] = ["SENDOFF_URL", "SENDOFF_KEY", "SENDOFF_CA"];

/// Lays every `SENDOFF_` variable into `root`; other variables are none of our business.
pub(super) fn environment(root: &mut Node, variables: &[(String, String)], faults: &mut ConfigFaults) {
    let mut ours: Vec<&(String, String)> =
        variables.iter().filter(|(name, value)| name.starts_with(PREFIX) && !is_anothers(name, value)).collect();
    // `SENDOFF_QUEUES` replaces all queues; `SENDOFF_QUEUES__MAIL__WEIGHT` then changes one of them.
    ours.sort_by_key(|(name, _)| (name.matches("__").count(), name.as_str()));
    for (name, value) in ours {
        variable(root, name, value, faults);
    }
}

/// Lays flags into `root`: name with dashes, key, value.
pub(super) fn flags(root: &mut Node, flags: &[(&'static str, &'static str, Option<&String>)]) {
    for (name, path, value) in flags {
        if let Some(value) = value {
            let segments: Vec<&str> = path.split('.').collect();
            place(root, &segments, Node::scalar(Origin::Flag(name), value));
        }
    }
}

/// Variables of the client, and those that Kubernetes sets in every container beside a Service named `sendoff`.
fn is_anothers(name: &str, value: &str) -> bool {
    let kubernetes_port = || value.starts_with("tcp://") || value.starts_with("udp://") || value.starts_with("sctp://");
    let numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    OF_THE_CLIENT.contains(&name)
        || name == "SENDOFF_SERVICE_HOST"
        || name == "SENDOFF_SERVICE_PORT"
        || name.starts_with("SENDOFF_SERVICE_PORT_")
        || (name == "SENDOFF_PORT" && kubernetes_port())
        || name.strip_prefix("SENDOFF_PORT_").is_some_and(numbered)
}

fn variable(root: &mut Node, name: &str, value: &str, faults: &mut ConfigFaults) {
    let origin = Origin::Environment(name.into());
    let lower = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    let segments: Vec<&str> = lower.split("__").collect();
    let path = segments.iter().fold(String::new(), |path, segment| child(&path, segment));
    let Some(shape) = find(&segments) else {
        faults.push(&origin, "", unknown(&segments));
        return;
    };
    if variable_name(&segments) != name {
        faults.push(&origin, path, format!("names are written in capitals: {}", variable_name(&segments)));
        return;
    }
    if value.contains('\u{fffd}') {
        faults.push(&origin, path, "the value is not valid UTF-8");
        return;
    }
    let node = match shape {
        Shape::Value => Node::scalar(origin, value),
        Shape::List | Shape::Section(_) | Shape::Named(_) => {
            let Ok(node) = raw::parse(value, &path, &|_| origin.clone(), faults) else { return };
            node.unwrap_or_else(|| Node::scalar(origin, ""))
        }
    };
    shape.check(&node, &path, faults);
    place(root, &segments, node);
}

fn find(segments: &[&str]) -> Option<&'static Shape> {
    segments.iter().try_fold(&ROOT, |shape, segment| shape.under(segment).filter(|_| !segment.is_empty()))
}

fn variable_name(segments: &[&str]) -> String {
    format!("{PREFIX}{}", segments.join("__").to_ascii_uppercase())
}

/// What to say about a variable that names no key.
fn unknown(segments: &[&str]) -> String {
    if let Some(near) = respelled(segments) {
        return format!("unknown variable; did you mean {near}?");
    }
    if segments == ["config"] {
        return "unknown variable; the file is named by the flag --config".to_owned();
    }
    let names: Vec<String> =
        shape::fixed_paths().iter().map(|path| variable_name(&path.split('.').collect::<Vec<_>>())).collect();
    match shape::nearest(&variable_name(segments), names.iter().map(String::as_str)) {
        Some(near) => format!("unknown variable; did you mean {near}?"),
        None => {
            "unknown variable; variables with SENDOFF_ name a key, such as SENDOFF_SERVER__LISTEN; unset it".to_owned()
        }
    }
}

/// The name with each unknown part replaced by the key nearest to it.
fn respelled(segments: &[&str]) -> Option<String> {
    let mut shape = &ROOT;
    let mut path = Vec::with_capacity(segments.len());
    for segment in segments {
        let known = if shape.under(segment).is_some() { segment } else { shape.nearest(segment)? };
        shape = shape.under(known)?;
        path.push(known);
    }
    Some(variable_name(&path))
}

/// Puts `value` where `segments` lead, making the maps on the way.
fn place(root: &mut Node, segments: &[&str], value: Node) {
    let Some((first, rest)) = segments.split_first() else {
        *root = value;
        return;
    };
    if root.as_map().is_none() {
        *root = Node { origin: value.origin.clone(), kind: Kind::Map(Map::new()) };
    }
    let Kind::Map(map) = &mut root.kind else { return };
    let origin = value.origin.clone();
    let empty = Node { origin: origin.clone(), kind: Kind::Map(Map::new()) };
    let entry = map.entry((*first).to_owned()).or_insert_with(|| Entry { origin: origin.clone(), value: empty });
    if rest.is_empty() {
        entry.origin = origin;
    }
    place(&mut entry.value, rest, value);
}
