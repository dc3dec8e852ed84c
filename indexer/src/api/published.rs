//! The data that the server reads.

use tokio::sync::watch;

use crate::status::{ChainStatus, CommitReport, TableReport, TaskReport};
use crate::timings::Timings;

/// The last published state of the chains and of the tables.
#[derive(Clone, Debug)]
pub struct Published {
    /// Every chain's status.
    pub chains: watch::Receiver<Vec<ChainStatus>>,
    /// The results of retention for each table.
    pub tables: watch::Receiver<Vec<TableReport>>,
    /// The states of the background tasks.
    pub tasks: watch::Receiver<Vec<TaskReport>>,
    /// The counts of commits.
    pub commits: watch::Receiver<Vec<CommitReport>>,
    /// The durations of fetches and commits.
    pub timings: Timings,
}
