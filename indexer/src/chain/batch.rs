//! A range of blocks with its logs, fully proved before it may be stored.

use std::collections::HashSet;

use alloy::primitives::{B256, Bloom, keccak256};

use super::block::{BlockRange, BlockRef, Header};
use super::filter::Filter;
use super::level::Level;
use super::logs::{Log, Logs, Run};
use super::proof::Proved;
use super::source::Source;

/// One block of a batch near the head.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Its header and the logs that a node returned for it.
    Returned(Header, Logs),
    /// The whole block, proved; logs outside the filter are left out of the batch.
    Proved(Proved),
}

/// A range of blocks whose headers and logs fit together. The only way to make one is [`BlockBatch::new`].
#[derive(Clone, Debug)]
pub struct BlockBatch {
    range: BlockRange,
    headers: Vec<Header>,
    logs: Logs,
    /// For each run of `logs`, the index of its header in `headers`.
    run_header: Vec<usize>,
    level: Level,
    source: Source,
}

/// Why an answer was refused. The node lied, lagged, or a reorg happened between two answers: ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A header that the range needs is missing.
    #[error("{range}: the answer lacks the header of block {number}")]
    NoHeader {
        /// The requested range.
        range: BlockRange,
        /// The missing block.
        number: u64,
    },
    /// Two consecutive headers do not link.
    #[error("block {number}: its parent hash is not the hash of the block below in the same answer")]
    NotLinked {
        /// The upper block.
        number: u64,
    },
    /// A header or log is outside the range, out of order, or doubled.
    #[error("{range}: {what} of block {number} is out of range, out of order or repeated")]
    Misplaced {
        /// The requested range.
        range: BlockRange,
        /// `header` or `log`.
        what: &'static str,
        /// The claimed block.
        number: u64,
    },
    /// The block hash of a log differs from its header's.
    #[error("block {number}: the block hash in a log differs from the header's hash")]
    OtherFork {
        /// The block.
        number: u64,
    },
    /// A log that the filter does not select.
    #[error("block {number}: a log outside the requested filter")]
    NotAsked {
        /// The block.
        number: u64,
    },
    /// The header's bloom lacks a returned log, and promises no missing log.
    #[error("block {number}: its logs do not agree with the header's logs bloom")]
    Bloom {
        /// The block.
        number: u64,
    },
    /// The header's bloom promises logs that are missing.
    #[error("block {number}: logs that its header's logs bloom promises are missing")]
    LeftOut {
        /// The block.
        number: u64,
    },
}

impl BlockBatch {
    /// Proves that `headers` (ascending, with at least both ends of `range` and every block with logs) and `logs`, all of which
    /// match `source`, belong together.
    ///
    /// # Errors
    /// The first [`Defect`] found.
    pub fn new(range: BlockRange, headers: Vec<Header>, logs: Logs, source: &Source) -> Result<Self, Defect> {
        Self::build(range, headers, logs, source, &[])
    }

