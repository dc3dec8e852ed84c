//! The stored part of a chain's history, by source; and the tail's jump over the missing part.

use std::sync::Arc;

use alloy::primitives::B256;
use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::Bounds;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::commit::{Change, Commit};
use super::read::block_ref;
use super::stages::{ADDING, Stage, Stages};
use super::{Claim, Store, StoreError, begin, hash, int8, timestamp, uint8};
use crate::chain::backfill::{Piece, pieces};
use crate::chain::block::{BlockRange, BlockRef, Header};
use crate::chain::coverage::Coverage;
use crate::chain::machine::Tail;
use crate::chain::source::Source;

/// The work of the backfill lane.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// Blocks between the first one and the tail with missing logs of the source, ascending.
    pub pieces: Vec<Piece>,
    /// The highest stored final block: blocks at or below it are fetched from nodes with this very block.
    pub anchor: Option<BlockRef>,
}

/// A source with its coverage, and the level of each range.
struct Covered {
    source: Source,
    ranges: Vec<(BlockRange, String)>,
}

impl Covered {
    fn coverage(&self) -> Coverage {
        Coverage::new(self.ranges.iter().map(|(range, _)| *range))
    }
}

impl Store {
    /// The missing part of a source in `want`, or in the blocks from the first one to the tail. Read under the state row's lock: this
    /// waits for commits with lost answers.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process claimed the chain after us.
    pub async fn missing(
        &self,
        claim: &Claim,
        source: &Source,
        want: Option<BlockRange>,
    ) -> Result<Missing, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(claim.chain_id), Type::INT8)];
        let row = tx
            .query_typed_one(
                "SELECT token, tail_number, start_block FROM dalp_indexed.chain_state WHERE chain_id = $1 FOR UPDATE",
                &params,
            )
            .await?;
        let anchor = tx.query_typed_opt(ANCHOR, &params).await?;
        let anchor = anchor.map(|row| block_ref(row.get(0), row.get(1))).transpose()?;
        let mut sources = covered(&tx, claim.chain_id).await?;
        tx.commit().await?;
        if row.get::<_, i64>(0) != claim.token {
            return Err(StoreError::Fenced { chain_id: claim.chain_id });
        }
        // One below the first block, if no block is stored.
        let (tail, first) = (uint8(row.get::<_, i64>(1) + 1)?.checked_sub(1), uint8(row.get(2))?);
        let below = tail.and_then(|tail| BlockRange::new(first, tail));
        let Some(want) = want.or(below) else {
            return Ok(Missing::default());
        };
        let own = sources.iter().position(|covered| covered.source == *source);
        let own = own.map(|at| sources.swap_remove(at).coverage()).unwrap_or_default();
        let others: Vec<_> = sources.iter().map(|covered| (covered.source.clone(), covered.coverage())).collect();
        Ok(Missing { pieces: pieces(source, want, &own, &others), anchor })
    }

    /// Sets the tail to `to`, a final block, and leaves the blocks between to the backfill lane; or does nothing.
    ///
    /// # Errors
    /// See [`StoreError`]; after [`StoreError::Indeterminate`] it may be committed.
    pub async fn jump(&self, claim: &Claim, from: Tail, to: &Header) -> Result<Arc<Commit>, StoreError> {
        let mut connection = self.connection().await?;
        let under_way = self.bus.begin(claim.chain_id);
        let tx = begin(&mut connection, claim).await?;
        let (expected, expected_hash) = (int8(from.next) - 1, from.hash.map(|hash| hash.to_vec()));
        let (hash, parent) = (to.hash.to_vec(), to.parent.map(|parent| parent.to_vec()));
        let params: [(&(dyn ToSql + Sync), Type); 8] = [
            (&int8(claim.chain_id), Type::INT8),
            (&claim.token, Type::INT8),
            (&expected, Type::INT8),
            (&expected_hash, Type::BYTEA),
            (&int8(to.number), Type::INT8),
            (&hash, Type::BYTEA),
            (&timestamp(to.time), Type::TIMESTAMPTZ),
            (&parent, Type::BYTEA),
        ];
        let block = [0, 4, 6, 5, 7].map(|at| params[at].clone());
        let stages = Stages::new(ADDING)
            .then(Stage::Blocks, async { Ok(tx.execute_typed(JUMP_BLOCK, &block).await.map(drop)?) })
            .fence(async {
                let row = tx.query_typed_opt(JUMP, &params[..7]).await?;
                row.map(|row| row.get(0)).ok_or(StoreError::TailMoved { chain_id: claim.chain_id })
            });
        let epoch = stages.run().await?;
        tx.commit().await.map_err(|error| StoreError::Indeterminate { why: error.to_string() })?;
        Ok(under_way.committed(epoch, Change::Jumped(to.block()), Vec::new()))
    }
}

