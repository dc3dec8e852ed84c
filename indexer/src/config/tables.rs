//! The tables that are looked after: the indexer's own, by their names, and those of others.

use dalp_partitions::{Registry, Retention, Table};

use super::value::Interval;
use crate::dataset::Dataset;

/// The schema that the partition manager's registry stands in: migrations make it there.
pub(super) const REGISTRY: &str = "dalp_indexed";

/// The registry, with the platform's record of who did what.
pub(crate) fn registry() -> Registry {
    Registry::new(REGISTRY).recorded_in("dalp_audit")
}

/// The name of the record of deeds among `[tables.NAME]`: with the datasets', those that need no `table`.
pub(super) const ACTIVITY: &str = "activity";

/// A table that is looked after.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedTable {
    /// Its name in the configuration.
    pub name: String,
    /// The table.
    pub table: Table,
    /// Span of its new leaves.
    pub interval: Interval,
    /// How long its rows are kept, and what then.
    pub retention: Retention,
    /// What its rows are, if they are of chains.
    pub dataset: Option<Dataset>,
}

impl ManagedTable {
    /// Whether its key is a chain, so that its rows are final when their block is.
    pub fn is_of_chains(&self) -> bool {
        self.dataset.is_some()
    }
}
