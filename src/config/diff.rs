//! What changes when one configuration takes the place of another in a running server, and what of it waits for a
//! restart.
//!
//! One table says which: a key that is not in it makes a test fail, so nobody adds one without deciding. Values are
//! compared as `config show` writes them, so that every key there is takes part.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::child;
use super::model::{Config, QueueConfig};
use super::show::{self, Item};
use crate::task::limits::{CHANGE_VALUE_CHARS_MAX, CHANGES_REPORTED_MAX};

/// When a changed value comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// With the reload.
    Live,
    /// With the next start; until then the running value holds.
    Restart,
}

use Effect::{Live, Restart};

/// Every key, or the section or map that it lies in.
static EFFECTS: [(&str, Effect); 24] = [
    ("server.listen", Restart),
    ("server.public_url", Live),
    ("server.shutdown_grace", Live),
    ("server.plain_http", Restart),
    ("server.tls.certificate", Live),
    ("server.tls.key", Live),
    ("server.tls.client_ca", Live),
    ("server.tls.min_version", Restart),
    ("data_dir", Restart),
    ("certs_dir", Restart),
    ("queue_defaults", Live),
    ("queues", Live),
    ("workers.max_concurrent", Live),
    ("hosts.defaults.max_concurrent", Live),
    ("hosts.overrides", Live),
    ("egress", Live),
    ("callers", Live),
    ("credentials", Live),
    ("credentials_key", Restart),
    ("limits.payload_bytes", Live),
    ("storage.reserve", Restart),
    ("logging.format", Restart),
    ("logging.level", Live),
    ("metrics.listen", Restart),
];

/// When a change of the key at `path` comes into force. A key that nobody has decided on waits for a restart.
fn effect(path: &str) -> Effect {
    EFFECTS.iter().find(|(key, _)| is_within(path, key)).map_or(Restart, |(_, effect)| *effect)
}

/// Whether `path` is `key`, or lies below it.
fn is_within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key, from the top: `queues.mail.retry.jitter`; `queues.mail` for a queue that comes or goes.
    pub path: String,
    /// What holds; `None`: there was none.
    pub old: Option<String>,
    /// What was given; `None`: there is none any more.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, old, new } = self;
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "{path}: {} → {}", cut(old), cut(new)),
            (None, Some(new)) => write!(f, "{path}: added, {}", cut(new)),
            (Some(_), None) => write!(f, "{path}: taken out"),
            (None, None) => write!(f, "{path}"),
        }
    }
}

/// A value as far as it is worth reading in a log.
fn cut(value: &str) -> String {
    match value.char_indices().nth(CHANGE_VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

/// Everything that differs between what runs and what was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What a reload puts in force.
    pub live: Vec<Change>,
    /// What waits for a restart.
    pub restart: Vec<Change>,
}

impl Difference {
    /// From the configuration in force to one that was read. What a queue takes over from `queue_defaults` is told
    /// once, there.
    pub fn between(running: &Config, new: &Config) -> Self {
        let mut changes = of_values(&values(running), &values(new));
        changes.extend(of_queues(running, new));
        let (mut live, mut restart): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| effect(&change.path) == Live);
        live.sort_by(|a, b| a.path.cmp(&b.path));
        restart.sort_by(|a, b| a.path.cmp(&b.path));
        Self { live, restart }
    }
}

/// Values by path.
type Values = BTreeMap<String, String>;

/// Every value as `config show` writes it, but those of queues.
fn values(config: &Config) -> Values {
    let mut fields = show::config(config);
    fields.retain(|(key, _)| key != "queues");
    flat(&fields)
}

fn flat(fields: &[(String, Item)]) -> Values {
    let mut values = Values::new();
    collect(fields, "", &mut values);
    values
}

