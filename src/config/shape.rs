//! Every key there is, as one table: what the readers, the environment's names and the spelling help go by.

use super::fault::{ConfigFaults, child};
use super::raw::{Kind, Map, Node};

/// What stands under a key.
#[derive(Debug)]
pub(super) enum Shape {
    /// One scalar.
    Value,
    /// A list of scalars.
    List,
    /// A map with these keys and no others.
    Section(&'static [(&'static str, &'static Shape)]),
    /// A map whose keys are names that the user chooses.
    Named(&'static Shape),
}

use Shape::{List, Named, Section, Value};

static BOUND: Shape = Section(&[("age", &Value), ("count", &Value), ("bytes", &Value)]);
static RETRY: Shape = Section(&[
    ("max_attempts", &Value),
    ("min_backoff", &Value),
    ("max_backoff", &Value),
    ("max_doublings", &Value),
    ("max_retry_duration", &Value),
    ("jitter", &Value),
    ("stop_when", &Value),
    ("credential_wait_max", &Value),
    ("on_status", &Named(&Value)),
]);
static QUEUE: Shape = Section(&[
    ("max_dispatches_per_second", &Value),
    ("max_burst_size", &Value),
    ("max_concurrent_dispatches", &Value),
    ("priority_aging", &Value),
    ("weight", &Value),
    ("max_tasks", &Value),
    ("max_bytes", &Value),
    ("retry", &RETRY),
    ("retention", &BOUND),
    ("dead_letters", &BOUND),
    ("auth", &Value),
]);
/// One credential.
pub(super) static CREDENTIAL: Shape = Section(&[
    ("kind", &Value),
    ("hosts", &List),
    ("allow_plain_http", &Value),
    ("also", &List),
    ("token", &Value),
    ("username", &Value),
    ("password", &Value),
    ("name", &Value),
    ("value", &Value),
    ("token_url", &Value),
    ("client_id", &Value),
    ("client_auth", &Value),
    ("client_secret", &Value),
    ("private_key", &Value),
    ("key_id", &Value),
    ("scopes", &List),
    ("audience", &Value),
    ("key", &Value),
    ("certificate", &Value),
    ("secrets", &List),
]);
static HOST: Shape = Section(&[("max_concurrent", &Value)]);
static TLS: Shape =
    Section(&[("certificate", &Value), ("key", &Value), ("client_ca", &Value), ("min_version", &Value)]);
static CLAIM_GRANT: Shape = Section(&[("claim", &Value), ("value", &Value), ("scopes", &List)]);
static CERTIFICATE_GRANT: Shape = Section(&[("san", &Value), ("scopes", &List)]);
static ISSUER: Shape = Section(&[
    ("issuer", &Value),
    ("audience", &List),
    ("jwks_url", &Value),
    ("algorithms", &List),
    ("grants", &Named(&CLAIM_GRANT)),
]);

/// The whole configuration.
pub(super) static ROOT: Shape = Section(&[
    (
        "server",
        &Section(&[
            ("listen", &Value),
            ("public_url", &Value),
            ("shutdown_grace", &Value),
            ("plain_http", &Value),
            ("tls", &TLS),
        ]),
    ),
    ("data_dir", &Value),
    ("certs_dir", &Value),
    ("queue_defaults", &QUEUE),
    ("queues", &Named(&QUEUE)),
    ("workers", &Section(&[("max_concurrent", &Value)])),
    ("hosts", &Section(&[("defaults", &HOST), ("overrides", &Named(&HOST))])),
    ("egress", &Section(&[("allow", &List), ("deny", &List), ("http", &Value), ("ca_files", &List)])),
    ("callers", &Section(&[("jwt", &Named(&ISSUER)), ("certificates", &Named(&CERTIFICATE_GRANT))])),
    ("credentials", &Named(&CREDENTIAL)),
    ("credentials_key", &Value),
    ("limits", &Section(&[("payload_bytes", &Value)])),
    ("storage", &Section(&[("reserve", &Value)])),
    ("logging", &Section(&[("format", &Value), ("level", &Value)])),
    ("metrics", &Section(&[("listen", &Value)])),
]);

impl Shape {
    /// What stands under `key`, if it may stand there.
    pub(super) fn under(&self, key: &str) -> Option<&'static Shape> {
        match self {
            Section(keys) => keys.iter().find(|(known, _)| *known == key).map(|(_, shape)| *shape),
            Named(each) => Some(each),
            Value | List => None,
        }
    }

    /// The known key nearest to `key`, if one is near.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        match self {
            Section(keys) => nearest(key, keys.iter().map(|(known, _)| *known)),
            Named(_) | Value | List => None,
        }
    }

    /// Notes every key that does not belong, and every list, map or scalar where another of them is expected.
    pub(super) fn check(&self, node: &Node, path: &str, faults: &mut ConfigFaults) {
        match (self, &node.kind) {
            (Value, Kind::Scalar(_)) => {}
            (List, Kind::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    Value.check(item, &format!("{path}[{index}]"), faults);
                }
            }
            (Section(_) | Named(_), Kind::Map(map)) => self.check_map(map, path, faults),
            // A key with nothing after it: all of its lines may be comments.
            (List | Section(_) | Named(_), Kind::Scalar(scalar)) if scalar.plain && scalar.text.is_empty() => {}
            (Value, Kind::List(_) | Kind::Map(_)) => {
                faults.push(&node.origin, path, format!("got {}, expected one value", node.describe()));
            }
            (List, Kind::Scalar(_) | Kind::Map(_)) => {
                let detail = format!("got {}, expected a list such as [a, b]", node.describe());
                faults.push(&node.origin, path, detail);
            }
            (Section(_) | Named(_), Kind::Scalar(_) | Kind::List(_)) => {
                // Who writes one value where a credential belongs may have written the secret.
                let secret = path.starts_with("credentials.");
                let given = if secret { "something else".to_owned() } else { node.describe() };
                let detail = format!("got {given}, expected {}", self.example());
                faults.push(&node.origin, path, detail);
            }
        }
    }

    fn check_map(&self, map: &Map, path: &str, faults: &mut ConfigFaults) {
        for (key, entry) in map {
            let here = child(path, key);
            match self.under(key) {
                Some(shape) => shape.check(&entry.value, &here, faults),
                None => faults.push(&entry.origin, here, self.unknown(key)),
            }
        }
    }

    /// What to say about a key that does not belong here.
    fn unknown(&self, key: &str) -> String {
        if let Some(near) = self.nearest(key) {
            return format!("unknown key; did you mean `{near}`?");
        }
        let elsewhere = fixed_paths().into_iter().find(|path| path.rsplit('.').next() == Some(key));
        match elsewhere {
            Some(path) => format!("unknown key here; did you mean `{path}`?"),
            None => format!("unknown key; expected {}", self.example()),
        }
    }

    fn example(&self) -> String {
        match self {
            Section(keys) => {
                let known: Vec<&str> = keys.iter().map(|(known, _)| *known).collect();
                format!("a map with the keys {}", known.join(", "))
            }
            Named(_) => "a map of names ({} when there are none)".to_owned(),
            Value | List => "no keys".to_owned(),
        }
    }

    fn collect(&self, path: &str, into: &mut Vec<String>) {
        match self {
            Section(keys) => {
                for (key, shape) in *keys {
                    shape.collect(&child(path, key), into);
                }
            }
            Value | List | Named(_) => into.push(path.to_owned()),
        }
    }
}

