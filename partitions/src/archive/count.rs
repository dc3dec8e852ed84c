//! Counts rows in the form of binary COPY.

use std::collections::HashSet;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyOutStream, Transaction};

use super::ArchiveError;
use super::columns::{Column, EPOCH_MICROS, Group, Kind};
use super::manifest::{Counted, Extent, Manifest};
use super::types::{columns_of, is_written, safe_type};
use crate::Table;
use crate::pure::names::quoted;

/// The error for an unknown column.
pub(super) const UNKNOWN: &str = "?";
/// Signature, flags and the length of the extension, before the first tuple.
const HEADER: usize = 19;

/// The columns of a leaf, and the columns of its primary key in order.
#[derive(Debug)]
pub(super) struct Layout {
    pub columns: Vec<Column>,
    pub sql_types: Vec<String>,
    pub key: Vec<String>,
}

const COLUMNS: &str = "
    SELECT attname::text, format_type(atttypid, NULL), atttypmod, NOT attnotnull, format_type(atttypid, atttypmod),
           (SELECT array_position(i.indkey::int2[], a.attnum) FROM pg_catalog.pg_index AS i WHERE i.indrelid = attrelid AND indisprimary),
           attgenerated <> ''
    FROM pg_catalog.pg_attribute AS a
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

impl Layout {
    /// Reads it. `written` are the columns with values that have no Parquet form. Computed columns count if `computed` says so.
    pub async fn of(
        transaction: &Transaction<'_>,
        relation: &str,
        written: &HashSet<String>,
        computed: impl Fn(&str) -> bool,
    ) -> Result<Self, ArchiveError> {
        let doing = || ArchiveError::asking("read the columns of", relation);
        let rows = transaction
            .query_typed(COLUMNS, &[(&relation as &(dyn ToSql + Sync), Type::TEXT)])
            .await
            .map_err(doing())?;
        let (mut layout, mut key) = (Self { columns: Vec::new(), sql_types: Vec::new(), key: Vec::new() }, Vec::new());
        for row in rows {
            let (name, sql_type): (String, String) = (row.get(0), row.get(1));
            if row.get(6) && !computed(&name) {
                continue;
            }
            let kind = if written.contains(&name) { Kind::Written } else { Kind::of_any(&sql_type, row.get(2)) };
            key.extend(row.get::<_, Option<i32>>(5).map(|place| (place, name.clone())));
            layout.columns.push(Column { name, kind, nullable: row.get(3) });
            layout.sql_types.push(row.get(4));
        }
        key.sort_unstable();
        layout.key = key.into_iter().map(|(_, name)| name).collect();
        Ok(layout)
    }

    /// The values as SQL, for a table with the alias `leaf`.
    pub fn values(&self) -> String {
        let value = |column: &Column| match column.kind {
            Kind::Written => format!("leaf.{}::text", quoted(&column.name)),
            _ => format!("leaf.{}", quoted(&column.name)),
        };
        self.columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    /// The columns with extents: numbers and times of the key.
    fn extents(&self) -> Vec<bool> {
        self.columns.iter().map(|column| column.kind.is_ordinal() && self.key.contains(&column.name)).collect()
    }

    pub fn counter(&self) -> Counter {
        Counter { extents: self.extents(), found: vec![None; self.columns.len()], counted: Counted::default() }
    }
}

/// Counts tuples.
#[derive(Debug)]
pub(super) struct Counter {
    extents: Vec<bool>,
    found: Vec<Option<Extent>>,
    counted: Counted,
}

impl Counter {
    /// Counts with extents of the columns that a manifest names.
    pub fn like(columns: &[Column], counted: &Counted) -> Self {
        let extents = columns.iter().map(|column| counted.extents.contains_key(&column.name)).collect();
        Self { extents, found: vec![None; columns.len()], counted: Counted::default() }
    }

    /// Adds a tuple of these columns.
    pub fn add(&mut self, columns: &[Column], tuple: &[u8]) {
        self.counted.rows += 1;
        self.counted.hash.add(tuple);
        let mut rest = tuple.get(2..).unwrap_or_default();
        for ((column, wanted), found) in columns.iter().zip(&self.extents).zip(&mut self.found) {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return };
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0).min(after.len());
            if *wanted && length > 0 {
                Extent::add(found, ordinal(column.kind, &after[..length]));
            }
            rest = &after[length..];
        }
    }

    pub fn finish(self, columns: &[Column]) -> Counted {
        let found = columns.iter().zip(self.found).filter_map(|(column, found)| Some((column.name.clone(), found?)));
        Counted { extents: found.collect(), ..self.counted }
    }
}

