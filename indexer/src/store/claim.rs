//! The right to write a chain.

/// The right to write one chain, until another process claims it. Only the store makes one: by the lease, by joining its holder,
/// or by taking a chain over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The chain.
    pub chain_id: u64,
    /// The fencing token.
    pub token: i64,
    _made: Made,
}

/// Prevents other modules from making a [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made;

impl Claim {
    pub(super) fn new(chain_id: u64, token: i64) -> Self {
        Self { chain_id, token, _made: Made }
    }
}
