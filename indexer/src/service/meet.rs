//! The first contact with a chain: its nodes report the chain, and the store registers the process.

use std::sync::Arc;

use super::error::ServiceError;
use crate::chain::filter::Filter;
use crate::chain::source::Source;
use crate::config::{Chain, Finality};
use crate::nodes::{Identity, Nodes};
use crate::store::{Claim, NewChain, Store};

/// Asks the nodes for their chain, and describes it for the store.
///
/// # Errors
/// [`ServiceError::Node`], [`ServiceError::WrongChain`].
pub async fn meet(chain: &Chain) -> Result<(Arc<Nodes>, NewChain), ServiceError> {
    let node = |error| ServiceError::Node { chain: chain.name.clone(), error };
    let nodes = Arc::new(Nodes::new(chain).map_err(node)?);
    let Identity { chain_id, genesis } = nodes.identity().await.map_err(node)?;
    if chain_id != chain.chain_id {
        let (name, configured) = (chain.name.clone(), chain.chain_id);
        return Err(ServiceError::WrongChain { chain: name, found: chain_id, configured });
    }
    let new = NewChain {
        chain_id,
        name: chain.name.clone(),
        genesis,
        start_block: chain.start_block,
        source: source(chain),
        finality: chain.finality != Finality::Never,
        reset: chain.reset_on_chain_change,
    };
    Ok((nodes, new))
}

/// The source that a chain's configuration describes.
pub fn source(chain: &Chain) -> Source {
    let mut filter = Filter { addresses: chain.addresses.clone(), topics: chain.topics.clone(), raw: chain.raw };
    if !filter.raw && filter.topics.is_empty() {
        // Nothing else would make a row.
        filter.topics = chain.datasets.topics();
    }
    Source::new(filter)
}

/// Registers with a chain for a backfill beside a running writer.
///
/// # Errors
/// As [`meet`], and the errors of the store.
pub async fn join(chain: &Chain, store: &Store) -> Result<(Arc<Nodes>, Source, Claim), ServiceError> {
    let (nodes, new) = meet(chain).await?;
    nodes.remember(&store.nodes(chain.chain_id).await?);
    let claim = store.join(&new).await?;
    Ok((nodes, new.source, claim))
}
