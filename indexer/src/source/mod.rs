//! The chain's nodes: JSON-RPC in, [`BlockBatch`]es out, failures named for the caller's next move.
//!
//! Never touches the database.

mod fetch;
pub mod heads;
mod http;
mod logs;
mod node;
pub mod proofs;
mod receipts;

use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::{Address, B256, Bloom, U64};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::chain::batch::{Log, Selected};
use crate::chain::block::{Header, TimeSource};
use crate::config::{Chain, Finality};

use self::node::{Call, Node};
use self::proofs::Proofs;

/// Why an answer could not be had, named for what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Ask for less: too many blocks, logs or bytes. With the node's limit in blocks, where it names one.
    #[error("{node}: the answer is too large: {why}")]
    TooLarge {
        /// Which node.
        node: String,
        /// Its words, or ours.
        why: String,
        /// Blocks that it allows.
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
    },
}

impl SourceError {
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
    /// Number of the block tagged `finalized`; `None` where it was not asked or the node has none yet.
    pub finalized: Option<u64>,
}

/// Which logs are asked for. Empty sets mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Emitters.
    pub addresses: Vec<Address>,
    /// First topics.
    pub topics: Vec<B256>,
}

impl Filter {
    /// Whether every log passes, so that blooms can prove an answer complete.
    pub fn is_everything(&self) -> bool {
        self.addresses.is_empty() && self.topics.is_empty()
    }

    /// The filter as canonical JSON: sets sorted and without repeats. A source is named by the hash of this text.
    pub fn definition(&self) -> serde_json::Value {
        let (mut addresses, mut topics) = (self.addresses.clone(), self.topics.clone());
        addresses.sort_unstable();
        addresses.dedup();
        topics.sort_unstable();
        topics.dedup();
        json!({ "addresses": addresses, "topics": topics })
    }

    /// The filter as the checks of a batch take it.
    pub fn selected(&self) -> Selected<'_> {
        Selected { addresses: &self.addresses, topics: &self.topics }
    }

    /// Whether a log passes.
    pub fn selects(&self, log: &Log<'_>) -> bool {
        self.selected().selects(log)
    }

    fn params(&self, mut at: serde_json::Value) -> serde_json::Value {
        if !self.addresses.is_empty() {
            at["address"] = json!(self.addresses);
        }
        if !self.topics.is_empty() {
            at["topics"] = json!([self.topics]);
        }
        json!([at])
    }
}

/// The nodes of one chain. Calls go to one node until it fails, then to the next.
#[derive(Debug)]
pub struct Source {
    nodes: Vec<Node>,
    current: AtomicUsize,
    filter: Filter,
    finality: Finality,
    proofs: Proofs,
}

/// Headers asked for in one JSON-RPC batch, at most.
const HEADERS_PER_CALL: usize = 100;

impl Source {
    /// The source that `chain` configures. Connects to nothing yet.
    ///
    /// # Errors
    /// [`SourceError::Retry`] where no HTTP client can be built.
    pub fn new(chain: &Chain) -> Result<Self, SourceError> {
        let nodes = chain.rpc_urls.iter().map(|url| Node::new(url, chain)).collect::<Result<_, _>>()?;
        let filter = Filter { addresses: chain.addresses.clone(), topics: chain.topics.clone() };
        let proofs = Proofs::new(chain.verify);
        Ok(Self { nodes, current: AtomicUsize::new(0), filter, finality: chain.finality, proofs })
    }

    /// What is asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    fn node(&self) -> &Node {
        &self.nodes[self.current.load(Ordering::Relaxed) % self.nodes.len()]
    }

    /// Calls go to the next node from now on, if they still go to the one that failed: of several calls that fail
    /// together only one may move on.
    pub fn fail_over(&self, error: &SourceError) {
        let at = self.current.load(Ordering::Relaxed);
        if self.nodes[at % self.nodes.len()].name() == error.node() {
            // Losing the race means that somebody else moved on.
            self.current.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }

    /// Chain id and genesis hash, asked of every node. Nodes that do not answer are left out as long as one does.
    ///
    /// # Errors
    /// The last failure when no node answers; [`SourceError::Retry`] naming both when two nodes serve different chains.
    pub async fn identity(&self) -> Result<Identity, SourceError> {
        let mut known: Option<(&Node, Identity)> = None;
        let mut failure = None;
        for node in &self.nodes {
            match (node.identity().await, known) {
                (Ok(identity), Some((first, other))) if identity != other => {
                    return Err(node.retry(&format!(
                        "serves chain {} (genesis {}), but {} serves chain {} (genesis {}): the URLs of one chain must \
                         be of one chain",
                        identity.chain_id,
                        identity.genesis,
                        first.name(),
                        other.chain_id,
                        other.genesis
                    )));
                }
                (Ok(identity), None) => known = Some((node, identity)),
                (Ok(_), Some(_)) => {}
                (Err(error), _) => {
                    tracing::warn!(%error, "a node does not tell which chain it serves");
                    failure = Some(error);
                }
            }
        }
        match (known, failure) {
            (Some((_, identity)), _) => Ok(identity),
            (None, Some(error)) => Err(error),
            (None, None) => Err(SourceError::Retry { node: "-".into(), why: "no RPC URL is configured".into() }),
        }
    }

    /// The newest block, and the finalized one where the chain's finality goes by the tag.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn head(&self) -> Result<Head, SourceError> {
        let node = self.node();
        let latest = Call::new("eth_getBlockByNumber", json!(["latest", false]));
        if self.finality != Finality::Tag {
            let [latest] = node.batch([latest]).await?;
            return Ok(Head { header: node.any_header(&latest)?, finalized: None });
        }
        let tagged = Call::new("eth_getBlockByNumber", json!(["finalized", false])).or_null();
        let [latest, tagged] = node.batch([latest, tagged]).await?;
        // Some nodes answer an error, others null, until something is final.
        let finalized = node.parse::<Option<RpcHeader>>(&tagged)?.and_then(|header| header.number);
        Ok(Head { header: node.any_header(&latest)?, finalized: finalized.map(|n| n.to()) })
    }

    /// The node's hashes at `numbers`; `None` for heights that it does not know.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn hashes(&self, numbers: &[u64]) -> Result<Vec<Option<B256>>, SourceError> {
        let node = self.node();
        let mut hashes = Vec::with_capacity(numbers.len());
        for chunk in numbers.chunks(HEADERS_PER_CALL) {
            let answers = node.batch_of(chunk.iter().map(|n| header_by_number(*n)).collect()).await?;
            for answer in &answers {
                hashes.push(node.parse::<Option<RpcHeader>>(answer)?.and_then(|header| header.hash));
            }
        }
        Ok(hashes)
    }
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
            time: i64::try_from(self.timestamp.to::<u64>()).ok()?,
            time_source: TimeSource::Header,
            bloom: self.logs_bloom,
        })
    }
}

/// One answer of a batch, unparsed.
type Answer = Box<RawValue>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_named_by_what_it_selects() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let one = Filter { addresses: vec![b, a, b], topics: vec![] };
        let two = Filter { addresses: vec![a, b], topics: vec![] };
        assert_eq!(one.definition(), two.definition());
        assert!(!one.is_everything() && Filter::default().is_everything());
        assert_eq!(Filter::default().params(json!({ "fromBlock": hex(255) })), json!([{ "fromBlock": "0xff" }]));
    }
}
