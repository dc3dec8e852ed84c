//! One batch, one transaction: rows by COPY first, then the short part under the state row's lock, then COMMIT.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::{try_join, try_join_all};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::commit::{Change, Commit, Touched};
use super::stages::{ADDING, Stage, Stages, all};
use super::{Claim, Store, StoreError, int8, limit, timestamp};
use crate::chain::batch::BlockBatch;
use crate::chain::machine::Tail;
use crate::dataset::copy::pg_micros;
use crate::dataset::rows::TableCopy;
use crate::dataset::{Datasets, Sorted};

/// The place of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On top of the tail, which must be this one, and which moves. With the highest stored final block afterwards.
    Tail {
        /// The tail to find.
        on: Tail,
        /// Stored with it; only ever rises.
        finalized: Option<u64>,
    },
    /// Into a gap of the coverage, on final blocks. The tail stays.
    Backfill,
}

impl Store {
    /// Writes `batch` and all rows that belong to it, with the contracts that it announces, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Contracts`] if it is not sorted by the stored contracts; see [`StoreError`]. After
    /// [`StoreError::Indeterminate`] it may be committed.
    pub async fn append(&self, claim: &Claim, batch: &Sorted, lane: Lane) -> Result<Arc<Commit>, StoreError> {
        refuse_absurd(batch)?;
        // Encoded before its turn, so that a connection with a turn is never idle.
        let datasets = &self.datasets;
        let rows = self.encode(claim.chain_id, batch, &self.floors(claim.chain_id))?;
        let _turn = match lane {
            Lane::Backfill => self.history.acquire().await.ok(),
            Lane::Tail { .. } => None,
        };
        // Others may have committed in the meantime: what the fence would refuse is not sent.
        if self.known(claim.chain_id).version != batch.version() {
            return Err(StoreError::Contracts { chain_id: claim.chain_id });
        }
        let touched = rows.tables.iter().map(|table| Touched { dataset: table.at, rows: table.rows }).collect();
        let mut connection = self.connection().await?;
        let under_way = self.bus.begin(claim.chain_id);
        let tx = connection.transaction();
        let ((), statements) = try_join(limit(&tx, "BEGIN", claim), prepare(&tx, datasets, &rows.tables)).await?;
        let stages = Stages::new(ADDING).then(Stage::Rows, copy(&tx, statements, rows.tables));
        let (stages, change) = match lane {
            Lane::Tail { .. } => {
                let stages = stages.then(Stage::Blocks, add_blocks(&tx, claim, batch, ADD_BLOCKS));
                (stages.fence(fence(&tx, claim, batch, lane)), Change::Appended(batch.range()))
            }
            Lane::Backfill => {
                let stages = stages.then(Stage::Blocks, add_blocks(&tx, claim, batch, JOIN_BLOCKS));
                let stages = stages.fence(fence(&tx, claim, batch, lane));
                let stages = stages.then(Stage::Looks, check_branch(&tx, claim, batch));
                (stages.then(Stage::Looks, check_overlap(&tx, claim, batch)), Change::Backfilled(batch.range()))
            }
        };
        let is_late = lane == Lane::Backfill && batch.source().filter().raw;
        let stages = stages.then(Stage::Looks, self.find(&tx, claim, batch.found(), is_late));
        let epoch = stages.then(Stage::Coverage, cover(&tx, claim, batch)).run().await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        self.found(claim.chain_id, batch.version() + 1, batch.found(), is_late);
        Ok(under_way.committed(epoch, change, touched))
    }
}

/// Refuses times that cannot be stored, with their block, before any write.
pub(super) fn refuse_absurd(batch: &BlockBatch) -> Result<(), StoreError> {
    let Some(header) = batch.headers().iter().find(|header| pg_micros(header.time).is_none()) else { return Ok(()) };
    let (number, time) = (header.number, header.time);
    let why = format!("block {number} has the absurd time {time} (Unix seconds; 1970 to 9999 can be stored)");
    Err(StoreError::Fatal { why })
}

/// The statements of COPYs. They are prepared and closed inside the transaction, so that they never outlive their server
/// connection behind a pooler.
pub(super) async fn prepare(
    tx: &Client,
    datasets: &Datasets,
    tables: &[TableCopy],
) -> Result<Vec<Statement>, StoreError> {
    let copies = tables.iter().map(|table| tx.prepare_typed(&datasets[table.at].statements().copy, &[]));
    Ok(try_join_all(copies).await?)
}

/// Sends the encoded rows. All COPYs are under way before the first wait.
pub(super) async fn copy(tx: &Client, statements: Vec<Statement>, tables: Vec<TableCopy>) -> Result<(), StoreError> {
    all(tables.into_iter().zip(statements).map(|(table, statement)| copy_in(tx, statement, table))).await.map(drop)
}

