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

/// The nodes of one chain. Calls go to the best of them: see [`Nodes::reports`] for how each does.
#[derive(Debug)]
pub struct Nodes {
    pool: Pool,
    finality: Finality,
    proofs: Proofs,
}

impl Nodes {
    /// The nodes that `chain` configures. Connects to nothing yet.
    ///
    /// # Errors
    /// [`NodeError::Retry`] where no HTTP client can be built.
    pub fn new(chain: &Chain) -> Result<Self, NodeError> {
        Ok(Self { pool: Pool::new(chain)?, finality: chain.finality, proofs: Proofs::new(chain.verify) })
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
