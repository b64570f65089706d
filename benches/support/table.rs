//! The figures as a reader sees them.

use std::io::Write;

/// What is shown of one bench.
pub(crate) struct Table {
    title: String,
    columns: [&'static str; 2],
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    ours: f64,
    bare: Option<f64>,
    ratio: Option<f64>,
    aim: &'static str,
}

impl Table {
    /// A table that compares the first column with the second.
    pub(crate) fn new(title: impl Into<String>, columns: [&'static str; 2]) -> Self {
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// A figure of which more is better: the ratio is the median of ours ÷ bare over the rounds.
    pub(crate) fn rate(&mut self, what: &str, rounds: &[(f64, f64)], aim: &'static str) {
        self.compare(what, rounds, rounds.iter().map(|(ours, bare)| ours / bare), aim);
    }

    /// A figure of which less is better: the ratio is the median of bare ÷ ours, so that here too 1 is the limit.
    pub(crate) fn cost(&mut self, what: &str, rounds: &[(f64, f64)], aim: &'static str) {
        self.compare(what, rounds, rounds.iter().map(|(ours, bare)| bare / ours), aim);
    }

    fn compare(&mut self, what: &str, rounds: &[(f64, f64)], ratios: impl Iterator<Item = f64>, aim: &'static str) {
        let ours = median(rounds.iter().map(|round| round.0));
        let bare = median(rounds.iter().map(|round| round.1));
        self.rows.push(Row { what: what.to_owned(), ours, bare: Some(bare), ratio: Some(median(ratios)), aim });
    }

    /// A figure with nothing beside it.
    pub(crate) fn alone(&mut self, what: &str, ours: f64, aim: &'static str) {
        self.rows.push(Row { what: what.to_owned(), ours, bare: None, ratio: None, aim });
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Shows it, with the machine.
    pub(crate) fn print(&self) -> std::io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let built = if cfg!(debug_assertions) { "debug build" } else { "release build" };
        let [ours, bare] = self.columns;
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{} ({cores} cores, {built})", self.title)?;
        writeln!(out, "  {:<42} {ours:>14} {bare:>20} {:>7}  aim", "", "ratio")?;
        for row in &self.rows {
            let bare = row.bare.map(shown).unwrap_or_default();
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let line = format!("  {:<42} {:>14} {bare:>20} {ratio:>7}  {}", row.what, shown(row.ours), row.aim);
            writeln!(out, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        out.flush()
    }
}

/// Says why a run ended early. Where even that cannot be written, the exit code says it.
pub(crate) fn complain(what: &str) {
    drop(writeln!(std::io::stderr(), "bench: {what}"));
}

/// The middle one (of an even number, the upper of the two); 0 of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a fraction `at` of them lies; 0 of none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list of a few thousand, rounded down"
)]
pub(crate) fn quantile(values: impl Iterator<Item = f64>, at: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * at) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// `count` as a figure.
#[expect(clippy::cast_precision_loss, reason = "figures of a bench stay below 2^52")]
pub(crate) fn figure(count: u64) -> f64 {
    count as f64
}

fn shown(value: f64) -> String {
    let digits = if value.abs() >= 100.0 { 0 } else { 2 };
    let plain = format!("{value:.digits$}");
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && digit != '-' && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}
