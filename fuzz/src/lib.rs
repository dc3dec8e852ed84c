//! The shared part of the fuzz targets: counted memory, and an independent reader of logs.

use std::alloc::System;

use alloy::rpc::types::Log as AlloyLog;
use dalp_indexer::chain::logs::{Log, Logs};
use dalp_indexer::chain::block::BlockRef;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be allocated for each byte of the input, and beside them. An error's JSON as a value takes most: 632 bytes
/// for each `{"":`, which is a map of one entry.
const PER_BYTE: usize = 256;
const BESIDE: usize = 256 << 10;

/// Carries out `work` on an input of `length` bytes.
///
/// # Panics
/// Where it allocates out of all proportion to the input.
pub fn bounded<T>(length: usize, work: impl FnOnce() -> T) -> T {
    let region = Region::new(ALLOCATOR);
    let done = work();
    let taken = region.change().bytes_allocated;
    assert!(taken <= BESIDE + PER_BYTE * length, "{taken} bytes were allocated for {length}");
    done
}

/// Logs read by alloy, in our columns; `None` if a log lacks a field that only logs in blocks have.
pub fn in_columns(read: &[AlloyLog]) -> Option<Logs> {
    let mut logs = Logs::default();
    for log in read {
        let block = BlockRef { number: log.block_number?, hash: log.block_hash? };
        let row = Log {
            log_index: u32::try_from(log.log_index?).ok()?,
            tx_index: u32::try_from(log.transaction_index?).ok()?,
            tx_hash: log.transaction_hash?,
            address: log.address(),
            topics: log.topics(),
            data: &log.inner.data.data,
        };
        logs.push(block, row);
    }
    Some(logs)
}
