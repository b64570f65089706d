//! An API key as the API gives it, as far as the command line reads it.

use serde::Deserialize;

use crate::cli::output::{Cell, Column, Look, On, Shown};

/// See the module.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeySeen {
    pub(super) id: String,
    #[serde(rename = "name")]
    pub(super) purpose: String,
    pub(super) scopes: Vec<String>,
    pub(super) created_at: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) last_used_at: Option<String>,
    /// Only in the answer that made it.
    pub(super) key: String,
}

impl Shown for KeySeen {
    const COLUMNS: &'static [Column] = &[
        Column::of("id"),
        Column::of("name").elastic(),
        Column::of("scopes"),
        Column::of("expires").only(On::Table),
        Column::of("expires_at").only(On::Tsv),
        Column::of("last_used").only(On::Table),
        Column::of("last_used_at").only(On::Tsv),
        Column::of("created").only(On::Table),
        Column::of("created_at").only(On::Tsv),
    ];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, look: &Look) -> Vec<Cell> {
        let mut cells = vec![Cell::new(&self.id), Cell::new(&self.purpose), Cell::new(self.scopes.join(" "))];
        for moment in [&self.expires_at, &self.last_used_at, &self.created_at] {
            let moment = moment.as_deref();
            cells.extend([Cell::from(moment.map(|at| look.time(at))), Cell::from(moment)]);
        }
        cells
    }
}
