//! The whole way, from texts to a [`Config`] or its faults, as a user sees it.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::task::limits;
use crate::task::outcome::StatusAction;
use crate::task::{LaneName, PriorityOrder, QueueName, Span};

/// Loads `text` as `config.yaml` with these variables.
pub(super) fn load_with(text: &str, env: &[(&str, &str)], flags: Flags) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let prefix = format!("{}/", dir.path().display());
    load(&Sources { file: FileSource::Given(file), env, flags })
        .map_err(|faults| faults.to_string().replace(&prefix, ""))
}

fn file(text: &str) -> Result<Config, String> {
    load_with(text, &[], Flags::default()).map(|loaded| loaded.config)
}

fn env(variables: &[(&str, &str)]) -> Result<Config, String> {
    load_with("", variables, Flags::default()).map(|loaded| loaded.config)
}

/// The faults alone, without the lines around them.
fn faults<T: std::fmt::Debug>(result: Result<T, String>) -> Vec<String> {
    let text = result.unwrap_err();
    text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

fn queue_name(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(file("").unwrap(), Config::default());
    assert_eq!(file("# nothing\n---\n").unwrap(), Config::default());
    let missing =
        Sources { file: FileSource::Default("/nowhere/config.yaml".into()), env: vec![], flags: Flags::default() };
    let loaded = load(&missing).unwrap();
    assert_eq!((loaded.config, loaded.file), (Config::default(), None));
}

#[test]
fn the_documented_default_is_the_default_and_names_every_key() {
    let text = include_str!("../../config.yaml");
    let loaded = load_with(text, &[], Flags::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    for path in shape::fixed_paths() {
        let given = loaded.origins.contains_key(&path);
        let empty_map = matches!(
            path.as_str(),
            "queues"
                | "queue_defaults.retry.on_status"
                | "hosts.overrides"
                | "callers.jwt"
                | "callers.certificates"
                | "credentials"
        );
        assert!(given || empty_map, "config.yaml does not name {path}");
        let key = path.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{key}:")), "{path}");
    }
    let mut before = "";
    for line in text.lines() {
        let value = line.contains(": ") && !line.contains('#') && line != "  default: {}";
        assert!(!value || before.trim_start().starts_with('#'), "a value without a comment: {line}");
        before = line;
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let text = "\
server:
  lisen: 0.0.0.0:8443
  plain_http: yes
  tls: { certificate: a.pem }
data_dir: 5
data_dir: 6
queue_defaults:
  weight: 0
  retry: { min_backoff: 2h }
queues:
  mail:
    retry:
      jitter: 1.5
      on_status: { 4040: retry, 404: again }
  bad name: {}
hosts:
  overrides:
    api.example.com: { max_concurrent: 8 }
egress: { allow: [10.0.0.1/8, ok.example.com], deny: none }
limits: { payload_bytes: 11MiB }
logging: { level: inof }
handlers: {}
";
    let variables = [("SENDOFF_WORKERS__MAX_CONCURENT", "5"), ("SENDOFF_STORAGE__RESERVE", "1MiB")];
    let flags = Flags { listen: Some("localhost:1".to_owned()), ..Flags::default() };
    insta::assert_snapshot!(load_with(text, &variables, flags).unwrap_err());
}

#[test]
fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
    let text = "data_dir: file\ncerts_dir: file\nserver: {listen: \"127.0.0.1:1\", shutdown_grace: 5s}\n";
    let variables =
        [("SENDOFF_DATA_DIR", "env"), ("SENDOFF_CERTS_DIR", "env"), ("SENDOFF_SERVER__LISTEN", "127.0.0.1:2")];
    let flags = Flags { certs_dir: Some("flag".into()), listen: Some("127.0.0.1:3".into()), ..Flags::default() };
    let loaded = load_with(text, &variables, flags).unwrap();
    assert_eq!(loaded.config.data_dir, PathBuf::from("env"));
    assert_eq!(loaded.config.certs_dir, PathBuf::from("flag"));
    assert_eq!(loaded.config.server.listen.port(), 3);
    assert_eq!(loaded.config.server.shutdown_grace, Span::from_secs(5));
    let shown = show(&loaded);
    assert!(shown.contains("\ndata_dir: env  # environment SENDOFF_DATA_DIR\n"), "{shown}");
    assert!(shown.contains("\ncerts_dir: flag  # flag --certs-dir\n"), "{shown}");
    assert!(shown.contains("  listen: 127.0.0.1:3  # flag --listen\n"), "{shown}");
    assert!(shown.contains("config.yaml:3\n"), "{shown}");
}

#[test]
fn variables_reach_every_kind_of_key() {
    let config = env(&[
        ("SENDOFF_QUEUES__DEFAULT__WEIGHT", "3"),
        ("SENDOFF_QUEUES", "mail: {max_burst_size: 7}\nnews:\n"),
        ("SENDOFF_EGRESS__ALLOW", "[10.0.0.0/8, a.example]"),
        ("SENDOFF_QUEUES__MAIL__RETRY__ON_STATUS__404", "retry"),
        ("SENDOFF_HOSTS__OVERRIDES", "{\"https://a.example\": {max_concurrent: 2}}"),
        ("SENDOFF_METRICS__LISTEN", ""),
        ("SENDOFF_URL", "https://elsewhere"),
        ("SENDOFF_KEY", "so_x"),
        ("SENDOFF_CA", "ca.pem"),
        ("SENDOFF_PORT", "tcp://10.0.0.1:8443"),
        ("SENDOFF_PORT_8443_TCP_ADDR", "10.0.0.1"),
        ("SENDOFF_SERVICE_HOST", "10.0.0.1"),
        ("SENDOFF_SERVICE_PORT_HTTPS", "8443"),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!(config.queues.len(), 3);
    assert_eq!(config.queues[&queue_name("default")].weight, 3);
    assert_eq!(config.queues[&queue_name("mail")].max_burst_size, 7);
    assert_eq!(config.queues[&queue_name("mail")].retry.on_status, [(404, StatusAction::Retry)].into());
    assert_eq!((config.egress.allow_nets.len(), config.egress.allow_hosts.len()), (1, 1));
    assert_eq!(config.hosts.overrides[&LaneName::new("https://a.example:443")].max_concurrent, 2);
}

#[test]
fn unknown_variables_are_faults_that_name_the_nearest() {
    let fault = |name: &str| faults(env(&[(name, "1")])).join("\n");
    for (given, near) in [
        ("SENDOFF_DATADIR", "SENDOFF_DATA_DIR"),
        ("SENDOFF_SERVER_LISTEN", "SENDOFF_SERVER__LISTEN"),
        ("SENDOFF_SERVR__LISEN", "SENDOFF_SERVER__LISTEN"),
        ("SENDOFF_QUEUES__MAIL__WIEGHT", "SENDOFF_QUEUES__MAIL__WEIGHT"),
    ] {
        assert_eq!(fault(given), format!("environment {given}: unknown variable; did you mean {near}?"));
    }
    assert!(fault("SENDOFF_CONFIG").ends_with("the file is named by the flag --config"));
    assert!(fault("SENDOFF_PORT").contains("unknown variable"));
    assert!(fault("SENDOFF_QUEUES____WEIGHT").contains("unknown variable"));
    assert!(fault("SENDOFF_").contains("unknown variable"));
    assert!(fault("SENDOFF_data_dir").ends_with("names are written in capitals: SENDOFF_DATA_DIR"));
    assert!(faults(env(&[("SENDOFF_DATA_DIR", "a\u{fffd}")])).join("").ends_with("not valid UTF-8"));
    assert!(
        faults(env(&[("SENDOFF_QUEUES", "[a")])).join("").contains("environment SENDOFF_QUEUES: queues: no valid YAML")
    );
    assert!(faults(env(&[("SENDOFF_QUEUES", "{mail: {wait: 1}}")])).join("").contains("queues.mail.wait: unknown key"));
    assert!(
        faults(env(&[("SENDOFF_DATA_DIR", "")])).join("").ends_with("got nothing, expected a path of 1 to 4096 bytes")
    );
}

#[test]
fn queues_inherit_and_may_take_back() {
    let config = file(
        "queue_defaults: {weight: 4, max_tasks: 5, retention: {age: 0}, retry: {max_attempts: 3, on_status: {404: retry}}}
queues:
  a: {max_tasks: null, priority_aging: strict, retry: {on_status: {410: done}}}
  b:
",
    )
    .unwrap();
    let (a, b) = (&config.queues[&queue_name("a")], &config.queues[&queue_name("b")]);
    assert_eq!((a.weight, a.max_tasks, a.order), (4, None, PriorityOrder::Strict));
    assert_eq!((a.retry.max_attempts, a.retry.on_status.len()), (3, 2));
    assert_eq!(b, &config.queue_defaults);
    assert_eq!(config.queues[&queue_name("default")], config.queue_defaults);
    assert_eq!((b.retention.age, b.retention.count), (Some(Span::from_millis(0)), Some(100_000)));
}

#[test]
fn a_retry_policy_is_checked_as_it_will_be_in_force() {
    assert_eq!(
        faults(file(
            "queue_defaults: {retry: {max_backoff: 10s}}\nqueues:\n  a: {retry: {min_backoff: 11s}}\n  b: {}\n"
        )),
        ["config.yaml:3: queues.a.retry: min_backoff (11s) must not be longer than max_backoff (10s)"]
    );
    assert_eq!(faults(file("queue_defaults: {retry: {stop_when: all}}\nqueues: {a: {weight: 2}}\n")).len(), 1);
    assert!(file("queue_defaults: {retry: {stop_when: all, max_retry_duration: 1h}}\n").is_ok());
}

#[test]
fn what_values_must_be_to_each_other() {
    for (text, expected) in [
        (
            "server: {plain_http: true, listen: \"0.0.0.0:80\"}",
            "server.plain_http: plain HTTP is served on loopback only",
        ),
        ("server: {tls: {certificate: a}}", "server.tls.certificate: certificate needs key beside it"),
        ("server: {tls: {key: a}}", "server.tls.key: key needs certificate beside it"),
        ("metrics: {listen: \"0.0.0.0:9\"}", "metrics.listen: got `0.0.0.0:9`: metrics are served there without a key"),
        ("metrics: {listen: \"127.0.0.1:8443\"}", "metrics.listen: server.listen is 127.0.0.1:8443 too"),
        ("queue_defaults: {priority_aging: 0}", "expected the word strict or a duration"),
        ("logging: {format: ecs}", "got `ecs`, expected auto or text or json"),
        ("hosts: {overrides: {\"http://a\": {}, \"http://A:80\": {}}}", "another key names the same host, http://a:80"),
        ("queue_defaults: {retry: {credential_wait: 1h}}", "did you mean `credential_wait_max`?"),
    ] {
        let found = faults(file(text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
    for text in [
        "server: {plain_http: true, listen: \"[::1]:80\"}",
        "server: {plain_http: true, listen: \"[::ffff:127.0.0.1]:80\"}",
        "server: {tls: {certificate: a, key: b, min_version: 1.2}}",
        "metrics: {listen: \"127.0.0.1:0\"}\nserver: {listen: \"127.0.0.1:0\"}",
    ] {
        assert!(file(text).is_ok(), "{text}");
    }
}

#[test]
fn loopback_targets_are_allowed_exactly_while_the_api_is_loopback_only() {
    for (listen, loopback) in [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("192.0.2.1:1", false)] {
        let config = env(&[("SENDOFF_SERVER__LISTEN", listen)]).unwrap();
        assert_eq!(config.egress.loopback, loopback, "{listen}");
    }
}

#[test]
fn a_log_filter_that_would_silence_everything_is_refused() {
    let level = |text: &str| env(&[("SENDOFF_LOGGING__LEVEL", text)]).map(|config| config.logging.level);
    for text in ["info", "WARN", "off", "info,sendoff::queue=debug", "[task{id=7}]=trace", "sendoff=debug,warn"] {
        assert_eq!(level(text), Ok(text.to_owned()));
    }
    assert!(faults(level("inof")).join("").ends_with("did you mean `info`?"));
    for text in ["", "sendoff", "info,sendoff", "a=b=c=loud"] {
        assert!(level(text).is_err(), "{text:?}");
    }
}

#[test]
fn every_number_one_below_and_one_above() {
    let (t, b) = (limits::TASKS_KEPT_MAX, limits::BYTES_KEPT_MAX);
    let c = u64::from(limits::CONCURRENT_MAX);
    let burst = u64::from(limits::BURST_MAX);
    let (weight, attempts) = (u64::from(limits::WEIGHT_MAX), u64::from(limits::ATTEMPTS_MAX));
    for (key, min, max) in [
        ("QUEUE_DEFAULTS__MAX_BURST_SIZE", 1, burst),
        ("QUEUE_DEFAULTS__MAX_CONCURRENT_DISPATCHES", 1, c),
        ("QUEUE_DEFAULTS__WEIGHT", 1, weight),
        ("QUEUE_DEFAULTS__MAX_TASKS", 1, t),
        ("QUEUE_DEFAULTS__MAX_BYTES", 1, b),
        ("QUEUE_DEFAULTS__RETRY__MAX_ATTEMPTS", 1, attempts),
        ("QUEUE_DEFAULTS__RETRY__MAX_DOUBLINGS", 0, u64::from(limits::DOUBLINGS_MAX)),
        ("QUEUE_DEFAULTS__RETENTION__COUNT", 0, t),
        ("QUEUE_DEFAULTS__RETENTION__BYTES", 0, b),
        ("QUEUE_DEFAULTS__DEAD_LETTERS__COUNT", 0, t),
        ("QUEUE_DEFAULTS__DEAD_LETTERS__BYTES", 0, b),
        ("WORKERS__MAX_CONCURRENT", 1, c),
        ("HOSTS__DEFAULTS__MAX_CONCURRENT", 1, c),
        ("LIMITS__PAYLOAD_BYTES", 1, limits::PAYLOAD_BYTES_MAX),
        ("STORAGE__RESERVE", limits::RESERVE_BYTES_MIN, b),
    ] {
        let takes = |value: i128| env(&[(&format!("SENDOFF_{key}"), &value.to_string())]).is_ok();
        let (min, max) = (i128::from(min), i128::from(max));
        assert_eq!([min - 1, min, max, max + 1].map(takes), [false, true, true, false], "{key}");
    }
}

#[test]
fn every_duration_and_fraction_one_below_and_one_above() {
    let ms = |span: Span| format!("{}ms", span.as_millis());
    let above = |span: Span| format!("{}ms", span.as_millis() + 1);
    let (backoff, age, grace) = (limits::BACKOFF_MAX, limits::AGE_KEPT_MAX, limits::SHUTDOWN_GRACE_MAX);
    for (key, below, min, max, too_much) in [
        ("SERVER__SHUTDOWN_GRACE", "-1ms", "0s", ms(grace), above(grace)),
        ("QUEUE_DEFAULTS__PRIORITY_AGING", "0ms", "1ms", ms(backoff), above(backoff)),
        ("QUEUE_DEFAULTS__RETRY__MIN_BACKOFF", "-1ms", "0s", "1h".into(), above(backoff)),
        ("QUEUE_DEFAULTS__RETRY__MAX_BACKOFF", "999ms", "1s", ms(backoff), above(backoff)),
        ("QUEUE_DEFAULTS__RETRY__MAX_RETRY_DURATION", "0ms", "1ms", ms(backoff), above(backoff)),
        ("QUEUE_DEFAULTS__RETENTION__AGE", "-1ms", "0s", ms(age), above(age)),
        ("QUEUE_DEFAULTS__DEAD_LETTERS__AGE", "-1ms", "0s", ms(age), above(age)),
        ("QUEUE_DEFAULTS__RETRY__JITTER", "-0.001", "0", "1".into(), "1.001".into()),
        ("QUEUE_DEFAULTS__MAX_DISPATCHES_PER_SECOND", "0.000009", "0.00001", "1000000".into(), "1000000.1".into()),
    ] {
        let takes = |value: &str| env(&[(&format!("SENDOFF_{key}"), value)]).is_ok();
        assert_eq!([below, min, max.as_str(), too_much.as_str()].map(takes), [false, true, true, false], "{key}");
    }
}

#[test]
fn how_many_queues_hosts_and_networks_there_may_be() {
    let queues = |count: usize| (0..count).fold(String::from("queues:\n"), |text, i| format!("{text}  q{i}:\n"));
    assert_eq!(file(&queues(limits::QUEUES_MAX)).unwrap().queues.len(), limits::QUEUES_MAX + 1);
    assert_eq!(
        faults(file(&queues(limits::QUEUES_MAX + 1))),
        ["config.yaml:1: queues: got 10001 queues, expected at most 10000"]
    );
    let hosts = |count: usize| {
        (0..count).fold(String::from("hosts:\n  overrides:\n"), |text, i| format!("{text}    http://h{i}: {{}}\n"))
    };
    assert!(file(&hosts(limits::HOST_OVERRIDES_MAX)).is_ok());
    assert!(file(&hosts(limits::HOST_OVERRIDES_MAX + 1)).is_err());
    let nets = |count: usize| format!("egress: {{allow: [{}]}}", "a.example,".repeat(count));
    assert!(file(&nets(limits::EGRESS_ENTRIES_MAX)).is_ok());
    assert!(file(&nets(limits::EGRESS_ENTRIES_MAX + 1)).is_err());
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let given = |name: &str, bytes: Option<&[u8]>| {
        let path = dir.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let sources = Sources {
            file: FileSource::Given(path),
            env: vec![("SENDOFF_DATADIR".into(), "x".into())],
            flags: Flags::default(),
        };
        load(&sources).unwrap_err().iter().map(|fault| fault.detail.clone()).collect::<Vec<_>>()
    };
    let [fault, variable] = &given("missing", None)[..] else { panic!("two faults") };
    assert!(fault.starts_with("there is no such file") && variable.contains("SENDOFF_DATA_DIR"));
    assert!(given("latin1", Some(b"a: \xe9"))[0].starts_with("the file is not UTF-8 at byte 3"));
    assert!(given(".", None)[0].starts_with("the file cannot be read"));
    assert!(given("broken", Some(b"a: [1\n"))[0].starts_with("no valid YAML"));
    assert!(given("scalar", Some(b"hello\n"))[0].starts_with("got `hello`, expected a map with the keys server, "));
    let comment = "#".repeat(limits::CONFIG_BYTES_MAX);
    assert_eq!(given("large", Some(comment.as_bytes())).len(), 1, "only the variable");
    assert!(given("larger", Some(format!("{comment}#").as_bytes()))[0].contains("more than 1048576 bytes"));
}

#[test]
fn the_sources_of_a_process() {
    let sources = Sources::new(environment(), Flags::default());
    assert_eq!(sources.file, FileSource::Default(PathBuf::from(DEFAULT_FILE)));
    assert!(sources.env.iter().all(|(name, _)| name.starts_with("SENDOFF_")));
    let flags = Flags { config: Some("c.yaml".into()), ..Flags::default() };
    assert_eq!(Sources::new(vec![], flags).file, FileSource::Given(PathBuf::from("c.yaml")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_panics(
        text in "\\PC{0,80}|((server|queues|a|hosts|egress): ?[\\[{\"&*!]?[a-z0-9:,]{0,8}[\\]}\"]?\n? {0,3}){0,8}",
        name in "[A-Za-z_]{0,20}|(QUEUES|HOSTS|SERVER)(__[A-Z_]{0,9}){0,4}", value in "\\PC{0,30}|[a-c:\\-\\[\\]{}&*!|,? \n]{0,20}",
    ) {
        let _result = load_with(&text, &[(&format!("SENDOFF_{name}"), &value)], Flags { listen: Some(value.clone()), ..Flags::default() });
    }
}
