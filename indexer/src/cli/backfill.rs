//! `dalp-indexer backfill`: finalised blocks below the tail, in any order, each range committed on its own.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Failure;
use crate::chain::batch::BlockBatch;
use crate::chain::block::BlockRange;
use crate::chain::range::RangeSizer;
use crate::config::{Chain, Config};
use crate::maintenance::Leaves;
use crate::service;
use crate::source::pause::Backoff;
use crate::source::{Source, SourceError};
use crate::store::append::Lane;
use crate::store::{Claim, Store, StoreError};

/// Arguments of `backfill`.
#[derive(Clone, Debug, clap::Args)]
pub struct BackfillArgs {
    /// The chain's name in the configuration; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// The first block
    #[arg(long, value_name = "BLOCK")]
    pub from: u64,
    /// The last block, which is indexed too
    #[arg(long, value_name = "BLOCK")]
    pub to: u64,
}

/// Fetches what the range lacks and commits it beside a running indexer.
///
/// # Errors
/// A range that is not final or lies above the tail, and whatever ends the work; what was committed stays.
pub async fn run(config: Config, args: BackfillArgs, bars: MultiProgress) -> Result<(), Failure> {
    let chain = pick(&config, args.chain.as_deref())?;
    let want = BlockRange::new(args.from, args.to)
        .ok_or_else(|| Failure::usage(format!("--from {} is above --to {}", args.from, args.to)))?;
    let store = Store::open(&config.database).await.map_err(|error| Failure::other(error.to_string()))?;
    store.check().await.map_err(|error| Failure::other(error.to_string()))?;
    let (source, claim) = service::join(chain, &store).await?;
    refuse_unfinal(&store, &claim, chain, want).await?;
    let leaves = Leaves::open(&config).await.map_err(service::ServiceError::from)?;
    let coverage = store.coverage(claim.chain_id, claim.source_id).await.map_err(|e| Failure::other(e.to_string()))?;
    let gaps = coverage.gaps(want);
    let blocks: u64 = gaps.iter().map(|gap| gap.blocks()).sum();
    if blocks == 0 {
        println!("{want} of \"{}\" is covered already; nothing to do", chain.name);
        return Ok(());
    }
    let bar = bars.add(progress(blocks));
    let mut work = Backfill { chain, store: &store, source: &source, leaves: &leaves, claim, bar: &bar };
    let logs = work.fill(gaps).await?;
    bar.finish_and_clear();
    println!("backfilled {blocks} blocks of \"{}\" with {logs} logs", chain.name);
    Ok(())
}

fn pick<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Chain, Failure> {
    let names = || config.chains.iter().map(|chain| chain.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, &config.chains[..]) {
        (Some(name), chains) => chains
            .iter()
            .find(|chain| chain.name == name)
            .ok_or_else(|| Failure::usage(format!("no chain is called \"{name}\"; configured: {}", names()))),
        (None, [chain]) => Ok(chain),
        (None, []) => Err(Failure::usage("no chain is configured: see `dalp-indexer config example`")),
        (None, _) => Err(Failure::usage(format!("--chain is needed, as there are several: {}", names()))),
    }
}

/// The backfill lane is for blocks that cannot be reorganised, below the chain's indexed start.
async fn refuse_unfinal(store: &Store, claim: &Claim, chain: &Chain, want: BlockRange) -> Result<(), Failure> {
    let state = store.load(claim).await.map_err(|error| Failure::other(error.to_string()))?;
    if want.last < chain.start_block || state.finalized.is_some_and(|finalized| want.last <= finalized) {
        return match state.finalized {
            Some(_) => Ok(()),
            None => Err(Failure::other(format!(
                "no block of \"{}\" is known to be final (finality {:?}): let `dalp-indexer run` index it first; with \
                 finality \"never\" there is no backfill, index from start_block instead",
                chain.name, chain.finality
            ))),
        };
    }
    Err(Failure::usage(format!(
        "block {} of \"{}\" is not final, or not indexed yet (final: {}); `dalp-indexer run` indexes from start_block {} \
         upwards by itself",
        want.last,
        chain.name,
        state.finalized.map_or("none".into(), |number| number.to_string()),
        chain.start_block
    )))
}

fn progress(blocks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} blocks, {per_sec}, {eta} left");
    ProgressBar::new(blocks).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

struct Backfill<'b> {
    chain: &'b Chain,
    store: &'b Store,
    source: &'b Source,
    leaves: &'b Leaves,
    claim: Claim,
    bar: &'b ProgressBar,
}

