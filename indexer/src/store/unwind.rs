//! Removes the newest blocks, because they are orphans or because an operator wants them read again; and keeps the number of
//! coverage rows small.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use futures_util::future::try_join;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::commit::{Change, Commit, Touched};
use super::stages::{REMOVING, Stage, Stages, all};
use super::{Claim, Store, StoreError, begin, begin_brief, int8};
use crate::chain::block::BlockRef;
use crate::chain::machine::Tail;
use crate::dataset::{Dataset, Takes};

/// Most stored blocks that one transaction removes.
const STEP: i64 = 2_000;

/// Why blocks are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// They are orphans: their logs are kept in `orphaned_log`.
    Reorg,
    /// They are read again: the same blocks will return.
    Reindex,
}

impl Store {
    /// Removes every block from `to.next` upwards, with its rows and coverage, and sets the tail to `to`; or does nothing. The
    /// removed logs move to `orphaned_log`, with a row in `reorg`.
    ///
    /// # Errors
    /// See [`StoreError`]; after [`StoreError::Indeterminate`] it may be committed.
    pub async fn unwind(&self, claim: &Claim, from: Tail, to: Tail) -> Result<Arc<Commit>, StoreError> {
        self.remove(claim, from, to, Why::Reorg).await
    }

    /// As [`Store::unwind`], but no log is kept, and a final block below is no floor: an operator decided.
    ///
    /// # Errors
    /// As [`Store::unwind`].
    pub async fn clear(&self, claim: &Claim, from: Tail, to: Tail) -> Result<Arc<Commit>, StoreError> {
        self.remove(claim, from, to, Why::Reindex).await
    }

    /// The end of one transaction from `from` on the way down to `to`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn step_down(&self, claim: &Claim, from: Tail, to: Tail) -> Result<Tail, StoreError> {
        let mut blocks = self.blocks_below(claim.chain_id, from.next, to.next, STEP + 1).await?;
        let lowest: Option<BlockRef> = if blocks.len() as i64 > STEP { blocks.pop() } else { None };
        Ok(lowest.map_or(to, Tail::after))
    }

    async fn remove(&self, claim: &Claim, from: Tail, to: Tail, why: Why) -> Result<Arc<Commit>, StoreError> {
        let mut connection = self.connection().await?;
        let under_way = self.bus.begin(claim.chain_id);
        let tx = begin(&mut connection, claim).await?;
        let (chain_id, first) = (int8(claim.chain_id), int8(to.next));
        let orphans: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&first, Type::INT8)];
        // The fence first, unlike an append: the orphans carry its new epoch, and reorgs are rare and short.
        let times = async { Ok(tx.query_typed_one(ORPHANED_TIMES, &orphans).await?) };
        let (epoch, row) = try_join(fence(&tx, claim, from, to, why), times).await?;
        let (low, high): (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = (row.get(0), row.get(1));
        let in_time: [(&(dyn ToSql + Sync), Type); 5] = [
            (&chain_id, Type::INT8),
            (&first, Type::INT8),
            (&low, Type::TIMESTAMPTZ),
            (&high, Type::TIMESTAMPTZ),
            (&epoch, Type::INT8),
        ];
        let touched = self.bus.touched_since(claim.chain_id, to.next, epoch);
        let (removed, lost) = (OnceLock::new(), OnceLock::new());
        let rows = async {
            // No other code sets it.
            removed.set(self.remove_rows(&tx, touched.as_ref(), &in_time, why).await?).ok();
            Ok(())
        };
        let run = async |sql| Ok(tx.execute_typed(sql, &orphans).await.map(drop)?);
        let stages = Stages::new(REMOVING).then(Stage::Rows, rows);
        let stages = stages.then(Stage::Blocks, run(DELETE_BLOCKS));
        let stages = stages.then(Stage::Coverage, run(CLIP_COVERAGE)).then(Stage::Coverage, run(DELETE_COVERAGE));
        let stages = stages.then(Stage::Coverage, async {
            // No other code sets it.
            lost.set(self.lose(&tx, chain_id, first).await?).ok();
            Ok(())
        });
        stages.run_behind_the_fence().await?;
        let removed = removed.into_inner().unwrap_or_default();
        if why == Why::Reorg {
            record(&tx, claim, from, to, epoch, self.logs_of(&removed)).await?;
        }
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        self.lost(claim.chain_id, &lost.into_inner().unwrap_or_default());
        Ok(under_way.committed(epoch, Change::Unwound { from, to }, removed))
    }

    /// Sends the DELETE of each table that has, or may have, rows of these blocks; returns the number of removed rows per table.
    /// `of`: the chain, the first block, the times between which its rows are, and the epoch of the orphans. Always the stored
    /// times, never the new branch's: an orphaned row may be in another leaf than its successor.
    async fn remove_rows(
        &self,
        tx: &Client,
        touched: Option<&BTreeSet<usize>>,
        of: &[(&(dyn ToSql + Sync), Type); 5],
        why: Why,
    ) -> Result<Vec<Touched>, StoreError> {
        let has_rows = |dataset: &&Dataset| touched.is_none_or(|touched| touched.contains(&dataset.at()));
        let removals = self.datasets.iter().filter(has_rows).map(async |dataset| {
            let statements = dataset.statements();
            let rows = match (dataset.takes(), why) {
                (Takes::Every, Why::Reorg) => tx.execute_typed(&statements.orphan, &of[..]).await?,
                (Takes::Refused, _) => tx.execute_typed(&statements.unwind, &of[..2]).await?,
                _ => tx.execute_typed(&statements.unwind, &of[..4]).await?,
            };
            Ok::<_, StoreError>(Touched { dataset: dataset.at(), rows })
        });
        let removed = all(removals).await?;
        Ok(removed.into_iter().filter(|touched| touched.rows > 0).collect())
    }

    /// The number of logs of these rows: raw logs, or typed rows if no logs are stored.
    pub fn logs_of(&self, touched: &[Touched]) -> u64 {
        let rows = |of: &dyn Fn(&Takes) -> bool| -> u64 {
            touched
                .iter()
                .filter(|touched| of(self.datasets[touched.dataset].takes()))
                .map(|touched| touched.rows)
                .sum()
        };
        match rows(&|takes| matches!(takes, Takes::Every)) {
            0 => rows(&|takes| matches!(takes, Takes::Event(_))),
            raw => raw,
        }
    }

    /// Merges touching coverage rows of one level, under the state row's lock: the tail adds one row a block.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn compact_coverage(&self, chain_id: u64) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_brief(&mut connection, chain_id).await?;
        let chain: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
        tx.query_typed("SELECT 1 FROM dalp_indexed.chain_state WHERE chain_id = $1 FOR UPDATE", &chain).await?;
        tx.execute_typed(COMPACT, &chain).await?;
        tx.commit().await.map_err(StoreError::from)
    }
}

