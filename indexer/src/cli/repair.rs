//! `dalp-indexer repair`: verify, then replace the rows of exactly the blocks that differ.

use std::time::Duration;

use indicatif::MultiProgress;
use tokio::time::sleep;
use tracing::{Instrument as _, info, warn};

use super::failure::Failure;
use super::verify::{ScopeArgs, Verification, chains, open_store};
use crate::chain::block::BlockRange;
use crate::chain::level::Level;
use crate::cli::out::say;
use crate::config::Config;
use crate::maintenance::Leaves;
use crate::service;
use crate::spans;
use crate::store::StoreError;
use crate::store::repair::Replacement;

/// Arguments of `repair`.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// The blocks.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Name the blocks to replace, and replace nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Verifies, repairs the differences, and verifies again.
///
/// # Errors
/// Any error that keeps a range from being replaced; the ranges before it are repaired.
pub async fn run(config: Config, args: RepairArgs, bars: MultiProgress) -> Result<(), Failure> {
    let store = open_store(&config).await?;
    let mut missing = Ok(());
    let leaves = Leaves::open(&config).await.map_err(service::ServiceError::from)?;
    for chain in chains(&config, &args.scope)? {
        let span = spans::chain(&chain.name);
        let verification = Verification::open(chain, &store, &args.scope).instrument(span.clone()).await?;
        let report = verification.run(&bars, !args.dry_run).instrument(span.clone()).await?;
        say!("{}", report.text())?;
        let broken = report.findings.blocks();
        if args.dry_run || broken.blocks() == 0 {
            missing = missing.and(report.whole());
            continue;
        }
        let mut repair = Repair { verification, leaves: &leaves, scope: &args.scope };
        for range in broken.ranges() {
            repair.mend(*range).instrument(span.clone()).await?;
        }
        say!("repaired {} blocks of \"{}\"", broken.blocks(), chain.name)?;
        missing = missing.and(report.whole());
    }
    missing
}

struct Repair<'r> {
    /// The writer's token, the tail and the node's chain at the last interruption.
    verification: Verification<'r>,
    leaves: &'r Leaves,
    scope: &'r ScopeArgs,
}

/// Most blocks replaced in one transaction.
const BLOCKS_AT_ONCE: u64 = 32;
/// Attempts per range: the writer may restart, or the chain may move, during the repair.
const TRIES: u32 = 10;

impl Repair<'_> {
    /// Replaces a range in pieces, and halves a piece that is too large to fetch.
    async fn mend(&mut self, range: BlockRange) -> Result<(), Failure> {
        let mut todo = vec![range];
        while let Some(range) = todo.pop() {
            if range.blocks() > BLOCKS_AT_ONCE {
                let cut = range.first + BLOCKS_AT_ONCE - 1;
                todo.extend(BlockRange::new(cut + 1, range.last));
                todo.extend(BlockRange::new(range.first, cut));
                continue;
            }
            self.replace(range).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, range: BlockRange) -> Result<(), Failure> {
        for _ in 0..TRIES {
            match self.replace_once(range).await {
                Ok(()) => {
                    info!(%range, "repaired");
                    return Ok(());
                }
                Err(Step::Failed(failure)) => return Err(failure),
                Err(Step::Again(why)) => warn!(%range, "not repaired yet: {why}"),
            }
            sleep(Duration::from_millis(300)).await;
            let (chain, store) = (self.verification.chain, self.verification.store);
            self.verification = Verification::open(chain, store, self.scope).await?;
        }
        Err(Failure::other(format!(
            "{range} of \"{}\" still differs from the chain after {TRIES} attempts: see the warnings above, and run \
             `dalp-indexer verify`",
            self.verification.chain.name
        )))
    }

    async fn replace_once(&self, range: BlockRange) -> Result<(), Step> {
        let verification = &self.verification;
        if range.last > verification.anchor.number {
            return Err(Step::Again("it is above the tail now".into()));
        }
        let stored = verification.stored(range).await.map_err(Step::of)?;
        let covered = stored.covered_by_any();
        for part in covered.ranges() {
            // Fetches every header: each block of the tail must be stored again.
            let fetched = verification.fetch(*part, verification.level.max(Level::Linked)).await;
            let batch = fetched.map_err(|trouble| Step::Failed(trouble.failure(*part)))?;
            let batch = batch.retain(|number, log| stored.calls_for(number, log));
            // The node took its time, and the indexer beside us finds contracts.
            verification.store.learn_contracts(&verification.claim).await.map_err(Step::of)?;
            let batch = verification.store.sort(verification.claim.chain_id, batch);
            self.leaves.cover(verification.claim.chain_id, &batch, &stored.floors).await.map_err(Step::of)?;
            self.write(Replacement::Batch(&batch), &stored.foreign).await?;
        }
        for gap in covered.gaps(range) {
            self.write(Replacement::Nothing(gap), &stored.foreign).await?;
        }
        Ok(())
    }

    /// Writes, and reads back: the stored rows equal the fetched ones, so the chain is not asked a second time.
    async fn write(&self, replacement: Replacement<'_>, foreign: &[(i64, i32)]) -> Result<(), Step> {
        let verification = &self.verification;
        if !verification.stands().await.map_err(|trouble| Step::Failed(trouble.into()))? {
            return Err(Step::Again("a reorg happened meanwhile".into()));
        }
        match verification.store.repair(&verification.claim, replacement, foreign, verification.anchor).await {
            Err(error @ (StoreError::NoLeaf | StoreError::Sealed { .. })) => {
                self.leaves.book.forget(verification.claim.chain_id);
                let floors = verification.store.learn_floors(verification.claim.chain_id).await.map_err(Step::of)?;
                if let (StoreError::Sealed { .. }, Replacement::Batch(batch)) = (&error, replacement) {
                    self.leaves.unseal(verification.claim.chain_id, batch, &floors).await.map_err(Step::of)?;
                }
                return Err(Step::Again(format!("a partition was dropped or sealed: {error}")));
            }
            other => drop(other.map_err(Step::of)?),
        }
        let stored = verification.stored(replacement.range()).await.map_err(Step::of)?;
        let verified = verification
            .compare(stored, replacement.batch().map(|batch| &**batch))
            .await
            .map_err(|trouble| Step::Failed(trouble.into()))?;
        match verified.differences.len() {
            0 => Ok(()),
            rows => Err(Step::Again(format!("{rows} of its rows still differ: another program writes there"))),
        }
    }
}

/// Why one attempt did not repair.
enum Step {
    Again(String),
    Failed(Failure),
}

impl Step {
    /// By the next move of the store's error.
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::Fatal { .. } => Self::Failed(Failure::other(error.to_string())),
            other => Self::Again(other.to_string()),
        }
    }
}
