//! What is long, as somebody at a shell sees it: many tasks from a file, many dead letters, waiting for an empty queue.

mod breaks;
mod create;
mod dead_letters;
mod memory;
mod stand_in;
mod wait;

use std::collections::BTreeSet;

use crate::cli::here::Here;
use crate::support::client::Client;

/// An address that nothing is ever sent to in these tests: nothing is due.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Task number `n`, on a line.
fn line(n: usize) -> String {
    format!(
        "{{\"task_type\":\"http_request\",\"payload\":{{\"url\":\"{NOWHERE}/{n}\",\"method\":\"GET\"}},\"delay\":\"24h\"}}\n"
    )
}

/// Tasks of these numbers, a line each.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// The numbers of all tasks that the server holds. None may be there twice.
async fn numbers(client: &Client) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for task in client.all_tasks().await {
        let url = task["payload"]["url"].as_str().expect("a URL");
        let number = url.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(found.insert(number), "{number} is there twice");
    }
    found
}

/// What `-o json` says: created, already there, refused.
fn counts(out: &str) -> [u64; 3] {
    let summary: serde_json::Value = serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"));
    ["created", "already_there", "refused"].map(|name| summary[name].as_u64().expect("a number"))
}

/// Writes a file there.
fn write(here: &Here, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(here.path().join(name), text).expect("it can be written");
}

/// Reads a file there.
fn read(here: &Here, name: &str) -> String {
    std::fs::read_to_string(here.path().join(name)).expect("it is there")
}
