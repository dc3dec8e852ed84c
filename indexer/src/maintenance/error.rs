//! Why leaves cannot be made, and what the writer that waits for one does then.

use crate::store::StoreError;
use crate::store::connect::ConnectError;

/// Why leaves cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LeavesError {
    /// No direct connection.
    #[error("database.admin_url: {0}")]
    Connect(#[from] ConnectError),
    /// The connection may not act for the partitioner.
    #[error(
        "database.admin_url: its user cannot act as \"{role}\": {why}. Run `dalp-indexer migrate` with that user, or as an \
         administrator: {grant};"
    )]
    Role {
        /// The group role.
        role: String,
        /// The statement that lets the user act as it.
        grant: String,
        /// What the server said.
        why: String,
    },
    /// The connection was lost before it could be used.
    #[error("database.admin_url: {why}")]
    Lost {
        /// What happened.
        why: String,
    },
    /// The partition manager failed.
    #[error("{0}")]
    Partitions(#[from] dalp_partitions::Error),
    /// A run came to its end, and did not do all that it should.
    #[error("{why}")]
    Undone {
        /// What is left.
        why: String,
    },
    /// Part of the program failed at it.
    #[error("{0}")]
    Panicked(String),
}

impl LeavesError {
    /// What the writer that waits for a leaf should do.
    pub(super) fn for_writer(self) -> StoreError {
        let why = self.to_string();
        match self {
            // Who may log in, or which database there is, may be changing.
            Self::Connect(_) | Self::Lost { .. } => StoreError::Retry { why },
            // A leaf that is refused was retired a moment ago: its rows are below the floor that is read next, and left out.
            Self::Partitions(
                dalp_partitions::Error::Locked { .. }
                | dalp_partitions::Error::Database { .. }
                | dalp_partitions::Error::Refused { .. },
            ) => StoreError::Retry { why },
            Self::Role { .. } | Self::Partitions(_) | Self::Panicked(_) | Self::Undone { .. } => {
                StoreError::Fatal { why }
            }
        }
    }
}
