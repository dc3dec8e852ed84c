//! One node: its calls, what they tell of it, errors put into our words. Everything that is recorded is recorded here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::U64;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::budget::Budget;
use super::health::{Grade, Health, SeenHead};
use super::http::{CappedHttp, HttpError, UrlSecrets};
use super::limits::Limits;
use super::pace::{Pace, Portion};
use super::refusal::Refusal;
use super::rpc::{self, Answer, Bad, ErrorAnswer};
use super::{Identity, RpcHeader, SourceError, header_by_number, logs};
use crate::chain::batch::{BlockBatch, Defect, Logs};
use crate::chain::block::{BlockRange, Header};
use crate::config::{Chain, Secret};
use crate::status::NodeReport;

pub use super::rpc::Call;

/// A node and how it is named in messages: scheme, host and port, never its path or key.
#[derive(Debug)]
pub struct Node {
    name: String,
    http: CappedHttp,
    secrets: UrlSecrets,
    ids: AtomicU64,
    /// The chain that all nodes must serve, once it is known.
    expected: Arc<OnceLock<Identity>>,
    record: Mutex<Record>,
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Record {
    health: Health,
    limits: Limits,
    /// Whether it told that it serves the right chain since a call to it last failed.
    checked: bool,
    /// It served another chain when it was last asked.
    refused: Option<Refused>,
    /// What it was caught at: its logs were proved wrong by receipts.
    caught: Option<Caught>,
    /// Blocks of which it gave logs that nothing but their own agreement vouches for, the first and the last.
    gave: Option<BlockRange>,
    /// Wide ranges whose answer did not come whole, in a row.
    cuts: u32,
    /// How much is asked for in one call.
    pace: Pace,
}

/// A node of another chain.
#[derive(Debug)]
struct Refused {
    why: String,
    /// When it told that chain.
    at: Instant,
}

/// A node whose logs were proved wrong.
#[derive(Debug)]
struct Caught {
    /// The block whose logs were wrong.
    block: u64,
    why: String,
    /// When it may prove itself.
    again: Instant,
}

/// How long a node that was caught is left alone before it may prove itself.
const PROBATION: Duration = Duration::from_secs(10);

/// How often a node of another chain is asked which chain it serves: an operator may have put it right.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Wide answers that fail in the middle, in a row, from which on the width is taken for the reason.
const CUTS: u32 = 2;

/// Methods without which a node is of no use.
const NEEDED: &[&str] = &["eth_chainId", "eth_getBlockByNumber", "eth_getBlockByHash", "eth_getLogs"];

/// Why a batch has no answers.
enum Failure {
    /// It has to be sent in smaller batches, which is known by now.
    Batch,
    Error(SourceError),
}

/// What a batch asked, as far as failures are judged by it.
#[derive(Clone, Copy)]
struct Asked {
    began: Instant,
    calls: usize,
    /// Blocks of its questions for logs, together.
    blocks: Option<u64>,
    /// Blocks of the widest of them.
    widest: Option<u64>,
    /// The first method.
    method: &'static str,
}

impl Asked {
    fn refusal_of(&self, error: &ErrorAnswer) -> Refusal {
        match Refusal::of(error.code, &error.message, self.blocks) {
            // To a node that knows no batches, an array is no valid request.
            Refusal::Other if [-32600, -32700].contains(&error.code) && self.calls > 1 => {
                Refusal::Batch { max: Some(1) }
            }
            refusal => refusal,
        }
    }
}

fn in_words(error: &ErrorAnswer) -> String {
    format!("error {}: {}", error.code, error.message)
}

impl Node {
    /// The node at `url`, called `name` in messages; its answers count against `budget`.
    ///
    /// # Errors
    /// [`SourceError::Retry`] where no HTTP client can be built.
    pub fn new(
        name: String,
        url: &Secret,
        chain: &Chain,
        expected: Arc<OnceLock<Identity>>,
        budget: Budget,
    ) -> Result<Self, SourceError> {
        let http = CappedHttp::new(url.expose(), chain.request_timeout, chain.max_response_bytes, budget)
            .map_err(|why| SourceError::Retry { node: name.clone(), why, after: None })?;
        let secrets = UrlSecrets::of(url);
        Ok(Self { name, http, secrets, ids: AtomicU64::new(1), expected, record: Mutex::default() })
    }

