//! The whole sync logic: [`Input`]s in, [`Action`]s out. The driver performs the actions and reports back; nothing
//! here awaits, reads a clock or opens a socket, so that every interleaving can be played in a test.

use std::collections::{BTreeMap, VecDeque};
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
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The node's newest block, and what its `finalized` tag says where that was asked.
    Head {
        /// Newest block.
        head: BlockRef,
        /// The block tagged `finalized`.
        finalized: Option<BlockRef>,
    },
    /// A fetch brought a batch that is whole: the blocks of its range, or, near the head, the first of them.
    Fetched {
        /// Which fetch.
        id: FetchId,
        /// How the batch joins the chain.
        link: Link,
        /// Logs in it.
        logs: u64,
        /// Bytes that it holds in memory.
        bytes: u64,
        /// The blocks whose hashes it brought, ascending.
        blocks: Vec<BlockRef>,
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
        /// The newest stored blocks, ascending.
        recent: Vec<BlockRef>,
    },
    /// Stored blocks were compared with the node's. [`Fork::Below`] here means: down to the end, none matches.
    Compared(Fork),
    /// The unwind was committed.
    Unwound,
    /// The jump was committed; the tail stands on that block.
    Jumped(BlockRef),
    /// The node did not have the block to jump to.
    NotJumped,
    /// A node has both that final block and the block of this tail in one chain.
    Anchored {
        /// The final block.
        block: BlockRef,
        /// The tail.
        tail: Tail,
    },
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
        /// The block that gave rise to it: only a node that has this very block is to be asked, so that what is compared is
        /// the branch that it belongs to.
        anchor: BlockRef,
    },
    /// Remove every block from `to.next` upwards; the tail to find is `from`.
    Unwind {
        /// The tail that the commit must find.
        from: Tail,
        /// The tail afterwards.
        to: Tail,
    },
    /// Set the tail to block `to`, which is final, and leave the blocks between to the backfill lane.
    Jump {
        /// The tail that the commit must find.
        from: Tail,
        /// The block that the tail shall stand on.
        to: u64,
        /// A block at or above it by which it is known to be final: only a node that has this very block is to be asked.
        anchor: BlockRef,
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
         the RPC URLs are of the right chain. If it really rewrote final blocks, remove what is stored of them with \
         `dalp-indexer reindex --from {finalized} --yes`, and from a lower block if it says so again. A devnet takes back what it calls \
         final: set its `finality = \"never\"`"
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
    /// Setting the tail to a final block.
    Jump(u64),
    /// Reading the state row.
    Reload,
    /// A node that says which of two branches is final: the nodes' leaves ours below what was final.
    Finality,
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
            Wait::Jump(number) => write!(f, "PostgreSQL: the tail's jump to block {number}"),
            Wait::Reload => f.write_str("PostgreSQL: state of the chain"),
            Wait::Finality => f.write_str(
                "a node that calls a block final: the nodes' chain leaves the stored one below a final block",
            ),
            Wait::Operator(stop) => write!(f, "an operator: {stop}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Slot {
    id: FetchId,
    range: BlockRange,
    /// `None` while the node is asked.
    link: Option<Link>,
    /// Bytes held; what is expected, while the node is asked.
    bytes: u64,
    blocks: Vec<BlockRef>,
}

/// A block of a node's chain, and up to where our chain is final once it holds that very block. Height alone says nothing:
/// a node may be stuck on a branch that lost long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    block: BlockRef,
    settles: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Doing {
    Nothing,
    Appending(Slot),
    Comparing(BlockRef),
    Unwinding(Tail),
    Jumping(u64),
    Reloading,
    Stopped(Stop),
}

/// Where a chain's sync stands.
#[derive(Clone, Debug)]
pub struct Machine {
    finality: Finality,
    start: u64,
    limits: Limits,
    sizer: RangeSizer,
    tail: Tail,
    head: Option<BlockRef>,
    /// The highest *stored* block known to be final; nothing is unwound at or below it. It may be lower than
    /// `finalized`: what was stored before a reorg may be orphaned below a block that became final since.
    settled: Option<u64>,
    /// What the nodes said lately about finality, newest last.
    anchors: VecDeque<Anchor>,
    /// Hashes of the newest stored blocks.
    recent: BTreeMap<u64, B256>,
    /// By first block; disjoint; all at or above `tail.next`.
    slots: BTreeMap<u64, Slot>,
    doing: Doing,
    /// The head that was compared last and found to agree with what is stored.
    agreed: Option<BlockRef>,
    /// The tail that was last found below that block of a node's chain.
    confirmed: Option<(Tail, BlockRef)>,
    /// The head at which the node did not have the block to jump to: not tried again before the next one.
    not_jumped: Option<BlockRef>,
    /// The head at which the nodes' branch left ours below what is settled, and none called it final: not compared again
    /// before the next one.
    undecided: Option<BlockRef>,
    next_id: u64,
}

/// How far the machine may go before it waits, or leaves history to the backfill lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fetches under way or waiting for their turn to be committed.
    pub fetches: usize,
    /// Bytes that they hold together. The one that is next to be committed is always fetched.
    pub bytes: u64,
    /// A tail this many blocks below the newest final one jumps there: the blocks between are history, which several
    /// workers fetch in any order. A shorter way the tail goes itself in a few ranges.
    pub far_behind: u64,
}

