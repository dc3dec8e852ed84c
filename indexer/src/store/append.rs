//! One batch, one transaction: rows by COPY first, then the short part under the state row's lock, then COMMIT.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

use super::encode::pg_micros;
use super::rows::{Rows, TableCopy};
use super::{Claim, Store, StoreError, int8, limit, timestamp};
use crate::chain::batch::BlockBatch;
use crate::chain::machine::Tail;

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
    /// Into a gap of the coverage, on final blocks. The tail stays.
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
        // History leaves half of the pool to the tails, whatever number of workers it has.
        let _permit = match lane {
            Lane::Backfill => self.history.acquire().await.ok(),
            Lane::Tail { .. } => None,
        };
        // Encoded while it has a turn: what waits for one is held once, not twice.
        let rows = Rows::encode(int8(claim.chain_id), batch, true);
        let (logs, events, quarantined) = (rows.logs.rows, rows.transfers.rows, rows.quarantine.rows);
        let mut connection = self.connection().await?;
        let tx = connection.transaction().await?;
        limit(&tx, claim).await?;
        for table in [rows.logs, rows.transfers, rows.quarantine] {
            copy(&tx, table).await?;
        }
        match lane {
            Lane::Tail { .. } => copy(&tx, rows.blocks).await?,
            Lane::Backfill => join_blocks(&tx, claim, batch).await?,
        }
        let epoch = fence(&tx, claim, batch, lane).await?;
        if lane == Lane::Backfill {
            check_branch(&tx, claim, batch).await?;
        }
        cover(&tx, claim, batch, lane).await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        Ok(Commit { epoch, logs, events, quarantined })
    }
}

/// Sends what was encoded before the transaction began. The statement is prepared and closed inside the transaction, so
/// that it never outlives its server connection behind a pooler.
pub(super) async fn copy(tx: &Transaction<'_>, table: TableCopy) -> Result<(), StoreError> {
    if table.rows == 0 {
        return Ok(());
    }
    let mut sink = pin!(tx.copy_in::<_, Bytes>(table.sql).await?);
    for chunk in table.chunks {
        sink.feed(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
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

/// Adds the blocks that are not stored yet: the tail, a neighbouring range or another source may have some of them.
async fn join_blocks(tx: &Transaction<'_>, claim: &Claim, batch: &BlockBatch) -> Result<(), StoreError> {
    let headers = batch.headers();
    let numbers: Vec<i64> = headers.iter().map(|header| int8(header.number)).collect();
    let times: Vec<_> = headers.iter().map(|header| timestamp(header.time)).collect();
    let hashes: Vec<_> = headers.iter().map(|header| header.hash.to_vec()).collect();
    let parents: Vec<_> = headers.iter().map(|header| header.parent.map(|parent| parent.to_vec())).collect();
    let sources: Vec<_> = headers.iter().map(|header| header.time_source.as_str()).collect();
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&int8(claim.chain_id), Type::INT8),
        (&numbers, Type::INT8_ARRAY),
        (&times, Type::TIMESTAMPTZ_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&parents, Type::BYTEA_ARRAY),
        (&sources, Type::TEXT_ARRAY),
    ];
    tx.execute_typed(JOIN_BLOCKS, &params).await?;
    Ok(())
}

const JOIN_BLOCKS: &str = "INSERT INTO dalp_indexed.blocks (chain_id, number, time, hash, parent_hash, time_source) \
                           SELECT $1, number, time, hash, parent_hash, time_source \
                           FROM unnest($2, $3, $4, $5, $6) AS b (number, time, hash, parent_hash, time_source) \
                           ON CONFLICT (chain_id, number) DO NOTHING";

/// Whether the batch's blocks are the stored ones, and its ends join their stored neighbours. The state row is locked
/// by now, so of two neighbouring ranges the later one sees the earlier.
async fn check_branch(tx: &Transaction<'_>, claim: &Claim, batch: &BlockBatch) -> Result<(), StoreError> {
    let headers = batch.headers();
    let numbers: Vec<i64> = headers.iter().map(|header| int8(header.number)).collect();
    let hashes: Vec<_> = headers.iter().map(|header| header.hash.to_vec()).collect();
    let (link, range) = (batch.link(), batch.range());
    let (parent, last) = (link.parent.map(|parent| parent.to_vec()), link.last.hash.to_vec());
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&int8(claim.chain_id), Type::INT8),
        (&numbers, Type::INT8_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&(int8(range.first) - 1), Type::INT8),
        (&parent, Type::BYTEA),
        (&(int8(range.last) + 1), Type::INT8),
        (&last, Type::BYTEA),
    ];
    match tx.query_typed_opt(OTHER_BRANCH, &params).await? {
        Some(row) => Err(StoreError::OtherBranch { range: range.to_string(), number: row.get(0) }),
        None => Ok(()),
    }
}

const OTHER_BRANCH: &str = "SELECT b.number FROM dalp_indexed.blocks b JOIN unnest($2, $3) AS n (number, hash) USING (number) \
                            WHERE b.chain_id = $1 AND b.hash <> n.hash \
                            UNION ALL \
                            SELECT number FROM dalp_indexed.blocks WHERE chain_id = $1 AND number = $4 AND hash <> $5 \
                            UNION ALL \
                            SELECT number FROM dalp_indexed.blocks WHERE chain_id = $1 AND number = $6 AND parent_hash <> $7 \
                            LIMIT 1";

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
pub(super) const COVER: &str =
    "INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level) VALUES ($1, $2, $3, $4, $5)";
