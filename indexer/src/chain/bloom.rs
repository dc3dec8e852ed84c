//! The logs bloom of a header (Yellow Paper 4.3.1): what a block may have emitted.

use alloy::primitives::{Address, B256, Bloom, BloomInput};

/// Adds one log to `bloom`.
pub fn accrue(bloom: &mut Bloom, address: Address, topics: &[B256]) {
    bloom.accrue(BloomInput::Raw(address.as_slice()));
    for topic in topics {
        bloom.accrue(BloomInput::Raw(topic.as_slice()));
    }
}

/// Whether a block with this bloom may hold a log of one of `addresses` and one of `topics` (empty: of any). `false` is
/// proof that it holds none.
pub fn may_hold(bloom: &Bloom, addresses: &[Address], topics: &[B256]) -> bool {
    let holds = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
    (addresses.is_empty() || addresses.iter().any(|address| holds(address.as_slice())))
        && (topics.is_empty() || topics.iter().any(|topic| holds(topic.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_emitted_may_be_held_and_most_else_is_not() {
        let (emitter, topic) = (Address::repeat_byte(1), B256::repeat_byte(2));
        let mut bloom = Bloom::ZERO;
        accrue(&mut bloom, emitter, &[topic]);
        let (other, odd) = (Address::repeat_byte(9), B256::repeat_byte(8));
        assert!(may_hold(&bloom, &[], &[]) && may_hold(&bloom, &[other, emitter], &[odd, topic]));
        assert!(!may_hold(&bloom, &[other], &[]) && !may_hold(&bloom, &[emitter], &[odd]));
        assert!(!may_hold(&Bloom::ZERO, &[emitter], &[]));
    }
}