/// A tail at most this far below the head follows it: it brings single rows, and is no load.
const NEAR: TimeDelta = TimeDelta::minutes(1);

/// The times of a chain's missing blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingTimes {
    /// The tail's time; none before the first block.
    pub tail: Option<DateTime<Utc>>,
    /// One per run of missing blocks below the tail.
    pub gaps: Vec<Gap>,
}

/// The parts of a leaf's time after an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The part with rows.
    pub stored: TimeDelta,
    /// The part without.
    pub missing: TimeDelta,
}

/// Least bytes of rows to load that are worth dropping the indexes of a leaf in use: about 100,000 logs.
const LEAST_LOAD: f64 = 32e6;
/// A row costs PostgreSQL 1.5 to 1.7 times as much in standing indexes as in indexes that are built after the load. So the build of
/// the stored rows is worth it if the missing rows are at least twice as many.
const LEAST_SHARE: f64 = 2.0;

impl Outage {
    /// Whether a leaf with rows of this size, without indexes, is loaded faster without its secondary indexes. The missing times
    /// are taken to have as many rows as the stored ones; no stored time, and bytes all the same, are rows of another source.
    pub fn is_faster_bare(&self, bytes: i64) -> bool {
        let (stored, missing) = (self.stored.as_seconds_f64(), self.missing.as_seconds_f64());
        let coming = bytes as f64 * missing / stored;
        match bytes {
            0 => self.missing > NEAR,
            _ => stored > 0.0 && coming >= LEAST_LOAD && missing >= stored * LEAST_SHARE,
        }
    }
}

/// The times of the stored blocks around a run of missing ones; none where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The time of the highest block below.
    pub from: Option<DateTime<Utc>>,
    /// The time of the lowest block above.
    pub to: Option<DateTime<Utc>>,
}

impl MissingTimes {
    /// Whether a leaf of these bounds is still being loaded: from a gap, or by the tail on its way to a `head` beyond them, or
    /// inside them and not near. While the head is unknown, it may be.
    pub fn touch(&self, bounds: Bounds, head: Option<DateTime<Utc>>) -> bool {
        // A block in a gap may have the time of a block around it.
        let touches = |gap: &Gap| {
            gap.from.is_none_or(|from| from < bounds.to())
                && bounds.from().is_none_or(|start| gap.to.is_none_or(|to| to >= start))
        };
        let passes = |head: DateTime<Utc>| {
            let is_far = self.tail.is_none_or(|tail| head - tail > NEAR);
            head >= bounds.to() || is_far && bounds.from().is_none_or(|from| from <= head)
        };
        let ahead = self.tail.is_none_or(|tail| tail < bounds.to()) && head.is_none_or(passes);
        ahead || self.gaps.iter().any(touches)
    }

    /// How much of a leaf's time up to the `head` has rows, and how much is missing above rows: since an outage. History that was
    /// never loaded, as of another source, has no rows below.
    pub fn outage(&self, bounds: Bounds, head: DateTime<Utc>) -> Outage {
        let end = head.min(bounds.to());
        let begin = bounds.from().unwrap_or(DateTime::<Utc>::MIN_UTC);
        let above_tail = self.tail.filter(|tail| head - *tail > NEAR).map(|tail| (tail, head));
        let gaps = self.gaps.iter().filter_map(|gap| gap.from.map(|from| (from, gap.to.unwrap_or(head))));
        let inside =
            |(from, to): (DateTime<Utc>, DateTime<Utc>)| (to.min(end) - from.max(begin)).max(TimeDelta::zero());
        let missing: TimeDelta = gaps.chain(above_tail).map(inside).sum();
        Outage { stored: (end - begin - missing).max(TimeDelta::zero()), missing }
    }

    /// Whether history is complete: no gap, and the tail within an hour of the chain's time of the head.
    pub fn is_none(&self, head: Option<DateTime<Utc>>) -> bool {
        let near = |tail| head.is_some_and(|head| head - tail <= TimeDelta::hours(1));
        self.gaps.is_empty() && self.tail.is_some_and(near)
    }
}

