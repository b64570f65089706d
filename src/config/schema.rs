//! `config schema`: the JSON Schema (2020-12) of `config.yaml`, for editors that complete and check while one types.
//!
//! Nothing is said twice. Which keys there are comes from [`shape`](super::shape), bounds from [`limits`], defaults from
//! [`Config::default`], descriptions from the comments of the documented `config.yaml`. The one table here says of what
//! kind each value is. Tests hold it to what `validate` takes.
//!
//! A schema sees one value at a time, so it lets some things pass that `config check` refuses: bounds of durations and
//! sizes written with a unit, and what values must be to each other.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::callers;
use super::credential;
use super::fault::child;
use super::load::Loaded;
use super::model::Config;
use super::shape::{ROOT, Shape};
use super::show::show;
use crate::task::{Span, limits};

/// The documented default; its comments describe the keys.
const DOCUMENTED: &str = include_str!("../../config.yaml");

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What [`Span::parse`] reads.
const SPAN: &str =
    r"^(\d+(\.\d+)?|(?=\d)(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?(\d+(\.\d+)?ms)?)$";
/// A size with one of the units of [`super::value`].
const SIZE: &str = r"^\d+(B|[KMGT]i?B|kB)?$";
/// An address, of either family, and a port.
const SOCKET: &str = r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]):\d{1,5}$";
const WEB_URL: &str = "^[Hh][Tt][Tt][Pp][Ss]?://[^?#@ ]+$";
const NAME: &str = "^[A-Za-z0-9._-]{1,128}$";
const SCOPE: &str = "^(enqueue|read|read_payload|manage|redrive|metrics|admin)(:[A-Za-z0-9._*-]{1,128})?$";
const REFERENCE: &str = "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$";
const STATUS: &str = "^[1-5][0-9][0-9]$";

/// Of what kind a value is. Bounds are included.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Whole(u64, u64),
    Number(f64, f64),
    Truth,
    Words(&'static [&'static str]),
    Span(Span, Span),
    /// A duration, or this word.
    SpanOr(&'static str, Span, Span),
    /// In bytes.
    Size(u64, u64),
    Path,
    Socket,
    WebUrl,
    Level,
    /// A network, an address or a host name.
    EgressEntry,
    /// A text that callers' tokens are compared with.
    CallerText,
    /// A scope, perhaps limited to queues.
    ScopeText,
    /// A pattern for a name in a certificate.
    San,
    /// A host or a pattern for hosts, with or without a port.
    HostPattern,
    /// The name of a credential.
    Name,
    /// A text that is no secret.
    Text,
    /// Where a secret is found.
    Reference,
}

use Kind::{
    CallerText, EgressEntry, HostPattern, Level, Name, Number, Path, Reference, San, ScopeText, Size, Socket, SpanOr,
    Text, Truth, WebUrl, Whole, Words,
};

const MS: Span = Span::from_millis(1);
const ZERO: Span = Span::from_millis(0);
const ACTIONS: Kind = Words(&["done", "retry", "dead"]);

