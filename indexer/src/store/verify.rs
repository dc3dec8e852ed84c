//! Reading what is stored, to verify it, and raising the recorded level of what is right.

use alloy::primitives::B256;
use chrono::{DateTime, Utc};
use tokio_postgres::types::{Timestamp, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::encode::decimal;
use super::history::filter_of;
use super::retention::{Floors, is_absurd, is_below, read_floors};
use super::rows::{ABSURD, TIME};
use super::{Claim, Store, StoreError, begin, begin_reading, hash, int8, timestamp, uint8};
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef, Header};
use crate::chain::coverage::Coverage;
use crate::chain::filter::Filter;
use crate::chain::level::Level;
use crate::chain::logs::Log;
use crate::chain::verify::Entry;
use crate::events::erc20::{self, Decoded, TRANSFER};

/// The rows of a range of blocks, whatever their times, and what the coverage says of it: one snapshot.
#[derive(Clone, Debug, Default)]
pub struct StoredRange {
    /// Headers.
    pub blocks: Vec<Entry>,
    /// Raw logs of the source.
    pub logs: Vec<Entry>,
    /// Typed rows of its logs.
    pub transfers: Vec<Entry>,
    /// What decoders refused of its logs.
    pub quarantine: Vec<Entry>,
    /// What is below them is nobody's to judge, and not in here.
    pub floors: Floors,
    /// What of the range our source covers, clipped to it.
    pub covered: Coverage,
    /// The other sources that cover some of it, and what: where ours does not cover a block, they vouch for its rows.
    pub others: Vec<(Filter, Coverage)>,
    /// Block and log index of rows that our filter does not select: not ours to judge.
    pub foreign: Vec<(i64, i32)>,
}

impl StoredRange {
    /// What of the range is covered by any source.
    pub fn covered_by_any(&self) -> Coverage {
        let others = self.others.iter().flat_map(|(_, covered)| covered.ranges());
        Coverage::new(self.covered.ranges().iter().chain(others).copied())
    }

    /// Whether a log of block `number`, which our filter selects, is to be stored: where our source covers the block, else where
    /// another that selects it does.
    pub fn calls_for(&self, number: u64, log: &Log<'_>) -> bool {
        let vouches = |(filter, covered): &(Filter, Coverage)| covered.contains(number) && filter.selects(log);
        self.covered.contains(number) || self.others.iter().any(vouches)
    }
}

/// The rows that a batch makes.
#[derive(Clone, Debug, Default)]
pub struct ExpectedRows {
    /// Headers.
    pub blocks: Vec<Entry>,
    /// Raw logs.
    pub logs: Vec<Entry>,
    /// Typed rows.
    pub transfers: Vec<Entry>,
    /// What decoders refuse.
    pub quarantine: Vec<Entry>,
    /// Logs below the floor of the table that holds them: the raw one, or where raw logs are not stored, the typed one.
    pub below: u64,
}

const MICROS: i64 = 1_000_000;

impl ExpectedRows {
    /// What should be stored of `batch`, with its raw logs or without, above the floors.
    pub fn of(batch: &BlockBatch, raw: bool, floors: Floors) -> Self {
        let mut rows = Self::default();
        for header in batch.headers() {
            let cells = vec![Some(header.hash.to_vec()), header.parent.map(|parent| parent.to_vec())];
            let time = header.time.saturating_mul(MICROS);
            rows.blocks.push(Entry { number: header.number, index: 0, time, cells });
        }
        for (header, log) in batch.rows() {
            let bytes = |bytes: &[u8]| Some(bytes.to_vec());
            let (number, index, time) = (header.number, i64::from(log.log_index), header.time.saturating_mul(MICROS));
            let entry = |cells| Entry { number, index, time, cells };
            let refused = |decoder: &str, reason: &str| {
                let why = [bytes(decoder.as_bytes()), bytes(reason.as_bytes())];
                entry(why.into_iter().chain(raw_cells(header, &log)).collect())
            };
            if is_absurd(floors.latest, header.time) {
                rows.quarantine.push(refused(TIME, ABSURD));
                continue;
            }
            let kept_raw = raw && !is_below(floors.logs, header.time);
            if kept_raw {
                rows.logs.push(entry(raw_cells(header, &log).into()));
            }
            rows.below += u64::from(raw && !kept_raw);
            match erc20::decode(&log) {
                Decoded::Transfer(_) if is_below(floors.transfers, header.time) => rows.below += u64::from(!raw),
                Decoded::Transfer(transfer) => rows.transfers.push(entry(vec![
                    bytes(log.address.as_slice()),
                    bytes(transfer.from.as_slice()),
                    bytes(transfer.to.as_slice()),
                    Some(decimal(transfer.value).into_bytes()),
                    bytes(log.tx_hash.as_slice()),
                ])),
                Decoded::Malformed(reason) => rows.quarantine.push(refused(erc20::DECODER, reason)),
                Decoded::Other => {}
            }
        }
        rows
    }
}

