//! Carries out the actions of the backfill lane: fetches each piece, commits it alone and reports it.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::fetch::sizer;
use super::trouble::{FIRST_PAUSE, Patience, Trouble};
use super::work::Context;
use crate::backoff::Backoff;
use crate::chain::backfill::{Backfill, BackfillAction, BackfillFailure, BackfillInput, Piece, PieceId};
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::range::RangeSizer;
use crate::config::Chain;
use crate::dataset::Sorted;
use crate::dataset::untyped::Untyped;
use crate::nodes::{Hold, NodeError};
use crate::store::append::Lane;
use crate::store::history::Missing;
use crate::store::{StoreError, timestamp};
use crate::task::{Group, Lost};

/// A chain's backfill lane under way. Dropping it loses nothing: an uncommitted block is missing, and found again.
pub struct BackfillLane {
    context: Context,
    /// Blocks to fetch; from the first block to the tail unless a command gives a range.
    want: Option<BlockRange>,
    lane: Backfill,
    sizer: RangeSizer,
    tasks: Group<Job, Result<Done, StoreError>>,
    anchor: Option<BlockRef>,
    trouble: Trouble,
    patience: Patience,
    /// Whether the missing ranges were ever read.
    known: bool,
    logs: u64,
    untyped: Untyped,
}

/// The work of a task of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Load,
    Piece(PieceId, BlockRange),
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Load => f.write_str("history: reading the missing ranges"),
            Self::Piece(_, range) => write!(f, "history: {range}"),
        }
    }
}

enum Done {
    Loaded(Missing),
    Committed { id: PieceId, range: BlockRange, answered: u64, stored: u64, bytes: u64, untyped: Untyped },
    Failed { id: PieceId, failure: BackfillFailure },
}

impl BackfillLane {
    /// The lane of a chain, which begins with [`BackfillInput::Moved`].
    pub fn new(chain: &Chain, context: Context, want: Option<BlockRange>) -> Self {
        let sizer = sizer(chain);
        let lane = Backfill::new(chain.backfill_order, chain.backfill_workers as usize, sizer.clone());
        let trouble = Trouble::default();
        Self {
            context,
            want,
            lane,
            sizer,
            tasks: Group::default(),
            anchor: None,
            trouble,
            patience: Patience::new(),
            known: false,
            logs: 0,
            untyped: Untyped::default(),
        }
    }

    /// Blocks that are missing, under way or not.
    pub fn missing_blocks(&self) -> u64 {
        self.lane.missing_blocks()
    }

    /// The lowest missing block.
    pub fn first_missing(&self) -> Option<u64> {
        self.lane.first_missing()
    }

    /// Whether what is missing is known.
    pub fn is_loaded(&self) -> bool {
        self.lane.is_loaded()
    }

    /// Whether the missing ranges were read, and are not being read again: only then an empty list means that no block is
    /// missing.
    pub fn knows(&self) -> bool {
        self.known && self.lane.is_loaded()
    }

    /// Whether no task is under way and none can begin now.
    pub fn is_idle(&self) -> bool {
        self.lane.is_idle()
    }

    /// Logs stored so far.
    pub fn logs(&self) -> u64 {
        self.logs
    }

    /// Its logs without a typed table since the last call.
    pub fn take_untyped(&mut self) -> Untyped {
        std::mem::take(&mut self.untyped)
    }

    /// Reads the missing ranges again, if blocks that became final since can be fetched.
    pub fn go_on(&mut self, settled: Option<u64>) {
        if settled.is_some_and(|settled| self.lane.could_go_on(settled)) {
            self.step(BackfillInput::Moved);
        }
    }

    /// Checks that a task works on everything that the lane waits for.
    ///
    /// # Errors
    /// The first item without a task.
    pub fn check(&self) -> Result<(), Lost> {
        let load = (!self.lane.is_loaded()).then_some(Job::Load);
        let mut jobs = load.into_iter().chain(self.lane.running().map(|(id, range)| Job::Piece(id, range)));
        jobs.find(|job| !self.tasks.has(job)).map_or(Ok(()), |job| Err(Lost::nobody_is_at(job)))
    }

