//! Events on a chain under test, and waits for the indexer to store them.

use alloy::primitives::{B256, Bytes, U256};
use alloy::sol_types::SolCall;
use dalp_fixtures::contracts::Burst;
use dalp_fixtures::{Anvil, Deployed, Rpc};
use serde_json::json;

use crate::stage::{Database, head, until, until_shown};

/// Sends a call from the first agent to the Burst contract and waits until it is mined: the node answers earlier.
///
/// # Panics
/// If the node refuses.
pub async fn send(rpc: &Rpc, deployed: &Deployed, call: impl SolCall) {
    let data = Bytes::from(call.abi_encode());
    let transaction = json!([{ "from": deployed.agents[0], "to": deployed.burst, "data": data, "gas": "0x1c9c380" }]);
    let hash: B256 = rpc.call("eth_sendTransaction", transaction).await.expect("the node takes the transaction");
    until("the transaction to be mined", || async {
        let receipt: serde_json::Value =
            rpc.call("eth_getTransactionReceipt", json!([hash])).await.expect("the node answers");
        !receipt.is_null()
    })
    .await;
}

/// Emits `n` transfers in one block.
pub async fn burst(rpc: &Rpc, deployed: &Deployed, n: u64, seed: u64) {
    send(rpc, deployed, Burst::burstCall { n: U256::from(n), seed: U256::from(seed) }).await;
}

/// Waits until the stored tail is the node's head, by hash.
pub async fn caught_up(database: &Database, anvil: &Anvil) {
    caught_up_or(database, anvil, String::new).await;
}

/// As [`caught_up`]; on a timeout, the message has `state` and the tail.
///
/// # Panics
/// If node or database do not answer, and on a timeout.
pub async fn caught_up_or(database: &Database, anvil: &Anvil, state: impl Fn() -> String) {
    let client = database.superuser().await;
    until_shown("the tail to reach the head", || async {
        let number = head(anvil.rpc()).await;
        let hash = anvil.rpc().block_hash(number).await.expect("the node answers").unwrap_or_default();
        let sql = "SELECT tail_number, tail_hash FROM dalp_indexed.chain_state";
        let row = client.query_opt(sql, &[]).await.expect("the state is read");
        let tail = row.map(|row| (row.get::<_, i64>(0), row.get::<_, Option<Vec<u8>>>(1)));
        match &tail {
            Some((tail, Some(hash_of_tail))) if *tail == number as i64 && hash_of_tail[..] == hash[..] => Ok(()),
            _ => Err(format!("head {number} {hash}, tail {tail:?} {}", state())),
        }
    })
    .await;
}
