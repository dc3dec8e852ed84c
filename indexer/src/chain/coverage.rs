//! The committed blocks: disjoint ranges, never a maximum.

use super::block::BlockRange;

/// A set of block numbers as ascending, disjoint, non-adjacent ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(Vec<BlockRange>);

impl Coverage {
    /// The union of `ranges`, in any order, overlapping or not.
    pub fn new(ranges: impl IntoIterator<Item = BlockRange>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<BlockRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[BlockRange] {
        &self.0
    }

    /// Whether block `number` is covered.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|range| range.last < number);
        self.0.get(at).is_some_and(|range| range.contains(number))
    }

    /// Number of blocks covered.
    pub fn blocks(&self) -> u64 {
        self.0.iter().map(|r| r.blocks()).sum()
    }

    /// The part of `want` that is not covered, ascending.
    pub fn gaps(&self, want: BlockRange) -> Vec<BlockRange> {
        let mut gaps = Vec::new();
        let mut next = want.first;
        for range in self.0.iter().filter(|r| r.last >= want.first && r.first <= want.last) {
            if range.first > next {
                gaps.push(BlockRange { first: next, last: range.first - 1 });
            }
            next = range.last.saturating_add(1);
        }
        gaps.extend(BlockRange::new(next, want.last));
        gaps
    }
}

/// The parts of `range` below and above `taken`, which is inside it.
pub fn subtract(range: BlockRange, taken: BlockRange) -> impl Iterator<Item = BlockRange> {
    let below = taken.first.checked_sub(1).and_then(|last| BlockRange::new(range.first, last));
    let above = taken.last.checked_add(1).and_then(|first| BlockRange::new(first, range.last));
    below.into_iter().chain(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, last: u64) -> BlockRange {
        BlockRange { first, last }
    }

    #[test]
    fn ranges_merge_when_they_touch() {
        let coverage = Coverage::new([r(10, 19), r(0, 4), r(20, 20), r(5, 6), r(15, 17)]);
        assert_eq!(coverage.ranges(), [r(0, 6), r(10, 20)]);
        assert_eq!(coverage.blocks(), 18);
        assert_eq!(
            [0, 6, 7, 9, 10, 20, 21].map(|number| coverage.contains(number)),
            [true, true, false, false, true, true, false]
        );
        assert_eq!(Coverage::new([r(3, 9), r(4, 5)]).ranges(), [r(3, 9)]);
    }

    #[test]
    fn gaps_are_what_is_missing_inside() {
        let coverage = Coverage::new([r(5, 9), r(20, 29)]);
        assert_eq!(coverage.gaps(r(0, 40)), [r(0, 4), r(10, 19), r(30, 40)]);
        assert_eq!(coverage.gaps(r(6, 8)), []);
        assert_eq!(coverage.gaps(r(8, 22)), [r(10, 19)]);
        assert_eq!(coverage.gaps(r(29, 31)), [r(30, 31)]);
        assert_eq!(Coverage::default().gaps(r(1, 2)), [r(1, 2)]);
        assert_eq!(Coverage::new([r(0, u64::MAX)]).gaps(r(1, 2)), []);
    }

    #[test]
    fn the_edges_of_what_is_wanted_count() {
        let coverage = Coverage::new([r(5, 9), r(20, 29)]);
        assert_eq!(coverage.gaps(r(5, 9)), []);
        assert_eq!(coverage.gaps(r(5, 20)), [r(10, 19)]);
        assert_eq!(coverage.gaps(r(10, 19)), [r(10, 19)]);
        assert_eq!(coverage.gaps(r(9, 10)), [r(10, 10)]);
        assert_eq!(coverage.gaps(r(4, 5)), [r(4, 4)]);
    }

    #[test]
    fn what_is_left_lies_below_and_above() {
        let left = |range, taken| subtract(range, taken).collect::<Vec<_>>();
        assert_eq!(left(r(0, 9), r(3, 5)), [r(0, 2), r(6, 9)]);
        assert_eq!(left(r(0, 9), r(0, 5)), [r(6, 9)]);
        assert_eq!(left(r(1, 9), r(5, 9)), [r(1, 4)]);
        assert_eq!(left(r(0, 9), r(0, 9)), []);
        assert_eq!(left(r(0, u64::MAX), r(1, u64::MAX)), [r(0, 0)]);
    }
}
