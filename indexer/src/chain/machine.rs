//! The whole sync logic: [`Input`]s in, [`Action`]s out. The driver carries the actions out and reports back. Nothing here
//! awaits, reads a clock or opens a socket, so a test can play every interleaving.

mod finality;
mod vocabulary;
mod window;

pub use finality::Finality;
use finality::{Anchor, Settling};
pub use vocabulary::{Action, FetchFailure, FetchId, Input, Stop, Tail, Wait};
pub use window::Limits;
use window::{Slot, Window};

use super::block::{BlockRange, BlockRef};
use super::range::RangeSizer;
use super::reorg::Fork;

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

/// The state of a chain's sync.
#[derive(Clone, Debug)]
pub struct Machine {
    start: u64,
    /// A tail at least this many blocks below the newest final block jumps there.
    far_behind: u64,
    tail: Tail,
    head: Option<BlockRef>,
    settling: Settling,
    window: Window,
    doing: Doing,
    /// The last compared head that agreed with the stored blocks.
    agreed: Option<BlockRef>,
    /// The last tail that was found below that block of a node's chain.
    confirmed: Option<(Tail, BlockRef)>,
    /// The head at which the node lacked the block to jump to: not tried again before the next head.
    not_jumped: Option<BlockRef>,
    /// The head at which the nodes' branch left ours below the settled block, and no node called it final: not compared again
    /// before the next head.
    undecided: Option<BlockRef>,
}

impl Machine {
    /// A machine for a chain indexed from block `start`. Its first action, from [`Machine::begin`], is to load the
    /// stored state.
    pub fn new(finality: Finality, start: u64, limits: Limits, sizer: RangeSizer) -> Self {
        Self {
            start,
            far_behind: limits.far_behind,
            tail: Tail { next: start, hash: None },
            head: None,
            settling: Settling::new(finality),
            window: Window::new(limits, sizer),
            doing: Doing::Reloading,
            agreed: None,
            confirmed: None,
            not_jumped: None,
            undecided: None,
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

    /// The newest block that a node recently called final. It may be wrong, and is only shown.
    pub fn finalized(&self) -> Option<u64> {
        self.settling.newest().map(|anchor| anchor.settles)
    }

    /// The highest stored block known to be final.
    pub fn settled(&self) -> Option<u64> {
        self.settling.settled()
    }

    /// The object that progress waits for.
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
            (Doing::Nothing, Some(head)) => match self.window.at(self.tail.next) {
                Some(slot) => Wait::Fetch(slot.range),
                None if head.number + 1 < self.tail.next => Wait::NodeBehind(self.tail.next - 1),
                None => Wait::NextBlock,
            },
        }
    }

    /// Whether the batch of a fetch is still wanted.
    pub fn wants(&self, id: FetchId) -> bool {
        let appending = matches!(&self.doing, Doing::Appending(slot) if slot.id == id);
        appending || self.window.wants(id)
    }

