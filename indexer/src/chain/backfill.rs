//! The backfill lane: history below the tail, in any order, by several workers. [`BackfillInput`]s in, [`BackfillAction`]s out.
//!
//! It works only on final blocks, so it knows no reorgs. The stored coverage defines the missing blocks. When the result of a
//! write is in doubt, the lane reads the coverage again, and the coverage decides.

use std::collections::BTreeMap;

use super::block::BlockRange;
use super::coverage::{Coverage, subtract};
use super::range::RangeSizer;
use super::source::Source;

/// Blocks of which some logs of a source are not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The source.
    pub source: Source,
    /// The blocks.
    pub range: BlockRange,
    /// Other sources that cover all of these blocks: their selected logs are stored already.
    pub stored: Vec<Source>,
}

/// The missing part of `source` in `want`: the gaps of its coverage `own`, cut where the coverage of another source begins or ends.
/// Ascending.
pub fn pieces(source: &Source, want: BlockRange, own: &Coverage, others: &[(Source, Coverage)]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for gap in own.gaps(want) {
        let mut first = gap.first;
        while first <= gap.last {
            // No coverage changes between `first` and the next edge.
            let edges = others.iter().flat_map(|(_, coverage)| coverage.ranges()).flat_map(|r| [r.first, r.last + 1]);
            let last = edges.filter(|edge| *edge > first).map(|edge| edge - 1).fold(gap.last, u64::min);
            let covers = |coverage: &Coverage| coverage.gaps(BlockRange { first, last }).is_empty();
            let stored =
                others.iter().filter(|(_, coverage)| covers(coverage)).map(|(other, _)| other.clone()).collect();
            pieces.push(Piece { source: source.clone(), range: BlockRange { first, last }, stored });
            first = last + 1;
        }
    }
    pieces
}

/// The end of history that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the tail downwards.
    Newest,
    /// From the first block upwards.
    Oldest,
}

/// The name of one piece under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceId(u64);

/// An input.
#[derive(Clone, Debug, PartialEq)]
pub enum BackfillInput {
    /// The missing and the final blocks, read under the state row's lock.
    Loaded {
        /// The missing pieces, ascending.
        pieces: Vec<Piece>,
        /// Blocks up to this one are final.
        settled: Option<u64>,
    },
    /// A piece is committed.
    Committed {
        /// The piece.
        id: PieceId,
        /// Logs in the answer.
        logs: u64,
        /// Bytes that it took.
        bytes: u64,
    },
    /// A piece is not committed, or its commit is unknown.
    Failed {
        /// The piece.
        id: PieceId,
        /// The reason.
        failure: BackfillFailure,
    },
    /// The stored blocks changed outside the lane: the tail jumped or was unwound.
    Moved,
}

/// Why a piece was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackfillFailure {
    /// Too many blocks, logs or bytes at once; with the node's limit in blocks, if the node names one.
    TooLarge {
        /// The limit.
        hint: Option<u64>,
    },
    /// The nodes do not have these blocks now.
    Gone,
    /// Only the coverage knows whether it is committed, and by whom.
    Lost,
}

/// An action for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum BackfillAction {
    /// Fetch and commit a piece.
    Begin {
        /// Its name.
        id: PieceId,
        /// The piece.
        piece: Piece,
    },
    /// Read the missing ranges, under the state row's lock.
    Load,
    /// A block that no split makes smaller: report it; the lane continues without it until a change is reported.
    TooLarge {
        /// The block.
        number: u64,
    },
}

/// The state of a chain's backfill.
#[derive(Clone, Debug)]
pub struct Backfill {
    order: Order,
    workers: usize,
    sizer: RangeSizer,
    /// Missing and not under way; ascending, disjoint.
    todo: Vec<Piece>,
    running: BTreeMap<PieceId, Piece>,
    settled: Option<u64>,
    /// Committed since the load under way began: its answer may not include it.
    since_load: Option<Vec<Piece>>,
    next_id: u64,
}

impl Backfill {
    /// A lane with at most `workers` pieces under way. It begins with [`BackfillInput::Moved`].
    pub fn new(order: Order, workers: usize, sizer: RangeSizer) -> Self {
        let (todo, running) = (Vec::new(), BTreeMap::new());
        Self { order, workers, sizer, todo, running, settled: None, since_load: None, next_id: 0 }
    }

    /// Missing blocks, under way or not.
    pub fn missing_blocks(&self) -> u64 {
        self.missing().map(|piece| piece.range.blocks()).sum()
    }

    /// The lowest missing block.
    pub fn first_missing(&self) -> Option<u64> {
        self.missing().map(|piece| piece.range.first).min()
    }

    fn missing(&self) -> impl Iterator<Item = &Piece> {
        self.todo.iter().chain(self.running.values())
    }

