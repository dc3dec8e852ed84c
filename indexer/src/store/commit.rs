//! The result of a committed transaction.

use chrono::{DateTime, Utc};

use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::machine::Tail;

/// Proof that a change of a chain is committed: it exists only after COMMIT was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The chain.
    pub chain_id: u64,
    /// The chain's epoch of this commit. Each change makes the next one, and so does each move of a retention floor.
    pub epoch: i64,
    /// The change.
    pub change: Change,
    /// The written or removed rows of each dataset, by its index; only datasets with rows.
    pub touched: Vec<Touched>,
    /// The time of the answer to COMMIT, by our clock.
    pub at: DateTime<Utc>,
}

impl Commit {
    /// The number of written or removed rows.
    pub fn rows(&self) -> u64 {
        self.touched.iter().map(|touched| touched.rows).sum()
    }
}

/// Rows of one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The dataset's index.
    pub dataset: usize,
    /// The number of rows.
    pub rows: u64,
}

/// The kinds of changes of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Blocks were added on top of the tail.
    Appended(BlockRange),
    /// Blocks were added into a gap below it.
    Backfilled(BlockRange),
    /// Blocks from the tail down to this one were removed: orphaned, or to be read again.
    Unwound {
        /// The tail before.
        from: Tail,
        /// The tail now.
        to: Tail,
    },
    /// The tail is now this block, and the blocks between are missing.
    Jumped(BlockRef),
    /// The rows of blocks were replaced.
    Repaired(BlockRange),
    /// Stored logs of contracts in these blocks were decoded into the tables of their kinds.
    Decoded(BlockRange),
    /// Another chain begins under the same id.
    Reset,
}

impl Change {
    /// Its word in metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Appended(_) => "append",
            Self::Backfilled(_) => "backfill",
            Self::Unwound { .. } => "unwind",
            Self::Jumped(_) => "jump",
            Self::Repaired(_) => "repair",
            Self::Decoded(_) => "decode",
            Self::Reset => "reset",
        }
    }
}
