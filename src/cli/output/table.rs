//! Rows and columns: cut to a terminal for people, separated by tabs for programs.

use std::fmt::Write as _;

use anstyle::Style;

use crate::task::WallMs;

use super::moment::relative;
use super::text::{cut, visible, width};

/// The colours, and what they mean.
pub(in crate::cli) mod palette {
    use anstyle::{AnsiColor, Style};

    /// Done, ready.
    pub(in crate::cli) const GOOD: Style = AnsiColor::Green.on_default();
    /// Given up, failed.
    pub(in crate::cli) const BAD: Style = AnsiColor::Red.on_default().bold();
    /// Needs a look: retrying, paused.
    pub(in crate::cli) const CARE: Style = AnsiColor::Yellow.on_default();
    /// Under way.
    pub(in crate::cli) const BUSY: Style = AnsiColor::Cyan.on_default();
    /// Of less interest.
    pub(in crate::cli) const DIM: Style = Style::new().dimmed();
    /// Headings.
    pub(in crate::cli) const HEAD: Style = Style::new().bold();
    /// Everything else.
    pub(in crate::cli) const PLAIN: Style = Style::new();
}

/// Blank columns between two columns.
const GAP: usize = 2;
/// To how many columns a column that may be cut is cut at most; with less room it is left out.
const ELASTIC_MIN: usize = 12;

/// Where a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum On {
    /// In both.
    Both,
    /// In tables only.
    Table,
    /// In tab-separated lines only.
    Tsv,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Column {
    /// What is in it: `task_id`; a table's head says `TASK ID`.
    pub(in crate::cli) name: &'static str,
    /// Where it is shown.
    pub(in crate::cli) on: On,
    /// Whether its cells may be cut where the terminal is narrow.
    pub(in crate::cli) elastic: bool,
    /// Whether it holds numbers.
    pub(in crate::cli) right: bool,
    /// How wide it is at least, so that pages that are printed one by one stand below each other.
    pub(in crate::cli) least: usize,
}

impl Column {
    /// A column of whole words, in both forms.
    pub(in crate::cli) const fn of(name: &'static str) -> Self {
        Self { name, on: On::Both, elastic: false, right: false, least: 0 }
    }

    /// Its cells may be cut.
    pub(in crate::cli) const fn elastic(self) -> Self {
        Self { elastic: true, ..self }
    }

    /// It holds numbers.
    pub(in crate::cli) const fn number(self) -> Self {
        Self { right: true, ..self }
    }

    /// It is at least so wide.
    pub(in crate::cli) const fn at_least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// It is shown there only.
    pub(in crate::cli) const fn only(self, on: On) -> Self {
        Self { on, ..self }
    }
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell of anybody's text.
    pub(in crate::cli) fn new(text: impl AsRef<str>) -> Self {
        Self { text: visible(text.as_ref()).into_owned(), style: palette::PLAIN }
    }

    /// In this colour.
    pub(in crate::cli) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl<T: std::fmt::Display> From<Option<T>> for Cell {
    /// What is not there is an empty cell.
    fn from(value: Option<T>) -> Self {
        value.map(|value| Self::new(value.to_string())).unwrap_or_default()
    }
}

/// How cells are to be filled.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Look {
    /// The moment that relative times refer to.
    pub(in crate::cli) now: WallMs,
    /// For people: times are relative, numbers have commas.
    pub(in crate::cli) people: bool,
}

impl Look {
    /// A time, as the API gave it.
    pub(in crate::cli) fn time(&self, text: &str) -> String {
        match WallMs::parse(text) {
            Ok(then) if self.people => relative(then, self.now),
            Ok(_) | Err(_) => text.to_owned(),
        }
    }
}

/// Something that has a row.
pub(in crate::cli) trait Shown: serde::de::DeserializeOwned {
    /// Its columns, the most important first: those on the right go first where a terminal is narrow.
    const COLUMNS: &'static [Column];

    /// What `-o name` prints.
    fn name(&self) -> &str;

    /// A cell for each of the columns.
    fn cells(&self, look: &Look) -> Vec<Cell>;
}

/// The rows of one page of a table.
pub(in crate::cli) struct Page {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Page {
    /// The columns of `all` that are shown on `on`, and the cells of each row that go with them.
    pub(in crate::cli) fn new(all: &[Column], on: On, rows: impl Iterator<Item = Vec<Cell>>) -> Self {
        let is_shown = |column: &Column| column.on == On::Both || column.on == on;
        let fit = |cells: Vec<Cell>| {
            all.iter().zip(cells).filter(|(column, _)| is_shown(column)).map(|(_, cell)| cell).collect()
        };
        Self { columns: all.iter().copied().filter(is_shown).collect(), rows: rows.map(fit).collect() }
    }

