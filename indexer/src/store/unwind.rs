//! Removing the blocks of an orphaned branch, and keeping the coverage's row count small.

use tokio_postgres::types::{ToSql, Type};

use super::{Claim, Store, StoreError, int8, limit, limit_brief};
use crate::chain::machine::Tail;

/// The tables whose rows belong to a block of a time, so that deleting prunes to the leaves of the orphaned times.
const PARTITIONED: [&str; 2] = [
    "DELETE FROM dalp_indexed.logs WHERE chain_id = $1 AND block_time BETWEEN $3 AND $4 AND block_number >= $2",
    "DELETE FROM dalp_indexed.erc20_transfer WHERE chain_id = $1 AND block_time BETWEEN $3 AND $4 AND block_number >= $2",
];

impl Store {
    /// Removes every block from `to.next` upwards, with its rows and coverage, and sets the tail to `to`; or does nothing.
    ///
    /// # Errors
    /// See [`StoreError`]; after [`StoreError::Indeterminate`] it may be committed.
    pub async fn unwind(&self, claim: &Claim, from: Tail, to: Tail) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let tx = connection.transaction().await?;
        limit(&tx, claim).await?;
        let (chain_id, first) = (int8(claim.chain_id), int8(to.next));
        let orphans: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&first, Type::INT8)];
        // Always the stored time, never the new branch's: an orphaned row may lie in another leaf than its successor.
        let row = tx
            .query_typed_one(
                "SELECT min(time), max(time) FROM dalp_indexed.blocks WHERE chain_id = $1 AND number >= $2",
                &orphans,
            )
            .await?;
        let (low, high): (Option<chrono::DateTime<chrono::Utc>>, Option<chrono::DateTime<chrono::Utc>>) =
            (row.get(0), row.get(1));
        let in_time: [(&(dyn ToSql + Sync), Type); 4] =
            [(&chain_id, Type::INT8), (&first, Type::INT8), (&low, Type::TIMESTAMPTZ), (&high, Type::TIMESTAMPTZ)];
        for delete in PARTITIONED {
            tx.execute_typed(delete, &in_time).await?;
        }
        tx.execute_typed("DELETE FROM dalp_indexed.quarantine WHERE chain_id = $1 AND block_number >= $2", &orphans)
            .await?;
        tx.execute_typed("DELETE FROM dalp_indexed.blocks WHERE chain_id = $1 AND number >= $2", &orphans).await?;
        let (expected, expected_hash) = (int8(from.next) - 1, from.hash.map(|hash| hash.to_vec()));
        let (number, hash) = (first - 1, to.hash.map(|hash| hash.to_vec()));
        let fence: [(&(dyn ToSql + Sync), Type); 6] = [
            (&chain_id, Type::INT8),
            (&claim.token, Type::INT8),
            (&expected, Type::INT8),
            (&expected_hash, Type::BYTEA),
            (&number, Type::INT8),
            (&hash, Type::BYTEA),
        ];
        if tx.execute_typed(FENCE, &fence).await? == 0 {
            return Err(StoreError::TailMoved { chain_id: claim.chain_id });
        }
        tx.execute_typed(CLIP_COVERAGE, &orphans).await?;
        tx.execute_typed("DELETE FROM dalp_indexed.coverage WHERE chain_id = $1 AND to_block >= $2", &orphans).await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })
    }

    /// Merges touching coverage rows of one level, under the state row's lock: the tail adds one row a block.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn compact_coverage(&self, chain_id: u64) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let tx = connection.transaction().await?;
        limit_brief(&tx, chain_id).await?;
        let chain: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
        tx.query_typed("SELECT 1 FROM dalp_indexed.chain_state WHERE chain_id = $1 FOR UPDATE", &chain).await?;
        tx.execute_typed(COMPACT, &chain).await?;
        tx.commit().await.map_err(StoreError::from)
    }
}

const FENCE: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, tail_number = $5, tail_hash = $6, \
                     tail_time = (SELECT time FROM dalp_indexed.blocks WHERE chain_id = $1 AND number = $5), updated_at = now() \
                     WHERE chain_id = $1 AND token = $2 AND tail_number = $3 AND tail_hash IS NOT DISTINCT FROM $4";

/// A range that straddles the fork point keeps its lower part: inserted anew just above, so that the key stays free.
const CLIP_COVERAGE: &str = "WITH straddling AS (\
                               DELETE FROM dalp_indexed.coverage WHERE chain_id = $1 AND from_block < $2 AND to_block >= $2 RETURNING *) \
                             INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level, committed_at) \
                             SELECT chain_id, source_id, from_block, $2 - 1, level, committed_at FROM straddling";

const COMPACT: &str = "WITH runs AS (\
                         SELECT source_id, level, unnest(range_agg(int8range(from_block, to_block, '[]'))) AS blocks, \
                           count(*) AS pieces, max(committed_at) AS committed_at \
                         FROM dalp_indexed.coverage WHERE chain_id = $1 GROUP BY source_id, level HAVING count(*) > 1), \
                       gone AS (\
                         DELETE FROM dalp_indexed.coverage c USING (SELECT DISTINCT source_id, level FROM runs) r \
                         WHERE c.chain_id = $1 AND c.source_id = r.source_id AND c.level = r.level) \
                       INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level, committed_at) \
                       SELECT $1, source_id, lower(blocks), upper(blocks) - 1, level, committed_at FROM runs";
