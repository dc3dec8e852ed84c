//! Why leaves cannot be made, and the reaction of the waiting writer.

use crate::store::StoreError;
use crate::store::connect::ConnectError;

/// Why leaves cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LeavesError {
    /// No direct connection.
    #[error("database.admin_url: {0}")]
    Connect(#[from] ConnectError),
    /// The connection may not act as the partitioner.
    #[error(
        "database.admin_url: its user cannot act as \"{role}\": {why}. Run `dalp-indexer migrate` with that user, or as an \
         administrator: {grant};"
    )]
    Role {
        /// The group role.
        role: String,
        /// The statement that gives this right to the user.
        grant: String,
        /// The server's message.
        why: String,
    },
    /// The connection was lost before it could be used.
    #[error("database.admin_url: {why}")]
    Lost {
        /// The failure.
        why: String,
    },
    /// The partition manager failed.
    #[error("{0}")]
    Partitions(#[from] dalp_partitions::Error),
    /// The table of an event could not be made.
    #[error(
        "cannot make the table {table}: {why}. The partitioner makes the tables of [contracts.NAME] in dalp_indexed: run \
         `dalp-indexer migrate`, which gives it the right, or make the table with the statements of `dalp-indexer abi ddl`"
    )]
    Table {
        /// The table, quoted.
        table: String,
        /// The server's message.
        why: String,
    },
    /// A view for people could not be made.
    #[error(
        "cannot make the view {view}: {why}. Rows are indexed without it. If the view is in use, or has other columns, drop it, and \
         start again: the start makes it anew; `dalp-indexer migrate` gives the partitioner its rights in the schema"
    )]
    View {
        /// The view, quoted.
        view: String,
        /// The server's message.
        why: String,
    },
    /// A table has the name of an event's table, and other columns.
    #[error(
        "the table {table} has the column {found} where its event needs {expected}: it was made from another ABI. Put the \
         earlier ABI first in abi of [contracts.NAME], or give the contracts another kind"
    )]
    Columns {
        /// The table, quoted.
        table: String,
        /// The column and its type.
        expected: String,
        /// The table's own.
        found: String,
    },
    /// A run ended incomplete.
    #[error("{why}")]
    Undone {
        /// The rest.
        why: String,
    },
    /// A part of the program failed.
    #[error("{0}")]
    Panicked(String),
}

impl LeavesError {
    /// The next step of the writer that waits for a leaf.
    pub(super) fn for_writer(self) -> StoreError {
        let why = self.to_string();
        match self {
            // The login or the database may be about to change.
            Self::Connect(_) | Self::Lost { .. } => StoreError::Retry { why },
            // A refused leaf was retired a moment ago: its rows are below the floor that is read next, and are left out.
            Self::Partitions(
                dalp_partitions::Error::Locked { .. }
                | dalp_partitions::Error::Database { .. }
                | dalp_partitions::Error::Refused { .. },
            ) => StoreError::Retry { why },
            Self::Role { .. }
            | Self::Table { .. }
            | Self::View { .. }
            | Self::Columns { .. }
            | Self::Partitions(_)
            | Self::Panicked(_)
            | Self::Undone { .. } => StoreError::Fatal { why },
        }
    }
}