/// Every value by its path, whether it may be null, and its kind; `*` is a name that the user chooses.
const VALUES: &[(&str, bool, Kind)] = &[
    ("server.listen", false, Socket),
    ("server.public_url", true, WebUrl),
    ("server.shutdown_grace", false, Kind::Span(ZERO, limits::SHUTDOWN_GRACE_MAX)),
    ("server.plain_http", false, Truth),
    ("server.tls.certificate", true, Path),
    ("server.tls.key", true, Path),
    ("server.tls.client_ca", true, Path),
    ("server.tls.min_version", false, Words(&["1.2", "1.3"])),
    ("data_dir", false, Path),
    ("certs_dir", false, Path),
    (
        "queue_defaults.max_dispatches_per_second",
        true,
        Number(limits::RATE_PER_SECOND_MIN, limits::RATE_PER_SECOND_MAX),
    ),
    ("queue_defaults.max_burst_size", false, Whole(1, limits::BURST_MAX as u64)),
    ("queue_defaults.max_concurrent_dispatches", false, Whole(1, limits::CONCURRENT_MAX as u64)),
    ("queue_defaults.priority_aging", false, SpanOr("strict", MS, limits::BACKOFF_MAX)),
    ("queue_defaults.weight", false, Whole(1, limits::WEIGHT_MAX as u64)),
    ("queue_defaults.max_tasks", true, Whole(1, limits::TASKS_KEPT_MAX)),
    ("queue_defaults.max_bytes", true, Size(1, limits::BYTES_KEPT_MAX)),
    ("queue_defaults.retry.max_attempts", false, Whole(1, limits::ATTEMPTS_MAX as u64)),
    ("queue_defaults.retry.min_backoff", false, Kind::Span(ZERO, limits::BACKOFF_MAX)),
    ("queue_defaults.retry.max_backoff", false, Kind::Span(ZERO, limits::BACKOFF_MAX)),
    ("queue_defaults.retry.max_doublings", false, Whole(0, limits::DOUBLINGS_MAX as u64)),
    ("queue_defaults.retry.max_retry_duration", true, Kind::Span(MS, limits::BACKOFF_MAX)),
    ("queue_defaults.retry.jitter", false, Number(0.0, 1.0)),
    ("queue_defaults.retry.stop_when", false, Words(&["any", "all"])),
    ("queue_defaults.retry.credential_wait_max", false, Kind::Span(ZERO, limits::BACKOFF_MAX)),
    ("queue_defaults.retry.on_status.*", false, ACTIONS),
    ("queue_defaults.retention.age", true, Kind::Span(ZERO, limits::AGE_KEPT_MAX)),
    ("queue_defaults.retention.count", true, Whole(0, limits::TASKS_KEPT_MAX)),
    ("queue_defaults.retention.bytes", true, Size(0, limits::BYTES_KEPT_MAX)),
    ("queue_defaults.dead_letters.age", true, Kind::Span(ZERO, limits::AGE_KEPT_MAX)),
    ("queue_defaults.dead_letters.count", true, Whole(0, limits::TASKS_KEPT_MAX)),
    ("queue_defaults.dead_letters.bytes", true, Size(0, limits::BYTES_KEPT_MAX)),
    ("queue_defaults.auth", true, Name),
    ("workers.max_concurrent", false, Whole(1, limits::CONCURRENT_MAX as u64)),
    ("hosts.defaults.max_concurrent", false, Whole(1, limits::CONCURRENT_MAX as u64)),
    ("egress.allow", false, EgressEntry),
    ("egress.deny", false, EgressEntry),
    ("egress.http", false, Truth),
    ("egress.ca_files", false, Path),
    ("callers.jwt.*.issuer", false, WebUrl),
    ("callers.jwt.*.audience", false, CallerText),
    ("callers.jwt.*.jwks_url", true, WebUrl),
    ("callers.jwt.*.algorithms", false, Words(&callers::ALGORITHM_WORDS)),
    ("callers.jwt.*.grants.*.claim", false, CallerText),
    ("callers.jwt.*.grants.*.value", false, CallerText),
    ("callers.jwt.*.grants.*.scopes", false, ScopeText),
    ("callers.certificates.*.san", false, San),
    ("callers.certificates.*.scopes", false, ScopeText),
    ("credentials.*.kind", false, Words(&credential::KINDS)),
    ("credentials.*.hosts", false, HostPattern),
    ("credentials.*.allow_plain_http", false, Truth),
    ("credentials.*.also", false, Name),
    ("credentials.*.token", false, Reference),
    ("credentials.*.username", false, Text),
    ("credentials.*.password", false, Reference),
    ("credentials.*.name", false, Text),
    ("credentials.*.value", false, Reference),
    ("credentials.*.token_url", false, WebUrl),
    ("credentials.*.client_id", false, Text),
    ("credentials.*.client_auth", false, Words(&["client_secret_basic", "client_secret_post", "private_key_jwt"])),
    ("credentials.*.client_secret", false, Reference),
    ("credentials.*.private_key", false, Reference),
    ("credentials.*.key_id", false, Text),
    ("credentials.*.scopes", false, Text),
    ("credentials.*.audience", false, Text),
    ("credentials.*.key", false, Reference),
    ("credentials.*.certificate", false, Reference),
    ("credentials.*.secrets", false, Reference),
    ("credentials_key", true, Reference),
    ("limits.payload_bytes", false, Size(1, limits::PAYLOAD_BYTES_MAX)),
    ("storage.reserve", true, Size(limits::RESERVE_BYTES_MIN, limits::BYTES_KEPT_MAX)),
    ("logging.format", false, Words(&["auto", "text", "json"])),
    ("logging.level", false, Level),
    ("metrics.listen", true, Socket),
];