    /// Scheme, host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its logs of `block` are not those that the block's receipts prove. It is asked only where no other node works, and then
    /// for receipts, until it gives right logs again.
    pub fn catch(&self, block: u64, what: &str) {
        let mut record = self.record();
        let before = record.gave.map_or(String::new(), |gave| {
            format!(
                "; what it gave before of {gave} was taken at level returned: `dalp-indexer repair --from {} --to {}` proves it by \
                 receipts",
                gave.first, gave.last
            )
        });
        let why =
            format!("caught: eth_getLogs is not to be trusted, its logs of block {block} are wrong ({what}){before}");
        if record.caught.is_none() {
            tracing::warn!(node = self.name, "{why}");
        }
        record.caught = Some(Caught { block, why, again: Instant::now() + PROBATION });
    }

    /// It gave the right logs where it had given wrong ones.
    pub fn acquit(&self) {
        self.record().caught = None;
        tracing::info!(node = self.name, "its logs are right again");
    }

    /// Whether its logs were proved wrong, and it has not proved itself since.
    pub fn is_caught(&self) -> bool {
        self.record().caught.is_some()
    }

    /// The block at which it was caught, once it may prove itself; then not before the next time.
    pub fn on_probation(&self) -> Option<u64> {
        let mut record = self.record();
        let caught = record.caught.as_mut().filter(|caught| caught.again <= Instant::now())?;
        caught.again = Instant::now() + PROBATION;
        Some(caught.block)
    }

    /// It gave logs of `range` at level returned.
    pub fn gave(&self, range: BlockRange) {
        let mut record = self.record();
        let gave = record.gave.get_or_insert(range);
        (gave.first, gave.last) = (gave.first.min(range.first), gave.last.max(range.last));
    }

    /// How much of `range` to ask for in the next call.
    pub fn portion(&self, range: BlockRange) -> Portion {
        self.record().pace.portion(range)
    }

    /// What was asked for came with so many bytes of logs after `took`.
    pub fn paced(&self, portion: Portion, bytes: u64, took: Duration) {
        self.record().pace.answered(portion, bytes, took);
    }

    /// Which chain this node serves.
    pub async fn identity(&self) -> Result<Identity, SourceError> {
        let calls = [Call::new("eth_chainId", json!([])), header_by_number(0)];
        let answers = self.call(&calls).await?;
        let [id, genesis] = &answers[..] else { return Err(self.retry("the batch has another number of answers")) };
        let chain_id: U64 = self.parse(id)?;
        Ok(Identity { chain_id: chain_id.to(), genesis: self.header(genesis, 0)?.hash })
    }

    /// Asks for the node's chain where it is not known. A node of another chain is asked for nothing else until it serves
    /// ours.
    pub async fn check(&self) -> Result<(), SourceError> {
        let Some(expected) = self.expected.get() else { return Ok(()) };
        {
            let record = self.record();
            if record.checked {
                return Ok(());
            }
            if let Some(refused) = &record.refused
                && let Some(left) = ASK_AGAIN.checked_sub(refused.at.elapsed())
            {
                return Err(self.error(refused.why.clone(), Some(left)));
            }
        }
        let found = self.identity().await?;
        self.judge(found, *expected)
    }

    /// Asks for the node's chain whether it is known or not: before anything is removed for what it says.
    pub async fn check_anew(&self) -> Result<(), SourceError> {
        self.record().checked = false;
        self.check().await
    }