    /// The present failure, in words.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }

    /// Takes one input and begins its actions.
    pub fn step(&mut self, input: BackfillInput) {
        self.lane.limit_range(self.context.nodes.max_range_blocks());
        for action in self.lane.step(input) {
            match action {
                BackfillAction::Load => {
                    let loading = load(self.context.clone(), self.want, self.trouble.clone());
                    self.tasks.spawn(Job::Load, loading);
                }
                BackfillAction::Begin { id, piece } => {
                    let (context, trouble) = (self.context.clone(), self.trouble.clone());
                    let (sizer, anchor) = (self.sizer.clone(), self.anchor);
                    let patience = self.patience.clone();
                    let job = Job::Piece(id, piece.range);
                    let task = PieceTask { context, anchor, trouble, patience, sizer, id, piece };
                    self.tasks.spawn(job, task.run());
                }
                BackfillAction::TooLarge { number } => self.trouble.set(Some(format!(
                    "block {number} alone exceeds the node's or our response limit; raise `max_response_bytes` or use \
                     another node, and restart"
                ))),
            }
        }
    }

    /// Waits for the next event, and handles it. Returns the blocks that it committed; pending while no task is under way.
    /// Cancel-safe.
    ///
    /// # Errors
    /// A failure that no retry mends.
    pub async fn next(&mut self) -> Result<u64, StoreError> {
        let (job, done) = self.tasks.next().await;
        let done = done.map_err(|lost| StoreError::Fatal { why: format!("{job}: {lost}") })??;
        let mut blocks = 0;
        let input = match done {
            Done::Loaded(missing) => {
                self.anchor = missing.anchor;
                self.known = true;
                BackfillInput::Loaded { pieces: missing.pieces, settled: missing.anchor.map(|block| block.number) }
            }
            Done::Committed { id, range, answered, stored, bytes, untyped } => {
                self.untyped.add(&untyped);
                self.logs += stored;
                self.patience.renew();
                blocks = range.blocks();
                self.trouble.set(None);
                BackfillInput::Committed { id, logs: answered, bytes }
            }
            Done::Failed { id, failure } => BackfillInput::Failed { id, failure },
        };
        self.step(input);
        Ok(blocks)
    }
}

async fn load(context: Context, want: Option<BlockRange>, trouble: Trouble) -> Result<Done, StoreError> {
    let mut backoff = Backoff::default();
    loop {
        match context.store.missing(&context.claim, &context.source, want).await {
            Ok(missing) => {
                tell_lowest(&context, &missing).await;
                return Ok(Done::Loaded(missing));
            }
            Err(StoreError::Retry { why }) => trouble.set(Some(why)),
            Err(error) => return Err(error),
        }
        backoff.pause().await;
    }
}

/// Tells the partition manager how far down history goes. Without this, it makes leaves one by one.
async fn tell_lowest(context: &Context, missing: &Missing) {
    let (Some(piece), Some(anchor)) = (missing.pieces.first(), missing.anchor) else { return };
    match context.nodes.header_below(piece.range.first, anchor).await {
        Ok(header) => {
            if let Some(time) = timestamp(header.time) {
                context.leaves.book.load_from(context.claim.chain_id, time);
            }
        }
        Err(error) => debug!(%error, "the time of the lowest missing block is unknown"),
    }
}

/// One piece under way.
struct PieceTask {
    context: Context,
    anchor: Option<BlockRef>,
    trouble: Trouble,
    patience: Patience,
    sizer: RangeSizer,
    id: PieceId,
    piece: Piece,
}

