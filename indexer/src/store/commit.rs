//! What a committed transaction hands on.

use chrono::{DateTime, Utc};

use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::machine::Tail;

/// Proof that a change of a chain is committed: it exists only after COMMIT was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The chain.
    pub chain_id: u64,
    /// The chain's epoch that this commit made. Each change makes the next one, as does each move of a retention floor.
    pub epoch: i64,
    /// What changed.
    pub change: Change,
    /// The rows of each dataset that were written or removed, by its place; only those with any.
    pub touched: Vec<Touched>,
    /// When COMMIT was answered, by our clock.
    pub at: DateTime<Utc>,
}

impl Commit {
    /// How many rows were written or removed.
    pub fn rows(&self) -> u64 {
        self.touched.iter().map(|touched| touched.rows).sum()
    }
}

/// Rows of one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The dataset's place.
    pub dataset: usize,
    /// How many.
    pub rows: u64,
}

/// What may happen to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Blocks were added on top of the tail.
    Appended(BlockRange),
    /// Blocks were added into a gap below it.
    Backfilled(BlockRange),
    /// Blocks from the tail down to this one were removed: the chain left them, or they are read again.
    Unwound {
        /// The tail before.
        from: Tail,
        /// The tail now.
        to: Tail,
    },
    /// The tail is this block now, and what is below it is missing.
    Jumped(BlockRef),
    /// The rows of blocks were written anew.
    Repaired(BlockRange),
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
            Self::Reset => "reset",
        }
    }
}