    /// The fetches without an answer.
    pub fn asked(&self) -> impl Iterator<Item = (FetchId, BlockRange)> + '_ {
        self.window.asked()
    }

    /// Whether an action other than a fetch is under way.
    pub fn is_busy(&self) -> bool {
        !matches!(self.doing, Doing::Nothing | Doing::Stopped(_))
    }

    /// No range is wider than the limit of the nodes in use, if known.
    pub fn limit_range(&mut self, blocks: Option<u64>) {
        self.window.limit_range(blocks);
    }

    /// Takes one input and returns the next actions.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Head { head, finalized } => self.see_head(head, finalized),
            Input::Fetched { id, link, logs, bytes, blocks } => self.window.fetched(id, link, logs, bytes, blocks),
            Input::FetchFailed { id, failure } => {
                if let Err(number) = self.window.failed(id, failure) {
                    self.stop(Stop::BlockTooLarge { number }, &mut actions);
                }
            }
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
        self.settling.hear(head, finalized);
        self.head = Some(head);
    }

    /// The final block below our tail that is not stored itself, and that would make more of our blocks final: a node with both
    /// this block and our tail can decide.
    pub fn unconfirmed(&self) -> Option<BlockRef> {
        self.settling.unconfirmed(self.tail).filter(|_| self.doing == Doing::Nothing)
    }

    fn anchored(&mut self, block: BlockRef, tail: Tail) {
        if tail == self.tail && self.doing == Doing::Nothing {
            self.settling.confirm(block);
        }
    }

    fn committed(&mut self) {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Appending(Slot { link: Some(link), blocks, .. }) => {
                self.tail = Tail::after(link.last);
                self.settling.store(blocks.into_iter().chain([link.last]));
            }
            other => self.doing = other,
        }
    }

    fn reload(&mut self, actions: &mut Vec<Action>) {
        // The batch may be committed or not; it returns to the slots, and the state row decides.
        if let Doing::Appending(slot) = std::mem::replace(&mut self.doing, Doing::Reloading) {
            self.window.put_back(slot);
        }
        actions.push(Action::Reload);
    }

    fn loaded(&mut self, tail: Tail, finalized: Option<u64>, recent: Vec<BlockRef>, actions: &mut Vec<Action>) {
        if !self.window.follow(self.tail, tail) {
            self.forget(actions);
        }
        self.tail = tail;
        self.settling.load(recent, finalized);
        self.doing = Doing::Nothing;
    }

    fn compared(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        let Doing::Comparing(anchor) = self.doing else { return };
        self.doing = Doing::Nothing;
        let to = match fork {
            Fork::Unsure => return,
            Fork::At(block) => Tail::after(block),
            // No block below the settled one was compared: the branches part there or further down.
            Fork::Below => Tail { next: self.settling.settled().unwrap_or(self.start).max(self.start), hash: None },
        };
        if to.next >= self.tail.next {
            // The node has our tail after all: one late answer looked like a reorg.
            self.agreed = self.head;
            self.confirmed = Some((self.tail, anchor));
        } else if !self.settling.may_leave(anchor, to) {
            // This may be a stale node's branch: ask a node on the final chain.
            match self.settling.newest().filter(|newest| newest.settles >= to.next).map(|newest| newest.block) {
                Some(newest) => self.compare(newest, actions),
                // The stored blocks were final under another setting, and under this one no node will ever report a final block.
                None if self.settling.is_never() => {
                    self.stop(
                        Stop::BelowFinalized { finalized: self.settling.settled().unwrap_or(self.start) },
                        actions,
                    );
                }
                None => self.undecided = self.head,
            }
        } else if let Some(finalized) = self.settling.settled().filter(|settled| to.next <= *settled) {
            self.stop(Stop::BelowFinalized { finalized }, actions);
        } else {
            self.doing = Doing::Unwinding(to);
            self.settling.unwind(to.next);
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

    /// Far below the final block (a first start, an outage), the tail jumps there at once, and history has its own lane.
    fn jump(&mut self, actions: &mut Vec<Action>) {
        if self.doing != Doing::Nothing || self.settling.is_never() || self.not_jumped == self.head {
            return;
        }
        let Some(Anchor { block: anchor, settles: to }) = self.settling.newest() else { return };
        if to < self.tail.next.saturating_add(self.far_behind) {
            return;
        }
        // A reorg may have orphaned blocks near the earlier head: the tail checks them before it leaves.
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
            self.settling.jump(block);
            self.doing = Doing::Nothing;
        }
    }

    fn not_jumped(&mut self) {
        if matches!(self.doing, Doing::Jumping(_)) {
            self.not_jumped = self.head;
            self.doing = Doing::Nothing;
        }
    }

    /// A head at or below our tail is suspicious: the same height with another hash is a reorg of equal length, and on a chain
    /// whose head may move back, a lower head is a rollback. On other chains, a lower head is a lagging node.
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
        if differs || (!same_height && self.settling.is_never()) {
            self.compare(head, actions);
        }
    }

    fn compare(&mut self, anchor: BlockRef, actions: &mut Vec<Action>) {
        self.forget(actions);
        self.doing = Doing::Comparing(anchor);
        actions.push(Action::Compare { floor: self.settling.settled(), anchor });
    }

    fn append(&mut self, actions: &mut Vec<Action>) {
        if self.doing != Doing::Nothing {
            return;
        }
        let Some(link) = self.window.at(self.tail.next).and_then(|slot| slot.link) else { return };
        let stands = match (self.tail.hash, link.parent) {
            (Some(tail), Some(parent)) => tail == parent,
            // No block is stored below, or the node gave no header for the first block: there is nothing to compare.
            _ => true,
        };
        if !stands {
            if self.undecided.is_none() || self.undecided != self.head {
                self.compare(link.last, actions);
            }
            return;
        }
        let Some(slot) = self.window.take(self.tail.next) else { return };
        let finalized = self.settling.settled_with(&slot.blocks);
        actions.push(Action::Append { id: slot.id, on: self.tail, finalized });
        self.doing = Doing::Appending(slot);
    }

    /// Keeps fetches under way for the lowest blocks without one.
    fn fetch(&mut self, actions: &mut Vec<Action>) {
        let (next, held) = match &self.doing {
            Doing::Nothing => (self.tail.next, 0),
            Doing::Appending(slot) => (slot.range.last + 1, slot.bytes),
            _ => return,
        };
        let Some(head) = self.head else { return };
        actions.extend(std::iter::from_fn(|| self.window.fetch(next, held, head.number)));
    }

    fn forget(&mut self, actions: &mut Vec<Action>) {
        self.window.clear();
        actions.push(Action::Forget);
    }

    fn stop(&mut self, stop: Stop, actions: &mut Vec<Action>) {
        self.forget(actions);
        self.doing = Doing::Stopped(stop);
        actions.push(Action::Stop(stop));
    }
}

#[cfg(test)]
mod tests;