fn collect(fields: &[(String, Item)], path: &str, into: &mut Values) {
    for (key, item) in fields {
        let here = child(path, key);
        match item {
            Item::Scalar(value) => drop(into.insert(here, value.clone())),
            Item::List(items) => drop(into.insert(here, format!("[{}]", items.join(", ")))),
            Item::Map(fields) => collect(fields, &here, into),
        }
    }
}

fn of_values(old: &Values, new: &Values) -> Vec<Change> {
    let paths = old.keys().chain(new.keys().filter(|path| !old.contains_key(*path)));
    let differing = paths.filter(|path| old.get(*path) != new.get(*path));
    let change =
        |path: &String| Change { path: path.clone(), old: old.get(path).cloned(), new: new.get(path).cloned() };
    differing.map(change).collect()
}

fn of_queues(running: &Config, new: &Config) -> Vec<Change> {
    let defaults = (of_queue(&running.queue_defaults), of_queue(&new.queue_defaults));
    let came = new.queues.keys().filter(|name| !running.queues.contains_key(*name));
    let mut changes = Vec::new();
    for name in running.queues.keys().chain(came) {
        let path = child("queues", name.as_str());
        match (running.queues.get(name), new.queues.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                let of_its_own = of_values(&of_queue(old), &of_queue(new)).into_iter().filter(|change| {
                    let of_defaults = (defaults.0.get(&change.path), defaults.1.get(&change.path));
                    of_defaults != (change.old.as_ref(), change.new.as_ref())
                });
                changes.extend(of_its_own.map(|own| Change { path: format!("{path}.{}", own.path), ..own }));
            }
            (None, Some(new)) => {
                let own = own_words(&of_queue(new), &defaults.1);
                changes.push(Change { path, old: None, new: Some(own) });
            }
            (Some(_) | None, None) => changes.push(Change { path, old: Some(String::new()), new: None }),
        }
    }
    changes
}

fn of_queue(queue: &QueueConfig) -> Values {
    match show::queue(queue) {
        Item::Map(fields) => flat(&fields),
        Item::Scalar(_) | Item::List(_) => Values::new(),
    }
}

/// What a queue says otherwise than `queue_defaults`: `{max_tasks: 5, retry.jitter: 0}`.
fn own_words(queue: &Values, defaults: &Values) -> String {
    let own = queue.iter().filter(|(key, value)| defaults.get(*key) != Some(*value));
    let own: Vec<String> = own.map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", own.join(", "))
}

/// Changes in one line, at most [`CHANGES_REPORTED_MAX`] of them spelled out.
pub fn one_line(changes: &[Change]) -> String {
    let mut words: Vec<String> = changes.iter().take(CHANGES_REPORTED_MAX).map(ToString::to_string).collect();
    if let Some(more) = changes.len().checked_sub(CHANGES_REPORTED_MAX).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join("; ")
}

/// What a reload of `new` puts in force over `running`: everything that can change live, and of the rest what runs.
pub fn in_force(running: &Config, new: Config) -> Config {
    let mut config = new;
    config.server.listen = running.server.listen;
    config.server.plain_http = running.server.plain_http;
    config.server.tls.min_version = running.server.tls.min_version;
    config.data_dir.clone_from(&running.data_dir);
    config.credentials_key.clone_from(&running.credentials_key);
    config.certs_dir.clone_from(&running.certs_dir);
    config.storage = running.storage;
    config.logging.format = running.logging.format;
    config.metrics = running.metrics;
    // Derived from where the server listens, which it goes on to do.
    config.egress.loopback = running.egress.loopback;
    config
}

#[cfg(test)]
mod tests {
    use super::super::shape::{ROOT, Shape, fixed_paths};
    use super::super::{Flags, tests::load_with};
    use super::*;

    fn config(text: &str) -> Config {
        load_with(text, &[], Flags::default()).unwrap().config
    }

