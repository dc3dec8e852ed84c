//! `dalp-indexer verify`: compares the stored rows with the chain, range by range, beside a running indexer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::MultiProgress;
use serde_json::json;
use tokio::time::sleep;
use tracing::{Instrument as _, warn};

use super::again::again;
use super::backfill::{pick, progress};
use super::block::block;
use super::failure::Failure;
use super::grid::Grid;
use crate::chain::batch::BlockBatch;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::coverage::Coverage;
use crate::chain::level::Level;
use crate::chain::range::RangeSizer;
use crate::chain::source::Source;
use crate::chain::verify::{Difference, Entry, Findings, compare};
use crate::cli::out::say;
use crate::config::{Chain, Config};
use crate::nodes::{NodeError, Nodes};
use crate::service;
use crate::spans;
use crate::store::verify::{ExpectedRows, StoredRange};
use crate::store::{Claim, Store, StoreError};

/// The blocks to verify, and the level.
#[derive(Clone, Debug, clap::Args)]
pub struct ScopeArgs {
    /// The chain's name in the configuration [default: all chains]
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// The first block [default: the first stored block]
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    pub from: Option<u64>,
    /// The last block, included [default: the last stored block]
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    pub to: Option<u64>,
    /// Level of proof of the node's answers: returned, linked, bloom or receipts [default: the chain's strongest level]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub level: Option<Level>,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The blocks.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

fn level(word: &str) -> Result<Level, String> {
    Level::parse(word).ok_or_else(|| "it is returned, linked, bloom or receipts".into())
}

/// Verifies and reports.
///
/// # Errors
/// A difference between the database and the chain, and any error that prevents the comparison.
pub async fn run(config: Config, args: VerifyArgs, bars: MultiProgress) -> Result<(), Failure> {
    let store = open_store(&config).await?;
    let mut reports = Vec::new();
    for chain in chains(&config, &args.scope)? {
        let verify = async { Verification::open(chain, &store, &args.scope).await?.run(&bars, true).await };
        let report = verify.instrument(spans::chain(&chain.name)).await?;
        if !args.json {
            say!("{}", report.text())?;
        }
        reports.push(report);
    }
    if args.json {
        let chains: Vec<_> = reports.iter().map(Report::json).collect();
        let text = serde_json::to_string_pretty(&json!({ "chains": chains }));
        say!("{}", text.map_err(|error| Failure::other(error.to_string()))?)?;
    }
    match reports.iter().map(|report| report.findings.rows()).sum() {
        0 => reports.iter().try_for_each(Report::whole),
        rows => {
            Err(Failure::other(format!("{rows} rows differ from the chain; `dalp-indexer repair` fetches them again")))
        }
    }
}

/// The database, checked.
pub(super) async fn open_store(config: &Config) -> Result<Store, Failure> {
    let store = Store::open(config).await.map_err(|error| stored(&error))?;
    store.check().await.map_err(|error| stored(&error))?;
    Ok(store)
}

/// The chains that the scope names.
pub(super) fn chains<'c>(config: &'c Config, scope: &ScopeArgs) -> Result<Vec<&'c Chain>, Failure> {
    if scope.chain.is_none() && config.chains.len() > 1 && scope.from.is_none() && scope.to.is_none() {
        return Ok(config.chains.iter().collect());
    }
    pick(config, scope.chain.as_deref()).map(|chain| vec![chain])
}

fn stored(error: &StoreError) -> Failure {
    Failure::other(error.to_string())
}

/// One chain that is verified.
pub(super) struct Verification<'a> {
    pub chain: &'a Chain,
    pub store: &'a Store,
    pub nodes: Arc<Nodes>,
    pub source: Source,
    pub claim: Claim,
    /// The stored tail at the begin of the verification: a block that the node has too.
    pub anchor: BlockRef,
    pub want: BlockRange,
    /// The level of reading the chain.
    pub level: Level,
}

/// The findings in one range.
pub(super) struct Verified {
    pub differences: Vec<Difference>,
    logs: u64,
    bytes: u64,
    /// Its blocks, one per log, whose time has no partition.
    out_of_time: Vec<u64>,
    /// Its logs below their floor.
    below: u64,
    /// The level of the fetched range, if the range is covered.
    level: Option<Level>,
}

/// The findings in all ranges.
pub(super) struct Report {
    chain: String,
    start_block: u64,
    want: BlockRange,
    level: Level,
    covered: Coverage,
    logs: u64,
    /// Logs that are only in the quarantine, and their blocks.
    out_of_time: (u64, Coverage),
    /// Logs below the retention floors, which are not compared.
    below: u64,
    pub findings: Findings,
}

