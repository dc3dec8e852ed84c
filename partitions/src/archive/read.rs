//! From a file back to rows.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::SinkExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, Length, RowGroupReader};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;

use super::ArchiveError;
use super::columns::{Cells, Column, Group, Values};
use super::count::Counter;
use super::manifest::{Counted, Manifest};
use super::store::{Archive, hex, object_of};
use super::types::columns_of;
use crate::pure::names::quoted;

/// The length of a footer and the magic at the end of a file.
const TAIL: u64 = 8;
/// A longer footer is not ours.
const LARGEST_FOOTER: u64 = 256 * 1024 * 1024;
/// The header of binary COPY before the first tuple: signature, flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: &[u8] = &[0xff, 0xff];

/// Reads a whole object, from its first byte to its last, and compares everything with the manifest.
pub(super) async fn verify(archive: &Archive, manifest: &Manifest) -> Result<Counted, ArchiveError> {
    let mut walk = Walk::begin(archive, manifest).await?;
    while walk.next().await?.is_some() {}
    walk.finish().await
}

/// An open object, read one row group at a time.
struct Walk<'m> {
    manifest: &'m Manifest,
    columns: Vec<Column>,
    footer: ParquetMetaData,
    counter: Counter,
    window: Window,
    /// The next row group.
    at: usize,
}

impl<'m> Walk<'m> {
    async fn begin(archive: &Archive, manifest: &'m Manifest) -> Result<Self, ArchiveError> {
        archive.check(manifest).await?;
        let object = object_of(manifest)?;
        let columns = columns_of(manifest)
            .ok_or_else(|| manifest.corrupt("its manifest names a type that is not known here".to_owned()))?;
        let footer = footer(archive, manifest, &object).await?;
        let counter = Counter::like(&columns, &manifest.counted);
        let window = Window::open(archive, &object);
        Ok(Self { manifest, columns, footer, counter, window, at: 0 })
    }

    /// The rows of the next row group as tuples of binary COPY; `None` after the last group.
    async fn next(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        if self.at == self.footer.num_row_groups() {
            return Ok(None);
        }
        let place = bytes_of(self.footer.row_group(self.at));
        let end = place.ok_or_else(|| self.manifest.corrupt("its footer has an absurd offset".to_owned()))?.end;
        let bytes = self.window.until(end, self.manifest).await?;
        let part = Part { start: end - bytes.len() as u64, bytes };
        let rows = rows_of(part, &self.footer, self.at, &self.columns)
            .map_err(ArchiveError::reading(&self.manifest.object))?;
        self.at += 1;
        let mut tuples = BytesMut::with_capacity(rows.rows * 256);
        let (counter, columns) = (&mut self.counter, &self.columns);
        rows.tuples(columns, &mut tuples, |tuples, start| counter.add(columns, &tuples[start..])).ok_or_else(|| {
            self.manifest.corrupt("its columns have different lengths, or hold an invalid value".to_owned())
        })?;
        Ok(Some(tuples.freeze()))
    }

    /// Checks that the whole content equals the written content.
    async fn finish(self) -> Result<Counted, ArchiveError> {
        let checksum = self.window.finish(self.manifest).await?;
        if checksum != self.manifest.sha256 {
            let why = format!("its SHA-256 is {checksum}, and the written SHA-256 is {}", self.manifest.sha256);
            return Err(self.manifest.corrupt(why));
        }
        let counted = self.counter.finish(&self.columns);
        match self.manifest.is_of(&counted) {
            true => Ok(counted),
            false => {
                let why = format!("it holds {counted}, and the written file held {}", self.manifest.counted);
                Err(self.manifest.corrupt(why))
            }
        }
    }
}

