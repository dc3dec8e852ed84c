//! The progress of a chain towards its head, for its status and its log.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::status::{CatchUp, CaughtUp, ChainStatus, human};

/// The progress of a chain towards its head, for its log.
#[derive(Default)]
pub(super) struct Way {
    watch: CatchUp,
    told: Option<Instant>,
}

/// The interval between two log lines about a chain that catches up.
const WAY_EVERY: Duration = Duration::from_secs(10);

impl Way {
    /// Publishes the progress, and logs it from time to time, and once at the end.
    pub fn look(&mut self, status: &watch::Sender<ChainStatus>, start_block: u64) {
        let (missing, of_blocks) = {
            let status = status.borrow();
            let of_blocks = status.head.map_or(0, |head| (head + 1).saturating_sub(start_block));
            (status.gap_blocks + status.lag_blocks.unwrap_or(0), of_blocks)
        };
        let found = self.watch.look(std::time::Instant::now(), missing, of_blocks);
        match found {
            CaughtUp::Before => {}
            CaughtUp::Not(progress) => {
                if self.told.is_none_or(|at| at.elapsed() >= WAY_EVERY) {
                    info!("catching up: {progress}");
                    self.told = Some(Instant::now());
                }
            }
            CaughtUp::Now(blocks, took) => {
                info!("caught up: {blocks} blocks in {}", human(took));
                self.told = None;
            }
        }
        let progress = if let CaughtUp::Not(progress) = found { Some(progress) } else { None };
        status.send_modify(|status| status.catching_up = progress);
    }
}
