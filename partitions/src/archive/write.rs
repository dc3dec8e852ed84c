//! From a leaf to a file.

use std::collections::HashSet;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{Datelike as _, Timelike as _, Utc};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, CopyOutStream, Transaction};

use super::ArchiveError;
use super::columns::{Cells, Column, Group, Kind, Values, schema};
use super::manifest::{Counted, Extent, FORMAT, Manifest, ManifestColumn, Subject};
use super::store::Archive;
use crate::catalog::quoted;
use crate::{Table, session};

/// Rows of a row group: what DuckDB likes best, and about 12 MB of logs.
const GROUP_ROWS: usize = 122_880;
/// Bytes of rows at which a row group is closed before that: it is held in memory.
const GROUP_BYTES: usize = 128 * 1024 * 1024;
/// A part of an upload; S3 wants at least 5 MB.
const PART: usize = 8 * 1024 * 1024;
/// Parts under way at once.
const PARALLEL_PARTS: usize = 4;
/// For a column that is not known.
const UNKNOWN: &str = "?";
/// Signature, flags and the length of the extension, before the first tuple.
const HEADER: usize = 19;

/// The columns of a leaf, and those of its primary key in order.
#[derive(Debug)]
pub(super) struct Layout {
    pub columns: Vec<Column>,
    sql_types: Vec<String>,
    key: Vec<String>,
}

const COLUMNS: &str = "
    SELECT attname::text, format_type(atttypid, NULL), atttypmod, NOT attnotnull, format_type(atttypid, atttypmod),
           (SELECT array_position(i.indkey::int2[], a.attnum) FROM pg_catalog.pg_index AS i WHERE i.indrelid = attrelid AND indisprimary),
           attgenerated <> ''
    FROM pg_catalog.pg_attribute AS a
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

impl Layout {
    /// Reads it. `written` are the columns of which some value has no place in a file as what it is. Computed columns count where `computed`
    /// says so.
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

