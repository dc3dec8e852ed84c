//! The smallest facts about blocks.

use std::fmt;

use alloy::primitives::{B256, Bloom};

/// A block, with its hash to distinguish two forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Height; 0 is the genesis block.
    pub number: u64,
    /// keccak256 of the header, from the node.
    pub hash: B256,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.hash)
    }
}

/// Block times, Unix seconds: from 1970 to the end of the year 9999. Other times cannot be stored, and are not believed.
pub const TIMES: std::ops::RangeInclusive<i64> = 0..=253_402_300_799;

/// The stored part of a block header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Height.
    pub number: u64,
    /// Hash of this block.
    pub hash: B256,
    /// Hash of the parent block, if known.
    pub parent: Option<B256>,
    /// Unix seconds, from the header: every row of the block has this time.
    pub time: i64,
    /// The block's logs bloom, if the node gives one.
    pub bloom: Option<Box<Bloom>>,
}

impl Header {
    /// The block of this header.
    pub fn block(&self) -> BlockRef {
        BlockRef { number: self.number, hash: self.hash }
    }
}

/// A non-empty, inclusive range of block numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRange {
    /// First block.
    pub first: u64,
    /// Last block, `>= first`.
    pub last: u64,
}

impl BlockRange {
    /// `first..=last`, or `None` if it is empty.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Number of blocks.
    pub fn blocks(self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether `number` lies inside.
    pub fn contains(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "block {}", self.first)
        } else {
            write!(f, "blocks {}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_of_its_ends_and_says_so() {
        let range = BlockRange::new(5, 9).unwrap();
        assert_eq!((range.blocks(), range.to_string()), (5, "blocks 5-9".to_owned()));
        assert_eq!([4, 5, 9, 10].map(|number| range.contains(number)), [false, true, true, false]);
        let one = BlockRange::new(7, 7).unwrap();
        assert_eq!((one.blocks(), one.to_string()), (1, "block 7".to_owned()));
        assert_eq!(BlockRange::new(8, 7), None);
    }

    #[test]
    fn a_block_is_named_by_number_and_hash() {
        let hash = B256::repeat_byte(0xab);
        let header = Header { number: 7, hash, parent: None, time: 1, bloom: None };
        assert_eq!(header.block(), BlockRef { number: 7, hash });
        assert_eq!(header.block().to_string(), format!("7 (0x{})", "ab".repeat(32)));
    }
}
