//! Proves blocks by their receipts: the possible levels of the chain, the requests for receipts, and the reaction to
//! contradictory answers.
//!
//! A proof binds logs to a block's hash. The machine decides whether the hash is of the canonical chain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alloy::consensus::Header as FullHeader;
use alloy::primitives::B256;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Nodes;
use super::error::NodeError;
use super::header::{HEADERS_PER_CALL, header_by_number};
use super::node::Node;
use super::proofs::{Capabilities, Probed, lock};
use super::receipts::{parse, parse_each};
use super::rpc::{Answer, Call};
use crate::chain::block::{BlockRef, Header};
use crate::chain::level::Level;
use crate::chain::proof::{Disproof, Proved, SealedHeader, Verify};
use crate::chain::receipts::Receipts;
use crate::chain::source::Source;

/// Blocks per JSON-RPC batch of receipts: the receipts of a full block take megabytes.
const RECEIPTS_PER_CALL: usize = 8;
/// Blocks below the head that are searched for one with transactions: an empty block proves little.
const LOOK_BACK: u64 = 32;
/// The number of tried blocks with transactions.
const PROBES: usize = 3;
/// The number of tries, and the pause between them.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// The first and the longest pause after which receipts that proved nothing are tried again.
const FIRST_AGAIN: Duration = Duration::from_secs(5);
const LAST_AGAIN: Duration = Duration::from_secs(600);
/// After this number of repeats, a contradiction counts as the chain's normal behaviour, and not as a node's fault.
const STUBBORN: u32 = 6;
/// The number for logs that do not match their header's bloom, if no receipts can decide: the risk is smaller, because a level
/// below `bloom` does not promise blooms.
const STUBBORN_BLOOM: u32 = 4;
/// The number for a chain that is already known for it: enough to ask another node. Each refusal repeats the request of a whole
/// range, and every sixteenth block may be such a block.
const STUBBORN_AGAIN: u32 = 2;
/// Why a block was not proved.
enum Unproved {
    /// Ask again.
    Node(NodeError),
    /// The node's receipts do not match its header.
    Disproved(Disproof),
}

impl From<NodeError> for Unproved {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<Disproof> for Unproved {
    fn from(disproof: Disproof) -> Self {
        Self::Disproved(disproof)
    }
}

impl Nodes {
    /// The known possible levels: none before the first fetched block.
    pub fn capabilities(&self) -> Capabilities {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let probed = lock(&self.proofs.probed).clone();
        let reason = probed.map_or_else(|| Some("no block was fetched yet".into()), |probed| probed.reason);
        Capabilities {
            best: self.proofs.best(reason.as_ref()),
            reason: reason.unwrap_or_default(),
            distrusted: count(&self.proofs.distrusted),
            refused: count(&self.proofs.refused),
            unproved: count(&self.proofs.unproved),
        }
    }

    /// The strongest level of this chain: asks a node for it the first time, and from time to time again if receipts proved
    /// nothing so far.
    ///
    /// # Errors
    /// See [`NodeError`]: a chain whose receipts prove nothing is no error.
    pub async fn best_level(&self) -> Result<Level, NodeError> {
        if let Some(level) = self.proofs.known() {
            return Ok(level);
        }
        let _alone = self.proofs.probing.lock().await;
        // The previous holder may have asked.
        if let Some(level) = self.proofs.known() {
            return Ok(level);
        }
        let before = lock(&self.proofs.probed).clone();
        // A task that waits for the level may hold memory that the probe would wait for.
        let ahead = async {
            Ok::<_, NodeError>(match before {
                None => (self.probe().await?, FIRST_AGAIN),
                Some(Probed { pause, .. }) => (self.probe_again().await.err(), pause * 2),
            })
        };
        let (reason, pause) = self.pool.budget().question_ahead(ahead).await?;
        let pause = pause.min(LAST_AGAIN);
        let probed = Probed { reason, again: Instant::now() + pause, pause };
        let level = self.proofs.best(probed.reason.as_ref());
        *lock(&self.proofs.probed) = Some(probed);
        Ok(level)
    }

