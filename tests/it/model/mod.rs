//! Random commands against a naive model, over the memory and the SQLite store: each answer and each start equal, and
//! in the end all three hold the same.
//!
//! `SENDOFF_MODEL_CASES=N` and `SENDOFF_MODEL_STEPS=N` run more and longer ones; `SENDOFF_MODEL_SEED=N` draws others, and
//! repeats them. A failure is shrunk to the fewest steps that show it.
//!
//! What the model leaves to the simulation: rates, worker slots and host caps, `max_retry_duration`, jitter, retention,
//! clock jumps, full disks.

mod naive;
mod real;
mod steps;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tokio::runtime::Runtime;

use crate::support::suites::number;
use naive::Naive;
use real::{Ground, Real};
use steps::{Reply, Slip, Step, steps};

const SLOTS: [usize; 3] = [2, 1, 3];
/// Steps after which everything is compared, not the answers alone.
const LOOK_EVERY: usize = 16;

/// What was compared.
#[derive(Debug, Default)]
struct Compared {
    sequences: u64,
    steps: u64,
    tasks: u64,
    starts: u64,
}

fn fail(step: usize, what: &str, real: &impl std::fmt::Debug, naive: &impl std::fmt::Debug) -> TestCaseError {
    TestCaseError::fail(format!("step {step}: {what}\n  the engine: {real:?}\n  the model:  {naive:?}"))
}

macro_rules! same {
    ($step:expr, $what:expr, $real:expr, $naive:expr) => {
        let (real, naive) = (&$real, &$naive);
        if real != naive {
            return Err(fail($step, $what, real, naive));
        }
    };
}

/// Takes all of them through the same steps. SQLite stays out of it while `quick`.
async fn compare(todo: &[Step], slip: Option<Slip>, quick: bool) -> Result<Compared, TestCaseError> {
    let mut naive = Naive::new(SLOTS, slip);
    let mut memory = Real::new(Ground::memory(), SLOTS).await;
    let mut sqlite = if quick { None } else { Some(Real::new(Ground::sqlite(), SLOTS).await) };
    let mut compared = Compared { sequences: 1, ..Compared::default() };
    for (at, step) in todo.iter().enumerate() {
        let in_memory = memory.step(step).await;
        let by_model = naive.step(step, memory.now());
        same!(at, "answer and starts", in_memory, by_model);
        same!(at, "what runs", memory.held(), naive.held());
        if let Some(sqlite) = &mut sqlite {
            same!(at, "answer and starts of SQLite", sqlite.step(step).await, by_model);
        }
        compared.steps += 1;
        compared.starts += by_model.1.len() as u64;
        compared.tasks += u64::try_from(if let Reply::Accepted(new) = &by_model.0 { new.len() } else { 0 }).unwrap();
        if at % LOOK_EVERY == 0 || at + 1 == todo.len() {
            same!(at, "what everybody sees", memory.all().await, naive.all(memory.now()));
        }
    }
    if let Some(sqlite) = &sqlite {
        same!(todo.len(), "what the stores hold", sqlite.records().await, memory.records().await);
    }
    Ok(compared)
}

fn runner(cases: u64, seed: u64) -> TestRunner {
    TestRunner::new(Config {
        cases: u32::try_from(cases).unwrap(),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    })
}

fn length() -> usize {
    usize::try_from(number("SENDOFF_MODEL_STEPS", 40)).unwrap()
}

#[test]
fn the_engine_over_both_stores_does_what_the_model_does() {
    let (cases, seed) = (number("SENDOFF_MODEL_CASES", 20), number("SENDOFF_MODEL_SEED", 1));
    let runtime = Runtime::new().unwrap();
    let sum = std::cell::RefCell::new(Compared::default());
    let done = runner(cases, seed).run(&steps(length()), |todo| {
        let compared = runtime.block_on(compare(&todo, None, false))?;
        let mut sum = sum.borrow_mut();
        sum.sequences += compared.sequences;
        sum.steps += compared.steps;
        sum.tasks += compared.tasks;
        sum.starts += compared.starts;
        Ok(())
    });
    let sum = sum.into_inner();
    if let Err(error) = done {
        panic!("SENDOFF_MODEL_SEED={seed} after {} sequences: {error}", sum.sequences);
    }
    assert!(sum.tasks > cases * 5 && sum.starts > cases * 5, "something was done: {sum:?}");
    println!(
        "FIGURES model: {} sequences, {} commands, {} tasks, {} starts, memory, SQLite and model equal, seed {seed}",
        sum.sequences, sum.steps, sum.tasks, sum.starts
    );
}

/// The negative control: a model with one wrong rule must be found out, or a wrong engine would not be either.
#[test]
fn one_wrong_rule_is_noticed() {
    let runtime = Runtime::new().unwrap();
    for slip in [
        Slip::OneAttemptMore,
        Slip::PriorityIsNothing,
        Slip::KeysAreForgotten,
        Slip::RedriveCountsOn,
        Slip::CancelledFreesItsSlot,
    ] {
        let mut runner = runner(200, 1);
        let found = runner.run(&steps(60), |todo| runtime.block_on(compare(&todo, Some(slip), true)).map(drop));
        assert!(matches!(found, Err(TestError::Fail(..))), "{slip:?} was not noticed");
    }
}