/// The schema, as `sendoff config schema` prints it.
pub fn schema() -> Value {
    let everything = Loaded { config: Config::default(), file: None, origins: BTreeMap::new() };
    // What `show` writes is YAML that loads to the same; an error would leave defaults out, which a test would see.
    let defaults = serde_yaml::from_str::<Value>(&show(&everything)).unwrap_or_default();
    let writer = Writer { descriptions: descriptions(DOCUMENTED) };
    let mut root = writer.of(&ROOT, "", Some(&defaults));
    root.insert("$schema".to_owned(), DIALECT.into());
    root.insert("title".to_owned(), "config.yaml of sendoff".into());
    root.insert("description".to_owned(), writer.described("").into());
    Value::Object(root)
}

/// Turns shapes into schemas.
struct Writer {
    descriptions: BTreeMap<String, String>,
}

impl Writer {
    /// The schema of what stands at `path`. `default`: the default there; `None` where another key decides it.
    fn of(&self, shape: &Shape, path: &str, default: Option<&Value>) -> Map<String, Value> {
        let of_a_name = path.ends_with(".*");
        let path = &origin(path);
        let mut schema = match shape {
            Shape::Value => value(path),
            Shape::List => list(path),
            Shape::Section(keys) => {
                let properties = keys.iter().map(|(key, shape)| {
                    let default = default.and_then(|default| default.get(key));
                    ((*key).to_owned(), Value::Object(self.of(shape, &child(path, key), default)))
                });
                let properties = Value::Object(properties.collect());
                object(json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false}))
            }
            Shape::Named(each) => named(path, &self.of(each, &format!("{path}.*"), None)),
        };
        if !path.is_empty() && !of_a_name {
            schema.insert("description".to_owned(), self.described(path).into());
        }
        if let (Some(default), Shape::Value | Shape::List | Shape::Named(_)) = (default, shape) {
            schema.insert("default".to_owned(), default.clone());
        }
        schema
    }

    fn described(&self, path: &str) -> String {
        // The documented file has no credential and no caller whose keys could be described there.
        let of_credential = path.strip_prefix("credentials.*.").and_then(|key| {
            let told = credential::DESCRIBED.iter().find(|(known, _)| *known == key).map(|(_, told)| *told)?;
            let is_secret = matches!(kind(path), Some((_, Reference)));
            Some(if is_secret { format!("{told} Where it is found: env:NAME or file:PATH.") } else { told.to_owned() })
        });
        let of_callers =
            || callers::DESCRIBED.iter().find(|(known, _)| *known == path).map(|(_, told)| (*told).to_owned());
        of_credential.or_else(of_callers).or_else(|| self.descriptions.get(path).cloned()).unwrap_or_default()
    }
}

/// The path under which a key is documented: a queue has the keys of `queue_defaults`, a host those of `hosts.defaults`.
fn origin(path: &str) -> String {
    path.replace("queues.*", "queue_defaults").replace("hosts.overrides.*", "hosts.defaults")
}

fn kind(path: &str) -> Option<(bool, Kind)> {
    VALUES.iter().find(|(known, ..)| *known == path).map(|(_, nullable, kind)| (*nullable, *kind))
}

fn value(path: &str) -> Map<String, Value> {
    let Some((nullable, kind)) = kind(path) else { return Map::new() };
    let plain = kind.schema();
    if !nullable {
        return object(plain);
    }
    let mut schema = object(json!({"anyOf": [plain.clone(), {"type": "null"}]}));
    // One choice, not a choice within a choice.
    if let Some(Value::Array(ways)) = plain.get("anyOf") {
        let ways = ways.iter().cloned().chain([json!({"type": "null"})]).collect();
        schema.insert("anyOf".to_owned(), Value::Array(ways));
    }
    schema
}

fn list(path: &str) -> Map<String, Value> {
    let items = kind(path).map(|(_, kind)| kind.schema()).unwrap_or_default();
    let most = match path {
        "callers.jwt.*.audience" => limits::CALLER_AUDIENCES_MAX,
        "callers.jwt.*.algorithms" => callers::ALGORITHM_WORDS.len(),
        "callers.jwt.*.grants.*.scopes" | "callers.certificates.*.scopes" => limits::KEY_SCOPES_MAX,
        "credentials.*.hosts" => limits::CREDENTIAL_HOSTS_MAX,
        "credentials.*.scopes" => limits::CREDENTIAL_SCOPES_MAX,
        "credentials.*.also" => limits::CREDENTIAL_ALSO_MAX,
        "credentials.*.secrets" => limits::CREDENTIAL_SECRETS_MAX,
        _ => limits::EGRESS_ENTRIES_MAX,
    };
    object(json!({"type": ["array", "null"], "items": items, "maxItems": most}))
}

