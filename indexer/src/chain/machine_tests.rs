//! Small scenarios by hand, then a seeded model chain with reorgs, lost commits and answers in any order.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn hash(fork: u64, number: u64) -> B256 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&fork.to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    B256::from(bytes)
}

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: hash(0, number) }
}

fn machine(finality: Finality, next: u64) -> Machine {
    let mut machine = Machine::new(finality, 0, 2, RangeSizer::new(100, 1_000, 10_000));
    let hash = next.checked_sub(1).map(|n| hash(0, n));
    machine.step(Input::Loaded { tail: Tail { next, hash }, finalized: None });
    machine
}

fn head(number: u64) -> Input {
    Input::Head { head: block(number), finalized: None }
}

fn link(first: u64, last: u64) -> Link {
    Link { parent: first.checked_sub(1).map(|n| hash(0, n)), last: block(last) }
}

#[test]
fn history_goes_in_wide_ranges_and_the_head_by_hash() {
    let mut m = machine(Finality::Never, 0);
    let actions = m.step(head(150));
    let range = |first, last| BlockRange { first, last };
    assert_eq!(
        actions,
        [
            Action::Fetch { id: FetchId(0), range: range(0, 99), near_head: false },
            Action::Fetch { id: FetchId(1), range: range(100, 118), near_head: false },
        ]
    );
    assert_eq!(m.step(Input::Fetched { id: FetchId(1), link: link(100, 118), logs: 0 }), [], "out of order: waits");
    let actions = m.step(Input::Fetched { id: FetchId(0), link: link(0, 99), logs: 0 });
    let on = Tail { next: 0, hash: None };
    assert_eq!(actions[0], Action::Append { id: FetchId(0), on, finalized: None });
    assert_eq!(actions[1], Action::Fetch { id: FetchId(2), range: range(119, 150), near_head: true });
    assert_eq!(m.wait(), Wait::Append(range(0, 99)));
    let actions = m.step(Input::Committed);
    assert!(matches!(actions[0], Action::Append { id: FetchId(1), .. }));
}

#[test]
fn a_refused_range_is_split_and_a_single_block_stops_the_chain() {
    let mut m = machine(Finality::Never, 0);
    m.step(head(1_000));
    let too_large = |id| Input::FetchFailed { id: FetchId(id), failure: FetchFailure::TooLarge { hint: None } };
    let actions = m.step(too_large(0));
    let range = BlockRange { first: 0, last: 49 };
    assert_eq!(actions, [Action::Fetch { id: FetchId(2), range, near_head: false }]);
    let mut m = machine(Finality::Never, 5);
    m.step(head(5));
    assert!(m.step(too_large(0)).contains(&Action::Stop(Stop::BlockTooLarge { number: 5 })));
    assert_eq!(m.step(head(6)), [], "stopped means stopped");
}

#[test]
fn another_parent_is_compared_before_anything_is_removed() {
    let mut m = machine(Finality::Depth(10), 100);
    m.step(Input::Loaded { tail: m.tail(), finalized: Some(90) });
    m.step(head(100));
    let link = Link { parent: Some(hash(1, 99)), last: BlockRef { number: 100, hash: hash(1, 100) } };
    let actions = m.step(Input::Fetched { id: FetchId(0), link, logs: 0 });
    assert_eq!(actions, [Action::Forget, Action::Compare { floor: Some(90) }]);
    let actions = m.step(Input::Compared(Fork::At(block(97))));
    let (from, to) = (Tail::after(block(99)), Tail::after(block(97)));
    assert_eq!(actions, [Action::Unwind { from, to }]);
    let actions = m.step(Input::Unwound);
    let range = BlockRange { first: 98, last: 100 };
    assert_eq!(actions, [Action::Fetch { id: FetchId(1), range, near_head: true }]);
}

