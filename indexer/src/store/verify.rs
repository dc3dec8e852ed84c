//! Reads the stored rows for a verification, and raises the recorded level of correct blocks.

use alloy::primitives::B256;
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::history::source_of;
use super::retention::read_floors;
use super::{Claim, Store, StoreError, begin, begin_reading, hash, int8, timestamp, uint8};
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef, Header};
use crate::chain::coverage::Coverage;
use crate::chain::filter::Filter;
use crate::chain::level::Level;
use crate::chain::logs::Log;
use crate::chain::source::Source;
use crate::chain::verify::{Entry, Same, Shape, Table};
use crate::dataset::copy::unix_micros;
use crate::dataset::rows::{Rows, TIME};
use crate::dataset::{Dataset, Datasets, Floors, Known, Sorted};

/// The rows of a range of blocks, at any time, and the coverage of the range: one snapshot.
#[derive(Clone, Debug, Default)]
pub struct StoredRange {
    /// Headers.
    pub blocks: Vec<Entry>,
    /// The rows of each dataset.
    pub rows: Vec<Vec<Entry>>,
    /// Rows below the floors are not judged, and not in here.
    pub floors: Floors,
    /// Our source's coverage of the range, clipped to the range.
    pub covered: Coverage,
    /// The other sources with coverage of the range: for a block that our source does not cover, they decide about its rows.
    pub others: Vec<(Source, Coverage)>,
    /// Block and log index of rows outside our filter: not judged by it.
    pub foreign: Vec<(i64, i32)>,
}

impl StoredRange {
    /// The part of the range that any source covers.
    pub fn covered_by_any(&self) -> Coverage {
        let others = self.others.iter().flat_map(|(_, covered)| covered.ranges());
        Coverage::new(self.covered.ranges().iter().chain(others).copied())
    }

    /// Whether a log of block `number` in our filter must be stored: if our source covers the block, or another source that
    /// selects the log does.
    pub fn calls_for(&self, number: u64, log: &Log<'_>) -> bool {
        let vouches = |(source, covered): &(Source, Coverage)| covered.contains(number) && source.filter().selects(log);
        self.covered.contains(number) || self.others.iter().any(vouches)
    }
}

/// The rows of a batch.
#[derive(Clone, Debug, Default)]
pub struct ExpectedRows {
    /// Headers.
    pub blocks: Vec<Entry>,
    /// The rows of each dataset.
    pub rows: Vec<Vec<Entry>>,
    /// Logs below the floor of their table: the raw table, or, if raw logs are not stored, the typed one.
    pub below: u64,
    /// The blocks, one per log, with a time without a partition: their logs are only in the quarantine.
    pub out_of_time: Vec<u64>,
}

const MICROS: i64 = 1_000_000;

impl Store {
    /// The rows that should be stored for `batch` of this chain, above the floors: the very rows that an append would send.
    pub fn expected(&self, chain_id: u64, batch: &BlockBatch, floors: &Floors) -> ExpectedRows {
        let datasets = &self.datasets;
        let block = |header: &Header| {
            let cells = vec![Some(header.hash.to_vec()), header.parent.map(|parent| parent.to_vec())];
            Entry { number: header.number, index: 0, time: header.time.saturating_mul(MICROS), cells }
        };
        let directory = self.known(chain_id);
        // A batch that cannot announce contracts is not copied.
        let announces = datasets.has_factories();
        let found = announces.then(|| Sorted::new(datasets, &directory, batch.clone()).found().clone());
        let found = found.unwrap_or_default();
        let known = Known::new(&directory.emitters, &found);
        let encoded = Rows::encode(datasets, known, int8(chain_id), batch, floors);
        let rows = encoded.entries(datasets);
        let by = datasets.refused().cell("decoder");
        let is_out = |row: &&Entry| by.and_then(|by| row.cells[by].as_deref()) == Some(TIME.as_bytes());
        let out_of_time = rows[datasets.refused().at()].iter().filter(is_out).map(|row| row.number).collect();
        ExpectedRows { blocks: batch.headers().iter().map(block).collect(), rows, below: encoded.below, out_of_time }
    }