/// Sends the rows of an archive into a table.
pub(super) async fn load(
    archive: &Archive,
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    into: &str,
) -> Result<Counted, ArchiveError> {
    let names: Vec<String> = manifest.columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!("COPY {into} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
    let doing = || ArchiveError::asking("restore into", into);
    let mut walk = Walk::begin(archive, manifest).await?;
    let sink = transaction.copy_in::<_, Bytes>(&sql).await.map_err(doing())?;
    let mut sink = Box::pin(sink);
    sink.feed(Bytes::from_static(HEADER)).await.map_err(doing())?;
    while let Some(mut tuples) = walk.next().await? {
        // A message size that both sides handle well.
        while !tuples.is_empty() {
            let piece = tuples.split_to(tuples.len().min(256 * 1024));
            sink.send(piece).await.map_err(doing())?;
        }
    }
    let counted = walk.finish().await?;
    sink.feed(Bytes::from_static(END)).await.map_err(doing())?;
    let loaded = sink.as_mut().finish().await.map_err(doing())?;
    match loaded == counted.rows {
        true => Ok(counted),
        false => Err(ArchiveError::Database {
            doing: "restore into",
            table: into.to_owned(),
            why: format!("{} rows were sent and {loaded} were loaded", counted.rows),
        }),
    }
}

async fn footer(archive: &Archive, manifest: &Manifest, object: &Path) -> Result<ParquetMetaData, ArchiveError> {
    let odd = |why: &str| manifest.corrupt(why.to_owned());
    let doing = || ArchiveError::doing("read", object);
    if manifest.bytes < 2 * TAIL {
        return Err(odd("it is too short for a Parquet file"));
    }
    let store = archive.store().map_err(doing())?;
    let mut tail = store.get_range(object, manifest.bytes - TAIL..manifest.bytes).await.map_err(doing())?;
    if tail.len() < 8 || &tail[4..] != b"PAR1" {
        return Err(odd("it does not end like a Parquet file"));
    }
    let length = u64::from(tail.get_u32_le());
    if length > LARGEST_FOOTER || length + TAIL + 4 > manifest.bytes {
        return Err(odd("its footer has an absurd length"));
    }
    let range = manifest.bytes - TAIL - length..manifest.bytes - TAIL;
    let metadata = store.get_range(object, range).await.map_err(doing())?;
    ParquetMetaDataReader::decode_metadata(&metadata).map_err(ArchiveError::reading(&manifest.object))
}

/// The place of a row group; `None` if its footer has an impossible value. The reader's own sum of these values panics there.
fn bytes_of(group: &RowGroupMetaData) -> Option<Range<u64>> {
    let mut whole: Option<Range<u64>> = None;
    for column in group.columns() {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let (start, length) = (u64::try_from(start).ok()?, u64::try_from(column.compressed_size()).ok()?);
        let end = start.checked_add(length)?;
        whole = Some(whole.map_or(start..end, |whole| whole.start.min(start)..whole.end.max(end)));
    }
    Some(whole.unwrap_or(0..0))
}

/// An object, read from front to end, one row group at a time: each group is a separate request, which can be retried.
struct Window {
    archive: Archive,
    object: Path,
    checksum: Sha256,
    /// The number of returned bytes.
    position: u64,
}

impl Window {
    fn open(archive: &Archive, object: &Path) -> Self {
        Self { archive: archive.clone(), object: object.clone(), checksum: Sha256::new(), position: 0 }
    }

    /// The bytes up to `end` that were not returned yet.
    async fn until(&mut self, end: u64, manifest: &Manifest) -> Result<Bytes, ArchiveError> {
        if end < self.position || end > manifest.bytes {
            return Err(manifest.corrupt("its row groups are out of order".to_owned()));
        }
        if end == self.position {
            return Ok(Bytes::new());
        }
        let doing = || ArchiveError::doing("read", &self.object);
        let store = self.archive.store().map_err(doing())?;
        let bytes = store.get_range(&self.object, self.position..end).await.map_err(doing())?;
        if bytes.len() as u64 != end - self.position {
            return Err(manifest.corrupt("it ends before the end of its last row group".to_owned()));
        }
        self.checksum.update(&bytes);
        self.position = end;
        Ok(bytes)
    }

    /// Reads to the end. Returns the checksum of the whole object.
    async fn finish(mut self, manifest: &Manifest) -> Result<String, ArchiveError> {
        self.until(manifest.bytes, manifest).await?;
        Ok(hex(&self.checksum.finalize()))
    }
}

/// A piece of a file, with offsets of the whole file.
struct Part {
    start: u64,
    bytes: Bytes,
}

impl Part {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let outside = || ParquetError::EOF("it points outside its row group".to_owned());
        let skip = start.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok()).ok_or_else(outside)?;
        if skip > self.bytes.len() { Err(outside()) } else { Ok(self.bytes.slice(skip..)) }
    }
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF("it points outside its row group".to_owned()));
        }
        Ok(bytes.slice(..length))
    }
}

