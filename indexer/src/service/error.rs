//! Why a deployment does not start, or ended.

use crate::driver::ChainError;
use crate::maintenance::LeavesError;
use crate::nodes::NodeError;
use crate::store::StoreError;

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot be run.
    #[error("{0}")]
    Usage(String),
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The partition manager's connection.
    #[error("{0}")]
    Leaves(#[from] LeavesError),
    /// No node of a chain told which chain it serves.
    #[error("chain \"{chain}\": no RPC answers: {error}. Check chains.{chain}.rpc_urls and that a node runs there")]
    Node {
        /// The chain's name.
        chain: String,
        /// What the last node said.
        error: NodeError,
    },
    /// The node serves another chain than the configuration says.
    #[error(
        "chain \"{chain}\": the node serves chain {found}, but chains.{chain}.chain_id is {configured}: point \
         chains.{chain}.rpc_urls to the right node, or set chain_id to {found} if you want this chain"
    )]
    WrongChain {
        /// The chain's name.
        chain: String,
        /// What the node said.
        found: u64,
        /// What the configuration says.
        configured: u64,
    },
    /// The HTTP address cannot be listened on.
    #[error("http.listen {address}: {error}. Choose another address or port, or \"off\"")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A chain ended.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

impl ServiceError {
    /// Whether waiting mends nothing: the configuration, or what is stored, must change.
    pub(super) fn is_for_the_operator(&self) -> bool {
        match self {
            Self::Usage(_) | Self::WrongChain { .. } | Self::Listen { .. } => true,
            Self::Store(error) => matches!(error, StoreError::Fatal { .. }),
            Self::Leaves(error) => matches!(error, LeavesError::Role { .. }),
            Self::Node { .. } | Self::Chain(_) => false,
        }
    }
}
