//! The contracts whose metadata is to be read: filled by the commits of all lanes of a chain, emptied by `tokens.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::Address;
use alloy::primitives::map::AddressSet;

use crate::chain::batch::BlockBatch;
use crate::events::TRANSFER;

/// Most contracts that wait, and most that are known not to be new: some MB. More of them are met again at their next transfer.
const MOST: usize = 100_000;

/// A contract, and a block with a transfer of it; `None`: none is known, and the contract may not be deployed yet.
pub(super) type Newcomer = (Address, Option<u64>);

/// The contracts of one chain. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Newcomers(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    line: VecDeque<Newcomer>,
    /// Those in line, and those that are done.
    met: AddressSet,
}

impl Waiting {
    fn meet(&mut self, newcomer: Newcomer) {
        if self.met.len() >= MOST {
            self.met.clear();
        }
        if self.line.len() < MOST && self.met.insert(newcomer.0) {
            self.line.push_back(newcomer);
        }
    }
}

impl Newcomers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The emitters of the transfers in a committed batch.
    pub(super) fn saw(&self, batch: &BlockBatch) {
        let (mut waiting, mut last) = (self.waiting(), None);
        for (header, log) in batch.rows() {
            // With four topics, it is a transfer of one thing, which has no amount.
            if log.topics.len() == 3 && log.topics[0] == TRANSFER && last != Some(log.address) {
                last = Some(log.address);
                waiting.meet((log.address, Some(header.number)));
            }
        }
    }

    /// More contracts, behind the others.
    pub(super) fn add(&self, newcomers: impl IntoIterator<Item = Newcomer>) {
        let mut waiting = self.waiting();
        newcomers.into_iter().for_each(|newcomer| waiting.meet(newcomer));
    }

    /// Takes the first ones out of the line.
    pub(super) fn next(&self, most: usize) -> Vec<Newcomer> {
        let line = &mut self.waiting().line;
        let taken = most.min(line.len());
        line.drain(..taken).collect()
    }

    /// They were not asked yet, and are the first again.
    pub(super) fn put_back(&self, newcomers: &[Newcomer]) {
        let line = &mut self.waiting().line;
        newcomers.iter().rev().for_each(|newcomer| line.push_front(*newcomer));
    }

    /// They were asked in vain, and are the last: one that always fails keeps nobody waiting.
    pub(super) fn again(&self, newcomers: impl IntoIterator<Item = Newcomer>) {
        self.waiting().line.extend(newcomers);
    }

    /// Nothing is known of a contract: its first transfer makes it new again.
    pub(super) fn forget(&self, address: &Address) {
        self.waiting().met.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(byte: u8) -> Newcomer {
        (Address::repeat_byte(byte), Some(u64::from(byte)))
    }

    #[test]
    fn each_is_met_once_and_those_that_fail_go_to_the_end() {
        let newcomers = Newcomers::default();
        newcomers.add([of(1), of(2), of(1), of(3)]);
        let first = newcomers.next(2);
        assert_eq!(first, [of(1), of(2)]);
        newcomers.add(first.clone());
        newcomers.put_back(&first[1..]);
        newcomers.again([of(1)]);
        assert_eq!(newcomers.next(9), [of(2), of(3), of(1)]);
        newcomers.forget(&of(3).0);
        newcomers.add([of(2), of(3)]);
        assert_eq!(newcomers.next(9), [of(3)]);
    }

    #[test]
    fn the_line_is_bounded() {
        let newcomers = Newcomers::default();
        newcomers.add((0..MOST as u64 + 10).map(|number| (Address::left_padding_from(&number.to_be_bytes()), None)));
        let waiting = newcomers.waiting();
        assert!(waiting.line.len() == MOST && waiting.met.len() <= MOST);
    }
}
