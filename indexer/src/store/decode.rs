//! Contracts of kinds, and the decoding of their stored logs into the tables of their kinds.
//!
//! A contract that is added to the configuration has logs in the database already, if raw logs are stored: they are decoded from there,
//! without a node, newest first, beside the live writer.

use alloy::primitives::{Address, B256};
use chrono::{DateTime, Utc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::append::{copy, prepare};
use super::commit::{Change, Touched};
use super::retention::read_floors;
use super::stages::all;
use super::verify::TIMES;
use super::{Claim, Store, StoreError, begin, hash, int8, timestamp, uint8};
use crate::chain::block::{BlockRange, Header};
use crate::chain::logs::Log;
use crate::dataset::rows::Rows;
use crate::dataset::{Contract, Dataset, Floors};

/// Most logs of one transaction. It holds the state row, which every other writer of the chain needs: a commit of the tail waits for
/// it, so it is short.
const LOGS: usize = 10_000;

/// The contracts whose logs up to one block are decoded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// The contracts.
    pub contracts: Vec<Contract>,
    /// The last block with logs to decode.
    pub to: u64,
}

impl Undecoded {
    /// The first block with logs to decode.
    pub fn first(&self) -> u64 {
        self.contracts.iter().map(|contract| contract.from).min().unwrap_or(self.to)
    }
}

/// The end of one transaction of [`Store::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The logs from this block on are decoded: so many of them.
    From {
        /// The block.
        first: u64,
        /// The number of decoded logs.
        logs: u64,
    },
    /// Nothing was done: these times of each dataset need leaves, above these floors.
    Leaves(Vec<Vec<i64>>, Floors),
}