    /// As [`BlockBatch::new`], of every block of `range`, in order.
    ///
    /// # Errors
    /// The first [`Defect`] found.
    pub fn of_pieces(range: BlockRange, pieces: Vec<Piece>, source: &Source) -> Result<Self, Defect> {
        let (mut headers, mut logs) = (Vec::with_capacity(pieces.len()), Logs::default());
        let mut proved = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Returned(header, returned) => {
                    logs.extend(&returned, |_, _| true);
                    headers.push(header);
                }
                Piece::Proved(block) => {
                    logs.extend(block.logs(), |_, log| source.filter().selects(log));
                    proved.push(block.header().number);
                    headers.push(block.header().clone());
                }
            }
        }
        Self::build(range, headers, logs, source, &proved)
    }

    /// `proved`: numbers of the blocks that need no bloom, ascending.
    fn build(
        range: BlockRange,
        headers: Vec<Header>,
        logs: Logs,
        source: &Source,
        proved: &[u64],
    ) -> Result<Self, Defect> {
        let selected = source.filter();
        check_headers(range, &headers)?;
        let run_header = check_logs(range, &headers, &logs)?;
        if let Some(row) = not_asked(&logs, selected) {
            let number = logs.runs.iter().find(|run| row < run.end).map_or(range.first, |run| run.block.number);
            return Err(Defect::NotAsked { number });
        }
        let linked = headers.len() as u64 == range.blocks() && headers.iter().all(|h| h.parent.is_some());
        let by_bloom = check_blooms(&headers, &logs, &run_header, selected, proved)?;
        let level = match linked {
            true if proved.len() == headers.len() => Level::Receipts,
            true if by_bloom => Level::Bloom,
            true => Level::Linked,
            false => Level::Returned,
        };
        Ok(Self { range, headers, logs, run_header, level, source: source.clone() })
    }

    /// The blocks covered.
    pub fn range(&self) -> BlockRange {
        self.range
    }

    /// Headers, ascending.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The logs, in chain order.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The source of the logs: the coverage of the range is recorded for this source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The level that the answers prove.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The batch with only the logs for which `keep` is true, given the number of their block.
    pub fn retain(mut self, keep: impl Fn(u64, &Log<'_>) -> bool) -> Self {
        let mut logs = Logs::default();
        logs.extend(&self.logs, keep);
        // A block without remaining logs has no run any more.
        let header_of = |run: &Run| self.headers.partition_point(|header| header.number < run.block.number);
        self.run_header = logs.runs.iter().map(header_of).collect();
        self.logs = logs;
        self
    }

    /// The newest blocks with known hashes, at most `limit`, ascending.
    pub fn newest(&self, limit: usize) -> impl Iterator<Item = BlockRef> + '_ {
        self.headers[self.headers.len().saturating_sub(limit)..].iter().map(Header::block)
    }

    /// The link of this batch to the chain.
    pub fn link(&self) -> Link {
        Link { parent: self.headers[0].parent, last: self.headers[self.headers.len() - 1].block() }
    }

    /// The block to prove as a sample of this batch: a block with logs, otherwise one with a header. The choice depends only on
    /// the range, so it can be repeated.
    pub fn sampled(&self) -> Option<BlockRef> {
        let seed = keccak256([self.range.first.to_be_bytes(), self.range.last.to_be_bytes()].concat());
        let seed = u64::from_be_bytes(seed[..8].try_into().ok()?);
        let of = |count: usize| usize::try_from(seed % count as u64).ok();
        if self.logs.runs.is_empty() {
            return Some(self.headers.get(of(self.headers.len())?)?.block());
        }
        Some(self.logs.runs.get(of(self.logs.runs.len())?)?.block)
    }

    /// The header of the last block.
    pub fn last(&self) -> &Header {
        &self.headers[self.headers.len() - 1]
    }

    /// Every log with the header of its block, in chain order.
    pub fn rows(&self) -> impl Iterator<Item = (&Header, Log<'_>)> + '_ {
        self.logs.runs.iter().zip(&self.run_header).flat_map(move |(run, &header)| {
            (run.start..run.end).map(move |i| (&self.headers[header], self.logs.get(i)))
        })
    }

    /// Unix seconds of every block with logs, ascending by block. These times need a leaf.
    pub fn row_times(&self) -> impl Iterator<Item = i64> + '_ {
        self.run_header.iter().map(|&header| self.headers[header].time)
    }

    /// Bytes held, for the budgets of queues.
    pub fn bytes(&self) -> usize {
        self.logs.bytes() + self.headers.len() * 400
    }
}

/// The two ends of a batch: its parent and its last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Hash of the block below the batch; `None` if the node gave no header for the first block.
    pub parent: Option<B256>,
    /// The batch's last block.
    pub last: BlockRef,
}

fn check_headers(range: BlockRange, headers: &[Header]) -> Result<(), Defect> {
    for header in headers {
        if !range.contains(header.number) {
            return Err(Defect::Misplaced { range, what: "header", number: header.number });
        }
    }
    for pair in headers.windows(2) {
        let (low, high) = (&pair[0], &pair[1]);
        if high.number <= low.number {
            return Err(Defect::Misplaced { range, what: "header", number: high.number });
        }
        if high.number == low.number + 1 && high.parent.is_some_and(|parent| parent != low.hash) {
            return Err(Defect::NotLinked { number: high.number });
        }
    }
    if headers.first().is_none_or(|h| h.number != range.first) {
        return Err(Defect::NoHeader { range, number: range.first });
    }
    if headers.last().is_none_or(|h| h.number != range.last) {
        return Err(Defect::NoHeader { range, number: range.last });
    }
    let mut seen = HashSet::with_capacity(headers.len());
    match headers.iter().find(|header| !seen.insert(header.hash)) {
        // A log that claims the height of another block has the hash of that block.
        Some(twice) => Err(Defect::OtherFork { number: twice.number }),
        None => Ok(()),
    }
}

