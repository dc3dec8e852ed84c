//! The columns of a table: their types, and the equality of values.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `timestamptz`.
    Time,
    /// `bytea`.
    Bytes,
    /// `text`.
    Text,
    /// `numeric(78,0)`: an int256 or uint256.
    Numeric,
    /// `jsonb`. Write numbers beyond 64 bits as texts: numbers are compared as floating point.
    Json,
}

impl Type {
    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Time => "timestamptz",
            Self::Bytes => "bytea",
            Self::Text => "text",
            Self::Numeric => "numeric(78,0)",
            Self::Json => "jsonb",
        }
    }

    /// Whether two values in PostgreSQL's binary form are equal: jsonb by content, all other types by bytes.
    pub fn same(self) -> fn(&[u8], &[u8]) -> bool {
        match self {
            Self::Json => same_json,
            _ => |a, b| a == b,
        }
    }
}

fn same_json(a: &[u8], b: &[u8]) -> bool {
    // The first byte is the version of the form.
    let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes.get(1..)?).ok();
    a == b || value(a).is_some_and(|a| Some(a) == value(b))
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// Its type.
    pub of: Type,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its comment in the database.
    pub about: String,
    /// Whether a value may be too long for an index.
    pub wide: bool,
}

impl Column {
    /// A column that is never NULL.
    pub fn new(name: &str, of: Type, about: &str) -> Self {
        Self { name: name.into(), of, nullable: false, about: about.into(), wide: false }
    }

    /// A column that may be NULL.
    pub fn or_null(name: &str, of: Type, about: &str) -> Self {
        Self { nullable: true, ..Self::new(name, of, about) }
    }

    /// The column with values of any length.
    #[must_use]
    pub fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// The chain, the time, the block and the position of a row: every table has these columns, in any order. Partitioned tables have
/// their key on them, in this order.
pub const KEY: [&str; 4] = ["chain_id", "block_time", "block_number", "log_index"];
