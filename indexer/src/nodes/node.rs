//! One node: its calls, the conclusions from them, errors in our words. All records about a node are made here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use alloy::primitives::{B256, U64};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Notify;
use tracing::Instrument as _;

use super::asked::{Asked, Doubt, Failure, Part, in_words};
use super::budget::Budget;
use super::error::NodeError;
use super::header::{RpcHeader, header_by_number};
use super::health::{Grade, SeenHead};
use super::http::{CappedHttp, UrlSecrets};
use super::logs;
use super::pace::Portion;
use super::record::{Caught, Record, Refused};
use super::refusal::{Refusal, is_of_contract};
use super::rpc::{self, Answer, Call, OnError};
use crate::chain::batch::{BlockBatch, Defect};
use crate::chain::block::{BlockRange, BlockRef, Header};
use crate::chain::logs::Logs;
use crate::chain::source::Source;
use crate::config::{Chain, Secret};
use crate::status::NodeReport;

/// The identity of a node's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `eth_chainId`.
    pub chain_id: u64,
    /// Hash of block 0.
    pub genesis: B256,
}

/// A node and its name in messages: scheme, host and port, never its path or key.
#[derive(Debug)]
pub struct Node {
    http: CappedHttp,
    ids: AtomicU64,
    /// The chain that all nodes must serve, once it is known.
    expected: Arc<OnceLock<Identity>>,
    record: Record,
    /// A request ended: another one may take its turn.
    ended: Notify,
}

/// The right to have a request under way.
struct Turn<'n> {
    node: &'n Node,
    /// Requests under way, with this one.
    beside: u64,
}

/// The beginning of the answer.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.node.record.known().running -= 1;
        self.node.ended.notify_waiters();
    }
}

/// Characters of a malformed answer in a message.
const SHOWN: usize = 200;

/// The pause of a caught node before it may prove itself.
const PROBATION: Duration = Duration::from_secs(10);

