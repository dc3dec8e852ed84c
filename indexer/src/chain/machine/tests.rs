//! Small scenarios, written by hand. The seeded model chain is in `sim.rs`.

use alloy::primitives::B256;

use super::*;
use crate::chain::batch::Link;
use crate::chain::block::BlockRange;

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
    let limits = Limits { fetches: 2, bytes: 1_000_000, far_behind: 500 };
    let mut machine = Machine::new(finality, 0, limits, RangeSizer::new(100, 1_000, 10_000, 100_000));
    let hash = next.checked_sub(1).map(|n| hash(0, n));
    machine.step(loaded(Tail { next, hash }, None));
    machine
}

fn loaded(tail: Tail, finalized: Option<u64>) -> Input {
    Input::Loaded { tail, finalized, recent: Vec::new() }
}

fn fetched(id: u64, link: Link, logs: u64) -> Input {
    Input::Fetched { id: FetchId(id), link, logs, bytes: logs * 100, blocks: vec![link.last] }
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
    assert_eq!(m.step(fetched(1, link(100, 118), 0)), [], "out of order: waits");
    let actions = m.step(fetched(0, link(0, 99), 0));
    let on = Tail { next: 0, hash: None };
    assert_eq!(actions[0], Action::Append { id: FetchId(0), on, finalized: None });
    assert_eq!(actions[1], Action::Fetch { id: FetchId(2), range: range(119, 126), near_head: true });
    assert_eq!(m.wait(), Wait::Append(range(0, 99)));
    let actions = m.step(Input::Committed);
    assert!(matches!(actions[0], Action::Append { id: FetchId(1), .. }));
}

#[test]
fn near_the_head_what_came_is_kept_and_the_rest_is_asked_for_again() {
    let mut m = machine(Finality::Never, 0);
    let range = |first, last| BlockRange { first, last };
    let asked = m.step(head(9));
    let fetch = |id, first, last| Action::Fetch { id: FetchId(id), range: range(first, last), near_head: true };
    assert_eq!(asked, [fetch(0, 0, 7), fetch(1, 8, 9)]);
    // Three of eight blocks arrived.
    let actions = m.step(fetched(0, link(0, 2), 0));
    let on = Tail { next: 0, hash: None };
    assert_eq!(actions, [Action::Append { id: FetchId(0), on, finalized: None }, fetch(2, 3, 7)]);
    m.step(Input::Committed);
    assert_eq!(m.tail().next, 3);
    m.step(fetched(1, link(8, 9), 0));
    assert!(matches!(m.step(fetched(2, link(3, 7), 0))[..], [Action::Append { id: FetchId(2), .. }]));
}

/// Follows a head that moves on every second tick. A request takes one tick, and one in four fails: as a whole, or after its
/// first blocks. Returns the ticks with more than five blocks of lag, per hundred, and the requests per block.
fn follow(seed: u64) -> (u64, f64) {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const TICKS: u64 = 4_000;
    let mut rng = StdRng::seed_from_u64(seed);
    let limits = Limits { fetches: 4, bytes: 1_000_000, far_behind: 500 };
    let mut m = Machine::new(Finality::Never, 0, limits, RangeSizer::new(100, 1_000, 10_000, 100_000));
    let mut under_way: Vec<(u64, FetchId, BlockRange)> = Vec::new();
    let (mut inputs, mut asked, mut late) = (vec![loaded(Tail { next: 0, hash: None }, None)], 0, 0);
    for tick in 0..TICKS {
        if tick % 2 == 0 {
            inputs.push(head(tick / 2));
        }
        let due: Vec<_> = under_way.extract_if(.., |(at, ..)| *at <= tick).collect();
        for (_, id, range) in due {
            asked += 1;
            let came = match rng.random_bool(0.25) {
                true => rng.random_range(0..range.blocks()),
                false => range.blocks(),
            };
            match came {
                // Requested again after a pause.
                0 => under_way.push((tick + 2, id, range)),
                came => inputs.push(fetched(id.0, link(range.first, range.first + came - 1), 0)),
            }
        }
        while let Some(input) = inputs.pop() {
            for action in m.step(input) {
                match action {
                    Action::Fetch { id, range, .. } => under_way.push((tick + 1, id, range)),
                    Action::Append { .. } => inputs.push(Input::Committed),
                    Action::Forget => under_way.clear(),
                    action => panic!("{action:?}"),
                }
            }
        }
        late += u64::from(m.tail().next + 5 < tick / 2);
    }
    (late * 100 / TICKS, asked as f64 / m.tail().next as f64)
}

