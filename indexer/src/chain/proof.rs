//! A block's logs, proved from its hash: the header hashes to it, its receipts root commits to the receipts, and the receipts
//! have the logs. Values without a commitment (transaction hashes) are compared with the block's own list.

use alloy::consensus::{EMPTY_ROOT_HASH, Header as FullHeader};
use alloy::primitives::B256;

use super::block::{BlockRef, Header};
use super::level::Level;
use super::logs::Logs;
use super::receipts::Receipts;

/// The configured level of verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The tail at the chain's strongest level; history as returned, with one block of each range proved as a sample.
    Auto,
    /// All blocks at this level, if the chain allows it.
    To(Level),
}

impl Verify {
    /// The words of the configuration.
    pub const NAMES: &[&str] = &["auto", "returned", "linked", "bloom", "receipts"];
}

/// Why a block is not proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disproof {
    /// The hash of the header's fields differs.
    #[error("block {number}: the hash of the header's fields is {computed}, but the header says {claimed}")]
    Hash {
        /// The block.
        number: u64,
        /// The hash of its fields.
        computed: B256,
        /// The hash that the node claims.
        claimed: B256,
    },
    /// The root of the receipts differs.
    #[error("block {number}: the root of its receipts is {computed}, but its header commits to {claimed}")]
    Root {
        /// The block.
        number: u64,
        /// Computed from the receipts.
        computed: B256,
        /// In the header.
        claimed: B256,
    },
    /// The receipts contradict the block or each other.
    #[error("block {number}: {what}")]
    Contradiction {
        /// The block.
        number: u64,
        /// The contradiction.
        what: &'static str,
    },
}

impl Disproof {
    /// Whether receipts are missing although the header commits to some, as on a node that keeps only newer blocks.
    pub fn is_of_no_receipts(&self) -> bool {
        matches!(self, Self::Root { computed, .. } if *computed == EMPTY_ROOT_HASH)
    }
}

/// A header whose fields hash to its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedHeader {
    fields: FullHeader,
    hash: B256,
    transactions: Vec<B256>,
}

impl SealedHeader {
    /// Hashes `fields` and compares. `transactions` are the node's hashes of the block's transactions, in order.
    ///
    /// # Errors
    /// [`Disproof::Hash`].
    pub fn new(fields: FullHeader, claimed: B256, transactions: Vec<B256>) -> Result<Self, Disproof> {
        let computed = fields.hash_slow();
        if computed != claimed {
            return Err(Disproof::Hash { number: fields.number, computed, claimed });
        }
        Ok(Self { fields, hash: computed, transactions })
    }

    /// The block.
    pub fn block(&self) -> BlockRef {
        BlockRef { number: self.fields.number, hash: self.hash }
    }

    /// Hashes of its transactions, in order, as claimed by the node.
    pub fn transactions(&self) -> &[B256] {
        &self.transactions
    }

    /// The stored part; `None` if its time does not fit an i64.
    fn header(&self) -> Option<Header> {
        Some(Header {
            number: self.fields.number,
            hash: self.hash,
            parent: Some(self.fields.parent_hash),
            time: i64::try_from(self.fields.timestamp).ok()?,
            bloom: Some(Box::new(self.fields.logs_bloom)),
        })
    }
}

/// A block with all of its logs, proved. The only way to make one is [`Proved::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    header: Header,
    logs: Logs,
}

impl Proved {
    /// Proves that `receipts` belong to the block, with each log at its position.
    ///
    /// # Errors
    /// The first [`Disproof`] found.
    pub fn new(sealed: &SealedHeader, receipts: Receipts) -> Result<Self, Disproof> {
        let block = sealed.block();
        let contradiction = |what| Disproof::Contradiction { number: block.number, what };
        let header = sealed.header().ok_or_else(|| contradiction("its timestamp is absurd"))?;
        check_places(sealed, &receipts).map_err(contradiction)?;
        let claimed = sealed.fields.receipts_root;
        if !receipts.are_those_of(claimed) {
            return Err(Disproof::Root { number: block.number, computed: receipts.root(), claimed });
        }
        Ok(Self { header, logs: receipts.logs })
    }

    /// The block's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All logs of the block, in order.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }
}

