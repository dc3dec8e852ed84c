//! The chain's nodes: JSON-RPC in, [`BlockBatch`](crate::chain::batch::BlockBatch)es out, failures named for the caller's next move.
//!
//! Never touches the database.

mod asked;
mod budget;
mod cap;
mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod header;
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
mod prove;
mod receipts;
mod record;
mod refusal;
pub mod rpc;
mod token;

use std::sync::Arc;

use alloy::primitives::B256;
use serde_json::json;

use crate::config::{Chain, Finality};
use crate::status::NodeReport;

pub use self::budget::Hold;
pub use self::error::NodeError;
pub use self::header::Head;
use self::header::{HEADERS_PER_CALL, RpcHeader, header_by_number};
pub use self::node::Identity;
use self::node::Node;
use self::pool::Pool;
use self::proofs::Proofs;
use self::rpc::Call;

/// The nodes of one chain. Calls go to the best of them: see [`Nodes::reports`] for their states.
#[derive(Debug)]
pub struct Nodes {
    pool: Pool,
    finality: Finality,
    proofs: Proofs,
}

impl Nodes {
    /// The nodes of `chain`'s configuration. Does not connect yet.
    ///
    /// # Errors
    /// [`NodeError::Retry`] if no HTTP client can be built.
    pub fn new(chain: &Chain) -> Result<Self, NodeError> {
        Ok(Self { pool: Pool::new(chain)?, finality: chain.finality, proofs: Proofs::new(chain.verify) })
    }

    /// The best node for the next call. A question with several calls keeps one node.
    fn node(&self) -> &Node {
        self.pool.node()
    }

    /// Whether another working node can be asked at once instead of the failed one.
    pub fn moves_on(&self, error: &NodeError) -> bool {
        self.pool.moves_on(error.node())
    }

    /// Chain id and genesis hash, from every node. A node that does not answer is skipped if another one answers, and is asked
    /// before its first use. A node of another chain than the configured one is refused until it serves the right chain.
    ///
    /// # Errors
    /// The last failure, if no node answers.
    pub async fn identity(&self) -> Result<Identity, NodeError> {
        self.pool.identity().await
    }

    /// The client version of the node in use, if it is a devnet: one that reverts blocks that it calls final.
    pub async fn devnet(&self) -> Option<String> {
        let node = self.node();
        let [answer] = node.batch([Call::new("web3_clientVersion", json!([])).or_null()]).await.ok()?;
        let version = node.parse::<Option<String>>("web3_clientVersion", &answer).ok()??;
        let lower = version.to_lowercase();
        ["anvil", "hardhat", "ganache"].iter().any(|name| lower.starts_with(name)).then(|| rpc::one_line(&version))
    }

    /// The chain that all nodes must serve, after [`Nodes::identity`].
    pub fn expected(&self) -> Option<Identity> {
        self.pool.expected()
    }

    /// The number of blocks that the node in use allows in one request for logs; `None` while no limit is known. It changes with
    /// the node. A limit expires after an hour, and is learned again if it still holds.
    pub fn max_range_blocks(&self) -> Option<u64> {
        self.node().max_blocks()
    }

    /// Whether `method` is worth a try at the node in use: it was not refused within the last hour.
    pub fn offers(&self, method: &str) -> bool {
        self.node().offers(method)
    }

    /// The state of each node, in the order of the configuration.
    pub fn reports(&self) -> Vec<NodeReport> {
        self.pool.reports()
    }

    /// Adopts the limits learned by an earlier run; nodes are identified by name.
    pub fn remember(&self, reports: &[NodeReport]) {
        self.pool.remember(reports);
    }

    /// The newest block, and the finalized one if the chain's finality uses the tag.
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
        // Some nodes answer an error, others null, before the first final block.
        let finalized = node
            .parse::<Option<RpcHeader>>("eth_getBlockByNumber of block finalized", &tagged)?
            .and_then(RpcHeader::header);
        let header = node.any_header(&latest)?;
        self.pool.saw_head(node, &header);
        Ok(Head { header, finalized: finalized.map(|header| header.block()) })
    }

    /// Runs a question whose answer counts against the memory for answers until the hold is dropped: bytes on their way into the
    /// database count too.
    pub async fn kept<T>(&self, question: impl Future<Output = T>) -> (T, Arc<Hold>) {
        self.pool.budget().question_kept(question).await
    }

    /// The node's hashes at `numbers`; `None` for unknown heights. This answer distinguishes stored blocks from orphaned ones, so
    /// the node is asked for its chain first.
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