    /// The compared tables, each with the columns of its rows' cells: blocks, then the datasets.
    pub fn shapes(&self) -> (Shape, Vec<Shape>) {
        let exact: Same = |a, b| a == b;
        let table = |order, name: &str| Table { order, name: name.into() };
        let blocks =
            Shape { table: table(0, "blocks"), columns: ["hash", "parent_hash"].map(|c| (c.into(), exact)).into() };
        let of = |dataset: &Dataset| Shape {
            table: table(1 + dataset.at(), dataset.name()),
            columns: dataset.cells().map(|column| (column.name.as_str().into(), column.of.same())).collect(),
        };
        (blocks, self.datasets.iter().map(of).collect())
    }
}

impl Store {
    /// The stored rows of `range` that belong to the source. Also reads leaves that cannot hold its times according to the blocks
    /// table: a row may have been moved there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stored(&self, claim: &Claim, source: &Source, range: BlockRange) -> Result<StoredRange, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_reading(&mut connection, claim).await?;
        let (chain_id, first, last) = (int8(claim.chain_id), int8(range.first), int8(range.last));
        let of: [(&(dyn ToSql + Sync), Type); 3] = [(&chain_id, Type::INT8), (&first, Type::INT8), (&last, Type::INT8)];
        let times = tx.query_typed_one(TIMES, &of).await?;
        let (low, high) = (times.get::<_, Option<DateTime<Utc>>>(0), times.get::<_, Option<DateTime<Utc>>>(1));
        // Without a bounding block, every storable time is inside.
        let (low, high) = (low.or_else(|| timestamp(0)), high.or_else(|| timestamp(LAST_SECOND)));
        let timed: [(&(dyn ToSql + Sync), Type); 5] = [
            (&chain_id, Type::INT8),
            (&first, Type::INT8),
            (&last, Type::INT8),
            (&low, Type::TIMESTAMPTZ),
            (&high, Type::TIMESTAMPTZ),
        ];
        self.learn_by(&tx, claim.chain_id).await?;
        let floors = read_floors(&tx, &self.datasets, claim.chain_id).await?;
        let mut stored = StoredRange { floors, ..StoredRange::default() };
        (stored.covered, stored.others) = covered(&tx, claim, source, range).await?;
        let reads = self.datasets.iter().map(|dataset| {
            let params = if dataset.is_partitioned() { &timed[..] } else { &of[..] };
            try_join_all(dataset.statements().read.iter().map(|sql| tx.query_typed(sql, params)))
        });
        stored.rows =
            try_join_all(reads).await?.iter().map(|rows| rows.iter().flatten().map(entry).collect()).collect();
        stored.leave_to_retention(&self.datasets);
        stored.blocks = tx.query_typed(BLOCKS, &of).await?.iter().map(entry).collect();
        let id = source.id();
        let own: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&id.as_slice(), Type::BYTEA)];
        if tx.query_typed_opt(OTHER_SOURCE, &own).await?.is_some() {
            stored.leave_to_others(&self.datasets, source.filter());
        }
        Ok(stored)
    }

    /// Records that the blocks of `range` with coverage of the source are verified to `level`; a stronger record stays. `anchor`: a
    /// stored block at or above the range; after the read of the range, the node confirmed that the block is on its chain.
    ///
    /// # Errors
    /// [`StoreError::TailMoved`] if the writer changed or the anchor is no longer stored; nothing is raised then.
    pub async fn raise(
        &self,
        claim: &Claim,
        source: &Source,
        range: BlockRange,
        level: Level,
        anchor: BlockRef,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8)];
        if tx.query_typed_opt(LOCK, &params).await?.is_none() {
            return Err(StoreError::TailMoved { chain_id: claim.chain_id });
        }
        hold_anchor(&tx, claim, range, anchor).await?;
        set_level(&tx, claim, source, range, level, false).await?;
        tx.commit().await.map_err(StoreError::from)
    }
}

