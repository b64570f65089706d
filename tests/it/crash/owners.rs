//! Several processes on one directory: one owns it as long as it lives, and nobody has to clean up after it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::thread;

use crate::support::process::{Process, log_of, spawn};

/// Starts another process over a directory that is taken, and holds what it says.
fn refused(dir: &Path, owner: u32) {
    let status = spawn(dir, &[]).wait().unwrap();
    let log = log_of(dir);
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(log.contains(&format!("in use by process {owner}")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path(), &[]);
    refused(dir.path(), first.id());
    first.stand_still();
    refused(dir.path(), first.id());
    first.signal("CONT");
    assert!(first.client.get("/tasks").await.status.is_success(), "the first was not disturbed");
    first.kill();
    Process::start(dir.path(), &[]).terminate(dir.path());
}

#[test]
fn of_racing_starts_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    // What only the first start of all makes is there already.
    Process::start(dir.path(), &[]).terminate(dir.path());
    let racers: Vec<_> = (0..6).map(|_| spawn(dir.path(), &[])).collect();
    let ended = |mut child: Child| {
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        (said.starts_with("sendoff is ready on "), child)
    };
    let watches: Vec<_> = racers.into_iter().map(|child| thread::spawn(move || ended(child))).collect();
    let results: Vec<_> = watches.into_iter().map(|watch| watch.join().unwrap()).collect();
    let won = results.iter().filter(|(ready, _)| *ready).count();
    for (ready, mut child) in results {
        if ready {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        assert!(ready || status.code().is_some_and(|code| code != 0), "{status}");
    }
    assert_eq!(won, 1, "{}", log_of(dir.path()));
}
