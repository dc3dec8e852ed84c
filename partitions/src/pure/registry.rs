//! Where it is written what is intended with leaves, and what was done with them.

use super::names::quoted;

/// The schemas of a registry and of its record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registry {
    /// Where it stands: the states of leaves, holds, floors and archives.
    pub schema: String,
    /// Where the table `activity` stands, in which it is recorded what was done.
    pub record: String,
}

impl Registry {
    /// Both in one schema, by its name, unquoted.
    pub fn new(schema: impl Into<String>) -> Self {
        let schema = schema.into();
        Self { record: schema.clone(), schema }
    }

    /// The same, with the record in another schema.
    #[must_use]
    pub fn recorded_in(self, schema: impl Into<String>) -> Self {
        Self { record: schema.into(), ..self }
    }

    /// SQL about it, which is written with its schemas as `registry` and `record`, for those that it has.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let recorded = sql.replace("record.", &format!("{}.", quoted(&self.record)));
        recorded.replace("registry.", &format!("{}.", quoted(&self.schema)))
    }
}