#[test]
fn nothing_is_unwound_below_finalized() {
    let mut m = machine(Finality::Depth(10), 100);
    m.step(Input::Loaded { tail: m.tail(), finalized: Some(89) });
    m.step(Input::Head { head: BlockRef { number: 99, hash: hash(1, 99) }, finalized: None });
    assert_eq!(m.wait(), Wait::Compare, "same height, other hash: a reorg of equal length");
    let stop = Stop::BelowFinalized { finalized: 89 };
    assert!(m.step(Input::Compared(Fork::At(block(80)))).contains(&Action::Stop(stop)));
    assert!(matches!(m.wait(), Wait::Operator(_)));
}

#[test]
fn a_lower_head_is_a_lagging_node_except_where_heads_may_move_back() {
    let mut m = machine(Finality::Depth(10), 100);
    assert_eq!(m.step(head(50)), []);
    assert_eq!(m.wait(), Wait::NodeBehind(99));
    let mut m = machine(Finality::Never, 100);
    assert_eq!(m.step(head(50)), [Action::Forget, Action::Compare { floor: None }]);
    assert_eq!(m.step(Input::Compared(Fork::At(block(99)))), [], "the lower head was only late news");
    assert_eq!(m.step(head(50)), [], "and is not asked about again");
}

#[test]
fn a_lost_commit_is_decided_by_the_state_row() {
    for committed in [true, false] {
        let mut m = machine(Finality::Never, 10);
        m.step(head(10));
        m.step(Input::Fetched { id: FetchId(0), link: link(10, 10), logs: 1 });
        assert_eq!(m.step(Input::WriteLost), [Action::Reload]);
        let tail = if committed { Tail::after(block(10)) } else { Tail::after(block(9)) };
        let actions = m.step(Input::Loaded { tail, finalized: None });
        let again = Action::Append { id: FetchId(0), on: Tail::after(block(9)), finalized: None };
        assert_eq!(actions, if committed { vec![] } else { vec![again] });
    }
}

/// The world around the machine: a node with one canonical chain, and a store.
struct World {
    rng: StdRng,
    canonical: Vec<BlockRef>,
    stored: Vec<BlockRef>,
    finalized: u64,
    forks: u64,
    /// Inputs on their way to the machine. Fetches may overtake each other, the rest keeps its order.
    inbox: VecDeque<Input>,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let canonical = (0..50).map(block).collect();
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, canonical, stored: Vec::new(), finalized: 0, forks: 0, inbox: VecDeque::new(), faults: true }
    }

    fn head(&self) -> BlockRef {
        self.canonical[self.canonical.len() - 1]
    }

    fn tail(&self) -> Tail {
        self.stored.last().map_or(Tail { next: 0, hash: None }, |b| Tail::after(*b))
    }

    /// The chain grows, or is reorganised above finalized by a branch at least as long.
    fn live(&mut self) {
        if self.rng.random_bool(0.2) {
            self.forks += 1;
            let height = self.canonical.len() as u64;
            let keep = self.rng.random_range(self.finalized + 1..=height);
            self.canonical.truncate(keep as usize);
            let longer = height + self.rng.random_range(0..3);
            self.canonical.extend((keep..longer).map(|n| BlockRef { number: n, hash: hash(self.forks, n) }));
        } else {
            let n = self.canonical.len() as u64;
            self.canonical.push(BlockRef { number: n, hash: hash(self.forks, n) });
        }
        self.finalized = self.finalized.max(self.head().number.saturating_sub(20));
        self.say_head();
    }

    fn say_head(&mut self) {
        self.inbox.push_back(Input::Head { head: self.head(), finalized: Some(self.finalized) });
    }

    fn perform(&mut self, action: Action, ready: &mut BTreeMap<FetchId, Vec<BlockRef>>) {
        match action {
            Action::Fetch { id, range, .. } => self.answer(id, range, ready),
            Action::Append { id, on, .. } => {
                assert_eq!(on, self.tail(), "appends on what is stored");
                let lost = self.faults && self.rng.random_bool(0.1);
                let written = !lost || self.rng.random_bool(0.5);
                if written {
                    self.stored.extend(ready[&id].iter().copied());
                }
                self.inbox.push_back(if lost { Input::WriteLost } else { Input::Committed });
            }
            Action::Forget => ready.clear(),
            Action::Compare { .. } => {
                let stored: Vec<_> = self.stored.iter().rev().copied().collect();
                let node: Vec<_> =
                    stored.iter().map(|b| self.canonical.get(b.number as usize).map(|b| b.hash)).collect();
                let fork = crate::chain::reorg::fork_point(&stored, &node, false);
                self.inbox.push_back(Input::Compared(fork));
            }
            Action::Unwind { from, to } => {
                assert_eq!(from, self.tail());
                let orphans = &self.stored[to.next as usize..];
                let kept = |b: &&BlockRef| self.canonical.get(b.number as usize) == Some(*b);
                let final_ = orphans.iter().filter(|b| b.number <= self.finalized).find(kept);
                assert_eq!(final_, None, "never unwinds a block that is final");
                self.stored.truncate(to.next as usize);
                self.inbox.push_back(Input::Unwound);
            }
            Action::Reload => self.inbox.push_back(Input::Loaded { tail: self.tail(), finalized: None }),
            Action::Stop(stop) => panic!("stopped: {stop}"),
        }
    }

    fn answer(&mut self, id: FetchId, range: BlockRange, ready: &mut BTreeMap<FetchId, Vec<BlockRef>>) {
        let failure = match self.rng.random_range(0..20) {
            0 if self.faults => Some(FetchFailure::Gone),
            1 if self.faults && range.blocks() > 1 => Some(FetchFailure::TooLarge { hint: None }),
            _ => None,
        };
        let blocks = self.canonical.get(range.first as usize..=range.last as usize).map(<[_]>::to_vec);
        let input = match (failure, blocks) {
            (Some(failure), _) => Input::FetchFailed { id, failure },
            (None, None) => Input::FetchFailed { id, failure: FetchFailure::Gone },
            (None, Some(blocks)) => {
                let parent = range.first.checked_sub(1).map(|n| self.canonical[n as usize].hash);
                let link = Link { parent, last: blocks[blocks.len() - 1] };
                ready.insert(id, blocks);
                Input::Fetched { id, link, logs: range.blocks() }
            }
        };
        let at = self.rng.random_range(0..=self.inbox.len());
        self.inbox.insert(at, input);
    }
}

