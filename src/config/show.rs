//! `config show`: the configuration in force as YAML that loads again to the same, with where each value came from.
//!
//! There are no secrets in a [`Config`], so nothing is left out: it says where they are found, and carries none.
//!
//! `serde_yaml` decides how a scalar is quoted; the lines are laid out here, because it writes no comments.

use std::collections::BTreeMap;

use super::callers::{CallersConfig, CertificateGrant, ClaimGrant, IssuerConfig};
use super::credential::{CredentialConfig, CredentialKind, Plain};
use super::fault::{Origin, child};
use super::load::Loaded;
use super::model::{
    Bound, Config, EgressConfig, HostsConfig, LogFormat, LoggingConfig, QueueConfig, ServerConfig, TlsVersion,
};
use super::value::show_bytes;
use crate::task::{CredentialName, PriorityOrder, RetryPolicy, Span};

/// What stands under a key.
pub(super) enum Item {
    Scalar(String),
    List(Vec<String>),
    Map(Vec<(String, Item)>),
}

/// The configuration in force, defaults included.
///
/// A trailing comment says where a value came from (`# config.yaml:12`, `# environment SENDOFF_…`, `# flag --listen`);
/// a value without one is the default. Loading the text gives an equal [`Config`].
pub fn show(loaded: &Loaded) -> String {
    let mut out = String::new();
    write_map(&config(&loaded.config), "", 0, &loaded.origins, &mut out);
    out
}

/// Every key with its value, in the order of the documentation.
pub(super) fn config(config: &Config) -> Vec<(String, Item)> {
    let queues = config.queues.iter().map(|(name, config)| (name.to_string(), queue(config))).collect();
    vec![
        field("server", server(&config.server)),
        field("data_dir", text(&config.data_dir.to_string_lossy())),
        field("certs_dir", text(&config.certs_dir.to_string_lossy())),
        field("queue_defaults", queue(&config.queue_defaults)),
        field("queues", Item::Map(queues)),
        field("workers", max_concurrent(config.workers.max_concurrent)),
        field("hosts", hosts(&config.hosts)),
        field("egress", egress(&config.egress)),
        field("callers", callers(&config.callers)),
        field("credentials", credentials(&config.credentials)),
        field("credentials_key", or_null(config.credentials_key.as_ref(), |at| text(&at.to_string()))),
        field("limits", map([field("payload_bytes", size(config.payload_bytes_max))])),
        field("storage", map([field("reserve", or_null(config.storage.reserve, size))])),
        field("logging", logging(&config.logging)),
        field("metrics", map([field("listen", or_null(config.metrics.listen, |at| text(&at.to_string())))])),
    ]
}

fn server(server: &ServerConfig) -> Item {
    let tls = &server.tls;
    let version = match tls.min_version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    };
    let tls = map([
        field("certificate", or_null(tls.certificate.as_ref(), |path| text(&path.to_string_lossy()))),
        field("key", or_null(tls.key.as_ref(), |path| text(&path.to_string_lossy()))),
        field("client_ca", or_null(tls.client_ca.as_ref(), |path| text(&path.to_string_lossy()))),
        field("min_version", text(version)),
    ]);
    map([
        field("listen", text(&server.listen.to_string())),
        field("public_url", or_null(server.public_url.as_ref(), |url| text(url))),
        field("shutdown_grace", span(server.shutdown_grace)),
        field("plain_http", bare(server.plain_http)),
        field("tls", tls),
    ])
}

/// The keys of one queue.
pub(super) fn queue(queue: &QueueConfig) -> Item {
    let aging = match queue.order {
        PriorityOrder::Aging(aging) => span(aging),
        PriorityOrder::Strict => text("strict"),
    };
    map([
        field("max_dispatches_per_second", or_null(queue.max_dispatches_per_second, bare)),
        field("max_burst_size", bare(queue.max_burst_size)),
        field("max_concurrent_dispatches", bare(queue.max_concurrent_dispatches)),
        field("priority_aging", aging),
        field("weight", bare(queue.weight)),
        field("max_tasks", or_null(queue.max_tasks, bare)),
        field("max_bytes", or_null(queue.max_bytes, size)),
        field("retry", retry(&queue.retry)),
        field("retention", bound(queue.retention)),
        field("dead_letters", bound(queue.dead_letters)),
        field("auth", or_null(queue.auth.as_ref(), |auth| text(auth.as_str()))),
    ])
}