/// The number of tries at a node before the command gives up: longer than a restart takes.
const TRIES: u32 = 10;
/// The pause before the second try; later pauses are longer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Blocks per step when all receipts are read.
const RECEIPT_STEP: u64 = 64;

impl<'a> Verification<'a> {
    /// Joins the chain, and finds a block that database and node share.
    pub(super) async fn open(chain: &'a Chain, store: &'a Store, scope: &ScopeArgs) -> Result<Self, Failure> {
        if let (Some(from), Some(to)) = (scope.from, scope.to)
            && from > to
        {
            return Err(Failure::usage(format!("--from {from} is above --to {to}")));
        }
        let (nodes, source, claim, anchor) = join(chain, store).await?;
        let coverage = store.coverage(claim.chain_id, &source).await.map_err(|error| stored(&error))?;
        let lowest = coverage.ranges().first().map_or(chain.start_block, |range| range.first);
        let first = scope.from.unwrap_or(lowest);
        let last = scope.to.map_or(anchor.number, |to| to.min(anchor.number));
        let want = BlockRange::new(first, last).ok_or_else(|| {
            Failure::usage(format!("--from {first} is above block {last}, the last stored block of \"{}\"", chain.name))
        })?;
        let best = patiently(|| nodes.best_level()).await?;
        let level = scope.level.unwrap_or(best).min(best);
        Ok(Self { chain, store, nodes, source, claim, anchor, want, level })
    }

    /// Verifies all ranges; with `raise`, correct blocks are recorded with their level of verification.
    pub(super) async fn run(&self, bars: &MultiProgress, raise: bool) -> Result<Report, Failure> {
        let coverage = self.store.coverage(self.claim.chain_id, &self.source).await.map_err(|error| stored(&error))?;
        let mut report = Report {
            chain: self.chain.name.clone(),
            start_block: self.chain.start_block,
            want: self.want,
            level: self.level,
            covered: clip(&coverage, self.want),
            logs: 0,
            out_of_time: (0, Coverage::default()),
            below: 0,
            findings: Findings::default(),
        };
        let bar = bars.add(progress(self.want.blocks()));
        let mut todo = VecDeque::from([self.want]);
        let most = if self.level == Level::Receipts { RECEIPT_STEP } else { self.chain.max_range_blocks };
        let (logs, bytes) = (u64::from(self.chain.batch_rows / 2).max(1), self.chain.fetch_buffer_bytes / 4);
        let mut sizer = RangeSizer::new(self.chain.range_blocks, most, logs, bytes);
        let mut verifying = FuturesUnordered::new();
        loop {
            while verifying.len() < self.chain.fetch_parallelism as usize
                && let Some(range) = take_oldest(&mut todo, sizer.blocks())
            {
                verifying.push(async move { (range, self.verify_twice(range).await) });
            }
            let Some((range, verified)) = verifying.next().await else { break };
            let verified = match verified {
                Ok(verified) => verified,
                Err(Trouble::TooLarge { hint, .. }) if sizer.too_large(range.blocks(), hint) => {
                    todo.push_front(range);
                    continue;
                }
                Err(trouble) => return Err(trouble.failure(range)),
            };
            sizer.fetched(range.blocks(), verified.logs, verified.bytes);
            report.logs += verified.logs - verified.below;
            report.below += verified.below;
            report.set_aside(&verified.out_of_time);
            report.findings.add(&verified.differences);
            if let (Some(level), true, true) = (verified.level, verified.differences.is_empty(), raise) {
                self.raise(range, level).await?;
            }
            bar.inc(range.blocks());
        }
        bar.finish_and_clear();
        Ok(report)
    }

    /// Verifies once more after a difference: the running indexer may have written, or the chain moved, in between.
    async fn verify_twice(&self, range: BlockRange) -> Result<Verified, Trouble> {
        let verified = self.verify(range, self.level).await?;
        if verified.differences.is_empty() {
            return Ok(verified);
        }
        sleep(Duration::from_millis(300)).await;
        self.verify(range, self.level).await
    }

    /// Compares one range.
    pub(super) async fn verify(&self, range: BlockRange, level: Level) -> Result<Verified, Trouble> {
        let stored = self.stored(range).await?;
        if stored.covered_by_any().blocks() == 0 {
            return self.compare(stored, None).await;
        }
        let batch = self.fetch(range, level).await?.retain(|number, log| stored.calls_for(number, log));
        self.compare(stored, Some(&batch)).await
    }