#[test]
fn a_tail_keeps_up_with_its_head_though_one_question_in_four_fails() {
    for seed in 0..20 {
        let (late, asked) = follow(seed);
        assert!(late <= 2 && asked <= 1.7, "seed {seed}: {late} % of the time behind, {asked:.2} questions a block");
    }
}

#[test]
fn a_final_block_that_is_not_stored_is_asked_for_beside_the_tail() {
    let mut m = machine(Finality::Tag, 300);
    let recent = vec![block(199), block(256), block(299)];
    m.step(Input::Loaded { tail: m.tail(), finalized: None, recent });
    m.step(Input::Head { head: block(299), finalized: Some(block(257)) });
    assert_eq!((m.settled(), m.unconfirmed()), (None, Some(block(257))));
    let elsewhere = Tail { next: 300, hash: Some(hash(1, 299)) };
    m.step(Input::Anchored { block: block(257), tail: elsewhere });
    assert_eq!(m.settled(), None, "of another branch");
    m.step(Input::Anchored { block: block(257), tail: m.tail() });
    assert_eq!((m.settled(), m.unconfirmed()), (Some(256), None), "the highest stored block at or below it");
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
    let tail = m.tail();
    m.step(loaded(tail, Some(90)));
    m.step(head(100));
    let anchor = BlockRef { number: 100, hash: hash(1, 100) };
    let link = Link { parent: Some(hash(1, 99)), last: anchor };
    let actions = m.step(fetched(0, link, 0));
    assert_eq!(actions, [Action::Forget, Action::Compare { floor: Some(90), anchor }]);
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
    let tail = m.tail();
    m.step(loaded(tail, Some(89)));
    m.step(Input::Head { head: BlockRef { number: 99, hash: hash(1, 99) }, finalized: None });
    assert_eq!(m.wait(), Wait::Compare, "same height, other hash: a reorg of equal length");
    let stop = Stop::BelowFinalized { finalized: 89 };
    assert!(m.step(Input::Compared(Fork::At(block(80)))).contains(&Action::Stop(stop)));
    assert!(matches!(m.wait(), Wait::Operator(_)));
}

/// A machine that stored final blocks up to 89, and whose node continued from a lower block.
fn left_below_89(finality: Finality) -> (Machine, Vec<Action>) {
    let mut m = machine(finality, 100);
    let tail = m.tail();
    m.step(loaded(tail, Some(89)));
    let other = |number| BlockRef { number, hash: hash(1, number) };
    m.step(Input::Head { head: other(120), finalized: None });
    let asked = m.step(fetched(0, Link { parent: Some(other(99).hash), last: other(120) }, 0));
    assert!(matches!(asked[..], [Action::Forget, Action::Compare { floor: Some(89), .. }]), "{asked:?}");
    let actions = m.step(Input::Compared(Fork::Below));
    (m, actions)
}

#[test]
fn what_was_final_by_another_setting_stops_a_chain_that_never_is() {
    let (m, actions) = left_below_89(Finality::Never);
    assert!(actions.contains(&Action::Stop(Stop::BelowFinalized { finalized: 89 })), "{actions:?}");
    assert!(m.wait().to_string().contains("reindex --from"), "{}", m.wait());
}

#[test]
fn branches_that_no_node_calls_final_are_compared_once_a_head() {
    let (mut m, actions) = left_below_89(Finality::Tag);
    let other = |number| BlockRef { number, hash: hash(1, number) };
    let fetched = |actions: &[Action]| {
        let id = actions.iter().find_map(|action| match action {
            Action::Fetch { id, .. } => Some(*id),
            _ => None,
        });
        let link = Link { parent: Some(other(99).hash), last: other(120) };
        Input::Fetched { id: id.expect("a fetch"), link, logs: 0, bytes: 0, blocks: vec![link.last] }
    };
    assert_eq!(m.step(fetched(&actions)), [], "nothing is new: no second comparison");
    assert_eq!(m.wait(), Wait::Finality);
    let actions = m.step(Input::Head { head: other(121), finalized: None });
    assert!(matches!(actions[..], [Action::Forget, Action::Compare { .. }]), "{actions:?}");
    let actions = m.step(Input::Compared(Fork::Below));
    m.step(fetched(&actions));
    let actions = m.step(Input::Head { head: other(122), finalized: Some(other(95)) });
    let anchor = match actions[..] {
        [Action::Forget, Action::Compare { anchor, .. }] => anchor,
        ref actions => panic!("not compared: {actions:?}"),
    };
    assert_eq!(anchor, other(120));
    let actions = m.step(Input::Compared(Fork::Below));
    let compare = Action::Compare { floor: Some(89), anchor: other(95) };
    assert!(actions.contains(&compare), "by a block that is called final: {actions:?}");
    let stop = Action::Stop(Stop::BelowFinalized { finalized: 89 });
    assert!(m.step(Input::Compared(Fork::Below)).contains(&stop));
}