impl Store {
    /// The times of the missing blocks between a chain's first one and its tail.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn missing_times(&self, chain_id: u64) -> Result<MissingTimes, StoreError> {
        let connection = self.connection().await?;
        let chain: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
        let rows = connection.query_typed(MISSING_TIMES, &chain).await?;
        let tail = rows.first().and_then(|row| row.get(0));
        let gaps = rows.iter().filter(|row| row.get(1)).map(|row| Gap { from: row.get(2), to: row.get(3) }).collect();
        Ok(MissingTimes { tail, gaps })
    }
}

/// One row for each gap, or one without.
const MISSING_TIMES: &str = "SELECT s.tail_time, gap IS NOT NULL, \
                               (SELECT time FROM dalp_indexed.blocks WHERE chain_id = $1 AND number < lower(gap) ORDER BY number DESC LIMIT 1), \
                               (SELECT time FROM dalp_indexed.blocks WHERE chain_id = $1 AND number >= upper(gap) ORDER BY number LIMIT 1) \
                             FROM dalp_indexed.chain_state s LEFT JOIN LATERAL unnest( \
                               int8multirange(int8range(s.start_block, greatest(s.tail_number + 1, s.start_block))) - COALESCE( \
                                 (SELECT range_agg(int8range(c.from_block, c.to_block, '[]')) FROM dalp_indexed.coverage c \
                                  WHERE c.chain_id = s.chain_id AND c.source_id = s.source_id), '{}')) AS gap ON true \
                             WHERE s.chain_id = $1";

const ANCHOR: &str = "SELECT b.number, b.hash FROM dalp_indexed.chain_state s JOIN dalp_indexed.blocks b USING (chain_id) \
                      WHERE s.chain_id = $1 AND b.number <= s.finalized ORDER BY b.number DESC LIMIT 1";
const JUMP: &str = "UPDATE dalp_indexed.chain_state SET epoch = epoch + 1, tail_number = $5, tail_hash = $6, tail_time = $7, \
                    finalized = GREATEST(finalized, $5), updated_at = now() \
                    WHERE chain_id = $1 AND token = $2 AND tail_number = $3 AND tail_hash IS NOT DISTINCT FROM $4 \
                    RETURNING epoch";
/// The block is stored at once: the range that ends with it, and the batch on top of it, are compared with it.
const JUMP_BLOCK: &str = "INSERT INTO dalp_indexed.blocks (chain_id, number, time, hash, parent_hash) VALUES ($1, $2, $3, $4, $5) \
                          ON CONFLICT (chain_id, number) DO NOTHING";

async fn covered(tx: &Client, chain_id: u64) -> Result<Vec<Covered>, StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
    let mut sources: Vec<Covered> = Vec::new();
    for row in tx.query_typed(COVERED, &params).await? {
        let id = hash(row.get(0))?;
        if sources.last().is_none_or(|covered| covered.source.id() != id) {
            sources.push(Covered { source: source_of(id, row.get(1))?, ranges: Vec::new() });
        }
        let (Some(from), Some(to)) = (row.get::<_, Option<i64>>(2), row.get::<_, Option<i64>>(3)) else { continue };
        let range = BlockRange::new(uint8(from)?, uint8(to)?);
        if let (Some(range), Some(covered)) = (range, sources.last_mut()) {
            covered.ranges.push((range, row.get(4)));
        }
    }
    Ok(sources)
}

/// A stored source.
pub(super) fn source_of(id: B256, definition: serde_json::Value) -> Result<Source, StoreError> {
    let filter = serde_json::from_value(definition).map_err(|error| StoreError::Fatal {
        why: format!("dalp_indexed.source: the definition of {id} is not a filter: {error}"),
    })?;
    Ok(Source::stored(id, filter))
}

const COVERED: &str = "SELECT s.source_id, s.definition, c.from_block, c.to_block, c.level \
                       FROM dalp_indexed.source s LEFT JOIN dalp_indexed.coverage c USING (chain_id, source_id) \
                       WHERE s.chain_id = $1 ORDER BY s.source_id, c.from_block";