impl Store {
    /// Records the configured contracts of a chain. The stored logs of a new contract, and of one whose kind has other tables than
    /// before, are to be decoded if raw logs are stored (`raw`); contracts that are no longer configured are forgotten, and their rows
    /// stay. Returns the number of contracts with undecoded logs.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process leads the chain.
    pub async fn register(&self, claim: &Claim, raw: bool) -> Result<u64, StoreError> {
        let contracts = self.datasets.contracts().of(claim.chain_id);
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8)];
        if tx.query_typed_opt(HOLD, &params).await?.is_none() {
            return Err(StoreError::Fenced { chain_id: claim.chain_id });
        }
        let addresses: Vec<&[u8]> = contracts.iter().map(|contract| contract.address.as_slice()).collect();
        let kinds: Vec<&str> = contracts.iter().map(|contract| contract.kind.as_str()).collect();
        let starts: Vec<i64> = contracts.iter().map(|contract| int8(contract.from)).collect();
        let tables: Vec<B256> = contracts.iter().map(|contract| self.datasets.hash_of_kind(&contract.kind)).collect();
        let tables: Vec<&[u8]> = tables.iter().map(B256::as_slice).collect();
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&int8(claim.chain_id), Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&tables, Type::BYTEA_ARRAY),
            (&raw, Type::BOOL),
        ];
        tx.execute_typed(FORGET, &params[..3]).await?;
        tx.execute_typed(REGISTER, &params).await?;
        let undecoded = tx.query_typed(UNDECODED, &params[..1]).await?.len() as u64;
        tx.commit().await?;
        Ok(undecoded)
    }

    /// The contracts of a chain with stored logs that are not decoded yet: those with the highest such block, and how many there are
    /// in all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn undecoded(&self, chain_id: u64) -> Result<Option<(Undecoded, u64)>, StoreError> {
        let client = self.connection().await?;
        let rows = client.query_typed(UNDECODED, &[(&int8(chain_id), Type::INT8)]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (to, all) = (first.get::<_, i64>(3), rows.len() as u64);
        let newest = rows.iter().take_while(|row| row.get::<_, i64>(3) == to).map(contract);
        Ok(Some((Undecoded { contracts: newest.collect::<Result<_, _>>()?, to: uint8(to)? }, all)))
    }

    /// Marks the stored logs of a chain's contracts (of one kind) as undecoded; returns the number of contracts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mark_undecoded(&self, chain_id: u64, kind: Option<&str>) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&kind, Type::TEXT)];
        Ok(client.execute_typed(MARK, &params).await?)
    }

    /// Decodes the stored logs of these contracts in `range`, which ends with their last undecoded block: as many of the newest as fit
    /// into one transaction. `has_leaves`: whether there are leaves for these times of each dataset.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process leads the chain; after [`StoreError::Indeterminate`] it may be committed: a repeat
    /// is harmless.
    pub async fn decode(
        &self,
        claim: &Claim,
        undecoded: &Undecoded,
        range: BlockRange,
        has_leaves: impl Fn(&[Vec<i64>], &Floors) -> bool,
    ) -> Result<Decoded, StoreError> {
        let mut connection = self.connection().await?;
        let under_way = self.bus.begin(claim.chain_id);
        let tx = begin(&mut connection, claim).await?;
        let chain_id = int8(claim.chain_id);
        // The lock first, unlike an append: no log may come or go between the read and the write.
        let fence: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&claim.token, Type::INT8)];
        let epoch = tx.query_typed_opt(FENCE, &fence).await?;
        let epoch: i64 = epoch.ok_or(StoreError::Fenced { chain_id: claim.chain_id })?.get(0);
        let floors = read_floors(&tx, &self.datasets, claim.chain_id).await?;
        let (range, rows) = read(&tx, claim, undecoded, range).await?;
        let emitters = self.datasets.emitters_of(&undecoded.contracts);
        let logs = rows.iter().map(stored_log).collect::<Result<Vec<_>, _>>()?;
        let of = logs.iter().rev().map(Stored::parts);
        let (encoded, times) = Rows::of_kinds(&self.datasets, chain_id, &emitters, &floors, of);
        if !has_leaves(&times, &floors) {
            return Ok(Decoded::Leaves(times, floors));
        }
        self.clear_decoded(&tx, claim, undecoded, range).await?;
        let touched = encoded.tables.iter().map(|table| Touched { dataset: table.at, rows: table.rows }).collect();
        let statements = prepare(&tx, &self.datasets, &encoded.tables).await?;
        copy(&tx, statements, encoded.tables).await?;
        advance(&tx, claim, undecoded, range.first).await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        under_way.committed(epoch, Change::Decoded(range), touched);
        Ok(Decoded::From { first: range.first, logs: logs.len() as u64 })
    }

    /// Removes the contracts' rows of these blocks from the tables of their kinds, and their refused logs.
    async fn clear_decoded(
        &self,
        tx: &Client,
        claim: &Claim,
        undecoded: &Undecoded,
        range: BlockRange,
    ) -> Result<(), StoreError> {
        let chain_id = int8(claim.chain_id);
        let (first, last) = (int8(range.first), int8(range.last));
        let addresses: Vec<&[u8]> = undecoded.contracts.iter().map(|contract| contract.address.as_slice()).collect();
        let mut tables: Vec<&Dataset> =
            undecoded.contracts.iter().flat_map(|contract| self.datasets.of_kind(&contract.kind)).collect();
        tables.sort_by_key(|dataset| dataset.at());
        tables.dedup_by_key(|dataset| dataset.at());
        let names: Vec<&str> = tables.iter().map(|dataset| dataset.name()).collect();
        let (low, high) = times(tx, claim, range).await?;
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&chain_id, Type::INT8),
            (&first, Type::INT8),
            (&last, Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&low, Type::TIMESTAMPTZ),
            (&high, Type::TIMESTAMPTZ),
        ];
        let clears = tables.iter().filter_map(|dataset| dataset.statements().clear_emitted.as_deref());
        all(clears.map(|sql| tx.execute_typed(sql, &params))).await?;
        let refused: [(&(dyn ToSql + Sync), Type); 5] =
            [params[0].clone(), params[1].clone(), params[2].clone(), params[3].clone(), (&names, Type::TEXT_ARRAY)];
        tx.execute_typed(CLEAR_REFUSED, &refused).await?;
        Ok(())
    }
}

