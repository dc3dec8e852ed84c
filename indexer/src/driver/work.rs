//! The machine's actions that take time: each runs until it is done, or its result is unknown.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::newcomers::Newcomers;
use super::trouble::{FIRST_PAUSE, Trouble};
use crate::backoff::Backoff;
use crate::chain::block::BlockRef;
use crate::chain::machine::{Input, Tail};
use crate::chain::reorg::{Fork, fork_point};
use crate::chain::source::Source;
use crate::dataset::Sorted;
use crate::maintenance::Leaves;
use crate::nodes::{NodeError, Nodes};
use crate::status::ChainStatus;
use crate::store::append::Lane;
use crate::store::chain::State;
use crate::store::{Claim, Store, StoreError};
use crate::timings::ChainTimings;

/// The shared parts of one chain's lanes.
#[derive(Clone)]
pub struct Context {
    /// Its nodes.
    pub nodes: Arc<Nodes>,
    /// The database.
    pub store: Store,
    /// The partition manager.
    pub leaves: Arc<Leaves>,
    /// The right to write.
    pub claim: Claim,
    /// The source that the tail follows.
    pub source: Source,
    /// The durations of its fetches and commits.
    pub timings: ChainTimings,
    /// The contracts whose metadata is to be read.
    pub newcomers: Newcomers,
}

/// One write or comparison under way.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<Input, StoreError>> + Send>>;

impl Context {
    pub(super) fn append(&self, batch: Arc<Sorted>, on: Tail, finalized: Option<u64>, trouble: Trouble) -> Work {
        let lane = Lane::Tail { on, finalized };
        let context = self.clone();
        Box::pin(async move {
            let mut backoff = Backoff::new();
            loop {
                match context.append_once(&batch, lane).await {
                    Ok(()) => {
                        trouble.set(None);
                        return Ok(Input::Committed);
                    }
                    // The leaf was dropped or sealed since it was cached: read again.
                    Err(error @ (StoreError::NoLeaf | StoreError::Sealed { .. })) => {
                        context.look_again(&batch, &error).await?;
                        backoff.pause().await;
                    }
                    Err(StoreError::Contracts { .. }) => {
                        if !context.learn_contracts().await? {
                            backoff.pause().await;
                        }
                    }
                    Err(StoreError::Duplicate { why }) => {
                        return explain_duplicate(&context.store, &context.claim, on, why).await;
                    }
                    Err(error) => match lost_or_retry(error, &trouble)? {
                        Some(input) => return Ok(input),
                        None => backoff.pause().await,
                    },
                }
            }
        })
    }

    pub(super) fn unwind(&self, from: Tail, to: Tail, status: watch::Sender<ChainStatus>, trouble: Trouble) -> Work {
        let (store, claim) = (self.store.clone(), self.claim.clone());
        Box::pin(async move {
            let mut backoff = Backoff::new();
            loop {
                match unwind_all(&store, &claim, &status, from, to).await {
                    Ok(()) => return Ok(Input::Unwound),
                    Err(error) => match lost_or_retry(error, &trouble)? {
                        Some(input) => return Ok(input),
                        None => backoff.pause().await,
                    },
                }
            }
        })
    }

    pub(super) fn reload(&self, trouble: Trouble) -> Work {
        let context = self.clone();
        Box::pin(async move {
            let mut backoff = Backoff::new();
            loop {
                context.store.forget_contracts(context.claim.chain_id);
                match context.store.load(&context.claim).await {
                    Ok(state) => {
                        // If this fails, the next batch is refused, and tries again.
                        context.learn_contracts().await?;
                        trouble.set(None);
                        let State { tail, finalized, recent, .. } = state;
                        return Ok(Input::Loaded { tail, finalized, recent });
                    }
                    Err(StoreError::Retry { why }) => trouble.set(Some(why)),
                    Err(error) => return Err(error),
                }
                backoff.pause().await;
            }
        })
    }

    /// Sets the tail to a final block, as told by a node that has the anchor too.
    pub(super) fn jump(&self, from: Tail, to: u64, anchor: BlockRef, trouble: Trouble) -> Work {
        let (store, nodes, claim) = (self.store.clone(), self.nodes.clone(), self.claim.clone());
        Box::pin(async move {
            let header = match nodes.header_below(to, anchor).await {
                Ok(header) => header,
                Err(error) => {
                    trouble.set(Some(error.to_string()));
                    return Ok(Input::NotJumped);
                }
            };
            let mut backoff = Backoff::default();
            loop {
                match store.jump(&claim, from, &header).await {
                    Ok(_commit) => return Ok(Input::Jumped(header.block())),
                    Err(error) => match lost_or_retry(error, &trouble)? {
                        Some(input) => return Ok(input),
                        None => backoff.pause().await,
                    },
                }
            }
        })
    }

    /// `back`: blocks of this chain are removed without a reorg.
    pub(super) fn compare(&self, tail: Tail, floor: u64, anchor: BlockRef, back: bool, trouble: Trouble) -> Work {
        let (store, nodes, claim) = (self.store.clone(), self.nodes.clone(), self.claim.clone());
        Box::pin(async move {
            let mut backoff = Backoff::new();
            loop {
                match find_fork(&store, &nodes, claim.chain_id, tail, floor, anchor, back).await {
                    Ok(fork) => {
                        trouble.set(None);
                        if fork == Fork::Unsure || matches!(fork, Fork::At(block) if Tail::after(block) == tail) {
                            // Two answers disagreed, or the node lags: wait a moment before the next request.
                            sleep(FIRST_PAUSE).await;
                        }
                        return Ok(Input::Compared(fork));
                    }
                    Err(Step::Store(StoreError::Retry { why })) => trouble.set(Some(why)),
                    Err(Step::Store(error)) => return Err(error),
                    Err(Step::Node(error)) => trouble.set(Some(error.to_string())),
                }
                backoff.pause().await;
            }
        })
    }
}

