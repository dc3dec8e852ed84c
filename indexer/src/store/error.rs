//! What can go wrong with the database, named for the caller's next move.

use tokio_postgres::error::SqlState;

use super::connect::{ConnectError, explain};

/// A statement or connection that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another writer took the chain over: stop writing, its token is newer than ours.
    #[error("another dalp-indexer took chain {chain_id} over (its fencing token is newer); this one writes no more")]
    Fenced {
        /// The chain.
        chain_id: u64,
    },
    /// The stored tail is not the one that the write was for: read it again.
    #[error("the stored tail of chain {chain_id} is not the expected one")]
    TailMoved {
        /// The chain.
        chain_id: u64,
    },
    /// No leaf covers a row's time: have it made, then write again.
    #[error("no partition covers a row's time")]
    NoLeaf,
    /// A row belongs into a leaf that is sealed, as its retention or archiving has begun: have it opened, or learn that its rows are no longer
    /// stored, then write again.
    #[error("{why}")]
    Sealed {
        /// Which leaf.
        why: String,
    },
    /// A row is stored already. Another writer was faster, or rows exist that the state row does not know of: it decides.
    #[error("{why}")]
    Duplicate {
        /// Which row.
        why: String,
    },
    /// The blocks are of another branch than the stored ones next to them: ask another node.
    #[error(
        "{range} do not join the stored block {number}: the node answered from another branch; asking again. If it goes on, \
         check the stored blocks with `dalp-indexer verify`"
    )]
    OtherBranch {
        /// The blocks.
        range: String,
        /// The stored block that they contradict.
        number: i64,
    },
    /// The answer to COMMIT did not arrive: it may have happened or not. Read the state row under its lock.
    #[error("the answer to COMMIT was lost ({why}); whether it happened is read back from the database")]
    Indeterminate {
        /// What happened to the connection.
        why: String,
    },
    /// Wait and try again: connection lost, server restarting, full, read-only, or a lock not had in time.
    #[error("{why}")]
    Retry {
        /// What happened, and advice.
        why: String,
    },
    /// Trying again will not help.
    #[error("{why}")]
    Fatal {
        /// What happened, and advice.
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
            // 23514 also stands for "no partition of relation found for row"; our tables have no CHECK that COPY can hit.
            code if *code == SqlState::CHECK_VIOLATION => Self::NoLeaf,
            code if code.code() == "DP001" => Self::Sealed { why },
            code if *code == SqlState::UNIQUE_VIOLATION => Self::Duplicate { why },
            code if may_pass(code) => Self::Retry { why },
            _ => Self::Fatal { why },
        }
    }
}

/// Classes of SQLSTATE that may go away without anybody changing the configuration.
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