    /// Holds the chain that the node serves against the one that it has to serve.
    pub fn judge(&self, found: Identity, expected: Identity) -> Result<(), SourceError> {
        let mut record = self.record();
        record.checked = found == expected;
        if record.checked {
            if record.refused.take().is_some() {
                tracing::info!(node = self.name, "it serves chain {} again", expected.chain_id);
            }
            return Ok(());
        }
        let why = format!(
            "refused: it serves chain {} (genesis {}), not chain {} (genesis {}), and is asked for nothing until it does; take \
             its URL out of rpc_urls, or point it to the right chain. Where a devnet was started anew, restart with \
             `--reset-on-chain-change`",
            found.chain_id, found.genesis, expected.chain_id, expected.genesis
        );
        if record.refused.as_ref().is_none_or(|known| known.why != why) {
            tracing::warn!(node = self.name, "{why}");
        }
        record.refused = Some(Refused { why: why.clone(), at: Instant::now() });
        Err(self.error(why, Some(ASK_AGAIN)))
    }

    /// `N` calls in one JSON-RPC batch, answered in their order.
    pub async fn batch<const N: usize>(&self, calls: [Call; N]) -> Result<[Answer; N], SourceError> {
        let answers = self.batch_of(calls.into()).await?;
        answers.try_into().map_err(|_wrong_count| self.retry("the batch has another number of answers"))
    }

    /// Calls in one JSON-RPC batch, or in as few as the node allows. An error for any of them fails all; a missing answer
    /// is an error, never empty.
    pub async fn batch_of(&self, calls: Vec<Call>) -> Result<Vec<Answer>, SourceError> {
        self.check().await?;
        self.call(&calls).await
    }