async fn copy_in(tx: &Client, statement: Statement, table: TableCopy) -> Result<(), StoreError> {
    let mut sink = pin!(tx.copy_in::<_, Bytes>(&statement).await?);
    for chunk in table.chunks {
        sink.feed(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// Locks the state row and moves it; fails unless our token, and in the tail lane our tail, is the stored one, and the batch is sorted by
/// the stored contracts.
async fn fence(tx: &Client, claim: &Claim, batch: &Sorted, lane: Lane) -> Result<i64, StoreError> {
    let (chain_id, token) = (int8(claim.chain_id), claim.token);
    let news = batch.news();
    let row = match lane {
        Lane::Tail { on, finalized } => {
            let last = batch.last();
            let (expected, expected_hash) = (int8(on.next) - 1, on.hash.map(|hash| hash.to_vec()));
            let (number, hash, time) = (int8(last.number), last.hash.to_vec(), timestamp(last.time));
            let finalized = finalized.map(int8);
            let params: [(&(dyn ToSql + Sync), Type); 9] = [
                (&chain_id, Type::INT8),
                (&token, Type::INT8),
                (&expected, Type::INT8),
                (&expected_hash, Type::BYTEA),
                (&number, Type::INT8),
                (&hash, Type::BYTEA),
                (&time, Type::TIMESTAMPTZ),
                (&finalized, Type::INT8),
                (&news, Type::INT8),
            ];
            tx.query_typed_opt(FENCE_TAIL, &params).await?
        }
        Lane::Backfill => {
            let params: [(&(dyn ToSql + Sync), Type); 3] =
                [(&chain_id, Type::INT8), (&token, Type::INT8), (&news, Type::INT8)];
            tx.query_typed_opt(FENCE_BACKFILL, &params).await?
        }
    };
    passed(claim, batch, row)
}

/// The new epoch behind a fence whose row has it and the new version of the contracts.
pub(super) fn passed(claim: &Claim, batch: &Sorted, row: Option<Row>) -> Result<i64, StoreError> {
    let row = row.ok_or(StoreError::TailMoved { chain_id: claim.chain_id })?;
    match row.get::<_, i64>(1) == batch.version() + batch.news() {
        true => Ok(row.get(0)),
        false => Err(StoreError::Contracts { chain_id: claim.chain_id }),
    }
}

const FENCE_TAIL: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, tail_number = $5, tail_hash = $6, tail_time = $7, \
                          finalized = GREATEST(finalized, $8), contracts = contracts + $9, updated_at = now() \
                          WHERE chain_id = $1 AND token = $2 AND tail_number = $3 AND tail_hash IS NOT DISTINCT FROM $4 \
                          RETURNING epoch, contracts";
const FENCE_BACKFILL: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, contracts = contracts + $3, updated_at = now() \
                              WHERE chain_id = $1 AND token = $2 RETURNING epoch, contracts";

/// Adds the batch's blocks: with [`ADD_BLOCKS`] all of them, with [`JOIN_BLOCKS`] the new ones.
pub(super) async fn add_blocks(tx: &Client, claim: &Claim, batch: &BlockBatch, sql: &str) -> Result<(), StoreError> {
    let headers = batch.headers();
    let numbers: Vec<i64> = headers.iter().map(|header| int8(header.number)).collect();
    let times: Vec<_> = headers.iter().map(|header| timestamp(header.time)).collect();
    let hashes: Vec<_> = headers.iter().map(|header| header.hash.to_vec()).collect();
    let parents: Vec<_> = headers.iter().map(|header| header.parent.map(|parent| parent.to_vec())).collect();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&int8(claim.chain_id), Type::INT8),
        (&numbers, Type::INT8_ARRAY),
        (&times, Type::TIMESTAMPTZ_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&parents, Type::BYTEA_ARRAY),
    ];
    tx.execute_typed(sql, &params).await?;
    Ok(())
}

/// A block that is already stored is a failure.
pub(super) const ADD_BLOCKS: &str = "INSERT INTO dalp_indexed.blocks (chain_id, number, time, hash, parent_hash) \
                                     SELECT $1, number, time, hash, parent_hash \
                                     FROM unnest($2, $3, $4, $5) AS b (number, time, hash, parent_hash)";
/// The tail, a neighbouring range or another source may have stored some of them.
const JOIN_BLOCKS: &str = "INSERT INTO dalp_indexed.blocks (chain_id, number, time, hash, parent_hash) \
                           SELECT $1, number, time, hash, parent_hash \
                           FROM unnest($2, $3, $4, $5) AS b (number, time, hash, parent_hash) \
                           ON CONFLICT (chain_id, number) DO NOTHING";

/// Whether the batch's blocks equal the stored ones, and its ends join their stored neighbours. The state row is locked by now,
/// so the later of two neighbouring ranges sees the earlier.
async fn check_branch(tx: &Client, claim: &Claim, batch: &BlockBatch) -> Result<(), StoreError> {
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

/// Whether another writer has covered a part of the range meanwhile; we hold the lock, so a read is enough.
async fn check_overlap(tx: &Client, claim: &Claim, batch: &BlockBatch) -> Result<(), StoreError> {
    let (source_id, range) = (batch.source().id().to_vec(), batch.range());
    let params: [(&(dyn ToSql + Sync), Type); 4] = [
        (&int8(claim.chain_id), Type::INT8),
        (&source_id, Type::BYTEA),
        (&int8(range.first), Type::INT8),
        (&int8(range.last), Type::INT8),
    ];
    match tx.query_typed_opt(OVERLAP, &params).await? {
        Some(_) => Err(StoreError::TailMoved { chain_id: claim.chain_id }),
        None => Ok(()),
    }
}

const OVERLAP: &str = "SELECT 1 FROM dalp_indexed.coverage \
                       WHERE chain_id = $1 AND source_id = $2 AND from_block <= $4 AND to_block >= $3 LIMIT 1";

/// Records the range.
async fn cover(tx: &Client, claim: &Claim, batch: &BlockBatch) -> Result<(), StoreError> {
    let (source_id, range, level) = (batch.source().id().to_vec(), batch.range(), batch.level().as_str());
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&int8(claim.chain_id), Type::INT8),
        (&source_id, Type::BYTEA),
        (&int8(range.first), Type::INT8),
        (&int8(range.last), Type::INT8),
        (&level, Type::TEXT),
    ];
    tx.execute_typed(COVER, &params).await?;
    Ok(())
}

pub(super) const COVER: &str =
    "INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level) VALUES ($1, $2, $3, $4, $5)";
