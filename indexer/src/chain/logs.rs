//! Logs on their way from a node to a table.

use alloy::primitives::{Address, B256, Bloom};

use super::block::BlockRef;
use super::bloom;

/// Logs as columns: fixed-size fields side by side, all `data` bytes in one arena. No allocation per log.
///
/// Row `i` has number `block[i]`, data `data[data_end[i-1]..data_end[i]]`, topics likewise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// One entry per run of logs of one block, in order of arrival.
    pub(super) runs: Vec<Run>,
    pub(super) log_index: Vec<u32>,
    tx_index: Vec<u32>,
    tx_hash: Vec<B256>,
    address: Vec<Address>,
    topics: Vec<B256>,
    topic_end: Vec<u32>,
    data: Vec<u8>,
    data_end: Vec<usize>,
}

/// Consecutive logs of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) block: BlockRef,
    /// Rows `start..end`.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// One log on its way into or out of [`Logs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log<'a> {
    /// Position in the block.
    pub log_index: u32,
    /// Position of its transaction in the block.
    pub tx_index: u32,
    /// Hash of its transaction.
    pub tx_hash: B256,
    /// The emitter.
    pub address: Address,
    /// 0 to 4 topics.
    pub topics: &'a [B256],
    /// Unindexed data.
    pub data: &'a [u8],
}

impl Logs {
    /// Number of logs.
    pub fn len(&self) -> usize {
        self.log_index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held, for the budgets of queues.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.topics.len() * 32 + self.len() * (4 + 4 + 32 + 20 + 4 + 8)
    }

    /// Reserves space for `rows` more logs with this total of topics and bytes of data.
    pub fn reserve(&mut self, rows: usize, topics: usize, data: usize) {
        self.log_index.reserve(rows);
        self.tx_index.reserve(rows);
        self.tx_hash.reserve(rows);
        self.address.reserve(rows);
        self.topics.reserve(topics);
        self.topic_end.reserve(rows);
        self.data.reserve(data);
        self.data_end.reserve(rows);
    }

    /// Appends one log of `block`. Ignores its own `blockTimestamp`: a row's time is its header's.
    pub fn push(&mut self, block: BlockRef, log: Log<'_>) {
        let row = self.len();
        self.log_index.push(log.log_index);
        self.tx_index.push(log.tx_index);
        self.tx_hash.push(log.tx_hash);
        self.address.push(log.address);
        self.topics.extend_from_slice(log.topics);
        self.topic_end.push(self.topics.len() as u32);
        self.data.extend_from_slice(log.data);
        self.data_end.push(self.data.len());
        match self.runs.last_mut() {
            Some(run) if run.block == block => run.end = row + 1,
            _ => self.runs.push(Run { block, start: row, end: row + 1 }),
        }
    }

    /// Frees the reserved space.
    pub fn shrink(&mut self) {
        self.runs.shrink_to_fit();
        self.log_index.shrink_to_fit();
        self.tx_index.shrink_to_fit();
        self.tx_hash.shrink_to_fit();
        self.address.shrink_to_fit();
        self.topics.shrink_to_fit();
        self.topic_end.shrink_to_fit();
        self.data.shrink_to_fit();
        self.data_end.shrink_to_fit();
    }

    /// These logs and those of `other` behind them.
    #[must_use]
    pub fn joined(mut self, other: &Logs) -> Self {
        let (rows, topics, data) = (self.len(), self.topics.len() as u32, self.data.len());
        self.runs.extend(other.runs.iter().map(|run| Run { start: rows + run.start, end: rows + run.end, ..*run }));
        self.log_index.extend_from_slice(&other.log_index);
        self.tx_index.extend_from_slice(&other.tx_index);
        self.tx_hash.extend_from_slice(&other.tx_hash);
        self.address.extend_from_slice(&other.address);
        self.topics.extend_from_slice(&other.topics);
        self.topic_end.extend(other.topic_end.iter().map(|end| topics + end));
        self.data.extend_from_slice(&other.data);
        self.data_end.extend(other.data_end.iter().map(|end| data + end));
        self
    }

    /// The logs of several answers about the same blocks, in the order of the chain.
    #[must_use]
    pub fn merged(parts: &[Logs]) -> Self {
        let mut rows: Vec<(BlockRef, u32, usize, usize)> = Vec::with_capacity(parts.iter().map(Logs::len).sum());
        for (part, logs) in parts.iter().enumerate() {
            for run in &logs.runs {
                rows.extend((run.start..run.end).map(|row| (run.block, logs.log_index[row], part, row)));
            }
        }
        rows.sort_by_key(|(block, index, ..)| (block.number, block.hash, *index));
        let mut merged = Logs::default();
        for (block, _, part, row) in rows {
            merged.push(block, parts[part].get(row));
        }
        merged
    }