    /// A file that gives the key at `path` a value that is not its default.
    fn changed(path: &str, value: &str) -> Config {
        let text = path.rsplit('.').fold(value.to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
        config(&text)
    }

    /// Every key once, with a value that is not its default.
    fn examples() -> Vec<(&'static str, &'static str, Effect)> {
        let mut all = vec![
            ("server.listen", "127.0.0.1:9", Restart),
            ("server.public_url", "https://queue.example/", Live),
            ("server.shutdown_grace", "5s", Live),
            ("server.plain_http", "true", Restart),
            ("server.tls.min_version", "1.2", Restart),
            ("server.tls.client_ca", "clients.pem", Live),
            ("data_dir", "elsewhere", Restart),
            ("certs_dir", "elsewhere", Restart),
            ("credentials_key", "env:K", Restart),
            ("workers.max_concurrent", "7", Live),
            ("hosts.defaults.max_concurrent", "7", Live),
            ("hosts.overrides", "{\"https://a.example\": {max_concurrent: 1}}", Live),
            ("egress.allow", "[10.0.0.0/8]", Live),
            ("egress.deny", "[bad.example]", Live),
            ("egress.http", "false", Live),
            ("egress.ca_files", "[ca.pem]", Live),
            ("limits.payload_bytes", "2KiB", Live),
            ("storage.reserve", "1GiB", Restart),
            ("logging.format", "json", Restart),
            ("logging.level", "debug", Live),
            ("metrics.listen", "127.0.0.1:9", Restart),
        ];
        for (key, value) in OF_A_QUEUE {
            all.push((key, value, Live));
        }
        all
    }

    const OF_A_QUEUE: [(&str, &str); 21] = [
        ("queue_defaults.max_dispatches_per_second", "5"),
        ("queue_defaults.max_burst_size", "7"),
        ("queue_defaults.max_concurrent_dispatches", "7"),
        ("queue_defaults.priority_aging", "strict"),
        ("queue_defaults.weight", "7"),
        ("queue_defaults.max_tasks", "7"),
        ("queue_defaults.max_bytes", "7KiB"),
        ("queue_defaults.retry.max_attempts", "7"),
        ("queue_defaults.retry.min_backoff", "7s"),
        ("queue_defaults.retry.max_backoff", "7m"),
        ("queue_defaults.retry.max_doublings", "7"),
        ("queue_defaults.retry.max_retry_duration", "7d"),
        ("queue_defaults.retry.jitter", "0.5"),
        ("queue_defaults.retry.credential_wait_max", "7m"),
        ("queue_defaults.retry.on_status", "{404: retry}"),
        ("queue_defaults.retention.age", "7h"),
        ("queue_defaults.retention.count", "7"),
        ("queue_defaults.retention.bytes", "7KiB"),
        ("queue_defaults.dead_letters.age", "7h"),
        ("queue_defaults.dead_letters.count", "7"),
        ("queue_defaults.dead_letters.bytes", "7KiB"),
    ];

    fn paths(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.path.as_str()).collect()
    }

    #[test]
    fn every_key_is_decided_on_once_and_no_other() {
        let keys = fixed_paths();
        for key in &keys {
            let deciding = EFFECTS.iter().filter(|(decided, _)| is_within(key, decided)).count();
            assert_eq!(deciding, 1, "{key} has to be in the table, once");
        }
        for (decided, _) in EFFECTS {
            let known = decided.split('.').try_fold(&ROOT, Shape::under);
            assert!(known.is_some(), "{decided} is no key");
        }
        let tried: Vec<&str> = examples().iter().map(|(key, _, _)| *key).collect();
        // These are only right together with other keys, and have tests of their own.
        let apart = [
            "server.tls.certificate",
            "server.tls.key",
            "queue_defaults.retry.stop_when",
            "queue_defaults.auth",
            "queues",
            "callers.jwt",
            "callers.certificates",
            "credentials",
        ];
        let untried: Vec<_> = keys.iter().filter(|key| !tried.contains(&key.as_str())).collect();
        assert_eq!(untried, apart);
    }

