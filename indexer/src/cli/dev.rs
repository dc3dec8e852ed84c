//! `dalp-indexer dev`.

use indicatif::MultiProgress;

use super::Failure;

/// Arguments of `dev`.
#[derive(Clone, Debug, clap::Args)]
pub struct DevArgs {
    /// Forget the chain and database of earlier runs
    #[arg(long)]
    pub fresh: bool,
    /// Index this node instead of starting Anvil
    #[arg(long, value_name = "URL")]
    pub rpc_url: Option<String>,
    /// Use this database instead of starting PostgreSQL
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// Runs the command.
pub async fn run(_args: DevArgs, _bars: MultiProgress) -> Result<(), Failure> {
    Err(Failure::other("dev: not built in this branch"))
}