/// The interval at which a node of another chain is asked for its chain: an operator may have corrected it.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Node {
    /// The node at `url`, called `name` in messages; its answers count against `budget`.
    ///
    /// # Errors
    /// [`NodeError::Retry`] if no HTTP client can be built.
    pub fn new(
        name: String,
        url: &Secret,
        chain: &Chain,
        expected: Arc<OnceLock<Identity>>,
        budget: Budget,
    ) -> Result<Self, NodeError> {
        let http = CappedHttp::new(url.expose(), chain.request_timeout, chain.max_response_bytes, budget)
            .map_err(|why| NodeError::Retry { node: name.clone(), why, after: None })?;
        Ok(Self {
            http,
            ids: AtomicU64::new(1),
            expected,
            record: Record::new(name, UrlSecrets::of(url)),
            ended: Notify::new(),
        })
    }

    /// Scheme, host and port.
    pub fn name(&self) -> &str {
        self.record.name()
    }

    /// A message of it, under its name and without the secrets of its URL.
    pub fn says(&self, words: &str) -> String {
        format!("{}: {}", self.name(), self.record.secrets.clean(words))
    }

    /// Records an observation about it.
    pub fn tell(&self, line: impl FnOnce()) {
        self.record.span().in_scope(line);
    }

    /// The block's receipts do not prove its logs of `block` for `source`. From now on it is asked only if no other node works, and
    /// then for receipts, until it gives right logs again.
    pub fn catch(&self, source: &Source, block: u64, what: &str) {
        let mut record = self.record.known();
        let before = record.gave.map_or(String::new(), |gave| {
            format!(
                "; its earlier logs of {gave} were accepted at level returned: `dalp-indexer repair --from {} --to {}` \
                 proves them by receipts",
                gave.first, gave.last
            )
        });
        let why =
            format!("caught: eth_getLogs is not to be trusted, its logs of block {block} are wrong ({what}){before}");
        if record.caught.is_none() {
            self.tell(|| tracing::warn!("{why}"));
        }
        let (source, again) = (source.clone(), Instant::now() + PROBATION);
        record.caught = Some(Caught { source, block, why, again });
    }

    /// It gave the right logs of the blocks that it had given wrong.
    pub fn acquit(&self) {
        self.record.known().caught = None;
        self.tell(|| tracing::info!("its logs are right again"));
    }

    /// Whether its logs were proved wrong, and it has not proved correct logs since.
    pub fn is_caught(&self) -> bool {
        self.record.known().caught.is_some()
    }

    /// The source and the block at which it was caught, if it may prove itself now; then not again before the next pause.
    pub fn on_probation(&self) -> Option<(Source, u64)> {
        let mut record = self.record.known();
        let caught = record.caught.as_mut().filter(|caught| caught.again <= Instant::now())?;
        caught.again = Instant::now() + PROBATION;
        Some((caught.source.clone(), caught.block))
    }

    /// It gave logs of `range` at level returned.
    pub fn gave(&self, range: BlockRange) {
        let mut record = self.record.known();
        let gave = record.gave.get_or_insert(range);
        (gave.first, gave.last) = (gave.first.min(range.first), gave.last.max(range.last));
    }

    /// The part of `range` for the next call.
    pub fn portion(&self, range: BlockRange) -> Portion {
        self.record.known().pace.portion(range)
    }

    /// The answer took `took` and had this number of bytes of logs.
    pub fn paced(&self, portion: Portion, bytes: u64, took: Duration) {
        self.record.known().pace.answered(portion, bytes, took);
    }

    /// The chain of this node.
    pub async fn identity(&self) -> Result<Identity, NodeError> {
        let calls = [Call::new("eth_chainId", json!([])), header_by_number(0)];
        let answers = self.call(&calls).await?;
        let [id, genesis] = &answers[..] else { return Err(self.retry("the number of answers in the batch is wrong")) };
        let chain_id: U64 = self.parse("eth_chainId", id)?;
        Ok(Identity { chain_id: chain_id.to(), genesis: self.header(genesis, 0)?.hash })
    }

    /// Asks for the node's chain if it is unknown. A node of another chain gets no other request until it serves ours.
    pub async fn check(&self) -> Result<(), NodeError> {
        let Some(expected) = self.expected.get() else { return Ok(()) };
        {
            let record = self.record.known();
            if record.checked {
                return Ok(());
            }
            if let Some(refused) = &record.refused
                && let Some(left) = ASK_AGAIN.checked_sub(refused.at.elapsed())
            {
                return Err(self.record.error(refused.why.clone(), Some(left)));
            }
        }
        let found = self.identity().await?;
        self.judge(found, *expected)
    }

    /// Always asks for the node's chain: before its answers cause a removal.
    pub async fn check_anew(&self) -> Result<(), NodeError> {
        self.record.known().checked = false;
        self.check().await
    }

    /// Compares the node's chain with the required chain.
    pub fn judge(&self, found: Identity, expected: Identity) -> Result<(), NodeError> {
        let mut record = self.record.known();
        record.checked = found == expected;
        if record.checked {
            if record.refused.take().is_some() {
                self.tell(|| tracing::info!("it serves chain {} again", expected.chain_id));
            }
            return Ok(());
        }
        let why = format!(
            "refused: it serves chain {} (genesis {}), not chain {} (genesis {}), and gets no requests until it serves \
             the right chain; remove its URL from rpc_urls, or point it to the right chain. After a restart of a devnet, \
             run `dalp-indexer dev --fresh` with the arguments of this run, or `dalp-indexer run \
             --reset-on-chain-change`, which removes all stored rows of chain {}",
            found.chain_id, found.genesis, expected.chain_id, expected.genesis, expected.chain_id
        );
        if record.refused.as_ref().is_none_or(|known| known.why != why) {
            self.tell(|| tracing::warn!("{why}"));
        }
        record.refused = Some(Refused { why: why.clone(), at: Instant::now() });
        Err(self.record.error(why, Some(ASK_AGAIN)))
    }

    /// `N` calls in one JSON-RPC batch, answered in their order.
    pub async fn batch<const N: usize>(&self, calls: [Call; N]) -> Result<[Answer; N], NodeError> {
        let answers = self.batch_of(calls.into()).await?;
        answers.try_into().map_err(|_wrong_count| self.retry("the number of answers in the batch is wrong"))
    }

    /// Calls in one JSON-RPC batch, or in the fewest batches that the node allows. An error of one call fails all; a missing
    /// answer is an error, never empty.
    pub async fn batch_of(&self, calls: Vec<Call>) -> Result<Vec<Answer>, NodeError> {
        self.check().await?;
        self.call(&calls).await
    }

    /// As [`Node::batch_of`], with the answers before the first failure.
    pub async fn batch_until(&self, calls: Vec<Call>) -> (Vec<Answer>, Result<(), NodeError>) {
        let mut answers = Vec::with_capacity(calls.len());
        let outcome = match self.check().await {
            Ok(()) => self.call_into(&calls, &mut answers).await,
            Err(error) => Err(error),
        };
        (answers, outcome)
    }

    async fn call(&self, calls: &[Call]) -> Result<Vec<Answer>, NodeError> {
        let mut answers = Vec::with_capacity(calls.len());
        self.call_into(calls, &mut answers).await?;
        Ok(answers)
    }

    async fn call_into(&self, calls: &[Call], answers: &mut Vec<Answer>) -> Result<(), NodeError> {
        self.call_in_parts(calls, answers).instrument(self.record.span().clone()).await
    }

    async fn call_in_parts(&self, calls: &[Call], answers: &mut Vec<Answer>) -> Result<(), NodeError> {
        while answers.len() < calls.len() {
            let rest = &calls[answers.len()..];
            let fits = self.record.known().limits.max_batch(Instant::now()).min(rest.len());
            match self.post(&rest[..fits], answers).await {
                Ok(()) => {}
                // The limit is below `fits` now, so this ends.
                Err(Failure::Batch) => {}
                Err(Failure::Doubted(doubt)) => self.decide(doubt).await?,
                Err(Failure::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// A failure that the request's size may have caused. If the node fails every request, it says nothing about sizes; if it
    /// answers a light call, its later requests are smaller.
    async fn decide(&self, doubt: Doubt) -> Result<(), NodeError> {
        if self.post(&[Call::new("eth_chainId", json!([]))], &mut Vec::new()).await.is_err() {
            return Err(doubt.error);
        }
        let now = Instant::now();
        let mut record = self.record.known();
        let limits = &mut record.limits;
        match doubt.part {
            Part::Blocks(blocks) => {
                limits.blocks.refuse(blocks, None, doubt.began, now);
                let why = format!("{}; refused repeatedly, while light calls succeed", doubt.why);
                Err(NodeError::TooLarge { node: self.name().to_owned(), why, hint: limits.max_blocks(now) })
            }
            Part::List(values) => {
                limits.list.refuse(values, None, doubt.began, now);
                Err(doubt.error)
            }
            Part::Calls(calls) => {
                limits.batch.refuse(calls, None, doubt.began, now);
                Ok(())
            }
        }
    }

    /// Waits until the node accepts one more request.
    async fn turn(&self) -> Turn<'_> {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on an end is not missed.
            ended.as_mut().enable();
            {
                let mut record = self.record.known();
                if record.running < record.limits.max_parallel(Instant::now()) {
                    record.running += 1;
                    return Turn { node: self, beside: record.running };
                }
            }
            ended.await;
        }
    }

    /// One request; its results are added to `answers`, up to the first failed call.
    async fn post(&self, calls: &[Call], answers: &mut Vec<Answer>) -> Result<(), Failure> {
        let turn = self.turn().await;
        let asked = Asked::new(calls, turn.beside, self.record.known().limits.takes_batches());
        if let Some(left) = self.record.known().health.throttle_left(asked.began) {
            let why = format!("it asked for a pause; {:.1} s are left", left.as_secs_f64());
            return Err(Failure::Error(self.record.error(why, Some(left))));
        }
        let first_id = self.ids.fetch_add(calls.len() as u64, Ordering::Relaxed);
        let body = self.http.post(rpc::encode(calls, first_id), turn).await;
        let body = body.map_err(|error| self.record.no_body(error, asked))?;
        let decoded = rpc::decode(body, first_id, calls).map_err(|bad| self.record.bad(bad, asked))?;
        for (at, (call, answer)) in calls.iter().zip(decoded).enumerate() {
            let asked = asked.failed_at(at);
            match answer {
                Ok(answer) if call.is_range() && answer.get() == "null" => return Err(self.record.null(asked)),
                Ok(answer) => answers.push(answer),
                // Its words are the contract's, and may sound like any refusal.
                Err(error) if call.on_error == OnError::Answer && is_of_contract(error.code, &error.message) => {
                    answers.push(Answer::Error(error));
                }
                Err(error) => match asked.refusal_of(&error) {
                    // The node has no answer to this call; an error of the whole batch is still visible.
                    refusal @ (Refusal::Other | Refusal::UnknownBlock | Refusal::NoMethod | Refusal::Pruned)
                        if call.on_error != OnError::Fails =>
                    {
                        if refusal == Refusal::NoMethod {
                            self.record.known().limits.refused_method(call.method, Instant::now());
                        }
                        let kept = call.on_error == OnError::Answer;
                        answers.push(if kept { Answer::Error(error) } else { Answer::null() });
                    }
                    refusal => return Err(self.record.refused(refusal, &in_words(&error), None, asked)),
                },
            }
        }
        self.record.answered(asked);
        Ok(())
    }

    /// One answer to `what` as `T`.
    pub fn parse<T: DeserializeOwned>(&self, what: &str, answer: &Answer) -> Result<T, NodeError> {
        serde_json::from_str(answer.get()).map_err(|error| self.malformed(what, &error, answer.get()))
    }

    fn malformed(&self, what: &str, error: &dyn std::fmt::Display, came: &str) -> NodeError {
        self.retry(&format!("malformed answer to {what}: {}; it answered {}", shown(&error.to_string()), shown(came)))
    }

    /// The header of block `number`.
    pub fn header(&self, answer: &Answer, number: u64) -> Result<Header, NodeError> {
        self.header_by("eth_getBlockByNumber", answer, number)
    }

    /// The header of the block of that hash, asked for by it.
    pub fn header_of(&self, answer: &Answer, block: BlockRef) -> Result<Header, NodeError> {
        self.header_by("eth_getBlockByHash", answer, block.number)
    }

    fn header_by(&self, method: &str, answer: &Answer, number: u64) -> Result<Header, NodeError> {
        let what = format!("{method} of block {number}");
        let header =
            self.parse::<Option<RpcHeader>>(&what, answer)?.ok_or_else(|| self.gone(format!("block {number}")))?;
        let header = self.told(&what, header)?;
        if header.number != number {
            return Err(self.retry(&format!("asked for block {number}, got block {}", header.number)));
        }
        Ok(header)
    }

    /// The header of any requested block.
    pub fn any_header(&self, answer: &Answer) -> Result<Header, NodeError> {
        let what = "eth_getBlockByNumber";
        let header = self.parse::<Option<RpcHeader>>(what, answer)?.ok_or_else(|| self.gone("the block".into()))?;
        self.told(what, header)
    }

    fn told(&self, what: &str, header: RpcHeader) -> Result<Header, NodeError> {
        let (number, time) = (header.number, header.timestamp);
        header.header().ok_or_else(|| {
            let block = number.map_or("a block without number".into(), |number| format!("block {number}"));
            self.retry(&format!("{what}: {block} has no number, no hash, or no sane time (its time is {time})"))
        })
    }

    /// The logs in the answer to `what`; frees its text afterwards.
    pub fn logs(&self, what: impl std::fmt::Display, answer: Answer) -> Result<Logs, NodeError> {
        let mut all = match answer {
            Answer::Logs(logs) => logs,
            Answer::Error(error) => return Err(self.retry(&format!("eth_getLogs of {what}: {}", in_words(&error)))),
            Answer::Text(text) if text == "null" => {
                return Err(self.gone(format!("what eth_getLogs of {what} asks for, which it answers with null,")));
            }
            Answer::Text(text) => {
                let mut logs = Logs::default();
                let read = logs::parse(&text, &mut logs);
                read.map_err(|error| self.malformed(&format!("eth_getLogs of {what}"), &error, &text))?;
                logs
            }
        };
        // The logs wait for their turn; their unused capacity would wait with them.
        all.shrink();
        Ok(all)
    }

    /// Values of one list in a filter that it accepts.
    pub fn max_list(&self) -> usize {
        self.record.known().limits.max_list(Instant::now())
    }

    /// A batch, or the defect of a refused one in our words.
    pub fn whole(&self, batch: Result<BlockBatch, Defect>) -> Result<BlockBatch, NodeError> {
        let batch = batch.map_err(|defect| self.retry(&format!("refused an inconsistent answer: {defect}")))?;
        self.record.known().health.whole();
        Ok(batch)
    }

    /// Its apparent fault is the chain's normal behaviour.
    pub fn excuse(&self) {
        self.record.known().health.whole();
    }

    /// It lacks `what`; repeated cases count against the node.
    pub fn gone(&self, what: String) -> NodeError {
        self.record.known().health.missing(Instant::now(), format!("{what} is missing"));
        NodeError::Gone { node: self.name().to_owned(), what }
    }

    /// A refused answer, which counts against the node.
    pub fn retry(&self, why: &str) -> NodeError {
        let why = self.record.secrets.clean(why);
        self.record.known().health.wrong(Instant::now(), why.clone(), rand::random());
        self.record.error(why, None)
    }

    /// The node reported its newest block; `best` is the recent best of the others.
    pub fn saw_head(&self, head: &Header, best: Option<SeenHead>) {
        let seen = SeenHead { number: head.number, time: head.time, at: Instant::now() };
        self.record.known().health.saw_head(seen, best);
    }

    /// Its newest block, if reported recently.
    pub fn head(&self, now: Instant) -> Option<SeenHead> {
        let record = self.record.known();
        record.health.head(now).filter(|_| record.refused.is_none())
    }

    /// The time since it was asked for its newest block.
    pub fn head_age(&self, now: Instant) -> Option<Duration> {
        self.record.known().health.head_age(now)
    }

    /// Its grade, and milliseconds of its light calls.
    pub fn standing(&self, now: Instant) -> (Grade, Option<f64>) {
        let record = self.record.known();
        let unchecked = !record.checked && self.expected.get().is_some();
        let grade = match record.health.grade(now) {
            _ if record.refused.is_some() => Grade::Refused,
            grade if record.caught.is_some() => grade.max(Grade::Caught),
            grade if unchecked => grade.max(Grade::Unchecked),
            grade => grade,
        };
        (grade, record.health.latency())
    }

    /// Blocks that it allows in one request for logs.
    pub fn max_blocks(&self) -> Option<u64> {
        self.record.known().limits.max_blocks(Instant::now())
    }

    /// Whether `method` is worth a try.
    pub fn offers(&self, method: &str) -> bool {
        self.record.known().limits.offers(method, Instant::now())
    }

    /// Its state.
    pub fn report(&self) -> NodeReport {
        let record = self.record.known();
        let mut report = NodeReport { name: self.name().to_owned(), ..NodeReport::default() };
        record.health.report(&mut report, Instant::now());
        record.limits.report(&mut report);
        if let Some(caught) = &record.caught {
            report.state = "caught".into();
            report.last_error = Some(caught.why.clone());
        }
        if let Some(refused) = &record.refused {
            report.state = "refused".into();
            report.last_error = Some(refused.why.clone());
        }
        report
    }

    /// Adopts the limits learned by an earlier run. Its earlier health says nothing about now.
    pub fn remember(&self, report: &NodeReport) {
        self.record.known().limits.remember(report, Instant::now());
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
