//! Commands that look on and on bear a server that is away for a moment: a restart does not end them.

use std::time::Duration;

use crate::task::limits::CLIENT_SILENCE_MAX;

use super::exit::Failed;
use super::output::Printer;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks until there is an answer, for as long as [`CLIENT_SILENCE_MAX`] from the first failure that may pass; that is
/// noted once.
pub(super) async fn patiently<T>(
    printer: &Printer,
    mut ask: impl AsyncFnMut() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let clock = printer.clock();
    let mut silent_since = None;
    loop {
        let error = match ask().await {
            Err(Failed::Call(error)) if error.may_pass() => error,
            other => return other,
        };
        let now = clock.now().mono;
        if silent_since.is_none() {
            printer.note(&format!("sendoff: {error}\n  Still trying, for {CLIENT_SILENCE_MAX}"));
        }
        if now.saturating_sub(*silent_since.get_or_insert(now)) >= CLIENT_SILENCE_MAX.to_duration() {
            return Err(error.into());
        }
        clock.sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::OutputOptions;
    use crate::cli::call::CallError;
    use crate::cli::exit::Exit;
    use crate::clock::Clock;
    use crate::task::WallMs;

    /// Asks a server that answers the `answers`th time; what came of it, and after how long.
    async fn asked(answers: Option<u32>, error: fn() -> CallError) -> (Result<u32, Exit>, Duration) {
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let began = clock.now().mono;
        let printer = Printer::new(&OutputOptions { output: None, color: None, quiet: true }, clock.clone());
        let mut times = 0;
        let ask = async || {
            times += 1;
            if answers == Some(times) { Ok(times) } else { Err(error().into()) }
        };
        let passes = async {
            loop {
                hand.advance(PAUSE);
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::select! {
            biased;
            ended = patiently(&printer, ask) => ended,
            () = passes => unreachable!("time does not end"),
        };
        (ended.map_err(|failed| failed.exit()), clock.now().mono.saturating_sub(began))
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_waited_for_and_not_for_ever() {
        let away = || CallError::NoConnection { text: "nobody".to_owned() };
        let longest = CLIENT_SILENCE_MAX.to_duration();
        assert_eq!(asked(Some(30), away).await, (Ok(30), Duration::from_secs(29)));
        assert_eq!(asked(None, away).await, (Err(Exit::Unreachable), longest));
        let strange = || CallError::Strange { text: "no list".to_owned() };
        assert_eq!(asked(Some(2), strange).await, (Err(Exit::Failure), Duration::ZERO));
    }
}
