//! `records::records` under libFuzzer.
#![no_main]

#[path = "../it/fuzz/records.rs"]
mod records;

thread_local! {
    static GROUND: (records::Ground, tempfile::TempDir) = {
        let dir = tempfile::tempdir().unwrap();
        (records::Ground::new(dir.path()), dir)
    };
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| GROUND.with(|(ground, _)| records::records(input, ground)));