/// The contracts' newest logs of the range, newest first, and the blocks that they are all logs of.
async fn read(
    tx: &Client,
    claim: &Claim,
    undecoded: &Undecoded,
    range: BlockRange,
) -> Result<(BlockRange, Vec<Row>), StoreError> {
    let addresses: Vec<&[u8]> = undecoded.contracts.iter().map(|contract| contract.address.as_slice()).collect();
    let newest = async |range: BlockRange, most: Option<i64>| {
        let (low, high) = times(tx, claim, range).await?;
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&int8(claim.chain_id), Type::INT8),
            (&int8(range.first), Type::INT8),
            (&int8(range.last), Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&low, Type::TIMESTAMPTZ),
            (&high, Type::TIMESTAMPTZ),
            (&most, Type::INT8),
        ];
        Ok::<_, StoreError>(tx.query_typed(READ, &params).await?)
    };
    let mut rows = newest(range, Some(LOGS as i64)).await?;
    let lowest = rows.last().filter(|_| rows.len() == LOGS).map(|row| row.get::<_, i64>(0));
    let Some(cut) = lowest.map(uint8).transpose()? else { return Ok((range, rows)) };
    if cut == range.last {
        // One block with more logs than a transaction should have, which cannot be cut.
        let range = BlockRange { first: cut, last: cut };
        return Ok((range, newest(range, None).await?));
    }
    // The lowest block may have more logs than were read.
    rows.retain(|row| row.get::<_, i64>(0) != int8(cut));
    Ok((BlockRange { first: cut + 1, last: range.last }, rows))
}

/// The times between which the blocks of a range are.
async fn times(
    tx: &Client,
    claim: &Claim,
    range: BlockRange,
) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&int8(claim.chain_id), Type::INT8), (&int8(range.first), Type::INT8), (&int8(range.last), Type::INT8)];
    let row = tx.query_typed_one(TIMES, &params).await?;
    let (low, high) = (row.get::<_, Option<DateTime<Utc>>>(0), row.get::<_, Option<DateTime<Utc>>>(1));
    Ok((low.or_else(|| timestamp(0)), high.or_else(|| timestamp(super::verify::LAST_SECOND))))
}

async fn advance(tx: &Client, claim: &Claim, undecoded: &Undecoded, first: u64) -> Result<(), StoreError> {
    let addresses: Vec<&[u8]> = undecoded.contracts.iter().map(|contract| contract.address.as_slice()).collect();
    let kinds: Vec<&str> = undecoded.contracts.iter().map(|contract| contract.kind.as_str()).collect();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&int8(claim.chain_id), Type::INT8),
        (&addresses, Type::BYTEA_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&int8(undecoded.to), Type::INT8),
        (&int8(first), Type::INT8),
    ];
    tx.execute_typed(ADVANCE, &params).await?;
    Ok(())
}

fn contract(row: &Row) -> Result<Contract, StoreError> {
    Ok(Contract { address: address(row.get(0)), kind: row.get(1), from: uint8(row.get(2))? })
}

/// 20 bytes, by the table's CHECK.
fn address(bytes: &[u8]) -> Address {
    Address::try_from(bytes).unwrap_or_default()
}

/// A log as it is stored, with its header as far as rows need it.
struct Stored<'r> {
    header: Header,
    topics: Vec<B256>,
    log_index: u32,
    tx_index: u32,
    tx_hash: B256,
    address: Address,
    data: &'r [u8],
}

impl Stored<'_> {
    fn parts(&self) -> (Header, Log<'_>) {
        let log = Log {
            log_index: self.log_index,
            tx_index: self.tx_index,
            tx_hash: self.tx_hash,
            address: self.address,
            topics: &self.topics,
            data: self.data,
        };
        (self.header.clone(), log)
    }
}

