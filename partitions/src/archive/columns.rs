//! Columns of a table in Parquet, and rows between PostgreSQL's binary COPY and these columns. Pure.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::schema::types::{Type, TypePtr};

use super::numeric::{self, WORD};

/// Microseconds from 1970 (Parquet's epoch) to 2000 (PostgreSQL's epoch).
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// The Parquet form of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    /// Binary COPY puts a version byte before the text.
    Jsonb,
    Bytes,
    Timestamptz,
    Timestamp,
    Date,
    Uuid,
    /// Up to 38 digits, which every reader supports.
    Decimal {
        precision: i32,
        scale: i32,
    },
    /// Any other type, and values without a Parquet form: text as PostgreSQL writes it.
    Written,
    /// A whole number of more digits, such as a uint256: a sign byte, then the 32 bytes of the word, big-endian, two's complement.
    Word,
}

/// The Parquet type of a [`Kind::Written`] in a manifest.
pub(super) const WRITTEN: &str = "BYTE_ARRAY (STRING): as PostgreSQL writes it";

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
}

impl Kind {
    /// Finds the kind from the type's name (from `format_type` without a modifier) and the modifier.
    pub fn of(name: &str, modifier: i32) -> Option<Self> {
        Some(match name {
            "boolean" => Self::Bool,
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "real" => Self::Float4,
            "double precision" => Self::Float8,
            "text" | "character varying" | "character" | "bpchar" | "json" | "name" => Self::Text,
            "jsonb" => Self::Jsonb,
            "bytea" => Self::Bytes,
            "timestamp with time zone" => Self::Timestamptz,
            "timestamp without time zone" => Self::Timestamp,
            "date" => Self::Date,
            "uuid" => Self::Uuid,
            "numeric" if modifier >= 4 => {
                let (precision, scale) = ((modifier - 4) >> 16 & 0xffff, (modifier - 4) & 0x7ff);
                match (precision, scale) {
                    (..=38, 0..=38) if scale <= precision => Self::Decimal { precision, scale },
                    (39..=78, 0) => Self::Word,
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// As above; a type without another form becomes text as PostgreSQL writes it.
    pub fn of_any(name: &str, modifier: i32) -> Self {
        Self::of(name, modifier).unwrap_or(Self::Written)
    }

    /// The type in readable form, for the manifest.
    pub fn parquet(self) -> String {
        match self {
            Self::Bool => "BOOLEAN".into(),
            Self::Int2 | Self::Int4 => "INT32".into(),
            Self::Int8 => "INT64".into(),
            Self::Float4 => "FLOAT".into(),
            Self::Float8 => "DOUBLE".into(),
            Self::Text | Self::Jsonb => "BYTE_ARRAY (STRING)".into(),
            Self::Written => WRITTEN.into(),
            Self::Bytes => "BYTE_ARRAY".into(),
            Self::Timestamptz => "INT64 (TIMESTAMP MICROS, UTC)".into(),
            Self::Timestamp => "INT64 (TIMESTAMP MICROS)".into(),
            Self::Date => "INT32 (DATE)".into(),
            Self::Uuid => "FIXED_LEN_BYTE_ARRAY(16) (UUID)".into(),
            Self::Decimal { precision, scale } => format!("FIXED_LEN_BYTE_ARRAY(16) (DECIMAL {precision}, {scale})"),
            Self::Word => "FIXED_LEN_BYTE_ARRAY(33): sign byte, then the 32-byte word, big-endian".into(),
        }
    }

    /// Whether the smallest and largest value are kept, as numbers.
    pub fn is_ordinal(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8 | Self::Timestamptz)
    }
}

/// The schema of a file.
pub(super) fn schema(columns: &[Column]) -> parquet::errors::Result<TypePtr> {
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("row").with_fields(fields).build()?))
}

fn field(column: &Column) -> parquet::errors::Result<TypePtr> {
    let micros = |utc| Some(LogicalType::timestamp(utc, TimeUnit::MICROS));
    let (physical, length, logical) = match column.kind {
        Kind::Bool => (Physical::BOOLEAN, 0, None),
        Kind::Int2 | Kind::Int4 => (Physical::INT32, 0, None),
        Kind::Int8 => (Physical::INT64, 0, None),
        Kind::Float4 => (Physical::FLOAT, 0, None),
        Kind::Float8 => (Physical::DOUBLE, 0, None),
        Kind::Text | Kind::Written | Kind::Jsonb => (Physical::BYTE_ARRAY, 0, Some(LogicalType::String)),
        Kind::Bytes => (Physical::BYTE_ARRAY, 0, None),
        Kind::Timestamptz => (Physical::INT64, 0, micros(true)),
        Kind::Timestamp => (Physical::INT64, 0, micros(false)),
        Kind::Date => (Physical::INT32, 0, Some(LogicalType::Date)),
        Kind::Uuid => (Physical::FIXED_LEN_BYTE_ARRAY, 16, Some(LogicalType::Uuid)),
        Kind::Decimal { precision, scale } => {
            (Physical::FIXED_LEN_BYTE_ARRAY, 16, Some(LogicalType::decimal(scale, precision)))
        }
        Kind::Word => (Physical::FIXED_LEN_BYTE_ARRAY, 33, None),
    };
    let repetition = if column.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let builder = Type::primitive_type_builder(&column.name, physical).with_repetition(repetition).with_length(length);
    let builder = match column.kind {
        Kind::Decimal { precision, scale } => builder.with_precision(precision).with_scale(scale),
        _ => builder,
    };
    Ok(Arc::new(builder.with_logical_type(logical).build()?))
}

/// The non-null values of one column of a row group.
#[derive(Debug)]
pub(super) enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

/// One column of a row group.
#[derive(Debug)]
pub(super) struct Cells {
    pub values: Values,
    /// 1 for a value, 0 for null; empty where the column has no nulls.
    pub levels: Vec<i16>,
}

impl Cells {
    pub fn of(kind: Kind) -> Self {
        let values = match kind {
            Kind::Bool => Values::Bool(Vec::new()),
            Kind::Int2 | Kind::Int4 | Kind::Date => Values::Int32(Vec::new()),
            Kind::Int8 | Kind::Timestamptz | Kind::Timestamp => Values::Int64(Vec::new()),
            Kind::Float4 => Values::Float(Vec::new()),
            Kind::Float8 => Values::Double(Vec::new()),
            Kind::Text | Kind::Written | Kind::Jsonb | Kind::Bytes => Values::Bytes(Vec::new()),
            Kind::Uuid | Kind::Decimal { .. } | Kind::Word => Values::Fixed(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    /// Adds a field of binary COPY; `None` if the field does not fit the kind.
    fn push(&mut self, kind: Kind, mut field: Bytes) -> Option<()> {
        match (kind, &mut self.values) {
            (Kind::Bool, Values::Bool(values)) => values.push(field.try_get_u8().ok()? != 0),
            (Kind::Int2, Values::Int32(values)) => values.push(field.try_get_i16().ok()?.into()),
            (Kind::Int4, Values::Int32(values)) => values.push(field.try_get_i32().ok()?),
            (Kind::Date, Values::Int32(values)) => {
                let days = field.try_get_i32().ok().filter(|days| *days != i32::MIN)?;
                values.push(days.checked_add(EPOCH_DAYS)?);
            }
            (Kind::Int8, Values::Int64(values)) => values.push(field.try_get_i64().ok()?),
            (Kind::Timestamptz | Kind::Timestamp, Values::Int64(values)) => {
                // The infinities: plus infinity overflows, and minus infinity would become a finite time.
                let micros = field.try_get_i64().ok().filter(|micros| *micros != i64::MIN)?;
                values.push(micros.checked_add(EPOCH_MICROS)?);
            }
            (Kind::Float4, Values::Float(values)) => values.push(field.try_get_f32().ok()?),
            (Kind::Float8, Values::Double(values)) => values.push(field.try_get_f64().ok()?),
            (Kind::Jsonb, Values::Bytes(values)) => {
                field.try_get_u8().ok().filter(|version| *version == 1)?;
                values.push(field.into());
            }
            (Kind::Text | Kind::Written | Kind::Bytes, Values::Bytes(values)) => values.push(field.into()),
            (Kind::Uuid, Values::Fixed(values)) => values.push(ByteArray::from(field).into()),
            (Kind::Decimal { scale, .. }, Values::Fixed(values)) => {
                let wide = numeric::from_wire(&field, scale)?;
                values.push(ByteArray::from(wide[WORD - 16..].to_vec()).into());
            }
            (Kind::Word, Values::Fixed(values)) => {
                values.push(ByteArray::from(numeric::from_wire(&field, 0)?.to_vec()).into());
            }
            _ => return None,
        }
        Some(())
    }

    /// Writes value `at` as a field of binary COPY, with its length.
    fn put(&self, kind: Kind, at: usize, into: &mut BytesMut) -> Option<()> {
        match (kind, &self.values) {
            (Kind::Bool, Values::Bool(values)) => sized(into, &[u8::from(*values.get(at)?)]),
            (Kind::Int2, Values::Int32(values)) => {
                sized(into, &i16::try_from(*values.get(at)?).ok()?.to_be_bytes());
            }
            (Kind::Int4, Values::Int32(values)) => sized(into, &values.get(at)?.to_be_bytes()),
            (Kind::Date, Values::Int32(values)) => {
                sized(into, &values.get(at)?.checked_sub(EPOCH_DAYS)?.to_be_bytes());
            }
            (Kind::Int8, Values::Int64(values)) => sized(into, &values.get(at)?.to_be_bytes()),
            (Kind::Timestamptz | Kind::Timestamp, Values::Int64(values)) => {
                sized(into, &values.get(at)?.checked_sub(EPOCH_MICROS)?.to_be_bytes());
            }
            (Kind::Float4, Values::Float(values)) => sized(into, &values.get(at)?.to_be_bytes()),
            (Kind::Float8, Values::Double(values)) => sized(into, &values.get(at)?.to_be_bytes()),
            (Kind::Jsonb, Values::Bytes(values)) => {
                let text = values.get(at)?.data();
                into.put_i32(i32::try_from(text.len() + 1).ok()?);
                into.put_u8(1);
                into.put_slice(text);
            }
            (Kind::Text | Kind::Written | Kind::Bytes, Values::Bytes(values)) => sized(into, values.get(at)?.data()),
            (Kind::Uuid, Values::Fixed(values)) => sized(into, values.get(at)?.data()),
            (Kind::Decimal { scale, .. }, Values::Fixed(values)) => {
                numeric::put_wire(values.get(at)?.data(), scale, into)?;
            }
            (Kind::Word, Values::Fixed(values)) => numeric::put_wire(values.get(at)?.data(), 0, into)?,
            _ => return None,
        }
        Some(())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a field is under 1 GB")]
fn sized(into: &mut BytesMut, bytes: &[u8]) {
    into.put_i32(bytes.len() as i32);
    into.put_slice(bytes);
}

/// Rows of a row group, column by column.
#[derive(Debug)]
pub(super) struct Group {
    pub cells: Vec<Cells>,
    pub rows: usize,
}

impl Group {
    pub fn of(columns: &[Column]) -> Self {
        Self { cells: columns.iter().map(|column| Cells::of(column.kind)).collect(), rows: 0 }
    }

    /// Adds the tuple at the start of `message`, removes it from `message`, and returns it; `None` at the end of the data. An
    /// error names the column whose value cannot be kept, or whose field does not fit its type.
    pub fn push<'c>(
        &mut self,
        columns: &'c [Column],
        message: &mut Bytes,
    ) -> Result<Option<Bytes>, Option<&'c Column>> {
        let tuple = message.clone();
        let count = message.try_get_i16().ok().ok_or(None)?;
        if count == -1 {
            return Ok(None);
        }
        if usize::try_from(count) != Ok(columns.len()) {
            return Err(None);
        }
        for (column, cells) in columns.iter().zip(&mut self.cells) {
            let length = message.try_get_i32().ok().ok_or(None)?;
            if column.nullable {
                cells.levels.push(i16::from(length >= 0));
            }
            match usize::try_from(length) {
                Ok(length) if length <= message.len() => {
                    cells.push(column.kind, message.split_to(length)).ok_or(Some(column))?;
                }
                Err(_) if column.nullable => {}
                _ => return Err(Some(column)),
            }
        }
        self.rows += 1;
        Ok(Some(tuple.slice(..tuple.len() - message.len())))
    }

    /// Writes all rows as tuples, and calls `each` after every row. `None` if the columns differ in length.
    pub fn tuples(
        &self,
        columns: &[Column],
        into: &mut BytesMut,
        mut each: impl FnMut(&mut BytesMut, usize),
    ) -> Option<()> {
        let mut next = vec![0_usize; columns.len()];
        for row in 0..self.rows {
            let start = into.len();
            into.put_i16(i16::try_from(columns.len()).ok()?);
            for ((column, cells), next) in columns.iter().zip(&self.cells).zip(&mut next) {
                if column.nullable && *cells.levels.get(row)? == 0 {
                    into.put_i32(-1);
                } else {
                    cells.put(column.kind, *next, into)?;
                    *next += 1;
                }
            }
            each(into, start);
        }
        Some(())
    }
}