/// If a wider source covers blocks, a narrower one does too: recorded with the wider one's levels. The caller holds the state
/// row's lock.
pub(super) async fn inherit(tx: &Client, chain_id: u64, narrow: &Source) -> Result<(), StoreError> {
    let id = narrow.id();
    let sources = covered(tx, chain_id).await?;
    let own = sources.iter().find(|covered| covered.source == *narrow).map(Covered::coverage).unwrap_or_default();
    let mut have = own.ranges().to_vec();
    let is_wide = |wide: &Source| wide != narrow && wide.filter().contains(narrow.filter());
    for covered in sources.iter().filter(|covered| is_wide(&covered.source)) {
        for (range, level) in &covered.ranges {
            for gap in Coverage::new(have.iter().copied()).gaps(*range) {
                let (id, first, last) = (id.as_slice(), int8(gap.first), int8(gap.last));
                let params: [(&(dyn ToSql + Sync), Type); 5] = [
                    (&int8(chain_id), Type::INT8),
                    (&id, Type::BYTEA),
                    (&first, Type::INT8),
                    (&last, Type::INT8),
                    (level, Type::TEXT),
                ];
                tx.execute_typed(super::append::COVER, &params).await?;
                have.push(gap);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    #[test]
    fn a_leaf_is_loaded_when_no_gap_and_no_tail_can_bring_it_more() {
        let day = Bounds::new(Some(at(24)), at(48)).unwrap();
        let gap = |from: Option<i64>, to: Option<i64>| Gap { from: from.map(at), to: to.map(at) };
        for (gaps, tail, head, touched, why) in [
            (vec![], Some(50), Some(50), false, "all is there"),
            (vec![], Some(40), Some(50), true, "the tail has not left it"),
            (vec![], Some(40), Some(47), true, "the head is in it, and the tail far below"),
            (vec![], Some(47), Some(47), false, "both are in it: it is a leaf in use"),
            (vec![], Some(20), Some(23), false, "the head is below it"),
            (vec![], Some(40), None, true, "who knows where the head is"),
            (vec![], None, Some(50), true, "nothing is there"),
            (vec![gap(Some(0), Some(23))], Some(50), Some(50), false, "a gap below"),
            (vec![gap(Some(48), Some(49))], Some(50), Some(50), false, "a gap above"),
            (vec![gap(Some(0), Some(24))], Some(50), Some(50), true, "its first block may be missing"),
            (vec![gap(Some(47), Some(49))], Some(50), Some(50), true, "its last may be"),
            (vec![gap(None, Some(99))], Some(100), Some(100), true, "all below is missing"),
            (vec![gap(Some(0), None)], Some(100), Some(100), true, "all above is"),
        ] {
            let missing = MissingTimes { tail: tail.map(at), gaps };
            assert_eq!(missing.touch(day, head.map(at)), touched, "{why}");
        }
    }

    #[test]
    fn a_leaf_in_use_is_stripped_where_much_of_it_is_missing_since_an_outage() {
        let day = Bounds::new(Some(at(24)), at(48)).unwrap();
        let gap = |from: Option<i64>, to: i64| Gap { from: from.map(at), to: Some(at(to)) };
        let full = 1_000_000_000;
        for (gaps, tail, bytes, faster, why) in [
            (vec![], 45, full, false, "all is there"),
            (vec![gap(Some(30), 45)], 45, full, true, "six hours are there, and fifteen missing"),
            (vec![], 30, full, true, "the same before the tail jumped"),
            (vec![gap(Some(32), 45)], 45, full, false, "eight hours are there, and thirteen missing"),
            (vec![gap(Some(30), 45)], 45, 1_000_000, false, "few rows an hour"),
            (vec![gap(Some(10), 45)], 45, 16_384, false, "rows of another source, or of a leaf made new"),
            (vec![gap(Some(10), 45)], 45, 0, true, "no row to index again"),
            (vec![gap(None, 45)], 45, full, false, "history was never there"),
            (vec![gap(Some(0), 20)], 45, 0, false, "the outage was before"),
        ] {
            let missing = MissingTimes { tail: Some(at(tail)), gaps };
            assert_eq!(missing.outage(day, at(45)).is_faster_bare(bytes), faster, "{why}");
        }
    }

    #[test]
    fn history_is_done_without_gaps_and_near_the_head() {
        let missing = |gaps, tail: i64| MissingTimes { tail: Some(at(tail)), gaps };
        assert!(missing(vec![], 49).is_none(Some(at(50))) && !missing(vec![], 48).is_none(Some(at(50))));
        assert!(!missing(vec![Gap { from: None, to: None }], 50).is_none(Some(at(50))));
        assert!(!missing(vec![], 50).is_none(None));
    }
}