fn retry(retry: &RetryPolicy) -> Item {
    let on_status = retry.on_status.iter();
    let on_status = on_status.map(|(status, action)| (status.to_string(), text(action.as_str()))).collect();
    map([
        field("max_attempts", bare(retry.max_attempts)),
        field("min_backoff", span(retry.min_backoff)),
        field("max_backoff", span(retry.max_backoff)),
        field("max_doublings", bare(retry.max_doublings)),
        field("max_retry_duration", or_null(retry.max_retry_duration, span)),
        field("jitter", bare(retry.jitter)),
        field("stop_when", text(retry.stop_when.as_str())),
        field("credential_wait_max", span(retry.credential_wait_max)),
        field("on_status", Item::Map(on_status)),
    ])
}

fn bound(bound: Bound) -> Item {
    map([
        field("age", or_null(bound.age, span)),
        field("count", or_null(bound.count, bare)),
        field("bytes", or_null(bound.bytes, size)),
    ])
}

fn hosts(hosts: &HostsConfig) -> Item {
    let overrides = hosts.overrides.iter();
    let overrides = overrides.map(|(lane, host)| (lane.to_string(), max_concurrent(host.max_concurrent))).collect();
    map([field("defaults", max_concurrent(hosts.defaults.max_concurrent)), field("overrides", Item::Map(overrides))])
}

fn egress(egress: &EgressConfig) -> Item {
    let entries = |nets: &[ipnet::IpNet], hosts: &[String]| {
        let nets = nets.iter().map(ToString::to_string);
        Item::List(nets.chain(hosts.iter().cloned()).map(|entry| scalar(&entry)).collect())
    };
    map([
        field("allow", entries(&egress.allow_nets, &egress.allow_hosts)),
        field("deny", entries(&egress.deny_nets, &egress.deny_hosts)),
        field("http", bare(egress.http)),
        field("ca_files", Item::List(egress.ca_files.iter().map(|path| scalar(&path.to_string_lossy())).collect())),
    ])
}

fn callers(callers: &CallersConfig) -> Item {
    let issuers = callers.jwt.iter().map(|(name, issuer)| (name.to_string(), issuer_of_tokens(issuer)));
    let grant = |grant: &CertificateGrant| {
        map([field("san", text(&grant.san.to_string())), field("scopes", list(grant.scopes.texts()))])
    };
    let certificates = callers.certificates.iter().map(|(name, one)| (name.to_string(), grant(one)));
    map([field("jwt", Item::Map(issuers.collect())), field("certificates", Item::Map(certificates.collect()))])
}

fn issuer_of_tokens(issuer: &IssuerConfig) -> Item {
    let grant = |grant: &ClaimGrant| {
        map([
            field("claim", text(&grant.claim)),
            field("value", text(grant.value.as_str())),
            field("scopes", list(grant.scopes.texts())),
        ])
    };
    let grants = issuer.grants.iter().map(|(name, one)| (name.to_string(), grant(one)));
    map([
        field("issuer", text(&issuer.issuer)),
        field("audience", list(issuer.audience.iter().cloned())),
        field("jwks_url", or_null(issuer.jwks_url.as_ref(), |url| text(url))),
        field("algorithms", list(issuer.algorithms.iter().map(|algorithm| format!("{algorithm:?}")))),
        field("grants", Item::Map(grants.collect())),
    ])
}

