//! Takes up contracts that operators add, and decodes the stored logs of contracts that were added or found late, beside the live
//! writer.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::work::Context;
use crate::backoff::Backoff;
use crate::dataset::Contract;
use crate::maintenance::LeavesError;
use crate::status::ChainStatus;
use crate::store::StoreError;
use crate::store::decode::Decoded;

/// Pause between two looks for work: operators, `contracts` and `redecode` ask for it in the database.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks of the first range; the next ones have as many as one transaction can decode.
const FIRST_WIDTH: u64 = 1_000;
/// Most blocks of a range: a chain of empty blocks is soon done.
const MOST_WIDTH: u64 = 10_000_000;
/// Fewer logs than this allow a wider range.
const FEW_LOGS: u64 = 2_500;

/// Decodes what is undecoded, now and later. Ends with the future.
pub async fn decode_stored(context: Context, status: watch::Sender<ChainStatus>) -> Infallible {
    if context.store.datasets().kinds().is_empty() {
        return std::future::pending().await;
    }
    let (mut backoff, mut width, mut total) = (Backoff::new(), FIRST_WIDTH, 0);
    loop {
        match turn(&context, &status, &mut width).await {
            Ok(Some(logs)) => {
                total += logs;
                backoff = Backoff::new();
            }
            Ok(None) => {
                if total > 0 {
                    info!(logs = total, "the stored logs of added contracts are in their tables");
                }
                (width, total) = (FIRST_WIDTH, 0);
                sleep(LOOK).await;
            }
            // Another process leads: our driver will hear it from its own next commit.
            Err(Trouble::Store(StoreError::Fenced { .. })) => return std::future::pending().await,
            Err(trouble) => {
                // A range may be too large for the time of a transaction.
                width = (width / 16).max(1);
                warn!("the stored logs of added contracts are not decoded yet: {trouble}");
                backoff.pause().await;
            }
        }
    }
}

/// Records the contracts of the configuration and of operators; returns the number of contracts with undecoded logs.
///
/// # Errors
/// See [`StoreError`].
pub async fn register(context: &Context) -> Result<u64, StoreError> {
    for Contract { address, kind, .. } in context.store.register(&context.claim, &context.source).await? {
        warn!(
            "dalp_indexed.indexed_contracts names {address} of the kind {kind}, which gets no rows: a section [contracts.NAME] must name \
             the kind, a chain with a list of addresses must list the contract, and a factory needs a chain with all logs and with raw logs"
        );
    }
    context.store.undecoded_contracts(context.claim.chain_id).await
}

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Leaves(#[from] LeavesError),
}

/// One transaction; returns the number of decoded logs, and none if nothing is left.
async fn turn(context: &Context, status: &watch::Sender<ChainStatus>, width: &mut u64) -> Result<Option<u64>, Trouble> {
    let chain_id = context.claim.chain_id;
    if context.store.has_news(chain_id, &context.source).await? {
        register(context).await?;
    }
    let news = context.store.news(chain_id);
    let left = context.store.undecoded_contracts(chain_id).await?;
    status.send_if_modified(|status| {
        let changed = status.undecoded_contracts != left;
        status.undecoded_contracts = left;
        status.ready &= left == 0;
        changed
    });
    context.store.seen(chain_id, news);
    if left == 0 {
        return Ok(None);
    }
    let has_leaves = |times: &[Vec<i64>], floors: &_| context.leaves.has_leaves(chain_id, times, floors);
    match context.store.decode(&context.claim, *width, has_leaves).await? {
        Decoded::Leaves(range, times, floors) => {
            *width = range.blocks();
            context.leaves.cover_times(chain_id, &times, &floors).await?;
            Ok(Some(0))
        }
        Decoded::Range(range, logs) => {
            *width = next_width(range.blocks(), logs);
            Ok(Some(logs))
        }
        Decoded::Nothing => Ok(None),
    }
}

/// The width after a range of so many blocks with so many logs.
fn next_width(blocks: u64, logs: u64) -> u64 {
    if logs < FEW_LOGS { (blocks * 4).min(MOST_WIDTH) } else { blocks }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;
    use crate::chain::block::BlockRange;
    use crate::store::decode::Undecoded;

    #[test]
    fn a_range_ends_where_something_is_undecoded_and_is_as_wide_as_a_transaction_allows() {
        let contract = Contract { address: Address::ZERO, kind: "k".into(), from: 600, to: None };
        let undecoded = |blocks: &[(u64, u64)]| Undecoded {
            contracts: blocks
                .iter()
                .map(|(first, last)| (contract.clone(), BlockRange { first: *first, last: *last }))
                .collect(),
        };
        for (width, first) in [(1, 1_000), (100, 901), (1_000, 90), (u64::MAX, 90)] {
            assert_eq!(undecoded(&[(500, 1_000), (90, 800)]).range(width), BlockRange { first, last: 1_000 });
        }
        assert_eq!(undecoded(&[(7, 7)]).range(10), BlockRange { first: 7, last: 7 });
        assert_eq!([next_width(100, 10), next_width(100, 5_000), next_width(MOST_WIDTH, 0)], [400, 100, MOST_WIDTH]);
    }
}
