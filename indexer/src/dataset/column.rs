//! The columns of a table: their types, and the equality of values.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`.
    Bool,
    /// `int2`.
    Int2,
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
    /// `numeric(20,0)`: a uint64.
    Uint64,
    /// `numeric(78,0)`: an int256 or uint256.
    Numeric,
    /// `jsonb`. Write numbers beyond 64 bits as texts: numbers are compared as floating point.
    Json,
}

impl Type {
    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Time => "timestamptz",
            Self::Bytes => "bytea",
            Self::Text => "text",
            Self::Uint64 => "numeric(20,0)",
            Self::Numeric => "numeric(78,0)",
            Self::Json => "jsonb",
        }
    }

    /// Its name as `format_type` writes it.
    pub fn formatted(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Time => "timestamp with time zone",
            other => other.sql(),
        }
    }

    /// The bytes to which PostgreSQL aligns its values. Columns in falling order of them leave no gaps.
    pub fn alignment(self) -> u8 {
        match self {
            Self::Int8 | Self::Time => 8,
            Self::Int4 => 4,
            Self::Int2 => 2,
            // A short value of variable length is not aligned.
            Self::Bool | Self::Bytes | Self::Text | Self::Uint64 | Self::Numeric | Self::Json => 1,
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

/// The columns of the key.
pub(super) fn key() -> [Column; 4] {
    [
        Column::new("chain_id", Type::Int8, "EIP-155 chain id."),
        Column::new("block_time", Type::Time, "Time of the block (UTC); partition key: bound it in every query."),
        Column::new("block_number", Type::Int8, "Block number; dalp_indexed.block_time_range() gives its time bounds."),
        Column::new("log_index", Type::Int4, "Position of the log in its block."),
    ]
}
