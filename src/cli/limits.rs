//! `sendoff limits`: the one table of bounds.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::task::limits::table;

use super::args::OutputOptions;
use super::exit::{Exit, Failed};
use super::output::text::grouped;
use super::output::{Cell, Column, Item, Look, Printer, Shown};

/// How to print them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sendoff limits\n  sendoff limits -o json")]
pub(super) struct Limits {
    #[command(flatten)]
    output: OutputOptions,
}

/// A limit as it is printed.
#[derive(Debug, Serialize, Deserialize)]
struct LimitShown {
    name: String,
    value: String,
    unit: String,
    meaning: String,
}

impl Shown for LimitShown {
    const COLUMNS: &'static [Column] =
        &[Column::of("name"), Column::of("value").number(), Column::of("unit"), Column::of("meaning").elastic()];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let value = match self.value.parse() {
            Ok(number) if look.people => grouped(number),
            Ok(_) | Err(_) => self.value.clone(),
        };
        vec![Cell::new(&self.name), Cell::new(value), Cell::new(&self.unit), Cell::new(&self.meaning)]
    }
}

pub(super) fn run(limits: &Limits) -> Result<Exit, Failed> {
    let printer = Printer::new(&limits.output, Clock::system());
    let mut items = Vec::new();
    for limit in table() {
        let (name, unit) = (limit.name.to_ascii_lowercase(), limit.unit.to_owned());
        let seen = LimitShown { name, value: limit.value, unit, meaning: limit.meaning };
        let raw = serde_json::value::to_raw_value(&seen)
            .map_err(|error| Failed::told(Exit::Failure, format!("failed to write JSON: {error}")))?;
        items.push(Item { raw, seen });
    }
    let mut listing = printer.listing();
    listing.add(&items)?;
    listing.end()?;
    Ok(Exit::Ok)
}
