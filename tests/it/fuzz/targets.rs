//! The bodies: each takes any bytes and asserts what must hold of them. Nothing here knows who calls.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use sendoff::api::cursor;
use sendoff::config::{EgressConfig, FileSource, Flags, Loaded, Sources, load, show};
use sendoff::security::egress::EgressPolicy;
use sendoff::security::http_answer::retry_after as delay;
use sendoff::task::limits::{NAME_LEN_MAX, TASK_NAME_LEN_MAX};
use sendoff::task::{QueueName, Span, TaskId, TaskName, WallMs};
use url::{Host, Url};

/// The longest complaint about one value, in characters: what was given is clipped in it.
const COMPLAINT_LEN_MAX: usize = 400;

/// Whatever is accepted is written in a form that reads as the same; whatever is not gets a short answer.
pub(super) fn times(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Span::parse(text) {
        Ok(span) => assert_eq!(Span::parse(&span.to_string()), Ok(span), "{text:?}"),
        Err(error) => assert!(error.to_string().chars().count() <= COMPLAINT_LEN_MAX, "{text:?}"),
    }
    match WallMs::parse(text) {
        Ok(moment) => assert_eq!(WallMs::parse(&moment.to_string()), Ok(moment), "{text:?}"),
        Err(error) => assert!(error.to_string().chars().count() <= COMPLAINT_LEN_MAX, "{text:?}"),
    }
}

/// Names are kept letter for letter and bounded; an id has one spelling that reads as the same.
pub(super) fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(name) = QueueName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=NAME_LEN_MAX).contains(&text.len()) && text.is_ascii());
    }
    if let Ok(name) = TaskName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=TASK_NAME_LEN_MAX).contains(&text.len()) && text.is_ascii());
    }
    if let Some(id) = TaskId::parse(text) {
        assert_eq!(TaskId::parse(&id.to_string()), Some(id), "{text:?}");
        assert!(id.to_string().eq_ignore_ascii_case(text), "{text:?} is read as {id}");
    }
}

/// A delay or nothing; seconds as they were said.
pub(super) fn retry_after(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let now = WallMs::new(1_795_000_000_000);
    let (read, later) = (delay(text, now), delay(text, now.plus(Duration::from_secs(60))));
    match text.trim().parse::<u64>() {
        Ok(secs) if !text.contains('+') => assert_eq!((read, later), (Some(Span::from_secs(secs)), read), "{text:?}"),
        // A date comes nearer, and then it has passed.
        Ok(_) | Err(_) => assert_eq!(read.is_some(), later.is_some(), "{text:?}"),
    }
    assert!(later <= read, "{text:?}: {read:?}, a minute later {later:?}");
}

/// What reads as a cursor has no other spelling.
pub(super) fn cursors(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(key) = cursor::read(text) {
        assert_eq!(cursor::text(key), text);
    }
}

/// A URL that the default policy accepts names no address that is not public, however it is spelt.
pub(super) fn urls(input: &[u8]) {
    let policy =
        EgressPolicy::new(&EgressConfig { http: true, loopback: false, ..EgressConfig::default() }, Vec::new());
    public(input, |url| policy.check_url(url).is_ok());
}

/// The same of any policy.
pub(super) fn public(input: &[u8], accepts: impl Fn(&Url) -> bool) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(url) = Url::parse(text) else { return };
    if !accepts(&url) {
        return;
    }
    let again = Url::parse(url.as_str()).expect("a URL reads back");
    assert!(accepts(&again), "{text:?} is accepted, and refused as {again}");
    assert!(matches!(url.scheme(), "http" | "https"), "{text:?}");
    assert!(url.username().is_empty() && url.password().is_none(), "{text:?}");
    let address = match url.host().expect("a host") {
        Host::Ipv4(v4) => IpAddr::V4(v4),
        Host::Ipv6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        // What a resolver that knows only literals would make of the name. One dot may end it; with two it is no name,
        // and nothing resolves it.
        Host::Domain(name) => match name.strip_suffix('.').unwrap_or(name).parse() {
            Ok(literal) => literal,
            Err(_) => return assert_ne!(name.strip_suffix('.').unwrap_or(name), "localhost", "{text:?}"),
        },
    };
    assert!(!is_inward(address), "{text:?} is accepted, and calls {address}");
}

/// The addresses that anybody would call inward, as the standard library knows them.
fn is_inward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_unique_local()
        }
    }
}

/// A file is refused in words, or what `config show` makes of it loads as the same.
pub(super) fn config(input: &[u8], dir: &Path) {
    let read = |bytes: &[u8]| {
        let path = dir.join("config.yaml");
        fs::write(&path, bytes).unwrap();
        load(&Sources { file: FileSource::Given(path), env: Vec::new(), flags: Flags::default() })
    };
    match read(input) {
        Ok(loaded) => {
            let shown = show(&loaded);
            let again: Loaded = read(shown.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{shown}"));
            assert_eq!(again.config, loaded.config, "{shown}");
        }
        Err(faults) => assert!(!faults.to_string().trim().is_empty(), "{:?}", String::from_utf8_lossy(input)),
    }
}