fn rows_of(part: Part, footer: &ParquetMetaData, at: usize, columns: &[Column]) -> Result<Group, ParquetError> {
    let (group, index) = (footer.row_group(at), footer.page_index_for_row_group(at));
    if group.num_columns() != columns.len() {
        return Err(ParquetError::General("its columns differ from its manifest".to_owned()));
    }
    let rows = usize::try_from(group.num_rows()).unwrap_or(0);
    let properties = Arc::new(ReaderProperties::builder().build());
    let reader = SerializedRowGroupReader::new(Arc::new(part), group, index, properties)?;
    let mut cells = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        cells.push(read_cells(reader.get_column_reader(at)?, column, rows)?);
    }
    Ok(Group { cells, rows })
}

fn read_cells(reader: ColumnReader, column: &Column, rows: usize) -> Result<Cells, ParquetError> {
    let mut cells = Cells::of(column.kind);
    let Cells { values, levels } = &mut cells;
    let levels = column.nullable.then_some(levels);
    match (reader, values) {
        (ColumnReader::BoolColumnReader(mut reader), Values::Bool(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::Int32ColumnReader(mut reader), Values::Int32(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::Int64ColumnReader(mut reader), Values::Int64(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::FloatColumnReader(mut reader), Values::Float(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::DoubleColumnReader(mut reader), Values::Double(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::ByteArrayColumnReader(mut reader), Values::Bytes(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        (ColumnReader::FixedLenByteArrayColumnReader(mut reader), Values::Fixed(values)) => {
            reader.read_records(rows, levels, None, values)?;
        }
        _ => return Err(ParquetError::General(format!("column \"{}\" is of another type", column.name))),
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use parquet::file::metadata::ColumnChunkMetaData;
    use parquet::schema::types::SchemaDescriptor;

    use super::super::columns::{Kind, schema};
    use super::*;

    #[test]
    fn a_row_group_stands_where_a_file_has_room_or_nowhere() {
        let column = Column { name: "n".to_owned(), kind: Kind::Int8, nullable: false };
        let schema = Arc::new(SchemaDescriptor::new(schema(&[column]).unwrap()));
        let place = |dictionary: Option<i64>, data: i64, size: i64| {
            let chunk = ColumnChunkMetaData::builder(schema.column(0))
                .set_dictionary_page_offset(dictionary)
                .set_data_page_offset(data)
                .set_total_compressed_size(size);
            let group = RowGroupMetaData::builder(schema.clone()).set_column_metadata(vec![chunk.build().unwrap()]);
            bytes_of(&group.build().unwrap())
        };
        assert_eq!(place(None, 4, 10), Some(4..14));
        assert_eq!(place(Some(4), 20, 30), Some(4..34));
        assert_eq!(place(None, i64::MAX, i64::MAX), Some(i64::MAX as u64..2 * i64::MAX as u64));
        for (dictionary, data, size) in [(None, -1, 10), (None, 4, -1), (Some(-1), 4, 10)] {
            assert_eq!(place(dictionary, data, size), None);
        }
    }
}
