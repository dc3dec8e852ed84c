//! What one node allows, learned from its refusals. Pure: time is an argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::refusal::Limit;
use crate::status::NodeReport;

/// How long a limit is believed. Then it is met once more, which costs one refused call, or it is gone: plans are
/// upgraded and nodes reconfigured.
const BELIEVED: Duration = Duration::from_secs(3_600);

/// A number that was learned.
#[derive(Clone, Copy, Debug)]
struct Learned {
    value: u64,
    at: Instant,
}

/// One node's limits.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    blocks: Option<Learned>,
    logs: Option<Learned>,
    bytes: Option<Learned>,
    batch: Option<Learned>,
    /// Methods that it does not offer, and since when that is known.
    refused: Vec<(String, Instant)>,
}

impl Limits {
    /// A limit that it named.
    pub fn learn(&mut self, limit: Limit, at: Instant) {
        let (slot, value) = match limit {
            Limit::Blocks(value) => (&mut self.blocks, value),
            Limit::Logs(value) => (&mut self.logs, value),
            Limit::Bytes(value) => (&mut self.bytes, value),
        };
        *slot = Some(Learned { value, at });
    }

    /// A batch of `calls` calls, at least 2, was refused; `max` is what it says that it takes.
    pub fn refused_batch(&mut self, calls: usize, max: Option<u64>, at: Instant) {
        let calls = calls as u64;
        let value = max.filter(|max| (1..calls).contains(max)).unwrap_or((calls / 2).max(1));
        self.batch = Some(Learned { value, at });
    }

    /// It does not offer `method`.
    pub fn refused_method(&mut self, method: &str, at: Instant) {
        self.refused.retain(|(known, _)| known != method);
        self.refused.push((method.to_owned(), at));
    }

    /// A question for the logs of `blocks` blocks in `calls` calls was answered: limits below that are gone.
    pub fn answered(&mut self, blocks: Option<u64>, calls: usize) {
        self.blocks = self.blocks.filter(|limit| blocks.is_none_or(|blocks| blocks <= limit.value));
        self.batch = self.batch.filter(|limit| calls as u64 <= limit.value);
    }

    /// Blocks in one question for logs; `None` while no limit is known.
    pub fn max_blocks(&self, now: Instant) -> Option<u64> {
        believed(self.blocks, now)
    }

    /// Calls in one batch.
    pub fn max_batch(&self, now: Instant) -> usize {
        believed(self.batch, now).and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
    }

    /// Whether `method` is worth a try.
    pub fn offers(&self, method: &str, now: Instant) -> bool {
        !self.refused.iter().any(|(known, at)| known == method && now.saturating_duration_since(*at) < BELIEVED)
    }

    /// Takes what an earlier run learned, as if it were learned now.
    pub fn remember(&mut self, report: &NodeReport, at: Instant) {
        let learned = |value: Option<u64>| value.filter(|value| *value > 0).map(|value| Learned { value, at });
        self.blocks = learned(report.max_blocks);
        self.logs = learned(report.max_logs);
        self.bytes = learned(report.max_bytes);
        self.batch = learned(report.max_batch);
        self.refused = report.refused_methods.iter().map(|method| (method.clone(), at)).collect();
    }

    /// Writes what is known into `report`.
    pub fn report(&self, report: &mut NodeReport) {
        let value = |learned: Option<Learned>| learned.map(|learned| learned.value);
        report.max_blocks = value(self.blocks);
        report.max_logs = value(self.logs);
        report.max_bytes = value(self.bytes);
        report.max_batch = value(self.batch);
        let methods: BTreeSet<&String> = self.refused.iter().map(|(method, _)| method).collect();
        report.refused_methods = methods.into_iter().cloned().collect();
    }
}

fn believed(limit: Option<Learned>, now: Instant) -> Option<u64> {
    limit.filter(|limit| now.saturating_duration_since(limit.at) < BELIEVED).map(|limit| limit.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_believed_for_a_while_and_until_it_is_passed() {
        let now = Instant::now();
        let mut limits = Limits::default();
        assert_eq!((limits.max_blocks(now), limits.max_batch(now)), (None, usize::MAX));
        limits.learn(Limit::Blocks(2_000), now);
        limits.learn(Limit::Logs(5), now);
        assert_eq!(limits.max_blocks(now + BELIEVED / 2), Some(2_000));
        assert_eq!(limits.max_blocks(now + BELIEVED), None, "tried again");
        limits.answered(Some(2_000), 3);
        assert_eq!(limits.max_blocks(now), Some(2_000));
        limits.answered(Some(2_001), 3);
        assert_eq!(limits.max_blocks(now), None, "it allows more now");
    }

    #[test]
    fn a_refused_batch_becomes_smaller_each_time_until_it_is_none() {
        let now = Instant::now();
        let mut limits = Limits::default();
        let mut refuse = |calls, max| {
            limits.refused_batch(calls, max, now);
            limits.max_batch(now)
        };
        assert_eq!(refuse(100, Some(50)), 50);
        assert_eq!(refuse(50, None), 25);
        assert_eq!(refuse(25, Some(25)), 12, "what it says does not hold");
        assert_eq!(refuse(3, None), 1);
        assert_eq!(refuse(2, Some(0)), 1);
    }

    #[test]
    fn what_was_learned_survives_a_report() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.learn(Limit::Blocks(9), now);
        limits.learn(Limit::Bytes(1_000), now);
        limits.refused_batch(3, Some(1), now);
        limits.refused_method("eth_getBlockReceipts", now);
        let mut report = NodeReport::default();
        limits.report(&mut report);
        let mut again = Limits::default();
        again.remember(&report, now);
        let mut second = NodeReport::default();
        again.report(&mut second);
        assert_eq!(report, second);
        assert_eq!((again.max_blocks(now), again.max_batch(now)), (Some(9), 1));
        assert!(!again.offers("eth_getBlockReceipts", now) && again.offers("eth_getLogs", now));
        assert!(again.offers("eth_getBlockReceipts", now + BELIEVED));
    }
}