    async fn call(&self, calls: &[Call]) -> Result<Vec<Answer>, SourceError> {
        let mut answers = Vec::with_capacity(calls.len());
        while answers.len() < calls.len() {
            let rest = &calls[answers.len()..];
            let fits = self.record().limits.max_batch(Instant::now()).min(rest.len());
            match self.post(&rest[..fits]).await {
                Ok(more) => answers.extend(more),
                // The limit is below `fits` now, so this ends.
                Err(Failure::Batch) => {}
                Err(Failure::Error(error)) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// One request.
    async fn post(&self, calls: &[Call]) -> Result<Vec<Answer>, Failure> {
        let began = Instant::now();
        if let Some(left) = self.record().health.throttle_left(began) {
            let why = format!("it asked to be left alone; {:.1} s are left", left.as_secs_f64());
            return Err(Failure::Error(self.error(why, Some(left))));
        }
        let widest = calls.iter().filter_map(Call::log_blocks).max();
        let blocks = widest.map(|_| calls.iter().filter_map(Call::log_blocks).sum());
        let method = calls.first().map_or("", |call| call.method);
        let asked = Asked { began, calls: calls.len(), blocks, widest, method };
        let first_id = self.ids.fetch_add(calls.len() as u64, Ordering::Relaxed);
        let body = self.http.post(rpc::encode(calls, first_id)).await.map_err(|error| self.no_body(error, asked))?;
        let decoded = rpc::decode(body, first_id, calls).map_err(|bad| self.bad(bad, asked))?;
        let mut answers = Vec::with_capacity(calls.len());
        for (call, answer) in calls.iter().zip(decoded) {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => match Refusal::of(error.code, &error.message, asked.blocks) {
                    // The node has nothing to say to this one; what concerns the whole batch is not hidden by it.
                    Refusal::Other | Refusal::UnknownBlock | Refusal::NoMethod | Refusal::Pruned
                        if call.null_on_error =>
                    {
                        answers.push(Answer::null());
                    }
                    refusal => {
                        let asked = Asked { method: call.method, ..asked };
                        return Err(self.refused(refusal, &in_words(&error), None, asked));
                    }
                },
            }
        }
        self.answered(asked);
        Ok(answers)
    }

    fn answered(&self, asked: Asked) {
        let now = Instant::now();
        let mut record = self.record();
        // Logs and many headers take as long as there are many of them.
        record.health.answered(asked.began, now, asked.blocks.is_none() && asked.calls <= 2);
        record.limits.answered(asked.widest, asked.calls);
        if asked.blocks.is_some_and(|blocks| blocks > 1) {
            record.cuts = 0;
        }
    }

    /// The node answered, and refused.
    fn refused(&self, refusal: Refusal, words: &str, after: Option<Duration>, asked: Asked) -> Failure {
        let why = self.secrets.clean(words);
        let now = Instant::now();
        let mut record = self.record();
        let node = self.name.clone();
        let error = match refusal {
            Refusal::Batch { max } if asked.calls > 1 => {
                record.limits.refused_batch(asked.calls, max, now);
                record.health.note(why.clone());
                tracing::info!(
                    node,
                    why,
                    max = record.limits.max_batch(now),
                    "the node limits its batches; asking in smaller ones"
                );
                return Failure::Batch;
            }
            Refusal::TooLarge { limit, suggested } => {
                let mut hint = suggested;
                if let Some(limit) = limit {
                    record.limits.learn(limit, now);
                    hint = hint.or(record.limits.max_blocks(now));
                }
                record.health.answered(asked.began, now, false);
                record.health.note(why.clone());
                SourceError::TooLarge { node, why, hint }
            }
            Refusal::Throttled => {
                record.health.throttled(asked.began, now, why.clone(), after, rand::random());
                let after = record.health.throttle_left(now).or(after);
                SourceError::Retry { node, why: format!("throttled: {why}"), after }
            }
            Refusal::UnknownBlock => {
                record.health.answered(asked.began, now, false);
                record.health.missing(now, why.clone());
                SourceError::Gone { node, what: why }
            }
            Refusal::NoMethod => {
                let why = format!("it does not offer {}: {why}", asked.method);
                record.limits.refused_method(asked.method, now);
                // A node without receipts is no worse for logs.
                match NEEDED.contains(&asked.method) {
                    true => record.health.wrong(now, why.clone(), rand::random()),
                    false => record.health.note(why.clone()),
                }
                SourceError::Retry { node, why, after }
            }
            Refusal::Pruned => {
                let why = format!(
                    "it does not keep history that far back ({why}); add a node with full history to rpc_urls, or set \
                     start_block to what it keeps"
                );
                record.health.wrong(now, why.clone(), rand::random());
                SourceError::Retry { node, why, after }
            }
            Refusal::Batch { .. } | Refusal::Other => {
                drop(record);
                return Failure::Error(self.failed(why, after, asked));
            }
        };
        Failure::Error(error)
    }

    /// The bytes are not the answers.
    fn bad(&self, bad: Bad, asked: Asked) -> Failure {
        match bad {
            Bad::Refused(error) => self.refused(asked.refusal_of(&error), &in_words(&error), None, asked),
            Bad::Cut(why) => self.cut(&why, asked),
            Bad::Malformed(why) => {
                let why = self.secrets.clean(&format!("malformed answer: {why}"));
                Failure::Error(self.failed(why, None, asked))
            }
        }
    }

    /// No successful answer came.
    fn no_body(&self, error: HttpError, asked: Asked) -> Failure {
        if matches!(error, HttpError::Cut(_) | HttpError::Unreachable(_)) {
            // What the next connection leads to may be something else.
            self.record().checked = false;
        }
        let (status, body, after) = match error {
            HttpError::Status { status, body, after } => (status, body, after),
            HttpError::TooLarge(limit) => return self.over_the_cap(limit, asked),
            HttpError::Timeout => return self.cut("no answer within request_timeout", asked),
            HttpError::Cut(why) => return self.cut(&why, asked),
            HttpError::Redirect(to) => {
                let why = format!("it redirects to {to}, which is not followed; put the final URL into rpc_urls");
                return Failure::Error(self.failed(why, None, asked));
            }
            HttpError::Unreachable(why) => return Failure::Error(self.failed(self.secrets.clean(&why), None, asked)),
        };
        let told = rpc::error_in(&body);
        let begins = || rpc::one_line(&String::from_utf8_lossy(&body[..body.len().min(200)]));
        let why = format!("HTTP {status}: {}", told.as_ref().map_or_else(begins, in_words));
        let refusal = told.map_or(Refusal::Other, |error| asked.refusal_of(&error));
        match (status, refusal) {
            (429, _) => self.refused(Refusal::Throttled, &why, after, asked),
            (503, Refusal::Other) if after.is_some() => self.refused(Refusal::Throttled, &why, after, asked),
            (408 | 504 | 524, Refusal::Other) => self.cut(&why, asked),
            (413, Refusal::Other) if asked.blocks.is_some() => {
                self.refused(Refusal::TooLarge { limit: None, suggested: None }, &why, None, asked)
            }
            (413, Refusal::Other) => self.refused(Refusal::Batch { max: None }, &why, None, asked),
            (401 | 403, Refusal::Other) => {
                let why = self.secrets.clean(&format!("{why}; check the key in its URL (rpc_urls)"));
                Failure::Error(self.failed(why, after, asked))
            }
            (_, refusal) => self.refused(refusal, &why, after, asked),
        }
    }

    /// More bytes than we take: fewer logs, or fewer headers in one batch.
    fn over_the_cap(&self, limit: u64, asked: Asked) -> Failure {
        let now = Instant::now();
        let mut record = self.record();
        record.health.answered(asked.began, now, false);
        if asked.blocks.is_none() && asked.calls > 1 {
            record.limits.refused_batch(asked.calls, None, now);
            return Failure::Batch;
        }
        let why = format!("the answer passes max_response_bytes = {limit}");
        Failure::Error(SourceError::TooLarge { node: self.name.clone(), why, hint: None })
    }

    /// An answer that did not come, or not whole. Once is bad luck; for a wide range, again means that it is too much.
    fn cut(&self, why: &str, asked: Asked) -> Failure {
        let why = self.secrets.clean(why);
        if let Some(blocks) = asked.blocks.filter(|blocks| *blocks > 1) {
            let mut record = self.record();
            record.cuts += 1;
            if record.cuts >= CUTS {
                record.cuts = 0;
                record.health.note(why.clone());
                let why = format!("no whole answer for {blocks} blocks, repeatedly: {why}");
                return Failure::Error(SourceError::TooLarge { node: self.name.clone(), why, hint: None });
            }
        }
        Failure::Error(self.failed(why, None, asked))
    }

    /// A call that failed for a reason that is the node's, not the question's.
    fn failed(&self, why: String, after: Option<Duration>, asked: Asked) -> SourceError {
        let mut record = self.record();
        if record.health.failed(asked.began, Instant::now(), why.clone(), rand::random()) {
            // What stands there when it is back may be something else.
            record.checked = false;
            tracing::warn!(node = self.name, why, "the node failed repeatedly and rests");
        }
        drop(record);
        self.error(why, after)
    }

    fn error(&self, why: String, after: Option<Duration>) -> SourceError {
        SourceError::Retry { node: self.name.clone(), why, after }
    }

    /// One answer as `T`.
    pub fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, SourceError> {
        serde_json::from_str(answer.get()).map_err(|e| self.retry(&format!("malformed answer: {e}")))
    }

    /// The header of block `number`.
    pub fn header(&self, answer: &Answer, number: u64) -> Result<Header, SourceError> {
        let header = self.parse::<Option<RpcHeader>>(answer)?.ok_or_else(|| self.gone(format!("block {number}")))?;
        let header = self.told(header)?;
        if header.number != number {
            return Err(self.retry(&format!("asked for block {number}, got block {}", header.number)));
        }
        Ok(header)
    }

    /// The header of whatever block was asked for.
    pub fn any_header(&self, answer: &Answer) -> Result<Header, SourceError> {
        let header = self.parse::<Option<RpcHeader>>(answer)?.ok_or_else(|| self.gone("the block".into()))?;
        self.told(header)
    }

    fn told(&self, header: RpcHeader) -> Result<Header, SourceError> {
        header.header().ok_or_else(|| self.retry("a header without number, hash or a sane timestamp"))
    }

    /// The logs of one answer, whose text is gone when they are there.
    pub fn logs(&self, answer: Answer) -> Result<Logs, SourceError> {
        let mut all = match answer {
            Answer::Logs(logs) => logs,
            Answer::Text(text) if text == "null" => return Err(self.gone("the block of the logs".into())),
            Answer::Text(text) => {
                let mut logs = Logs::default();
                logs::parse(&text, &mut logs).map_err(|e| self.retry(&format!("malformed logs: {e}")))?;
                logs
            }
        };
        // They wait for their turn; what they grew beyond their size would wait with them.
        all.shrink();
        Ok(all)
    }

    /// A batch, or the defect that refused it in our words.
    pub fn whole(&self, batch: Result<BlockBatch, Defect>) -> Result<BlockBatch, SourceError> {
        let batch =
            batch.map_err(|defect| self.retry(&format!("refused an answer that does not hold together: {defect}")))?;
        self.record().health.whole();
        Ok(batch)
    }

    /// What it seemed to have done wrong is the chain's own way.
    pub fn excuse(&self) {
        self.record().health.whole();
    }

    /// It does not have `what`, which is held against it when it goes on.
    pub fn gone(&self, what: String) -> SourceError {
        self.record().health.missing(Instant::now(), format!("{what} is not there"));
        SourceError::Gone { node: self.name.clone(), what }
    }

    /// An answer that is not believed, which is held against the node.
    pub fn retry(&self, why: &str) -> SourceError {
        let why = self.secrets.clean(why);
        self.record().health.wrong(Instant::now(), why.clone(), rand::random());
        self.error(why, None)
    }

    /// The node told its newest block; `best` is the best that others told lately.
    pub fn saw_head(&self, head: &Header, best: Option<SeenHead>) {
        let seen = SeenHead { number: head.number, time: head.time, at: Instant::now() };
        self.record().health.saw_head(seen, best);
    }

    /// Its newest block, if it told it lately.
    pub fn head(&self, now: Instant) -> Option<SeenHead> {
        let record = self.record();
        record.health.head(now).filter(|_| record.refused.is_none())
    }

    /// How long ago it was asked for its newest block.
    pub fn head_age(&self, now: Instant) -> Option<Duration> {
        self.record().health.head_age(now)
    }

    /// How good a choice it is, and milliseconds of its light calls.
    pub fn standing(&self, now: Instant) -> (Grade, Option<f64>) {
        let record = self.record();
        let unchecked = !record.checked && self.expected.get().is_some();
        let grade = match record.health.grade(now) {
            _ if record.refused.is_some() => Grade::Refused,
            grade if record.caught.is_some() => grade.max(Grade::Caught),
            grade if unchecked => grade.max(Grade::Unchecked),
            grade => grade,
        };
        (grade, record.health.latency())
    }

    /// Blocks that it allows in one question for logs.
    pub fn max_blocks(&self) -> Option<u64> {
        self.record().limits.max_blocks(Instant::now())
    }

    /// Whether `method` is worth a try.
    pub fn offers(&self, method: &str) -> bool {
        self.record().limits.offers(method, Instant::now())
    }

    /// What is known of it.
    pub fn report(&self) -> NodeReport {
        let record = self.record();
        let mut report = NodeReport { name: self.name.clone(), ..NodeReport::default() };
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

    /// Takes what an earlier run learned of its limits. How it did then says nothing of now.
    pub fn remember(&self, report: &NodeReport) {
        self.record().limits.remember(report, Instant::now());
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
