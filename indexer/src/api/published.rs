//! What the server reads.

use tokio::sync::watch;

use crate::status::{ChainStatus, CommitReport, TableReport, TaskReport};
use crate::timings::Timings;

/// What was last published of the chains and of the tables.
#[derive(Clone, Debug)]
pub struct Published {
    /// Every chain's status.
    pub chains: watch::Receiver<Vec<ChainStatus>>,
    /// What retention did with each table.
    pub tables: watch::Receiver<Vec<TableReport>>,
    /// How the background tasks do.
    pub tasks: watch::Receiver<Vec<TaskReport>>,
    /// What was committed.
    pub commits: watch::Receiver<Vec<CommitReport>>,
    /// How long fetches and commits take.
    pub timings: Timings,
}
