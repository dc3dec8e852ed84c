//! `dalp-indexer status`.

use super::Failure;
use crate::config::Config;

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub async fn run(_config: Config, _args: StatusArgs) -> Result<(), Failure> {
    Err(Failure::other("status: not built in this branch"))
}
