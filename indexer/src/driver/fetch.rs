//! One fetch of the tail lane, until there is a batch or a reason to ask for another range.

use std::time::Instant;

use tracing::info;

use super::trouble::{Patience, Trouble};
use crate::backoff::Backoff;
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::machine::FetchFailure;
use crate::chain::range::RangeSizer;
use crate::chain::source::Source;
use crate::config::Chain;
use crate::dataset::Sorted;
use crate::maintenance::Leaves;
use crate::nodes::{NodeError, Nodes};
use crate::store::Store;
use crate::timings::LaneTimings;

/// The width of a chain's ranges: half the rows of a transaction leave room for a dense stretch, and a quarter of the allowed
/// bytes lets four of them wait for their turn.
pub(super) fn sizer(chain: &Chain) -> RangeSizer {
    let (logs, bytes) = (u64::from(chain.batch_rows / 2).max(1), (chain.fetch_buffer_bytes / 4).max(1));
    RangeSizer::new(chain.range_blocks, chain.max_range_blocks, logs, bytes)
}

/// The range.
#[derive(Clone, Copy)]
pub(super) enum Want {
    Head(BlockRef),
    NearHead(BlockRange),
    Range(BlockRange),
}

/// Fetches until there is a batch or a reason to ask for another range.
pub(super) async fn fetch(
    nodes: &Nodes,
    source: &Source,
    want: Want,
    trouble: &Trouble,
    patience: &Patience,
    timings: &LaneTimings,
) -> Result<BlockBatch, FetchFailure> {
    let mut backoff = match want {
        Want::Head(_) | Want::NearHead(_) => Backoff::near_head(),
        Want::Range(_) => Backoff::new(),
    };
    loop {
        let began = Instant::now();
        let answer = match want {
            Want::Head(block) => nodes.block(source, block).await,
            Want::NearHead(range) => nodes.near_head(source, range).await,
            Want::Range(range) => nodes.range(source, range).await,
        };
        match answer {
            Ok(batch) => {
                timings.fetched(began);
                trouble.set(None);
                patience.renew();
                return Ok(batch);
            }
            Err(error @ NodeError::TooLarge { .. }) => {
                info!("{error}; asking for less");
                let NodeError::TooLarge { hint, .. } = error else { return Err(FetchFailure::Gone) };
                return Err(FetchFailure::TooLarge { hint });
            }
            Err(error @ NodeError::Gone { .. }) => {
                trouble.set(Some(error.to_string()));
                patience.wait().await;
                return Err(FetchFailure::Gone);
            }
            Err(error @ NodeError::Retry { after, .. }) => {
                trouble.set(Some(error.to_string()));
                if !nodes.moves_on(&error) {
                    backoff.pause_at_least(after).await;
                }
            }
        }
    }
}

/// Makes a batch's leaves while earlier batches are still being appended: in history this takes about as long as the rows. A
/// failure is not reported here: the append checks its leaves itself, and handles the failure.
pub(super) async fn cover_ahead(leaves: &Leaves, store: &Store, chain_id: u64, batch: &Sorted) {
    if let Err(error) = leaves.cover(chain_id, batch, &store.floors(chain_id)).await {
        tracing::debug!(%error, "no leaves ahead of the append");
    }
}