/// Checks order, range and hash of every log; returns each run's header.
fn check_logs(range: BlockRange, headers: &[Header], logs: &Logs) -> Result<Vec<usize>, Defect> {
    let mut run_header = Vec::with_capacity(logs.runs.len());
    let mut below: Option<u64> = None;
    for run in &logs.runs {
        let number = run.block.number;
        let misplaced = Defect::Misplaced { range, what: "log", number };
        if !range.contains(number) || below.is_some_and(|b| number <= b) {
            // Two runs of one height are two forks in one answer, or logs out of order.
            let fork = logs.runs.iter().any(|r| r.block.number == number && r.block.hash != run.block.hash);
            return Err(if fork { Defect::OtherFork { number } } else { misplaced });
        }
        below = Some(number);
        if !logs.log_index[run.start..run.end].is_sorted_by(|a, b| a < b) {
            return Err(misplaced);
        }
        let at =
            headers.binary_search_by_key(&number, |h| h.number).map_err(|_gap| Defect::NoHeader { range, number })?;
        if headers[at].hash != run.block.hash {
            return Err(Defect::OtherFork { number });
        }
        run_header.push(at);
    }
    Ok(run_header)
}

/// The first row that does not pass `selected`. Neighbours are mostly alike, so the last passing row is compared before the sets,
/// which are sorted first: the filter may have thousands of contracts.
fn not_asked(logs: &Logs, selected: &Filter) -> Option<usize> {
    let (mut addresses, mut topics) = (selected.addresses.clone(), selected.topics.clone());
    if !logs.is_empty() {
        addresses.sort_unstable();
        topics.sort_unstable();
    }
    let (mut last_address, mut last_topic) = (None, None);
    (0..logs.len()).find(|row| {
        let log = logs.get(*row);
        let topic = log.topics.first().copied();
        let address_passes =
            addresses.is_empty() || last_address == Some(log.address) || addresses.binary_search(&log.address).is_ok();
        let topic_passes = topics.is_empty()
            || topic.is_some_and(|topic| last_topic == Some(topic) || topics.binary_search(&topic).is_ok());
        (last_address, last_topic) = (Some(log.address), topic);
        !(address_passes && topic_passes)
    })
}

