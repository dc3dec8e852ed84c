//! One batch, one transaction: rows by COPY first, then the short part under the state row's lock, then COMMIT.

use std::pin::pin;

use futures_util::SinkExt;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

use super::encode::{CopyBuffer, pg_micros};
use super::{Claim, Store, StoreError, int8, limit, timestamp};
use crate::chain::batch::BlockBatch;
use crate::chain::machine::Tail;
use crate::events::erc20::{self, Decoded};

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On top of the tail, which must be this one, and moves. With the highest stored block that is final afterwards.
    Tail {
        /// The tail to find.
        on: Tail,
        /// Stored with it; only ever rises.
        finalized: Option<u64>,
    },
    /// Into a gap of the coverage, below the tail. The tail stays.
    Backfill,
}

/// Proof that a batch is committed: it exists only after COMMIT was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The chain's epoch that this commit made.
    pub epoch: i64,
    /// Logs written.
    pub logs: u64,
    /// Typed rows written.
    pub events: u64,
    /// Logs quarantined.
    pub quarantined: u64,
}

/// Bytes of COPY data sent at once: large enough to be cheap, small enough to keep memory flat.
const CHUNK: usize = 128 * 1024;

impl Store {
    /// Writes `batch` and everything that goes with it, or nothing.
    ///
    /// # Errors
    /// See [`StoreError`]; after [`StoreError::Indeterminate`] it may be committed.
    pub async fn append(&self, claim: &Claim, batch: &BlockBatch, lane: Lane) -> Result<Commit, StoreError> {
        if let Some(header) = batch.headers().iter().find(|header| pg_micros(header.time).is_none()) {
            let (number, time) = (header.number, header.time);
            let why = format!("block {number} has the absurd time {time} (Unix seconds; 1970 to 9999 can be stored)");
            return Err(StoreError::Fatal { why });
        }
        let mut connection = self.connection().await?;
        let tx = connection.transaction().await?;
        limit(&tx).await?;
        let mut commit = copy_rows(&tx, claim, batch).await?;
        commit.epoch = fence(&tx, claim, batch, lane).await?;
        cover(&tx, claim, batch, lane).await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        Ok(commit)
    }
}

async fn copy_rows(tx: &Transaction<'_>, claim: &Claim, batch: &BlockBatch) -> Result<Commit, StoreError> {
    let chain_id = int8(claim.chain_id);
    let mut commit = Commit { epoch: 0, logs: batch.logs().len() as u64, events: 0, quarantined: 0 };
    if !batch.logs().is_empty() {
        let rows = batch.rows().map(Some);
        copy(tx, COPY_LOGS, rows, |copy, (header, log)| {
            let topic = |i: usize| log.topics.get(i).map(|t| t.as_slice());
            copy.row(13).int8(chain_id).int8(pg_micros(header.time).unwrap_or(0)).int8(int8(header.number));
            copy.int4(log.log_index).int4(log.tx_index).bytes(header.hash.as_slice()).bytes(log.tx_hash.as_slice());
            copy.bytes(log.address.as_slice()).optional(topic(0)).optional(topic(1)).optional(topic(2));
            copy.optional(topic(3)).bytes(log.data);
        })
        .await?;
    }
    let mut malformed = Vec::new();
    let transfers = batch.rows().map(|(header, log)| match erc20::decode(&log) {
        Decoded::Transfer(transfer) => Some((header, log, transfer)),
        Decoded::Malformed(reason) => {
            malformed.push((header, log, reason));
            None
        }
        Decoded::Other => None,
    });
    commit.events = copy(tx, COPY_TRANSFERS, transfers, |copy, (header, log, transfer)| {
        copy.row(9).int8(chain_id).int8(pg_micros(header.time).unwrap_or(0)).int8(int8(header.number));
        copy.int4(log.log_index).bytes(log.address.as_slice()).bytes(transfer.from.as_slice());
        copy.bytes(transfer.to.as_slice()).uint256(transfer.value).bytes(log.tx_hash.as_slice());
    })
    .await?;
    commit.quarantined = copy(tx, COPY_QUARANTINE, malformed.into_iter().map(Some), |copy, (header, log, reason)| {
        copy.row(6).int8(chain_id).int8(int8(header.number)).int4(log.log_index);
        copy.int8(pg_micros(header.time).unwrap_or(0)).bytes(erc20::DECODER.as_bytes()).bytes(reason.as_bytes());
    })
    .await?;
    copy(tx, COPY_BLOCKS, batch.headers().iter().map(Some), |copy, header| {
        copy.row(6).int8(chain_id).int8(int8(header.number)).int8(pg_micros(header.time).unwrap_or(0));
        copy.bytes(header.hash.as_slice()).optional(header.parent.as_ref().map(|p| p.as_slice()));
        copy.bytes(header.time_source.as_str().as_bytes());
    })
    .await?;
    Ok(commit)
}

// The columns stand in the tables' own order, which is by alignment.
const COPY_LOGS: &str = "COPY dalp_indexed.logs (chain_id, block_time, block_number, log_index, tx_index, block_hash, tx_hash, \
                         address, topic0, topic1, topic2, topic3, data) FROM STDIN (FORMAT binary)";