/// Runs one seed; panics with the seed in its message when an invariant breaks.
fn simulate(seed: u64) {
    let mut world = World::new(seed);
    let mut ready = BTreeMap::new();
    let mut machine = Machine::new(Finality::Tag, 0, 3, RangeSizer::new(5, 40, 30));
    let first = machine.begin();
    world.perform(first, &mut ready);
    for step in 0..400 {
        world.faults = step < 300;
        if world.faults && world.rng.random_bool(0.3) {
            world.live();
        } else if !world.faults {
            world.say_head();
        }
        if world.faults && world.rng.random_bool(0.01) {
            // A restart: the machine forgets everything, the store does not.
            machine = Machine::new(Finality::Tag, 0, 3, RangeSizer::new(5, 40, 30));
            world.inbox.clear();
            world.perform(machine.begin(), &mut ready);
        }
        let Some(input) = world.inbox.pop_front() else { continue };
        for action in machine.step(input) {
            world.perform(action, &mut ready);
        }
        assert!(world.stored.iter().enumerate().all(|(i, b)| b.number == i as u64), "seed {seed}: a gap or a repeat");
        assert!(world.stored.windows(2).all(|w| is_parent(&w[0], &w[1])), "seed {seed}: two forks mixed");
    }
    while let Some(input) = world.inbox.pop_front() {
        for action in machine.step(input) {
            world.perform(action, &mut ready);
        }
    }
    assert_eq!(world.stored, world.canonical, "seed {seed}: once faults stop, everything is stored");
}

/// In the model a block of fork `f` stands on a block of a fork at most `f`.
fn is_parent(low: &BlockRef, high: &BlockRef) -> bool {
    low.hash.0[..8] <= high.hash.0[..8]
}

#[test]
fn two_thousand_seeds_end_with_the_canonical_chain() {
    for seed in 0..2_000 {
        simulate(seed);
    }
}