    /// As lines of cells with a tab between them. A cell never has a tab or an end of line in it.
    pub(in crate::cli) fn tsv(&self, head: bool) -> String {
        let mut out = String::new();
        if head {
            let names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
            out = names.join("\t") + "\n";
        }
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(|cell| cell.text.as_str()).collect();
            out.push_str(&cells.join("\t"));
            out.push('\n');
        }
        out
    }

    /// As a table, no line wider than `room` (`None`: as wide as it needs).
    pub(in crate::cli) fn table(&self, head: bool, room: Option<usize>) -> String {
        let widths = self.widths(room);
        let mut out = String::new();
        if head {
            let titles = self
                .columns
                .iter()
                .map(|column| Cell { text: column.name.replace('_', " ").to_uppercase(), style: palette::HEAD });
            self.line(&mut out, &titles.collect::<Vec<_>>(), &widths, room);
        }
        for row in &self.rows {
            self.line(&mut out, row, &widths, room);
        }
        out
    }

    /// How wide each column becomes; columns that do not fit are left out, the last ones first.
    fn widths(&self, room: Option<usize>) -> Vec<usize> {
        let wants = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| width(&cell.text));
            cells.max().unwrap_or(0).max(column.name.len()).max(column.least)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(wants).collect();
        let Some(room) = room else { return widths };
        loop {
            let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            let over = total.saturating_sub(room);
            if over == 0 || widths.len() <= 1 {
                return widths;
            }
            let elastic = self.columns.iter().zip(&mut widths).filter(|(column, _)| column.elastic);
            let widest = elastic.map(|(_, width)| width).filter(|width| **width > ELASTIC_MIN).max();
            match widest {
                Some(width) => *width = width.saturating_sub(over).max(ELASTIC_MIN),
                None => drop(widths.pop()),
            }
        }
    }

    fn line(&self, out: &mut String, cells: &[Cell], widths: &[usize], room: Option<usize>) {
        let mut line = String::new();
        for (index, ((cell, column), wide)) in cells.iter().zip(&self.columns).zip(widths).enumerate() {
            let text = cut(&cell.text, room.map_or(*wide, |room| (*wide).min(room)));
            let pad = " ".repeat(wide.saturating_sub(width(&text)));
            let (before, after) = if column.right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            let gap = if index == 0 { "" } else { "  " };
            let style = if text.is_empty() { palette::PLAIN } else { cell.style };
            if write!(line, "{gap}{before}{style}{text}{style:#}{after}").is_err() {
                tracing::debug!("a string refused to grow");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::of("task_id"),
        Column::of("tries").number(),
        Column::of("last_error").elastic().only(On::Table),
        Column::of("run_at").only(On::Tsv),
    ];

    fn page(on: On) -> Page {
        let row = |id: &str, tries: &str, error: &str| {
            vec![Cell::new(id), Cell::new(tries), Cell::new(error), Cell::new("2026-11-24T12:00:00.000Z")]
        };
        let rows = [row("a", "1", ""), row("order:7", "12", "connection\trefused by 日本語\n")];
        Page::new(&COLUMNS, on, rows.into_iter())
    }

    #[test]
    fn programs_get_lines_with_tabs() {
        insta::assert_snapshot!(page(On::Tsv).tsv(true), @r"
        task_id	tries	run_at
        a	1	2026-11-24T12:00:00.000Z
        order:7	12	2026-11-24T12:00:00.000Z
        ");
    }

    #[test]
    fn people_get_columns_cut_to_their_terminal() {
        let plain = |room| anstream::adapter::strip_str(&page(On::Table).table(true, room)).to_string();
        insta::assert_snapshot!(plain(None), @r"
        TASK ID  TRIES  LAST ERROR
        a            1
        order:7     12  connection\trefused by 日本語\n
        ");
        insta::assert_snapshot!(plain(Some(40)), @r"
        TASK ID  TRIES  LAST ERROR
        a            1
        order:7     12  connection\trefused by …
        ");
        insta::assert_snapshot!(plain(Some(20)), @r"
        TASK ID  TRIES
        a            1
        order:7     12
        ");
        for room in 1..60 {
            let table = plain(Some(room));
            assert!(table.lines().all(|line| width(line) <= room), "{room}:\n{table}");
        }
    }
}
