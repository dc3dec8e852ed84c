//! What a chain's indexing looks like from outside, at one moment.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// One chain's progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChainStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its id.
    pub chain_id: u64,
    /// Number of the newest block the nodes report; none before the first answer.
    pub head: Option<u64>,
    /// The head's time, from its header.
    pub head_time: Option<DateTime<Utc>>,
    /// Number of the newest final block; none while nothing is final.
    pub finalized: Option<u64>,
    /// Number of the last contiguous committed block; none before the first commit.
    pub checkpoint: Option<u64>,
    /// The checkpoint's time, from its header.
    pub checkpoint_time: Option<DateTime<Utc>>,
    /// Blocks from the checkpoint to the head.
    pub lag_blocks: Option<u64>,
    /// Seconds of chain time from the checkpoint to the head.
    pub lag_seconds: Option<f64>,
    /// Events committed each second, lately.
    pub events_per_second: f64,
    /// Partitions of this chain.
    pub leaves: u64,
    /// Whether readers may rely on it: caught up, and everything it needs works.
    pub ready: bool,
    /// What it waits for, in words; empty for nothing.
    pub waits_for: String,
}
