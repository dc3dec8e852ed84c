//! The chain's nodes: JSON-RPC in, [`BlockBatch`](crate::chain::batch::BlockBatch)es out, failures named for the caller's next move.
//!
//! Never touches the database.

mod budget;
mod cap;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod heads;
mod health;
mod http;
mod judge;
mod limits;
pub mod logs;
mod node;
mod pace;
mod plain;
mod pool;
pub mod proofs;
mod receipts;
mod refusal;
pub mod rpc;

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256, Bloom, U64};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use crate::chain::block::{BlockRef, Header, TIMES};
pub use crate::chain::filter::Filter;
use crate::config::{Chain, Finality};
use crate::events::erc20::TRANSFER;
use crate::status::NodeReport;

pub use self::budget::Hold;
use self::node::{Call, Node};
use self::pool::Pool;
use self::proofs::Proofs;
use self::rpc::Answer;

/// Why an answer could not be had, named for what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Ask for less: too many blocks, logs or bytes. With the node's limit in blocks, where it names one.
    #[error("{node}: {why}")]
    TooLarge {
        /// Which node.
        node: String,
        /// Its words, or ours.
        why: String,
        /// Blocks that it says would work for these, or allows at all; see [`Nodes::max_range_blocks`] for the latter.
        hint: Option<u64>,
    },
    /// The node does not have that block: it lags, or the block was reorganised away. Look at the head again.
    #[error("{node}: {what} is not there (the node lags, or the block was reorganised away)")]
    Gone {
        /// Which node.
        node: String,
        /// What was asked for.
        what: String,
    },
    /// Try again, here or at another node: unreachable, overloaded, or an answer that does not hold together.
    #[error("{node}: {why}")]
    Retry {
        /// Which node.
        node: String,
        /// What happened.
        why: String,
        /// How long the node asked to be left alone, at least; between 100 ms and a minute.
        after: Option<Duration>,
    },
}

impl NodeError {
    /// Which node it was.
    pub fn node(&self) -> &str {
        match self {
            Self::TooLarge { node, .. } | Self::Gone { node, .. } | Self::Retry { node, .. } => node,
        }
    }
}

/// Which chain a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `eth_chainId`.
    pub chain_id: u64,
    /// Hash of block 0.
    pub genesis: B256,
}

/// A node's newest block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its header.
    pub header: Header,
    /// The block tagged `finalized`; `None` where it was not asked or the node has none yet.
    pub finalized: Option<BlockRef>,
}

/// The nodes of one chain. Calls go to the best of them: see [`Nodes::reports`] for how each does.
#[derive(Debug)]
pub struct Nodes {
    pool: Pool,
    filter: Filter,
    finality: Finality,
    proofs: Proofs,
}

/// Headers asked for in one JSON-RPC batch, at most.
const HEADERS_PER_CALL: usize = 100;

impl Nodes {
    /// The nodes that `chain` configures. Connects to nothing yet.
    ///
    /// # Errors
    /// [`NodeError::Retry`] where no HTTP client can be built.
    pub fn new(chain: &Chain) -> Result<Self, NodeError> {
        let mut filter = Filter { addresses: chain.addresses.clone(), topics: chain.topics.clone(), raw: chain.raw };
        if !filter.raw && filter.topics.is_empty() {
            // Nothing else would make a row.
            filter.topics = vec![TRANSFER];
        }
        Ok(Self { pool: Pool::new(chain)?, filter, finality: chain.finality, proofs: Proofs::new(chain.verify) })
    }

    /// What is asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The best node for the next call. A question that takes several calls keeps to one node.
    fn node(&self) -> &Node {
        self.pool.node()
    }

    /// Whether another node is there to ask at once instead of the one that failed, and is known to work.
    pub fn moves_on(&self, error: &NodeError) -> bool {
        self.pool.moves_on(error.node())
    }

    /// Chain id and genesis hash, asked of every node. Nodes that do not answer are left out as long as one does, and are
    /// asked before their first use; nodes of another chain than the configured one are refused until they serve it.
    ///
    /// # Errors
    /// The last failure when no node answers.
    pub async fn identity(&self) -> Result<Identity, NodeError> {
        self.pool.identity().await
    }

    /// What the node that calls go to calls itself, where it is a devnet: one that takes back blocks that it calls final.
    pub async fn devnet(&self) -> Option<String> {
        let node = self.node();
        let [answer] = node.batch([Call::new("web3_clientVersion", json!([])).or_null()]).await.ok()?;
        let version = node.parse::<Option<String>>("web3_clientVersion", &answer).ok()??;
        let lower = version.to_lowercase();
        ["anvil", "hardhat", "ganache"].iter().any(|name| lower.starts_with(name)).then(|| rpc::one_line(&version))
    }

    /// The chain that all nodes must serve, once [`Nodes::identity`] was asked.
    pub fn expected(&self) -> Option<Identity> {
        self.pool.expected()
    }