const COPY_TRANSFERS: &str = "COPY dalp_indexed.erc20_transfer (chain_id, block_time, block_number, log_index, token, \
                              from_address, to_address, value, tx_hash) FROM STDIN (FORMAT binary)";
const COPY_QUARANTINE: &str = "COPY dalp_indexed.quarantine (chain_id, block_number, log_index, block_time, decoder, reason) \
                               FROM STDIN (FORMAT binary)";
const COPY_BLOCKS: &str =
    "COPY dalp_indexed.blocks (chain_id, number, time, hash, parent_hash, time_source) FROM STDIN (FORMAT binary)";

/// Streams the rows that `rows` yields (`None`: skip) through `encode` into one COPY, which is not begun before the
/// first row. Answers how many there were.
///
/// The statement is prepared and closed inside the transaction, so that it never outlives its server connection behind
/// a pooler.
async fn copy<R>(
    tx: &Transaction<'_>,
    sql: &'static str,
    rows: impl Iterator<Item = Option<R>>,
    mut encode: impl FnMut(&mut CopyBuffer, R),
) -> Result<u64, StoreError> {
    let mut rows = rows.flatten().peekable();
    if rows.peek().is_none() {
        return Ok(0);
    }
    let mut sink = pin!(tx.copy_in::<_, bytes::Bytes>(sql).await?);
    let mut buffer = CopyBuffer::new(CHUNK + CHUNK / 8);
    for row in rows {
        encode(&mut buffer, row);
        if buffer.len() >= CHUNK {
            sink.feed(buffer.take(CHUNK + CHUNK / 8)).await?;
        }
    }
    buffer.finish();
    sink.send(buffer.take(0)).await?;
    Ok(sink.finish().await?)
}

/// Takes the state row's lock and moves it; fails unless our token, and in the tail lane our tail, is the stored one.
async fn fence(tx: &Transaction<'_>, claim: &Claim, batch: &BlockBatch, lane: Lane) -> Result<i64, StoreError> {
    let (chain_id, token) = (int8(claim.chain_id), claim.token);
    let row = match lane {
        Lane::Tail { on, finalized } => {
            let last = batch.last();
            let (expected, expected_hash) = (int8(on.next) - 1, on.hash.map(|hash| hash.to_vec()));
            let (number, hash, time) = (int8(last.number), last.hash.to_vec(), timestamp(last.time));
            let finalized = finalized.map(int8);
            let params: [(&(dyn ToSql + Sync), Type); 8] = [
                (&chain_id, Type::INT8),
                (&token, Type::INT8),
                (&expected, Type::INT8),
                (&expected_hash, Type::BYTEA),
                (&number, Type::INT8),
                (&hash, Type::BYTEA),
                (&time, Type::TIMESTAMPTZ),
                (&finalized, Type::INT8),
            ];
            tx.query_typed_opt(FENCE_TAIL, &params).await?
        }
        Lane::Backfill => {
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&token, Type::INT8)];
            tx.query_typed_opt(FENCE_BACKFILL, &params).await?
        }
    };
    row.map(|row| row.get(0)).ok_or(StoreError::TailMoved { chain_id: claim.chain_id })
}

const FENCE_TAIL: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, tail_number = $5, tail_hash = $6, tail_time = $7, \
                          finalized = GREATEST(finalized, $8), updated_at = now() \
                          WHERE chain_id = $1 AND token = $2 AND tail_number = $3 AND tail_hash IS NOT DISTINCT FROM $4 \
                          RETURNING epoch";
const FENCE_BACKFILL: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, updated_at = now() \
                              WHERE chain_id = $1 AND token = $2 RETURNING epoch";

/// Records the range. In the backfill lane another writer may have covered it meanwhile; the lock is ours by now, so
/// looking is enough.
async fn cover(tx: &Transaction<'_>, claim: &Claim, batch: &BlockBatch, lane: Lane) -> Result<(), StoreError> {
    let (chain_id, source_id) = (int8(claim.chain_id), claim.source_id.to_vec());
    let (first, last, level) = (int8(batch.range().first), int8(batch.range().last), batch.level().as_str());
    let range: [(&(dyn ToSql + Sync), Type); 5] = [
        (&chain_id, Type::INT8),
        (&source_id, Type::BYTEA),
        (&first, Type::INT8),
        (&last, Type::INT8),
        (&level, Type::TEXT),
    ];
    if lane == Lane::Backfill && tx.query_typed_opt(OVERLAP, &range[..4]).await?.is_some() {
        return Err(StoreError::TailMoved { chain_id: claim.chain_id });
    }
    tx.execute_typed(COVER, &range).await?;
    Ok(())
}

const OVERLAP: &str = "SELECT 1 FROM dalp_indexed.coverage \
                       WHERE chain_id = $1 AND source_id = $2 AND from_block <= $4 AND to_block >= $3 LIMIT 1";
const COVER: &str = "INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level) VALUES ($1, $2, $3, $4, $5)";
