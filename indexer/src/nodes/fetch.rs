//! The three ways to fetch blocks with their logs: a range of history, a few blocks at the tip, the head itself. Each is verified
//! at the configured level, if the chain allows it.

use std::time::Instant;

use alloy::primitives::{Address, B256};
use serde_json::json;

use super::Nodes;
use super::error::NodeError;
use super::header::{HEADERS_PER_CALL, header_by_number, hex};
use super::node::Node;
use super::rpc::{Answer, Call};
use crate::chain::batch::{BlockBatch, Defect, Piece};
use crate::chain::block::{BlockRange, BlockRef, Header};
use crate::chain::level::Level;
use crate::chain::logs::Logs;
use crate::chain::source::Source;

/// Blocks of a refused range that receipts prove at once; a longer range is requested in halves first.
const PROVED_AT_ONCE: u64 = 32;

impl Nodes {
    /// A range of final blocks, at the level of history.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn range(&self, source: &Source, range: BlockRange) -> Result<BlockBatch, NodeError> {
        self.pool.budget().question(self.fetch(source).whole_range(range)).await
    }

    /// A range at `level` or the chain's strongest level below it, without a sample.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn range_to(&self, source: &Source, range: BlockRange, level: Level) -> Result<BlockBatch, NodeError> {
        self.pool.budget().question(self.fetch(source).checked(range, level)).await
    }

    /// A few blocks at the tip, or the first of them: a failed block does not discard the others. Proved blocks need no further
    /// check. For other blocks: every header, then the logs of exactly these hashes, each followed by its hash once more, so that
    /// a reorg between the calls cannot look like a block without logs.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn near_head(&self, source: &Source, range: BlockRange) -> Result<BlockBatch, NodeError> {
        self.pool.budget().question(self.fetch(source).tip(range)).await
    }

    /// The head itself, in one round trip, pinned by its hash.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn block(&self, source: &Source, block: BlockRef) -> Result<BlockBatch, NodeError> {
        self.pool.budget().question(self.fetch(source).pinned(block)).await
    }

    /// The header of block `number`, from a node that also has `anchor` at or above it: then the block is an ancestor of
    /// `anchor`.
    ///
    /// # Errors
    /// [`NodeError::Gone`] if the node has another block at the anchor's height, or none.
    pub async fn header_below(&self, number: u64, anchor: BlockRef) -> Result<Header, NodeError> {
        let node = self.node();
        let [header, at] = node.batch([header_by_number(number), header_by_number(anchor.number)]).await?;
        if node.header(&at, anchor.number)?.hash != anchor.hash {
            return Err(node.gone(format!("block {anchor}")));
        }
        node.header(&header, number)
    }

    pub(super) fn fetch<'n>(&'n self, source: &'n Source) -> Fetch<'n> {
        Fetch { nodes: self, source }
    }
}

/// The questions for the logs of one source.
pub(super) struct Fetch<'n> {
    nodes: &'n Nodes,
    source: &'n Source,
}

