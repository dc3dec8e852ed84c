//! The logs bloom of a header (Yellow Paper 4.3.1): what a block may have emitted.

use alloy::primitives::{Address, B256, Bloom, BloomInput};

/// Adds one log to `bloom`.
pub fn accrue(bloom: &mut Bloom, address: Address, topics: &[B256]) {
    bloom.accrue(BloomInput::Raw(address.as_slice()));
    for topic in topics {
        bloom.accrue(BloomInput::Raw(topic.as_slice()));
    }
}