impl ExpectedRows {
    /// The blocks, one for each log, whose time no partition is made for: their logs are in the quarantine alone.
    pub fn out_of_time(&self) -> impl Iterator<Item = u64> {
        let by_time = |row: &&Entry| row.cells[0].as_deref() == Some(TIME.as_bytes());
        self.quarantine.iter().filter(by_time).map(|row| row.number)
    }
}

/// The columns of a log as it came, in their order.
fn raw_cells(header: &Header, log: &Log<'_>) -> [Option<Vec<u8>>; 9] {
    let topic = |at: usize| log.topics.get(at).map(|topic| topic.to_vec());
    [
        Some(log.tx_index.to_string().into_bytes()),
        Some(header.hash.to_vec()),
        Some(log.tx_hash.to_vec()),
        Some(log.address.to_vec()),
        topic(0),
        topic(1),
        topic(2),
        topic(3),
        Some(log.data.to_vec()),
    ]
}

impl Store {
    /// What is stored of `range`. Leaves that cannot hold its times by what the blocks table says are looked at as well: a
    /// row may have been moved there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stored(&self, claim: &Claim, range: BlockRange, selected: &Filter) -> Result<StoredRange, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_reading(&mut connection, claim).await?;
        let (chain_id, first, last) = (int8(claim.chain_id), int8(range.first), int8(range.last));
        let of: [(&(dyn ToSql + Sync), Type); 3] = [(&chain_id, Type::INT8), (&first, Type::INT8), (&last, Type::INT8)];
        let times = tx.query_typed_one(TIMES, &of).await?;
        let (low, high) = (times.get::<_, Option<DateTime<Utc>>>(0), times.get::<_, Option<DateTime<Utc>>>(1));
        // Where no block bounds the times, every time that can be stored is inside.
        let (low, high) = (low.or_else(|| timestamp(0)), high.or_else(|| timestamp(LAST_SECOND)));
        let timed: [(&(dyn ToSql + Sync), Type); 5] = [
            (&chain_id, Type::INT8),
            (&first, Type::INT8),
            (&last, Type::INT8),
            (&low, Type::TIMESTAMPTZ),
            (&high, Type::TIMESTAMPTZ),
        ];
        let floors = read_floors(&tx, claim.chain_id).await?;
        let mut stored = StoredRange { floors, ..StoredRange::default() };
        (stored.covered, stored.others) = covered(&tx, claim, range).await?;
        for sql in [LOGS_INSIDE, LOGS_OUTSIDE] {
            stored.logs.extend(tx.query_typed(sql, &timed).await?.iter().map(log_entry));
        }
        for sql in [TRANSFERS_INSIDE, TRANSFERS_OUTSIDE] {
            stored.transfers.extend(tx.query_typed(sql, &timed).await?.iter().map(transfer_entry));
        }
        stored.leave_to_retention();
        stored.quarantine = tx.query_typed(QUARANTINE, &of).await?.iter().map(quarantine_entry).collect();
        stored.blocks = tx.query_typed(BLOCKS, &of).await?.iter().map(block_entry).collect();
        let source_id = claim.source_id.as_slice();
        let source: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&source_id, Type::BYTEA)];
        if tx.query_typed_opt(OTHER_SOURCE, &source).await?.is_some() {
            stored.leave_to_others(selected);
        }
        Ok(stored)
    }

    /// Records that the covered blocks of `range` are verified to `level`; a stronger record stays. `anchor`: a stored block
    /// at or above the range, of which the node said after the range was read that it is on its chain.
    ///
    /// # Errors
    /// [`StoreError::TailMoved`] where the writer changed or the anchor is no longer stored; nothing is raised then.
    pub async fn raise(
        &self,
        claim: &Claim,
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
        set_level(&tx, claim, range, level, false).await?;
        tx.commit().await.map_err(StoreError::from)
    }
}

