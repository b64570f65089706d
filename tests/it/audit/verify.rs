//! `sendoff audit verify`, on logs that a server wrote and somebody changed.

use std::fs;

use serde_json::{Value, json};

use super::{lines, path};
use crate::cli::here::{Here, Said};
use crate::keys::server;

/// A log of some lines, and a place to change it.
async fn log() -> (Here, Vec<String>) {
    let server = server().await;
    for verb in ["pause", "resume", "pause", "resume"] {
        server.client.post(&format!("/queues/mail/{verb}"), &json!({})).await;
    }
    let text = fs::read_to_string(path(&server)).expect("a log");
    assert_eq!(lines(&server).len(), 5);
    (Here::alone(), text.split_inclusive('\n').map(str::to_owned).collect())
}

async fn verify(here: &Here, text: &str, more: &[&str]) -> Said {
    here.write("audit.log", text);
    here.run(&[&["audit", "verify", "audit.log"], more].concat()).await
}

fn hash(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("JSON");
    line["hash"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_sound_log_is_told_with_its_lines_times_and_last_hash() {
    let (here, lines) = log().await;
    let said = verify(&here, &lines.concat(), &[]).await.ok();
    assert_eq!(
        said,
        format!(
            "audit.log: 5 lines fit together\n  first  1 at 2026-11-24T12:00:00.000Z\n  \
             last   5 at 2026-11-24T12:00:00.000Z\n  hash   {}\n",
            hash(&lines[4])
        )
    );
    let said: Value = serde_json::from_str(&verify(&here, &lines.concat(), &["--json"]).await.ok()).expect("JSON");
    assert_eq!((&said["lines"], &said["last"]["hash"]), (&json!(5), &json!(hash(&lines[4]))));
}

#[tokio::test]
async fn what_was_changed_is_found_at_its_line() {
    let (here, sound) = log().await;
    let cut = |line: &str| format!("{}\n", &line[..40]);
    let at = |numbers: &[usize]| numbers.iter().map(|number| sound[number - 1].as_str()).collect::<String>();
    let edited = sound[2].replace("/queues/mail", "/queues/sms");
    for (what, text, said) in [
        ("edited", at(&[1, 2]) + &edited + &at(&[4, 5]), "line 3: its text does not fit its `hash`"),
        ("taken out", at(&[1, 2, 4, 5]), "line 3: it does not follow the line before it"),
        ("swapped", at(&[1, 2, 4, 3, 5]), "line 3: it does not follow the line before it"),
        ("twice", at(&[1, 2, 2, 3, 4, 5]), "line 3: it does not follow the line before it"),
        ("cut in the middle", at(&[1, 2]) + &cut(&sound[2]) + &at(&[4, 5]), "line 3: this is no line of an audit log"),
        ("without its beginning", at(&[2, 3, 4, 5]), "line 1: it is the first, and not the first that was written"),
        ("cut by a crash", at(&[1, 2, 3]) + &sound[3][..9], "line 4: it is not complete"),
        ("emptied", String::new(), "has no line"),
    ] {
        let told = verify(&here, &text, &[]).await.failed(1);
        assert!(told.contains(said) && told.contains("audit.log"), "{what}: {told}");
    }
    let long = format!("{}\n", "x".repeat(70_000));
    assert!(verify(&here, &long, &[]).await.failed(1).contains("line 1: this is no line"));
    assert!(here.run(&["audit", "verify", "none.log"]).await.failed(3).contains("none.log"));
}

#[tokio::test]
async fn an_anchor_noted_elsewhere_shows_that_the_end_is_still_there() {
    let (here, lines) = log().await;
    let anchor = hash(&lines[4]);
    let anchored = ["--anchor", anchor.as_str()];
    assert_eq!(verify(&here, &lines.concat(), &anchored).await.code, 0);
    let cut = lines[..4].concat();
    assert_eq!(verify(&here, &cut, &[]).await.code, 0, "the chain alone cannot tell");
    assert!(verify(&here, &cut, &anchored).await.failed(1).contains("no line has the hash of --anchor"));
    let before = hash(&lines[1]);
    assert_eq!(verify(&here, &lines[2..].concat(), &["--anchor", &before]).await.code, 0, "the part after it");
    assert!(verify(&here, &cut, &["--anchor", "abc"]).await.failed(2).contains("64 hexadecimal digits"));
}

#[tokio::test]
async fn a_log_in_several_files_is_followed_through_them() {
    let (here, lines) = log().await;
    here.write("first", &lines[..2].concat());
    here.write("second", &lines[2..].concat());
    assert!(here.run(&["audit", "verify", "first", "second"]).await.ok().starts_with("first, second: 5 lines"));
    assert!(here.run(&["audit", "verify", "second", "first"]).await.failed(1).contains("second: line 1"));
}

#[tokio::test]
async fn a_hash_is_what_other_tools_make_of_the_line() {
    let (here, lines) = log().await;
    here.write("audit.log", &lines.concat());
    let docs = include_str!("../../../docs/security.md");
    let recipe = docs.lines().find(|line| line.starts_with("sed -n 7p audit.log")).expect("it is in the docs");
    let recipe = recipe.replace("7p", "3p");
    let said =
        std::process::Command::new("sh").args(["-c", &recipe]).current_dir(here.path()).output().expect("a shell");
    assert_eq!(String::from_utf8(said.stdout).expect("text").split(' ').next(), Some(&*hash(&lines[2])));
}
