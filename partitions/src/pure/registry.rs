//! The place of the intended states of leaves, and of the record of operations.

use super::names::quoted;

/// The schemas of a registry and of its record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registry {
    /// The schema of states, holds, floors and archives.
    pub schema: String,
    /// The schema of the table `activity`, the record of operations.
    pub record: String,
}

impl Registry {
    /// Both in one schema, by its unquoted name.
    pub fn new(schema: impl Into<String>) -> Self {
        let schema = schema.into();
        Self { record: schema.clone(), schema }
    }

    /// The registry, with its record in another schema.
    #[must_use]
    pub fn recorded_in(self, schema: impl Into<String>) -> Self {
        Self { record: schema.into(), ..self }
    }

    /// SQL for this registry: the words `registry` and `record` become its schemas.
    pub(crate) fn sql(&self, sql: &str) -> String {
        placed(&placed(sql, "record.", &self.record), "registry.", &self.schema)
    }
}

/// Replaces the word by a schema. At the end of a sentence, the word stays a word.
fn placed(sql: &str, word: &str, schema: &str) -> String {
    let mut parts = sql.split(word);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |before, rest| match rest.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
        true => before + &quoted(schema) + "." + rest,
        false => before + word + rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_stand_for_schemas_are_replaced_where_something_follows() {
        let registry = Registry::new("mine").recorded_in("of \"all\"");
        assert_eq!(
            registry
                .sql("SELECT registry.f('registry.leaf') FROM record.activity -- of the registry. And of its record."),
            "SELECT \"mine\".f('\"mine\".leaf') FROM \"of \"\"all\"\"\".activity -- of the registry. And of its record."
        );
    }
}