/// 9999-12-31 23:59:59 UTC: the end of what is stored.
const LAST_SECOND: i64 = 253_402_300_799;

impl StoredRange {
    /// Puts aside rows below the floors: some of their leaves may still stand.
    fn leave_to_retention(&mut self) {
        let Floors { logs, transfers, .. } = self.floors;
        self.logs.retain(|row| !is_below(logs, row.time.div_euclid(MICROS)));
        self.transfers.retain(|row| !is_below(transfers, row.time.div_euclid(MICROS)));
    }

    /// Puts aside rows that our filter does not select, where another source may have brought them.
    fn leave_to_others(&mut self, selected: &Filter) {
        let selects = |log: &[Option<Vec<u8>>]| {
            let is = |at: usize, bytes: &[u8]| log[at].as_deref() == Some(bytes);
            (selected.addresses.is_empty() || selected.addresses.iter().any(|address| is(3, address.as_slice())))
                && (selected.topics.is_empty() || selected.topics.iter().any(|topic| is(4, topic.as_slice())))
        };
        let ours = |entry: &Entry| selects(&entry.cells);
        // Rows of versions before do not hold the log.
        let refused_for_others = |entry: &&Entry| entry.cells[5].is_some() && !selects(&entry.cells[2..]);
        let key = |entry: &Entry| (int8(entry.number), i32::try_from(entry.index).unwrap_or(i32::MAX));
        // A typed row whose raw log is gone, or never was stored, is told by its token; only transfers are typed.
        let watched = |entry: &Entry| {
            let token = entry.cells[0].as_deref();
            (selected.addresses.is_empty() || selected.addresses.iter().any(|a| token == Some(a.as_slice())))
                && (selected.topics.is_empty() || selected.topics.contains(&TRANSFER))
        };
        self.foreign = self.logs.iter().filter(|entry| !ours(entry)).map(key).collect();
        if !selected.raw {
            self.foreign.extend(self.transfers.iter().filter(|entry| !watched(entry)).map(key));
        }
        self.foreign.extend(self.quarantine.iter().filter(refused_for_others).map(key));
        self.foreign.sort_unstable();
        let foreign = &self.foreign;
        let is_ours = |entry: &Entry| foreign.binary_search(&key(entry)).is_err();
        self.logs.retain(ours);
        self.transfers.retain(|entry| is_ours(entry) && watched(entry));
        self.quarantine.retain(is_ours);
    }
}

/// What of the range our source covers, and what each other one does that covers some of it.
async fn covered(
    tx: &Client,
    claim: &Claim,
    range: BlockRange,
) -> Result<(Coverage, Vec<(Filter, Coverage)>), StoreError> {
    let (first, last) = (int8(range.first), int8(range.last));
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&int8(claim.chain_id), Type::INT8), (&first, Type::INT8), (&last, Type::INT8)];
    let (mut own, mut others) = (Vec::new(), Vec::<(B256, Filter, Vec<BlockRange>)>::new());
    for row in tx.query_typed(COVERED, &params).await? {
        let id = hash(row.get(0))?;
        let Some(part) = BlockRange::new(uint8(row.get(2))?, uint8(row.get(3))?) else { continue };
        if id == claim.source_id {
            own.push(part);
        } else if let Some((_, _, parts)) = others.last_mut().filter(|(known, ..)| *known == id) {
            parts.push(part);
        } else {
            others.push((id, filter_of(id, row.get(1))?, vec![part]));
        }
    }
    let others = others.into_iter().map(|(_, filter, parts)| (filter, Coverage::new(parts))).collect();
    Ok((Coverage::new(own), others))
}

/// Under the state row's lock: whether `anchor` is still stored, and the range not above the tail. A statement of its own,
/// as what it sees must be newer than the lock.
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