fn stored_log(row: &Row) -> Result<Stored<'_>, StoreError> {
    let int4 = |at: usize| u32::try_from(row.get::<_, i32>(at)).unwrap_or_default();
    let time: DateTime<Utc> = row.get(2);
    let header = Header {
        number: uint8(row.get(0))?,
        hash: hash(row.get(4))?,
        parent: None,
        time: time.timestamp(),
        bloom: None,
    };
    let topics = (7..11).map_while(|at| row.get::<_, Option<&[u8]>>(at)).map(hash).collect::<Result<_, _>>()?;
    Ok(Stored {
        header,
        topics,
        log_index: int4(1),
        tx_index: int4(3),
        tx_hash: hash(row.get(5))?,
        address: address(row.get(6)),
        data: row.get(11),
    })
}

const HOLD: &str = "SELECT 1 FROM dalp_indexed.chain_state WHERE chain_id = $1 AND token = $2 FOR UPDATE";
const FENCE: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, updated_at = now() WHERE chain_id = $1 AND token = $2 \
                     RETURNING epoch";
const FORGET: &str = "DELETE FROM dalp_indexed.contract AS c WHERE chain_id = $1 AND NOT EXISTS (\
                        SELECT FROM unnest($2, $3) AS n (address, kind) WHERE n.address = c.address AND n.kind = c.kind)";
/// A contract that begins later keeps what is decoded; one that begins earlier, or whose tables changed, is decoded again.
const REGISTER: &str = "INSERT INTO dalp_indexed.contract AS c (chain_id, address, kind, start_block, tables, undecoded_to) \
                        SELECT DISTINCT ON (n.address, n.kind) $1, n.address, n.kind, n.start, n.tables, \
                               CASE WHEN $6 AND s.tail_number >= n.start THEN s.tail_number END \
                        FROM unnest($2, $3, $4, $5) AS n (address, kind, start, tables), dalp_indexed.chain_state AS s \
                        WHERE s.chain_id = $1 ORDER BY n.address, n.kind, n.start \
                        ON CONFLICT (chain_id, address, kind) DO UPDATE \
                        SET start_block = excluded.start_block, tables = excluded.tables, undecoded_to = excluded.undecoded_to \
                        WHERE c.start_block > excluded.start_block OR c.tables <> excluded.tables";
const MARK: &str = "UPDATE dalp_indexed.contract AS c SET undecoded_to = s.tail_number FROM dalp_indexed.chain_state AS s \
                    WHERE c.chain_id = $1 AND s.chain_id = $1 AND s.tail_number >= c.start_block AND ($2 IS NULL OR kind = $2)";
const UNDECODED: &str = "SELECT address, kind, start_block, undecoded_to FROM dalp_indexed.contract \
                         WHERE chain_id = $1 AND undecoded_to IS NOT NULL ORDER BY undecoded_to DESC, address, kind";
const READ: &str = "SELECT block_number, log_index, block_time, tx_index, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data \
                    FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND address = ANY ($4) \
                      AND block_time BETWEEN $5 AND $6 ORDER BY block_number DESC, log_index DESC LIMIT $7";
const CLEAR_REFUSED: &str = "DELETE FROM dalp_indexed.quarantine WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 \
                             AND address = ANY ($4) AND decoder = ANY ($5)";
/// Only what was to be decoded up to the same block: after a registration meanwhile, it begins again.
const ADVANCE: &str = "UPDATE dalp_indexed.contract AS c \
                       SET undecoded_to = CASE WHEN $5 > c.start_block THEN $5 - 1 END \
                       FROM unnest($2, $3) AS n (address, kind) \
                       WHERE c.chain_id = $1 AND c.address = n.address AND c.kind = n.kind AND c.undecoded_to = $4";
