//! Times as people read them: how long ago, in how long.

use std::time::Duration;

use crate::task::WallMs;

/// A span in its one or two largest units: `850ms`, `12s`, `5m`, `2h10m`, `3d`.
pub(in crate::cli) fn about(span: Duration) -> String {
    let secs = span.as_secs();
    let (minutes, hours, days) = (secs / 60, secs / 3_600, secs / 86_400);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 || large >= 10 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match (secs, minutes, hours, days) {
        (0, ..) => format!("{}ms", span.as_millis()),
        (_, 0, ..) => format!("{secs}s"),
        (_, _, 0, _) => two(minutes, "m", secs % 60, "s"),
        (_, _, _, 0) => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// How long something took: `81ms`, `1.5s`, then as [`about`].
pub(in crate::cli) fn took(span: Duration) -> String {
    let (secs, tenths) = (span.as_secs(), span.subsec_millis() / 100);
    if (1..10).contains(&secs) && tenths > 0 { format!("{secs}.{tenths}s") } else { about(span) }
}

/// `3m ago`, `in 12s`, `now`.
pub(in crate::cli) fn relative(then: WallMs, now: WallMs) -> String {
    let (ahead, passed) = (then.since(now), now.since(then));
    if ahead >= Duration::from_secs(1) {
        format!("in {}", about(ahead))
    } else if passed >= Duration::from_secs(1) {
        format!("{} ago", about(passed))
    } else {
        "now".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_in_the_units_that_matter() {
        let secs = [0, 1, 59, 60, 61, 599, 600, 3_600, 7_800, 36_000, 86_399, 86_400, 90_000, 950_400];
        let shown: Vec<_> = secs.map(|secs| about(Duration::from_secs(secs))).into();
        let expected =
            ["0ms", "1s", "59s", "1m", "1m1s", "9m59s", "10m", "1h", "2h10m", "10h", "23h", "1d", "1d1h", "11d"];
        assert_eq!(shown, expected);
        let shown = [999, 1_000, 1_550, 9_999, 10_500].map(|ms| took(Duration::from_millis(ms)));
        assert_eq!(shown, ["999ms", "1s", "1.5s", "9.9s", "10s"]);
    }

    #[test]
    fn moments_are_relative_to_now() {
        let now = WallMs::new(1_000_000);
        let shown = [999, 0, -999].map(|ms| relative(WallMs::new(1_000_000 + ms), now));
        assert_eq!(shown, ["now", "now", "now"]);
        assert_eq!(relative(WallMs::new(1_001_000), now), "in 1s");
        assert_eq!(relative(WallMs::new(820_000), now), "3m ago");
    }
}