    /// Blocks that the node which calls go to allows in one question for logs; `None` while no limit is known. It changes
    /// with the node, and a limit is forgotten after an hour, to be met again if it still holds.
    pub fn max_range_blocks(&self) -> Option<u64> {
        self.node().max_blocks()
    }

    /// Whether `method` is worth a try at the node which calls go to: it was not refused within the last hour.
    pub fn offers(&self, method: &str) -> bool {
        self.node().offers(method)
    }

    /// What is known of each node, in the order of the configuration.
    pub fn reports(&self) -> Vec<NodeReport> {
        self.pool.reports()
    }

    /// Takes what an earlier run learned of the nodes' limits; nodes are told apart by name.
    pub fn remember(&self, reports: &[NodeReport]) {
        self.pool.remember(reports);
    }

    /// The newest block, and the finalized one where the chain's finality goes by the tag.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn head(&self) -> Result<Head, NodeError> {
        self.head_of(self.node()).await
    }

    async fn head_of(&self, node: &Node) -> Result<Head, NodeError> {
        let latest = Call::new("eth_getBlockByNumber", json!(["latest", false]));
        if self.finality != Finality::Tag {
            let [latest] = node.batch([latest]).await?;
            let header = node.any_header(&latest)?;
            self.pool.saw_head(node, &header);
            return Ok(Head { header, finalized: None });
        }
        let tagged = Call::new("eth_getBlockByNumber", json!(["finalized", false])).or_null();
        let [latest, tagged] = node.batch([latest, tagged]).await?;
        // Some nodes answer an error, others null, until something is final.
        let finalized = node
            .parse::<Option<RpcHeader>>("eth_getBlockByNumber of block finalized", &tagged)?
            .and_then(RpcHeader::header);
        let header = node.any_header(&latest)?;
        self.pool.saw_head(node, &header);
        Ok(Head { header, finalized: finalized.map(|header| header.block()) })
    }

    /// Carries out a question whose answer goes on counting against the memory for answers until the hold is dropped: what is
    /// on its way into the database is held as well.
    pub async fn kept<T>(&self, question: impl Future<Output = T>) -> (T, Arc<Hold>) {
        self.pool.budget().question_kept(question).await
    }

    /// Asks the nodes that calls do not go to for their heads, where that is due: so that it is known which chain they
    /// serve, how fast they are, and which of all is behind. Failures are recorded.
    pub async fn survey(&self) {
        let asked = self.pool.due().into_iter().map(|node| self.head_of(node));
        for failure in join_all(asked).await.into_iter().filter_map(Result::err) {
            tracing::debug!(error = %failure, "a node in reserve does not work");
        }
        for (node, block) in self.pool.on_probation() {
            self.probation(node, block).await;
        }
    }

    /// The node's hashes at `numbers`; `None` for heights that it does not know. By what it says here stored blocks are told
    /// from orphaned ones, so it is asked which chain it serves before.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn hashes(&self, numbers: &[u64]) -> Result<Vec<Option<B256>>, NodeError> {
        let node = self.node();
        node.check_anew().await?;
        let mut hashes = Vec::with_capacity(numbers.len());
        for chunk in numbers.chunks(HEADERS_PER_CALL) {
            let answers = node.batch_of(chunk.iter().map(|n| header_by_number(*n)).collect()).await?;
            for (number, answer) in chunk.iter().zip(&answers) {
                let what = format!("eth_getBlockByNumber of block {number}");
                hashes.push(node.parse::<Option<RpcHeader>>(&what, answer)?.and_then(|header| header.hash));
            }
        }
        Ok(hashes)
    }
}

/// The parameters of `eth_getLogs` for what `addresses` and `topics` select at `at`.
fn log_params(addresses: &[Address], topics: &[B256], mut at: serde_json::Value) -> serde_json::Value {
    if !addresses.is_empty() {
        at["address"] = json!(addresses);
    }
    if !topics.is_empty() {
        at["topics"] = json!([topics]);
    }
    json!([at])
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn header_by_number(number: u64) -> Call {
    Call::new("eth_getBlockByNumber", json!([hex(number), false]))
}

/// The fields of a header that every EVM chain has; the rest, which differs between chains, is not looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RpcHeader {
    number: Option<U64>,
    hash: Option<B256>,
    parent_hash: B256,
    timestamp: U64,
    logs_bloom: Option<Box<Bloom>>,
}

impl RpcHeader {
    /// `None` for a pending block, which has no number or hash yet.
    fn header(self) -> Option<Header> {
        Some(Header {
            number: self.number?.to(),
            hash: self.hash?,
            parent: Some(self.parent_hash),
            // No chain's block was mined after the year 9999: it is milliseconds, or nonsense.
            time: i64::try_from(self.timestamp.to::<u64>()).ok().filter(|time| TIMES.contains(time))?,
            bloom: self.logs_bloom,
        })
    }
}