    /// Pieces under way.
    pub fn running(&self) -> impl Iterator<Item = (PieceId, BlockRange)> + '_ {
        self.running.iter().map(|(id, piece)| (*id, piece.range))
    }

    /// Whether the missing blocks are known.
    pub fn is_loaded(&self) -> bool {
        self.since_load.is_none()
    }

    /// Whether a missing piece can be fetched now that blocks up to `settled` are final: load again.
    pub fn could_go_on(&self, settled: u64) -> bool {
        let above = |piece: &Piece| self.settled.is_none_or(|known| piece.range.last > known);
        self.is_loaded() && self.settled.is_none_or(|known| settled > known) && self.todo.iter().any(above)
    }

    /// Whether no piece is under way and none can begin now.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.is_loaded() && self.next_place().is_none()
    }

    /// No piece is wider than the limit of the nodes in use, if known.
    pub fn limit_range(&mut self, blocks: Option<u64>) {
        self.sizer.limit(blocks);
    }

    /// Takes one input and returns the next actions.
    pub fn step(&mut self, input: BackfillInput) -> Vec<BackfillAction> {
        let mut actions = Vec::new();
        match input {
            BackfillInput::Loaded { pieces, settled } => self.loaded(pieces, settled),
            BackfillInput::Committed { id, logs, bytes } => self.committed(id, logs, bytes),
            BackfillInput::Failed { id, failure } => self.failed(id, failure, &mut actions),
            BackfillInput::Moved => self.load(&mut actions),
        }
        self.begin(&mut actions);
        actions
    }

    fn load(&mut self, actions: &mut Vec<BackfillAction>) {
        self.since_load = Some(Vec::new());
        actions.push(BackfillAction::Load);
    }

    fn loaded(&mut self, pieces: Vec<Piece>, settled: Option<u64>) {
        self.settled = settled;
        let committed = self.since_load.take().unwrap_or_default();
        let taken: Vec<&Piece> = self.running.values().chain(&committed).collect();
        self.todo = pieces.into_iter().flat_map(|piece| cut(&piece, &taken)).collect();
    }

    fn committed(&mut self, id: PieceId, logs: u64, bytes: u64) {
        let Some(piece) = self.running.remove(&id) else { return };
        if let Some(since) = &mut self.since_load {
            since.push(piece.clone());
        }
        // The width of a short piece says nothing about the node.
        if piece.range.blocks() >= self.sizer.blocks() || logs > 0 {
            self.sizer.fetched(piece.range.blocks(), logs, bytes);
        }
    }

    fn failed(&mut self, id: PieceId, failure: BackfillFailure, actions: &mut Vec<BackfillAction>) {
        let Some(piece) = self.running.remove(&id) else { return };
        match failure {
            BackfillFailure::Lost => self.load(actions),
            BackfillFailure::TooLarge { hint } if !self.sizer.too_large(piece.range.blocks(), hint) => {
                actions.push(BackfillAction::TooLarge { number: piece.range.first });
            }
            BackfillFailure::TooLarge { .. } | BackfillFailure::Gone => self.put_back(piece),
        }
    }

    fn put_back(&mut self, piece: Piece) {
        let at = self.todo.partition_point(|other| other.range.first < piece.range.first);
        self.todo.insert(at, piece);
    }

    fn begin(&mut self, actions: &mut Vec<BackfillAction>) {
        while self.running.len() < self.workers && self.is_loaded() {
            let Some(at) = self.next_place() else { return };
            let piece = self.take(at);
            let id = PieceId(self.next_id);
            self.next_id += 1;
            self.running.insert(id, piece.clone());
            actions.push(BackfillAction::Begin { id, piece });
        }
    }

    /// The index in `todo` to take from: the first or last piece with a final block.
    fn next_place(&self) -> Option<usize> {
        let settled = self.settled?;
        let final_ones = self.todo.partition_point(|piece| piece.range.first <= settled);
        match self.order {
            Order::Newest => final_ones.checked_sub(1),
            Order::Oldest => (final_ones > 0).then_some(0),
        }
    }

    /// Cuts at most the sizer's number of blocks off the wanted end of the final part of a piece.
    fn take(&mut self, at: usize) -> Piece {
        let Piece { source, range, stored } = self.todo.remove(at);
        let top = range.last.min(self.settled.unwrap_or(0)).max(range.first);
        let (first, last) = match self.order {
            Order::Newest => (range.first.max((top + 1).saturating_sub(self.sizer.blocks())), top),
            Order::Oldest => (range.first, top.min(range.first.saturating_add(self.sizer.blocks() - 1))),
        };
        let taken = BlockRange { first, last };
        for rest in subtract(range, taken) {
            self.put_back(Piece { source: source.clone(), range: rest, stored: stored.clone() });
        }
        Piece { source, range: taken, stored }
    }
}