    /// The level of blocks at the tail.
    pub(super) async fn tail_level(&self) -> Result<Level, NodeError> {
        match self.proofs.verify {
            Verify::Auto => self.best_level().await,
            Verify::To(level) => self.at_most(level).await,
        }
    }

    /// The level of history.
    pub(super) async fn history_level(&self) -> Result<Level, NodeError> {
        match self.proofs.verify {
            Verify::Auto => Ok(Level::Returned),
            Verify::To(level) => self.at_most(level).await,
        }
    }

    /// `level`, or the chain's strongest level below it.
    pub(super) async fn at_most(&self, level: Level) -> Result<Level, NodeError> {
        match level {
            Level::Receipts => self.best_level().await,
            Level::Bloom if self.bloomless() => Ok(Level::Linked),
            level => Ok(level),
        }
    }

    /// Whether receipts prove one block of each range of history as a sample.
    pub(super) async fn takes_samples(&self) -> Result<bool, NodeError> {
        Ok(self.proofs.verify == Verify::Auto && self.best_level().await? == Level::Receipts)
    }

    /// Whether blocks can be proved: `None`, or the reason why not. If a node gives headers but no receipts, or wrong receipts, a
    /// few tries decide: a chain without proofs is indexed all the same.
    async fn probe(&self) -> Result<Option<String>, NodeError> {
        let mut reason = None;
        for _ in 0..ATTEMPTS {
            let node = self.node();
            let answers = newest(node).await?;
            let Err(why) = self.proves(node, &answers).await else { return Ok(None) };
            // Another node may succeed: the grade of this one is lower from now on.
            _ = node.retry(&why);
            reason = Some(why);
            sleep(PAUSE).await;
        }
        warn!(
            "receipts do not prove the blocks of this chain: {}; blooms are checked instead",
            reason.as_deref().unwrap_or_default()
        );
        Ok(reason)
    }

    /// One more try, later. A node that fails again shows nothing new, so the failure does not count against it.
    async fn probe_again(&self) -> Result<(), String> {
        let node = self.node();
        let answers = newest(node).await.map_err(|error| format!("its receipts are not available: {error}"))?;
        self.proves(node, &answers).await
    }

    /// Why these blocks are not proved by their receipts.
    async fn proves(&self, node: &Node, headers: &[Answer]) -> Result<(), String> {
        match self.prove_some(node, headers).await {
            Ok(()) => {
                node.tell(|| info!("receipts prove the blocks of this chain"));
                Ok(())
            }
            Err(Unproved::Disproved(disproof)) => Err(disproof.to_string()),
            Err(Unproved::Node(error)) => Err(format!("its receipts are not available: {error}")),
        }
    }