/// Whether every block is proved, by receipts or by the bloom of its header: the bloom equals the bloom of all logs, or, with a
/// filter, shows that no log matches. A bloom never proves a filtered answer with logs; it can only refute it.
fn check_blooms(
    headers: &[Header],
    logs: &Logs,
    run_header: &[usize],
    selected: &Filter,
    proved: &[u64],
) -> Result<bool, Defect> {
    let mut runs = logs.runs.iter().zip(run_header).peekable();
    let mut all = true;
    for (at, header) in headers.iter().enumerate() {
        let run = runs.next_if(|(_, header)| **header == at).map(|(run, _)| *run);
        if proved.binary_search(&header.number).is_ok() {
            continue;
        }
        let Some(expected) = header.bloom.as_deref() else {
            all = false;
            continue;
        };
        let bloom = run.map_or(Bloom::ZERO, |run| logs.bloom_of(run));
        // Under any combination of its logs: the missing bits belong to omitted or altered logs.
        if selected.is_everything() && !bloom.contains(expected) {
            return Err(Defect::LeftOut { number: header.number });
        }
        if !expected.contains(&bloom) {
            return Err(Defect::Bloom { number: header.number });
        }
        all &= selected.is_everything() || (run.is_none() && !selected.may_select_from(header));
    }
    Ok(all)
}
#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::chain::bloom;
    use crate::chain::logs::tests::logs;

    fn hash(n: u64) -> B256 {
        B256::left_padding_from(&n.to_be_bytes())
    }

    fn header(number: u64) -> Header {
        Header {
            number,
            hash: hash(number),
            parent: Some(hash(number.wrapping_sub(1))),
            time: number as i64,
            bloom: Some(Box::new(Bloom::ZERO)),
        }
    }

    /// A filter of one topic.
    fn only(topic: u64) -> Filter {
        Filter { topics: vec![hash(topic)], ..Filter::default() }
    }

    /// Headers with unknown blooms.
    fn check(range: (u64, u64), headers: &[u64], of: &[(u64, u32)]) -> Result<Level, Defect> {
        let range = BlockRange { first: range.0, last: range.1 };
        let bare = |number| Header { bloom: None, ..header(number) };
        let headers = headers.iter().copied().map(bare).collect();
        BlockBatch::new(range, headers, logs(of), &Source::default()).map(|b| b.level())
    }

    /// One block with topic `bloom` in its header's bloom, and logs with topic 7 or none.
    fn check_bloom(selected: &Filter, bloom: Option<u64>, of: &[(u64, u32)]) -> Result<Level, Defect> {
        let topics = bloom.map(hash);
        let holds = bloom::of(topics.iter().map(|topic| (Address::ZERO, std::slice::from_ref(topic))));
        let header = Header { bloom: Some(Box::new(holds)), ..header(1) };
        let range = BlockRange { first: 1, last: 1 };
        BlockBatch::new(range, vec![header], logs(of), &Source::new(selected.clone())).map(|b| b.level())
    }

    #[test]
    fn a_bloom_proves_what_it_can_and_refutes_the_rest() {
        let (all, wrong) = (&Filter::default(), Err(Defect::Bloom { number: 1 }));
        let left_out = Err(Defect::LeftOut { number: 1 });
        assert_eq!(check_bloom(all, Some(7), &[(1, 0)]), Ok(Level::Bloom));
        assert_eq!(check_bloom(all, None, &[]), Ok(Level::Bloom));
        assert_eq!(check_bloom(all, Some(7), &[]), left_out, "logs were left out");
        assert_eq!(check_bloom(all, Some(8), &[(1, 0)]), left_out, "a log was altered");
        assert_eq!(check_bloom(all, None, &[(1, 0)]), wrong, "a log was invented");
        assert_eq!(check_bloom(&only(7), Some(7), &[(1, 0)]), Ok(Level::Linked), "others may have been left out");
        assert_eq!(check_bloom(&only(7), Some(7), &[]), Ok(Level::Linked), "it may or may not hold one");
        assert_eq!(check_bloom(&only(7), Some(8), &[]), Ok(Level::Bloom), "it holds none");
        assert_eq!(check_bloom(&only(7), Some(8), &[(1, 0)]), wrong, "a log outside the bloom");
        let other = &only(8);
        assert_eq!(check_bloom(other, Some(7), &[(1, 0)]), Err(Defect::NotAsked { number: 1 }));
    }

    #[test]
    fn a_batch_holds_what_its_filter_selects_and_nothing_else() {
        let word = |n: u8| B256::repeat_byte(n);
        let filter = |addresses: &[u8], topics: &[u8]| Filter {
            addresses: addresses.iter().map(|n| Address::repeat_byte(*n)).collect(),
            topics: topics.iter().map(|n| word(*n)).collect(),
            raw: true,
        };
        let filters = [filter(&[], &[]), filter(&[9, 1, 4], &[]), filter(&[], &[8, 2]), filter(&[4, 1], &[2, 8])];
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let mut logs = Logs::default();
            for log_index in 0..rng.random_range(0..4) {
                let topics = [word([2, 8, 8, 5][rng.random_range(0..4)])];
                let log = Log {
                    log_index,
                    tx_index: 0,
                    tx_hash: hash(9),
                    address: Address::repeat_byte([1, 4, 4, 6][rng.random_range(0..4)]),
                    topics: &topics[..rng.random_range(0..8).min(1)],
                    data: &[],
                };
                logs.push(BlockRef { number: 1, hash: hash(1) }, log);
            }
            for filter in &filters {
                let first = (0..logs.len()).find(|row| !filter.selects(&logs.get(*row)));
                assert_eq!(not_asked(&logs, filter), first, "{filter:?} {logs:?}");
            }
        }
    }

    #[test]
    fn what_fits_together_is_accepted_at_its_level() {
        assert_eq!(check((1, 3), &[1, 2, 3], &[(1, 0), (1, 1), (3, 5)]), Ok(Level::Linked));
        assert_eq!(check((1, 9), &[1, 4, 9], &[(4, 0)]), Ok(Level::Returned));
        assert_eq!(check((5, 5), &[5], &[]), Ok(Level::Linked));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let range = BlockRange { first: 1, last: 3 };
        let misplaced = |what, number| Err(Defect::Misplaced { range, what, number });
        assert_eq!(check((1, 3), &[1, 2], &[]), Err(Defect::NoHeader { range, number: 3 }));
        assert_eq!(check((1, 3), &[2, 3], &[]), Err(Defect::NoHeader { range, number: 1 }));
        assert_eq!(check((1, 3), &[1, 3], &[(2, 0)]), Err(Defect::NoHeader { range, number: 2 }));
        assert_eq!(check((1, 3), &[1, 2, 3, 4], &[]), misplaced("header", 4));
        assert_eq!(check((1, 3), &[1, 2, 2, 3], &[]), misplaced("header", 2));
        assert_eq!(check((1, 3), &[1, 3], &[(4, 0)]), misplaced("log", 4));
        assert_eq!(check((1, 3), &[1, 3], &[(3, 0), (1, 0)]), misplaced("log", 1));
        assert_eq!(check((1, 3), &[1, 3], &[(3, 1), (3, 1)]), misplaced("log", 3));
    }

    #[test]
    fn a_hash_that_two_heights_claim_is_refused() {
        let range = BlockRange { first: 1, last: 3 };
        let moved = Header { hash: hash(3), parent: None, ..header(2) };
        let headers = vec![header(1), moved, Header { parent: None, ..header(3) }];
        let batch = BlockBatch::new(range, headers, Logs::default(), &Source::default());
        assert_eq!(batch.err(), Some(Defect::OtherFork { number: 3 }));
    }

    #[test]
    fn another_fork_is_refused() {
        let mut other = logs(&[(1, 0)]);
        other.runs[0].block.hash = hash(99);
        let range = BlockRange { first: 1, last: 1 };
        assert_eq!(
            BlockBatch::new(range, vec![header(1)], other, &Source::default()).err(),
            Some(Defect::OtherFork { number: 1 })
        );
        let mut broken = header(2);
        broken.parent = Some(hash(77));
        let range = BlockRange { first: 1, last: 2 };
        let batch = BlockBatch::new(range, vec![header(1), broken], Logs::default(), &Source::default());
        assert_eq!(batch.err(), Some(Defect::NotLinked { number: 2 }));
    }

    #[test]
    fn a_batch_tells_of_its_blocks_and_rows() {
        let range = BlockRange { first: 1, last: 4 };
        let headers: Vec<_> = (1..=4).map(|number| Header { bloom: None, ..header(number) }).collect();
        let of = [(1, 0), (1, 1), (3, 5)];
        let batch = BlockBatch::new(range, headers.clone(), logs(&of), &Source::default()).unwrap();
        let block = |number| BlockRef { number, hash: hash(number) };
        let rows = |batch: &BlockBatch| batch.rows().map(|(h, log)| (h.number, log.log_index)).collect::<Vec<_>>();
        assert_eq!(
            (batch.range(), batch.headers(), batch.logs(), rows(&batch)),
            (range, &headers[..], &logs(&of), of.to_vec())
        );
        assert_eq!(batch.newest(2).collect::<Vec<_>>(), [block(3), block(4)]);
        assert_eq!((batch.newest(9).count(), batch.last()), (4, &headers[3]));
        assert_eq!(batch.link(), Link { parent: headers[0].parent, last: block(4) });
        assert_eq!(batch.row_times().collect::<Vec<_>>(), [headers[0].time, headers[2].time]);
        assert_eq!(batch.bytes(), 3 * (72 + 32 + 2) + 4 * 400);
        assert!([Some(block(1)), Some(block(3))].contains(&batch.sampled()), "one with logs");
        let last = batch.retain(|number, log| number > 1 && log.log_index >= 5);
        assert_eq!((rows(&last), last.sampled()), (vec![(3, 5)], Some(block(3))));
        let none = last.retain(|_, _| false);
        assert!(rows(&none).is_empty() && none.sampled().is_some_and(|block| range.contains(block.number)));
    }
}