fn credentials(credentials: &BTreeMap<CredentialName, CredentialConfig>) -> Item {
    let one = |credential: &CredentialConfig| {
        let mut fields = vec![
            field("kind", text(credential.kind.as_str())),
            field("hosts", list(credential.hosts.iter())),
            field("allow_plain_http", bare(credential.allow_plain_http)),
        ];
        fields.extend(credential.kind.plain().into_iter().map(|(key, value)| match value {
            Plain::Text(value) => field(key, text(value)),
            Plain::List(values) => field(key, list(values.iter())),
        }));
        if !credential.also.is_empty() {
            fields.push(field("also", list(credential.also.iter())));
        }
        if let CredentialKind::StandardWebhooks { secrets } = &credential.kind {
            fields.push(field("secrets", list(secrets.iter())));
        } else {
            let secrets = credential.kind.secrets().into_iter();
            fields.extend(secrets.map(|(key, at)| field(key, text(&at.to_string()))));
        }
        Item::Map(fields)
    };
    Item::Map(credentials.iter().map(|(name, credential)| (name.to_string(), one(credential))).collect())
}

fn list<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> Item {
    Item::List(items.map(|item| scalar(&item.to_string())).collect())
}

fn logging(logging: &LoggingConfig) -> Item {
    let format = match logging.format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    map([field("format", text(format)), field("level", text(&logging.level))])
}

fn max_concurrent(value: u32) -> Item {
    map([field("max_concurrent", bare(value))])
}

fn field(key: &str, item: Item) -> (String, Item) {
    (key.to_owned(), item)
}

fn map<const N: usize>(fields: [(String, Item); N]) -> Item {
    Item::Map(fields.into())
}

fn text(value: &str) -> Item {
    Item::Scalar(scalar(value))
}

/// Numbers and truth values, which need no quotes.
fn bare(value: impl std::fmt::Display) -> Item {
    Item::Scalar(value.to_string())
}

fn span(value: Span) -> Item {
    bare(value)
}

fn size(value: u64) -> Item {
    bare(show_bytes(value))
}

fn or_null<T>(value: Option<T>, item: impl Fn(T) -> Item) -> Item {
    value.map_or_else(|| bare("null"), item)
}

/// A text, quoted where it would otherwise be read as something else.
fn scalar(value: &str) -> String {
    let written = serde_yaml::to_string(value).unwrap_or_default();
    let line = written.trim_end_matches('\n');
    // A block scalar would take several lines; JSON strings are YAML too, and always one.
    let one_line = !line.is_empty() && !line.contains(['\n', '\r']) && !line.starts_with(['|', '>']);
    let breaks = value.contains(UNICODE_BREAKS);
    if one_line && !breaks { line.to_owned() } else { escaped(value) }
}

/// Line breaks of YAML 1.1 alone (NEL, LINE SEPARATOR, PARAGRAPH SEPARATOR): `serde_yaml` breaks and indents the line
/// after them, so what it wrote would be read back with blanks that nobody gave.
const UNICODE_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// A text in double quotes, on one line whatever is in it.
fn escaped(value: &str) -> String {
    let mut out = serde_json::Value::from(value).to_string();
    for character in UNICODE_BREAKS {
        out = out.replace(character, &format!("\\u{:04x}", u32::from(character)));
    }
    out
}

fn write_map(
    fields: &[(String, Item)],
    path: &str,
    depth: usize,
    origins: &BTreeMap<String, Origin>,
    out: &mut String,
) {
    for (key, item) in fields {
        let here = child(path, key);
        let start = format!("{}{}:", "  ".repeat(depth), scalar(key));
        let comment = origin_of(&here, origins);
        let line = match item {
            Item::Scalar(value) => format!("{start} {value}{comment}\n"),
            Item::List(items) if items.is_empty() => format!("{start} []{comment}\n"),
            Item::Map(fields) if fields.is_empty() => format!("{start} {{}}\n"),
            Item::List(items) => {
                let indent = "  ".repeat(depth + 1);
                let items = items.iter().map(|item| format!("\n{indent}- {item}"));
                format!("{start}{comment}{}\n", items.collect::<Vec<_>>().concat())
            }
            Item::Map(_) => format!("{start}\n"),
        };
        out.push_str(&line);
        if let Item::Map(fields) = item {
            write_map(fields, &here, depth + 1, origins, out);
        }
    }
}

