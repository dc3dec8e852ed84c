//! A managed table: its name and its layout.

use std::fmt;

use super::names::qualified;
use super::plan::Index;
use super::registry::Registry;

/// A table that is partitioned by `LIST (key)` and then by `RANGE (time_column)`; or, *flat*, only by `RANGE (time_column)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its schema; new sub-parents and leaves are made there.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The column of type timestamptz that cuts the leaves.
    pub time_column: String,
    /// Whether it has no list level. Its key is 0 then.
    pub flat: bool,
    /// The registry with the intended states of its leaves.
    pub registry: Registry,
    /// Indexes that stand on each leaf only, beside the table's. The table lacks them, so that a leaf can be attached and loaded
    /// without them.
    pub leaf_indexes: Vec<Index>,
    /// The schema of the current leaf, if it differs from the table's.
    pub leaf_schema: Option<String>,
}

impl Table {
    /// A table by its unquoted names, registered in its own schema, without indexes that only leaves have.
    pub fn new(schema: impl Into<String>, name: impl Into<String>, time_column: impl Into<String>) -> Self {
        let schema = schema.into();
        Self {
            registry: Registry::new(schema.clone()),
            schema,
            name: name.into(),
            time_column: time_column.into(),
            flat: false,
            leaf_indexes: Vec::new(),
            leaf_schema: None,
        }
    }

    /// A table without a list level.
    pub fn flat(schema: impl Into<String>, name: impl Into<String>, time_column: impl Into<String>) -> Self {
        Self { flat: true, ..Self::new(schema, name, time_column) }
    }

    /// The table with another registry.
    #[must_use]
    pub fn registered_in(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// SQL about its registry: see [`Registry::sql`].
    pub(crate) fn registered(&self, sql: &str) -> String {
        self.registry.sql(sql)
    }

    /// The table with indexes that only leaves have.
    #[must_use]
    pub fn with_leaf_indexes(mut self, indexes: impl IntoIterator<Item = Index>) -> Self {
        self.leaf_indexes = indexes.into_iter().collect();
        self
    }

    /// The table, for a leaf in a schema that may be another one.
    pub(crate) fn of_leaf_in(&self, schema: &str) -> Self {
        Self { leaf_schema: Some(schema.to_owned()), ..self.clone() }
    }

    /// A leaf of it, quoted.
    pub fn leaf(&self, name: &str) -> String {
        qualified(self.leaf_schema.as_ref().unwrap_or(&self.schema), name)
    }

    /// Another table of the same schema, quoted.
    pub(crate) fn sibling(&self, name: &str) -> String {
        qualified(&self.schema, name)
    }
}

/// Schema and name, quoted.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sibling(&self.name))
    }
}
