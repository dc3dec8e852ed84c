//! `dalp-indexer redecode`: lets the stored logs of configured contracts be decoded again.

use super::backfill::pick;
use super::failure::Failure;
use crate::cli::out::say;
use crate::config::Config;
use crate::store::{Store, StoreError};

/// Arguments of `redecode`.
#[derive(Clone, Debug, clap::Args)]
pub struct RedecodeArgs {
    /// The chain's name in the configuration; optional if only one chain is configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// Only contracts of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
}

/// Marks the contracts; the indexer that leads their chain decodes their logs.
///
/// # Errors
/// A chain without such contracts, and the errors of the database.
pub async fn run(config: Config, args: RedecodeArgs) -> Result<(), Failure> {
    let chain = pick(&config, args.chain.as_deref())?;
    let other = |error: StoreError| Failure::other(error.to_string());
    let store = Store::open(&config).await.map_err(other)?;
    store.check().await.map_err(other)?;
    if !chain.raw {
        return Err(Failure::usage(format!(
            "chain \"{}\" stores no raw logs (raw = false), so nothing can be decoded again: `dalp-indexer repair` fetches the blocks \
             from the node",
            chain.name
        )));
    }
    match store.mark_undecoded(chain.chain_id, args.kind.as_deref()).await.map_err(other)? {
        0 => {
            let of = args.kind.map_or(String::new(), |kind| format!(" of the kind {kind}"));
            Err(Failure::other(format!(
                "chain \"{}\" has no contract{of} with stored logs: [contracts.NAME] names contracts, and `dalp-indexer run` takes \
                 them up when it starts",
                chain.name
            )))
        }
        contracts => say!(
            "the stored logs of {contracts} contracts of \"{}\" are decoded again by the running indexer; undecoded_contracts in /status \
             tells how many are left",
            chain.name
        ),
    }
}
