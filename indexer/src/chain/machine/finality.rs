//! The stored blocks that are final, from the nodes' reports about blocks that we have.

use std::collections::{BTreeMap, VecDeque};

use alloy::primitives::B256;

use super::vocabulary::Tail;
use crate::chain::block::BlockRef;

/// The rule after which a block can no longer be reorganised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// The node's `finalized` tag.
    Tag,
    /// This many blocks below the head.
    Depth(u64),
    /// At once.
    Instant,
    /// Never; the head may even move back (a devnet's `evm_revert`, `anvil_rollback`).
    Never,
}

/// The number of kept reports about finality, and of kept stored hashes to compare with: on some chains, the final block is
/// thousands of blocks below the head.
const ANCHORS: usize = 64;
const RECENT: usize = 16_384;

/// A block of a node's chain, and the height up to which our chain is final once it holds that very block. A height alone proves
/// nothing: a node may be stuck on a branch that lost long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anchor {
    pub block: BlockRef,
    pub settles: u64,
}

/// The knowledge about finality.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    finality: Finality,
    /// The highest *stored* block known to be final; no unwind goes to or below it. It may be lower than the node's final block:
    /// blocks stored before a reorg may be orphans below a block that became final later.
    settled: Option<u64>,
    /// The nodes' recent reports about finality, newest last.
    anchors: VecDeque<Anchor>,
    /// Hashes of the newest stored blocks.
    recent: BTreeMap<u64, B256>,
}

impl Settling {
    pub fn new(finality: Finality) -> Self {
        Self { finality, settled: None, anchors: VecDeque::new(), recent: BTreeMap::new() }
    }

    /// Whether no block is ever final, and the head may move back.
    pub fn is_never(&self) -> bool {
        self.finality == Finality::Never
    }

    /// The highest stored block known to be final.
    pub fn settled(&self) -> Option<u64> {
        self.settled
    }

    /// The last report of a node.
    pub fn newest(&self) -> Option<Anchor> {
        self.anchors.back().copied()
    }

    /// A node's head, and the block of its `finalized` tag.
    pub fn hear(&mut self, head: BlockRef, finalized: Option<BlockRef>) {
        let anchor = match self.finality {
            Finality::Tag => finalized.map(|block| Anchor { block, settles: block.number }),
            Finality::Depth(depth) => head.number.checked_sub(depth).map(|settles| Anchor { block: head, settles }),
            Finality::Instant => Some(Anchor { block: head, settles: head.number }),
            Finality::Never => None,
        };
        if let Some(anchor) = anchor.filter(|anchor| self.anchors.back() != Some(anchor)) {
            self.anchors.push_back(anchor);
            if self.anchors.len() > ANCHORS {
                self.anchors.pop_front();
            }
        }
        self.raise(self.settled_with(&[]));
    }

    /// `blocks` were committed.
    pub fn store(&mut self, blocks: impl IntoIterator<Item = BlockRef>) {
        self.remember(blocks);
        self.raise(self.settled_with(&[]));
    }

    /// The newest stored blocks, and the highest final one, from the database.
    pub fn load(&mut self, recent: Vec<BlockRef>, finalized: Option<u64>) {
        self.recent.clear();
        self.remember(recent);
        self.raise(finalized.max(self.settled_with(&[])));
    }

    /// The tail jumped to `block`, which is final.
    pub fn jump(&mut self, block: BlockRef) {
        self.raise(Some(block.number));
        self.recent.clear();
        self.remember([block]);
    }

    /// From now on, blocks at or above `next` are not ours: a later final block must not be found there.
    pub fn unwind(&mut self, next: u64) {
        _ = self.recent.split_off(&next);
    }

    /// A node has `block` and all stored blocks in one chain.
    pub fn confirm(&mut self, block: BlockRef) {
        let settles = self.anchors.iter().filter(|anchor| anchor.block == block).map(|anchor| anchor.settles).max();
        self.raise(settles.and_then(|settles| self.known_below(settles)));
    }

    /// The newest final block of a node below `tail` that is not stored itself, and that would make more of our blocks final.
    pub fn unconfirmed(&self, tail: Tail) -> Option<BlockRef> {
        let anchor = self.newest().filter(|anchor| anchor.block.number < tail.next)?;
        let known = self.recent.contains_key(&anchor.block.number);
        (!known && self.known_below(anchor.settles) > self.settled).then_some(anchor.block)
    }

    /// Our highest final block, after `blocks` are committed on top: an anchor's block is one of ours.
    pub fn settled_with(&self, blocks: &[BlockRef]) -> Option<u64> {
        let ours = |block: BlockRef| self.recent.get(&block.number) == Some(&block.hash) || blocks.contains(&block);
        let settles = self.anchors.iter().filter(|anchor| ours(anchor.block)).map(|anchor| anchor.settles).max();
        // The final block as a block with a known hash, so that a node can be asked for it.
        let known = settles.and_then(|settles| {
            let new = blocks.iter().map(|block| block.number).filter(|number| *number <= settles).max();
            self.known_below(settles).max(new)
        });
        self.settled.max(known)
    }

    /// Whether the branch of `anchor` may take us back to `to`: it leaves no block that a node calls final, or a node calls the
    /// branch itself final above that block.
    pub fn may_leave(&self, anchor: BlockRef, to: Tail) -> bool {
        let called_final = self.settled.max(self.newest().map(|newest| newest.settles));
        called_final.is_none_or(|number| number < to.next)
            || self.anchors.iter().any(|known| known.block == anchor && known.settles >= to.next)
    }

    /// The highest block at or below `number` with a known hash.
    fn known_below(&self, number: u64) -> Option<u64> {
        self.recent.range(..=number).next_back().map(|(number, _)| *number)
    }

    fn raise(&mut self, to: Option<u64>) {
        self.settled = self.settled.max(to);
    }

    fn remember(&mut self, blocks: impl IntoIterator<Item = BlockRef>) {
        self.recent.extend(blocks.into_iter().map(|block| (block.number, block.hash)));
        while self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }
}
