//! Why a deployment did not start, or ended.

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
    /// No node of a chain reported its chain.
    #[error("chain \"{chain}\": no RPC answers: {error}. Check chains.{chain}.rpc_urls and that a node runs there")]
    Node {
        /// The chain's name.
        chain: String,
        /// The last node's message.
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
        /// The chain of the node.
        found: u64,
        /// The chain in the configuration.
        configured: u64,
    },
    /// The HTTP address cannot be used.
    #[error("http.listen {address}: {error}. Choose another address or port, or \"off\"")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The reason.
        error: std::io::Error,
    },
    /// A chain ended.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

impl ServiceError {
    /// Whether waiting is useless: the configuration, or the stored data, must change.
    pub(super) fn is_for_the_operator(&self) -> bool {
        match self {
            Self::Usage(_) | Self::WrongChain { .. } | Self::Listen { .. } => true,
            Self::Store(error) => matches!(error, StoreError::Fatal { .. }),
            Self::Leaves(error) => matches!(error, LeavesError::Role { .. }),
            Self::Node { .. } | Self::Chain(_) => false,
        }
    }
}
