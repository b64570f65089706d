//! `sendoff cert`: what is served, another in its place, and how clients are made to trust it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{sendoff, text};
use crate::support::process::Process;

/// Its exit code, what it said on standard output, and on standard error.
fn cert(dir: &Path, words: &[&str]) -> (i32, String, String) {
    let output = sendoff(dir, &[&["cert"], words].concat());
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

fn shown(dir: &Path) -> Value {
    let (code, out, err) = cert(dir, &["show", "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_shown_and_another_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let before = shown(dir.path());
    assert_eq!(before["certificate"]["names"], serde_json::json!(["127.0.0.1", "::1", "localhost"]));
    assert_eq!((&before["certificate"]["days_left"], &before["ca"]["days_left"]), (&89.into(), &3649.into()));
    assert_eq!(before["certificate"]["issuer"], before["ca"]["subject"]);
    let (code, out, _) = cert(dir.path(), &["show"]);
    assert!(code == 0 && out.contains("names    127.0.0.1, ::1, localhost") && out.contains("89 days left"), "{out}");
    let fingerprint = before["ca"]["sha256"].as_str().unwrap();
    assert!(process.welcome.iter().any(|line| line.contains(fingerprint)), "{:?}", process.welcome);

    let (code, out, err) = cert(dir.path(), &["renew"]);
    assert_eq!(code, 0, "{err}");
    let after = shown(dir.path());
    assert_eq!(after["ca"], before["ca"]);
    assert_ne!(after["certificate"]["sha256"], before["certificate"]["sha256"]);
    assert!(out.contains(after["certificate"]["sha256"].as_str().unwrap()), "{out}");
    let key = dir.path().join("certs/server.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    process.terminate(dir.path());
    Process::start(dir.path(), &[]).terminate(dir.path());
    assert_eq!(shown(dir.path()), after, "the next start keeps it");

    let (code, out, _) = cert(dir.path(), &["trust"]);
    assert!(code == 0 && out.contains(fingerprint) && out.contains("curl --cacert ca.pem"), "{out}");
    let ca = dir.path().join("certs/ca.pem").canonicalize().unwrap();
    assert!(out.contains(&ca.display().to_string()), "{out}");
}

#[test]
fn where_there_is_none_yet_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["show"], ["renew"], ["trust"]] {
        let (code, _, err) = cert(dir.path(), &words);
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("the first start of the server makes it"), "{err}");
    }
    std::fs::write(dir.path().join("config.yaml"), "server: { plain_http: true }\n").unwrap();
    for words in [["show"], ["renew"], ["trust"]] {
        let (code, _, err) = cert(dir.path(), &words);
        assert!(code == 3 && err.contains("server.plain_http is true"), "{code} {err}");
    }
    assert!(!dir.path().join("certs").exists(), "looking leaves nothing behind");
}

#[test]
fn files_of_somebody_elses_are_shown_and_not_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["queue.example".to_owned()]).unwrap();
    std::fs::write(dir.path().join("own.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("own.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("config.yaml"), "server: { tls: { certificate: own.pem, key: own.key } }\n")
        .unwrap();
    let shown = shown(dir.path());
    assert_eq!(shown["certificate"]["names"], serde_json::json!(["queue.example"]));
    assert_eq!(shown["ca"], Value::Null);
    for (words, why) in [(["renew"], "renew it where it comes from"), (["trust"], "there is no CA of this server")] {
        let (code, _, err) = cert(dir.path(), &words);
        assert!(code == 5 && err.contains(why), "{code} {err}");
    }
    std::fs::write(dir.path().join("own.pem"), "nothing").unwrap();
    let (code, _, err) = cert(dir.path(), &["show"]);
    assert!(code == 1 && err.contains("own.pem is damaged"), "{code} {err}");
}
