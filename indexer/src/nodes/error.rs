//! What keeps a node from answering, named for the caller's next move.

use std::time::Duration;

/// Why an answer could not be had, named for what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Ask for less: too many blocks, logs or bytes. With the node's limit in blocks, where it names one.
    #[error("{node}: {why}")]
    TooLarge {
        /// Which node.
        node: String,
        /// Its words, or ours.
        why: String,
        /// Blocks that it says would work for these, or allows at all; see `Nodes::max_range_blocks` for the latter.
        hint: Option<u64>,
    },
    /// The node does not have that block: it lags, or the block was reorganised away. Look at the head again.
    #[error("{node}: {what} is missing (the node lags, or a reorg removed the block)")]
    Gone {
        /// Which node.
        node: String,
        /// What was asked for.
        what: String,
    },
    /// Try again, here or at another node: unreachable, overloaded, or an answer that does not hold together.
    #[error("{node}: {why}")]
    Retry {
        /// Which node.
        node: String,
        /// What happened.
        why: String,
        /// How long the node asked to be left alone, at least; between 100 ms and a minute.
        after: Option<Duration>,
    },
}

impl NodeError {
    /// Which node it was.
    pub fn node(&self) -> &str {
        match self {
            Self::TooLarge { node, .. } | Self::Gone { node, .. } | Self::Retry { node, .. } => node,
        }
    }
}
