//! A batch as COPY data: the rows of every table, encoded before the transaction begins so that it stays short. Pure.

use bytes::Bytes;

use super::column::KEY;
use super::contracts::{Emitters, Known};
use super::copy::{CopyBuffer, fields, unix_micros};
use super::floors::Floors;
use super::list::{Datasets, Typed};
use super::place::Place;
use super::table::{Dataset, Refusal};
use crate::chain::batch::BlockBatch;
use crate::chain::block::Header;
use crate::chain::logs::Log;
use crate::chain::verify::Entry;

/// One COPY's data.
#[derive(Debug)]
pub struct TableCopy {
    /// The index of its table among the datasets.
    pub at: usize,
    /// The data, in pieces of the size of one write.
    pub chunks: Vec<Bytes>,
    /// Rows in it, at least one.
    pub rows: u64,
}

/// All rows of one batch.
#[derive(Debug)]
pub struct Rows {
    /// The rows of each table with rows, in the order of the datasets.
    pub tables: Vec<TableCopy>,
    /// Logs below the floor of their table: the table of every log, or, if raw logs are not stored, the typed table.
    pub below: u64,
}

/// The name that refuses logs of absurd times, in the quarantine.
pub const TIME: &str = "block_time";
/// Why it is refused.
const ABSURD: &str = "the time of its block is more than 100 years ahead: no partition is made for it";

impl Rows {
    /// Encodes `batch`, whose times are in PostgreSQL's range; its raw logs only if its source wants them, and for each table only
    /// rows at or above its floor.
    pub fn encode(datasets: &Datasets, known: Known<'_>, chain_id: i64, batch: &BlockBatch, floors: &Floors) -> Self {
        let raw = batch.source().filter().raw;
        let mut encoders = Encoders::new(datasets, floors);
        let (every, latest) = (datasets.every().at(), floors.latest());
        let mut below = 0;
        for (header, log) in batch.rows() {
            let place = Place::new(chain_id, header);
            if header.time > latest {
                encoders.refuse(&place, &log, TIME, ABSURD);
                continue;
            }
            if raw && header.time < encoders.first[every] {
                below += 1;
            } else if raw {
                encode_log(encoders.of(every).row(), &place, &log);
            }
            for typed in datasets.typed(known, header.number, &log) {
                match encoders.decode(typed, &place, &log) {
                    Ok(stored) => below += u64::from(!raw && !stored),
                    Err(reason) => encoders.refuse(&place, &log, datasets[typed.at].name(), &reason),
                }
            }
        }
        Self { tables: encoders.finish(), below }
    }

    /// Encodes stored logs of these contracts into the tables of their kinds alone. Also the times of each table's rows, in Unix
    /// seconds, which need a leaf; and the contracts that the logs announce.
    pub fn of_kinds<'l>(
        datasets: &Datasets,
        chain_id: i64,
        emitters: &Emitters,
        floors: &Floors,
        logs: impl Iterator<Item = (Header, Log<'l>)>,
    ) -> (Self, Vec<Vec<i64>>, Emitters) {
        let mut encoders = Encoders::new(datasets, floors);
        let (mut below, mut times, mut found) = (0, vec![Vec::new(); datasets.count()], Emitters::default());
        let none = Emitters::default();
        let known = Known::new(emitters, &none);
        for (header, log) in logs {
            let place = Place::new(chain_id, &header);
            let of_kind = datasets.typed(known, header.number, &log).filter(|typed| typed.is_of_kind());
            for typed in of_kind {
                for (address, kind) in datasets.announced(typed, &log) {
                    found.find(&address, kind, header.number);
                }
                match encoders.decode(typed, &place, &log) {
                    Ok(true) if times[typed.at].last() != Some(&header.time) => times[typed.at].push(header.time),
                    Ok(stored) => below += u64::from(!stored),
                    Err(reason) => encoders.refuse(&place, &log, datasets[typed.at].name(), &reason),
                }
            }
        }
        (Self { tables: encoders.finish(), below }, times, found)
    }

    /// The rows of each dataset in the form of a read, for a comparison.
    pub fn entries(&self, datasets: &Datasets) -> Vec<Vec<Entry>> {
        let mut entries = vec![Vec::new(); datasets.count()];
        for table in &self.tables {
            let shape = Shape::of(&datasets[table.at]);
            entries[table.at] = fields(&table.chunks).iter().filter_map(|row| shape.entry(row)).collect();
        }
        entries
    }
}

/// The positions of the key's columns in a COPY row.
struct Shape {
    time: usize,
    number: usize,
    index: usize,
    cells: Vec<usize>,
}

