//! The number of blocks per request: learned from the answers.

/// A larger multiple of the target is fetched again in parts.
const EXCESS: u64 = 4;

/// A range is at most this many times as wide as the previous one: a stretch whose density grows faster is fetched twice.
const GROWTH: u64 = 4;

/// Aims at a number of logs and of bytes per answer.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSizer {
    /// Blocks of the next range.
    size: u64,
    /// The configured maximum.
    max: u64,
    /// The upper limit: the maximum, lowered to the nodes' limit.
    cap: u64,
    /// Target logs of a range.
    target_logs: u64,
    /// Target bytes of a range's batch.
    target_bytes: u64,
}

impl RangeSizer {
    /// Starts at `first` blocks, never above `max`, with a target of `target_logs` logs or `target_bytes` bytes per range,
    /// whichever comes first. All at least 1.
    pub fn new(first: u64, max: u64, target_logs: u64, target_bytes: u64) -> Self {
        let cap = max.max(1);
        Self {
            size: first.clamp(1, cap),
            max: cap,
            cap,
            target_logs: target_logs.max(1),
            target_bytes: target_bytes.max(1),
        }
    }

    /// Target bytes of a range.
    pub fn target_bytes(&self) -> u64 {
        self.target_bytes
    }

    /// Whether an answer is so far above the target that it should be fetched again in parts: a transaction is bounded by rows
    /// and bytes, except for a single block, which cannot be split.
    pub fn is_excessive(&self, blocks: u64, logs: u64, bytes: u64) -> bool {
        blocks > 1
            && (logs > self.target_logs.saturating_mul(EXCESS) || bytes > self.target_bytes.saturating_mul(EXCESS))
    }

    /// Blocks of the next request.
    pub fn blocks(&self) -> u64 {
        self.size
    }

    /// `blocks` blocks had `logs` logs in `bytes` bytes: aim at the target with this density, at most four times as wide.
    pub fn fetched(&mut self, blocks: u64, logs: u64, bytes: u64) {
        let by_logs = self.target_logs.saturating_mul(blocks) / logs.max(1);
        let by_bytes = self.target_bytes.saturating_mul(blocks) / bytes.max(1);
        let limit = self.size.saturating_mul(GROWTH).min(self.cap);
        self.size = by_logs.min(by_bytes).clamp(1, limit.max(1));
    }

    /// No range is wider than the limit of the nodes in use, if known.
    pub fn limit(&mut self, blocks: Option<u64>) {
        self.cap = self.max.min(blocks.unwrap_or(self.max).max(1));
        self.size = self.size.min(self.cap);
    }

    /// A range of `blocks` was refused or cut because of its size. `hint` is the size that the node suggests, if any. `false`: a
    /// single block is already too large, so splitting cannot help.
    pub fn too_large(&mut self, blocks: u64, hint: Option<u64>) -> bool {
        if blocks <= 1 {
            return false;
        }
        let half = blocks / 2;
        self.size = hint.filter(|h| (1..blocks).contains(h)).unwrap_or(half).max(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_climbs_to_the_target_density_and_stays_under_the_cap() {
        let mut sizer = RangeSizer::new(100, 1_000, 10_000, 1_000_000);
        sizer.fetched(100, 10_000, 0);
        assert_eq!(sizer.blocks(), 100);
        sizer.fetched(100, 1_000, 0);
        assert_eq!(sizer.blocks(), 400, "four times at most");
        for _ in 0..5 {
            sizer.fetched(sizer.blocks(), 0, 0);
        }
        assert_eq!(sizer.blocks(), 1_000, "an empty stretch climbs to the cap");
        sizer.fetched(1_000, 1_000_000, 0);
        assert_eq!(sizer.blocks(), 10, "a dense stretch falls at once");
    }

    #[test]
    fn large_logs_count_by_their_bytes() {
        let mut sizer = RangeSizer::new(100, 1_000, 10_000, 1_000_000);
        sizer.fetched(100, 100, 10_000_000);
        assert_eq!(sizer.blocks(), 10, "100 kB a block");
        assert!(sizer.is_excessive(100, 100, 10_000_000) && !sizer.is_excessive(10, 100, 4_000_000));
        assert!(
            sizer.is_excessive(2, 50_000, 0) && !sizer.is_excessive(1, 50_000, 50_000_000),
            "one block is one block"
        );
        sizer.limit(Some(3));
        sizer.fetched(3, 0, 0);
        assert_eq!(sizer.blocks(), 3, "what the nodes allow is not probed again");
        sizer.limit(None);
        sizer.fetched(3, 0, 0);
        assert_eq!(sizer.blocks(), 12, "another node allows more");
    }

    #[test]
    fn a_refusal_halves_or_goes_to_what_the_node_says_would_work() {
        let mut sizer = RangeSizer::new(100, 1_000, 10_000, 1_000_000);
        assert!(sizer.too_large(100, None));
        assert_eq!(sizer.blocks(), 50);
        assert!(sizer.too_large(50, Some(7)));
        assert_eq!(sizer.blocks(), 7);
        assert!(!sizer.too_large(1, None));
    }

    #[test]
    fn the_edges_of_excess_and_of_hints() {
        let mut sizer = RangeSizer::new(0, 0, 0, 0);
        assert_eq!((sizer.blocks(), sizer.target_bytes()), (1, 1), "all are 1 at least");
        assert!(sizer.is_excessive(2, 5, 0) && sizer.is_excessive(2, 0, 5) && !sizer.is_excessive(2, 4, 4));
        sizer = RangeSizer::new(100, 1_000, 10_000, 1_000_000);
        assert_eq!(sizer.target_bytes(), 1_000_000);
        assert!(!sizer.is_excessive(1, 50_000, 0) && !sizer.is_excessive(0, 50_000, 0));
        for (hint, next) in [(Some(0), 50), (Some(1), 1), (Some(99), 99), (Some(100), 50), (Some(u64::MAX), 50)] {
            assert!(sizer.too_large(100, hint));
            assert_eq!(sizer.blocks(), next, "{hint:?} of 100");
        }
        assert!(sizer.too_large(2, None) && sizer.blocks() == 1);
        assert!(!sizer.too_large(0, Some(7)) && sizer.blocks() == 1);
        sizer.limit(Some(0));
        assert_eq!(sizer.blocks(), 1, "a node that allows nothing is asked for a block");
    }
}