    /// The stored rows of a range.
    pub(super) async fn stored(&self, range: BlockRange) -> Result<StoredRange, StoreError> {
        again(|| self.store.stored(&self.claim, &self.source, range)).await
    }

    /// Compares the stored rows of a range with the chain, if any source covers it; `None`: none does.
    pub(super) async fn compare(&self, stored: StoredRange, chain: Option<&BlockBatch>) -> Result<Verified, Trouble> {
        let Some(batch) = chain else {
            let differences = self.differences(stored, ExpectedRows::default(), true);
            return Ok(Verified { differences, logs: 0, bytes: 0, out_of_time: Vec::new(), below: 0, level: None });
        };
        let covered = stored.covered_by_any();
        let inside = |entry: &Entry| covered.contains(entry.number);
        let mut expected = self.store.expected(self.claim.chain_id, batch, &stored.floors);
        for rows in expected.rows.iter_mut().chain([&mut expected.blocks]) {
            rows.retain(inside);
        }
        let with_logs: BTreeSet<u64> = batch.logs().blocks().map(|block| block.number).collect();
        self.complete(&mut expected, &stored).await?;
        // The coverage decides which other headers are stored: the ends of a range, and each block of the tail.
        let there: BTreeSet<u64> = stored.blocks.iter().map(|entry| entry.number).collect();
        let must = |number| with_logs.contains(&number) || number == self.anchor.number;
        expected.blocks.retain(|entry| there.contains(&entry.number) || must(entry.number));
        let (out_of_time, below) = (std::mem::take(&mut expected.out_of_time), expected.below);
        let differences = self.differences(stored, expected, false);
        let (logs, bytes) = (batch.logs().len() as u64, batch.bytes() as u64);
        Ok(Verified { differences, logs, bytes, out_of_time, below, level: Some(batch.level()) })
    }

    /// Compares table by table. A parent hash that one side lacks is not compared, nor are headers of uncovered blocks: another
    /// source may have stored them.
    fn differences(&self, mut stored: StoredRange, mut expected: ExpectedRows, uncovered: bool) -> Vec<Difference> {
        let (blocks, tables) = self.store.shapes();
        let mut found = Vec::new();
        if !uncovered {
            expected.blocks.sort_unstable();
            for block in &mut stored.blocks {
                let other = expected.blocks.binary_search_by_key(&block.number, |entry| entry.number);
                let Ok(other) = other.map(|at| &mut expected.blocks[at]) else { continue };
                if block.cells[1].is_none() || other.cells[1].is_none() {
                    (block.cells[1], other.cells[1]) = (None, None);
                }
            }
            found.extend(compare(&blocks, expected.blocks, stored.blocks));
        }
        let mut expected = expected.rows.into_iter();
        for (shape, stored) in tables.iter().zip(stored.rows) {
            found.extend(compare(shape, expected.next().unwrap_or_default(), stored));
        }
        found
    }

    /// Adds the hashes of stored blocks, for a range without all headers.
    async fn complete(&self, expected: &mut ExpectedRows, stored: &StoredRange) -> Result<(), Trouble> {
        let known: BTreeSet<u64> = expected.blocks.iter().map(|entry| entry.number).collect();
        let unknown: Vec<&Entry> = stored.blocks.iter().filter(|entry| !known.contains(&entry.number)).collect();
        let numbers: Vec<u64> = unknown.iter().map(|entry| entry.number).collect();
        let hashes = patiently(|| self.nodes.hashes(&numbers)).await?;
        for (entry, hash) in unknown.into_iter().zip(hashes) {
            let mut like = entry.clone();
            like.cells[0] = hash.map(|hash| hash.to_vec());
            expected.blocks.push(like);
        }
        Ok(())
    }

    /// The range at `level`; a temporary failure is retried.
    pub(super) async fn fetch(&self, range: BlockRange, level: Level) -> Result<BlockBatch, Trouble> {
        patiently(|| self.nodes.range_to(&self.source, range, level)).await
    }

    /// Whether the node still has the block of the verification's begin.
    pub(super) async fn stands(&self) -> Result<bool, Trouble> {
        let number = [self.anchor.number];
        let hashes = patiently(|| self.nodes.hashes(&number)).await?;
        Ok(hashes.first().copied().flatten() == Some(self.anchor.hash))
    }

