//! One node: batches of calls, answers by id, errors put into our words.

use alloy::primitives::U64;
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::RpcError;
use alloy::transports::{TransportError, TransportErrorKind};
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use super::http::{BodyTooLarge, CappedHttp};
use super::{Answer, Identity, RpcHeader, SourceError, header_by_number, logs};
use crate::chain::batch::{BlockBatch, Defect, Logs};
use crate::chain::block::Header;
use crate::config::{Chain, Secret, endpoint};

/// One JSON-RPC call.
pub struct Call {
    method: &'static str,
    params: serde_json::Value,
    /// Whether an error answer means `null`.
    or_null: bool,
}

impl Call {
    pub fn new(method: &'static str, params: serde_json::Value) -> Self {
        Self { method, params, or_null: false }
    }

    /// An error answer to this call counts as `null`.
    pub fn or_null(mut self) -> Self {
        self.or_null = true;
        self
    }
}

/// A node and how it is named in messages: scheme, host and port, never its path or key.
#[derive(Debug)]
pub struct Node {
    name: String,
    client: RpcClient,
}

impl Node {
    pub fn new(url: &Secret, chain: &Chain) -> Result<Self, SourceError> {
        let name = endpoint(url.expose());
        let retry = |why: String| SourceError::Retry { node: name.clone(), why };
        let http = reqwest::Client::builder()
            .timeout(chain.request_timeout)
            .connect_timeout(chain.request_timeout)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| retry(e.without_url().to_string()))?;
        let parsed = reqwest::Url::parse(url.expose()).map_err(|e| retry(e.to_string()))?;
        let transport = CappedHttp::new(http, parsed, chain.max_response_bytes);
        Ok(Self { client: RpcClient::new(transport, false), name })
    }

    /// Scheme, host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which chain this node serves.
    pub async fn identity(&self) -> Result<Identity, SourceError> {
        let [id, genesis] = self.batch([Call::new("eth_chainId", json!([])), header_by_number(0)]).await?;
        let chain_id: U64 = self.parse(&id)?;
        Ok(Identity { chain_id: chain_id.to(), genesis: self.header(&genesis, 0)?.hash })
    }

    /// `N` calls in one JSON-RPC batch, answered in their order.
    pub async fn batch<const N: usize>(&self, calls: [Call; N]) -> Result<[Answer; N], SourceError> {
        let answers = self.batch_of(calls.into()).await?;
        answers.try_into().map_err(|_wrong_count| self.retry("the batch has another number of answers"))
    }

    /// Calls in one JSON-RPC batch. An error for any of them fails all; a missing answer is an error, never empty.
    pub async fn batch_of(&self, calls: Vec<Call>) -> Result<Vec<Answer>, SourceError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = self.client.new_batch();
        let mut waiters = Vec::with_capacity(calls.len());
        for call in calls {
            let waiter = batch.add_call::<_, Box<RawValue>>(call.method, &call.params).map_err(|e| self.failed(&e))?;
            waiters.push((waiter, call.or_null));
        }
        batch.send().await.map_err(|e| self.failed(&e))?;
        let mut answers = Vec::with_capacity(waiters.len());
        for (waiter, or_null) in waiters {
            answers.push(match waiter.await {
                Ok(answer) => answer,
                Err(RpcError::ErrorResp(_) | RpcError::NullResp) if or_null => RawValue::NULL.to_owned(),
                Err(RpcError::NullResp) => RawValue::NULL.to_owned(),
                Err(error) => return Err(self.failed(&error)),
            });
        }
        Ok(answers)
    }

    /// One answer as `T`.
    pub fn parse<T: DeserializeOwned>(&self, answer: &RawValue) -> Result<T, SourceError> {
        serde_json::from_str(answer.get()).map_err(|e| self.retry(&format!("malformed answer: {e}")))
    }

    /// The header of block `number`.
    pub fn header(&self, answer: &RawValue, number: u64) -> Result<Header, SourceError> {
        let header = self.any_header(answer).map_err(|error| match error {
            SourceError::Gone { .. } => self.gone(format!("block {number}")),
            other => other,
        })?;
        if header.number != number {
            return Err(self.retry(&format!("asked for block {number}, got block {}", header.number)));
        }
        Ok(header)
    }

    /// The header of whatever block was asked for.
    pub fn any_header(&self, answer: &RawValue) -> Result<Header, SourceError> {
        let header = self.parse::<Option<RpcHeader>>(answer)?.ok_or_else(|| self.gone("the block".into()))?;
        header.header().ok_or_else(|| self.retry("a header without number, hash or a sane timestamp"))
    }

    /// The logs of one answer.
    pub fn logs(&self, answer: &RawValue) -> Result<Logs, SourceError> {
        if answer.get() == "null" {
            return Err(self.gone("the block of the logs".into()));
        }
        let mut all = Logs::default();
        logs::parse(answer.get(), &mut all).map_err(|e| self.retry(&format!("malformed logs: {e}")))?;
        Ok(all)
    }

    /// A batch, or the defect that refused it in our words.
    pub fn whole(&self, batch: Result<BlockBatch, Defect>) -> Result<BlockBatch, SourceError> {
        batch.map_err(|defect| self.retry(&format!("refused an answer that does not hold together: {defect}")))
    }

    pub fn gone(&self, what: String) -> SourceError {
        SourceError::Gone { node: self.name.clone(), what }
    }

    pub fn retry(&self, why: &str) -> SourceError {
        SourceError::Retry { node: self.name.clone(), why: why.to_owned() }
    }

    fn failed(&self, error: &TransportError) -> SourceError {
        let node = self.name.clone();
        match error {
            RpcError::ErrorResp(payload) => {
                let why = format!("error {}: {}", payload.code, payload.message);
                match Refusal::of(payload.code, &payload.message) {
                    Refusal::TooLarge { hint } => SourceError::TooLarge { node, why, hint },
                    Refusal::UnknownBlock => SourceError::Gone { node, what: why },
                    Refusal::Other => SourceError::Retry { node, why },
                }
            }
            RpcError::Transport(TransportErrorKind::Custom(cause)) if cause.is::<BodyTooLarge>() => {
                SourceError::TooLarge { node, why: cause.to_string(), hint: None }
            }
            RpcError::Transport(TransportErrorKind::HttpError(http)) if http.status == 413 => {
                SourceError::TooLarge { node, why: "HTTP 413".into(), hint: None }
            }
            RpcError::Transport(TransportErrorKind::Custom(cause)) => {
                SourceError::Retry { node, why: chain_of(cause.as_ref()) }
            }
            RpcError::DeserError { err, .. } => SourceError::Retry { node, why: format!("malformed answer: {err}") },
            other => SourceError::Retry { node, why: other.to_string() },
        }
    }
}

