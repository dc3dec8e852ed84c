//! Replacing the rows of a range of blocks by those of a batch that was fetched anew: one transaction, or nothing.

use tokio_postgres::types::{ToSql, Type};

use super::append::{ADD_BLOCKS, add_blocks, copy, prepare};
use super::encode::pg_micros;
use super::rows::Rows;
use super::verify::{hold_anchor, set_level};
use super::{Claim, Store, StoreError, begin, int8};
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef};

/// By number alone: a wrong row may lie at any time. Rows that another filter selected stay.
const DELETE: [&str; 3] = [
    "DELETE FROM dalp_indexed.logs AS r WHERE r.chain_id = $1 AND r.block_number BETWEEN $2 AND $3 AND NOT EXISTS (\
     SELECT 1 FROM unnest($4::int8[], $5::int4[]) AS f (n, i) WHERE f.n = r.block_number AND f.i = r.log_index)",
    "DELETE FROM dalp_indexed.erc20_transfer AS r WHERE r.chain_id = $1 AND r.block_number BETWEEN $2 AND $3 AND NOT EXISTS (\
     SELECT 1 FROM unnest($4::int8[], $5::int4[]) AS f (n, i) WHERE f.n = r.block_number AND f.i = r.log_index)",
    "DELETE FROM dalp_indexed.quarantine AS r WHERE r.chain_id = $1 AND r.block_number BETWEEN $2 AND $3 AND NOT EXISTS (\
     SELECT 1 FROM unnest($4::int8[], $5::int4[]) AS f (n, i) WHERE f.n = r.block_number AND f.i = r.log_index)",
];
const DELETE_BLOCKS: &str = "DELETE FROM dalp_indexed.blocks WHERE chain_id = $1 AND number BETWEEN $2 AND $3";
/// Asked under the state row's lock, with which every coverage is committed.
const COVERED_NOW: &str =
    "SELECT 1 FROM dalp_indexed.coverage WHERE chain_id = $1 AND from_block <= $3 AND to_block >= $2 LIMIT 1";
const FENCE: &str =
    "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, updated_at = now() WHERE chain_id = $1 AND token = $2";

/// What a range of blocks is to be made of.
#[derive(Clone, Copy, Debug)]
pub enum Replacement<'b> {
    /// The rows of this batch, which covers the range and has every header of it.
    Batch(&'b BlockBatch),
    /// Nothing: no source covers the range, so what lies there was never committed with it.
    Nothing(BlockRange),
}

impl<'b> Replacement<'b> {
    /// The blocks that it replaces.
    pub fn range(self) -> BlockRange {
        match self {
            Replacement::Batch(batch) => batch.range(),
            Replacement::Nothing(range) => range,
        }
    }

    /// What they are made of, if of anything.
    pub fn batch(self) -> Option<&'b BlockBatch> {
        match self {
            Replacement::Batch(batch) => Some(batch),
            Replacement::Nothing(_) => None,
        }
    }
}

impl Store {
    /// Replaces all rows of a range but the `foreign` ones (block and log index). `anchor`: a stored block at or above the
    /// range, of which the node said after the batch was fetched that it is on its chain. The coverage keeps its blocks and
    /// takes the batch's level; the tail stays.
    ///
    /// # Errors
    /// [`StoreError::TailMoved`] where the writer changed, the anchor is no longer stored or the range lies above the tail;
    /// after [`StoreError::Indeterminate`] it may be committed: doing it again is harmless.
    pub async fn repair(
        &self,
        claim: &Claim,
        replacement: Replacement<'_>,
        foreign: &[(i64, i32)],
        anchor: BlockRef,
    ) -> Result<(), StoreError> {
        let range = replacement.range();
        let batch = replacement.batch();
        if let Some(header) = batch.and_then(|batch| batch.headers().iter().find(|h| pg_micros(h.time).is_none())) {
            let why = format!("block {} has the absurd time {} (Unix seconds)", header.number, header.time);
            return Err(StoreError::Fatal { why });
        }
        let floors = self.floors(claim.chain_id);
        let rows = batch.map(|batch| Rows::encode(int8(claim.chain_id), batch, claim.raw, floors));
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let (chain_id, first, last) = (int8(claim.chain_id), int8(range.first), int8(range.last));
        let (numbers, indexes): (Vec<i64>, Vec<i32>) = foreign.iter().copied().unzip();
        let of: [(&(dyn ToSql + Sync), Type); 5] = [
            (&chain_id, Type::INT8),
            (&first, Type::INT8),
            (&last, Type::INT8),
            (&numbers, Type::INT8_ARRAY),
            (&indexes, Type::INT4_ARRAY),
        ];
        for delete in DELETE {
            tx.execute_typed(delete, &of).await?;
        }
        if let Some(rows) = rows {
            tx.execute_typed(DELETE_BLOCKS, &of[..3]).await?;
            let tables = rows.tables();
            copy(&tx, prepare(&tx, &tables).await?, tables).await?;
        }
        if let Some(batch) = batch {
            add_blocks(&tx, claim, batch, ADD_BLOCKS).await?;
        }
        let fence: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&claim.token, Type::INT8)];
        if tx.execute_typed(FENCE, &fence).await? == 0 {
            return Err(StoreError::TailMoved { chain_id: claim.chain_id });
        }
        hold_anchor(&tx, claim, range, anchor).await?;
        if batch.is_none() && tx.query_typed_opt(COVERED_NOW, &of[..3]).await?.is_some() {
            // A writer beside us committed rows there meanwhile, and they may be among those that were deleted here.
            return Err(StoreError::TailMoved { chain_id: claim.chain_id });
        }
        if let Some(batch) = batch {
            set_level(&tx, claim, range, batch.level(), true).await?;
        }
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })
    }
}