/// The path of every value, list and map of names that does not lie under a name chosen by the user.
pub(super) fn fixed_paths() -> Vec<String> {
    let mut paths = Vec::new();
    ROOT.collect("", &mut paths);
    paths
}

/// The candidate most like `word`, if any is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_LEN_MAX: usize = 128;
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::fault::Origin;
    use super::super::raw;
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let mut faults = ConfigFaults::default();
        let node = raw::parse(text, "", &|line| Origin::File { file: "f".into(), line }, &mut faults).unwrap().unwrap();
        ROOT.check(&node, "", &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one() {
        assert_eq!(faults("server: {lisen: x}\n"), ["f:1: server.lisen: unknown key; did you mean `listen`?"]);
        assert_eq!(faults("data-dir: x\n"), ["f:1: data-dir: unknown key; did you mean `data_dir`?"]);
        assert_eq!(
            faults("queues: {mail: {wieght: 2}}\n"),
            ["f:1: queues.mail.wieght: unknown key; did you mean `weight`?"]
        );
        assert_eq!(
            faults("plain_http: true\n"),
            ["f:1: plain_http: unknown key here; did you mean `server.plain_http`?"]
        );
        assert_eq!(
            faults("storage: {zzz: 1}\n"),
            ["f:1: storage.zzz: unknown key; expected a map with the keys reserve"]
        );
    }

    #[test]
    fn keys_of_later_issues_are_unknown() {
        assert!(faults("handlers: {}\n").first().unwrap().contains("unknown key; expected"));
    }

    #[test]
    fn lists_maps_and_scalars_are_told_apart() {
        assert_eq!(faults("data_dir: [a]\n"), ["f:1: data_dir: got a list, expected one value"]);
        assert_eq!(faults("egress: {allow: a}\n"), ["f:1: egress.allow: got `a`, expected a list such as [a, b]"]);
        assert_eq!(faults("egress: {allow: [[a]]}\n"), ["f:1: egress.allow[0]: got a list, expected one value"]);
        assert_eq!(faults("workers: 5\n"), ["f:1: workers: got `5`, expected a map with the keys max_concurrent"]);
        assert_eq!(
            faults("queues: null\n"),
            ["f:1: queues: got `null`, expected a map of names ({} when there are none)"]
        );
        assert!(faults("server:\nqueues:\n  mail:\negress: {allow: }\n").is_empty());
    }

    #[test]
    fn a_word_far_from_all_has_no_nearest() {
        assert_eq!(nearest("qqqqqq", ["weight", "retry"].into_iter()), None);
        assert_eq!(nearest(&"w".repeat(129), ["weight"].into_iter()), None);
        assert_eq!(nearest("Weight", ["weight", "retry"].into_iter()), Some("weight"));
    }
}
