//! `[chains.NAME]`.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::given::{Given, Read};
use super::kind;
use super::section::settings;
use super::value::{Finality, MINUTE, MS, ORDERS, Secret, Verify};
use crate::chain::backfill::Order;
use crate::dataset::Datasets;

settings! {
    /// One chain.
    pub struct Chain in "chains.*", drafted as ChainDraft, beside {
        /// Its name in the configuration: a-z, 0-9 and `_`.
        pub name: String,
        /// The tables of its logs.
        pub datasets: Datasets,
    } {
        /// The chain id. Every node must return it for eth_chainId.
        ///
        /// A wrong URL must not mix the rows of two chains.
        pub chain_id: u64 = must "31337", kind::Int(1, kind::MAX_INT);

        /// The JSON-RPC URLs (HTTP) of one or more nodes of this chain.
        ///
        /// With several nodes, the indexer skips a node that fails or lags.
        pub rpc_urls: Vec<Secret> = must "http://127.0.0.1:8545", kind::Url(&["http", "https"]);

        /// WebSocket URLs for new heads.
        ///
        /// With a WebSocket, the node announces each head at once. Without one, the indexer polls for the head.
        pub ws_urls: Vec<Secret> = "", kind::Url(&["ws", "wss"]);

        /// The first block to index.
        ///
        /// The block of the first contract's deployment avoids the empty history before it.
        pub start_block: u64 = "0", kind::Int(0, kind::MAX_INT);

        /// The rule by which blocks become final.
        ///
        /// `tag` is right for Ethereum since its merge, `instant` for BFT chains, `never` for a devnet with rollbacks.
        pub finality: Finality = "tag", kind::FINALITY;

        /// The contracts to index; empty for all contracts.
        ///
        /// On a shared chain, list your contracts.
        pub addresses: Vec<Address> = "", kind::ADDRESS;

        /// The first topics to index, each a hash or an event such as `Transfer(address,address,uint256)`, which is hashed; empty for all
        /// topics.
        ///
        /// The indexer does not fetch other logs.
        pub topics: Vec<B256> = "", kind::TOPIC;

        /// Whether each log is also stored unchanged, in `logs`, beside its typed row.
        ///
        /// Raw logs can be decoded later without a node. Without raw logs, rows take half of the space, and the indexer fetches only events
        /// with a typed table.
        pub raw: bool = "true", kind::BOOL;

        /// Whether the indexer reads name, symbol and decimals of each token once, by `eth_call`, for amounts in whole tokens.
        ///
        /// It makes at most twelve calls a second, beside its other work. Without them, the `…_scaled` columns of the views are NULL.
        pub tokens: bool = "true", kind::BOOL;

        /// The level of verification of the nodes' answers: returned, linked, bloom or receipts.
        ///
        /// `auto` proves each new block by its receipts if the chain allows it, otherwise by its bloom. In history, `auto` proves one block of
        /// each range; a stronger level of history fetches more.
        pub verify: Verify = "auto", kind::Choice(Verify::NAMES);

        /// The interval of polling for the head if no WebSocket announces it.
        ///
        /// Half of the chain's block time is a good value.
        pub poll_interval: Duration = "1s", kind::Time(50 * MS, 10 * MINUTE);

        /// The time limit of one request to a node.
        ///
        /// An answer with the logs of a large range takes seconds.
        pub request_timeout: Duration = "20s", kind::Time(100 * MS, 10 * MINUTE);

        /// The size limit of an answer of a node, in bytes.
        ///
        /// 64 MiB. The indexer requests a larger range in halves, so this setting bounds memory.
        pub max_response_bytes: u64 = "67108864", kind::Int(65_536, 4_294_967_296);

        /// The number of blocks in the first request for logs.
        ///
        /// Only the first request uses it: the indexer learns a good size from the answers.
        pub range_blocks: u64 = "100", kind::Int(1, 1_000_000);

        /// The largest number of blocks in one range.
        ///
        /// A large value makes few requests for empty blocks. The indexer learns the limit of a node; the node's limit here avoids the first
        /// refusal.
        pub max_range_blocks: u64 = "100000", kind::Int(1, 1_000_000);

        /// The number of requests at the same time.
        ///
        /// A larger value fetches history faster, until the provider throttles.
        pub fetch_parallelism: u32 = "4", kind::Int(1, 256);

        /// The number of rows at which a batch is closed. A batch is one transaction.
        ///
        /// Larger batches are hardly faster, and hold their locks longer.
        pub batch_rows: u32 = "20000", kind::Int(100, 1_000_000);

        /// The size limit of all fetched batches that wait for their commit, in bytes.
        ///
        /// 32 MiB keeps PostgreSQL busy. The next batch in line is fetched at any size.
        pub fetch_buffer_bytes: u64 = "33554432", kind::Int(1_048_576, 68_719_476_736);

        /// The number of history ranges in progress at the same time, beside the tail.
        ///
        /// `write_parallelism` of them are being written while the others are being fetched. More workers help with slow nodes.
        pub backfill_workers: u32 = "4", kind::Int(1, 64);

        /// The end of history that is fetched first.
        ///
        /// Most questions are about recent blocks.
        pub backfill_order: Order = "newest", kind::Choice(ORDERS);

        /// Whether the indexer removes all stored rows of the chain if its genesis block changes.
        ///
        /// For devnets that start again from block 0. On any other chain, a changed genesis block means a wrong URL.
        pub reset_on_chain_change: bool = "false", kind::BOOL;
    }
}

/// All configured chains, in the order of their names.
pub(super) fn chains(given: &mut Given) -> Read<Vec<Chain>> {
    let (mut chains, mut ids) = (Vec::new(), BTreeMap::new());
    for name in given.names("chains") {
        let draft = ChainDraft::read(given, &name);
        draft.compare(given);
        let id = &draft.chain_id;
        if let Some((id, other)) = id.get().and_then(|found| Some((found, ids.insert(*found, name.clone())?))) {
            let message = format!("{id} is the id of chains.{other} too: a chain is named once, with all its URLs");
            given.object(&draft.chain_id.key, message);
        }
        let datasets = given.datasets().clone();
        chains.push(draft.finish(name, datasets));
    }
    chains.into_iter().collect()
}

impl ChainDraft {
    /// Reports values that contradict each other.
    fn compare(&self, given: &mut Given) {
        if let (Some(blocks), Some(limit)) = (self.range_blocks.get(), self.max_range_blocks.get())
            && blocks > limit
        {
            let message = format!("{blocks} is more than max_range_blocks, {limit}: lower it, or raise that");
            given.object(&self.range_blocks.key, message);
        }
    }
}