/// What is kept of the nodes' words about finality, and of stored hashes to hold them against: on some chains the final
/// block is thousands below the head.
const ANCHORS: usize = 64;
const RECENT: usize = 16_384;

/// Blocks this close to the head are fetched by hash: they may be reorganised between two calls.
const NEAR_HEAD: u64 = 32;
/// Of these, so many are fetched together: what fails of them is asked for again, and holds up no more.
const TOGETHER: u64 = 8;

impl Machine {
    /// A machine for a chain indexed from block `start`. Its first action, from [`Machine::begin`], is to load the
    /// stored state.
    pub fn new(finality: Finality, start: u64, limits: Limits, sizer: RangeSizer) -> Self {
        Self {
            finality,
            start,
            limits,
            sizer,
            tail: Tail { next: start, hash: None },
            head: None,
            settled: None,
            anchors: VecDeque::new(),
            recent: BTreeMap::new(),
            slots: BTreeMap::new(),
            doing: Doing::Reloading,
            agreed: None,
            confirmed: None,
            not_jumped: None,
            undecided: None,
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

    /// The newest block that a node called final lately. It may be wrong, and is shown only.
    pub fn finalized(&self) -> Option<u64> {
        self.anchors.back().map(|anchor| anchor.settles)
    }

    /// The highest stored block known to be final.
    pub fn settled(&self) -> Option<u64> {
        self.settled
    }

    /// What progress depends on now.
    pub fn wait(&self) -> Wait {
        match (&self.doing, self.head) {
            (Doing::Stopped(stop), _) => Wait::Operator(*stop),
            (Doing::Appending(slot), _) => Wait::Append(slot.range),
            (Doing::Comparing(_), _) => Wait::Compare,
            (Doing::Unwinding(_), _) => Wait::Unwind,
            (Doing::Jumping(to), _) => Wait::Jump(*to),
            (Doing::Reloading, _) => Wait::Reload,
            (Doing::Nothing, None) => Wait::FirstHead,
            (Doing::Nothing, Some(head)) if self.undecided == Some(head) => Wait::Finality,
            (Doing::Nothing, Some(head)) => match self.slots.get(&self.tail.next) {
                Some(slot) => Wait::Fetch(slot.range),
                None if head.number + 1 < self.tail.next => Wait::NodeBehind(self.tail.next - 1),
                None => Wait::NextBlock,
            },
        }
    }

    /// Whether the batch of a fetch is still wanted.
    pub fn wants(&self, id: FetchId) -> bool {
        let appending = matches!(&self.doing, Doing::Appending(slot) if slot.id == id);
        appending || self.slots.values().any(|slot| slot.id == id)
    }

    /// The fetches whose answers are waited for.
    pub fn asked(&self) -> impl Iterator<Item = (FetchId, BlockRange)> + '_ {
        self.slots.values().filter(|slot| slot.link.is_none()).map(|slot| (slot.id, slot.range))
    }

    /// Whether the outcome of an action other than a fetch is waited for.
    pub fn is_busy(&self) -> bool {
        !matches!(self.doing, Doing::Nothing | Doing::Stopped(_))
    }

    /// No range shall be wider than the nodes in use allow, where that is known.
    pub fn limit_range(&mut self, blocks: Option<u64>) {
        self.sizer.limit(blocks);
    }

    /// Takes one input and says what to do now.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Head { head, finalized } => self.see_head(head, finalized),
            Input::Fetched { id, link, logs, bytes, blocks } => self.fetched(id, link, logs, bytes, blocks),
            Input::FetchFailed { id, failure } => self.fetch_failed(id, failure, &mut actions),
            Input::Committed => self.committed(),
            Input::WriteLost => self.reload(&mut actions),
            Input::Loaded { tail, finalized, recent } => self.loaded(tail, finalized, recent, &mut actions),
            Input::Compared(fork) => self.compared(fork, &mut actions),
            Input::Unwound => self.unwound(),
            Input::Jumped(block) => self.jumped(block),
            Input::NotJumped => self.not_jumped(),
            Input::Anchored { block, tail } => self.anchored(block, tail),
        }
        self.jump(&mut actions);
        self.check_head(&mut actions);
        self.append(&mut actions);
        self.fetch(&mut actions);
        actions
    }

    fn see_head(&mut self, head: BlockRef, finalized: Option<BlockRef>) {
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
        self.settled = self.settled.max(self.settled_with(&[]));
        self.head = Some(head);
    }

    /// The final block below our tail that is not stored itself, and by which more of ours would be final: a node that has both it
    /// and our tail can tell.
    pub fn unconfirmed(&self) -> Option<BlockRef> {
        let anchor = self.anchors.back().filter(|anchor| anchor.block.number < self.tail.next)?;
        let known = self.recent.contains_key(&anchor.block.number) || self.doing != Doing::Nothing;
        (!known && self.known_below(anchor.settles) > self.settled).then_some(anchor.block)
    }

    fn anchored(&mut self, block: BlockRef, tail: Tail) {
        let settles = self.anchors.iter().filter(|anchor| anchor.block == block).map(|anchor| anchor.settles).max();
        if let Some(settles) = settles.filter(|_| tail == self.tail && self.doing == Doing::Nothing) {
            self.settled = self.settled.max(self.known_below(settles));
        }
    }

    /// The highest block at or below `number` of which we have the hash.
    fn known_below(&self, number: u64) -> Option<u64> {
        self.recent.range(..=number).next_back().map(|(number, _)| *number)
    }

    /// The highest block of ours that is final, once `blocks` are committed on top: an anchor's block is among ours.
    fn settled_with(&self, blocks: &[BlockRef]) -> Option<u64> {
        let ours = |block: BlockRef| self.recent.get(&block.number) == Some(&block.hash) || blocks.contains(&block);
        let settles = self.anchors.iter().filter(|anchor| ours(anchor.block)).map(|anchor| anchor.settles).max()?;
        // As a block of which we have the hash, so that a node can be asked for it.
        let known = self.known_below(settles);
        known.max(blocks.iter().map(|block| block.number).filter(|number| *number <= settles).max())
    }

    fn remember(&mut self, blocks: impl IntoIterator<Item = BlockRef>) {
        self.recent.extend(blocks.into_iter().map(|block| (block.number, block.hash)));
        while self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }

    fn slot_of(&mut self, id: FetchId) -> Option<&mut Slot> {
        self.slots.values_mut().find(|slot| slot.id == id)
    }

    fn fetched(&mut self, id: FetchId, link: Link, logs: u64, bytes: u64, blocks: Vec<BlockRef>) {
        let Some(slot) = self.slot_of(id) else { return };
        slot.link = Some(link);
        slot.bytes = bytes;
        slot.blocks = blocks;
        // Near the head what came is kept, and the rest is asked for again.
        slot.range.last = slot.range.last.min(link.last.number.max(slot.range.first));
        let range = slot.range;
        if self.sizer.is_excessive(range.blocks(), logs, bytes) {
            self.slots.remove(&range.first);
        }
        // A short range says nothing about the width that suits the node.
        if range.blocks() >= self.sizer.blocks() || logs > 0 {
            self.sizer.fetched(range.blocks(), logs, bytes);
        }
    }

    fn fetch_failed(&mut self, id: FetchId, failure: FetchFailure, actions: &mut Vec<Action>) {
        let Some(range) = self.slot_of(id).map(|slot| slot.range) else { return };
        self.slots.remove(&range.first);
        if let FetchFailure::TooLarge { hint } = failure
            && !self.sizer.too_large(range.blocks(), hint)
        {
            self.stop(Stop::BlockTooLarge { number: range.first }, actions);
        }
    }

    fn committed(&mut self) {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Appending(Slot { link: Some(link), blocks, .. }) => {
                self.tail = Tail::after(link.last);
                self.remember(blocks);
                self.remember([link.last]);
                self.settled = self.settled.max(self.settled_with(&[]));
            }
            other => self.doing = other,
        }
    }

    fn reload(&mut self, actions: &mut Vec<Action>) {
        // The batch may be committed or not; it goes back to the slots, and the state row decides.
        if let Doing::Appending(slot) = std::mem::replace(&mut self.doing, Doing::Reloading) {
            self.slots.insert(slot.range.first, slot);
        }
        actions.push(Action::Reload);
    }

    fn loaded(&mut self, tail: Tail, finalized: Option<u64>, recent: Vec<BlockRef>, actions: &mut Vec<Action>) {
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
        self.recent.clear();
        self.remember(recent);
        self.settled = self.settled.max(finalized).max(self.settled_with(&[]));
        self.doing = Doing::Nothing;
    }

    fn compared(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        let Doing::Comparing(anchor) = self.doing else { return };
        self.doing = Doing::Nothing;
        let to = match fork {
            Fork::Unsure => return,
            Fork::At(block) => Tail::after(block),
            // Nothing below what is settled was looked at: the branches part there or further down.
            Fork::Below => Tail { next: self.settled.unwrap_or(self.start).max(self.start), hash: None },
        };
        if to.next >= self.tail.next {
            // The node has our tail after all: what looked like a reorg was one answer out of step.
            self.agreed = self.head;
            self.confirmed = Some((self.tail, anchor));
        } else if !self.may_leave(anchor, to) {
            // Perhaps a stale node's branch: ask one that is on the final chain.
            match self.anchors.back().filter(|newest| newest.settles >= to.next).map(|newest| newest.block) {
                Some(newest) => self.compare(newest, actions),
                // What is stored was final by another setting, and by this one no node will ever say what is.
                None if self.finality == Finality::Never => {
                    self.stop(Stop::BelowFinalized { finalized: self.settled.unwrap_or(self.start) }, actions);
                }
                None => self.undecided = self.head,
            }
        } else if let Some(finalized) = self.settled.filter(|settled| to.next <= *settled) {
            self.stop(Stop::BelowFinalized { finalized }, actions);
        } else {
            self.doing = Doing::Unwinding(to);
            // From now on nothing above is ours: what a node calls final meanwhile must not be found there.
            _ = self.recent.split_off(&to.next);
            actions.push(Action::Unwind { from: self.tail, to });
        }
    }

    /// Whether the branch of `anchor` may take us back to `to`: it leaves nothing that a node calls final, or it is final
    /// itself above there by a node's word.
    fn may_leave(&self, anchor: BlockRef, to: Tail) -> bool {
        let called_final = self.settled.max(self.finalized());
        called_final.is_none_or(|number| number < to.next)
            || self.anchors.iter().any(|known| known.block == anchor && known.settles >= to.next)
    }

    fn unwound(&mut self) {
        if let Doing::Unwinding(to) = self.doing {
            self.tail = to;
            self.doing = Doing::Nothing;
            self.agreed = None;
        }
    }

    /// Far behind what is final (a first start, an outage), the tail goes there at once, and history has its own lane.
    fn jump(&mut self, actions: &mut Vec<Action>) {
        if self.doing != Doing::Nothing || self.finality == Finality::Never || self.not_jumped == self.head {
            return;
        }
        let Some(Anchor { block: anchor, settles: to }) = self.anchors.back().copied() else { return };
        if to < self.tail.next.saturating_add(self.limits.far_behind) {
            return;
        }
        // What was stored near the head of then may have been orphaned since: never leave it behind unseen.
        if self.tail.hash.is_some() && self.confirmed != Some((self.tail, anchor)) {
            return self.compare(anchor, actions);
        }
        self.forget(actions);
        self.doing = Doing::Jumping(to);
        actions.push(Action::Jump { from: self.tail, to, anchor });
    }

    fn jumped(&mut self, block: BlockRef) {
        if matches!(self.doing, Doing::Jumping(_)) {
            self.tail = Tail::after(block);
            self.settled = self.settled.max(Some(block.number));
            self.recent.clear();
            self.remember([block]);
            self.doing = Doing::Nothing;
        }
    }

    fn not_jumped(&mut self) {
        if matches!(self.doing, Doing::Jumping(_)) {
            self.not_jumped = self.head;
            self.doing = Doing::Nothing;
        }
    }

    /// A head at or below our tail is suspicious: the same height with another hash is a reorg of equal length, and on
    /// a chain whose head may move back a lower head is a rollback. Elsewhere a lower head is a node that lags.
    fn check_head(&mut self, actions: &mut Vec<Action>) {
        let (Doing::Nothing, Some(head)) = (&self.doing, self.head) else { return };
        if head.number >= self.tail.next || self.tail.next == self.start || self.agreed == Some(head) {
            return;
        }
        let same_height = head.number + 1 == self.tail.next;
        let differs = same_height && self.tail.hash.is_some_and(|hash| hash != head.hash);
        if self.undecided == Some(head) {
            return;
        }
        if differs || (!same_height && self.finality == Finality::Never) {
            self.compare(head, actions);
        }
    }

    fn compare(&mut self, anchor: BlockRef, actions: &mut Vec<Action>) {
        self.forget(actions);
        self.doing = Doing::Comparing(anchor);
        actions.push(Action::Compare { floor: self.settled, anchor });
    }

    fn append(&mut self, actions: &mut Vec<Action>) {
        if self.doing != Doing::Nothing {
            return;
        }
        let Some(link) = self.slots.get(&self.tail.next).and_then(|slot| slot.link) else { return };
        let stands = match (self.tail.hash, link.parent) {
            (Some(tail), Some(parent)) => tail == parent,
            // Nothing is stored below, or the node gave no header for the first block: nothing to compare.
            _ => true,
        };
        if !stands {
            if self.undecided.is_none() || self.undecided != self.head {
                self.compare(link.last, actions);
            }
            return;
        }
        let Some(slot) = self.slots.remove(&self.tail.next) else { return };
        let finalized = self.settled.max(self.settled_with(&slot.blocks));
        actions.push(Action::Append { id: slot.id, on: self.tail, finalized });
        self.doing = Doing::Appending(slot);
    }

    /// Keeps fetches under way for the lowest blocks that nobody has yet.
    fn fetch(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.doing, Doing::Nothing | Doing::Appending(_)) {
            return;
        }
        let Some(head) = self.head else { return };
        let expected = self.sizer.target_bytes();
        loop {
            let Some(range) = self.next_range(head.number) else { return };
            // What is next to be committed must come in, whatever is held; else nothing would ever be let go.
            let first = range.first == self.next_to_fetch();
            if !first && (self.slots.len() >= self.limits.fetches || self.held() + expected > self.limits.bytes) {
                return;
            }
            let id = FetchId(self.next_id);
            self.next_id += 1;
            self.slots.insert(range.first, Slot { id, range, link: None, bytes: expected, blocks: Vec::new() });
            let near_head = head.number - range.last < NEAR_HEAD;
            actions.push(Action::Fetch { id, range, near_head });
        }
    }

    /// The block after what is committed or being committed.
    fn next_to_fetch(&self) -> u64 {
        match &self.doing {
            Doing::Appending(slot) => slot.range.last + 1,
            _ => self.tail.next,
        }
    }

    /// Bytes of everything fetched and not committed.
    fn held(&self) -> u64 {
        let appending = match &self.doing {
            Doing::Appending(slot) => slot.bytes,
            _ => 0,
        };
        appending + self.slots.values().map(|slot| slot.bytes).sum::<u64>()
    }

    /// The lowest range above the tail that no slot holds.
    fn next_range(&self, head: u64) -> Option<BlockRange> {
        let mut first = self.next_to_fetch();
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