impl PieceTask {
    async fn run(self) -> Result<Done, StoreError> {
        let (id, range) = (self.id, self.piece.range);
        let failed = |failure| Ok(Done::Failed { id, failure });
        // Held until the commit: for any number of workers, the bytes held together are bounded.
        let (batch, _hold) = match self.fetch().await {
            Ok(fetched) => fetched,
            Err(failure) => return failed(failure),
        };
        let (answered, bytes) = (batch.logs().len() as u64, batch.bytes() as u64);
        if self.sizer.is_excessive(range.blocks(), answered, bytes) {
            return failed(BackfillFailure::TooLarge { hint: None });
        }
        let stored = &self.piece.stored;
        let batch = match stored[..] {
            [] => batch,
            _ => batch.retain(|_, log| !stored.iter().any(|source| source.filter().selects(log))),
        };
        let batch = self.context.store.sort(self.context.claim.chain_id, batch);
        match self.commit(&batch).await? {
            None => {
                let (stored, untyped) = (batch.logs().len() as u64, batch.untyped().clone());
                Ok(Done::Committed { id, range, answered, stored, bytes, untyped })
            }
            Some(failure) => failed(failure),
        }
    }

    /// Fetches until there is a batch or a reason to ask for another range.
    async fn fetch(&self) -> Result<(BlockBatch, Arc<Hold>), BackfillFailure> {
        let nodes = &self.context.nodes;
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let (answer, hold) = nodes.kept(self.answer()).await;
            let error = match answer {
                Ok(batch) => {
                    self.context.timings.backfill.fetched(began);
                    return Ok((batch, hold));
                }
                Err(error) => error,
            };
            // The memory of a failed answer is released before the pause.
            drop(hold);
            match &error {
                NodeError::TooLarge { hint, .. } => {
                    info!("{error}; asking for less");
                    return Err(BackfillFailure::TooLarge { hint: *hint });
                }
                NodeError::Gone { .. } => {
                    self.trouble.set(Some(error.to_string()));
                    self.patience.wait().await;
                    return Err(BackfillFailure::Gone);
                }
                NodeError::Retry { after, .. } => {
                    self.trouble.set(Some(error.to_string()));
                    if !nodes.moves_on(&error) {
                        backoff.pause_at_least(*after).await;
                    }
                }
            }
        }
    }

    /// The piece, from the chain of our final block: a node stuck on a lost branch serves another chain at the same heights.
    async fn answer(&self) -> Result<BlockBatch, NodeError> {
        let batch = self.context.nodes.range(&self.piece.source, self.piece.range).await?;
        let last = batch.last();
        if let Some(anchor) = self.anchor
            && self.context.nodes.header_below(last.number, anchor).await?.hash != last.hash
        {
            let what = format!("block {} below the final block {anchor}", last.block());
            return Err(NodeError::Gone { node: "a node".into(), what });
        }
        Ok(batch)
    }

    /// `None` when the batch is committed; otherwise the reason why another request must decide.
    async fn commit(&self, batch: &Sorted) -> Result<Option<BackfillFailure>, StoreError> {
        let mut backoff = Backoff::default();
        loop {
            match self.context.append_once(batch, Lane::Backfill).await {
                Ok(()) => return Ok(None),
                Err(error @ (StoreError::NoLeaf | StoreError::Sealed { .. })) => {
                    self.context.look_again(batch, &error).await?;
                }
                Err(StoreError::Retry { why }) => {
                    warn!("{why}");
                    self.trouble.set(Some(why));
                }
                Err(StoreError::Contracts { .. }) => {
                    if self.context.learn_contracts().await? {
                        continue;
                    }
                }
                Err(error @ (StoreError::TailMoved { .. } | StoreError::Indeterminate { .. })) => {
                    warn!(range = %batch.range(), "{error}");
                    return Ok(Some(BackfillFailure::Lost));
                }
                Err(error @ StoreError::OtherBranch { .. }) => {
                    warn!("{error}");
                    self.trouble.set(Some(error.to_string()));
                    self.patience.wait().await;
                    return Ok(Some(BackfillFailure::Gone));
                }
                Err(StoreError::Duplicate { why }) => {
                    // Another process was faster with these blocks, and the coverage will show it; or the table has rows without
                    // coverage.
                    self.trouble.set(Some(format!(
                        "{}: {why}; if this repeats, the database has rows without coverage: run `dalp-indexer repair`",
                        batch.range()
                    )));
                    sleep(FIRST_PAUSE * 20).await;
                    return Ok(Some(BackfillFailure::Lost));
                }
                Err(error) => return Err(error),
            }
            backoff.pause().await;
        }
    }
}