    async fn raise(&self, range: BlockRange, level: Level) -> Result<(), Failure> {
        let outcome = match self.stands().await.map_err(|trouble| trouble.failure(range))? {
            true => self.store.raise(&self.claim, &self.source, range, level, self.anchor).await,
            false => Err(StoreError::TailMoved { chain_id: self.claim.chain_id }),
        };
        match outcome {
            Ok(()) => Ok(()),
            // The compared rows are right all the same; only the record stays unchanged.
            Err(error @ (StoreError::TailMoved { .. } | StoreError::Retry { .. })) => {
                warn!(%range, "the level is not recorded: {error}");
                Ok(())
            }
            Err(error) => Err(stored(&error)),
        }
    }
}

/// Joins the chain and finds its anchor; once more if another process took the chain over meanwhile, which ends the work under
/// the old token.
async fn join(chain: &Chain, store: &Store) -> Result<(Arc<Nodes>, Source, Claim, BlockRef), Failure> {
    let mut tries = 1;
    loop {
        let (nodes, source, claim) = service::join(chain, store).await?;
        match anchor(chain, store, &nodes, &claim).await {
            Ok(anchor) => return Ok((nodes, source, claim, anchor)),
            Err(Trouble::Store(error @ (StoreError::Retry { .. } | StoreError::Fenced { .. }))) if tries < TRIES => {
                warn!("{error}");
            }
            Err(trouble) => return Err(trouble.into()),
        }
        sleep(FIRST_PAUSE * tries).await;
        tries += 1;
    }
}

/// The stored tail, when the node has it too: a running indexer may be in a reorg.
async fn anchor(chain: &Chain, store: &Store, nodes: &Nodes, claim: &Claim) -> Result<BlockRef, Trouble> {
    for _ in 0..TRIES {
        let state = store.load(claim).await?;
        let Some(hash) = state.tail.hash else {
            let why = format!("no block of \"{}\" is stored yet: start `dalp-indexer run` first", chain.name);
            return Err(Trouble::Failed(Failure::other(why)));
        };
        let tail = BlockRef { number: state.tail.next - 1, hash };
        let number = [tail.number];
        let hashes = patiently(|| nodes.hashes(&number)).await?;
        if hashes.first().copied().flatten() == Some(hash) {
            return Ok(tail);
        }
        sleep(Duration::from_millis(300)).await;
    }
    Err(Trouble::Failed(Failure::other(format!(
        "the node does not have the stored tail of \"{}\": the node lags, or a reorg happened; wait until `dalp-indexer \
         run` has caught up, then try again",
        chain.name
    ))))
}

/// Why a range was not compared.
pub(super) enum Trouble {
    /// Ask for less.
    TooLarge {
        why: String,
        hint: Option<u64>,
    },
    Node(NodeError),
    Store(StoreError),
    /// Already reported in full.
    Failed(Failure),
}

impl Trouble {
    pub(super) fn failure(self, range: BlockRange) -> Failure {
        match self {
            Trouble::TooLarge { why, .. } => {
                Failure::other(format!("{range}: {why}; raise chains.*.max_response_bytes, or use another node"))
            }
            Trouble::Node(error) => Failure::other(format!("{range}: {error}")),
            Trouble::Store(error) => Failure::other(format!("{range}: {error}")),
            Trouble::Failed(failure) => failure,
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::TooLarge { why, .. } => Self::other(why),
            Trouble::Node(error) => Self::other(error.to_string()),
            Trouble::Store(error) => Self::other(error.to_string()),
            Trouble::Failed(failure) => failure,
        }
    }
}

/// Retries, at the best node of the moment, a limited number of times.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, NodeError>>,
{
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(NodeError::TooLarge { why, hint, .. }) => return Err(Trouble::TooLarge { why, hint }),
            Err(error) if tries == TRIES => return Err(Trouble::Node(error)),
            Err(error) => warn!("{error}"),
        }
        sleep(pause).await;
        (pause, tries) = ((pause * 2).min(Duration::from_secs(2)), tries + 1);
    }
}

fn clip(coverage: &Coverage, want: BlockRange) -> Coverage {
    let inside = |range: &BlockRange| BlockRange::new(range.first.max(want.first), range.last.min(want.last));
    Coverage::new(coverage.ranges().iter().filter_map(inside))
}

/// Cuts at most `blocks` blocks off the oldest end.
fn take_oldest(todo: &mut VecDeque<BlockRange>, blocks: u64) -> Option<BlockRange> {
    let range = todo.pop_front()?;
    let last = range.last.min(range.first.saturating_add(blocks - 1));
    if let Some(rest) = last.checked_add(1).and_then(|first| BlockRange::new(first, range.last)) {
        todo.push_front(rest);
    }
    Some(BlockRange { first: range.first, last })
}

