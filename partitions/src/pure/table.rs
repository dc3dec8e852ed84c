//! A table that is managed: what it is called, and how it is cut.

use std::fmt;

use super::names::qualified;
use super::plan::Index;
use super::registry::Registry;

/// A table that is partitioned by `LIST (key)`, whose keys are partitioned by `RANGE (time_column)`; or, *flat*, by
/// `RANGE (time_column)` at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its schema; sub-parents and leaves are made there, too.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The column of type timestamptz that the leaves are cut by.
    pub time_column: String,
    /// Whether it has no list level. Its key is 0 then.
    pub flat: bool,
    /// What is intended with its leaves is written there.
    pub registry: Registry,
    /// Indexes that each leaf has on its own, beside those of the table. The table does not have them, so that a leaf
    /// can be attached and loaded without.
    pub leaf_indexes: Vec<Index>,
    /// The schema of the leaf that is looked at, where that is another than the table's.
    pub leaf_schema: Option<String>,
}

impl Table {
    /// A table by its names, unquoted, registered in its own schema, without indexes of the leaves' own.
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

    /// The same, with another registry.
    #[must_use]
    pub fn registered_in(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// SQL about its registry: see [`Registry::sql`].
    pub(crate) fn registered(&self, sql: &str) -> String {
        self.registry.sql(sql)
    }

    /// The same with indexes of the leaves' own.
    #[must_use]
    pub fn with_leaf_indexes(mut self, indexes: impl IntoIterator<Item = Index>) -> Self {
        self.leaf_indexes = indexes.into_iter().collect();
        self
    }

    /// The same, for a leaf in a schema that may be another.
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
