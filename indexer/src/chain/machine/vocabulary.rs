//! The vocabulary of the machine: inputs, actions, and the objects that it waits for.

use std::fmt;

use alloy::primitives::B256;

use crate::chain::batch::Link;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::reorg::Fork;

/// The end of the committed blocks: the next block to commit, and its required parent hash (`None`: no block below it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Number of the next block.
    pub next: u64,
    /// Hash of block `next - 1`, if known.
    pub hash: Option<B256>,
}

impl Tail {
    /// The tail after `block`.
    pub fn after(block: BlockRef) -> Self {
        Self { next: block.number + 1, hash: Some(block.hash) }
    }
}

/// The name of one fetch: it distinguishes a wanted answer from an unwanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub(super) u64);

/// An input. Inputs of the machine are not called events.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The node's newest block, and the block of its `finalized` tag if it was asked.
    Head {
        /// Newest block.
        head: BlockRef,
        /// The block tagged `finalized`.
        finalized: Option<BlockRef>,
    },
    /// A fetch returned a complete batch: the blocks of its range, or, near the head, the first of them.
    Fetched {
        /// The fetch.
        id: FetchId,
        /// The link of the batch to the chain.
        link: Link,
        /// Logs in it.
        logs: u64,
        /// Bytes that it holds in memory.
        bytes: u64,
        /// The blocks with fetched hashes, ascending.
        blocks: Vec<BlockRef>,
    },
    /// A fetch failed, and an unchanged retry does not help.
    FetchFailed {
        /// The fetch.
        id: FetchId,
        /// The reason.
        failure: FetchFailure,
    },
    /// The append was committed.
    Committed,
    /// The append or unwind was not committed, or its commit is unknown.
    WriteLost,
    /// The state row, read under its lock.
    Loaded {
        /// Committed tail.
        tail: Tail,
        /// The highest stored block that is final.
        finalized: Option<u64>,
        /// The newest stored blocks, ascending.
        recent: Vec<BlockRef>,
    },
    /// Stored blocks were compared with the node's. [`Fork::Below`] here means: no block matches, down to the end.
    Compared(Fork),
    /// The unwind was committed.
    Unwound,
    /// The jump was committed; the tail is at that block.
    Jumped(BlockRef),
    /// The node lacked the block to jump to.
    NotJumped,
    /// A node has both that final block and the block of this tail in one chain.
    Anchored {
        /// The final block.
        block: BlockRef,
        /// The tail.
        tail: Tail,
    },
}

/// Why a fetch cannot simply be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// Too many blocks, logs or bytes; with the node's limit in blocks, if the node names one.
    TooLarge {
        /// The node's limit in blocks.
        hint: Option<u64>,
    },
    /// The node no longer, or not yet, has a block of the range.
    Gone,
}

/// An action for the driver. At most one action other than `Fetch` is under way at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Fetch `range`. `near_head`: all headers first, then the logs pinned by block hash.
    Fetch {
        /// Name of this fetch.
        id: FetchId,
        /// The range.
        range: BlockRange,
        /// Whether a reorg may still replace these blocks.
        near_head: bool,
    },
    /// Commit the batch of fetch `id` on top of `on`.
    Append {
        /// The batch.
        id: FetchId,
        /// The tail that the commit must find.
        on: Tail,
        /// The highest stored block that is final after it; only ever rises.
        finalized: Option<u64>,
    },
    /// Drop every batch and running fetch.
    Forget,
    /// Compare stored blocks with the node's from the tail downwards, not below `floor`.
    Compare {
        /// Lowest block that may be unwound to.
        floor: Option<u64>,
        /// The block that caused the comparison: only a node with this very block may be asked, so that the compared blocks are
        /// on its branch.
        anchor: BlockRef,
    },
    /// Remove every block from `to.next` upwards; the present tail must be `from`.
    Unwind {
        /// The tail that the commit must find.
        from: Tail,
        /// The tail afterwards.
        to: Tail,
    },
    /// Set the tail to block `to`, which is final, and leave the blocks between to the backfill lane.
    Jump {
        /// The tail that the commit must find.
        from: Tail,
        /// The new tail's block.
        to: u64,
        /// A block at or above it that makes it final: only a node with this very block may be asked.
        anchor: BlockRef,
    },
    /// Read the state row under its lock, without a time limit.
    Reload,
    /// Stop this chain: an operator must decide.
    Stop(Stop),
}

/// Why a chain stopped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The node's chain leaves ours below a final block.
    #[error(
        "the node's chain differs from the stored chain below finalized block {finalized}; nothing was removed. Check \
         that the RPC URLs belong to the right chain. If the chain really rewrote final blocks, remove the stored ones \
         with `dalp-indexer reindex --from {finalized} --yes`, and from a lower block if this message appears again. A \
         devnet reverts blocks that it calls final: set its `finality = \"never\"`"
    )]
    BelowFinalized {
        /// The finalized block.
        finalized: u64,
    },
    /// One block alone is too large for the limits.
    #[error(
        "block {number} alone exceeds the node's or our response limit; raise `max_response_bytes` or use another node"
    )]
    BlockTooLarge {
        /// The block.
        number: u64,
    },
}

/// The object that progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No head seen yet.
    FirstHead,
    /// Everything is committed up to the head.
    NextBlock,
    /// The node reports a head below our tail.
    NodeBehind(u64),
    /// Logs and headers of a range.
    Fetch(BlockRange),
    /// The commit of a range.
    Append(BlockRange),
    /// Finding the fork point.
    Compare,
    /// Removing orphaned rows.
    Unwind,
    /// Setting the tail to a final block.
    Jump(u64),
    /// Reading the state row.
    Reload,
    /// A node that says which of two branches is final: the nodes' branch leaves ours below a final block.
    Finality,
    /// An operator.
    Operator(Stop),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::FirstHead => f.write_str("the node's first head"),
            Wait::NextBlock => f.write_str("the next block"),
            Wait::NodeBehind(number) => write!(f, "a node that has block {number}"),
            Wait::Fetch(range) => write!(f, "the node: logs of {range}"),
            Wait::Append(range) => write!(f, "PostgreSQL: commit of {range}"),
            Wait::Compare => f.write_str("the node: fork point of a reorg"),
            Wait::Unwind => f.write_str("PostgreSQL: unwind of orphaned blocks"),
            Wait::Jump(number) => write!(f, "PostgreSQL: the tail's jump to block {number}"),
            Wait::Reload => f.write_str("PostgreSQL: state of the chain"),
            Wait::Finality => f.write_str(
                "a node that reports a final block: the nodes' chain differs from the stored chain below a final block",
            ),
            Wait::Operator(stop) => write!(f, "an operator: {stop}"),
        }
    }
}
