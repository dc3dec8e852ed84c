//! `dalp-indexer reindex`: removes stored blocks from a block upwards, final or not, so that they are read again.

use indicatif::MultiProgress;
use tracing::Instrument as _;

use super::again::again;
use super::backfill::{pick, progress};
use super::block::block;
use super::failure::Failure;
use crate::chain::machine::Tail;
use crate::cli::out::say;
use crate::config::{Chain, Config};
use crate::spans;
use crate::store::reset::Seized;
use crate::store::{Store, StoreError};

/// Arguments of `reindex`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReindexArgs {
    /// The chain's name in the configuration; optional if only one chain is configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// The first block to read again
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true, value_parser = block)]
    pub from: u64,
    /// Confirm: without this flag, only the blocks to remove are named, and the exit code is 2
    #[arg(long)]
    pub yes: bool,
}

/// Removes the blocks in steps, newest first; each step leaves a valid prefix of the chain. A running indexer of this chain loses
/// its right to write first, and may continue afterwards.
///
/// # Errors
/// A chain that is not stored, and any error that ends the work; removed blocks stay removed.
pub async fn run(config: Config, args: ReindexArgs, bars: MultiProgress) -> Result<(), Failure> {
    let chain = pick(&config, args.chain.as_deref())?;
    remove(&config, chain, &args, &bars).instrument(spans::chain(&chain.name)).await
}

async fn remove(config: &Config, chain: &Chain, args: &ReindexArgs, bars: &MultiProgress) -> Result<(), Failure> {
    let other = |error: StoreError| Failure::other(error.to_string());
    let store = Store::open(config).await.map_err(other)?;
    store.check().await.map_err(other)?;
    if !args.yes {
        return Err(Failure::usage(format!(
            "nothing was removed. With --yes, this command removes every stored block of \"{}\" from {} upwards, and \
             `dalp-indexer run` reads them again",
            chain.name, args.from
        )));
    }
    let nothing = || Failure::other(format!("no block of \"{}\" (chain {}) is stored", chain.name, chain.chain_id));
    let seized = again(|| store.seize(chain.chain_id)).await.map_err(other)?.ok_or_else(nothing)?;
    let to = store.tail_below(&seized, args.from).await.map_err(other)?;
    let Seized { claim, mut tail, .. } = seized;
    if to.next >= tail.next {
        store.let_go(&claim).await.map_err(other)?;
        say!("\"{}\" is stored only up to block {}; nothing to remove", chain.name, tail.next.saturating_sub(1))?;
        return Ok(());
    }
    let blocks = tail.next - to.next;
    let bar = bars.add(progress(blocks));
    while tail != to {
        let step: Tail = again(|| store.clear_down(&claim, tail, to)).await.map_err(other)?;
        bar.inc(tail.next - step.next);
        tail = step;
    }
    store.let_go(&claim).await.map_err(other)?;
    bar.finish_and_clear();
    say!(
        "removed blocks {} to {} of \"{}\"; `dalp-indexer run` reads them again",
        to.next,
        to.next + blocks - 1,
        chain.name
    )?;
    Ok(())
}
