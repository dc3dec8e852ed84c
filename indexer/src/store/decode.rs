//! The decoding of contracts' stored logs into the tables of their kinds.
//!
//! A contract that is added, or found late, has logs in the database already, if raw logs are stored: they are decoded from there,
//! without a node, newest first, beside the live writer.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use chrono::{DateTime, Utc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::append::{copy, prepare};
use super::commit::{Change, Touched};
use super::contracts::{BUMP, address, contract};
use super::retention::read_floors;
use super::stages::all;
use super::verify::TIMES;
use super::{Claim, Store, StoreError, begin, hash, int8, timestamp, uint8};
use crate::chain::block::{BlockRange, Header};
use crate::chain::logs::Log;
use crate::dataset::rows::Rows;
use crate::dataset::{Contract, Floors};

/// Most logs of one transaction. It holds the state row, which every other writer of the chain needs: a commit of the tail waits for
/// it, so it is short.
const LOGS: usize = 10_000;

/// Most contracts that are decoded together.
const CONTRACTS: i64 = 1_000;

/// Contracts whose logs are decoded together: those with the newest undecoded blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// The contracts, each with its undecoded blocks, the highest last block first.
    pub contracts: Vec<(Contract, BlockRange)>,
}

impl Undecoded {
    /// The last block with logs to decode.
    pub fn last(&self) -> u64 {
        self.contracts.first().map_or(0, |(_, blocks)| blocks.last)
    }

    /// The first block with logs to decode.
    pub fn first(&self) -> u64 {
        self.contracts.iter().map(|(_, blocks)| blocks.first).min().unwrap_or_default()
    }

    /// The newest undecoded blocks, so many at most.
    pub fn range(&self, width: u64) -> BlockRange {
        let last = self.last();
        BlockRange { first: self.first().max(last.saturating_sub(width.saturating_sub(1))).min(last), last }
    }

    /// The contracts with undecoded blocks from `first` on. What is decoded of them above their last undecoded block is the same
    /// again.
    fn from(&self, first: u64) -> Vec<&Contract> {
        self.contracts.iter().filter(|(_, blocks)| blocks.last >= first).map(|(contract, _)| contract).collect()
    }
}

/// The end of one transaction of [`Store::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The logs of these blocks are decoded: so many of them.
    Range(BlockRange, u64),
    /// Nothing was done: these times of each dataset need leaves for these blocks, above these floors.
    Leaves(BlockRange, Vec<Vec<i64>>, Floors),
    /// There is nothing to decode.
    Nothing,
}

impl Store {
    /// Decodes the newest undecoded logs of a chain in at most `width` blocks: as many as fit into one transaction. `has_leaves`: whether
    /// there are leaves for these times of each dataset.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process leads the chain; after [`StoreError::Indeterminate`] it may be committed: a repeat
    /// is harmless.
    pub async fn decode(
        &self,
        claim: &Claim,
        width: u64,
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
        // Behind the lock, too: another lane may have found one of them earlier, or a reorg may have taken one back.
        let undecoded = undecoded(&tx, claim.chain_id).await?;
        if undecoded.contracts.is_empty() {
            return Ok(Decoded::Nothing);
        }
        let (range, kept) = (undecoded.range(width), timestamp(floors.first(self.datasets.every())));
        let contracts = undecoded.from(range.first);
        let (range, rows) = read(&tx, claim, &contracts, range, kept).await?;
        let emitters = self.datasets.emitters_of(contracts.iter().copied());
        let logs = rows.iter().map(stored_log).collect::<Result<Vec<_>, _>>()?;
        let of = logs.iter().rev().map(Stored::parts);
        let (encoded, times, announced) = Rows::of_kinds(&self.datasets, chain_id, &emitters, &floors, of);
        if !has_leaves(&times, &floors) {
            return Ok(Decoded::Leaves(range, times, floors));
        }
        self.clear_decoded(&tx, claim, &contracts, range, kept).await?;
        let touched = encoded.tables.iter().map(|table| Touched { dataset: table.at, rows: table.rows }).collect();
        let statements = prepare(&tx, &self.datasets, &encoded.tables).await?;
        copy(&tx, statements, encoded.tables).await?;
        advance(&tx, claim, &contracts, range).await?;
        let found = self.unknown(claim.chain_id, &announced);
        let version = match found.is_empty() {
            true => None,
            false => {
                self.find(&tx, claim, &found, true).await?;
                Some(tx.query_typed_one(BUMP, &fence[..1]).await?.get(0))
            }
        };
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        if let Some(version) = version {
            self.found(claim.chain_id, version, &found, true);
        }
        under_way.committed(epoch, Change::Decoded(range), touched);
        Ok(Decoded::Range(range, logs.len() as u64))
    }