/// Sets the level of the covered blocks of `range`; without `lower`, only where theirs is weaker. Rows that reach beyond
/// the range are cut at its edges.
pub(super) async fn set_level(
    tx: &Client,
    claim: &Claim,
    range: BlockRange,
    level: Level,
    lower: bool,
) -> Result<(), StoreError> {
    let (chain_id, source_id) = (int8(claim.chain_id), claim.source_id.as_slice());
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

fn entry(row: &Row, cells: Vec<Option<Vec<u8>>>) -> Entry {
    let number = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    let time = match row.get::<_, Timestamp<DateTime<Utc>>>(2) {
        Timestamp::Value(time) => time.timestamp_micros(),
        // No block's time: it differs from all of them.
        Timestamp::NegInfinity => i64::MIN,
        Timestamp::PosInfinity => i64::MAX,
    };
    Entry { number, index: row.get::<_, i32>(1).into(), time, cells }
}

fn bytes(row: &Row, at: usize) -> Option<Vec<u8>> {
    row.get::<_, Option<&[u8]>>(at).map(<[u8]>::to_vec)
}

fn text(row: &Row, at: usize) -> Option<Vec<u8>> {
    row.get::<_, Option<&str>>(at).map(|text| text.as_bytes().to_vec())
}

fn log_entry(row: &Row) -> Entry {
    let mut cells = vec![text(row, 3)];
    cells.extend((4..12).map(|at| bytes(row, at)));
    entry(row, cells)
}

fn transfer_entry(row: &Row) -> Entry {
    entry(row, vec![bytes(row, 3), bytes(row, 4), bytes(row, 5), text(row, 6), bytes(row, 7)])
}

fn quarantine_entry(row: &Row) -> Entry {
    entry(row, [text(row, 3), text(row, 4), text(row, 5)].into_iter().chain((6..14).map(|at| bytes(row, at))).collect())
}

fn block_entry(row: &Row) -> Entry {
    entry(row, vec![bytes(row, 3), bytes(row, 4)])
}

const LOGS_INSIDE: &str = "SELECT block_number, log_index, block_time, tx_index::text, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data \
                           FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND block_time BETWEEN $4 AND $5";
const LOGS_OUTSIDE: &str = "SELECT block_number, log_index, block_time, tx_index::text, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data \
                            FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND (block_time < $4 OR block_time > $5)";
const TRANSFERS_INSIDE: &str = "SELECT block_number, log_index, block_time, token, from_address, to_address, value::text, tx_hash \
                                FROM dalp_indexed.erc20_transfer WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND block_time BETWEEN $4 AND $5";
const TRANSFERS_OUTSIDE: &str = "SELECT block_number, log_index, block_time, token, from_address, to_address, value::text, tx_hash \
                                 FROM dalp_indexed.erc20_transfer WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND (block_time < $4 OR block_time > $5)";
const QUARANTINE: &str = "SELECT block_number, log_index, block_time, decoder, reason, tx_index::text, block_hash, tx_hash, address, \
                          topic0, topic1, topic2, topic3, data FROM dalp_indexed.quarantine \
                          WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3";
const BLOCKS: &str = "SELECT number, 0::int4, time, hash, parent_hash FROM dalp_indexed.blocks WHERE chain_id = $1 AND number BETWEEN $2 AND $3";
/// Infinite bounds come as null.
const TIMES: &str = "SELECT CASE WHEN isfinite(lower(t)) THEN lower(t) END, CASE WHEN isfinite(upper(t)) THEN upper(t) END \
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
        let (ours, theirs) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let log = |index, address: Address| {
            let mut cells = vec![Some(vec![]); 9];
            (cells[3], cells[4]) = (Some(address.to_vec()), Some(B256::repeat_byte(7).to_vec()));
            Entry { number: 5, index, time: 0, cells }
        };
        let typed = |index, token: Address| {
            let mut cells = vec![Some(vec![]); 5];
            cells[0] = Some(token.to_vec());
            Entry { number: 5, index, time: 0, cells }
        };
        let refused = |index, address: Option<Address>| {
            let mut cells = vec![None; 11];
            (cells[5], cells[6]) = (address.map(|address| address.to_vec()), Some(B256::repeat_byte(7).to_vec()));
            Entry { number: 5, index, time: 0, cells }
        };
        let mut stored = StoredRange {
            logs: vec![log(0, ours), log(1, theirs)],
            transfers: vec![typed(0, ours), typed(1, theirs), typed(2, ours)],
            quarantine: vec![refused(0, None), refused(1, None), refused(3, Some(ours)), refused(4, Some(theirs))],
            ..StoredRange::default()
        };
        stored.leave_to_others(&Filter { addresses: vec![ours], ..Filter::default() });
        assert_eq!(stored.foreign, [(5, 1), (5, 4)]);
        let kept = |rows: &[Entry]| rows.iter().map(|entry| entry.index).collect::<Vec<_>>();
        assert_eq!(kept(&stored.logs), [0]);
        assert_eq!(kept(&stored.transfers), [0, 2], "one without a log is ours to judge");
        assert_eq!(kept(&stored.quarantine), [0, 3], "one without a log is its log's");
    }
}
