//! The whole sync logic: [`Input`]s in, [`Action`]s out. The driver performs the actions and reports back; nothing
//! here awaits, reads a clock or opens a socket, so that every interleaving can be played in a test.

use std::collections::BTreeMap;
use std::fmt;

use alloy::primitives::B256;

use super::batch::Link;
use super::block::{BlockRange, BlockRef};
use super::range::RangeSizer;
use super::reorg::Fork;

/// When a block can no longer be reorganised.
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

/// The end of what is committed: the next block to commit, and the hash it must stand on (`None`: nothing below it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Number of the next block.
    pub next: u64,
    /// Hash of block `next - 1`, where we have it.
    pub hash: Option<B256>,
}

impl Tail {
    /// The tail after `block`.
    pub fn after(block: BlockRef) -> Self {
        Self { next: block.number + 1, hash: Some(block.hash) }
    }
}

/// Names one fetch, so that an answer that is no longer wanted can be told from one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(u64);

/// What happened. Inputs of the machine are not called events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// The node's newest block, and what its `finalized` tag says where that was asked.
    Head {
        /// Newest block.
        head: BlockRef,
        /// Number of the block tagged `finalized`.
        finalized: Option<u64>,
    },
    /// A fetch brought a batch that is whole.
    Fetched {
        /// Which fetch.
        id: FetchId,
        /// How the batch joins the chain.
        link: Link,
        /// Logs in it.
        logs: u64,
    },
    /// A fetch failed in a way that repeating it unchanged does not mend.
    FetchFailed {
        /// Which fetch.
        id: FetchId,
        /// Why.
        failure: FetchFailure,
    },
    /// The append was committed.
    Committed,
    /// The append or unwind was not committed, or it is not known whether it was.
    WriteLost,
    /// The state row, read under its lock.
    Loaded {
        /// Committed tail.
        tail: Tail,
        /// The highest stored block that is final.
        finalized: Option<u64>,
    },
    /// Stored blocks were compared with the node's. [`Fork::Below`] here means: down to the end, none matches.
    Compared(Fork),
    /// The unwind was committed.
    Unwound,
}

/// Why a fetch cannot simply be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// Too many blocks, logs or bytes; with the number of blocks the node allows, where it names one.
    TooLarge {
        /// The node's limit in blocks.
        hint: Option<u64>,
    },
    /// The node no longer, or not yet, has a block of the range.
    Gone,
}

/// What the driver shall do. At most one of the actions other than `Fetch` is under way at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Fetch `range`. `near_head`: all headers first, then the logs pinned by block hash.
    Fetch {
        /// Name of this fetch.
        id: FetchId,
        /// What to fetch.
        range: BlockRange,
        /// Whether these blocks may still be reorganised under our feet.
        near_head: bool,
    },
    /// Commit the batch of fetch `id` on top of `on`.
    Append {
        /// Which batch.
        id: FetchId,
        /// The tail that the commit must find.
        on: Tail,
        /// The highest stored block that is final after it; only ever rises.
        finalized: Option<u64>,
    },
    /// Drop every batch and running fetch.
    Forget,
    /// Compare stored blocks with the node's from the tail downwards, not below `floor`.
    Compare {
        /// Lowest block that may be unwound to.
        floor: Option<u64>,
    },
    /// Remove every block from `to.next` upwards; the tail to find is `from`.
    Unwind {
        /// The tail that the commit must find.
        from: Tail,
        /// The tail afterwards.
        to: Tail,
    },
    /// Read the state row under its lock, however long that takes.
    Reload,
    /// Stop this chain: an operator must decide.
    Stop(Stop),
}

/// Why a chain stopped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The node's chain leaves ours below a block that was final.
    #[error(
        "the node's chain differs from the stored one below finalized block {finalized}; nothing was removed. Check that \
         the RPC URLs are of the right chain; if the chain really rewrote finalized blocks, restore or re-index it"
    )]
    BelowFinalized {
        /// The finalized block.
        finalized: u64,
    },
    /// One block alone is too large for the limits.
    #[error(
        "block {number} alone passes the node's or our response limit; raise `max_response_bytes` or use another node"
    )]
    BlockTooLarge {
        /// The block.
        number: u64,
    },
}