impl Backfill<'_> {
    /// Fetches the gaps newest first, a few at a time, and commits each as it comes. Answers the number of logs.
    async fn fill(&mut self, gaps: Vec<BlockRange>) -> Result<u64, Failure> {
        let mut todo: VecDeque<BlockRange> = gaps.into();
        let mut sizer = RangeSizer::new(
            self.chain.range_blocks,
            self.chain.max_range_blocks,
            u64::from(self.chain.batch_rows / 2).max(1),
        );
        let mut fetching = FuturesUnordered::new();
        let mut logs = 0;
        loop {
            while fetching.len() < self.chain.fetch_parallelism as usize
                && let Some(range) = take_newest(&mut todo, sizer.blocks())
            {
                let source = self.source;
                fetching.push(async move { (range, patient(source, range).await) });
            }
            let Some((range, answer)) = fetching.next().await else { return Ok(logs) };
            match answer {
                Ok(batch) => {
                    self.commit(&batch).await?;
                    sizer.fetched(range.blocks(), batch.logs().len() as u64);
                    logs += batch.logs().len() as u64;
                    self.bar.inc(range.blocks());
                }
                Err(SourceError::TooLarge { hint, .. }) if sizer.too_large(range.blocks(), hint) => {
                    todo.push_back(range)
                }
                Err(error) => return Err(Failure::other(format!("{range}: {error}"))),
            }
        }
    }

    async fn commit(&mut self, batch: &BlockBatch) -> Result<(), Failure> {
        loop {
            let outcome = match self.leaves.cover(self.claim.chain_id, batch).await {
                Ok(()) => self.store.append(&self.claim, batch, Lane::Backfill).await.map(|_commit| ()),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(StoreError::NoLeaf) => self.leaves.forget(self.claim.chain_id),
                Err(StoreError::Retry { why }) => warn!("{why}"),
                // The writer was restarted (a new token), or COMMIT's answer was lost.
                Err(StoreError::TailMoved { .. } | StoreError::Indeterminate { .. }) => {
                    if self.covered(batch.range()).await? {
                        return Ok(());
                    }
                }
                // Somebody else was faster with this range, or its rows are not ours.
                Err(StoreError::Duplicate { why }) => {
                    let covered = self.covered(batch.range()).await?;
                    return if covered { Ok(()) } else { Err(Failure::other(format!("{}: {why}", batch.range()))) };
                }
                Err(error) => return Err(Failure::other(error.to_string())),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Looks, under a fresh claim's lock, whether the range is covered after all.
    async fn covered(&mut self, range: BlockRange) -> Result<bool, Failure> {
        let other = |error: StoreError| Failure::other(error.to_string());
        self.claim = service::join(self.chain, self.store).await?.1;
        let gaps = self.store.coverage(self.claim.chain_id, self.claim.source_id).await.map_err(other)?.gaps(range);
        if !gaps.is_empty() && gaps != [range] {
            return Err(Failure::other(format!(
                "{range} was covered in part by somebody else; run the backfill again"
            )));
        }
        info!(%range, "the writer was restarted, or a commit's answer was lost; going on");
        Ok(gaps.is_empty())
    }
}

/// Cuts at most `blocks` blocks off the newest end.
fn take_newest(todo: &mut VecDeque<BlockRange>, blocks: u64) -> Option<BlockRange> {
    let gap = todo.pop_back()?;
    let first = gap.first.max((gap.last + 1).saturating_sub(blocks));
    todo.extend(first.checked_sub(1).and_then(|last| BlockRange::new(gap.first, last)));
    Some(BlockRange { first, last: gap.last })
}

/// Asks until the nodes answer; only what another question could mend comes back as an error.
async fn patient(source: &Source, range: BlockRange) -> Result<BlockBatch, SourceError> {
    let mut backoff = Backoff::new();
    loop {
        let after = match source.range(range).await {
            Err(error @ (SourceError::Retry { .. } | SourceError::Gone { .. })) => {
                warn!("{error}");
                if source.moves_on(&error) {
                    continue;
                }
                match error {
                    SourceError::Retry { after, .. } => after,
                    _ => None,
                }
            }
            other => return other,
        };
        backoff.pause_at_least(after).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_blocks_come_first() {
        let mut todo = VecDeque::from([BlockRange { first: 0, last: 4 }, BlockRange { first: 10, last: 12 }]);
        let taken: Vec<_> = std::iter::from_fn(|| take_newest(&mut todo, 2)).map(|r| (r.first, r.last)).collect();
        assert_eq!(taken, [(11, 12), (10, 10), (3, 4), (1, 2), (0, 0)]);
    }
}
