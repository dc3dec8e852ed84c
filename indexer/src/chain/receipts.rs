//! The receipts of a block, and their root (Yellow Paper 4.3.1, EIP-658, EIP-2718). Any transaction type: a receipt is encoded by
//! its type byte, without knowledge of the type.

use alloy::consensus::proofs::ordered_trie_root_encoded;
use alloy::primitives::B256;
use alloy::rlp::{Encodable, Header as Prefix};

use super::bloom;
use super::logs::{Log, Logs};

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Whether it succeeded (since Byzantium).
    Status(bool),
    /// The state root after it (before Byzantium).
    Root(B256),
}

/// One transaction's receipt, without its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The EIP-2718 type; 0 for a legacy transaction, whose receipt has no type byte.
    pub tx_type: u8,
    /// The outcome of the transaction.
    pub outcome: Outcome,
    /// Gas of the block up to and including this transaction.
    pub cumulative_gas: u64,
    /// The transaction hash, as claimed by the node: the root does not commit to it.
    pub tx_hash: B256,
    /// Its logs are the rows of [`Receipts::logs`] between the end of the previous receipt and this end.
    pub logs_end: usize,
}

/// All receipts of one block, in the order of its transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// The receipts.
    pub all: Vec<Receipt>,
    /// Their logs, in chain order.
    pub logs: Logs,
}

impl Receipts {
    /// The receipts root of these receipts. Blooms are recomputed, so the root commits to them as well.
    pub fn root(&self) -> B256 {
        self.root_with(EMPTY)
    }

    /// Whether a header with `root` commits to these receipts. ganache writes a failed transaction's status as a zero byte
    /// instead of an empty string: the root commits to the same receipts.
    pub fn are_those_of(&self, root: B256) -> bool {
        let failed = self.all.iter().any(|receipt| receipt.outcome == Outcome::Status(false));
        self.root() == root || (failed && self.root_with(0) == root)
    }

    /// `failure`: the byte for the status of a failed transaction.
    fn root_with(&self, failure: u8) -> B256 {
        let mut begin = 0;
        let encoded: Vec<Vec<u8>> = self
            .all
            .iter()
            .map(|receipt| {
                let logs = begin..receipt.logs_end;
                begin = receipt.logs_end;
                self.encode(receipt, logs, failure)
            })
            .collect();
        ordered_trie_root_encoded(&encoded)
    }

    fn encode(&self, receipt: &Receipt, logs: std::ops::Range<usize>, failure: u8) -> Vec<u8> {
        let all = || logs.clone().map(|row| self.logs.get(row));
        let bloom = bloom::of(all().map(|log| (log.address, log.topics)));
        let logs_length = all().map(|log| prefixed(log_length(&log))).sum();
        let outcome_length = match &receipt.outcome {
            Outcome::Status(success) => success.length(),
            Outcome::Root(root) => root.length(),
        };
        let payload = outcome_length + receipt.cumulative_gas.length() + bloom.length() + prefixed(logs_length);
        let mut out = Vec::with_capacity(1 + prefixed(payload));
        if receipt.tx_type != 0 {
            out.push(receipt.tx_type);
        }
        list(payload, &mut out);
        match &receipt.outcome {
            Outcome::Status(true) => true.encode(&mut out),
            Outcome::Status(false) => out.push(failure),
            Outcome::Root(root) => root.encode(&mut out),
        }
        receipt.cumulative_gas.encode(&mut out);
        bloom.encode(&mut out);
        list(logs_length, &mut out);
        for log in all() {
            encode_log(&log, &mut out);
        }
        out
    }
}

/// The empty string in RLP, which encodes a failure in EIP-658.
const EMPTY: u8 = 0x80;

fn list(payload_length: usize, out: &mut Vec<u8>) {
    Prefix { list: true, payload_length }.encode(out);
}

/// Bytes of a list with its prefix.
fn prefixed(payload_length: usize) -> usize {
    Prefix { list: true, payload_length }.length_with_payload()
}

/// A topic is a 32-byte string: 33 bytes.
const TOPIC: usize = 33;

fn log_length(log: &Log<'_>) -> usize {
    log.address.length() + prefixed(log.topics.len() * TOPIC) + log.data.length()
}

fn encode_log(log: &Log<'_>, out: &mut Vec<u8>) {
    list(log_length(log), out);
    log.address.encode(out);
    list(log.topics.len() * TOPIC, out);
    for topic in log.topics {
        topic.encode(out);
    }
    log.data.encode(out);
}