    /// Removes the contracts' rows of these blocks from the tables of their kinds, and their refused logs. Kind by kind: a contract of two
    /// kinds keeps the rows of the other.
    async fn clear_decoded(
        &self,
        tx: &Client,
        claim: &Claim,
        contracts: &[&Contract],
        range: BlockRange,
        kept: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        let (chain_id, first, last) = (int8(claim.chain_id), int8(range.first), int8(range.last));
        let (low, high) = times(tx, claim, range, kept).await?;
        let mut kinds: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for contract in contracts {
            kinds.entry(&contract.kind).or_default().push(contract.address.as_slice());
        }
        for (kind, addresses) in kinds {
            let params: [(&(dyn ToSql + Sync), Type); 6] = [
                (&chain_id, Type::INT8),
                (&first, Type::INT8),
                (&last, Type::INT8),
                (&addresses, Type::BYTEA_ARRAY),
                (&low, Type::TIMESTAMPTZ),
                (&high, Type::TIMESTAMPTZ),
            ];
            let clears =
                self.datasets.of_kind(kind).filter_map(|dataset| dataset.statements().clear_emitted.as_deref());
            all(clears.map(|sql| tx.execute_typed(sql, &params))).await?;
            let names: Vec<&str> = self.datasets.of_kind(kind).map(|dataset| dataset.name()).collect();
            let names: (&(dyn ToSql + Sync), Type) = (&names, Type::TEXT_ARRAY);
            tx.execute_typed(CLEAR_REFUSED, &[&params[..], &[names]].concat()).await?;
        }
        Ok(())
    }
}

/// The contracts' newest logs of the range, newest first, and the blocks that they are all logs of.
async fn read(
    tx: &Client,
    claim: &Claim,
    contracts: &[&Contract],
    range: BlockRange,
    kept: Option<DateTime<Utc>>,
) -> Result<(BlockRange, Vec<Row>), StoreError> {
    let addresses: Vec<&[u8]> = contracts.iter().map(|contract| contract.address.as_slice()).collect();
    let newest = async |range: BlockRange, most: Option<i64>| {
        let (low, high) = times(tx, claim, range, kept).await?;
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

/// The times between which the blocks of a range are, as far as raw logs are kept (`kept`; `None`: all): typed rows without a raw log stay as they are.
async fn times(
    tx: &Client,
    claim: &Claim,
    range: BlockRange,
    kept: Option<DateTime<Utc>>,
) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&int8(claim.chain_id), Type::INT8), (&int8(range.first), Type::INT8), (&int8(range.last), Type::INT8)];
    let row = tx.query_typed_one(TIMES, &params).await?;
    let (low, high) = (row.get::<_, Option<DateTime<Utc>>>(0), row.get::<_, Option<DateTime<Utc>>>(1));
    Ok((low.or_else(|| timestamp(0)).max(kept), high.or_else(|| timestamp(super::verify::LAST_SECOND))))
}

async fn advance(tx: &Client, claim: &Claim, contracts: &[&Contract], range: BlockRange) -> Result<(), StoreError> {
    let addresses: Vec<&[u8]> = contracts.iter().map(|contract| contract.address.as_slice()).collect();
    let kinds: Vec<&str> = contracts.iter().map(|contract| contract.kind.as_str()).collect();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&int8(claim.chain_id), Type::INT8),
        (&addresses, Type::BYTEA_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&int8(range.last), Type::INT8),
        (&int8(range.first), Type::INT8),
    ];
    tx.execute_typed(ADVANCE, &params).await?;
    Ok(())
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

async fn undecoded(client: &Client, chain_id: u64) -> Result<Undecoded, StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&CONTRACTS, Type::INT8)];
    let rows = client.query_typed(UNDECODED, &params).await?;
    let contracts =
        rows.iter().map(|row| Ok((contract(row)?, BlockRange { first: uint8(row.get(4))?, last: uint8(row.get(5))? })));
    Ok(Undecoded { contracts: contracts.collect::<Result<_, StoreError>>()? })
}

const FENCE: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, updated_at = now() WHERE chain_id = $1 AND token = $2 \
                     RETURNING epoch";
const UNDECODED: &str = "SELECT address, kind, start_block, end_block, rows_from, undecoded_to FROM dalp_indexed.contract \
                         WHERE chain_id = $1 AND undecoded_to IS NOT NULL ORDER BY undecoded_to DESC LIMIT $2";
const READ: &str = "SELECT block_number, log_index, block_time, tx_index, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data \
                    FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND address = ANY ($4) \
                      AND block_time BETWEEN $5 AND $6 ORDER BY block_number DESC, log_index DESC LIMIT $7";
const CLEAR_REFUSED: &str = "DELETE FROM dalp_indexed.quarantine WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 \
                             AND address = ANY ($4) AND block_time BETWEEN $5 AND $6 AND decoder = ANY ($7)";
/// Only what was to be decoded up to a block of the range: a contract that was marked again meanwhile begins again.
const ADVANCE: &str = "UPDATE dalp_indexed.contract AS c \
                       SET undecoded_to = CASE WHEN $5 > c.rows_from THEN $5 - 1 END, \
                           rows_from = CASE WHEN $5 > c.rows_from THEN c.rows_from ELSE c.start_block END \
                       FROM unnest($2, $3) AS n (address, kind) \
                       WHERE c.chain_id = $1 AND c.address = n.address AND c.kind = n.kind AND c.undecoded_to BETWEEN $5 AND $4";