/// 9999-12-31 23:59:59 UTC: the end of storable times.
pub(super) const LAST_SECOND: i64 = 253_402_300_799;

impl StoredRange {
    /// Separates rows below the floors: some of their leaves may still exist.
    fn leave_to_retention(&mut self, datasets: &Datasets) {
        for (dataset, rows) in datasets.iter().zip(&mut self.rows) {
            let first = self.floors.first(dataset);
            rows.retain(|row| row.time.div_euclid(MICROS) >= first);
        }
    }

    /// Separates rows outside our filter, if another source may have stored them.
    fn leave_to_others(&mut self, datasets: &Datasets, selected: &Filter) {
        let key = |entry: &Entry| (int8(entry.number), i32::try_from(entry.index).unwrap_or(i32::MAX));
        let mut foreign = Vec::new();
        for (dataset, rows) in datasets.iter().zip(&self.rows) {
            let own = Emission::of(dataset);
            // A typed row follows its log, if the log is stored.
            if dataset.event().is_none() || !selected.raw {
                foreign.extend(rows.iter().filter(|entry| !own.is_selected(entry, selected)).map(key));
            }
        }
        foreign.sort_unstable();
        let is_ours = |entry: &Entry| foreign.binary_search(&key(entry)).is_err();
        for (dataset, rows) in datasets.iter().zip(&mut self.rows) {
            let own = Emission::of(dataset);
            rows.retain(|entry| is_ours(entry) && own.is_selected(entry, selected));
        }
        self.foreign = foreign;
    }
}

/// The cells with the emitter and the first topic of a row's log.
struct Emission {
    emitter: Option<usize>,
    topic: Topic,
}

enum Topic {
    Is(B256),
    Cell(Option<usize>),
}

impl Emission {
    fn of(dataset: &Dataset) -> Self {
        match dataset.event() {
            Some(event) => Self { emitter: dataset.cell(&event.emitter), topic: Topic::Is(event.topic0) },
            None => Self { emitter: dataset.cell("address"), topic: Topic::Cell(dataset.cell("topic0")) },
        }
    }

    /// Whether a filter selects the log of this row. A row without an emitter (in the quarantine of earlier versions) matches
    /// every filter.
    fn is_selected(&self, entry: &Entry, selected: &Filter) -> bool {
        let cell = |at: Option<usize>| at.and_then(|at| entry.cells[at].as_deref());
        let Some(emitter) = cell(self.emitter) else { return true };
        let topic = match &self.topic {
            Topic::Is(topic) => Some(topic.as_slice()),
            Topic::Cell(at) => cell(*at),
        };
        (selected.addresses.is_empty() || selected.addresses.iter().any(|address| emitter == address.as_slice()))
            && (selected.topics.is_empty() || selected.topics.iter().any(|wanted| topic == Some(wanted.as_slice())))
    }
}

/// Our source's coverage of the range, and that of each other source.
async fn covered(
    tx: &Client,
    claim: &Claim,
    source: &Source,
    range: BlockRange,
) -> Result<(Coverage, Vec<(Source, Coverage)>), StoreError> {
    let (first, last) = (int8(range.first), int8(range.last));
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&int8(claim.chain_id), Type::INT8), (&first, Type::INT8), (&last, Type::INT8)];
    let (mut own, mut others) = (Vec::new(), Vec::<(Source, Vec<BlockRange>)>::new());
    for row in tx.query_typed(COVERED, &params).await? {
        let id = hash(row.get(0))?;
        let Some(part) = BlockRange::new(uint8(row.get(2))?, uint8(row.get(3))?) else { continue };
        if id == source.id() {
            own.push(part);
        } else if let Some((_, parts)) = others.last_mut().filter(|(known, _)| known.id() == id) {
            parts.push(part);
        } else {
            others.push((source_of(id, row.get(1))?, vec![part]));
        }
    }
    let others = others.into_iter().map(|(source, parts)| (source, Coverage::new(parts))).collect();
    Ok((Coverage::new(own), others))
}