fn ordinal(kind: Kind, field: &[u8]) -> i64 {
    let start = if field[0] & 0x80 == 0 { 0 } else { -1 };
    let number = field.iter().fold(start, |number: i64, byte| number << 8 | i64::from(*byte));
    if kind == Kind::Timestamptz { number.saturating_add(EPOCH_MICROS) } else { number }
}

/// Counts the present rows of a leaf.
pub async fn count(transaction: &Transaction<'_>, table: &Table, leaf: &str) -> Result<Counted, ArchiveError> {
    count_of(transaction, &table.leaf(leaf), &HashSet::new(), |_| true).await
}

async fn count_of(
    transaction: &Transaction<'_>,
    relation: &str,
    written: &HashSet<String>,
    computed: impl Fn(&str) -> bool,
) -> Result<Counted, ArchiveError> {
    let layout = Layout::of(transaction, relation, written, computed).await?;
    let sql = format!("COPY (SELECT {} FROM ONLY {relation} AS leaf) TO STDOUT (FORMAT binary)", layout.values());
    drain(transaction, &sql, relation, &layout.columns, layout.counter()).await
}

/// Counts the present rows of a leaf in the same way as at its archiving. A new column makes a difference.
pub(crate) async fn recount(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    relation: &str,
) -> Result<Counted, ArchiveError> {
    let written = manifest.columns.iter().filter(|column| is_written(column));
    let written = written.map(|column| column.name.clone()).collect();
    // Earlier versions did not archive computed columns.
    let computed = |name: &str| manifest.columns.iter().any(|column| column.name == name);
    count_of(transaction, relation, &written, computed).await
}

/// Counts the rows of any table under the names and types of a manifest's columns, in the same way as at its archiving.
pub(crate) async fn count_as(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    relation: &str,
) -> Result<Counted, ArchiveError> {
    let unknown = || ArchiveError::Corrupt {
        object: manifest.object.clone(),
        why: "its manifest names a type that is not known here".to_owned(),
    };
    let columns = columns_of(manifest).ok_or_else(unknown)?;
    let mut values = Vec::new();
    for column in &manifest.columns {
        values.push(format!("{}::{}", quoted(&column.name), safe_type(manifest, column)?));
    }
    let sql = format!("COPY (SELECT {} FROM ONLY {relation}) TO STDOUT (FORMAT binary)", values.join(", "));
    let counter = Counter::like(&columns, &manifest.counted);
    drain(transaction, &sql, relation, &columns, counter).await
}

async fn drain(
    transaction: &Transaction<'_>,
    sql: &str,
    relation: &str,
    columns: &[Column],
    mut counter: Counter,
) -> Result<Counted, ArchiveError> {
    let mut tuples = Tuples::of(transaction, sql, relation).await?;
    let mut group = Group::of(columns);
    while let Some(tuple) = tuples.next(columns, &mut group).await? {
        counter.add(columns, &tuple);
        if group.rows >= 4_096 {
            group = Group::of(columns);
        }
    }
    Ok(counter.finish(columns))
}

/// The rows of a COPY.
pub(super) struct Tuples {
    stream: Pin<Box<CopyOutStream>>,
    message: Bytes,
    begun: bool,
    relation: String,
}

impl Tuples {
    pub async fn of(transaction: &Transaction<'_>, sql: &str, relation: &str) -> Result<Self, ArchiveError> {
        let stream = transaction.copy_out(sql).await.map_err(ArchiveError::asking("read", relation))?;
        Ok(Self { stream: Box::pin(stream), message: Bytes::new(), begun: false, relation: relation.to_owned() })
    }

    /// Adds the next row to `group`, and returns the bytes of the server; `None` after the last row.
    pub async fn next(&mut self, columns: &[Column], group: &mut Group) -> Result<Option<Bytes>, ArchiveError> {
        while self.message.is_empty() {
            let message = self.stream.try_next().await.map_err(ArchiveError::asking("read", &self.relation))?;
            let Some(message) = message else { return Ok(None) };
            self.message = message;
            if !self.begun {
                self.begun = true;
                let header = HEADER.min(self.message.len());
                let _ = self.message.split_to(header);
            }
        }
        group.push(columns, &mut self.message).map_err(|column| ArchiveError::Unfit {
            table: self.relation.clone(),
            column: column.map_or_else(|| UNKNOWN.to_owned(), |column| column.name.clone()),
        })
    }
}
