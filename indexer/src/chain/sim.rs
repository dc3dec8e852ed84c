//! A seeded world around the machine and the backfill lane: nodes that lag, disagree and report false heads, reorgs of any depth
//! down to the final block, commits that fail or lose their answer, and restarts at any step.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use alloy::primitives::B256;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::backfill::{Backfill, BackfillAction, BackfillFailure, BackfillInput, Order, PieceId, pieces};
use super::batch::Link;
use super::block::{BlockRange, BlockRef};
use super::coverage::Coverage;
use super::machine::{Action, FetchFailure, FetchId, Finality, Input, Limits, Machine, Stop, Tail};
use super::range::RangeSizer;
use super::reorg::{Fork, fork_point};
use super::source::Source;

const DEPTH: u64 = 20;
/// Steps with faults, and steps without faults, after which all blocks must be stored.
const FAULTY: usize = 300;
const QUIET: usize = 1_500;

/// The content of the database.
#[derive(Default)]
struct Stored {
    blocks: BTreeMap<u64, B256>,
    covered: BTreeSet<u64>,
    tail: Option<BlockRef>,
    finalized: Option<u64>,
}

impl Stored {
    fn tail(&self) -> Tail {
        self.tail.map_or(Tail { next: 0, hash: None }, Tail::after)
    }

    fn put(&mut self, blocks: &[BlockRef]) {
        for block in blocks {
            assert!(self.covered.insert(block.number), "block {} stored twice", block.number);
            let known = self.blocks.insert(block.number, block.hash);
            assert!(known.is_none_or(|hash| hash == block.hash), "block {} changed", block.number);
        }
    }
}

/// One node: its chain, and the block that it calls final.
#[derive(Clone)]
struct Node {
    chain: Vec<BlockRef>,
    finalized: u64,
}

impl Node {
    fn head(&self) -> BlockRef {
        self.chain[self.chain.len() - 1]
    }

    fn at(&self, number: u64) -> Option<BlockRef> {
        self.chain.get(usize::try_from(number).ok()?).copied()
    }

    fn has(&self, block: BlockRef) -> bool {
        self.at(block.number) == Some(block)
    }
}

enum Told {
    Sync(Input),
    Backfill(BackfillInput),
}

struct World {
    rng: StdRng,
    finality: Finality,
    truth: Node,
    nodes: Vec<Node>,
    parents: HashMap<B256, B256>,
    store: Stored,
    inbox: VecDeque<Told>,
    ready: HashMap<FetchId, Vec<BlockRef>>,
    /// The last comparison: the only one that the machine may use.
    compared: Option<(Vec<BlockRef>, Node)>,
    machine: Machine,
    lane: Backfill,
    faults: bool,
    made: u64,
}

