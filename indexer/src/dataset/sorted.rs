//! A batch with its logs sorted by table. Pure.

use std::ops::Deref;
use std::sync::Arc;

use super::contracts::{Directory, Emitters, Known};
use super::list::Datasets;
use super::table::Dataset;
use super::untyped::Untyped;
use crate::chain::batch::BlockBatch;

/// A batch with facts about its rows before they are encoded: computed once per log, and used several times.
#[derive(Clone, Debug)]
pub struct Sorted {
    batch: Arc<BlockBatch>,
    /// By the index of the datasets.
    times: Vec<Vec<i64>>,
    untyped: Untyped,
    version: i64,
    found: Emitters,
}

impl Sorted {
    /// Reads each log of `batch` once; once more if it announces contracts, whose logs may come before, in the block and in the
    /// transaction.
    pub fn new(datasets: &Datasets, directory: &Directory, batch: impl Into<Arc<BlockBatch>>) -> Self {
        let batch = batch.into();
        let mut sorted = Self {
            batch,
            times: Vec::new(),
            untyped: Untyped::default(),
            version: directory.version,
            found: Emitters::default(),
        };
        while sorted.pass(datasets, directory) {}
        sorted
    }

    /// Sorts all logs; returns whether they announce contracts that this pass did not know from the start.
    fn pass(&mut self, datasets: &Datasets, directory: &Directory) -> bool {
        let (batch, known) = (self.batch.clone(), Known::new(&directory.emitters, &self.found));
        let mut times = vec![Vec::new(); datasets.count()];
        let (mut untyped, mut announced) = (Untyped::default(), Vec::new());
        times[datasets.every().at()] = batch.row_times().collect();
        for (header, log) in batch.rows() {
            let mut is_typed = false;
            for of in datasets.typed(known, header.number, &log) {
                is_typed = true;
                let times: &mut Vec<i64> = &mut times[of.at];
                if times.last() != Some(&header.time) {
                    times.push(header.time);
                }
                let new = datasets.announced(of, &log);
                let new = new.filter(|(address, kind)| !known.is_found(address, *kind, header.number));
                announced.extend(new.map(|(address, kind)| (address, kind, header.number)));
            }
            if !is_typed {
                untyped.count((log.address, log.topics.first().copied()), 1);
            }
        }
        for (address, kind, from) in &announced {
            self.found.find(address, *kind, *from);
        }
        (self.times, self.untyped) = (times, untyped);
        !announced.is_empty()
    }

    /// The version of the contracts by which it was sorted.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The contracts that its own logs announce: no announcement of them was known up to its block.
    pub fn found(&self) -> &Emitters {
        &self.found
    }

    /// By how much its commit raises the version: 1 if it announces contracts.
    pub fn news(&self) -> i64 {
        i64::from(!self.found.is_empty())
    }

    /// The batch itself.
    pub fn batch(&self) -> &Arc<BlockBatch> {
        &self.batch
    }

    /// The times (Unix seconds) of blocks with rows for the table, unless a decoder refuses them: these times need a leaf.
    pub fn times(&self, dataset: &Dataset) -> &[i64] {
        &self.times[dataset.at()]
    }

    /// The same of every dataset, by its index.
    pub fn all_times(&self) -> &[Vec<i64>] {
        &self.times
    }

    /// Its logs without a typed table.
    pub fn untyped(&self) -> &Untyped {
        &self.untyped
    }
}

impl Deref for Sorted {
    type Target = BlockBatch;

    fn deref(&self) -> &BlockBatch {
        &self.batch
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};

    use super::*;
    use crate::chain::block::{BlockRange, Header};
    use crate::chain::logs::{Log, Logs};
    use crate::chain::source::Source;
    use crate::events::TRANSFER;

    #[test]
    fn a_table_has_the_times_of_its_own_rows() {
        let header = |number: u64| Header {
            number,
            hash: B256::repeat_byte(number as u8),
            parent: number.checked_sub(1).map(|below| B256::repeat_byte(below as u8)),
            time: 100 + number as i64,
            bloom: None,
        };
        let headers: Vec<_> = (1..=4).map(header).collect();
        let mut logs = Logs::default();
        for (number, index, topics) in [(1, 0, 1), (2, 0, 3), (2, 1, 3), (4, 0, 2)] {
            let topics = &[TRANSFER, B256::ZERO, B256::ZERO][..topics];
            let (tx_hash, address) = (B256::ZERO, Address::ZERO);
            let log = Log { log_index: index, tx_index: 0, tx_hash, address, topics, data: &[0; 32] };
            logs.push(headers[number - 1].block(), log);
        }
        let range = BlockRange { first: 1, last: 4 };
        let batch = BlockBatch::new(range, headers, logs, &Source::default()).unwrap();
        let datasets = Datasets::own();
        let sorted = Sorted::new(&datasets, &Directory::default(), batch);
        assert_eq!(sorted.times(datasets.every()), [101, 102, 104]);
        assert_eq!(sorted.times(datasets.get("erc20_transfer").unwrap()), [102]);
        assert!(sorted.times(datasets.refused()).is_empty());
        assert_eq!(sorted.untyped().logs(), 2);
    }
}
