//! `targets::config` under libFuzzer.
#![no_main]

use std::sync::LazyLock;

#[expect(dead_code, reason = "one of its bodies")]
#[path = "../it/fuzz/targets.rs"]
mod targets;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::config(input, DIR.path()));
