//! The `dalp-indexer` binary.
fn main() {}
