//! The chain's nodes: JSON-RPC in, [`BlockBatch`]es out, failures named for the caller's next move.
//!
//! Never touches the database.

pub mod heads;
mod http;
mod logs;
mod node;

use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::{Address, B256, Bloom, U64};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::chain::batch::{BlockBatch, Log, Logs};
use crate::chain::block::{BlockRange, BlockRef, Header, TimeSource};
use crate::chain::bloom::may_hold;
use crate::config::{Chain, Finality};

use self::node::{Call, Node};

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

    /// Whether a log passes.
    pub fn selects(&self, log: &Log<'_>) -> bool {
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && (self.topics.is_empty() || log.topics.first().is_some_and(|topic| self.topics.contains(topic)))
    }

    /// Whether a block may hold a log that passes; a header without a bloom proves nothing.
    fn may_select_from(&self, header: &Header) -> bool {
        header.bloom.as_deref().is_none_or(|bloom| may_hold(bloom, &self.addresses, &self.topics))
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
        Ok(Self { nodes, current: AtomicUsize::new(0), filter, finality: chain.finality })
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

    /// A range that will not be reorganised under our feet: logs and boundary headers from one node in one call, then
    /// the headers of blocks whose logs do not carry a trustworthy time.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn range(&self, range: BlockRange) -> Result<BlockBatch, SourceError> {
        let node = self.node();
        let filter = json!({ "fromBlock": hex(range.first), "toBlock": hex(range.last) });
        let calls = [header_by_number(range.first), header_by_number(range.last), self.logs_call(filter)];
        let [first, last, logs] = node.batch(calls).await?;
        let (first, last) = (node.header(&first, range.first)?, node.header(&last, range.last)?);
        let logs = node.logs(&logs)?;
        let mut headers = inferred_headers(&logs, &first, &last);
        let unknown: Vec<u64> =
            headers.iter().filter(|(_, header)| header.is_none()).map(|(block, _)| block.number).collect();
        let mut fetched = self.headers(node, &unknown).await?.into_iter();
        let mut whole: Vec<Header> =
            headers.drain(..).filter_map(|(_, header)| header.or_else(|| fetched.next())).collect();
        if range.blocks() > 1 {
            whole.push(last);
        }
        whole.insert(0, first);
        node.whole(BlockBatch::new(range, whole, logs, self.filter.is_everything()))
    }

    /// A few blocks at the tip: every header, then the logs of exactly those hashes, then the hashes once more, so that
    /// a reorganisation between the calls cannot pass for a block without logs.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn near_head(&self, range: BlockRange) -> Result<BlockBatch, SourceError> {
        let node = self.node();
        let numbers: Vec<u64> = (range.first..=range.last).collect();
        let headers = self.headers(node, &numbers).await?;
        let mut calls: Vec<Call> = headers.iter().map(|h| self.logs_call(json!({ "blockHash": h.hash }))).collect();
        calls.extend(numbers.iter().map(|n| header_by_number(*n)));
        let answers = node.batch_of(calls).await?;
        let (logs_of, again) = answers.split_at(headers.len());
        let mut logs = Logs::default();
        for (header, answer) in headers.iter().zip(logs_of) {
            logs.extend(&self.logs_at(node, header, answer).await?, |_| true);
        }
        for (header, answer) in headers.iter().zip(again) {
            if node.header(answer, header.number)?.hash != header.hash {
                return Err(node.gone(format!("block {}", header.block())));
            }
        }
        node.whole(BlockBatch::new(range, headers, logs, self.filter.is_everything()))
    }

    /// The head itself, in one round trip, pinned by its hash.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn block(&self, block: BlockRef) -> Result<BlockBatch, SourceError> {
        let node = self.node();
        let header = Call::new("eth_getBlockByHash", json!([block.hash, false]));
        let [header, logs] = node.batch([header, self.logs_call(json!({ "blockHash": block.hash }))]).await?;
        let header = node.header(&header, block.number)?;
        let logs = self.logs_at(node, &header, &logs).await?;
        let range = BlockRange { first: block.number, last: block.number };
        node.whole(BlockBatch::new(range, vec![header], logs, self.filter.is_everything()))
    }

    /// The logs of one block at the tip. A node may know a block before it knows its logs, and then answers that there
    /// are none; without a filter the bloom tells. With one, an empty answer for a block whose bloom admits what we watch
    /// is not believed: all of the block's logs are asked for, proved by the bloom, and filtered here.
    async fn logs_at(&self, node: &Node, header: &Header, answer: &RawValue) -> Result<Logs, SourceError> {
        let logs = node.logs(answer)?;
        let suspicious = logs.is_empty() && !self.filter.is_everything() && self.filter.may_select_from(header);
        if !suspicious {
            return Ok(logs);
        }
        let [all] = node.batch([Call::new("eth_getLogs", json!([{ "blockHash": header.hash }]))]).await?;
        let range = BlockRange { first: header.number, last: header.number };
        let proved = node.whole(BlockBatch::new(range, vec![header.clone()], node.logs(&all)?, true))?;
        let mut selected = Logs::default();
        selected.extend(proved.logs(), |log| self.filter.selects(log));
        Ok(selected)
    }

    fn logs_call(&self, at: serde_json::Value) -> Call {
        Call::new("eth_getLogs", self.filter.params(at))
    }

    async fn headers(&self, node: &Node, numbers: &[u64]) -> Result<Vec<Header>, SourceError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for chunk in numbers.chunks(HEADERS_PER_CALL) {
            let answers = node.batch_of(chunk.iter().map(|n| header_by_number(*n)).collect()).await?;
            for (number, answer) in chunk.iter().zip(&answers) {
                headers.push(node.header(answer, *number)?);
            }
        }
        Ok(headers)
    }
}

/// A header for every block that has logs, boundaries aside: from the logs' own time where they agree and it lies
/// between the boundary headers' times, `None` where it has to be fetched.
fn inferred_headers(logs: &Logs, first: &Header, last: &Header) -> Vec<(BlockRef, Option<Header>)> {
    let inner = logs.blocks().filter(|(block, _)| block.number != first.number && block.number != last.number);
    inner
        .map(|(block, time)| {
            let time = time.filter(|time| (first.time..=last.time).contains(time));
            let header = time.map(|time| Header {
                number: block.number,
                hash: block.hash,
                parent: None,
                time,
                time_source: TimeSource::Log,
                bloom: None,
            });
            (block, header)
        })
        .collect()
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

    #[test]
    fn a_time_outside_the_boundaries_is_fetched() {
        let header = |number, time| Header {
            number,
            hash: B256::repeat_byte(number as u8),
            parent: None,
            time,
            time_source: TimeSource::Header,
            bloom: None,
        };
        let mut logs = Logs::default();
        for (number, time) in [(1, 10), (2, 15), (3, 99), (4, 20)] {
            let log = crate::chain::batch::Log {
                log_index: 0,
                tx_index: 0,
                tx_hash: B256::ZERO,
                address: Address::ZERO,
                topics: &[],
                data: &[],
            };
            logs.push(BlockRef { number, hash: B256::repeat_byte(number as u8) }, Some(time), log);
        }
        let inferred = inferred_headers(&logs, &header(1, 10), &header(4, 20));
        let times: Vec<_> = inferred.iter().map(|(b, h)| (b.number, h.as_ref().map(|h| h.time))).collect();
        assert_eq!(times, [(2, Some(15)), (3, None)]);
    }
}