/// Moves the tail down, under our token and from the expected tail; returns the new epoch.
async fn fence(tx: &Client, claim: &Claim, from: Tail, to: Tail, why: Why) -> Result<i64, StoreError> {
    let (expected, expected_hash) = (int8(from.next) - 1, from.hash.map(|hash| hash.to_vec()));
    let (number, hash) = (int8(to.next) - 1, to.hash.map(|hash| hash.to_vec()));
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&int8(claim.chain_id), Type::INT8),
        (&claim.token, Type::INT8),
        (&expected, Type::INT8),
        (&expected_hash, Type::BYTEA),
        (&number, Type::INT8),
        (&hash, Type::BYTEA),
        (&(why == Why::Reindex), Type::BOOL),
    ];
    let row = tx.query_typed_opt(FENCE, &params).await?;
    row.map(|row| row.get(0)).ok_or(StoreError::TailMoved { chain_id: claim.chain_id })
}

async fn record(tx: &Client, claim: &Claim, from: Tail, to: Tail, epoch: i64, logs: u64) -> Result<(), StoreError> {
    let (fork_hash, tail_hash) = (to.hash.map(|hash| hash.to_vec()), from.hash.map(|hash| hash.to_vec()));
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&int8(claim.chain_id), Type::INT8),
        (&epoch, Type::INT8),
        (&(int8(to.next) - 1), Type::INT8),
        (&fork_hash, Type::BYTEA),
        (&(int8(from.next) - 1), Type::INT8),
        (&tail_hash, Type::BYTEA),
        (&int8(logs), Type::INT8),
    ];
    tx.execute_typed(RECORD, &params).await?;
    Ok(())
}

const FENCE: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, tail_number = $5, tail_hash = $6, \
                     tail_time = (SELECT time FROM dalp_indexed.blocks WHERE chain_id = $1 AND number = $5), \
                     finalized = CASE WHEN $7 THEN NULLIF(LEAST(finalized, $5), -1) ELSE finalized END, updated_at = now() \
                     WHERE chain_id = $1 AND token = $2 AND tail_number = $3 AND tail_hash IS NOT DISTINCT FROM $4 \
                     RETURNING epoch";

const RECORD: &str = "INSERT INTO dalp_indexed.reorg (chain_id, epoch, fork_number, fork_hash, tail_number, tail_hash, blocks, logs) \
                      VALUES ($1, $2, $3, $4, $5, $6, $5 - $3, $7)";

const ORPHANED_TIMES: &str =
    "SELECT min(time), max(time) FROM dalp_indexed.blocks WHERE chain_id = $1 AND number >= $2";
const DELETE_BLOCKS: &str = "DELETE FROM dalp_indexed.blocks WHERE chain_id = $1 AND number >= $2";
const DELETE_COVERAGE: &str = "DELETE FROM dalp_indexed.coverage WHERE chain_id = $1 AND to_block >= $2";

/// A range across the fork point keeps its lower part: inserted again just above, so that the key stays free.
const CLIP_COVERAGE: &str = "WITH straddling AS (\
                               DELETE FROM dalp_indexed.coverage WHERE chain_id = $1 AND from_block < $2 AND to_block >= $2 RETURNING *) \
                             INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level, committed_at) \
                             SELECT chain_id, source_id, from_block, $2 - 1, level, committed_at FROM straddling";

/// A run is a sequence of touching rows. It is written only from deleted rows: the new row has the key of the run's first.
const COMPACT: &str = "WITH marked AS (\
                         SELECT *, from_block > max(to_block) OVER (PARTITION BY source_id, level ORDER BY from_block \
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + 1 AS begins \
                         FROM dalp_indexed.coverage WHERE chain_id = $1), \
                       numbered AS (\
                         SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY source_id, level ORDER BY from_block) AS run \
                         FROM marked), \
                       runs AS (\
                         SELECT source_id, level, run, min(from_block) AS first, max(from_block) AS last \
                         FROM numbered GROUP BY source_id, level, run HAVING count(*) > 1), \
                       gone AS (\
                         DELETE FROM dalp_indexed.coverage AS c USING runs AS r \
                         WHERE c.chain_id = $1 AND c.source_id = r.source_id AND c.level = r.level AND c.from_block BETWEEN r.first AND r.last \
                         RETURNING c.*, r.run) \
                       INSERT INTO dalp_indexed.coverage (chain_id, source_id, from_block, to_block, level, committed_at) \
                       SELECT $1, source_id, min(from_block), max(to_block), level, max(committed_at) FROM gone GROUP BY source_id, level, run";