    /// The keys of the documented file, top level and below, with the comment above each.
    fn documented() -> Vec<(String, String)> {
        let (mut path, mut comment, mut keys) = (Vec::new(), String::new(), Vec::new());
        for line in include_str!("../../config.yaml").lines() {
            let text = line.trim_start();
            let depth = (line.len() - text.len()) / 2;
            if let Some((key, _)) = text.split_once(':').filter(|_| !text.starts_with('#')) {
                path.truncate(depth);
                path.push(key);
                keys.push((path.join("."), std::mem::take(&mut comment)));
            } else if text.is_empty() {
                comment.clear();
            } else {
                comment += text;
            }
        }
        keys
    }

    #[test]
    fn the_documented_file_marks_the_keys_that_wait_for_a_restart_and_no_others() {
        let marked: Vec<String> =
            documented().into_iter().filter(|(_, comment)| comment.contains("(restart)")).map(|(key, _)| key).collect();
        let waiting = EFFECTS.iter().filter(|(_, effect)| *effect == Restart).map(|(key, _)| *key);
        assert_eq!(marked, waiting.collect::<Vec<_>>());
    }

    #[test]
    fn each_key_changed_once_is_told_on_its_side_and_put_in_force_or_not() {
        let running = Config::default();
        for (key, value, expected) in examples() {
            let new = changed(key, value);
            let found = Difference::between(&running, &new);
            let (told, other) =
                if expected == Live { (&found.live, &found.restart) } else { (&found.restart, &found.live) };
            assert_eq!(told.len(), 1, "{key}: {found:?}");
            assert!(told[0].path.starts_with(key), "{key}: {found:?}");
            assert!(other.is_empty(), "{key}: {found:?}");

            let in_force = in_force(&running, new.clone());
            let then = Difference::between(&running, &in_force);
            assert_eq!((then.live, then.restart), (found.live, Vec::new()), "{key}");
            let left = Difference::between(&in_force, &new);
            assert_eq!((left.live, left.restart), (Vec::new(), found.restart), "{key}: what is left waits");
        }
    }

    #[test]
    fn the_keys_of_a_queue_are_told_with_its_name() {
        let running = config("queues: {mail: {}}");
        for (key, value) in OF_A_QUEUE {
            let path = key.replace("queue_defaults", "queues.mail");
            let found = Difference::between(&running, &changed(&path, value));
            assert!(found.live.len() == 1 && found.live[0].path.starts_with(&path), "{path}: {found:?}");
            assert!(found.restart.is_empty(), "{path}");
        }
    }

    #[test]
    fn keys_that_come_in_pairs() {
        let running = Config::default();
        let found = Difference::between(&running, &config("server: {tls: {certificate: a.pem, key: a.key}}"));
        assert_eq!(paths(&found.live), ["server.tls.certificate", "server.tls.key"]);
        let both = "queue_defaults: {retry: {stop_when: all, max_retry_duration: 1h}}";
        let found = Difference::between(&running, &config(both));
        assert_eq!(
            one_line(&found.live),
            "queue_defaults.retry.max_retry_duration: null → 1h; queue_defaults.retry.stop_when: any → all"
        );
    }

    #[test]
    fn callers_change_live_grant_by_grant() {
        let text = "server: {tls: {client_ca: a}}\ncallers: {certificates: {a: {san: \"dns:a\", scopes: [read]}}}";
        let found = Difference::between(&config(text), &config(&text.replace("dns:a", "uri:A")));
        assert_eq!(one_line(&found.live), "callers.certificates.a.san: dns:a → uri:A");
        let text = "callers: {jwt: {company: {issuer: \"https://a.example\", audience: [sendoff], \
                    grants: {ops: {claim: groups, value: ops, scopes: [read]}}}}}";
        let before = config(text);
        let found = Difference::between(&before, &config(&text.replace("[read]", "[read, manage]")));
        assert_eq!(one_line(&found.live), "callers.jwt.company.grants.ops.scopes: [read] → [read, manage]");
        let found = Difference::between(&Config::default(), &before);
        assert!(found.restart.is_empty());
        assert!(paths(&found.live).iter().all(|path| path.starts_with("callers.jwt.company.")), "{found:?}");
    }