/// Removes the orphaned blocks from the top downwards, a bounded number per transaction. Each transaction leaves a valid prefix.
async fn unwind_all(
    store: &Store,
    claim: &Claim,
    status: &watch::Sender<ChainStatus>,
    mut from: Tail,
    to: Tail,
) -> Result<(), StoreError> {
    while from != to {
        let step = store.step_down(claim, from, to).await?;
        match store.unwind(claim, from, step).await {
            Ok(commit) => {
                let logs = store.logs_of(&commit.touched);
                status.send_modify(|status| {
                    status.reorgs += 1;
                    status.orphaned_logs += logs;
                });
                from = step;
            }
            // A part of it is done: the state row has the present tail.
            Err(StoreError::Retry { why }) => return Err(StoreError::Indeterminate { why }),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Context {
    /// One try to write a batch, with leaves for it.
    pub(super) async fn append_once(&self, batch: &Sorted, lane: Lane) -> Result<(), StoreError> {
        let chain_id = self.claim.chain_id;
        let again = self.store.sort_again(chain_id, batch);
        let batch = again.as_ref().unwrap_or(batch);
        self.leaves.cover(chain_id, batch, &self.store.floors(chain_id)).await?;
        let began = Instant::now();
        self.store.append(&self.claim, batch, lane).await?;
        self.newcomers.saw(batch);
        match lane {
            Lane::Tail { .. } => self.timings.tail.committed(began),
            Lane::Backfill => self.timings.backfill.committed(began),
        }
        Ok(())
    }

    /// The batch by the contracts that are known now: batches before it may have announced some.
    pub(super) fn sorted(&self, batch: Arc<Sorted>) -> Arc<Sorted> {
        self.store.sort_again(self.claim.chain_id, &batch).map_or(batch, Arc::new)
    }

    /// After a write of a batch that was sorted by other contracts than the stored ones; returns whether they are known now. A temporary
    /// failure is left to the next try.
    pub(super) async fn learn_contracts(&self) -> Result<bool, StoreError> {
        match self.store.learn_contracts(&self.claim).await {
            Err(StoreError::Retry { why }) => {
                warn!("{why}");
                Ok(false)
            }
            learned => learned.map(|()| true),
        }
    }

    /// After a write without leaves for its rows: reads the new retention floors, and unseals sealed leaves above the floor. A
    /// temporary failure is left to the next try.
    pub(super) async fn look_again(&self, batch: &Sorted, found: &StoreError) -> Result<(), StoreError> {
        let chain_id = self.claim.chain_id;
        self.leaves.book.forget(chain_id);
        let looked = match self.store.learn_floors(chain_id).await {
            Ok(floors) if matches!(found, StoreError::Sealed { .. }) => {
                self.leaves.unseal(chain_id, batch, &floors).await
            }
            learned => learned.map(drop),
        };
        match looked {
            Err(StoreError::Retry { why }) => {
                warn!("{why}");
                Ok(())
            }
            looked => looked,
        }
    }
}

/// `Some` input if the machine must read the state row; `None` to try again; an error that ends the loop.
fn lost_or_retry(error: StoreError, trouble: &Trouble) -> Result<Option<Input>, StoreError> {
    match error {
        StoreError::Indeterminate { .. } | StoreError::TailMoved { .. } => {
            warn!("{error}");
            Ok(Some(Input::WriteLost))
        }
        StoreError::Retry { why } => {
            warn!("{why}");
            trouble.set(Some(why));
            Ok(None)
        }
        StoreError::NoLeaf | StoreError::Sealed { .. } | StoreError::Contracts { .. } => Ok(None),
        error @ (StoreError::Duplicate { .. }
        | StoreError::OtherBranch { .. }
        | StoreError::Fenced { .. }
        | StoreError::Fatal { .. }) => Err(error),
    }
}

/// An existing key: COPY runs before the fence, so a stale writer may find the rows of the new leader first.
async fn explain_duplicate(store: &Store, claim: &Claim, on: Tail, why: String) -> Result<Input, StoreError> {
    match store.load(claim).await {
        Ok(state) if state.tail == on => {}
        Ok(_) | Err(StoreError::Retry { .. }) => return Ok(Input::WriteLost),
        Err(error) => return Err(error),
    }
    let advice = "the database has rows above the stored tail, and no dalp-indexer writes such rows: find their writer, and remove \
         them";
    Err(StoreError::Fatal { why: format!("{why}; {advice}") })
}

enum Step {
    Store(StoreError),
    Node(NodeError),
}

/// Stored blocks compared with the node's, a page at a time from the tail downwards.
const PAGE: i64 = 64;

async fn find_fork(
    store: &Store,
    nodes: &Nodes,
    chain_id: u64,
    tail: Tail,
    floor: u64,
    anchor: BlockRef,
    back: bool,
) -> Result<Fork, Step> {
    let mut next = tail.next;
    loop {
        let stored = store.blocks_below(chain_id, next, floor, PAGE).await.map_err(Step::Store)?;
        let Some(lowest) = stored.last() else { return Ok(Fork::Below) };
        let mut numbers: Vec<u64> = stored.iter().map(|block| block.number).collect();
        numbers.push(anchor.number);
        let mut node = nodes.hashes(&numbers).await.map_err(Step::Node)?;
        if node.pop().flatten() != Some(anchor.hash) {
            return Ok(Fork::Unsure);
        }
        match fork_point(&stored, &node, back) {
            Fork::Below => next = lowest.number,
            fork => return Ok(fork),
        }
    }
}
