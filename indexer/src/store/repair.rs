//! Replaces the rows of a range of blocks by those of a new batch: one transaction, or nothing.

use std::sync::{Arc, OnceLock};

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::append::{ADD_BLOCKS, add_blocks, copy, passed, prepare, refuse_absurd};
use super::commit::{Change, Commit, Touched};
use super::stages::{ADDING, Stage, Stages, all};
use super::verify::{hold_anchor, set_level};
use super::{Claim, Store, StoreError, begin, int8};
use crate::chain::block::{BlockRange, BlockRef};
use crate::dataset::Sorted;

const DELETE_BLOCKS: &str = "DELETE FROM dalp_indexed.blocks WHERE chain_id = $1 AND number BETWEEN $2 AND $3";
/// Read under the state row's lock, which every commit of coverage holds.
const COVERED_NOW: &str =
    "SELECT 1 FROM dalp_indexed.coverage WHERE chain_id = $1 AND from_block <= $3 AND to_block >= $2 LIMIT 1";
const FENCE: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, contracts = contracts + $3, updated_at = now() \
     WHERE chain_id = $1 AND token = $2 RETURNING epoch, contracts";

/// The new content of a range of blocks.
#[derive(Clone, Copy, Debug)]
pub enum Replacement<'b> {
    /// The rows of this batch, which covers the range and has every header of it.
    Batch(&'b Sorted),
    /// Nothing: no source covers the range, so its rows were never committed with coverage.
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

    /// The new content, if any.
    pub fn batch(self) -> Option<&'b Sorted> {
        match self {
            Replacement::Batch(batch) => Some(batch),
            Replacement::Nothing(_) => None,
        }
    }
}

impl Store {
    /// Replaces all rows of a range except the `foreign` ones (block and log index). `anchor`: a stored block at or above the
    /// range; after the fetch of the batch, the node confirmed that the block is on its chain. The coverage keeps its blocks and
    /// takes the batch's level; the tail stays.
    ///
    /// # Errors
    /// [`StoreError::Contracts`] if the batch is not sorted by the stored contracts; [`StoreError::TailMoved`] if the writer changed,
    /// the anchor is no longer stored or the range is above the tail; after [`StoreError::Indeterminate`] it may be committed: a repeat
    /// is harmless.
    pub async fn repair(
        &self,
        claim: &Claim,
        replacement: Replacement<'_>,
        foreign: &[(i64, i32)],
        anchor: BlockRef,
    ) -> Result<Arc<Commit>, StoreError> {
        let (range, batch) = (replacement.range(), replacement.batch());
        batch.map_or(Ok(()), |batch| refuse_absurd(batch))?;
        let (datasets, floors) = (&self.datasets, self.floors(claim.chain_id));
        let rows = batch.map(|batch| self.encode(claim.chain_id, batch, &floors)).transpose()?;
        let mut connection = self.connection().await?;
        let under_way = self.bus.begin(claim.chain_id);
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
        // By number alone: a wrong row may have any time. Rows of another filter stay.
        let clears = datasets.iter().map(|dataset| tx.execute_typed(&dataset.statements().clear, &of));
        let cleared = OnceLock::new();
        let clear = async {
            // No other code sets it.
            cleared.set(all(clears).await?).ok();
            Ok(())
        };
        let mut stages = Stages::new(ADDING).then(Stage::Rows, clear);
        let mut written = vec![0; datasets.count()];
        if let (Some(batch), Some(rows)) = (batch, rows) {
            rows.tables.iter().for_each(|table| written[table.at] = table.rows);
            let statements = prepare(&tx, datasets, &rows.tables).await?;
            stages = stages
                .then(Stage::Rows, copy(&tx, statements, rows.tables))
                .then(Stage::Blocks, async { Ok(tx.execute_typed(DELETE_BLOCKS, &of[..3]).await.map(drop)?) })
                .then(Stage::Blocks, add_blocks(&tx, claim, batch, ADD_BLOCKS));
        }
        let stages = stages.fence(fence(&tx, claim, batch)).then(Stage::Looks, hold_anchor(&tx, claim, range, anchor));
        let stages = match batch {
            Some(batch) => {
                let stages =
                    stages.then(Stage::Looks, self.find(&tx, claim, batch.found(), batch.source().filter().raw));
                stages.then(Stage::Coverage, set_level(&tx, claim, batch.source(), range, batch.level(), true))
            }
            None => stages.then(Stage::Looks, stay_uncovered(&tx, claim, &of[..3])),
        };
        let epoch = stages.run().await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        if let Some(batch) = batch {
            self.found(claim.chain_id, batch.version() + 1, batch.found(), true);
        }
        let removed = cleared.into_inner().unwrap_or_default();
        let touched = written.iter().zip(removed).map(|(written, removed)| written + removed).enumerate();
        let touched = touched.map(|(dataset, rows)| Touched { dataset, rows }).filter(|touched| touched.rows > 0);
        Ok(under_way.committed(epoch, Change::Repaired(range), touched.collect()))
    }
}

/// Fails if any source covers blocks of the range by now: a writer beside us may have committed rows there meanwhile, and these may be
/// among the deleted ones. `of`: the chain, the first and the last block.
async fn stay_uncovered(tx: &Client, claim: &Claim, of: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), StoreError> {
    let covered = tx.query_typed_opt(COVERED_NOW, of).await?;
    covered.map_or(Ok(()), |_row| Err(StoreError::TailMoved { chain_id: claim.chain_id }))
}

async fn fence(tx: &Client, claim: &Claim, batch: Option<&Sorted>) -> Result<i64, StoreError> {
    let news = batch.map_or(0, Sorted::news);
    let fence: [(&(dyn ToSql + Sync), Type); 3] =
        [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8), (&news, Type::INT8)];
    let row = tx.query_typed_opt(FENCE, &fence).await?;
    match batch {
        Some(batch) => passed(claim, batch, row),
        None => row.map(|row| row.get(0)).ok_or(StoreError::TailMoved { chain_id: claim.chain_id }),
    }
}