    /// Their values for SQL, of the table that is called `leaf` there.
    fn values(&self) -> String {
        let value = |column: &Column| match column.kind {
            Kind::Written => format!("leaf.{}::text", quoted(&column.name)),
            _ => format!("leaf.{}", quoted(&column.name)),
        };
        self.columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    /// Which columns have extents: those of the key that are numbers or times.
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
    /// With extents of the columns that a manifest names.
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
    if kind == Kind::Timestamptz { number.saturating_add(super::columns::EPOCH_MICROS) } else { number }
}

/// Counts the rows of a leaf as it is now.
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

/// Counts the rows of a leaf as it is now, as they were counted when it was archived. A column that it got since makes a difference.
pub(crate) async fn recount(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    relation: &str,
) -> Result<Counted, ArchiveError> {
    let written = manifest.columns.iter().filter(|column| super::read::is_written(column));
    let written = written.map(|column| column.name.clone()).collect();
    // Versions before did not archive what is computed.
    let computed = |name: &str| manifest.columns.iter().any(|column| column.name == name);
    count_of(transaction, relation, &written, computed).await
}

/// Counts the rows of any table under the names and types of a manifest's columns, as they were counted when they were archived.
pub(crate) async fn count_as(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    relation: &str,
) -> Result<Counted, ArchiveError> {
    let unknown = || ArchiveError::Corrupt {
        object: manifest.object.clone(),
        why: "its manifest names a type that is not known here".to_owned(),
    };
    let columns = super::read::columns_of(manifest).ok_or_else(unknown)?;
    let mut values = Vec::new();
    for column in &manifest.columns {
        values.push(format!("{}::{}", quoted(&column.name), super::read::safe_type(manifest, column)?));
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
struct Tuples {
    stream: Pin<Box<CopyOutStream>>,
    message: Bytes,
    begun: bool,
    relation: String,
}

impl Tuples {
    async fn of(transaction: &Transaction<'_>, sql: &str, relation: &str) -> Result<Self, ArchiveError> {
        let stream = transaction.copy_out(sql).await.map_err(ArchiveError::asking("read", relation))?;
        Ok(Self { stream: Box::pin(stream), message: Bytes::new(), begun: false, relation: relation.to_owned() })
    }

    /// Adds the next row to `group`, and answers it as the server sent it; `None` after the last.
    async fn next(&mut self, columns: &[Column], group: &mut Group) -> Result<Option<Bytes>, ArchiveError> {
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

/// A file that was uploaded and not yet read back.
#[derive(Debug)]
pub(super) struct Export {
    layout: Layout,
    counted: Counted,
    bytes: u64,
    sha256: String,
    heap_bytes: u64,
    server: String,
    /// The column of the table's list level, if it has one.
    list_column: Option<String>,
}

/// The column by whose value a table is cut first.
const LIST_COLUMN: &str = "
    SELECT a.attname::text FROM pg_catalog.pg_partitioned_table AS p
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = to_regclass($2) AND p.partstrat = 'l'";

impl Export {
    /// Hive-style folders of the file, from its table's: `<list column>=<key>/leaf_start=<first time>`. Engines leave out files by columns
    /// that the query names, so the first is called as the column is. The second is a number of the form YYYYMMDDhhmmss, 0 for a leaf
    /// without a beginning: nobody takes it for a date that it is not.
    pub fn folders(&self, subject: &Subject<'_>) -> [String; 2] {
        let column = self.list_column.as_deref().unwrap_or("key");
        let start = subject.bounds.from().map_or(0, |from| {
            let date = i64::from(from.year()) * 10_000 + i64::from(from.month() * 100 + from.day());
            date * 1_000_000 + i64::from(from.hour() * 10_000 + from.minute() * 100 + from.second())
        });
        [format!("{column}={}", subject.key), format!("leaf_start={start}")]
    }

    pub fn manifest(self, table: &Table, subject: &Subject<'_>) -> Manifest {
        let columns = self.layout.columns.iter().zip(self.layout.sql_types).map(|(column, sql_type)| ManifestColumn {
            name: column.name.clone(),
            sql_type,
            parquet_type: column.kind.parquet(),
            nullable: column.nullable,
        });
        Manifest {
            format: FORMAT,
            table: format!("{}.{}", table.schema, table.name),
            key: subject.key,
            leaf: subject.leaf.to_owned(),
            from: subject.bounds.lower(),
            to: subject.bounds.upper(),
            version: subject.version,
            counted: self.counted,
            object: String::new(),
            bytes: self.bytes,
            sha256: self.sha256,
            heap_bytes: self.heap_bytes,
            columns: columns.collect(),
            created_at: Utc::now(),
            server: self.server,
            software: concat!("dalp-partitions ", env!("CARGO_PKG_VERSION")).to_owned(),
            identity: Some(subject.identity.clone()),
        }
    }
}

/// Streams a leaf, in the order of its key, into an object.
pub(super) async fn export(
    archive: &Archive,
    client: &mut Client,
    table: &Table,
    leaf: &str,
    object: &Path,
) -> Result<Export, ArchiveError> {
    // A column that holds what has no place in a file (NaN, an infinite time) is written as text, and the whole is begun anew.
    let mut written = HashSet::new();
    loop {
        match export_as(archive, client, table, leaf, object, &written).await {
            Err(ArchiveError::Unfit { column, .. }) if column != UNKNOWN && written.insert(column.clone()) => {}
            exported => return exported,
        }
    }
}

async fn export_as(
    archive: &Archive,
    client: &mut Client,
    table: &Table,
    leaf: &str,
    object: &Path,
    written: &HashSet<String>,
) -> Result<Export, ArchiveError> {
    let relation = table.leaf(leaf);
    let doing = || ArchiveError::asking("archive", &relation);
    let settings = format!("SET LOCAL jit = off; {}", session::AS_WRITTEN);
    let transaction = session::begin(client, session::Kind::Snapshot, &settings).await.map_err(doing())?;
    let layout = Layout::of(&transaction, &relation, written, |_| true).await?;
    let facts = format!(
        "SELECT (SELECT count(*) FROM {relation}), pg_relation_size(to_regclass($1)), current_setting('server_version'), ({LIST_COLUMN})"
    );
    let names: [(&(dyn ToSql + Sync), Type); 2] = [(&relation, Type::TEXT), (&table.to_string(), Type::TEXT)];
    let row = transaction.query_typed_one(&facts, &names).await;
    let row = row.map_err(doing())?;
    let (rows, heap_bytes): (i64, i64) = (row.get(0), row.get(1));
    let mut file = File::create(archive, &layout, table, leaf, object).await?;
    let exported = file.fill(&transaction, &relation, &layout).await;
    let counted = match exported {
        Ok(counted) => counted,
        Err(error) => {
            file.upload.abort().await.ok();
            return Err(error);
        }
    };
    if counted.rows != rows.unsigned_abs() {
        file.upload.abort().await.ok();
        let why = format!("{} rows were read, and SELECT count(*) says {rows}", counted.rows);
        return Err(ArchiveError::Corrupt { object: relation, why });
    }
    let (server, list_column) = (row.get(2), row.get(3));
    let (bytes, sha256) = file.finish(object).await?;
    transaction.commit().await.map_err(doing())?;
    Ok(Export { layout, counted, bytes, sha256, heap_bytes: heap_bytes.unsigned_abs(), server, list_column })
}

/// Where the Parquet writer puts its bytes, until they are sent.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file on its way into the store.
struct File {
    writer: SerializedFileWriter<Sink>,
    sink: Sink,
    upload: WriteMultipart,
    checksum: Sha256,
    bytes: u64,
    name: String,
}

impl File {
    async fn create(
        archive: &Archive,
        layout: &Layout,
        table: &Table,
        leaf: &str,
        object: &Path,
    ) -> Result<Self, ArchiveError> {
        let wrong = ArchiveError::reading(object.as_ref());
        let sink = Sink::default();
        let schema = schema(&layout.columns).map_err(&wrong)?;
        let writer = SerializedFileWriter::new(sink.clone(), schema, Arc::new(properties(layout, table, leaf)))
            .map_err(&wrong)?;
        let store = archive.store().map_err(ArchiveError::doing("begin to upload", object))?;
        let upload = store.put_multipart(object).await.map_err(ArchiveError::doing("begin to upload", object))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART);
        Ok(Self { writer, sink, upload, checksum: Sha256::new(), bytes: 0, name: object.to_string() })
    }

    async fn fill(
        &mut self,
        transaction: &Transaction<'_>,
        relation: &str,
        layout: &Layout,
    ) -> Result<Counted, ArchiveError> {
        let order: Vec<String> = layout.key.iter().map(|name| format!("leaf.{}", quoted(name))).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        let sql =
            format!("COPY (SELECT {} FROM ONLY {relation} AS leaf{order}) TO STDOUT (FORMAT binary)", layout.values());
        let columns = &layout.columns;
        let mut counter = layout.counter();
        let mut tuples = Tuples::of(transaction, &sql, relation).await?;
        let (mut group, mut bytes) = (Group::of(columns), 0);
        while let Some(tuple) = tuples.next(columns, &mut group).await? {
            counter.add(columns, &tuple);
            bytes += tuple.len();
            if group.rows == GROUP_ROWS || bytes >= GROUP_BYTES {
                bytes = 0;
                self.group(std::mem::replace(&mut group, Group::of(columns)))?;
                self.send().await?;
            }
        }
        if group.rows > 0 {
            self.group(group)?;
        }
        Ok(counter.finish(columns))
    }

    /// Encodes and compresses a row group.
    fn group(&mut self, group: Group) -> Result<(), ArchiveError> {
        let wrong = ArchiveError::reading(&self.name);
        let mut writer = self.writer.next_row_group().map_err(&wrong)?;
        for cells in group.cells {
            let Some(mut column) = writer.next_column().map_err(&wrong)? else { break };
            write_cells(column.untyped(), &cells).map_err(&wrong)?;
            column.close().map_err(&wrong)?;
        }
        writer.close().map(drop).map_err(&wrong)
    }

    /// Hands over what is written, and waits while too much is on its way.
    async fn send(&mut self) -> Result<(), ArchiveError> {
        let bytes = self.sink.take();
        self.checksum.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.upload.put(bytes.into());
        let object = Path::from(self.name.as_str());
        self.upload.wait_for_capacity(PARALLEL_PARTS).await.map_err(ArchiveError::doing("upload", &object))
    }

    /// Writes the footer. Answers size and checksum.
    async fn finish(mut self, object: &Path) -> Result<(u64, String), ArchiveError> {
        self.writer.finish().map_err(ArchiveError::reading(&self.name))?;
        if let Err(error) = self.send().await {
            self.upload.abort().await.ok();
            return Err(error);
        }
        self.upload.finish().await.map_err(ArchiveError::doing("upload", object))?;
        Ok((self.bytes, super::read::hex(&self.checksum.finalize())))
    }
}

fn properties(layout: &Layout, table: &Table, leaf: &str) -> WriterProperties {
    let said = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let metadata = vec![
        said("dalp.format", FORMAT.to_string()),
        said("dalp.table", format!("{}.{}", table.schema, table.name)),
        said("dalp.leaf", leaf.to_owned()),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("dalp-partitions ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(metadata));
    // Words differ from row to row: a dictionary of them is built in vain.
    let words = layout.columns.iter().filter(|column| column.kind == Kind::Word);
    words
        .fold(properties, |properties, word| {
            properties.set_column_dictionary_enabled(ColumnPath::from(word.name.clone()), false)
        })
        .build()
}

fn write_cells(writer: &mut ColumnWriter<'_>, cells: &Cells) -> parquet::errors::Result<()> {
    let levels = (!cells.levels.is_empty()).then_some(cells.levels.as_slice());
    let written = match (writer, &cells.values) {
        (ColumnWriter::BoolColumnWriter(writer), Values::Bool(values)) => writer.write_batch(values, levels, None),
        (ColumnWriter::Int32ColumnWriter(writer), Values::Int32(values)) => writer.write_batch(values, levels, None),
        (ColumnWriter::Int64ColumnWriter(writer), Values::Int64(values)) => writer.write_batch(values, levels, None),
        (ColumnWriter::FloatColumnWriter(writer), Values::Float(values)) => writer.write_batch(values, levels, None),
        (ColumnWriter::DoubleColumnWriter(writer), Values::Double(values)) => writer.write_batch(values, levels, None),
        (ColumnWriter::ByteArrayColumnWriter(writer), Values::Bytes(values)) => {
            writer.write_batch(values, levels, None)
        }
        (ColumnWriter::FixedLenByteArrayColumnWriter(writer), Values::Fixed(values)) => {
            writer.write_batch(values, levels, None)
        }
        _ => Err(parquet::errors::ParquetError::General("a column of another kind".to_owned())),
    };
    written.map(drop)
}
