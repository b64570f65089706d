//! How fast sendoff is, each figure beside the bare limit measured in the same run: `cargo bench` for all,
//! `cargo bench --bench speed -- drain restart` for some.
//!
//! The server is the real binary in a process of its own; so is what it is compared with (this binary again, in one of
//! the [`bare`] roles). Both are measured in turn, A B A B, and the ratio is the median of the rounds' ratios, because
//! machines have neighbours. `SENDOFF_BENCH_SMOKE=1` runs everything once in a tiny form: it shows that it works, not
//! how fast. No figure makes a run fail; the aims are printed beside them.

mod bare;
mod bulk;
mod day;
mod drain;
mod end_to_end;
mod enqueue;
mod memory;
mod restart;
mod sim;
mod support;
mod waiting;

use std::process::ExitCode;

use support::backlog::Stock;
use support::{Bench, Outcome, Scale};

/// Those that share a loaded store stand together, the one that adds to it last.
const BENCHES: [(&str, Bench); 8] = [
    ("day", day::run),
    ("enqueue", enqueue::run),
    ("bulk", bulk::run),
    ("drain", drain::run),
    ("end_to_end", end_to_end::run),
    ("memory", memory::run),
    ("restart", restart::run),
    ("waiting", waiting::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = bare::play(&arguments).unwrap_or_else(|| run_named(&arguments));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            support::table::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run_named(names: &[String]) -> Outcome {
    if let Some(unknown) = names.iter().find(|name| BENCHES.iter().all(|(known, _)| known != name)) {
        let known: Vec<_> = BENCHES.iter().map(|(known, _)| *known).collect();
        return Err(format!("there is no bench `{unknown}`, only {}", known.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scale = Scale::from_environment();
    let mut stock = Stock::new(&scale);
    for (name, bench) in BENCHES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            runtime.block_on(bench(&scale, &mut stock)).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}
