//! The description of one table.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use alloy::primitives::B256;

use super::column::{Column, KEY, Type};
use super::copy::CopyBuffer;
use super::place::Place;
use super::sql::{NAME, Statements};
use crate::chain::logs::Log;

/// Why a log is refused, for people.
pub type Refusal = Cow<'static, str>;

/// Writes the row of one log.
pub trait Decode: fmt::Debug + Send + Sync {
    /// Puts every column of the row into `row`, in the table's order, or says why the log is refused. Then the written part is
    /// removed, and the log goes to the quarantine.
    ///
    /// # Errors
    /// The reason, for people.
    fn decode(&self, place: &Place<'_>, log: &Log<'_>, row: &mut CopyBuffer) -> Result<(), Refusal>;
}

/// The logs that make rows of a table.
#[derive(Clone, Debug)]
pub enum Takes {
    /// Every log, unchanged.
    Every,
    /// The logs of one event.
    Event(Event),
    /// The logs that another table's decoder refuses, or whose time has no partition.
    Refused,
}

/// The logs of one event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Their first topic.
    pub topic0: B256,
    /// Each number of their topics, and their decoder: the same event with other indexed parameters is another form of it.
    pub forms: Vec<Form>,
    /// The column with the emitter, which decides whether a row belongs to a filter.
    pub emitter: String,
    /// The kind of contracts that emit them; `None`: any contract.
    pub of: Option<String>,
}

/// The logs of an event with this number of topics.
#[derive(Clone, Debug)]
pub struct Form {
    /// The number of topics.
    pub topics: usize,
    /// The function that writes the row.
    pub decoder: Arc<dyn Decode>,
}

/// A table of rows of chains.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    schema: String,
    table: String,
    about: String,
    columns: Vec<Column>,
    takes: Takes,
    indexes: Vec<Vec<String>>,
    why_indexes: String,
    statements: Statements,
    /// Its index among [`Datasets`].
    pub(super) at: usize,
}

/// The column of the contract whose event a row is.
fn emitter(takes: &Takes) -> Option<&str> {
    match takes {
        Takes::Event(event) => Some(&event.emitter),
        Takes::Every | Takes::Refused => None,
    }
}

impl Dataset {
    /// Describes a table. `name` is its name in the configuration and in messages; `columns` are the written columns, in the
    /// table's order.
    pub fn new(name: &str, (schema, table): (&str, &str), about: &str, columns: Vec<Column>, takes: Takes) -> Self {
        let statements = Statements::of(schema, table, &columns, !matches!(takes, Takes::Refused), emitter(&takes));
        Self {
            name: name.into(),
            schema: schema.into(),
            table: table.into(),
            about: about.into(),
            columns,
            takes,
            indexes: Vec::new(),
            why_indexes: String::new(),
            statements,
            at: 0,
        }
    }

    /// With these secondary indexes of each leaf if the configuration names none, each on columns joined by `+`. `why`: the
    /// queries that they serve.
    #[must_use]
    pub fn with_indexes(mut self, indexes: &[&str], why: &str) -> Self {
        self.indexes = indexes.iter().map(|columns| columns.split('+').map(str::to_owned).collect()).collect();
        self.why_indexes = why.into();
        self
    }

    /// The table in another schema.
    #[must_use]
    pub fn in_schema(self, schema: &str) -> Self {
        let statements =
            Statements::of(schema, &self.table, &self.columns, self.is_partitioned(), emitter(&self.takes));
        Self { schema: schema.into(), statements, ..self }
    }

    /// Its name in the configuration and in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's schema, unquoted.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's name, unquoted.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The table's comment.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// All columns, in the table's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns beside the key, in the table's order: the cells of a compared row.
    pub fn cells(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !KEY.contains(&column.name.as_str()))
    }

    /// The index of a column among the cells.
    pub fn cell(&self, name: &str) -> Option<usize> {
        self.cells().position(|column| column.name == name)
    }

    /// The logs that make its rows.
    pub fn takes(&self) -> &Takes {
        &self.takes
    }

    /// The event whose logs make its rows; `None` for the table of all logs and for the quarantine.
    pub fn event(&self) -> Option<&Event> {
        match &self.takes {
            Takes::Event(event) => Some(event),
            Takes::Every | Takes::Refused => None,
        }
    }

    /// Whether it is partitioned by chain and time, and maintained by the partition manager. The quarantine is not: it is small,
    /// and holds rows of absurd times.
    pub fn is_partitioned(&self) -> bool {
        !matches!(self.takes, Takes::Refused)
    }

    /// The columns that an index of a leaf may have. Below one chain's partition, the chain id is always equal.
    pub fn indexable(&self) -> impl Iterator<Item = &str> {
        let fits = |column: &&Column| !column.wide && column.of != Type::Json && column.name != KEY[0];
        self.columns.iter().filter(fits).map(|column| column.name.as_str())
    }

    /// The columns of each secondary index of its leaves, if the configuration names none.
    pub fn indexes(&self) -> &[Vec<String>] {
        &self.indexes
    }

    /// The queries that these indexes serve.
    pub fn why_indexes(&self) -> &str {
        &self.why_indexes
    }

    /// Its statements.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Its index among its datasets.
    pub fn at(&self) -> usize {
        self.at
    }

    pub(super) fn fault(&self) -> Option<String> {
        let names = [self.schema(), self.table()].into_iter().chain(self.columns.iter().map(|column| &*column.name));
        let is_name = |name: &&str| (1..=NAME).contains(&name.len()) && !name.contains('\0');
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            return Some(format!("{name:?} is not a valid name in the database: a name has 1 to {NAME} bytes"));
        }
        let has = |name: &str| self.columns.iter().filter(|column| column.name == name).count();
        let typed = KEY.iter().zip([Type::Int8, Type::Time, Type::Int8, Type::Int4]);
        let fits_key = |name: &str, of: Type| {
            has(name) == 1
                && self.columns.iter().any(|column| column.name == name && column.of == of && !column.nullable)
        };
        let lacks = typed.into_iter().find(|(name, of)| !fits_key(name, *of));
        let fits = |column: &str| self.indexable().any(|name| name == column);
        let unknown = self.indexes.iter().flatten().find(|column| !fits(column));
        let emitter = self.event().map(|event| event.emitter.as_str()).filter(|emitter| has(emitter) != 1);
        lacks.map(|(name, of)| format!("it has no column {name} {} NOT NULL", of.sql())).or_else(|| {
            let missing = unknown.map(String::as_str).or(emitter)?;
            Some(format!("its description names columns that it lacks: {missing}"))
        })
    }
}

impl PartialEq for Dataset {
    fn eq(&self, other: &Self) -> bool {
        let named = |of: &Self| (of.name.clone(), of.schema.clone(), of.table.clone());
        named(self) == named(other) && self.columns == other.columns && self.indexes == other.indexes
    }
}