    /// Proves one of the newest blocks with transactions: an empty block proves little, and some chains have unusual blocks among
    /// normal ones.
    async fn prove_some(&self, node: &Node, headers: &[Answer]) -> Result<(), Unproved> {
        let mut with_some = Vec::with_capacity(PROBES);
        for answer in headers.iter().filter(|answer| answer.get() != "null") {
            let sealed = seal(node, answer)?;
            if !sealed.transactions().is_empty() && with_some.len() < PROBES {
                with_some.push(sealed);
            }
        }
        let mut outcome = Ok(());
        for sealed in with_some {
            outcome = match self.receipts_of(node, &sealed).await {
                Ok(receipts) => Proved::new(&sealed, receipts).map(|_proved| ()).map_err(Unproved::from),
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The header of one answer and all receipts of its block, proved; `None` if no node's receipts ever match it and the
    /// configuration accepts less.
    ///
    /// # Errors
    /// [`NodeError::Retry`] if they do not match.
    pub(super) async fn prove(
        &self,
        node: &Node,
        header: &Answer,
        receipts: Option<&Answer>,
    ) -> Result<Option<Proved>, NodeError> {
        let proved = async {
            let sealed = seal(node, header)?;
            let receipts = match receipts.filter(|answer| answer.get() != "null") {
                Some(answer) => read(node, sealed.block(), parse(answer.get()))?,
                None => self.receipts_of(node, &sealed).await?,
            };
            Ok(Proved::new(&sealed, receipts)?)
        };
        match proved.await {
            Ok(proved) => Ok(Some(proved)),
            Err(Unproved::Node(error)) => Err(error),
            Err(Unproved::Disproved(disproof)) => self.disproved(node, &disproof),
        }
    }

    /// The reaction to receipts that do not match: ask again, until the same contradiction has appeared so often that it is the
    /// chain's normal behaviour.
    fn disproved(&self, node: &Node, disproof: &Disproof) -> Result<Option<Proved>, NodeError> {
        let times = self.proofs.met(disproof);
        let known_for_it = self.proofs.unproved.load(Ordering::Relaxed) > 0;
        let stubborn = if known_for_it { STUBBORN_AGAIN } else { STUBBORN };
        // A configuration that demands receipts waits for them.
        if self.proofs.verify != Verify::To(Level::Receipts) && times >= stubborn {
            if times == stubborn {
                self.proofs.unproved.fetch_add(1, Ordering::Relaxed);
            }
            match known_for_it {
                false => node.tell(|| warn!("{disproof}, {times} times: accepted without this proof")),
                true => {
                    node.tell(|| debug!("{disproof}: accepted without this proof, like other blocks of this chain"))
                }
            }
            // The chain's normal behaviour is not the node's fault.
            node.excuse();
            return Ok(None);
        }
        node.tell(|| warn!("refused receipts: {disproof}"));
        let advice = match disproof.is_of_no_receipts() {
            true => {
                "It has no receipts of that block, or no longer has them: use a node that keeps them (`dev` keeps 3,600 \
                 blocks)"
            }
            false => "If every node of this chain gives this answer, set its `verify` to \"bloom\"",
        };
        Err(node.retry(&format!("refused receipts that do not match the block: {disproof}. {advice}")))
    }

    /// Whether blooms prove nothing on this chain.
    pub(super) fn bloomless(&self) -> bool {
        self.proofs.bloomless.load(Ordering::Relaxed)
    }

    /// The header to compare with logs: without its bloom if blooms prove nothing.
    pub(super) fn with_its_bloom(&self, header: Header) -> Header {
        if self.bloomless() { Header { bloom: None, ..header } } else { header }
    }

    /// A block has logs outside its header's bloom, and no receipts decide. After repeats, this is the chain's normal behaviour:
    /// from then on blooms are ignored, and no level claims them. Logs that a bloom promises and a node lacks are another case:
    /// that node forgot or omits them.
    pub(super) fn bloom_refuted(&self, node: &Node, number: u64) {
        let what = "it has logs outside the bloom of its header";
        let times = self.proofs.met(&Disproof::Contradiction { number, what });
        if times >= STUBBORN_BLOOM && !self.proofs.bloomless.swap(true, Ordering::Relaxed) {
            node.tell(|| warn!("block {number}: {what}, {times} times: blooms prove nothing on this chain"));
        }
    }

    /// The proved block with this hash, for suspicious or sampled blocks; without an alternative.
    pub(super) async fn prove_block(&self, node: &Node, block: BlockRef) -> Result<Option<Proved>, NodeError> {
        let calls = [Call::new("eth_getBlockByHash", json!([block.hash, false])), receipts_call(block.hash)];
        let [header, receipts] = node.batch(calls).await?;
        if header.get() == "null" {
            return Err(node.gone(format!("block {block}")));
        }
        let answered = node.header_of(&header, block)?.block();
        if answered != block {
            return Err(node.retry(&format!("asked for block {block}, got block {answered}")));
        }
        self.prove(node, &header, Some(&receipts)).await
    }

    /// Blocks from the answers with their headers, proved in order up to the first failure; blocks that cannot be proved are
    /// `None`.
    pub(super) async fn prove_until(
        &self,
        node: &Node,
        headers: &[Answer],
    ) -> (Vec<Option<Proved>>, Result<(), NodeError>) {
        let mut proved = Vec::with_capacity(headers.len());
        for chunk in headers.chunks(RECEIPTS_PER_CALL) {
            if let Err(error) = self.prove_chunk_of(node, chunk, &mut proved).await {
                return (proved, Err(error));
            }
        }
        (proved, Ok(()))
    }

    async fn prove_chunk_of(
        &self,
        node: &Node,
        headers: &[Answer],
        proved: &mut Vec<Option<Proved>>,
    ) -> Result<(), NodeError> {
        let hashes = headers.iter().map(|answer| Ok(node.any_header(answer)?.hash));
        let hashes = hashes.collect::<Result<Vec<_>, NodeError>>()?;
        let (answers, outcome) = node.batch_until(hashes.into_iter().map(receipts_call).collect()).await;
        for (header, receipts) in headers.iter().zip(&answers) {
            proved.push(self.prove(node, header, Some(receipts)).await?);
        }
        outcome
    }

    /// All receipts of a block; one by one if the node does not offer them together.
    async fn receipts_of(&self, node: &Node, sealed: &SealedHeader) -> Result<Receipts, Unproved> {
        if sealed.transactions().is_empty() {
            return Ok(Receipts::default());
        }
        let known = lock(&self.proofs.one_by_one).contains(node.name());
        if !known {
            let [answer] = node.batch([receipts_call(sealed.block().hash)]).await?;
            if answer.get() != "null" {
                return read(node, sealed.block(), parse(answer.get()));
            }
        }
        let mut answers = Vec::with_capacity(sealed.transactions().len());
        for chunk in sealed.transactions().chunks(HEADERS_PER_CALL) {
            let calls = chunk.iter().map(|hash| Call::new("eth_getTransactionReceipt", json!([hash]))).collect();
            answers.extend(node.batch_of(calls).await?);
        }
        if answers.iter().any(|answer| answer.get() == "null") {
            return Err(node.gone(format!("a receipt of block {}", sealed.block())).into());
        }
        let receipts = read(node, sealed.block(), parse_each(&answers))?;
        if lock(&self.proofs.one_by_one).insert(node.name().to_owned()) {
            node.tell(|| debug!("no eth_getBlockReceipts: receipts are requested one by one"));
        }
        Ok(receipts)
    }

    /// Records that a node's logs of a block differ from its receipts.
    pub(super) fn distrust(&self, node: &Node, source: &Source, block: BlockRef, what: &str) {
        self.proofs.distrusted.fetch_add(1, Ordering::Relaxed);
        node.catch(source, block.number, what);
    }
}

/// The newest headers, the head's first.
async fn newest(node: &Node) -> Result<Vec<Answer>, NodeError> {
    let [newest] = node.batch([Call::new("eth_getBlockByNumber", json!(["latest", false]))]).await?;
    let number = node.any_header(&newest)?.number;
    let below = (number.saturating_sub(LOOK_BACK)..number).rev().map(header_by_number).collect();
    let mut answers = node.batch_of(below).await?;
    answers.insert(0, newest);
    Ok(answers)
}

/// All receipts of a block. An error answer counts as "not offered".
pub(super) fn receipts_call(hash: B256) -> Call {
    Call::new("eth_getBlockReceipts", json!([hash])).or_null()
}

fn read(node: &Node, block: BlockRef, parsed: Result<Receipts, serde_json::Error>) -> Result<Receipts, Unproved> {
    parsed.map_err(|error| {
        node.tell(|| debug!(%block, %error, "malformed receipts"));
        Disproof::Contradiction { number: block.number, what: "its receipts are malformed" }.into()
    })
}

/// The names of a block and its transactions.
#[derive(Deserialize)]
struct Names {
    hash: B256,
    transactions: Vec<B256>,
}

/// The header of one answer with all its fields, hashed.
fn seal(node: &Node, answer: &Answer) -> Result<SealedHeader, Unproved> {
    let number = node.any_header(answer)?.number;
    let contradiction = |error: serde_json::Error| {
        node.tell(|| debug!(block = number, %error, "not an Ethereum header"));
        Disproof::Contradiction { number, what: "its header lacks fields of an Ethereum header" }
    };
    let fields: FullHeader = serde_json::from_str(answer.get()).map_err(contradiction)?;
    let names: Names = serde_json::from_str(answer.get()).map_err(contradiction)?;
    Ok(SealedHeader::new(fields, names.hash, names.transactions)?)
}
