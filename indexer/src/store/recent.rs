//! The tables with rows of a chain's newest blocks, if this process wrote all of these blocks: an unwind removes rows only from
//! these tables.

use std::collections::{BTreeSet, VecDeque};

use super::commit::{Change, Commit};

/// Remembered batches: more than the depth of reorgs.
const BATCHES: usize = 1_024;

/// The knowledge about the blocks at a chain's tail.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Its epoch.
    epoch: Option<i64>,
    /// The last block of each batch, with the indexes of the datasets with rows of it; ascending.
    batches: VecDeque<(u64, Vec<usize>)>,
    /// The first block whose rows are all known.
    from: Option<u64>,
}

impl Recent {
    /// Records the next commit. After a commit of another process in between, earlier blocks are unknown.
    pub fn note(&mut self, commit: &Commit) {
        if self.epoch.is_none_or(|epoch| epoch + 1 != commit.epoch) {
            self.forget();
        }
        self.epoch = Some(commit.epoch);
        match commit.change {
            Change::Appended(range) => {
                let datasets = commit.touched.iter().map(|touched| touched.dataset).collect();
                self.from = self.from.or(Some(range.first));
                self.batches.push_back((range.last, datasets));
                if self.batches.len() > BATCHES {
                    self.from = self.batches.pop_front().map(|(last, _)| last + 1);
                }
            }
            Change::Unwound { to, .. } => {
                // A cut batch may name more tables than the rest has rows in, which is harmless.
                while self.batches.back().is_some_and(|(last, _)| *last >= to.next)
                    && self.batches.len() > 1
                    && self.batches[self.batches.len() - 2].0 + 1 >= to.next
                {
                    self.batches.pop_back();
                }
                if let Some((last, _)) = self.batches.back_mut() {
                    *last = (*last).min(to.next.saturating_sub(1));
                }
                if self.from.is_some_and(|from| from >= to.next) {
                    self.forget();
                }
            }
            // Final blocks, below those that an unwind can remove.
            Change::Backfilled(_) => {}
            Change::Jumped(_) | Change::Repaired(_) | Change::Decoded(_) | Change::Reset => self.forget(),
        }
    }

    /// Knows nothing from now on.
    pub fn forget(&mut self) {
        self.batches.clear();
        self.from = None;
    }

    /// The indexes of the datasets with rows of blocks from `first` upwards, just before the commit that makes `epoch`; `None` if
    /// unknown.
    pub fn since(&self, first: u64, epoch: i64) -> Option<BTreeSet<usize>> {
        let is_known = self.epoch == Some(epoch - 1) && self.from.is_some_and(|from| from <= first);
        let batches = self.batches.iter().rev().take_while(|(last, _)| *last >= first);
        is_known.then(|| batches.flat_map(|(_, datasets)| datasets.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use chrono::DateTime;

    use super::*;
    use crate::chain::block::{BlockRange, BlockRef};
    use crate::chain::machine::Tail;
    use crate::store::commit::Touched;

    fn commit(epoch: i64, change: Change, datasets: &[usize]) -> Commit {
        let touched = datasets.iter().map(|dataset| Touched { dataset: *dataset, rows: 1 }).collect();
        Commit { chain_id: 1, epoch, change, touched, at: DateTime::UNIX_EPOCH }
    }

    fn append(epoch: i64, first: u64, last: u64, datasets: &[usize]) -> Commit {
        commit(epoch, Change::Appended(BlockRange { first, last }), datasets)
    }

    fn unwound(epoch: i64, next: u64) -> Commit {
        let tail = |next| Tail { next, hash: None };
        commit(epoch, Change::Unwound { from: tail(99), to: tail(next) }, &[])
    }

    fn known(recent: &Recent, first: u64, epoch: i64) -> Option<Vec<usize>> {
        recent.since(first, epoch).map(|datasets| datasets.into_iter().collect())
    }

    #[test]
    fn tables_are_those_of_the_blocks_that_go() {
        let mut recent = Recent::default();
        recent.note(&append(1, 10, 19, &[0, 1]));
        recent.note(&append(2, 20, 20, &[]));
        recent.note(&append(3, 21, 21, &[2]));
        assert_eq!(known(&recent, 21, 4), Some(vec![2]));
        assert_eq!(known(&recent, 20, 4), Some(vec![2]));
        assert_eq!(known(&recent, 15, 4), Some(vec![0, 1, 2]));
        assert_eq!(known(&recent, 9, 4), None, "that was written before");
        assert_eq!(known(&recent, 21, 5), None, "somebody else committed");

        recent.note(&unwound(4, 15));
        assert_eq!(known(&recent, 15, 5), Some(vec![]), "they are gone");
        assert_eq!(known(&recent, 14, 5), Some(vec![0, 1]));
        recent.note(&append(5, 15, 15, &[3]));
        assert_eq!(known(&recent, 12, 6), Some(vec![0, 1, 3]));
    }

    #[test]
    fn nothing_is_known_after_what_others_did() {
        let filled = Change::Backfilled(BlockRange { first: 1, last: 2 });
        let block = BlockRef { number: 50, hash: B256::ZERO };
        for (next, still) in [
            (append(2, 11, 11, &[]), true),
            (append(3, 11, 11, &[]), false),
            (commit(2, filled, &[7]), true),
            (commit(2, Change::Jumped(block), &[]), false),
            (commit(2, Change::Repaired(BlockRange { first: 10, last: 10 }), &[1]), false),
            (commit(2, Change::Reset, &[]), false),
            (unwound(2, 10), false),
        ] {
            let mut recent = Recent::default();
            recent.note(&append(1, 10, 10, &[0]));
            let epoch = next.epoch + 1;
            recent.note(&next);
            assert_eq!(known(&recent, 10, epoch), still.then(|| vec![0]), "{next:?}");
        }
    }

    #[test]
    fn it_remembers_so_many_batches() {
        let mut recent = Recent::default();
        let count = BATCHES as u64 + 5;
        for block in 0..count {
            recent.note(&append(block as i64 + 1, block, block, &[block as usize]));
        }
        assert_eq!(known(&recent, 4, count as i64 + 1), None);
        assert_eq!(known(&recent, 5, count as i64 + 1).map(|datasets| datasets.len()), Some(BATCHES));
    }
}
