//! Errors of the database, named for the caller's next move.

use tokio_postgres::error::SqlState;

use super::connect::{ConnectError, explain};

/// A statement or connection that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another writer took the chain over: stop writing, its token is newer than ours.
    #[error("another dalp-indexer took chain {chain_id} over (its fencing token is newer); this process stops writing")]
    Fenced {
        /// The chain.
        chain_id: u64,
    },
    /// The stored tail differs from the expected one: read it again.
    #[error("the stored tail of chain {chain_id} is not the expected one")]
    TailMoved {
        /// The chain.
        chain_id: u64,
    },
    /// Contracts were added, found or lost since the batch was sorted: learn them, and sort it again.
    #[error("the contracts of chain {chain_id} changed meanwhile; the blocks are sorted again")]
    Contracts {
        /// The chain.
        chain_id: u64,
    },
    /// No leaf covers a row's time: let it be made, then write again.
    #[error("no partition covers a row's time")]
    NoLeaf,
    /// A row belongs to a sealed leaf, because its retention or archiving has begun: let it be unsealed, or learn that its rows
    /// are no longer stored, then write again.
    #[error("{why}")]
    Sealed {
        /// The leaf.
        why: String,
    },
    /// A row is already stored. Another writer was faster, or there are rows without an entry in the state row: the state row
    /// decides.
    #[error("{why}")]
    Duplicate {
        /// The row.
        why: String,
    },
    /// The blocks are of another branch than the stored ones next to them: ask another node.
    #[error(
        "{range} do not join the stored block {number}: the node answered from another branch; asking again. If this \
         repeats, check the stored blocks with `dalp-indexer verify`"
    )]
    OtherBranch {
        /// The blocks.
        range: String,
        /// The conflicting stored block.
        number: i64,
    },
    /// The answer to COMMIT did not arrive: it may be committed or not. Read the state row under its lock.
    #[error("the answer to COMMIT was lost ({why}); the database is asked whether it was committed")]
    Indeterminate {
        /// The failure of the connection.
        why: String,
    },
    /// Wait and retry: connection lost, server restarting, full, read-only, or a lock timeout.
    #[error("{why}")]
    Retry {
        /// The failure, and advice.
        why: String,
    },
    /// A retry will not help.
    #[error("{why}")]
    Fatal {
        /// The failure, and advice.
        why: String,
    },
}

impl StoreError {
    /// The error of a standby or a server set read-only.
    pub fn read_only() -> Self {
        Self::Retry {
            why: "the database is read-only (a standby, or default_transaction_read_only): point database.url to the primary"
                .into(),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = explain(&error);
        let Some(code) = error.code() else { return Self::Retry { why } };
        match code {
            // 23514 also means "no partition of relation found for row"; our tables have no CHECK that COPY can violate.
            code if *code == SqlState::CHECK_VIOLATION => Self::NoLeaf,
            code if code.code() == "DP001" => Self::Sealed { why },
            code if *code == SqlState::UNIQUE_VIOLATION => Self::Duplicate { why },
            code if may_pass(code) => Self::Retry { why },
            _ => Self::Fatal { why },
        }
    }
}

/// Classes of SQLSTATE that may end without a change of the configuration.
fn may_pass(code: &SqlState) -> bool {
    // 08 connection, 25 (25006 read-only, 25P02/25P03 aborted or idle too long), 40 rollback, 53 resources, 55 (55P03
    // lock timeout), 57 operator intervention, 58 system, XX internal.
    ["08", "25", "40", "53", "55", "57", "58", "XX"].contains(&&code.code()[..2])
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        let why = error.to_string();
        if error.fault.is_transient() { Self::Retry { why } } else { Self::Fatal { why } }
    }
}
