//! The part of a range per call: climbs towards the size of answer that a node gives fastest. Pure.
//!
//! The largest answer is not the best one: a node on the same machine spends twice the time per log in a large answer as in a
//! small one, while a remote node adds its latency to each call.

use std::time::Duration;

use crate::chain::block::BlockRange;

/// Tried sizes of an answer, in bytes of logs as [`Logs::bytes`](crate::chain::logs::Logs::bytes) counts them: about 600 to
/// 40,000 transfers.
const SIZES: [u64; 7] = [128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20];
/// The first size, about one transaction: before the first measurement, calls are few.
const FIRST: usize = 4;
/// One answer in this number is of the next smaller or larger size.
const LOOK: u32 = 6;
/// A range of more blocks is requested as a whole: its cost for a node depends on its blocks, and for a provider on its calls.
const WIDE: u64 = 5_000;
/// The weight of a new answer against all earlier ones.
const NEWER: f64 = 0.3;
/// The factor by which another size must be faster to replace the present one: answers of one size vary by as much.
const BETTER: f64 = 1.1;
/// An answer below this share of its target says nothing about the size.
const FULL: f64 = 0.5;

/// The measurements of one node.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The best size, as an index in [`SIZES`].
    best: usize,
    /// Bytes per second of answers of each size.
    rates: [Option<f64>; SIZES.len()],
    /// Requested sizes, with any result.
    tried: [bool; SIZES.len()],
    /// Recent bytes of logs per block.
    density: Option<f64>,
    calls: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { best: FIRST, rates: [None; SIZES.len()], tried: [false; SIZES.len()], density: None, calls: 0 }
    }
}

/// A part of a range to request, and its target size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Its blocks.
    pub range: BlockRange,
    size: usize,
}

impl Pace {
    /// The first part of `range` to request: the number of blocks that probably have the logs of the fastest size. The whole
    /// range before the first measurement.
    pub fn portion(&mut self, range: BlockRange) -> Portion {
        let Some(density) = self.density.filter(|_| range.blocks() <= WIDE) else {
            return Portion { range, size: self.best };
        };
        self.calls = self.calls.wrapping_add(1);
        let size = self.next_size();
        self.tried[size] = true;
        let blocks = (SIZES[size] as f64 / density.max(1.0)).clamp(1.0, range.blocks() as f64);
        // A small rest is spread over all parts.
        let parts = (range.blocks() as f64 / blocks).round().max(1.0);
        let blocks = (range.blocks() as f64 / parts).ceil() as u64;
        let range = BlockRange { first: range.first, last: range.last.min(range.first + blocks.max(1) - 1) };
        Portion { range, size }
    }

    /// The best size, and one beside it: at once if it was never tried, otherwise from time to time, below and above in turn.
    fn next_size(&self) -> usize {
        let (below, above) = (self.best.saturating_sub(1), (self.best + 1).min(SIZES.len() - 1));
        match self.calls % (2 * LOOK) {
            _ if !self.tried[self.best] => self.best,
            _ if !self.tried[below] => below,
            _ if !self.tried[above] => above,
            0 => below,
            LOOK => above,
            _ => self.best,
        }
    }

    /// A portion took `took` and had this number of bytes of logs.
    pub fn answered(&mut self, portion: Portion, bytes: u64, took: Duration) {
        let found = bytes as f64 / portion.range.blocks() as f64;
        self.density = Some(blend(self.density, found));
        if (bytes as f64) < SIZES[portion.size] as f64 * FULL {
            return;
        }
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        self.rates[portion.size] = Some(blend(self.rates[portion.size], rate));
        let rate = |size: usize| self.rates.get(size).copied().flatten();
        let Some(best) = rate(self.best) else { return };
        let beside = [self.best.wrapping_sub(1), self.best + 1];
        if let Some(faster) = beside.into_iter().find(|size| rate(*size).is_some_and(|rate| rate > best * BETTER)) {
            self.best = faster;
        }
    }
}

fn blend(old: Option<f64>, new: f64) -> f64 {
    old.map_or(new, |old| old + (new - old) * NEWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for `blocks` blocks of `density` bytes each from a node that answers `bytes` after `took(bytes)`; returns the bytes
    /// of the last portions, and the number of calls.
    fn ask(pace: &mut Pace, blocks: u64, density: u64, took: impl Fn(u64) -> f64) -> (u64, u64) {
        let (mut first, mut calls, mut widest) = (0, 0, 0);
        while first < blocks {
            let portion = pace.portion(BlockRange { first, last: blocks.min(first + 100) - 1 });
            assert_eq!(portion.range.first, first);
            let bytes = portion.range.blocks() * density;
            pace.answered(portion, bytes, Duration::from_secs_f64(took(bytes)));
            (first, calls, widest) = (portion.range.last + 1, calls + 1, bytes);
        }
        (widest, calls)
    }

    #[test]
    fn a_near_node_is_asked_for_little_and_a_far_one_for_much() {
        let (mut near, mut far) = (Pace::default(), Pace::default());
        // Large answers cost more per byte; 0.1 ms per call.
        ask(&mut near, 20_000, 20_000, |bytes| 1e-4 + bytes as f64 * 5e-9 * (1.0 + bytes as f64 / 5e5));
        assert!(SIZES[near.best] <= 256 << 10, "{near:?}");
        // 50 ms per call.
        ask(&mut far, 200_000, 200_000, |bytes| 0.05 + bytes as f64 * 5e-9);
        assert_eq!(SIZES[far.best], 8 << 20);
    }

    #[test]
    fn the_first_steps_are_quick() {
        let mut pace = Pace::default();
        ask(&mut pace, 1_000, 20_000, |bytes| 1e-4 + bytes as f64 * 5e-9 * (1.0 + bytes as f64 / 5e5));
        assert!(SIZES[pace.best] <= 512 << 10, "after ten ranges of a transaction's size: {pace:?}");
    }

    #[test]
    fn a_wide_range_is_asked_for_whole() {
        let mut pace = Pace::default();
        ask(&mut pace, 1_000, 20_000, |bytes| bytes as f64 * bytes as f64);
        let range = BlockRange { first: 0, last: 99_999 };
        assert_eq!(pace.portion(range).range, range);
    }

    #[test]
    fn sparse_ranges_stay_whole() {
        let mut pace = Pace::default();
        let (_, calls) = ask(&mut pace, 100_000, 20, |_| 0.01);
        assert_eq!(calls, 1_000, "each range of 100 blocks in one call");
        assert_eq!(pace.best, FIRST, "answers that are small for want of logs say nothing");
    }

    #[test]
    fn a_denser_stretch_is_cut_from_the_next_call_on() {
        let mut pace = Pace::default();
        ask(&mut pace, 100, 100, |_| 0.01);
        let (_, calls) = ask(&mut pace, 1_000, 1 << 20, |bytes| bytes as f64 * 1e-9);
        assert!(calls > 400, "{calls}");
    }

    #[test]
    fn a_portion_is_never_empty_and_ends_with_its_range() {
        let mut pace = Pace::default();
        for density in [0, 1, 1 << 30, 1] {
            for blocks in [1, 2, 3, 1_000] {
                let range = BlockRange { first: 7, last: 6 + blocks };
                let portion = pace.portion(range);
                assert!(portion.range.last >= 7 && portion.range.last <= range.last, "{portion:?} of {range}");
                pace.answered(portion, density * portion.range.blocks(), Duration::ZERO);
            }
        }
    }
}