/// A piece without the blocks that were taken for its source.
fn cut(piece: &Piece, taken: &[&Piece]) -> Vec<Piece> {
    let of_source = taken.iter().filter(|taken| taken.source == piece.source);
    let taken = Coverage::new(of_source.map(|taken| taken.range));
    taken.gaps(piece.range).into_iter().map(|range| Piece { range, ..piece.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::chain::filter::Filter;

    fn r(first: u64, last: u64) -> BlockRange {
        BlockRange { first, last }
    }

    fn other(n: u8) -> Source {
        Source::new(Filter { topics: vec![B256::repeat_byte(n)], ..Filter::default() })
    }

    fn piece(first: u64, last: u64) -> Piece {
        Piece { source: Source::default(), range: r(first, last), stored: Vec::new() }
    }

    fn lane(order: Order, gaps: &[(u64, u64)], settled: u64) -> (Backfill, Vec<BackfillAction>) {
        let mut lane = Backfill::new(order, 2, RangeSizer::new(10, 10, 100, 1_000));
        assert_eq!(lane.step(BackfillInput::Moved), [BackfillAction::Load]);
        let pieces = gaps.iter().map(|(a, b)| piece(*a, *b)).collect();
        let actions = lane.step(BackfillInput::Loaded { pieces, settled: Some(settled) });
        (lane, actions)
    }

    fn ranges(actions: &[BackfillAction]) -> Vec<(u64, u64)> {
        let range = |action: &BackfillAction| match action {
            BackfillAction::Begin { piece, .. } => Some((piece.range.first, piece.range.last)),
            _ => None,
        };
        actions.iter().filter_map(range).collect()
    }

    #[test]
    fn gaps_are_cut_where_another_sources_coverage_changes() {
        let (a, b) = (other(1), other(2));
        let others = [(a.clone(), Coverage::new([r(0, 9)])), (b.clone(), Coverage::new([r(5, 19)]))];
        let own = Source::default();
        let found = pieces(&own, r(0, 29), &Coverage::new([r(8, 11)]), &others);
        assert!(found.iter().all(|piece| piece.source == own));
        let found: Vec<_> = found.into_iter().map(|p| (p.range.first, p.range.last, p.stored)).collect();
        assert_eq!(found, [(0, 4, vec![a.clone()]), (5, 7, vec![a, b.clone()]), (12, 19, vec![b]), (20, 29, vec![])]);
        assert_eq!(pieces(&own, r(0, 9), &Coverage::new([r(0, 9)]), &others), []);
    }

    #[test]
    fn the_wanted_end_comes_first_and_only_final_blocks_are_taken() {
        let (_, newest) = lane(Order::Newest, &[(0, 14), (30, 50)], 40);
        assert_eq!(ranges(&newest), [(31, 40), (30, 30)]);
        let (mut lane, oldest) = lane(Order::Oldest, &[(0, 14), (30, 50)], 40);
        assert_eq!(ranges(&oldest), [(0, 9), (10, 14)]);
        assert_eq!((lane.missing_blocks(), lane.first_missing()), (36, Some(0)));
        let committed = |id| BackfillInput::Committed { id: PieceId(id), logs: 0, bytes: 0 };
        assert_eq!(ranges(&lane.step(committed(0))), [(30, 39)]);
        assert_eq!(ranges(&lane.step(committed(1))), [(40, 40)]);
        assert_eq!(ranges(&lane.step(committed(2))), [], "41 is not final yet");
        assert!(!lane.could_go_on(40) && lane.could_go_on(45));
        lane.step(BackfillInput::Moved);
        let rest = BackfillInput::Loaded { pieces: vec![piece(41, 50)], settled: Some(45) };
        assert_eq!(ranges(&lane.step(rest)), [(41, 45)]);
    }

    #[test]
    fn a_refused_piece_is_split_and_a_single_block_is_told() {
        let (mut lane, _) = lane(Order::Oldest, &[(0, 14)], 40);
        let too_large =
            |id| BackfillInput::Failed { id: PieceId(id), failure: BackfillFailure::TooLarge { hint: None } };
        assert_eq!(ranges(&lane.step(too_large(0))), [(0, 4)]);
        lane.step(BackfillInput::Failed { id: PieceId(2), failure: BackfillFailure::TooLarge { hint: Some(1) } });
        let (mut lane, _) = super::tests::lane(Order::Oldest, &[(7, 7)], 40);
        assert_eq!(lane.step(too_large(0)), [BackfillAction::TooLarge { number: 7 }]);
        assert!(lane.is_idle());
    }

    #[test]
    fn what_was_committed_while_the_coverage_was_read_is_not_fetched_again() {
        let (mut lane, _) = lane(Order::Oldest, &[(0, 14), (20, 24)], 40);
        let lost = BackfillInput::Failed { id: PieceId(1), failure: BackfillFailure::Lost };
        assert_eq!(lane.step(lost), [BackfillAction::Load]);
        lane.step(BackfillInput::Committed { id: PieceId(0), logs: 0, bytes: 0 });
        let stale = vec![piece(0, 14), piece(20, 24)];
        assert_eq!(
            ranges(&lane.step(BackfillInput::Loaded { pieces: stale, settled: Some(40) })),
            [(10, 14), (20, 24)]
        );
    }
}
