//! The right to write a chain.

use alloy::primitives::B256;

/// The right to write one chain, until another process claims it. Only the store makes one: by the lease, by joining its holder,
/// or by taking a chain over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The chain.
    pub chain_id: u64,
    /// The fencing token.
    pub token: i64,
    /// The source's name: that of its filter.
    pub source_id: B256,
    /// First block to index.
    pub start_block: u64,
    /// Whether raw logs are stored beside the typed rows.
    pub raw: bool,
    _made: Made,
}

/// Prevents other modules from making a [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made;

impl Claim {
    pub(super) fn new(chain_id: u64, token: i64, source_id: B256, start_block: u64, raw: bool) -> Self {
        Self { chain_id, token, source_id, start_block, raw, _made: Made }
    }
}
