//! From a leaf to a file.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Datelike as _, Timelike as _, Utc};
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
use tokio_postgres::{Client, Transaction};

use super::ArchiveError;
use super::columns::{Cells, Group, Kind, Values, schema};
use super::count::{Layout, Tuples, UNKNOWN};
use super::manifest::{Counted, FORMAT, Manifest, ManifestColumn, Subject};
use super::store::{Archive, hex};
use crate::Table;
use crate::pg::session;
use crate::pure::names::quoted;

/// Rows per row group: DuckDB's preferred number, and about 12 MB of logs.
const GROUP_ROWS: usize = 122_880;
/// The size in bytes that closes a row group earlier: memory holds one group.
const GROUP_BYTES: usize = 128 * 1024 * 1024;
/// A part of an upload; S3 wants at least 5 MB.
const PART: usize = 8 * 1024 * 1024;
/// Parts under way at the same time.
const PARALLEL_PARTS: usize = 4;
/// An uploaded file that was not read back yet.
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

/// The column of the first level of partitions.
const LIST_COLUMN: &str = "
    SELECT a.attname::text FROM pg_catalog.pg_partitioned_table AS p
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = to_regclass($2) AND p.partstrat = 'l'";

impl Export {
    /// Hive-style folders of the file, below the folder of its table: `<list column>=<key>/leaf_start=<first time>`. Engines skip
    /// files by columns in the query, so the first folder has the name of the column. The second is a number of the form
    /// YYYYMMDDhhmmss, 0 for a leaf without a lower bound: no reader mistakes it for a date.
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
    // If a column has a value without a Parquet form (NaN, an infinite time), the column is written as text, and the export
    // starts again.
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

/// The buffer of the Parquet writer, until its bytes are sent.
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

/// A file during its upload.
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

    /// Passes the written bytes on, and waits while too many bytes are under way.
    async fn send(&mut self) -> Result<(), ArchiveError> {
        let bytes = self.sink.take();
        self.checksum.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.upload.put(bytes.into());
        let object = Path::from(self.name.as_str());
        self.upload.wait_for_capacity(PARALLEL_PARTS).await.map_err(ArchiveError::doing("upload", &object))
    }

    /// Writes the footer. Returns size and checksum.
    async fn finish(mut self, object: &Path) -> Result<(u64, String), ArchiveError> {
        self.writer.finish().map_err(ArchiveError::reading(&self.name))?;
        if let Err(error) = self.send().await {
            self.upload.abort().await.ok();
            return Err(error);
        }
        self.upload.finish().await.map_err(ArchiveError::doing("upload", object))?;
        Ok((self.bytes, hex(&self.checksum.finalize())))
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
    // Words differ in every row: a dictionary would be useless.
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
