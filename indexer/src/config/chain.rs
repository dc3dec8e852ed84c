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
        /// The tables that its logs go to.
        pub datasets: Datasets,
    } {
        /// The chain's id; every node must answer eth_chainId with it.
        ///
        /// A wrong URL must not mix two chains' rows.
        pub chain_id: u64 = must "31337", kind::Int(1, kind::MAX_INT);

        /// JSON-RPC over HTTP, one URL or more of nodes of the same chain.
        ///
        /// With several, a node that fails or lags is passed over.
        pub rpc_urls: Vec<Secret> = must "http://127.0.0.1:8545", kind::Url(&["http", "https"]);

        /// WebSocket URLs for new heads.
        ///
        /// A head arrives as soon as the node has it; without them the head is polled.
        pub ws_urls: Vec<Secret> = "", kind::Url(&["ws", "wss"]);

        /// The first block to index.
        ///
        /// The block of the first contract's deployment saves the empty history before it.
        pub start_block: u64 = "0", kind::Int(0, kind::MAX_INT);

        /// How blocks become final.
        ///
        /// `tag` is right after Ethereum's merge; `instant` for BFT chains; `never` for a devnet that is rolled back.
        pub finality: Finality = "tag", kind::FINALITY;

        /// Contracts to index; empty for all.
        ///
        /// On a shared chain, name yours.
        pub addresses: Vec<Address> = "", kind::ADDRESS;

        /// First topics to index, each a hash, or the event that it is the hash of, such as `Transfer(address,address,uint256)`; empty for
        /// all.
        ///
        /// What is not asked for is not fetched.
        pub topics: Vec<B256> = "", kind::TOPIC;

        /// Whether each log is stored as it came, in `logs`, beside the typed row that it makes.
        ///
        /// Raw logs can be decoded later without asking a node; without them rows take half of the space, and only events that have a typed
        /// table are asked for.
        pub raw: bool = "true", kind::BOOL;

        /// How far what a node answers is verified: returned, linked, bloom or receipts.
        ///
        /// `auto` proves each new block by its receipts where the chain allows it, else by its bloom, and of history one block in each
        /// range; a stronger level of history fetches more.
        pub verify: Verify = "auto", kind::Choice(Verify::NAMES);

        /// How often the head is asked for when no WebSocket announces it.
        ///
        /// About half of the chain's block time is a good value.
        pub poll_interval: Duration = "1s", kind::Time(50 * MS, 10 * MINUTE);

        /// How long one request to a node may take.
        ///
        /// A large range of logs takes seconds.
        pub request_timeout: Duration = "20s", kind::Time(100 * MS, 10 * MINUTE);

        /// The largest answer accepted from a node, in bytes.
        ///
        /// 64 MiB; a larger range is asked for in halves, so this bounds memory.
        pub max_response_bytes: u64 = "67108864", kind::Int(65_536, 4_294_967_296);

        /// Blocks of the first range asked for in one request.
        ///
        /// A first guess; it is learned from the answers afterwards.
        pub range_blocks: u64 = "100", kind::Int(1, 1_000_000);

        /// Blocks of one range, at most.
        ///
        /// An empty stretch then costs few requests. A node's own limit is learned; setting it here saves the first refusal.
        pub max_range_blocks: u64 = "100000", kind::Int(1, 1_000_000);

        /// Requests under way at once.
        ///
        /// More speeds up history until the provider throttles.
        pub fetch_parallelism: u32 = "4", kind::Int(1, 256);

        /// Rows of one transaction, at which a batch is closed.
        ///
        /// Larger ones gain little speed and hold their locks longer.
        pub batch_rows: u32 = "20000", kind::Int(100, 1_000_000);

        /// Bytes of fetched batches that wait to be committed, at most.
        ///
        /// 32 MiB keeps PostgreSQL busy; the next batch in line is fetched whatever its size.
        pub fetch_buffer_bytes: u64 = "33554432", kind::Int(1_048_576, 68_719_476_736);

        /// Pieces of history under way at once, beside the tail.
        ///
        /// While `write_parallelism` of them are written, the others are fetched; more help where nodes are slow to answer.
        pub backfill_workers: u32 = "4", kind::Int(1, 64);

        /// Which end of history is fetched first.
        ///
        /// What happened lately is asked for most.
        pub backfill_order: Order = "newest", kind::Choice(ORDERS);

        /// Whether everything stored of the chain is removed when its genesis block changes.
        ///
        /// For devnets that are started anew; on any other chain a changed genesis is a wrong URL.
        pub reset_on_chain_change: bool = "false", kind::BOOL;
    }
}

/// Every chain that is named, in order.
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
    /// Reports what does not go together.
    fn compare(&self, given: &mut Given) {
        if let (Some(blocks), Some(limit)) = (self.range_blocks.get(), self.max_range_blocks.get())
            && blocks > limit
        {
            let message = format!("{blocks} is more than max_range_blocks, {limit}: lower it, or raise that");
            given.object(&self.range_blocks.key, message);
        }
    }
}