/// What progress depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No head seen yet.
    FirstHead,
    /// Everything is committed up to the head.
    NextBlock,
    /// The node reports less than we have stored.
    NodeBehind(u64),
    /// Logs and headers of a range.
    Fetch(BlockRange),
    /// The commit of a range.
    Append(BlockRange),
    /// Finding the fork point.
    Compare,
    /// Removing orphaned rows.
    Unwind,
    /// Reading the state row.
    Reload,
    /// An operator.
    Operator(Stop),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::FirstHead => f.write_str("the node's first head"),
            Wait::NextBlock => f.write_str("the next block"),
            Wait::NodeBehind(number) => write!(f, "a node that has block {number}"),
            Wait::Fetch(range) => write!(f, "the node: logs of {range}"),
            Wait::Append(range) => write!(f, "PostgreSQL: commit of {range}"),
            Wait::Compare => f.write_str("the node: fork point of a reorg"),
            Wait::Unwind => f.write_str("PostgreSQL: unwind of orphaned blocks"),
            Wait::Reload => f.write_str("PostgreSQL: state of the chain"),
            Wait::Operator(stop) => write!(f, "an operator: {stop}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    id: FetchId,
    range: BlockRange,
    /// `None` while the node is asked.
    link: Option<Link>,
    /// The node's finalized block when the fetch began.
    finalized: Option<u64>,
}

impl Slot {
    /// The highest block of ours that is final once this batch is committed: the batch stands on our chain and was
    /// fetched when `finalized` was final already, so our block of that height is the final one.
    fn settles(&self) -> Option<u64> {
        self.finalized.map(|finalized| finalized.min(self.range.last))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Nothing,
    Appending(Slot),
    Comparing,
    Unwinding(Tail),
    Reloading,
    Stopped(Stop),
}

/// Where a chain's sync stands.
#[derive(Clone, Debug)]
pub struct Machine {
    finality: Finality,
    start: u64,
    parallelism: usize,
    sizer: RangeSizer,
    tail: Tail,
    head: Option<BlockRef>,
    /// The highest block that the node called final.
    finalized: Option<u64>,
    /// The highest *stored* block known to be final; nothing is unwound at or below it. It may be lower than
    /// `finalized`: what was stored before a reorg may be orphaned below a block that became final since.
    settled: Option<u64>,
    /// By first block; disjoint; all at or above `tail.next`.
    slots: BTreeMap<u64, Slot>,
    doing: Doing,
    /// The head that was compared last and found to agree with what is stored.
    agreed: Option<BlockRef>,
    next_id: u64,
}

/// Blocks this close to the head are fetched by hash: they may be reorganised between two calls.
const NEAR_HEAD: u64 = 32;

impl Machine {
    /// A machine for a chain indexed from block `start` with at most `parallelism` fetches under way. Its first action,
    /// from [`Machine::begin`], is to load the stored state.
    pub fn new(finality: Finality, start: u64, parallelism: usize, sizer: RangeSizer) -> Self {
        Self {
            finality,
            start,
            parallelism: parallelism.max(1),
            sizer,
            tail: Tail { next: start, hash: None },
            head: None,
            finalized: None,
            settled: None,
            slots: BTreeMap::new(),
            doing: Doing::Reloading,
            agreed: None,
            next_id: 0,
        }
    }

    /// The first action.
    pub fn begin(&self) -> Action {
        Action::Reload
    }

    /// The committed tail.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// The newest head seen.
    pub fn head(&self) -> Option<BlockRef> {
        self.head
    }

    /// The highest block known to be final.
    pub fn finalized(&self) -> Option<u64> {
        self.finalized
    }