impl Report {
    /// An incomplete comparison is no success, even if all compared rows agree. Blocks below the chain's first one are not
    /// requested.
    ///
    /// # Errors
    /// Blocks that the source does not cover.
    pub(super) fn whole(&self) -> Result<(), Failure> {
        let wanted = BlockRange::new(self.want.first.max(self.start_block), self.want.last);
        let missing = wanted.map_or(Vec::new(), |wanted| self.covered.gaps(wanted));
        match missing.iter().map(|gap| gap.blocks()).sum::<u64>() {
            0 => Ok(()),
            blocks => Err(Failure::other(format!(
                "{blocks} blocks of \"{}\" are not stored by its present filter, so they were not compared: wait until \
                 `dalp-indexer run` has fetched them (`dalp-indexer status` shows the gap), then verify again",
                self.chain
            ))),
        }
    }

    fn set_aside(&mut self, blocks: &[u64]) {
        let (logs, known) = &mut self.out_of_time;
        *logs += blocks.len() as u64;
        let more = blocks.iter().map(|&number| BlockRange { first: number, last: number });
        *known = Coverage::new(known.ranges().iter().copied().chain(more));
    }

    fn json(&self) -> serde_json::Value {
        let ranges = |blocks: &[BlockRange]| blocks.iter().map(|r| [r.first, r.last]).collect::<Vec<_>>();
        let differences: Vec<_> = self
            .findings
            .iter()
            .map(|(table, kind, rows, blocks)| {
                json!({ "table": &*table.name, "kind": kind.describe(), "rows": rows, "blocks": ranges(blocks.ranges()) })
            })
            .collect();
        json!({
            "chain": self.chain, "from": self.want.first, "to": self.want.last, "level": self.level.as_str(),
            "logs": self.logs, "logs_below_floor": self.below, "covered_blocks": self.covered.blocks(), "gaps": ranges(&self.covered.gaps(self.want)),
            "out_of_time": { "logs": self.out_of_time.0, "blocks": ranges(self.out_of_time.1.ranges()) },
            "differences": differences,
        })
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let (gaps, level) = (self.covered.gaps(self.want), self.level.as_str());
        let mut text = format!(
            "\"{}\", {}: {} logs of {} stored blocks compared with the chain, read at level \"{level}\"",
            self.chain,
            self.want,
            self.logs,
            self.covered.blocks()
        );
        if self.below > 0 {
            text.push_str(&format!("\n{} logs are below the retention floor and were not compared", self.below));
        }
        if !gaps.is_empty() {
            text.push_str(&format!("\nnot stored, so not compared: {}", list(&gaps)));
        }
        if let (logs @ 1.., blocks) = &self.out_of_time {
            text.push_str(&format!(
                "\n{logs} logs are only in dalp_indexed.quarantine: the times of their blocks are more than 100 years \
                 ahead ({})",
                list(blocks.ranges())
            ));
        }
        if self.findings.is_empty() {
            return text + "\nno difference";
        }
        let mut grid = Grid::new(&["table", "difference", "rows", "blocks"]);
        for (table, kind, rows, blocks) in self.findings.iter() {
            grid.add_row([table.name.to_string(), kind.describe(), rows.to_string(), list(blocks.ranges())]);
        }
        format!("{text}\n{grid}")
    }
}

/// Ranges of a list that are printed.
const SHOWN: usize = 20;

fn list(ranges: &[BlockRange]) -> String {
    let shown = ranges.iter().take(SHOWN).map(|range| match range.blocks() {
        1 => range.first.to_string(),
        _ => format!("{}-{}", range.first, range.last),
    });
    let more = ranges.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {more} more (see --json)"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_upwards_and_cover_all() {
        let mut todo = VecDeque::from([BlockRange { first: 3, last: 9 }]);
        let steps: Vec<_> = std::iter::from_fn(|| take_oldest(&mut todo, 3)).map(|r| (r.first, r.last)).collect();
        assert_eq!(steps, [(3, 5), (6, 8), (9, 9)]);
    }

    #[test]
    fn long_lists_are_cut() {
        let ranges: Vec<_> = (0..25).map(|n| BlockRange { first: 10 * n, last: 10 * n + n % 2 }).collect();
        let text = list(&ranges);
        assert!(text.starts_with("0, 10-11, 20, ") && text.ends_with("and 5 more (see --json)"), "{text}");
    }
}