/// The receipts' order gives a log its position: the node's position must agree.
fn check_places(sealed: &SealedHeader, receipts: &Receipts) -> Result<(), &'static str> {
    let hashes = receipts.all.iter().map(|receipt| receipt.tx_hash);
    if !hashes.eq(sealed.transactions.iter().copied()) {
        return Err("its receipts do not match its transactions, one each and in order");
    }
    if receipts.logs.blocks().any(|block| block != sealed.block()) {
        return Err("a log of its receipts names another block");
    }
    let mut row = 0;
    for (index, receipt) in receipts.all.iter().enumerate() {
        while row < receipt.logs_end {
            let log = receipts.logs.get(row);
            if log.log_index as usize != row {
                return Err("the log indexes of its receipts do not start at 0, or have a gap");
            }
            if log.tx_index as usize != index || log.tx_hash != receipt.tx_hash {
                return Err("a log of its receipts names another transaction");
            }
            row += 1;
        }
    }
    if row != receipts.logs.len() {
        return Err("it has logs without a receipt");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, b256};

    use super::*;
    use crate::chain::logs::Log;
    use crate::chain::receipts::{Outcome, Receipt};

    /// Header of Ethereum's block 1, as in every node's answer.
    const BLOCK_1: &str = r#"{"parentHash":"0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
        "sha3Uncles":"0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "miner":"0x05a56e2d52c817161883f50c441c3228cfe54d9f",
        "stateRoot":"0xd67e4d450343046425ae4271474353857ab860dbc0a1dde64b41b5cd3a532bf3",
        "transactionsRoot":"0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "receiptsRoot":"0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "logsBloom":"BLOOM","difficulty":"0x3ff800000","number":"0x1","gasLimit":"0x1388","gasUsed":"0x0",
        "timestamp":"0x55ba4224","extraData":"0x476574682f76312e302e302f6c696e75782f676f312e342e32",
        "mixHash":"0x969b900de27b6ac6a67742365dd65f55a0526c41fd18e1b16f1a1215c2e66f59","nonce":"0x539bd4979fef1ec4"}"#;
    const HASH_1: B256 = b256!("88e96d4537bea4d9c05d12549907b32561d3bf31f45aae734cdc119f13406cb6");

    fn block_1() -> FullHeader {
        let json = BLOCK_1.replace("BLOOM", &format!("0x{}", "00".repeat(256)));
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_header_hashes_to_its_hash_or_is_refused() {
        let sealed = SealedHeader::new(block_1(), HASH_1, vec![]).unwrap();
        assert_eq!(sealed.block(), BlockRef { number: 1, hash: HASH_1 });
        let proved = Proved::new(&sealed, Receipts::default()).unwrap();
        assert!(proved.logs().is_empty() && proved.header().time == 0x55ba_4224);
        let mut other = block_1();
        other.timestamp += 1;
        assert!(matches!(SealedHeader::new(other, HASH_1, vec![]), Err(Disproof::Hash { number: 1, .. })));
    }

    /// A block with two transactions of two logs each, sealed over its own receipts.
    fn block(change: impl Fn(&mut SealedHeader, &mut Receipts)) -> Result<Proved, Disproof> {
        let mut fields = block_1();
        let mut receipts = receipts(&[0, 0, 1, 1], BlockRef { number: 1, hash: B256::ZERO });
        fields.receipts_root = receipts.root();
        let hash = fields.hash_slow();
        let mut sealed = SealedHeader::new(fields, hash, vec![B256::repeat_byte(0), B256::repeat_byte(1)]).unwrap();
        receipts = self::receipts(&[0, 0, 1, 1], sealed.block());
        change(&mut sealed, &mut receipts);
        Proved::new(&sealed, receipts)
    }

    fn receipts(of: &[u32], block: BlockRef) -> Receipts {
        let mut receipts = Receipts::default();
        for (row, &tx_index) in of.iter().enumerate() {
            let tx_hash = B256::repeat_byte(tx_index as u8);
            let topics = [B256::repeat_byte(row as u8)];
            let log = Log {
                log_index: row as u32,
                tx_index,
                tx_hash,
                address: Address::repeat_byte(7),
                topics: &topics,
                data: &[1],
            };
            receipts.logs.push(block, log);
        }
        for tx_index in 0..2u64 {
            receipts.all.push(Receipt {
                tx_type: 2,
                outcome: Outcome::Status(true),
                cumulative_gas: tx_index,
                tx_hash: B256::repeat_byte(tx_index as u8),
                logs_end: 2 * (tx_index as usize + 1),
            });
        }
        receipts
    }

    #[test]
    fn only_the_blocks_own_receipts_prove_it() {
        let root = |result| matches!(result, Err(Disproof::Root { .. }));
        let contradiction = |result| matches!(result, Err(Disproof::Contradiction { .. }));
        assert_eq!(block(|_, _| {}).unwrap().logs().len(), 4);
        assert!(root(block(|_, r| r.all[0].cumulative_gas = 9)));
        assert!(root(block(|_, r| r.all[1].outcome = Outcome::Status(false))));
        assert!(root(block(|_, r| r.all[0].tx_type = 1)));
        assert!(contradiction(block(|_, r| r.all.truncate(1))), "a receipt is missing");
        assert!(contradiction(block(|_, r| r.all.swap(0, 1))), "out of order");
        assert!(contradiction(block(|s, _| s.transactions.push(B256::ZERO))), "a transaction without receipt");
        assert!(contradiction(block(|s, r| *r = receipts(&[0, 1, 1, 1], s.block()))), "a log of another transaction");
        let elsewhere = BlockRef { number: 1, hash: B256::repeat_byte(5) };
        assert!(contradiction(block(|_, r| *r = receipts(&[0, 0, 1, 1], elsewhere))), "a log of another block");
        assert!(contradiction(block(|s, r| *r = receipts(&[0, 0, 1, 1, 1], s.block()))), "a log of no receipt");
    }
}
