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
        placed(&placed(sql, "record.", &self.record), "registry.", &self.schema)
    }
}

/// Puts a schema in the place of the word that stands for it. At the end of a sentence, that is a word.
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