    /// What progress depends on now.
    pub fn wait(&self) -> Wait {
        match (self.doing, self.head) {
            (Doing::Stopped(stop), _) => Wait::Operator(stop),
            (Doing::Appending(slot), _) => Wait::Append(slot.range),
            (Doing::Comparing, _) => Wait::Compare,
            (Doing::Unwinding(_), _) => Wait::Unwind,
            (Doing::Reloading, _) => Wait::Reload,
            (Doing::Nothing, None) => Wait::FirstHead,
            (Doing::Nothing, Some(head)) => match self.slots.get(&self.tail.next) {
                Some(slot) => Wait::Fetch(slot.range),
                None if head.number + 1 < self.tail.next => Wait::NodeBehind(self.tail.next - 1),
                None => Wait::NextBlock,
            },
        }
    }

    /// Takes one input and says what to do now.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Head { head, finalized } => self.see_head(head, finalized),
            Input::Fetched { id, link, logs } => self.fetched(id, link, logs),
            Input::FetchFailed { id, failure } => self.fetch_failed(id, failure, &mut actions),
            Input::Committed => self.committed(),
            Input::WriteLost => self.reload(&mut actions),
            Input::Loaded { tail, finalized } => self.loaded(tail, finalized, &mut actions),
            Input::Compared(fork) => self.compared(fork, &mut actions),
            Input::Unwound => self.unwound(),
        }
        self.check_head(&mut actions);
        self.append(&mut actions);
        self.fetch(&mut actions);
        actions
    }

    fn see_head(&mut self, head: BlockRef, finalized: Option<u64>) {
        let finalized = match self.finality {
            Finality::Tag => finalized,
            Finality::Depth(depth) => head.number.checked_sub(depth),
            Finality::Instant => Some(head.number),
            Finality::Never => None,
        };
        self.finalized = self.finalized.max(finalized);
        self.head = Some(head);
    }

    fn slot_of(&mut self, id: FetchId) -> Option<&mut Slot> {
        self.slots.values_mut().find(|slot| slot.id == id)
    }

    fn fetched(&mut self, id: FetchId, link: Link, logs: u64) {
        let Some(slot) = self.slot_of(id) else { return };
        slot.link = Some(link);
        let range = slot.range;
        // A short range says nothing about the width that suits the node.
        if range.blocks() >= self.sizer.blocks() || logs > 0 {
            self.sizer.fetched(range.blocks(), logs);
        }
    }

    fn fetch_failed(&mut self, id: FetchId, failure: FetchFailure, actions: &mut Vec<Action>) {
        let Some(slot) = self.slot_of(id).copied() else { return };
        self.slots.remove(&slot.range.first);
        if let FetchFailure::TooLarge { hint } = failure
            && !self.sizer.too_large(slot.range.blocks(), hint)
        {
            self.stop(Stop::BlockTooLarge { number: slot.range.first }, actions);
        }
    }

    fn committed(&mut self) {
        if let Doing::Appending(slot @ Slot { link: Some(link), .. }) = self.doing {
            self.tail = Tail::after(link.last);
            self.settled = self.settled.max(slot.settles());
            self.doing = Doing::Nothing;
        }
    }

    fn reload(&mut self, actions: &mut Vec<Action>) {
        // The batch may be committed or not; it goes back to the slots, and the state row decides.
        if let Doing::Appending(slot) = self.doing {
            self.slots.insert(slot.range.first, slot);
        }
        self.doing = Doing::Reloading;
        actions.push(Action::Reload);
    }

    fn loaded(&mut self, tail: Tail, finalized: Option<u64>, actions: &mut Vec<Action>) {
        // A batch in hand is still good if the stored tail is the one it was fetched for, or the one after it.
        let follows = self
            .slots
            .values()
            .next()
            .is_some_and(|slot| tail == self.tail || slot.link.is_some_and(|link| Tail::after(link.last) == tail));
        if follows {
            self.slots.retain(|_, slot| slot.range.first >= tail.next);
        } else {
            self.forget(actions);
        }
        self.tail = tail;
        self.settled = self.settled.max(finalized);
        self.doing = Doing::Nothing;
    }

    fn compared(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        self.doing = Doing::Nothing;
        let to = match fork {
            Fork::Unsure => return,
            Fork::At(block) => Tail::after(block),
            Fork::Below => Tail { next: self.start, hash: None },
        };
        if to.next >= self.tail.next {
            // The node has our tail after all: what looked like a reorg was one answer out of step.
            self.agreed = self.head;
        } else if let Some(finalized) = self.settled.filter(|f| to.next <= *f) {
            self.stop(Stop::BelowFinalized { finalized }, actions);
        } else {
            self.doing = Doing::Unwinding(to);
            actions.push(Action::Unwind { from: self.tail, to });
        }
    }

    fn unwound(&mut self) {
        if let Doing::Unwinding(to) = self.doing {
            self.tail = to;
            self.doing = Doing::Nothing;
            self.agreed = None;
        }
    }

    /// A head at or below our tail is suspicious: the same height with another hash is a reorg of equal length, and on
    /// a chain whose head may move back a lower head is a rollback. Elsewhere a lower head is a node that lags.
    fn check_head(&mut self, actions: &mut Vec<Action>) {
        let (Doing::Nothing, Some(head)) = (self.doing, self.head) else { return };
        if head.number >= self.tail.next || self.tail.next == self.start || self.agreed == Some(head) {
            return;
        }
        let same_height = head.number + 1 == self.tail.next;
        let differs = same_height && self.tail.hash.is_some_and(|hash| hash != head.hash);
        if differs || (!same_height && self.finality == Finality::Never) {
            self.compare(actions);
        }
    }

    fn compare(&mut self, actions: &mut Vec<Action>) {
        self.forget(actions);
        self.doing = Doing::Comparing;
        actions.push(Action::Compare { floor: self.settled });
    }

    fn append(&mut self, actions: &mut Vec<Action>) {
        if self.doing != Doing::Nothing {
            return;
        }
        let Some(slot) = self.slots.get(&self.tail.next).copied() else { return };
        let Some(link) = slot.link else { return };
        let stands = match (self.tail.hash, link.parent) {
            (Some(tail), Some(parent)) => tail == parent,
            // Nothing is stored below, or the node gave no header for the first block: nothing to compare.
            _ => true,
        };
        if !stands {
            return self.compare(actions);
        }
        self.slots.remove(&slot.range.first);
        self.doing = Doing::Appending(slot);
        actions.push(Action::Append { id: slot.id, on: self.tail, finalized: slot.settles() });
    }

    /// Keeps fetches under way for the lowest blocks that nobody has yet.
    fn fetch(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.doing, Doing::Nothing | Doing::Appending(_)) {
            return;
        }
        let Some(head) = self.head else { return };
        while self.slots.len() < self.parallelism {
            let Some(range) = self.next_range(head.number) else { return };
            let id = FetchId(self.next_id);
            self.next_id += 1;
            self.slots.insert(range.first, Slot { id, range, link: None, finalized: self.finalized });
            let near_head = head.number - range.last < NEAR_HEAD;
            actions.push(Action::Fetch { id, range, near_head });
        }
    }

    /// The lowest range above the tail that no slot holds.
    fn next_range(&self, head: u64) -> Option<BlockRange> {
        let mut first = match self.doing {
            Doing::Appending(slot) => slot.range.last + 1,
            _ => self.tail.next,
        };
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
            last = last.min(first + NEAR_HEAD - 1);
        }
        BlockRange::new(first, last)
    }

    fn forget(&mut self, actions: &mut Vec<Action>) {
        self.slots.clear();
        actions.push(Action::Forget);
    }

    fn stop(&mut self, stop: Stop, actions: &mut Vec<Action>) {
        self.forget(actions);
        self.doing = Doing::Stopped(stop);
        actions.push(Action::Stop(stop));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
