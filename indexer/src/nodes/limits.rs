//! The limits of one node, learned from its refusals. Pure: time is an argument.

use std::collections::BTreeSet;
use std::time::Instant;

use super::cap::{BELIEVED, Cap};
use super::refusal::Limit;
use crate::status::NodeReport;

/// One node's limits.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Blocks in one request for logs.
    pub blocks: Cap,
    /// Values in one list of a filter: addresses, or topics.
    pub list: Cap,
    /// Calls in one batch.
    pub batch: Cap,
    /// Whether it ever answered a batch.
    batches: bool,
    /// Requests under way at the same time.
    pub parallel: Cap,
    logs: Option<u64>,
    bytes: Option<u64>,
    /// Methods that it lacks, and the time of this discovery.
    refused: Vec<(String, Instant)>,
}

/// The sizes of one request, where a node may have a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Blocks of its widest request for logs; 0 for none.
    pub blocks: u64,
    /// Values of the longest list in its requests for logs; 0 for none.
    pub list: u64,
    /// Calls.
    pub calls: u64,
    /// Requests under way, with this one.
    pub parallel: u64,
}

impl Limits {
    /// A limit that it named for a request of this number of blocks that `began` then. A limit of logs or bytes applies again at
    /// the same density: the width that meets it is learned too.
    pub fn learn(&mut self, limit: Option<Limit>, blocks: u64, suggested: Option<u64>, began: Instant, now: Instant) {
        match limit {
            Some(Limit::Blocks(value)) => return self.blocks.name(value, now),
            Some(Limit::Logs(value)) => self.logs = Some(value),
            Some(Limit::Bytes(value)) => self.bytes = Some(value),
            None => {}
        }
        if blocks > 1 {
            self.blocks.refuse(blocks, suggested, began, now);
        }
    }

    /// A batch of `calls` calls, at least 2, was refused; `max` is the size that the node names.
    pub fn refused_batch(&mut self, calls: u64, max: Option<u64>, began: Instant, now: Instant) {
        match max.filter(|max| (1..calls).contains(max)) {
            Some(max) => self.batch.name(max, now),
            None => self.batch.refuse(calls, None, began, now),
        }
    }

    /// It lacks `method`.
    pub fn refused_method(&mut self, method: &str, at: Instant) {
        self.refused.retain(|(known, _)| known != method);
        self.refused.push((method.to_owned(), at));
    }

    /// A request was answered: lower limits are wrong.
    pub fn answered(&mut self, sizes: Sizes) {
        self.batches |= sizes.calls > 1;
        for (cap, size) in [
            (&mut self.blocks, sizes.blocks),
            (&mut self.list, sizes.list),
            (&mut self.batch, sizes.calls),
            (&mut self.parallel, sizes.parallel),
        ] {
            if size > 0 {
                cap.answer(size);
            }
        }
    }

    /// Blocks in one request for logs; `None` while no limit is known.
    pub fn max_blocks(&self, now: Instant) -> Option<u64> {
        self.blocks.get(now, twice)
    }

    /// Values in one list of a filter.
    pub fn max_list(&self, now: Instant) -> usize {
        self.list.get(now, twice).map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Calls in one batch.
    pub fn max_batch(&self, now: Instant) -> usize {
        self.batch.get(now, twice).map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Whether it is known to accept batches.
    pub fn takes_batches(&self) -> bool {
        self.batches
    }

    /// Requests under way at the same time.
    pub fn max_parallel(&self, now: Instant) -> u64 {
        self.parallel.get(now, |value| value + 1).unwrap_or(u64::MAX)
    }

    /// Whether `method` is worth a try.
    pub fn offers(&self, method: &str, now: Instant) -> bool {
        !self.refused.iter().any(|(known, at)| known == method && now.saturating_duration_since(*at) < BELIEVED)
    }

    /// Adopts the limits of an earlier run, as if learned now.
    pub fn remember(&mut self, report: &NodeReport, now: Instant) {
        self.blocks.remember(report.max_blocks, now);
        self.list.remember(report.max_list, now);
        self.batch.remember(report.max_batch, now);
        self.parallel.remember(report.max_parallel, now);
        self.logs = report.max_logs;
        self.bytes = report.max_bytes;
        self.refused = report.refused_methods.iter().map(|method| (method.clone(), now)).collect();
    }

    /// Writes the known limits into `report`.
    pub fn report(&self, report: &mut NodeReport) {
        report.max_blocks = self.blocks.known();
        report.max_logs = self.logs;
        report.max_bytes = self.bytes;
        report.max_batch = self.batch.known();
        report.max_list = self.list.known();
        report.max_parallel = self.parallel.known();
        let methods: BTreeSet<&String> = self.refused.iter().map(|(method, _)| method).collect();
        report.refused_methods = methods.into_iter().cloned().collect();
    }
}

fn twice(value: u64) -> u64 {
    value.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_batch_becomes_smaller_each_time_until_it_is_none() {
        let now = Instant::now();
        let mut limits = Limits::default();
        let mut refuse = |calls, max| {
            limits.refused_batch(calls, max, now, now);
            limits.max_batch(now)
        };
        assert_eq!(refuse(100, Some(50)), 50);
        assert_eq!(refuse(50, None), 25);
        assert_eq!(refuse(25, Some(25)), 12, "what it says does not hold");
        assert_eq!(refuse(3, None), 1);
        assert_eq!(refuse(2, Some(0)), 1);
    }

    #[test]
    fn requests_at_once_are_halved_and_grow_by_one() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.parallel.refuse(9, None, now, now);
        assert_eq!(limits.max_parallel(now), 4);
        limits.parallel.refuse(4, None, now, now);
        for _ in 0..8 {
            limits.answered(Sizes { parallel: 2, ..Sizes::default() });
        }
        assert_eq!(limits.max_parallel(now), 3, "one more after a run of answers");
        limits.parallel.refuse(3, None, now, now);
        assert_eq!(limits.max_parallel(now), 2, "what worked before");
    }

    #[test]
    fn what_was_learned_survives_a_report() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.learn(Some(Limit::Blocks(9)), 100, None, now, now);
        limits.learn(Some(Limit::Bytes(1_000)), 1, None, now, now);
        limits.refused_batch(3, Some(1), now, now);
        limits.list.refuse(1_500, None, now, now);
        limits.parallel.refuse(4, None, now, now);
        limits.refused_method("eth_getBlockReceipts", now);
        let mut report = NodeReport::default();
        limits.report(&mut report);
        let mut again = Limits::default();
        again.remember(&report, now);
        let mut second = NodeReport::default();
        again.report(&mut second);
        assert_eq!(report, second);
        assert_eq!((again.max_blocks(now), again.max_batch(now)), (Some(9), 1));
        assert_eq!((again.max_list(now), again.max_parallel(now)), (750, 2));
        assert!(!again.offers("eth_getBlockReceipts", now) && again.offers("eth_getLogs", now));
        assert!(again.offers("eth_getBlockReceipts", now + BELIEVED));
    }
}