#[cfg(test)]
mod tests {
    use alloy::consensus::{Eip658Value, Receipt as Known, ReceiptWithBloom, TxReceipt};
    use alloy::primitives::{Address, LogData, b256};

    use super::*;
    use crate::chain::block::BlockRef;

    /// The root of a block without transactions (Yellow Paper: the hash of the RLP of an empty string).
    const EMPTY: B256 = b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421");

    #[test]
    fn no_receipts_have_the_empty_root() {
        assert_eq!(Receipts::default().root(), EMPTY);
    }

    /// Receipts in our form, and in the encoding of another implementation.
    fn pair(of: &[(u8, Outcome, u64, usize)]) -> (Receipts, Vec<Vec<u8>>) {
        let (mut ours, mut theirs) = (Receipts::default(), Vec::new());
        for (index, &(tx_type, outcome, cumulative_gas, logs)) in of.iter().enumerate() {
            let mut known = Vec::new();
            for at in 0..logs {
                let topics = vec![B256::repeat_byte(at as u8); at % 5];
                let data = vec![index as u8; at * 40];
                let address = Address::repeat_byte(index as u8);
                let log = Log {
                    log_index: ours.logs.len() as u32,
                    tx_index: index as u32,
                    tx_hash: B256::ZERO,
                    address,
                    topics: &topics,
                    data: &data,
                };
                ours.logs.push(BlockRef { number: 1, hash: B256::ZERO }, log);
                known.push(alloy::primitives::Log { address, data: LogData::new_unchecked(topics, data.into()) });
            }
            let logs_end = ours.logs.len();
            ours.all.push(Receipt { tx_type, outcome, cumulative_gas, tx_hash: B256::ZERO, logs_end });
            let status = match outcome {
                Outcome::Status(success) => Eip658Value::Eip658(success),
                Outcome::Root(root) => Eip658Value::PostState(root),
            };
            let receipt = Known { status, cumulative_gas_used: cumulative_gas, logs: known };
            let bloom = receipt.bloom();
            let mut bytes = if tx_type == 0 { vec![] } else { vec![tx_type] };
            ReceiptWithBloom::new(receipt, bloom).encode(&mut bytes);
            theirs.push(bytes);
        }
        (ours, theirs)
    }

    #[test]
    fn receipts_of_any_type_are_encoded_as_another_implementation_does() {
        let ok = Outcome::Status(true);
        let few = [(0, ok, 21_000, 0), (2, ok, 60_000, 3), (1, Outcome::Status(false), 90_000, 0), (0x7e, ok, 1, 7)];
        let old = [(0, Outcome::Root(B256::repeat_byte(9)), 21_000, 2)];
        let many: Vec<_> = (0..300).map(|n| ((n % 5) as u8, ok, n, (n % 6) as usize)).collect();
        for of in [&few[..], &old, &many] {
            let (ours, theirs) = pair(of);
            assert_eq!(ours.root(), ordered_trie_root_encoded(&theirs));
        }
    }

    #[test]
    fn a_failed_transaction_of_ganache_is_proved_by_the_root_that_ganache_writes() {
        let (ours, _) = pair(&[(2, Outcome::Status(false), 0xcf48, 0)]);
        // From a block of ganache 7.9.2 whose contract creation reverts.
        let root = b256!("632c2c08e6343045fd6f66b4a11842bb2dd5872c4cd054a26c4baa0b92062fff");
        assert!(ours.are_those_of(root) && ours.are_those_of(ours.root()) && ours.root() != root);
        let (other, _) = pair(&[(2, Outcome::Status(true), 0xcf48, 0)]);
        assert!(!other.are_those_of(root) && !other.are_those_of(ours.root()));
    }

    #[test]
    fn every_part_of_a_receipt_changes_the_root() {
        let ok = Outcome::Status(true);
        let roots: Vec<B256> = [
            &[(2, ok, 60_000, 3)][..],
            &[(1, ok, 60_000, 3)],
            &[(2, Outcome::Status(false), 60_000, 3)],
            &[(2, ok, 60_001, 3)],
            &[(2, ok, 60_000, 2)],
            &[(2, ok, 60_000, 3), (2, ok, 60_001, 0)],
            &[],
        ]
        .iter()
        .map(|of| pair(of).0.root())
        .collect();
        for (at, root) in roots.iter().enumerate() {
            assert!(!roots[..at].contains(root), "case {at}");
        }
    }
}
