//! `dalp-indexer backfill`: final blocks below the start block or the tail, beside a running indexer.

use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::Instrument as _;

use super::block::block;
use super::failure::Failure;
use crate::chain::backfill::BackfillInput;
use crate::chain::block::BlockRange;
use crate::cli::out::say;
use crate::config::{Chain, Config};
use crate::driver::{BackfillLane, Context, Newcomers};
use crate::maintenance::Leaves;
use crate::service;
use crate::spans;
use crate::store::{Claim, Store, StoreError};
use crate::timings::Timings;

/// Arguments of `backfill`.
#[derive(Clone, Debug, clap::Args)]
pub struct BackfillArgs {
    /// The chain's name in the configuration; optional if only one chain is configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// The first block
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    pub from: u64,
    /// The last block, which is indexed too
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    pub to: u64,
}

/// Fetches the missing part of the range and commits it beside a running indexer.
///
/// # Errors
/// A range that is not final or above the tail, and any error that ends the work; committed blocks stay.
pub async fn run(config: Config, args: BackfillArgs, bars: MultiProgress) -> Result<(), Failure> {
    let chain = pick(&config, args.chain.as_deref())?;
    backfill(&config, chain, &args, &bars).instrument(spans::chain(&chain.name)).await
}

async fn backfill(config: &Config, chain: &Chain, args: &BackfillArgs, bars: &MultiProgress) -> Result<(), Failure> {
    let other = |error: StoreError| Failure::other(error.to_string());
    let want = BlockRange::new(args.from, args.to)
        .ok_or_else(|| Failure::usage(format!("--from {} is above --to {}", args.from, args.to)))?;
    let store = Store::open(config).await.map_err(other)?;
    store.check().await.map_err(other)?;
    let (nodes, source, mut claim) = service::join(chain, &store).await?;
    refuse_unfinal(&store, &claim, chain, want).await?;
    store.learn_contracts(&claim).await.map_err(other)?;
    let leaves = Arc::new(Leaves::open(config).await.map_err(service::ServiceError::from)?);
    let mut bar: Option<ProgressBar> = None;
    let mut logs = 0;
    // No scraper reads a command.
    let timings = Timings::default().of_chain(&chain.name);
    loop {
        let context = Context {
            nodes: nodes.clone(),
            store: store.clone(),
            leaves: leaves.clone(),
            claim,
            source: source.clone(),
            timings: timings.clone(),
            // The running indexer finds the tokens of the newest stored transfers at its next start.
            newcomers: Newcomers::default(),
        };
        let mut lane = BackfillLane::new(chain, context, Some(want));
        lane.step(BackfillInput::Moved);
        let outcome = finish(&mut lane, bars, &mut bar).await;
        logs += lane.logs();
        match outcome {
            Ok(()) => break,
            // The running indexer was restarted, or another one took over: continue under its token.
            Err(StoreError::Fenced { .. }) => claim = service::join(chain, &store).await?.2,
            Err(error) => return Err(other(error)),
        }
    }
    match bar {
        None => say!("{want} of \"{}\" is already stored; nothing to do", chain.name)?,
        Some(bar) => {
            let blocks = bar.length().unwrap_or(0);
            bar.finish_and_clear();
            say!("backfilled {blocks} blocks of \"{}\" with {logs} logs", chain.name)?;
        }
    }
    Ok(())
}

/// Continues until no block is missing; the bar appears when the number of missing blocks is known.
async fn finish(
    lane: &mut BackfillLane,
    bars: &MultiProgress,
    bar: &mut Option<ProgressBar>,
) -> Result<(), StoreError> {
    let mut told = None;
    while !lane.is_idle() {
        let blocks = lane.next().await?;
        if bar.is_none() && lane.missing_blocks() > 0 {
            *bar = Some(bars.add(progress(lane.missing_blocks())));
        }
        if let Some(bar) = bar {
            bar.inc(blocks);
            let trouble = lane.trouble();
            if trouble != told {
                bar.set_message(trouble.clone().unwrap_or_default());
                told = trouble;
            }
        }
    }
    match lane.missing_blocks() {
        0 => Ok(()),
        // The rest is unavailable, such as a block that is too large.
        _ => Err(StoreError::Fatal { why: lane.trouble().unwrap_or_default() }),
    }
}

/// The chosen chain.
///
/// # Errors
/// With the option to type, if the choice is unclear.
pub(super) fn pick<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Chain, Failure> {
    let names = || config.chains.iter().map(|chain| chain.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, &config.chains[..]) {
        (Some(name), chains) => chains
            .iter()
            .find(|chain| chain.name == name)
            .ok_or_else(|| Failure::usage(format!("there is no chain \"{name}\"; configured: {}", names()))),
        (None, [chain]) => Ok(chain),
        (None, []) => Err(Failure::usage("no chain is configured: see `dalp-indexer config example`")),
        (None, _) => {
            Err(Failure::usage(format!("several chains are configured; choose one with --chain: {}", names())))
        }
    }
}

/// The backfill lane is for blocks that cannot be reorganised, below the chain's indexed start.
async fn refuse_unfinal(store: &Store, claim: &Claim, chain: &Chain, want: BlockRange) -> Result<(), Failure> {
    let state = store.load(claim).await.map_err(|error| Failure::other(error.to_string()))?;
    if want.last < chain.start_block || state.finalized.is_some_and(|finalized| want.last <= finalized) {
        return match state.finalized {
            Some(_) => Ok(()),
            None => Err(Failure::other(format!(
                "no block of \"{}\" is known to be final (finality {:?}): start `dalp-indexer run` first; with finality \
                 \"never\" there is no backfill: to get these blocks, index the chain into a new database with a lower \
                 start_block",
                chain.name, chain.finality
            ))),
        };
    }
    Err(Failure::usage(format!(
        "block {} of \"{}\" is not final, or not indexed yet (final: {}); `dalp-indexer run` indexes from start_block {} \
         upwards automatically",
        want.last,
        chain.name,
        state.finalized.map_or("none".into(), |number| number.to_string()),
        chain.start_block
    )))
}

/// A bar over blocks.
pub(super) fn progress(blocks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} blocks, {per_sec}, {eta} left {msg}");
    ProgressBar::new(blocks).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