/// An error with its causes: "connection refused" is in the last one.
fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What an error answer means for the next question.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    TooLarge { hint: Option<u64> },
    UnknownBlock,
    Other,
}

impl Refusal {
    /// By the code and the words that nodes and hosted providers use; anything that sounds like size is split.
    fn of(code: i64, message: &str) -> Self {
        let text = message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["rate limit", "too many requests", "request limit", "throughput"]) {
            return Self::Other;
        }
        if code == -32005
            || says(&[
                "range",
                "too large",
                "too many",
                "more than",
                "exceed",
                "limit",
                "response size",
                "query timeout",
            ])
        {
            return Self::TooLarge { hint: blocks_in(&text) };
        }
        if says(&["unknown block", "block not found", "header not found", "blocknotfound", "not found"]) {
            return Self::UnknownBlock;
        }
        Self::Other
    }
}

/// The number before or after the word `block` in a limit's wording: "limited to 10,000 blocks", "block range: 2048".
fn blocks_in(text: &str) -> Option<u64> {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == ':' || c == '(' || c == ')').filter(|w| !w.is_empty()).collect();
    let number =
        |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).replace([',', '_'], "").parse::<u64>().ok();
    words.windows(2).find_map(|pair| pair[1].starts_with("block").then(|| number(pair[0])).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_known_by_their_words() {
        let check = |message: &str| Refusal::of(-32000, message);
        assert_eq!(check("query returned more than 10000 results"), Refusal::TooLarge { hint: None });
        assert_eq!(check("eth_getLogs is limited to 2,000 blocks"), Refusal::TooLarge { hint: Some(2_000) });
        assert_eq!(check("block range is too wide"), Refusal::TooLarge { hint: None });
        assert_eq!(check("Log response size exceeded."), Refusal::TooLarge { hint: None });
        assert_eq!(check("unknown block"), Refusal::UnknownBlock);
        assert_eq!(check("daily request limit reached"), Refusal::Other);
        assert_eq!(check("internal error"), Refusal::Other);
    }
}