fn machines(finality: Finality, rng: &mut StdRng) -> (Machine, Backfill) {
    let limits = Limits { fetches: 3, bytes: 500, far_behind: 40 };
    let order = if rng.random_bool(0.5) { Order::Newest } else { Order::Oldest };
    let lane = Backfill::new(order, 3, RangeSizer::new(5, 15, 30, 100));
    (Machine::new(finality, 0, limits, RangeSizer::new(5, 40, 30, 100)), lane)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let finality = match seed % 4 {
            0 => Finality::Never,
            1 => Finality::Depth(DEPTH),
            _ => Finality::Tag,
        };
        let (machine, lane) = machines(finality, &mut rng);
        let truth = Node { chain: Vec::new(), finalized: 0 };
        let mut world = Self {
            rng,
            finality,
            nodes: Vec::new(),
            truth,
            parents: HashMap::new(),
            store: Stored::default(),
            inbox: VecDeque::new(),
            ready: HashMap::new(),
            compared: None,
            machine,
            lane,
            faults: true,
            made: 0,
        };
        let first = world.rng.random_range(1..150);
        world.grow(first);
        // A devnet is one node whose head may move back; on other chains, several nodes answer in turn.
        world.nodes = vec![world.truth.clone(); if finality == Finality::Never { 1 } else { 3 }];
        world
    }

    fn grow(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.made += 1;
            let number = self.truth.chain.len() as u64;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&self.made.to_be_bytes());
            hash[8..16].copy_from_slice(&number.to_be_bytes());
            let block = BlockRef { number, hash: B256::from(hash) };
            if let Some(parent) = self.truth.chain.last() {
                self.parents.insert(block.hash, parent.hash);
            }
            self.truth.chain.push(block);
        }
        self.truth.finalized = self.truth.finalized.max(self.truth.head().number.saturating_sub(DEPTH));
    }

    /// The chain grows, is reorganised, or (a devnet) rolled back; each node follows or stays.
    fn live(&mut self) {
        let height = self.truth.chain.len() as u64;
        if self.rng.random_bool(0.2) {
            let floor = if self.finality == Finality::Never { 1 } else { self.truth.finalized + 1 };
            let keep = self.rng.random_range(floor.min(height)..=height);
            self.truth.chain.truncate(keep as usize);
            let back = self.finality == Finality::Never && self.rng.random_bool(0.3);
            let longer = height - keep + self.rng.random_range(0..3);
            self.grow(if back { 0 } else { longer.max(u64::from(keep == 0)) });
        } else {
            let blocks = if self.rng.random_bool(0.02) { 60 } else { 1 };
            self.grow(blocks);
        }
        for at in 0..self.nodes.len() {
            if self.nodes.len() == 1 || self.rng.random_bool(0.4) {
                self.nodes[at] = self.truth.clone();
            }
        }
        self.say_head();
    }

    fn node(&mut self) -> Node {
        let at = self.rng.random_range(0..self.nodes.len());
        self.nodes[at].clone()
    }

    fn say_head(&mut self) {
        let node = self.node();
        let mut head = node.head();
        if self.faults && self.finality != Finality::Never && self.rng.random_bool(0.05) {
            // A lie: a height or a hash that no node has.
            head.number = self.rng.random_range(0..2 * head.number + 2);
            head.hash = B256::repeat_byte(0xff);
        }
        let finalized = if self.finality == Finality::Tag { node.at(node.finalized) } else { None };
        self.tell(Input::Head { head, finalized });
    }

    fn tell(&mut self, input: Input) {
        self.inbox.push_back(Told::Sync(input));
    }

    /// Answers of both lanes overtake each other.
    fn tell_any_time(&mut self, told: Told) {
        let at = self.rng.random_range(0..=self.inbox.len());
        self.inbox.insert(at, told);
    }

    /// Whether a write is committed, and whether its answer arrives.
    fn commit(&mut self) -> (bool, bool) {
        let lost = self.faults && self.rng.random_bool(0.1);
        (!lost || self.rng.random_bool(0.5), !lost)
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Fetch { id, range, near_head } => self.fetch(id, range, near_head),
            Action::Append { id, on, finalized } => self.append(id, on, finalized),
            Action::Forget => self.ready.clear(),
            Action::Compare { floor, anchor } => self.compare(floor, anchor),
            Action::Unwind { from, to } => self.unwind(from, to),
            Action::Jump { from, to, anchor } => self.jump(from, to, anchor),
            Action::Reload => {
                let tail = self.store.tail();
                let newest = self.store.blocks.range(..tail.next).rev().take(64);
                let recent = newest.map(|(number, hash)| BlockRef { number: *number, hash: *hash }).collect();
                self.tell(Input::Loaded { tail, finalized: self.store.finalized, recent });
            }
            Action::Stop(Stop::BelowFinalized { finalized }) => panic!("stopped below {finalized}"),
            Action::Stop(stop) => panic!("stopped: {stop}"),
        }
    }

    fn fetch(&mut self, id: FetchId, range: BlockRange, near_head: bool) {
        let node = self.node();
        let blocks = node.chain.get(range.first as usize..=range.last as usize).map(<[_]>::to_vec);
        let fault = self.faults.then(|| self.rng.random_range(0..20));
        let failed = |failure| Input::FetchFailed { id, failure };
        let input = match (fault, blocks) {
            (Some(0), _) | (_, None) => failed(FetchFailure::Gone),
            (Some(1), _) if range.blocks() > 1 => failed(FetchFailure::TooLarge { hint: None }),
            (_, Some(blocks)) => {
                let parent = range.first.checked_sub(1).and_then(|n| node.at(n)).map(|block| block.hash);
                let link = Link { parent, last: blocks[blocks.len() - 1] };
                let told = if near_head { blocks.clone() } else { vec![blocks[0], link.last] };
                self.ready.insert(id, blocks);
                Input::Fetched { id, link, logs: range.blocks(), bytes: range.blocks() * 10, blocks: told }
            }
        };
        self.tell_any_time(Told::Sync(input));
    }

    fn append(&mut self, id: FetchId, on: Tail, finalized: Option<u64>) {
        assert_eq!(on, self.store.tail(), "appends on what is stored");
        let (written, answered) = self.commit();
        if written {
            let blocks = self.ready[&id].clone();
            self.store.put(&blocks);
            self.store.tail = blocks.last().copied();
            self.settle(finalized);
        }
        self.tell(if answered { Input::Committed } else { Input::WriteLost });
    }

    /// The store's final block belongs to the true chain: no stale node may stop a chain.
    fn settle(&mut self, finalized: Option<u64>) {
        self.store.finalized = self.store.finalized.max(finalized);
        if let Some(finalized) = self.store.finalized {
            assert!(finalized <= self.truth.finalized, "{finalized} is not final yet");
            if let Some((number, hash)) = self.store.blocks.range(..=finalized).next_back() {
                assert_eq!(self.truth.at(*number).map(|b| b.hash), Some(*hash), "block {number} is of a lost branch");
            }
        }
    }

    fn compare(&mut self, floor: Option<u64>, anchor: BlockRef) {
        let node = self.node();
        if !node.has(anchor) {
            return self.tell(Input::Compared(Fork::Unsure));
        }
        let next = self.store.tail().next;
        let stored = self.store.blocks.range(floor.unwrap_or(0)..next).rev();
        let stored: Vec<_> = stored.map(|(number, hash)| BlockRef { number: *number, hash: *hash }).collect();
        let hashes: Vec<_> = stored.iter().map(|block| node.at(block.number).map(|block| block.hash)).collect();
        let fork = fork_point(&stored, &hashes, self.finality == Finality::Never);
        self.compared = Some((stored, node));
        self.tell(Input::Compared(fork));
    }

    fn unwind(&mut self, from: Tail, to: Tail) {
        assert_eq!(from, self.store.tail());
        assert!(
            self.store.finalized.is_none_or(|number| number < to.next),
            "unwinds a block that is known to be final"
        );
        let (stored, node) = self.compared.take().expect("nothing is unwound without a comparison");
        if self.finality != Finality::Never {
            let differs = stored.iter().any(|b| b.number >= to.next && node.at(b.number).is_some_and(|n| n != *b));
            assert!(differs, "unwinds without another hash at a stored height");
        }
        let (written, answered) = self.commit();
        if written {
            self.store.blocks.retain(|number, _| *number < to.next);
            self.store.covered.retain(|number| *number < to.next);
            self.store.tail = to.hash.map(|hash| BlockRef { number: to.next - 1, hash });
        }
        self.tell(if answered { Input::Unwound } else { Input::WriteLost });
    }

    fn jump(&mut self, from: Tail, to: u64, anchor: BlockRef) {
        assert_eq!(from, self.store.tail());
        let node = self.node();
        let Some(block) = node.at(to).filter(|_| node.has(anchor)) else { return self.tell(Input::NotJumped) };
        let (written, answered) = self.commit();
        if written {
            self.store.blocks.insert(to, block.hash);
            self.store.tail = Some(block);
            self.settle(Some(to));
        }
        self.tell(if answered { Input::Jumped(block) } else { Input::WriteLost });
    }

    fn perform_backfill(&mut self, action: BackfillAction) {
        match action {
            BackfillAction::Load => {
                let covered = self.store.covered.iter().map(|n| BlockRange { first: *n, last: *n });
                let want = BlockRange::new(0, self.store.tail().next.saturating_sub(1)).expect("from 0");
                let missing = match self.store.tail {
                    Some(_) => pieces(&Source::default(), want, &Coverage::new(covered), &[]),
                    None => Vec::new(),
                };
                let settled = self.store.finalized;
                self.inbox.push_back(Told::Backfill(BackfillInput::Loaded { pieces: missing, settled }));
            }
            BackfillAction::Begin { id, piece } => self.fetch_piece(id, piece.range),
            BackfillAction::TooLarge { number } => panic!("block {number} too large"),
        }
    }

    fn fetch_piece(&mut self, id: PieceId, range: BlockRange) {
        let node = self.node();
        let settled = self.store.finalized.expect("only final blocks are fetched");
        assert!(range.last <= settled, "{range} is not final");
        // Only a node with our final block is on our chain.
        let stored = self.store.blocks.range(..=settled).next_back();
        let ours = stored.is_some_and(|(number, hash)| node.has(BlockRef { number: *number, hash: *hash }));
        let fault = self.faults.then(|| self.rng.random_range(0..20));
        let failed = |failure| BackfillInput::Failed { id, failure };
        let (written, answered) = self.commit();
        let blocks = node.chain.get(range.first as usize..=range.last as usize).map(<[_]>::to_vec);
        let told = match (fault, blocks.filter(|_| ours)) {
            (Some(0), _) | (_, None) => failed(BackfillFailure::Gone),
            (Some(1), _) if range.blocks() > 1 => failed(BackfillFailure::TooLarge { hint: None }),
            (_, Some(_)) if range_is_taken(&self.store, range) => failed(BackfillFailure::Lost),
            (_, Some(blocks)) => {
                if written {
                    self.store.put(&blocks);
                }
                let committed = BackfillInput::Committed { id, logs: range.blocks(), bytes: range.blocks() };
                if answered { committed } else { failed(BackfillFailure::Lost) }
            }
        };
        self.tell_any_time(Told::Backfill(told));
    }

    fn restart(&mut self) {
        (self.machine, self.lane) = machines(self.finality, &mut self.rng);
        self.inbox.clear();
        self.ready.clear();
        let first = self.machine.begin();
        self.perform(first);
    }

    fn step_backfill(&mut self, input: BackfillInput) {
        for action in self.lane.step(input) {
            self.perform_backfill(action);
        }
    }

    fn step(&mut self) {
        match self.inbox.pop_front() {
            Some(Told::Backfill(input)) => self.step_backfill(input),
            Some(Told::Sync(input)) => {
                let moved = matches!(input, Input::Loaded { .. } | Input::Jumped(_) | Input::Unwound);
                for action in self.machine.step(input) {
                    self.perform(action);
                }
                if moved {
                    self.step_backfill(BackfillInput::Moved);
                }
                if self.machine.settled().is_some_and(|settled| self.lane.could_go_on(settled)) {
                    self.step_backfill(BackfillInput::Moved);
                }
            }
            None => {}
        }
    }

    /// A prefix of one chain, plus final ranges: stored neighbours are parent and child.
    fn check(&self) {
        let blocks: Vec<_> = self.store.blocks.iter().collect();
        for pair in blocks.windows(2) {
            let ((low, below), (high, above)) = (pair[0], pair[1]);
            if *high == low + 1 {
                assert_eq!(self.parents.get(above), Some(below), "blocks {low} and {high} are of two branches");
            }
        }
        let tail = self.store.tail();
        assert!(blocks.last().is_none_or(|(number, _)| **number < tail.next), "a block above the tail");
        let low = self.store.finalized.map_or(0, |finalized| finalized + 1);
        assert!((low..tail.next).all(|n| self.store.covered.contains(&n)), "a gap above what is final");
    }

    fn is_done(&self) -> bool {
        let height = self.truth.chain.len();
        self.store.covered.len() == height
            && self.truth.chain.iter().all(|block| self.store.blocks.get(&block.number) == Some(&block.hash))
    }
}

