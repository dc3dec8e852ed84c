//! `dalp-indexer backfill`.

use super::Failure;
use crate::config::Config;

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

/// Runs the command.
pub async fn run(_config: Config, _args: BackfillArgs) -> Result<(), Failure> {
    Err(Failure::other("backfill: not built in this branch"))
}
