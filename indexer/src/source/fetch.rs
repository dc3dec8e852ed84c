//! The three ways to fetch blocks with their logs: a range of history, a few blocks at the tip, the head itself.

use serde_json::json;
use serde_json::value::RawValue;

use super::node::{Call, Node};
use super::{HEADERS_PER_CALL, Source, SourceError, header_by_number, hex, log_params};
use crate::chain::batch::{BlockBatch, Logs};
use crate::chain::block::{BlockRange, BlockRef, Header, TimeSource};

impl Source {
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

    /// The header of block `number`, from a node that also has `anchor` at or above it: then it is an ancestor of it.
    ///
    /// # Errors
    /// [`SourceError::Gone`] where the node has another block at the anchor's height, or none.
    pub async fn header_below(&self, number: u64, anchor: BlockRef) -> Result<Header, SourceError> {
        let node = self.node();
        let [header, at] = node.batch([header_by_number(number), header_by_number(anchor.number)]).await?;
        if node.header(&at, anchor.number)?.hash != anchor.hash {
            return Err(node.gone(format!("block {anchor}")));
        }
        node.header(&header, number)
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
        Call::new("eth_getLogs", log_params(&self.filter, at))
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

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};

    use super::*;

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
