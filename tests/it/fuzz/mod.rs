//! What comes from outside, and what random changes make of it: nothing panics, and what is accepted means what it says.
//!
//! Each target is a plain function over bytes ([`targets`]) that asserts a property. Here it gets every file of
//! `tests/fuzz/corpus/<target>` and, of each, `SENDOFF_FUZZ_CASES` mutations drawn from `SENDOFF_FUZZ_SEED`.
//! Requests go to a whole server ([`requests`]), because the shape of a task is the API's own affair, and records are
//! changed under a real store ([`records`]). `.ci/fuzz` runs the same functions under libFuzzer (`tests/fuzz`).

mod records;
mod requests;
mod targets;

use std::fs;
use std::path::Path;

use sendoff::clock::Chance;

use crate::support::server::TestServer;
use crate::support::suites;

/// The bytes of every file of a target's corpus, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Every input that a target is to see: the corpus as it is, and so many mutations of each file.
fn inputs(target: &str, cases_default: u64) -> Vec<Vec<u8>> {
    let cases = suites::number("SENDOFF_FUZZ_CASES", cases_default);
    let (corpus, mut chance) = (corpus(target), Chance::from_seed(seed()));
    assert!(!corpus.is_empty(), "no corpus for {target}");
    let mut inputs = corpus.clone();
    for file in &corpus {
        inputs.extend((0..cases).map(|_| mutate(file, &corpus, &mut chance)));
    }
    inputs
}

fn seed() -> u64 {
    suites::number("SENDOFF_FUZZ_SEED", 1)
}

/// Runs a body over its inputs, and tells the figures when all have held.
fn run(target: &str, cases_default: u64, body: impl Fn(&[u8])) {
    let inputs = inputs(target, cases_default);
    println!("{target}: {} inputs from seed {}", inputs.len(), seed());
    for input in &inputs {
        body(input);
    }
    println!("FIGURES fuzz: {target}, {} inputs, 0 violations, seed {}", inputs.len(), seed());
}

/// One to four small changes: a bit, a byte, a piece cut out, repeated, or taken from another file.
fn mutate(file: &[u8], corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"0",
        b"-",
        b"1e999",
        b"null",
        b"\"",
        b"{",
        b"]",
        b"\\u0000",
        b"\xff",
        b"\xe2\x80\xa8",
        b"::",
        b"99999999999999999999",
    ];
    let mut bytes = file.to_vec();
    let mut below = |bound: usize| usize::try_from(chance.below(bound as u64)).unwrap();
    for _ in 0..=below(4) {
        let at = below(bytes.len() + 1);
        let end = (at + below(12)).min(bytes.len());
        match below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(below(256)).unwrap(),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.extend_from_within(at..end),
            4 => {
                let other = &corpus[below(corpus.len())];
                let from = below(other.len() + 1);
                let to = (from + below(40)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => drop(bytes.splice(at..at, TOKENS[below(TOKENS.len())].iter().copied())),
        }
    }
    bytes
}

#[test]
fn times_and_durations_read_back_as_they_were_written() {
    run("times", 300, targets::times);
}

#[test]
fn names_and_ids_read_back_as_they_were_written() {
    run("names", 300, targets::names);
}

#[test]
fn a_retry_after_is_a_delay_or_nothing() {
    run("retry_after", 300, targets::retry_after);
}

#[test]
fn a_cursor_has_one_spelling() {
    run("cursors", 300, targets::cursors);
}

#[test]
fn a_changed_record_is_told_as_damage_or_read_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let ground = records::Ground::new(dir.path());
    run("records", 30, |input| records::records(input, &ground));
}

#[test]
fn no_spelling_of_an_address_gets_past_the_egress_policy() {
    run("urls", 300, targets::urls);
}

#[test]
fn a_configuration_is_refused_in_words_or_shown_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    run("config", 30, |input| targets::config(input, dir.path()));
}

#[tokio::test]
async fn a_request_is_refused_as_the_clients_fault_or_accepted_and_found_again() {
    let inputs = inputs("tasks", 5);
    println!("tasks: {} inputs from seed {}", inputs.len(), seed());
    let server = TestServer::start().await;
    for input in &inputs {
        requests::requests(input, &server).await;
    }
    println!("FIGURES fuzz: tasks, {} inputs, 0 violations, seed {}", inputs.len(), seed());
}

#[test]
fn a_property_that_does_not_hold_is_noticed() {
    let caught = std::panic::catch_unwind(|| {
        for input in inputs("urls", 10) {
            targets::public(&input, |_| true);
        }
    });
    assert!(caught.is_err(), "a policy that accepts everything went unnoticed");
}
