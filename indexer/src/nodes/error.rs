//! Failures of a node, named for the caller's next move.

use std::time::Duration;

/// Why an answer is unavailable, named for the next move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Ask for less: too many blocks, logs or bytes. With the node's limit in blocks, if the node names one.
    #[error("{node}: {why}")]
    TooLarge {
        /// The node.
        node: String,
        /// Its message, or ours.
        why: String,
        /// The number of blocks that the node suggests for this request, or allows in general; see `Nodes::max_range_blocks` for
        /// the latter.
        hint: Option<u64>,
    },
    /// The node lacks that block: the node lags, or a reorg removed the block. Ask for the head again.
    #[error("{node}: {what} is missing (the node lags, or a reorg removed the block)")]
    Gone {
        /// The node.
        node: String,
        /// The requested object.
        what: String,
    },
    /// Try again, here or at another node: unreachable, overloaded, or an inconsistent answer.
    #[error("{node}: {why}")]
    Retry {
        /// The node.
        node: String,
        /// The failure.
        why: String,
        /// The minimum pause that the node asked for; between 100 ms and a minute.
        after: Option<Duration>,
    },
}

impl NodeError {
    /// The node.
    pub fn node(&self) -> &str {
        match self {
            Self::TooLarge { node, .. } | Self::Gone { node, .. } | Self::Retry { node, .. } => node,
        }
    }
}