impl Fetch<'_> {
    async fn whole_range(&self, range: BlockRange) -> Result<BlockBatch, NodeError> {
        let level = self.nodes.history_level().await?;
        // Chosen once: the sample comes from the answering node.
        let node = self.nodes.node();
        let batch = self.checked_by(node, range, level).await?;
        if level == Level::Returned && self.nodes.takes_samples().await? && !self.sample(node, &batch).await? {
            return self.suspicious(range, "the receipts of the sample have other logs".into()).await;
        }
        if batch.level() < Level::Bloom {
            node.gave(range);
        }
        Ok(batch)
    }

    async fn checked(&self, range: BlockRange, level: Level) -> Result<BlockBatch, NodeError> {
        self.checked_by(self.nodes.node(), range, self.nodes.at_most(level).await?).await
    }

    async fn checked_by(&self, node: &Node, range: BlockRange, level: Level) -> Result<BlockBatch, NodeError> {
        // No other node works: receipts must prove this node's logs.
        let level = if node.is_caught() { Level::Receipts } else { level };
        let (headers, logs) = match level {
            Level::Receipts => return self.proved_range(node, range).await,
            Level::Returned => self.returned(node, range).await?,
            Level::Linked | Level::Bloom => self.linked(node, range).await?,
        };
        let headers = headers.into_iter().map(|header| self.nodes.with_its_bloom(header)).collect();
        match BlockBatch::new(range, headers, logs, self.source) {
            Err(
                defect @ (Defect::Bloom { .. }
                | Defect::LeftOut { .. }
                | Defect::OtherFork { .. }
                | Defect::NotAsked { .. }),
            ) => {
                let receipts = self.nodes.best_level().await? == Level::Receipts;
                match defect {
                    Defect::Bloom { number } | Defect::LeftOut { number } if receipts => {
                        node.catch(self.source, number, "they do not match the bloom of its header");
                    }
                    Defect::Bloom { number } => self.nodes.bloom_refuted(node, number),
                    _ => {}
                }
                self.suspicious(range, defect.to_string()).await
            }
            other => node.whole(other),
        }
    }

    /// Logs and boundary headers from one node, in the number of calls that it answers fastest, each with the headers of blocks
    /// with logs. Each call includes both ends of its range, so that parts of two chains do not join.
    async fn returned(&self, node: &Node, range: BlockRange) -> Result<(Vec<Header>, Logs), NodeError> {
        let (mut headers, mut logs, mut next) = (Vec::new(), Logs::default(), Some(range));
        while let Some(rest) = next {
            let portion = node.portion(rest);
            let part = portion.range;
            let filter = json!({ "fromBlock": hex(part.first), "toBlock": hex(part.last) });
            let mut calls = self.logs_calls(node, &filter);
            let parts = calls.len();
            calls.extend([header_by_number(part.first), header_by_number(part.last)]);
            let began = Instant::now();
            let mut answers = node.batch_of(calls).await?;
            let took = began.elapsed();
            let ends = answers.split_off(parts);
            let [first, last] = &ends[..] else {
                return Err(node.retry("the number of answers in the batch is wrong"));
            };
            let (first, last) = (node.header(first, part.first)?, node.header(last, part.last)?);
            let found = united(node, format_args!("blocks {part}"), answers)?;
            node.paced(portion, found.bytes() as u64, took);
            headers.extend(self.with_rows(node, &found, first, last).await?);
            next = BlockRange::new(part.last + 1, rest.last);
            logs = if logs.is_empty() { found } else { logs.joined(&found) };
        }
        Ok((headers, logs))
    }

    /// The headers of a part: its ends, and the blocks with logs between them. The block time in a log is only a claim, and dates
    /// no row.
    async fn with_rows(&self, node: &Node, logs: &Logs, first: Header, last: Header) -> Result<Vec<Header>, NodeError> {
        let ends = [first.number, last.number];
        let between: Vec<u64> =
            logs.blocks().map(|block| block.number).filter(|number| !ends.contains(number)).collect();
        let between = self.headers(node, &between).await?;
        let last = (ends[0] != ends[1]).then_some(last);
        Ok(std::iter::once(first).chain(between).chain(last).collect())
    }

    /// The logs of a range in one call, and every header.
    async fn linked(&self, node: &Node, range: BlockRange) -> Result<(Vec<Header>, Logs), NodeError> {
        let filter = json!({ "fromBlock": hex(range.first), "toBlock": hex(range.last) });
        let answers = node.batch_of(self.logs_calls(node, &filter)).await?;
        let logs = united(node, format_args!("blocks {range}"), answers)?;
        let numbers: Vec<u64> = (range.first..=range.last).collect();
        Ok((self.headers(node, &numbers).await?, logs))
    }

    /// Every block of the range with its receipts.
    async fn proved_range(&self, node: &Node, range: BlockRange) -> Result<BlockBatch, NodeError> {
        let (pieces, outcome) = self.proved_until(node, range).await;
        outcome?;
        node.whole(BlockBatch::of_pieces(range, pieces, self.source))
    }

    /// The blocks of the range with their receipts, up to the first unavailable one.
    async fn proved_until(&self, node: &Node, range: BlockRange) -> (Vec<Piece>, Result<(), NodeError>) {
        let mut pieces = Vec::new();
        let numbers: Vec<u64> = (range.first..=range.last).collect();
        for chunk in numbers.chunks(HEADERS_PER_CALL) {
            let (headers, told) = node.batch_until(chunk.iter().map(|n| header_by_number(*n)).collect()).await;
            let proved = self.prove_chunk(node, chunk, &headers, &mut pieces).await;
            if let Err(error) = proved.and(told) {
                return (pieces, Err(error));
            }
        }
        (pieces, Ok(()))
    }

    async fn prove_chunk(
        &self,
        node: &Node,
        numbers: &[u64],
        headers: &[Answer],
        pieces: &mut Vec<Piece>,
    ) -> Result<(), NodeError> {
        for (number, header) in numbers.iter().zip(headers) {
            node.header(header, *number)?;
        }
        let (proved, outcome) = self.nodes.prove_until(node, headers).await;
        for ((number, header), proved) in numbers.iter().zip(headers).zip(proved) {
            pieces.push(match proved {
                Some(block) => Piece::Proved(block),
                None => self.unproved(node, node.header(header, *number)?).await?,
            });
        }
        outcome
    }

    async fn tip(&self, range: BlockRange) -> Result<BlockBatch, NodeError> {
        let node = self.nodes.node();
        let (pieces, outcome) = match self.nodes.tail_level().await? == Level::Receipts || node.is_caught() {
            true => self.proved_until(node, range).await,
            false => self.believed_until(node, range).await,
        };
        let Some(last) = (range.first + pieces.len() as u64).checked_sub(1).filter(|last| *last >= range.first) else {
            outcome?;
            return Err(node.retry("no block of the range arrived"));
        };
        let range = BlockRange { first: range.first, last };
        node.whole(BlockBatch::of_pieces(range, pieces, self.source))
    }

    async fn believed_until(&self, node: &Node, range: BlockRange) -> (Vec<Piece>, Result<(), NodeError>) {
        let mut pieces = Vec::new();
        let outcome = self.believe(node, range, &mut pieces).await;
        (pieces, outcome)
    }

    async fn believe(&self, node: &Node, range: BlockRange, pieces: &mut Vec<Piece>) -> Result<(), NodeError> {
        let numbers: Vec<u64> = (range.first..=range.last).collect();
        let (answers, headers_told) = node.batch_until(numbers.iter().map(|n| header_by_number(*n)).collect()).await;
        let headers = numbers.iter().zip(&answers).map(|(number, answer)| node.header(answer, *number));
        let headers = headers.collect::<Result<Vec<Header>, _>>()?;
        let mut calls = Vec::new();
        for header in &headers {
            calls.extend(self.logs_calls(node, &json!({ "blockHash": header.hash })));
            calls.push(header_by_number(header.number));
        }
        // The same for each block.
        let each = calls.len() / headers.len().max(1);
        let (answers, told) = node.batch_until(calls).await;
        let mut answers = answers.into_iter();
        for header in headers {
            let mut of_block: Vec<Answer> = answers.by_ref().take(each).collect();
            let Some(again) = of_block.pop().filter(|_| of_block.len() + 1 == each) else { break };
            if node.header(&again, header.number)?.hash != header.hash {
                return Err(node.gone(format!("block {}", header.block())));
            }
            let logs = united(node, format_args!("block {}", header.block()), of_block)?;
            pieces.push(self.believed(node, header, logs).await?);
        }
        told.and(headers_told)
    }

    async fn pinned(&self, block: BlockRef) -> Result<BlockBatch, NodeError> {
        let node = self.nodes.node();
        let proved = match self.nodes.tail_level().await? {
            _ if node.is_caught() => self.nodes.prove_block(node, block).await,
            Level::Receipts => self.nodes.prove_block(node, block).await,
            _ => Ok(None),
        };
        let piece = match proved {
            Ok(Some(proved)) => Piece::Proved(proved),
            // Its logs may be within the limit even if its receipts are not.
            Ok(None) | Err(NodeError::TooLarge { .. }) => {
                let mut calls = vec![Call::new("eth_getBlockByHash", json!([block.hash, false]))];
                calls.extend(self.logs_calls(node, &json!({ "blockHash": block.hash })));
                let mut answers = node.batch_of(calls).await?;
                let header = node.header_of(&answers.remove(0), block)?;
                let logs = united(node, format_args!("block {block}"), answers)?;
                self.believed(node, header, logs).await?
            }
            Err(error) => return Err(error),
        };
        let range = BlockRange { first: block.number, last: block.number };
        node.whole(BlockBatch::of_pieces(range, vec![piece], self.source))
    }

    /// A block that its receipts do not prove: the logs that the node returns for its hash, if [`Self::believed`] accepts them.
    async fn unproved(&self, node: &Node, header: Header) -> Result<Piece, NodeError> {
        let answers = node.batch_of(self.logs_calls(node, &json!({ "blockHash": header.hash }))).await?;
        let logs = united(node, format_args!("block {}", header.block()), answers)?;
        self.believed(node, header, logs).await
    }

    /// The logs that a node returned for one block at the tip, unless they are suspicious: then its receipts decide, or, if
    /// receipts prove nothing, all of its logs together with the bloom.
    ///
    /// Suspicious are logs of another block, logs that do not match the header's bloom, and no logs for a block whose bloom
    /// admits some: a node may know a block before it knows its logs.
    async fn believed(&self, node: &Node, header: Header, logs: Logs) -> Result<Piece, NodeError> {
        let (header, selected) = (self.nodes.with_its_bloom(header), self.source.filter());
        let range = BlockRange { first: header.number, last: header.number };
        let empty = logs.is_empty() && !selected.is_everything() && selected.may_select_from(&header);
        let defect = BlockBatch::new(range, vec![header.clone()], logs.clone(), self.source).err();
        if !empty && defect.is_none() {
            return Ok(Piece::Returned(header, logs));
        }
        let block = header.block();
        let proved = match self.nodes.best_level().await? {
            Level::Receipts => self.nodes.prove_block(node, block).await?,
            _ => None,
        };
        let Some(proved) = proved else {
            let [all] = node.batch([Call::new("eth_getLogs", json!([{ "blockHash": header.hash }]))]).await?;
            let all = node.logs(format_args!("block {block}"), all)?;
            let everything = BlockBatch::new(range, vec![header.clone()], all, &Source::default());
            if let Err(Defect::Bloom { number }) = everything {
                self.nodes.bloom_refuted(node, number);
            }
            let mut passing = Logs::default();
            passing.extend(node.whole(everything)?.logs(), |_, log| selected.selects(log));
            return Ok(Piece::Returned(header, passing));
        };
        let mut passing = Logs::default();
        passing.extend(proved.logs(), |_, log| selected.selects(log));
        if !passing.same_rows(&logs) {
            let what = defect.map_or("it left logs out".to_owned(), |defect| defect.to_string());
            self.nodes.distrust(node, self.source, block, &what);
        }
        Ok(Piece::Proved(proved))
    }

    /// A refused range: proved by receipts if it is small, and requested in halves until it is.
    async fn suspicious(&self, range: BlockRange, why: String) -> Result<BlockBatch, NodeError> {
        let node = self.nodes.node();
        if self.nodes.best_level().await? != Level::Receipts {
            return Err(node.retry(&format!("refused an inconsistent answer: {why}")));
        }
        node.tell(|| tracing::warn!(%range, "refused logs: {why}; receipts decide"));
        if range.blocks() > PROVED_AT_ONCE {
            let (node, why) =
                (node.name().to_owned(), format!("logs were refused ({why}), and the range is too long for receipts"));
            return Err(NodeError::TooLarge { node, why, hint: None });
        }
        self.proved_range(node, range).await
    }

    /// Proves one block of a batch by its receipts and compares: a block with logs if there is one, chosen by the range, so that
    /// the same range has the same sample. Unavailable receipts are no sample.
    async fn sample(&self, node: &Node, batch: &BlockBatch) -> Result<bool, NodeError> {
        let Some(block) = batch.sampled() else { return Ok(true) };
        let proved = match self.nodes.prove_block(node, block).await {
            Ok(Some(proved)) => proved,
            Ok(None) => return Ok(true),
            Err(error @ NodeError::Retry { .. }) => return Err(error),
            Err(error) => {
                node.tell(|| tracing::debug!(%block, %error, "no sample"));
                return Ok(true);
            }
        };
        let (mut passing, mut returned) = (Logs::default(), Logs::default());
        passing.extend(proved.logs(), |_, log| self.source.filter().selects(log));
        returned.extend(batch.logs(), |number, _| number == block.number);
        let same = passing.same_rows(&returned);
        if !same {
            self.nodes.distrust(node, self.source, block, "its logs do not match the receipts of the block");
        }
        Ok(same)
    }

    /// Asks a caught node for the logs around the block where it was wrong, and acquits it if the blocks' receipts prove all of
    /// these logs.
    pub(super) async fn probation(&self, node: &Node, block: u64) {
        let first = block.saturating_sub(PROVED_AT_ONCE - 1);
        let range = BlockRange { first, last: block };
        let compared = async {
            let (_, returned) = self.returned(node, range).await?;
            let proved = self.proved_range(node, range).await?;
            Ok::<_, NodeError>(proved.logs().same_rows(&returned))
        };
        match compared.await {
            Ok(true) => node.acquit(),
            Ok(false) => node.catch(self.source, block, "its logs around that block are still wrong"),
            Err(error) => node.tell(|| tracing::debug!(%error, "it has not proved correct logs yet")),
        }
    }

    /// The requests for the selected logs at `at`: one, or more if the node limits addresses and topics.
    fn logs_calls(&self, node: &Node, at: &serde_json::Value) -> Vec<Call> {
        let most = node.max_list().max(1);
        let (addresses, topics) =
            (parts(&self.source.filter().addresses, most), parts(&self.source.filter().topics, most));
        let pairs = addresses.iter().flat_map(|addresses| topics.iter().map(move |topics| (*addresses, *topics)));
        let call = |(addresses, topics)| Call::new("eth_getLogs", log_params(addresses, topics, at.clone()));
        pairs.map(call).collect()
    }

    async fn headers(&self, node: &Node, numbers: &[u64]) -> Result<Vec<Header>, NodeError> {
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

/// Splits a list into parts of `most` values; an empty list, which selects all, stays empty.
fn parts<T>(list: &[T], most: usize) -> Vec<&[T]> {
    if list.is_empty() { vec![list] } else { list.chunks(most).collect() }
}

/// Merges the logs of a split request, in chain order.
fn united(
    node: &Node,
    what: std::fmt::Arguments<'_>,
    answers: impl IntoIterator<Item = Answer>,
) -> Result<Logs, NodeError> {
    let parts = answers.into_iter().map(|answer| node.logs(what, answer));
    let mut parts = parts.collect::<Result<Vec<Logs>, _>>()?;
    Ok(match parts.len() {
        1 => parts.remove(0),
        _ => Logs::merged(&parts),
    })
}

/// The parameters of `eth_getLogs` for `addresses` and `topics` at `at`.
fn log_params(addresses: &[Address], topics: &[B256], mut at: serde_json::Value) -> serde_json::Value {
    if !addresses.is_empty() {
        at["address"] = json!(addresses);
    }
    if !topics.is_empty() {
        at["topics"] = json!([topics]);
    }
    json!([at])
}
