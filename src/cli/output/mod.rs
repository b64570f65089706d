//! What a command shows: data on standard output in the format asked for, everything else on standard error.

pub(in crate::cli) mod json;
pub(in crate::cli) mod moment;
mod printer;
mod table;
pub(in crate::cli) mod text;

pub(in crate::cli) use printer::{Item, Printer};
pub(in crate::cli) use table::{Cell, Column, Look, On, Page, Shown, palette};