impl Shape {
    fn of(dataset: &Dataset) -> Self {
        let columns = dataset.columns();
        let place = |name: &str| columns.iter().position(|column| column.name == name).unwrap_or(usize::MAX);
        let cells = (0..columns.len()).filter(|at| !KEY.contains(&columns[*at].name.as_str()));
        Self {
            time: place("block_time"),
            number: place("block_number"),
            index: place("log_index"),
            cells: cells.collect(),
        }
    }

    fn entry(&self, row: &[Option<Bytes>]) -> Option<Entry> {
        let int8 = |at: usize| Some(i64::from_be_bytes(row.get(at)?.as_deref()?.try_into().ok()?));
        let index = i32::from_be_bytes(row.get(self.index)?.as_deref()?.try_into().ok()?);
        Some(Entry {
            number: u64::try_from(int8(self.number)?).ok()?,
            index: index.into(),
            time: unix_micros(int8(self.time)?),
            cells: self.cells.iter().map(|at| row[*at].as_deref().map(<[u8]>::to_vec)).collect(),
        })
    }
}

fn encode_log(copy: &mut CopyBuffer, place: &Place<'_>, log: &Log<'_>) {
    let row = place.row::<150>(13, log).int4(log.tx_index);
    copy.fixed(&row.bytes(place.header.hash.0).bytes(log.tx_hash.0).bytes(log.address.0.0));
    encode_words(copy, log);
}

fn encode_words(copy: &mut CopyBuffer, log: &Log<'_>) {
    for topic in 0..4 {
        copy.word(log.topics.get(topic));
    }
    copy.bytes(log.data);
}

/// The size of one write: large enough to be cheap, small enough to start streaming early.
const CHUNK: usize = 128 * 1024;

/// One for each table with rows.
struct Encoders<'d> {
    datasets: &'d Datasets,
    of: Vec<Option<Encoder>>,
    /// The first served time of each table, in Unix seconds.
    first: Vec<i64>,
}

impl<'d> Encoders<'d> {
    fn new(datasets: &'d Datasets, floors: &Floors) -> Self {
        let first = datasets.iter().map(|dataset| floors.first(dataset)).collect();
        Self { datasets, of: (0..datasets.count()).map(|_| None).collect(), first }
    }

    #[inline]
    fn of(&mut self, at: usize) -> &mut Encoder {
        self.of[at].get_or_insert_with(Encoder::new)
    }

    /// Whether the typed row of a log is stored: it is not below its table's floor.
    fn decode(&mut self, typed: &Typed, place: &Place<'_>, log: &Log<'_>) -> Result<bool, Refusal> {
        let Some(event) = self.datasets[typed.at].event() else { return Ok(false) };
        let is_served = place.header.time >= self.first[typed.at];
        let encoder = self.of(typed.at);
        let copy = encoder.row();
        let begin = copy.len();
        let decoded = event.forms[typed.form].decoder.decode(place, log, copy);
        let stored = decoded.is_ok() && is_served;
        if !stored {
            encoder.take_back(begin);
        }
        decoded.map(|()| stored)
    }

    /// The unchanged log, which no other table may have. `who` refused it, for the reason `why`.
    fn refuse(&mut self, place: &Place<'_>, log: &Log<'_>, who: &str, why: &str) {
        let copy = self.of(self.datasets.refused().at()).row();
        copy.row(15).int8(place.chain_id).int8(place.number).int4(log.log_index).int8(place.time);
        copy.bytes(who.as_bytes()).bytes(why.as_bytes()).int4(log.tx_index);
        copy.bytes(place.header.hash.as_slice()).bytes(log.tx_hash.as_slice()).bytes(log.address.as_slice());
        encode_words(copy, log);
    }

    fn finish(self) -> Vec<TableCopy> {
        let used = self.of.into_iter().enumerate().filter_map(|(at, encoder)| Some((at, encoder?)));
        used.filter(|(_, encoder)| encoder.rows > 0).map(|(at, encoder)| encoder.finish(at)).collect()
    }
}

struct Encoder {
    buffer: CopyBuffer,
    chunks: Vec<Bytes>,
    rows: u64,
}

impl Encoder {
    fn new() -> Self {
        Self { buffer: CopyBuffer::new(1024), chunks: Vec::new(), rows: 0 }
    }

    /// The buffer for one more row.
    fn row(&mut self) -> &mut CopyBuffer {
        if self.buffer.len() >= CHUNK {
            self.chunks.push(self.buffer.take(CHUNK + CHUNK / 8));
        }
        self.rows += 1;
        &mut self.buffer
    }

    /// Removes the last row again, down to this length of the buffer.
    fn take_back(&mut self, length: usize) {
        self.buffer.shorten(length);
        self.rows -= 1;
    }

    fn finish(mut self, at: usize) -> TableCopy {
        self.buffer.finish();
        self.chunks.push(self.buffer.take(0));
        TableCopy { at, chunks: self.chunks, rows: self.rows }
    }
}