/// A map whose keys are the user's names, each of which has the schema `each`.
fn named(path: &str, each: &Map<String, Value>) -> Map<String, Value> {
    let (names, most) = match path {
        "queues" => (NAME, limits::QUEUES_MAX),
        "callers.certificates" => (NAME, limits::CERTIFICATE_GRANTS_MAX),
        "callers.jwt" => (NAME, limits::CALLER_ISSUERS_MAX),
        "callers.jwt.*.grants" => (NAME, limits::CALLER_GRANTS_MAX),
        "credentials" => (NAME, limits::CREDENTIALS_MAX),
        "hosts.overrides" => (WEB_URL, limits::HOST_OVERRIDES_MAX),
        _ => (STATUS, 500),
    };
    object(json!({
        "type": ["object", "null"], "propertyNames": {"pattern": names}, "maxProperties": most,
        "additionalProperties": each,
    }))
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Whole(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Number(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
            Truth => json!({"type": "boolean"}),
            // YAML reads an unquoted 1.3 as a number; it is meant as the word.
            Words(words) => {
                let numbers = words.iter().filter_map(|word| word.parse::<f64>().ok()).map(Value::from);
                json!({"enum": words.iter().map(|word| Value::from(*word)).chain(numbers).collect::<Vec<_>>()})
            }
            Self::Span(min, max) => json!({"anyOf": spans(min, max)}),
            SpanOr(word, min, max) => {
                let mut ways = vec![json!({"const": word})];
                ways.extend(spans(min, max));
                json!({"anyOf": ways})
            }
            Size(min, max) => json!({"anyOf": [
                {"type": "string", "pattern": SIZE}, {"type": "integer", "minimum": min, "maximum": max},
            ]}),
            Path => json!({"type": "string", "minLength": 1, "maxLength": limits::PATH_LEN_MAX}),
            Socket => json!({"type": "string", "pattern": SOCKET}),
            WebUrl => json!({"type": "string", "pattern": WEB_URL, "maxLength": limits::TARGET_URL_LEN_MAX}),
            // A level completes; what has more in it is a filter.
            Level => json!({"anyOf": [
                {"enum": ["error", "warn", "info", "debug", "trace", "off"]},
                {"type": "string", "pattern": r"[=,\[A-Z]"},
            ]}),
            EgressEntry => json!({"type": "string", "pattern": "^[^*@ ]+$"}),
            CallerText => json!({"type": "string", "minLength": 1, "maxLength": limits::CALLER_TEXT_LEN_MAX}),
            San => json!({"type": "string", "pattern": "^(dns|uri|email):.+$"}),
            ScopeText => json!({"type": "string", "pattern": SCOPE}),
            HostPattern => json!({"type": "string", "pattern": "^[^/@ ]+$"}),
            Name => json!({"type": "string", "pattern": NAME}),
            Text => json!({"type": "string", "minLength": 1, "maxLength": limits::CREDENTIAL_TEXT_LEN_MAX}),
            Reference => json!({"type": "string", "pattern": REFERENCE}),
        }
    }
}

/// A duration with units, or a number of seconds.
fn spans(min: Span, max: Span) -> [Value; 2] {
    let (min, max) = (min.to_duration().as_secs_f64(), max.to_duration().as_secs_f64());
    [json!({"type": "string", "pattern": SPAN}), json!({"type": "number", "minimum": min, "maximum": max})]
}

