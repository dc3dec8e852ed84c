//! Asks contracts for the metadata that tokens declare, at the newest block.

use alloy::primitives::{Address, Bytes, U64};
use serde_json::json;

use super::Nodes;
use super::asked::in_words;
use super::error::NodeError;
use super::node::Node;
use super::refusal::is_of_contract;
use super::rpc::{Answer, Call};
use crate::chain::token::Token;

/// The selectors of `name()`, `symbol()` and `decimals()`.
const SELECTORS: [&str; 3] = ["0x06fdde03", "0x95d89b41", "0x313ce567"];

impl Nodes {
    /// The metadata of these contracts, in their order; for a contract that the node could not ask, the reason. A contract that reverts
    /// or answers nonsense declares nothing.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn tokens(&self, addresses: &[Address]) -> Result<Vec<Result<Token, String>>, NodeError> {
        let node = self.node();
        // First, so that the contracts' answers are of this block or a newer one.
        let mut calls = vec![Call::new("eth_blockNumber", json!([]))];
        for address in addresses {
            let call = |data| Call::new("eth_call", json!([{ "to": address, "data": data }, "latest"])).or_its_error();
            calls.extend(SELECTORS.map(call));
        }
        let answers = node.batch_of(calls).await?;
        let (block, answers) = answers.split_first().ok_or_else(|| node.retry("it answered nothing"))?;
        let block: U64 = node.parse("eth_blockNumber", block)?;
        let of_each = addresses.iter().zip(answers.chunks(SELECTORS.len()));
        Ok(of_each.map(|(address, answers)| told(node, *address, block.to(), answers)).collect())
    }
}

fn told(node: &Node, address: Address, block: u64, answers: &[Answer]) -> Result<Token, String> {
    let bytes = answers.iter().map(|answer| returned(node, answer)).collect::<Result<Vec<Bytes>, _>>()?;
    match &bytes[..] {
        [name, symbol, decimals] => Ok(Token::of(address, block, [name, symbol, decimals])),
        _ => Err(node.says("the number of answers in the batch is wrong")),
    }
}

/// The returned bytes; none if the contract failed.
fn returned(node: &Node, answer: &Answer) -> Result<Bytes, String> {
    match answer {
        Answer::Error(error) if is_of_contract(error.code, &error.message) => Ok(Bytes::new()),
        Answer::Error(error) => Err(node.says(&format!("eth_call: {}", in_words(error)))),
        answer => node.parse("eth_call", answer).map_err(|error| error.to_string()),
    }
}