    /// Appends the rows of `other` for which `keep` is true, given the number of their block.
    pub fn extend(&mut self, other: &Logs, keep: impl Fn(u64, &Log<'_>) -> bool) {
        for run in &other.runs {
            let number = run.block.number;
            for log in (run.start..run.end).map(|row| other.get(row)).filter(|log| keep(number, log)) {
                self.push(run.block, log);
            }
        }
    }

    /// Whether both hold the same logs of the same blocks in the same order.
    pub fn same_rows(&self, other: &Logs) -> bool {
        let places = |logs: &Logs| logs.runs.iter().map(|run| (run.block, run.start, run.end)).collect::<Vec<_>>();
        self.len() == other.len()
            && places(self) == places(other)
            && (0..self.len()).all(|row| self.get(row) == other.get(row))
    }

    /// Row `i`.
    pub fn get(&self, i: usize) -> Log<'_> {
        let topics = if i == 0 { 0 } else { self.topic_end[i - 1] as usize };
        let data = if i == 0 { 0 } else { self.data_end[i - 1] };
        Log {
            log_index: self.log_index[i],
            tx_index: self.tx_index[i],
            tx_hash: self.tx_hash[i],
            address: self.address[i],
            topics: &self.topics[topics..self.topic_end[i] as usize],
            data: &self.data[data..self.data_end[i]],
        }
    }

    /// Blocks that have logs, in order of arrival.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRef> + '_ {
        self.runs.iter().map(|run| run.block)
    }

    pub(super) fn bloom_of(&self, run: Run) -> Bloom {
        bloom::of((run.start..run.end).map(|row| self.get(row)).map(|log| (log.address, log.topics)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Logs of these blocks, at these positions in them.
    pub(in crate::chain) fn logs(of: &[(u64, u32)]) -> Logs {
        let mut logs = Logs::default();
        for &(number, log_index) in of {
            let topics = [B256::left_padding_from(&[7])];
            let log = Log {
                log_index,
                tx_index: 0,
                tx_hash: B256::left_padding_from(&[9]),
                address: Address::ZERO,
                topics: &topics,
                data: &[1, 2],
            };
            logs.push(BlockRef { number, hash: B256::left_padding_from(&number.to_be_bytes()) }, log);
        }
        logs
    }

    #[test]
    fn joined_logs_are_those_of_both_in_order() {
        let all = [(1, 0), (1, 3), (4, 0), (5, 1), (5, 2), (9, 0)];
        for at in 0..=all.len() {
            let (first, second) = all.split_at(at);
            let joined = logs(first).joined(&logs(second));
            let rows = |logs: &Logs| (0..logs.len()).map(|row| logs.get(row).log_index).collect::<Vec<_>>();
            assert_eq!((rows(&joined), joined.bytes()), (rows(&logs(&all)), logs(&all).bytes()), "cut at {at}");
            // Parts are cut between blocks: there, the result does not show the cut.
            if first.last().map(|log| log.0) != second.first().map(|log| log.0) {
                assert_eq!(joined, logs(&all), "cut at {at}");
            }
        }
    }

    #[test]
    fn logs_are_the_same_only_row_by_row_and_block_by_block() {
        let all = [(1, 0), (1, 3), (4, 0)];
        assert!(logs(&all).same_rows(&logs(&all)));
        for other in [&[(1, 0), (1, 3)][..], &[(1, 0), (1, 2), (4, 0)], &[(1, 0), (1, 3), (5, 0)]] {
            assert!(!logs(&all).same_rows(&logs(other)) && !logs(other).same_rows(&logs(&all)), "{other:?}");
        }
        let mut fourth = Logs::default();
        fourth.extend(&logs(&all), |number, _| number == 4);
        assert_eq!(fourth, logs(&[(4, 0)]));
        let mut roomy = Logs::default();
        roomy.reserve(3, 6, 50);
        assert!(roomy.log_index.capacity() >= 3 && roomy.topics.capacity() >= 6 && roomy.data.capacity() >= 50);
        roomy.shrink();
        assert_eq!((roomy.log_index.capacity(), roomy.topics.capacity(), roomy.data.capacity()), (0, 0, 0));
    }
}
