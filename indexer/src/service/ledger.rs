//! Counts commits and rows, for /metrics.

use std::collections::HashMap;

use tokio::sync::watch;

use super::tasks::Pulse;
use crate::dataset::Datasets;
use crate::status::CommitReport;
use crate::store::bus::{Heard, Listener};

/// Adds every commit that `listener` receives to the report of its chain, until no writer is left or `stop` turns true.
pub(super) async fn count(
    mut listener: Listener,
    (datasets, names): (Datasets, HashMap<u64, String>),
    reports: watch::Sender<Vec<CommitReport>>,
    pulse: Pulse,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let heard = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            heard = listener.next() => heard,
        };
        let Some(heard) = heard else { return };
        let chain_id = match &heard {
            Heard::Commit(commit) => Some(commit.chain_id),
            Heard::Gap(chain_id) => *chain_id,
        };
        reports.send_modify(|reports| {
            for (chain, name) in names.iter().filter(|(id, _)| chain_id.is_none_or(|chain_id| chain_id == **id)) {
                let at = reports.iter().position(|report| report.chain_id == *chain).unwrap_or_else(|| {
                    reports.push(CommitReport::new(*chain, name.clone()));
                    reports.len() - 1
                });
                let report = &mut reports[at];
                match &heard {
                    Heard::Gap(_) => report.gaps += 1,
                    Heard::Commit(commit) => {
                        let change = commit.change.as_str();
                        *report.commits.entry(change).or_default() += 1;
                        for touched in &commit.touched {
                            let table = datasets[touched.dataset].name().to_owned();
                            *report.rows.entry((table, change)).or_default() += touched.rows;
                        }
                    }
                }
            }
        });
        pulse.well();
    }
}