/// The comment that says where the value at `path` was given; nothing for a default.
fn origin_of(path: &str, origins: &BTreeMap<String, Origin>) -> String {
    let given = |path: &str| origins.get(path).filter(|origin| **origin != Origin::Default);
    let inherited = || {
        let key = path.strip_prefix("queues.").and_then(after_name)?;
        given(&format!("queue_defaults.{key}"))
    };
    let comment = match (given(path), inherited()) {
        (Some(origin), _) => format!("  # {origin}"),
        (None, Some(origin)) => format!("  # queue_defaults, {origin}"),
        (None, None) => String::new(),
    };
    comment.replace(char::is_control, "?")
}

/// What follows the first key of a path, which may be quoted.
fn after_name(path: &str) -> Option<&str> {
    match path.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\".").map(|(_, rest)| rest),
        None => path.split_once('.').map(|(_, rest)| rest),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::model::{HostConfig, LoggingConfig};
    use super::super::{CredentialKind, Flags, tests::load_with};
    use super::*;
    use crate::task::outcome::StatusAction;
    use crate::task::{LaneName, QueueName, StopWhen, limits};

    #[test]
    fn what_is_shown_says_where_it_came_from() {
        let text =
            "queue_defaults: {weight: 2}\nqueues:\n  a.b: {max_tasks: 5}\nserver: {public_url: https://x.example/}\n";
        let loaded = load_with(text, &[], Flags::default()).unwrap();
        let shown = show(&loaded);
        let lines: Vec<&str> = shown.lines().map(str::trim).filter(|line| line.contains('#')).collect();
        let place = |line: &str| line.split("  # ").nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        let places: Vec<(String, String)> =
            lines.iter().map(|line| (line.split("  # ").next().unwrap().to_owned(), place(line))).collect();
        assert_eq!(
            places,
            [
                ("public_url: https://x.example", "config.yaml:4"),
                ("weight: 2", "config.yaml:1"),
                ("weight: 2", "config.yaml:1"),
                ("max_tasks: 5", "config.yaml:3"),
                ("weight: 2", "config.yaml:1"),
            ]
            .map(|(line, place)| (line.to_owned(), place.to_owned()))
        );
        assert!(lines[2].contains("# queue_defaults, "), "{shown}");
    }

    fn span_of(max: Span) -> impl Strategy<Value = Span> {
        prop_oneof![Just(1), Just(max.as_millis()), 1..=max.as_millis()].prop_map(Span::from_millis)
    }

    fn any_bound() -> impl Strategy<Value = Bound> {
        let count = proptest::option::of(0..=limits::TASKS_KEPT_MAX);
        (proptest::option::of(span_of(limits::AGE_KEPT_MAX)), count, proptest::option::of(0..=limits::BYTES_KEPT_MAX))
            .prop_map(|(age, count, bytes)| Bound { age, count, bytes })
    }

    fn any_retry() -> impl Strategy<Value = RetryPolicy> {
        let backoffs = (span_of(limits::BACKOFF_MAX), span_of(limits::BACKOFF_MAX));
        let duration = proptest::option::of(span_of(limits::BACKOFF_MAX));
        let numbers = (1..=limits::ATTEMPTS_MAX, 0..=limits::DOUBLINGS_MAX, 0.0..=1.0_f64);
        let action = prop_oneof![Just(StatusAction::Done), Just(StatusAction::Retry), Just(StatusAction::Dead)];
        let on_status = proptest::collection::btree_map(100..=599_u16, action, 0..3);
        (backoffs, duration, numbers, on_status, any::<bool>()).prop_map(
            |((a, b), duration, numbers, on_status, all)| RetryPolicy {
                max_attempts: numbers.0,
                min_backoff: a.min(b),
                max_backoff: a.max(b),
                max_doublings: numbers.1,
                max_retry_duration: duration,
                jitter: numbers.2,
                credential_wait_max: a,
                stop_when: if all && duration.is_some() { StopWhen::All } else { StopWhen::Any },
                on_status,
            },
        )
    }

    fn any_queue() -> impl Strategy<Value = QueueConfig> {
        let rate = proptest::option::of(limits::RATE_PER_SECOND_MIN..=limits::RATE_PER_SECOND_MAX);
        let order = proptest::option::of(span_of(limits::BACKOFF_MAX));
        let order = order.prop_map(|span| span.map_or(PriorityOrder::Strict, PriorityOrder::Aging));
        let numbers = (1..=limits::BURST_MAX, 1..=limits::CONCURRENT_MAX, 1..=limits::WEIGHT_MAX);
        let maxima =
            (proptest::option::of(1..=limits::TASKS_KEPT_MAX), proptest::option::of(1..=limits::BYTES_KEPT_MAX));
        (rate, numbers, order, maxima, any_retry(), any_bound(), any_bound()).prop_map(
            |(rate, numbers, order, maxima, retry, retention, dead_letters)| QueueConfig {
                max_dispatches_per_second: rate,
                max_burst_size: numbers.0,
                max_concurrent_dispatches: numbers.1,
                order,
                weight: numbers.2,
                max_tasks: maxima.0,
                max_bytes: maxima.1,
                retry,
                retention,
                dead_letters,
                auth: None,
            },
        )
    }

    fn any_path() -> impl Strategy<Value = PathBuf> {
        prop_oneof![
            "\\PC{1,20}",
            "[ a\u{2028}\u{2029}\u{feff}]{1,4}",
            "[ a:#'\"|>\\-\\[{&*!~0-9.]{1,6}",
            Just("null".to_owned()),
            Just("1.3".to_owned())
        ]
        .prop_map(PathBuf::from)
    }

    /// Files and flags of `server`, `egress`, `hosts` and `logging`, over the default.
    fn any_base() -> impl Strategy<Value = Config> {
        let address = (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
        let tls = proptest::option::of((any_path(), any_path()));
        let overrides = proptest::collection::btree_map("[a-z]{1,9}", 1..=limits::CONCURRENT_MAX, 0..3);
        let paths = (any_path(), any_path(), proptest::collection::vec(any_path(), 0..3));
        let level = prop_oneof![Just("info"), Just("info,[task{id=7}]=trace"), Just("sendoff=debug,warn")];
        (address, tls, overrides, paths, level, any::<bool>()).prop_map(
            |(listen, tls, overrides, paths, level, flag)| {
                let mut config = Config::default();
                config.server.listen = listen;
                config.server.plain_http = flag && listen.ip().is_loopback();
                config.server.public_url = flag.then(|| "https://x.example/y".to_owned());
                (config.server.tls.certificate, config.server.tls.key) = tls.unzip();
                config.server.tls.min_version = if flag { TlsVersion::V1_2 } else { TlsVersion::V1_3 };
                (config.data_dir, config.certs_dir, config.egress.ca_files) = paths;
                config.egress.loopback = listen.ip().to_canonical().is_loopback();
                config.egress.http = flag;
                config.egress.allow_nets = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
                config.egress.deny_hosts = vec!["no.example".to_owned(), "null.example".to_owned()];
                config.metrics.listen = flag.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
                config.logging = LoggingConfig { format: LogFormat::Json, level: level.to_owned() };
                let host = |(name, max_concurrent)| {
                    (LaneName::new(&format!("https://{name}.example:8443")), HostConfig { max_concurrent })
                };
                config.hosts.overrides = overrides.into_iter().map(host).collect();
                config
            },
        )
    }

    fn any_config() -> impl Strategy<Value = Config> {
        let queues = proptest::collection::btree_map("[A-Za-z0-9._-]{1,8}|null|true|1e3", any_queue(), 0..3);
        let sizes =
            (1..=limits::PAYLOAD_BYTES_MAX, proptest::option::of(limits::RESERVE_BYTES_MIN..=limits::BYTES_KEPT_MAX));
        (any_base(), any_queue(), any_queue(), queues, sizes).prop_map(
            |(mut config, defaults, default, mut queues, sizes)| {
                // A queue adds to the statuses of the defaults, so it has at least those.
                queues.insert("default".to_owned(), default);
                for queue in queues.values_mut() {
                    let mut merged = defaults.retry.on_status.clone();
                    merged.append(&mut queue.retry.on_status);
                    queue.retry.on_status = merged;
                }
                config.queues =
                    queues.into_iter().map(|(name, queue)| (QueueName::parse(&name).unwrap(), queue)).collect();
                config.queue_defaults = defaults;
                config.credentials = credentials();
                let has_url = config.server.public_url.is_some();
                config.credentials.retain(|_, one| has_url || !matches!(one.kind, CredentialKind::Oidc { .. }));
                config.queue_defaults.auth = config.credentials.keys().next().cloned();
                (config.payload_bytes_max, config.storage.reserve) = sizes;
                config.callers = callers();
                config.server.tls.client_ca = Some("a: b".into());
                config.server.plain_http = false;
                config
            },
        )
    }

    /// One issuer with everything, and one with as little as may be.
    fn callers() -> CallersConfig {
        let text = "callers:
  jwt:
    a.b: {issuer: \"https://a.example/x/\", audience: [\"null\", \"1\"], jwks_url: \"http://127.0.0.1:9/k\",
          algorithms: [EdDSA, RS256], grants: {\"1\": {claim: \"/a/b: c\", value: \"*\", scopes: [admin, \"read:m*\"]}}}
    least: {issuer: \"https://b.example\", audience: [a]}
  certificates:
    a.b: {san: \"uri:spiffe://a/B: #*\", scopes: [enqueue, \"read:m*\"]}
    c: {san: \"dns:*\", scopes: [metrics]}
server: {tls: {client_ca: a}}
";
        load_with(text, &[], Flags::default()).unwrap().config.callers
    }

    /// One of each kind.
    fn credentials() -> BTreeMap<CredentialName, CredentialConfig> {
        let text = "server: {public_url: \"https://a.example\"}
credentials:
  bearer: {kind: bearer, token: \"env:TOKEN\", hosts: [a.example, \"*.b.example:8443\", \"*:*\"]}
  basic: {kind: basic, username: \"null\", password: \"file:a: b\", allow_plain_http: true}
  header: {kind: header, name: X-Key, value: \"env:KEY\"}
  post: {kind: oauth2_client_credentials, token_url: \"https://a.example/t?x=1\", client_id: \"7\", scopes: [a, \"1\"],
         client_auth: client_secret_post, client_secret: \"env:S\", audience: \"null\"}
  jwt: {kind: oauth2_client_credentials, token_url: \"https://a.example/t\", client_id: me,
        client_auth: private_key_jwt, private_key: \"file:k\", key_id: \"1\"}
  identity-mtls: {kind: mtls, certificate: \"file:c\", private_key: \"env:K\"}
  signed: {kind: standard_webhooks, secrets: [\"env:A\", \"file:b: c\"]}
  all: {kind: header, name: X-Also, value: \"env:KEY\", also: [identity-mtls, signed, basic]}
  access: {kind: service_account, key: \"file:k\", scopes: [a]}
  identity: {kind: service_account, key: \"file:k\", audience: \"https://a.example\"}
  own: {kind: oidc}
  own_for: {kind: oidc, audience: \"null\"}
";
        load_with(text, &[], Flags::default()).unwrap().config.credentials
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_shown_loads_again_to_the_same(config in any_config()) {
            let loaded = Loaded { config, file: None, origins: std::collections::BTreeMap::new() };
            let shown = show(&loaded);
            let again = load_with(&shown, &[], Flags::default());
            let again = again.map_err(|faults| TestCaseError::fail(format!("{faults}\n{shown}")))?;
            prop_assert_eq!(&again.config, &loaded.config, "{}", shown);
            // Shown a second time, now with a comment on every line.
            let twice = load_with(&show(&again), &[], Flags::default()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(twice.config, loaded.config);
        }
    }
}