#[test]
fn a_lower_head_is_a_lagging_node_except_where_heads_may_move_back() {
    let mut m = machine(Finality::Depth(10), 100);
    assert_eq!(m.step(head(50)), []);
    assert_eq!(m.wait(), Wait::NodeBehind(99));
    let mut m = machine(Finality::Never, 100);
    assert_eq!(m.step(head(50)), [Action::Forget, Action::Compare { floor: None, anchor: block(50) }]);
    assert_eq!(m.step(Input::Compared(Fork::At(block(99)))), [], "the lower head was only late news");
    assert_eq!(m.step(head(50)), [], "and is not asked about again");
}

#[test]
fn a_lost_commit_is_decided_by_the_state_row() {
    for committed in [true, false] {
        let mut m = machine(Finality::Never, 10);
        m.step(head(10));
        m.step(fetched(0, link(10, 10), 1));
        assert_eq!(m.step(Input::WriteLost), [Action::Reload]);
        let tail = if committed { Tail::after(block(10)) } else { Tail::after(block(9)) };
        let actions = m.step(loaded(tail, None));
        let again = Action::Append { id: FetchId(0), on: Tail::after(block(9)), finalized: None };
        assert_eq!(actions, if committed { vec![] } else { vec![again] });
    }
}

#[test]
fn only_our_own_block_makes_what_lies_below_it_final() {
    let mut m = machine(Finality::Depth(10), 100);
    let other = BlockRef { number: 100, hash: hash(1, 100) };
    m.step(Input::Head { head: other, finalized: None });
    assert_eq!((m.finalized(), m.settled()), (Some(90), None), "said, and not yet ours");
    let recent: Vec<_> = (85..100).map(block).collect();
    m.step(Input::Loaded { tail: Tail::after(block(99)), finalized: None, recent });
    m.step(head(100));
    let actions = m.step(fetched(0, link(100, 100), 0));
    let on = Tail::after(block(99));
    assert!(actions.contains(&Action::Append { id: FetchId(0), on, finalized: Some(90) }), "{actions:?}");
    m.step(Input::Committed);
    assert_eq!(m.settled(), Some(90));
}

#[test]
fn far_behind_the_tail_jumps_once_its_own_block_is_found_on_the_chain() {
    let mut m = machine(Finality::Tag, 100);
    let finalized = Some(block(900));
    let actions = m.step(Input::Head { head: block(1_000), finalized });
    assert_eq!(actions, [Action::Forget, Action::Compare { floor: None, anchor: block(900) }]);
    let actions = m.step(Input::Compared(Fork::At(block(99))));
    let jump = Action::Jump { from: Tail::after(block(99)), to: 900, anchor: block(900) };
    assert_eq!(actions, [Action::Forget, jump]);
    assert_eq!(
        m.step(Input::NotJumped)[0],
        Action::Fetch { id: FetchId(0), range: BlockRange { first: 100, last: 199 }, near_head: false }
    );
    let actions = m.step(Input::Head { head: block(1_001), finalized });
    assert_eq!(actions, [Action::Forget, jump], "tried again at the next head");
    let actions = m.step(Input::Jumped(block(900)));
    assert!(matches!(actions[0], Action::Fetch { range: BlockRange { first: 901, .. }, .. }));
    assert_eq!((m.tail(), m.settled()), (Tail::after(block(900)), Some(900)));
}

#[test]
fn what_is_held_is_bounded_and_the_next_to_commit_always_comes() {
    let mut m = machine(Finality::Never, 0);
    m.step(head(1_000));
    let big = Input::Fetched { id: FetchId(1), link: link(100, 199), logs: 1, bytes: 390_000, blocks: vec![] };
    m.step(big);
    let failed = Input::FetchFailed { id: FetchId(0), failure: FetchFailure::Gone };
    let actions = m.step(failed);
    assert!(matches!(actions[..], [Action::Fetch { range: BlockRange { first: 0, .. }, .. }]), "{actions:?}");
    let excessive = Input::Fetched { id: FetchId(2), link: link(0, 24), logs: 1, bytes: 500_000, blocks: vec![] };
    let actions = m.step(excessive);
    assert!(!m.wants(FetchId(2)), "fetched again in parts");
    assert!(matches!(actions[..], [Action::Fetch { range: BlockRange { first: 0, last: 4 }, .. }]), "{actions:?}");
}
