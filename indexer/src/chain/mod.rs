//! The chain as values: blocks, ranges, batches and the sync logic over them.
//!
//! Pure: no async, no clock, no sockets, and no other module of this crate. The driver changes a node or a database only on an
//! action of [`machine::Machine`].

pub mod backfill;
pub mod batch;
pub mod block;
pub mod bloom;
pub mod coverage;
pub mod filter;
pub mod level;
pub mod logs;
pub mod machine;
pub mod proof;
pub mod range;
pub mod receipts;
pub mod reorg;
#[cfg(test)]
pub mod sim;
pub mod source;
pub mod token;
pub mod verify;
