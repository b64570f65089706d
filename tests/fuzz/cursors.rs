//! `targets::cursors` under libFuzzer.
#![no_main]

#[expect(dead_code, reason = "one of its bodies")]
#[path = "../it/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::cursors(input));
