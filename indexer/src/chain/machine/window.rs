//! The fetches that are under way or wait for their commit.

use std::collections::BTreeMap;

use super::vocabulary::{Action, FetchFailure, FetchId, Tail};
use crate::chain::batch::Link;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::range::RangeSizer;

/// The limits of the machine before it waits, or leaves history to the backfill lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fetches under way or waiting for their commit.
    pub fetches: usize,
    /// Bytes that they hold together. The next batch to commit is always fetched.
    pub bytes: u64,
    /// A tail at least this many blocks below the newest final block jumps there: the blocks between are history, which several
    /// workers fetch in any order. A shorter distance is fetched by the tail itself in a few ranges.
    pub far_behind: u64,
}

/// Blocks this close to the head are fetched by hash: a reorg may happen between two calls.
const NEAR_HEAD: u64 = 32;
/// The number of these blocks fetched together: failed blocks are requested again, and delay few others.
const TOGETHER: u64 = 8;

/// One fetch, and the batch that it brought.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slot {
    pub id: FetchId,
    pub range: BlockRange,
    /// `None` while the node is asked.
    pub link: Option<Link>,
    /// Bytes held; an estimate while the node is asked.
    pub bytes: u64,
    pub blocks: Vec<BlockRef>,
}

/// The fetched blocks above the tail.
#[derive(Clone, Debug)]
pub(super) struct Window {
    limits: Limits,
    sizer: RangeSizer,
    /// By first block; disjoint; all at or above the tail.
    slots: BTreeMap<u64, Slot>,
    next_id: u64,
}

impl Window {
    pub fn new(limits: Limits, sizer: RangeSizer) -> Self {
        Self { limits, sizer, slots: BTreeMap::new(), next_id: 0 }
    }

    pub fn wants(&self, id: FetchId) -> bool {
        self.slots.values().any(|slot| slot.id == id)
    }

    /// The fetches without an answer.
    pub fn asked(&self) -> impl Iterator<Item = (FetchId, BlockRange)> + '_ {
        self.slots.values().filter(|slot| slot.link.is_none()).map(|slot| (slot.id, slot.range))
    }

    /// The slot that begins with this block.
    pub fn at(&self, first: u64) -> Option<&Slot> {
        self.slots.get(&first)
    }

    pub fn take(&mut self, first: u64) -> Option<Slot> {
        self.slots.remove(&first)
    }

    pub fn put_back(&mut self, slot: Slot) {
        self.slots.insert(slot.range.first, slot);
    }

    pub fn clear(&mut self) {
        self.slots.clear();
    }

    pub fn limit_range(&mut self, blocks: Option<u64>) {
        self.sizer.limit(blocks);
    }

    fn slot_of(&mut self, id: FetchId) -> Option<&mut Slot> {
        self.slots.values_mut().find(|slot| slot.id == id)
    }

    pub fn fetched(&mut self, id: FetchId, link: Link, logs: u64, bytes: u64, blocks: Vec<BlockRef>) {
        let Some(slot) = self.slot_of(id) else { return };
        slot.link = Some(link);
        slot.bytes = bytes;
        slot.blocks = blocks;
        // Near the head the arrived blocks are kept, and the rest is requested again.
        slot.range.last = slot.range.last.min(link.last.number.max(slot.range.first));
        let range = slot.range;
        if self.sizer.is_excessive(range.blocks(), logs, bytes) {
            self.slots.remove(&range.first);
        }
        // The width of a short range says nothing about the node.
        if range.blocks() >= self.sizer.blocks() || logs > 0 {
            self.sizer.fetched(range.blocks(), logs, bytes);
        }
    }

    /// # Errors
    /// The block that is too large by itself.
    pub fn failed(&mut self, id: FetchId, failure: FetchFailure) -> Result<(), u64> {
        let Some(range) = self.slot_of(id).map(|slot| slot.range) else { return Ok(()) };
        self.slots.remove(&range.first);
        match failure {
            FetchFailure::TooLarge { hint } if !self.sizer.too_large(range.blocks(), hint) => Err(range.first),
            FetchFailure::TooLarge { .. } | FetchFailure::Gone => Ok(()),
        }
    }

    /// Keeps the slots that fit the stored `tail`; `before` was the assumed tail. Returns whether any fits.
    pub fn follow(&mut self, before: Tail, tail: Tail) -> bool {
        // A batch in memory is still valid if the stored tail is the tail that it was fetched for, or the tail after it.
        let follows = self
            .slots
            .values()
            .next()
            .is_some_and(|slot| tail == before || slot.link.is_some_and(|link| Tail::after(link.last) == tail));
        if follows {
            self.slots.retain(|_, slot| slot.range.first >= tail.next);
        }
        follows
    }

    /// The next fetch at or above `next`, the block after the committed or committing blocks; `held` bytes are being committed.
    /// `None`: all blocks are fetched, or enough bytes are held.
    pub fn fetch(&mut self, next: u64, held: u64, head: u64) -> Option<Action> {
        let range = self.next_range(next, head)?;
        let expected = self.sizer.target_bytes();
        let bytes = held + self.slots.values().map(|slot| slot.bytes).sum::<u64>() + expected;
        // The next batch to commit must be fetched at any fill level; otherwise no bytes would ever be released.
        if range.first != next && (self.slots.len() >= self.limits.fetches || bytes > self.limits.bytes) {
            return None;
        }
        let id = FetchId(self.next_id);
        self.next_id += 1;
        self.slots.insert(range.first, Slot { id, range, link: None, bytes: expected, blocks: Vec::new() });
        Some(Action::Fetch { id, range, near_head: head - range.last < NEAR_HEAD })
    }

    /// The lowest range at or above `first` without a slot.
    fn next_range(&self, mut first: u64, head: u64) -> Option<BlockRange> {
        let mut limit = head;
        for slot in self.slots.values() {
            if slot.range.first > first {
                limit = limit.min(slot.range.first - 1);
                break;
            }
            first = slot.range.last + 1;
        }
        let mut last = first.saturating_add(self.sizer.blocks() - 1).min(limit);
        // Far ranges end below the blocks that are fetched by hash; near ones are kept short.
        let near = head.saturating_sub(NEAR_HEAD - 1);
        if first < near {
            last = last.min(near - 1);
        } else {
            last = last.min(first + TOGETHER - 1);
        }
        BlockRange::new(first, last)
    }
}