    #[test]
    fn credentials_change_live_and_are_told_by_where_their_secrets_are() {
        let text = "credentials: {billing: {kind: bearer, token: \"env:A\", hosts: [a.example]}}";
        let before = config(text);
        let found = Difference::between(&before, &config(&text.replace("env:A", "env:B")));
        assert_eq!(one_line(&found.live), "credentials.billing.token: env:A → env:B");
        let found = Difference::between(&before, &config(&format!("{text}\nqueue_defaults: {{auth: billing}}")));
        assert_eq!(one_line(&found.live), "queue_defaults.auth: null → billing");
        let found = Difference::between(&before, &Config::default());
        assert!(found.restart.is_empty());
        assert!(paths(&found.live).iter().all(|path| path.starts_with("credentials.billing.")), "{found:?}");
    }

    #[test]
    fn queues_come_and_go_as_a_whole_and_what_they_take_over_is_told_once() {
        let before = config("queues: {mail: {weight: 2}, old: {max_tasks: 5}}");
        let after = config("queue_defaults: {max_tasks: 9}\nqueues: {mail: {weight: 3}, a.b: {retry: {jitter: 0}}}");
        let found = Difference::between(&before, &after);
        assert_eq!(
            one_line(&found.live),
            "queue_defaults.max_tasks: null → 9; queues.\"a.b\": added, {retry.jitter: 0}; queues.mail.weight: 2 → 3; \
             queues.old: taken out"
        );
        // A queue that overrides the default and one that follows it anew.
        let kept = config("queue_defaults: {max_tasks: 9}\nqueues: {mail: {weight: 2}, old: {max_tasks: 5}}");
        let found = Difference::between(&before, &kept);
        assert_eq!(paths(&found.live), ["queue_defaults.max_tasks"]);
        let back = config("queues: {mail: {weight: 2}, old: {}}");
        assert_eq!(one_line(&Difference::between(&before, &back).live), "queues.old.max_tasks: 5 → null");
    }

    #[test]
    fn the_same_is_no_difference_and_names_that_come_and_go_are_told() {
        let text = "hosts: {overrides: {\"https://a.example\": {max_concurrent: 1}}}";
        assert_eq!(Difference::between(&config(text), &config(text)), Difference::default());
        let found = Difference::between(&config(text), &Config::default());
        assert_eq!(one_line(&found.live), "hosts.overrides.\"https://a.example:443\".max_concurrent: taken out");
    }

    #[test]
    fn loopback_targets_follow_where_the_server_really_listens() {
        let in_force = in_force(&Config::default(), config("server: {listen: \"0.0.0.0:8443\"}"));
        assert!(in_force.egress.loopback);
    }

    #[test]
    fn a_flood_of_changes_is_cut_and_counted() {
        let change =
            |at: usize| Change { path: format!("k{at}"), old: Some("1".to_owned()), new: Some("2".to_owned()) };
        let most: Vec<Change> = (0..CHANGES_REPORTED_MAX).map(change).collect();
        assert!(one_line(&most).ends_with("k99: 1 → 2"));
        let more: Vec<Change> = (0..=CHANGES_REPORTED_MAX).map(change).collect();
        assert!(one_line(&more).ends_with("k99: 1 → 2; and 1 more"));
        let long = |len| Change { path: "k".to_owned(), old: None, new: Some("é".repeat(len)) }.to_string();
        assert!(!long(CHANGE_VALUE_CHARS_MAX).ends_with('…'));
        assert!(long(CHANGE_VALUE_CHARS_MAX + 1).ends_with("é…"));
    }
}