/// Under the state row's lock: whether `anchor` is still stored, and the range not above the tail. A separate statement, because
/// its snapshot must be newer than the lock.
pub(super) async fn hold_anchor(
    tx: &Client,
    claim: &Claim,
    range: BlockRange,
    anchor: BlockRef,
) -> Result<(), StoreError> {
    let (chain_id, last, hash) = (int8(claim.chain_id), int8(range.last), anchor.hash.to_vec());
    let params: [(&(dyn ToSql + Sync), Type); 4] =
        [(&chain_id, Type::INT8), (&last, Type::INT8), (&int8(anchor.number), Type::INT8), (&hash, Type::BYTEA)];
    match tx.query_typed_opt(ANCHOR, &params).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::TailMoved { chain_id: claim.chain_id }),
    }
}

/// Sets the level of the source's covered blocks of `range`; without `lower`, only where it is weaker. Rows that reach beyond the
/// range are cut at its edges.
pub(super) async fn set_level(
    tx: &Client,
    claim: &Claim,
    source: &Source,
    range: BlockRange,
    level: Level,
    lower: bool,
) -> Result<(), StoreError> {
    let (chain_id, id) = (int8(claim.chain_id), source.id());
    let source_id = id.as_slice();
    let (first, last, level) = (int8(range.first), int8(range.last), level.as_str());
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&chain_id, Type::INT8),
        (&source_id, Type::BYTEA),
        (&first, Type::INT8),
        (&last, Type::INT8),
        (&level, Type::TEXT),
        (&lower, Type::BOOL),
    ];
    tx.execute_typed(SET_LEVEL, &params).await?;
    Ok(())
}

/// A stored row: block, log index and time, then its cells.
fn entry(row: &Row) -> Entry {
    // The keys' CHECKs and the order of the SELECT guarantee these types; an invalid value differs from every expected row.
    let number = u64::try_from(row.get::<_, i64>(0)).unwrap_or(u64::MAX);
    let micros = row.get::<_, Wire>(2).0.try_into().map_or(i64::MIN, i64::from_be_bytes);
    let cells = (3..row.len()).map(|at| row.get::<_, Option<Wire>>(at).map(|cell| cell.0)).collect();
    Entry { number, index: row.get::<_, i32>(1).into(), time: unix_micros(micros), cells }
}

/// A value in the server's form, of any type.
struct Wire(Vec<u8>);