fn range_is_taken(store: &Stored, range: BlockRange) -> bool {
    store.covered.range(range.first..=range.last).next().is_some()
}

/// Plays one seed; panics when an invariant breaks.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    world.restart();
    for _ in 0..FAULTY {
        if world.rng.random_bool(0.3) {
            world.live();
        }
        if world.rng.random_bool(0.01) {
            world.restart();
        }
        world.step();
        world.check();
    }
    world.faults = false;
    world.nodes = vec![world.truth.clone(); world.nodes.len()];
    for step in 0..QUIET {
        if world.is_done() {
            return;
        }
        if step % 10 == 0 {
            world.say_head();
        }
        world.step();
        world.check();
    }
    panic!("not stored {QUIET} steps after the last fault: {:?}", world.machine.wait());
}

/// Only the machine's own comparison may report a fork point below all compared blocks.
#[test]
fn the_model_tells_forks_apart() {
    let mut world = World::new(1);
    world.grow(30);
    let old = world.truth.clone();
    world.truth.chain.truncate(20);
    world.grow(12);
    let stored: Vec<_> = old.chain.iter().rev().copied().collect();
    let hashes: Vec<_> = stored.iter().map(|block| world.truth.at(block.number).map(|b| b.hash)).collect();
    assert_eq!(fork_point(&stored, &hashes, true), Fork::At(old.chain[19]));
}