/// What `json!({…})` made.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// The comment right above each key of a YAML text, by the key's path; the path "" has the first comment of all.
fn descriptions(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(said) = bare.strip_prefix('#') {
            let said = said.trim();
            if !said.starts_with("yaml-language-server:") {
                comment.push(said);
            }
            continue;
        }
        let sentences = std::mem::take(&mut comment).join(" ");
        if found.is_empty() {
            found.insert(String::new(), sentences.split("  ").next().unwrap_or_default().to_owned());
        }
        let Some((key, _)) = bare.split_once(':') else { continue };
        let depth = line.len() - bare.len();
        above.retain(|(outer, _)| *outer < depth);
        let path = above.last().map_or_else(|| key.to_owned(), |(_, outer)| child(outer, key));
        found.insert(path.clone(), sentences);
        above.push((depth, path));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Flags;
    use super::super::shape::fixed_paths;
    use super::super::tests::load_with;
    use super::*;

    fn validator() -> jsonschema::Validator {
        jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema()).unwrap()
    }

    /// The schema at `path` below `at`.
    fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
        path.split('.').fold(schema, |schema, key| match key {
            "*" => &schema["additionalProperties"],
            key => &schema["properties"][key],
        })
    }

    /// What the schema says of this YAML, and what `config check` says.
    fn both(text: &str) -> (bool, bool) {
        let value: Value = serde_yaml::from_str(text).unwrap();
        (validator().is_valid(&value), load_with(text, &[], Flags::default()).is_ok())
    }

    #[test]
    fn it_is_a_schema_itself() {
        jsonschema::meta::validate(&schema()).unwrap();
    }

    #[test]
    fn every_key_is_there_with_its_kind_and_its_description() {
        let schema = schema();
        for path in fixed_paths() {
            let found = at(&schema, &path);
            let told = found["description"].as_str().unwrap_or_default();
            assert!(told.len() > 20, "config.yaml does not describe {path}: {found}");
            let kind = ["type", "enum", "anyOf"].iter().any(|word| found.get(word).is_some());
            assert!(kind, "of what kind is {path}? {found}");
            assert!(found.get("default").is_some(), "what is the default of {path}? {found}");
            let mut outer = path.as_str();
            while let Some((above, _)) = outer.rsplit_once('.') {
                let told = at(&schema, above)["description"].as_str().unwrap_or_default();
                assert!(!told.is_empty(), "config.yaml does not describe {above}");
                outer = above;
            }
        }
        for (path, ..) in VALUES {
            assert!(!at(&schema, path).is_null(), "{path} is not a key");
        }
    }

    #[test]
    fn what_a_queue_and_a_host_may_say_is_what_their_defaults_may() {
        let schema = schema();
        for path in fixed_paths() {
            let one = path.strip_prefix("queue_defaults.").map(|key| format!("queues.*.{key}"));
            let one =
                one.or_else(|| path.strip_prefix("hosts.defaults.").map(|key| format!("hosts.overrides.*.{key}")));
            let Some(one) = one else { continue };
            let (mut general, mut one) = (at(&schema, &path).clone(), at(&schema, &one).clone());
            general.as_object_mut().unwrap().remove("default");
            assert_eq!(one.as_object_mut().unwrap().remove("default"), None, "it depends on {path}");
            assert_eq!(one, general, "{path}");
        }
    }

    #[test]
    fn its_defaults_are_the_defaults() {
        fn defaults(schema: &Value) -> Value {
            match (&schema["default"], schema["properties"].as_object()) {
                (_, Some(keys)) => keys.iter().map(|(key, schema)| (key.clone(), defaults(schema))).collect(),
                (default, None) => default.clone(),
            }
        }
        let text = defaults(&schema()).to_string();
        let loaded = load_with(&text, &[], Flags::default()).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(both(&text), (true, true));
    }

    #[test]
    fn it_takes_the_documented_default_and_what_is_shown() {
        assert_eq!(both(DOCUMENTED), (true, true));
        let rich = "server: {listen: \"[::1]:0\", tls: {certificate: a, key: b, min_version: 1.2}, shutdown_grace: 1.5}
queues: {mail: {priority_aging: strict, max_bytes: 5GiB, retry: {on_status: {\"404\": done}}}, empty: }
hosts: {overrides: {\"https://a.example:443\": {max_concurrent: 2}}}
egress: {allow: [10.0.0.0/8, a.example, \"::1\"], deny: }
logging: {level: \"info,sendoff::queue=debug\"}
callers: {jwt: {a: {issuer: \"https://a.example\", audience: [b], algorithms: [ES256], grants: {c: {claim: d, value: \"e*\", scopes: [\"read:f*\"]}}}}}
credentials: {billing: {kind: bearer, token: \"env:T\", hosts: [\"*.a.example:*\"]}, key: {kind: header, name: X-K, value: \"file:k\"}}
storage:
";
        assert_eq!(both(rich), (true, true));
        let shown = show(&load_with(rich, &[], Flags::default()).unwrap());
        assert_eq!(both(&shown), (true, true), "{shown}");
    }

    #[test]
    fn it_refuses_what_config_check_refuses() {
        for text in [
            "servr: {}",
            "server: {lisen: x}",
            "server: {listen: \"localhost:80\"}",
            "server: {listen: \":80\"}",
            "server: {public_url: example.com}",
            "server: {plain_http: \"yes\"}",
            "server: {shutdown_grace: soon}",
            "server: {shutdown_grace: 1h1d}",
            "server: {shutdown_grace: 3601}",
            "server: {tls: {min_version: \"1.1\"}}",
            "server: [a]",
            "data_dir: \"\"",
            "data_dir: null",
            "queues: {\"bad name\": {}}",
            "queues: {mail: {weight: \"5\"}}",
            "queues: {mail: {retry: {on_status: {\"4040\": retry}}}}",
            "queues: {mail: {retry: {on_status: {\"404\": again}}}}",
            "queues: {mail: {max_bytes: 1mib}}",
            "queue_defaults: {weight: null}",
            "hosts: {overrides: {a.example: {}}}",
            "egress: {allow: [\"*.example.com\"]}",
            "egress: {allow: a.example}",
            "server: {tls: {client_ca: a}}\ncallers: {certificates: {a: {san: a.example, scopes: [read]}}}",
            "callers: {jwt: {a: {issuer: a.example, audience: [b]}}}",
            "callers: {jwt: {a: {issuer: \"https://a.example\", audience: [b], algorithms: [HS256]}}}",
            "callers: {jwt: {a: {issuer: \"https://a.example\", audience: [b], algorithms: [none]}}}",
            "callers: {jwt: {a: {issuer: \"https://a.example\", audience: [b], grants: {c: {claim: d, value: e, scopes: [write]}}}}}",
            "credentials: {billing: {kind: beaer, token: \"env:T\"}}",
            "credentials: {billing: {kind: bearer, token: secret}}",
            "credentials: {billing: {kind: bearer, token: \"env:T\", hosts: [\"https://a/\"]}}",
            "credentials: {\"bad name\": {}}",
            "queue_defaults: {auth: \"bad name\"}",
            "logging: {level: inof}",
            "logging: {format: ecs}",
            "metrics: {listen: 9090}",
        ] {
            assert_eq!(both(text), (false, false), "{text}");
        }
    }

    #[test]
    fn its_bounds_are_the_bounds() {
        let schema = schema();
        for (path, _, kind) in VALUES {
            let values = match *kind {
                Whole(min, max) | Size(min, max) => {
                    let (min, max) = (min.cast_signed(), max.cast_signed());
                    [min - 1, min, max, max + 1].map(Value::from)
                }
                Number(min, max) => [min - 0.000_001, min, max, max + 0.000_001].map(Value::from),
                Kind::Span(min, max) | SpanOr(_, min, max) => {
                    let (min, max) = (min.to_duration().as_secs_f64(), max.to_duration().as_secs_f64());
                    [min - 0.001, min, max, max + 0.001].map(Value::from)
                }
                Truth | Words(_) | Path | Socket | WebUrl | Level | EgressEntry | HostPattern | Name | Text
                | Reference | CallerText | San | ScopeText => {
                    continue;
                }
            };
            let validator = jsonschema::validator_for(at(&schema, path)).unwrap();
            // The two ends of a backoff must not cross.
            let other = match path.rsplit('.').next() {
                Some("min_backoff") => ("SENDOFF_QUEUE_DEFAULTS__RETRY__MAX_BACKOFF", "366d"),
                _ => ("SENDOFF_QUEUE_DEFAULTS__RETRY__MIN_BACKOFF", "0s"),
            };
            let taken = values.clone().map(|value| {
                let text = path.rsplit('.').fold(value.to_string(), |inner, key| format!("{{\"{key}\": {inner}}}"));
                load_with(&text, &[other], Flags::default()).is_ok()
            });
            assert_eq!(taken, [false, true, true, false], "{path}");
            assert_eq!(values.map(|value| validator.is_valid(&value)), taken, "{path}");
        }
    }

    #[test]
    fn the_committed_schema_is_this_one() {
        let committed: Value = serde_json::from_str(include_str!("../../docs/config.schema.json")).unwrap();
        assert!(committed == schema(), "write it anew: cargo run -- config schema > docs/config.schema.json");
    }

    #[test]
    fn comments_belong_to_the_key_below_them() {
        let text = "# All of it.\n#\n# More.\n\n# One\n# thing.\na:\n  # Inner.\n  b: 1\n  c: 2\n# Last.\nd: {}\n";
        let found = descriptions(text);
        let told: Vec<(&str, &str)> = found.iter().map(|(path, told)| (path.as_str(), told.as_str())).collect();
        assert_eq!(told, [("", "All of it."), ("a", "One thing."), ("a.b", "Inner."), ("a.c", ""), ("d", "Last.")]);
    }
}