impl<'a> FromSql<'a> for Wire {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

const BLOCKS: &str = "SELECT number, 0::int4, time, hash, parent_hash FROM dalp_indexed.blocks WHERE chain_id = $1 AND number BETWEEN $2 AND $3";
/// Infinite bounds arrive as null.
pub(super) const TIMES: &str = "SELECT CASE WHEN isfinite(lower(t)) THEN lower(t) END, CASE WHEN isfinite(upper(t)) THEN upper(t) END \
                     FROM dalp_indexed.block_time_range($1, $2, $3) AS t";
const COVERED: &str = "SELECT v.source_id, s.definition, GREATEST(v.from_block, $2), LEAST(v.to_block, $3) \
                       FROM dalp_indexed.coverage v JOIN dalp_indexed.source s USING (chain_id, source_id) \
                       WHERE v.chain_id = $1 AND v.from_block <= $3 AND v.to_block >= $2 ORDER BY v.source_id, v.from_block";
const OTHER_SOURCE: &str = "SELECT 1 FROM dalp_indexed.source WHERE chain_id = $1 AND source_id <> $2 LIMIT 1";
const LOCK: &str = "SELECT 1 FROM dalp_indexed.chain_state WHERE chain_id = $1 AND token = $2 FOR UPDATE";
const ANCHOR: &str = "SELECT 1 FROM dalp_indexed.chain_state AS s WHERE s.chain_id = $1 AND s.tail_number >= $2 \
                      AND ((s.tail_number = $3 AND s.tail_hash = $4) \
                        OR (s.tail_number > $3 AND EXISTS (SELECT 1 FROM dalp_indexed.blocks AS b \
                            WHERE b.chain_id = $1 AND b.number = $3 AND b.hash = $4)))";
const SET_LEVEL: &str = "WITH ranks AS (SELECT ARRAY['returned', 'linked', 'bloom', 'receipts'] AS of), touched AS (\
                           DELETE FROM dalp_indexed.coverage WHERE chain_id = $1 AND source_id = $2 AND from_block <= $4 AND to_block >= $3 \
                           AND ($6 OR array_position((SELECT of FROM ranks), level) < array_position((SELECT of FROM ranks), $5)) RETURNING *) \
                         INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level, committed_at) \
                         SELECT chain_id, source_id, from_block, $3 - 1, level, committed_at FROM touched WHERE from_block < $3 \
                         UNION ALL SELECT chain_id, source_id, GREATEST(from_block, $3), LEAST(to_block, $4), $5, committed_at FROM touched \
                         UNION ALL SELECT chain_id, source_id, $4 + 1, to_block, level, committed_at FROM touched WHERE to_block > $4";

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;

    #[test]
    fn rows_that_another_filter_selected_are_left_to_it() {
        let datasets = Datasets::own();
        let typed = datasets.get("erc20_transfer").unwrap();
        let (ours, theirs) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let row = |dataset: &Dataset, index, address: Option<Address>| {
            let mut cells = vec![None; dataset.cells().count()];
            let emitter = dataset.event().map_or("address", |event| &event.emitter);
            cells[dataset.cell(emitter).unwrap()] = address.map(|address| address.to_vec());
            Entry { number: 5, index, time: 0, cells }
        };
        let mut stored = StoredRange { rows: vec![Vec::new(); datasets.count()], ..StoredRange::default() };
        let rows_of = |dataset: &Dataset, rows: &[(i64, Option<Address>)]| {
            rows.iter().map(|(index, address)| row(dataset, *index, *address)).collect::<Vec<_>>()
        };
        stored.rows[datasets.every().at()] = rows_of(datasets.every(), &[(0, Some(ours)), (1, Some(theirs))]);
        stored.rows[typed.at()] = rows_of(typed, &[(0, Some(ours)), (1, Some(theirs)), (2, Some(ours))]);
        let refused = [(0, None), (1, None), (3, Some(ours)), (4, Some(theirs))];
        stored.rows[datasets.refused().at()] = rows_of(datasets.refused(), &refused);
        let kept = |stored: &StoredRange, dataset: &Dataset| {
            stored.rows[dataset.at()].iter().map(|entry| entry.index).collect::<Vec<_>>()
        };
        let mut of_typed = stored.clone();
        stored.leave_to_others(&datasets, &Filter { addresses: vec![ours], ..Filter::default() });
        assert_eq!(stored.foreign, [(5, 1), (5, 4)]);
        assert_eq!(kept(&stored, datasets.every()), [0]);
        assert_eq!(kept(&stored, typed), [0, 2], "one without a log is ours to judge");
        assert_eq!(kept(&stored, datasets.refused()), [0, 3], "one without a log is its log's");

        // If logs are not stored, a typed row is judged by itself.
        of_typed.rows[datasets.every().at()].clear();
        of_typed.leave_to_others(&datasets, &Filter { addresses: vec![ours], raw: false, ..Filter::default() });
        assert_eq!(of_typed.foreign, [(5, 1), (5, 4)]);
    }
}
