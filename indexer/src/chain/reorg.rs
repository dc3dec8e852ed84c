//! Finding the fork point: the highest stored block that the node still has.

use alloy::primitives::B256;

use super::block::BlockRef;

/// The result of comparing stored blocks with the node's blocks of the same heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The node has this stored block and, because the hash names all of its ancestors, every block below it.
    At(BlockRef),
    /// None of the compared blocks is the node's: compare lower ones.
    Below,
    /// The node lacks a height that it must know if it were ahead of us: it lags, so there is no result.
    Unsure,
}

/// Compares `stored` (descending) with `node`, the node's hashes of the same heights (`None`: unknown to it).
///
/// With `head_may_move_back` an unknown height counts as gone, as on a devnet whose head was rolled back; otherwise it means a
/// lagging node. Comparison is by number, never by hash: nodes answer for orphaned hashes too.
pub fn fork_point(stored: &[BlockRef], node: &[Option<B256>], head_may_move_back: bool) -> Fork {
    for (block, hash) in stored.iter().zip(node) {
        match hash {
            Some(hash) if *hash == block.hash => return Fork::At(*block),
            None if !head_may_move_back => return Fork::Unsure,
            Some(_) | None => {}
        }
    }
    Fork::Below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    #[test]
    fn the_highest_common_block_wins() {
        let stored = [
            BlockRef { number: 9, hash: h(9) },
            BlockRef { number: 7, hash: h(7) },
            BlockRef { number: 3, hash: h(3) },
        ];
        let check = |node: &[Option<B256>], back| fork_point(&stored, node, back);
        assert_eq!(check(&[Some(h(9)), Some(h(7)), Some(h(3))], false), Fork::At(stored[0]));
        assert_eq!(check(&[Some(h(1)), Some(h(7)), Some(h(3))], false), Fork::At(stored[1]));
        assert_eq!(check(&[Some(h(1)), Some(h(1)), Some(h(1))], false), Fork::Below);
        assert_eq!(check(&[None, Some(h(7)), Some(h(3))], false), Fork::Unsure);
        assert_eq!(check(&[None, Some(h(7)), Some(h(3))], true), Fork::At(stored[1]));
        assert_eq!(check(&[], true), Fork::Below);
    }
}
