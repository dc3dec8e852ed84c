//! An ABI, and a log for each of its events. What is decoded has a cell for each column and takes no more memory than the log has.

#![no_main]

use alloy::primitives::{Address, B256};
use dalp_fuzz::bounded;
use dalp_indexer::chain::logs::Log;
use dalp_indexer::dataset::fuzzing::decoded;
use dalp_indexer::dataset::tables;
use dalp_indexer::events::abi::Abi;
use libfuzzer_sys::fuzz_target;

/// Ends the ABI: in no text.
const END: u8 = 0xff;

fuzz_target!(|input: &[u8]| {
    let (abi, log) = match input.iter().position(|byte| *byte == END) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    let Ok(text) = str::from_utf8(abi) else { return };
    let Ok(abi) = bounded(text.len(), || Abi::read(text)) else { return };
    for (dataset, forms) in tables("k", &abi.events) {
        for form in forms {
            let words = (form.topics() - 1).min(log.len() / 32);
            let (indexed, data) = log.split_at(words * 32);
            let topics: Vec<B256> =
                form.topic0.into_iter().chain(indexed.chunks_exact(32).map(B256::from_slice)).collect();
            let (tx_hash, address) = (B256::ZERO, Address::ZERO);
            let log = Log { log_index: 0, tx_index: 0, tx_hash, address, topics: &topics, data };
            if let Ok(cells) = bounded(log.data.len(), || decoded(&dataset, &log)) {
                assert_eq!(cells.len(), dataset.columns().len(), "{form}");
            }
        }
    }
});
