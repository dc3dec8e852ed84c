//! The chain's logs and the database's rows in one form: equal or wrong.

use std::collections::BTreeMap;

use alloy::hex;
use alloy::primitives::{B256, U64};
use dalp_fixtures::Rpc;
use serde::Deserialize;
use serde_json::json;
use tokio_postgres::Client;

use crate::indexer::Site;

/// One log, every field as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(pub Vec<String>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RpcLog {
    address: String,
    topics: Vec<String>,
    data: String,
    block_hash: String,
    block_number: U64,
    transaction_hash: String,
    transaction_index: U64,
    log_index: U64,
}

#[derive(Deserialize)]
struct RpcBlock {
    hash: B256,
    timestamp: U64,
}

/// Every log of blocks `first..=last`, from a simple query of the node, with block times from the headers.
pub async fn on_chain(rpc: &Rpc, first: u64, last: u64) -> Vec<Row> {
    let range = json!([{ "fromBlock": format!("{first:#x}"), "toBlock": format!("{last:#x}") }]);
    let logs: Vec<RpcLog> = rpc.call("eth_getLogs", range).await.expect("the node answers");
    let mut times = BTreeMap::new();
    let mut rows = Vec::with_capacity(logs.len());
    for log in logs {
        let number = log.block_number.to::<u64>();
        if let std::collections::btree_map::Entry::Vacant(entry) = times.entry(number) {
            let block: RpcBlock =
                rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false])).await.expect("a header");
            assert_eq!(block.hash.to_string(), log.block_hash, "the node moved while it was asked");
            entry.insert(block.timestamp.to::<u64>());
        }
        let topic = |i: usize| log.topics.get(i).cloned().unwrap_or_default();
        rows.push(Row(vec![
            format!("{number:012}"),
            format!("{:06}", log.log_index.to::<u64>()),
            log.transaction_index.to::<u64>().to_string(),
            times[&number].to_string(),
            log.block_hash.clone(),
            log.transaction_hash.clone(),
            log.address.to_lowercase(),
            topic(0),
            topic(1),
            topic(2),
            topic(3),
            log.data.clone(),
        ]));
    }
    rows.sort();
    rows
}

/// Every stored log of a chain in blocks `first..=last`.
pub async fn stored(client: &Client, chain_id: i64, first: u64, last: u64) -> Vec<Row> {
    stored_in("logs", client, chain_id, first, last).await
}

/// As [`stored`], of the table `logs` or `quarantine`.
pub async fn stored_in(table: &str, client: &Client, chain_id: i64, first: u64, last: u64) -> Vec<Row> {
    let sql = format!(
        "SELECT block_number, log_index, tx_index, extract(epoch FROM block_time)::int8, block_hash, tx_hash, address, \
         topic0, topic1, topic2, topic3, data FROM dalp_indexed.{table} WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3"
    );
    let rows = client.query(&sql, &[&chain_id, &(first as i64), &(last as i64)]).await.expect("logs are read");
    let mut rows: Vec<Row> = rows
        .iter()
        .map(|row| {
            let bytes = |i: usize| row.get::<_, Option<&[u8]>>(i).map(hex::encode_prefixed).unwrap_or_default();
            Row(vec![
                format!("{:012}", row.get::<_, i64>(0)),
                format!("{:06}", row.get::<_, i32>(1)),
                row.get::<_, i32>(2).to_string(),
                row.get::<_, i64>(3).to_string(),
                bytes(4),
                bytes(5),
                bytes(6),
                bytes(7),
                bytes(8),
                bytes(9),
                bytes(10),
                bytes(11),
            ])
        })
        .collect();
    rows.sort();
    rows
}

/// Asserts that the database holds exactly the chain's logs of `first..=last`, each once; that the typed rows are those of its
/// ERC-20 transfers; and that coverage and state row agree. Returns the number of logs.
///
/// # Panics
/// With the first difference.
pub async fn assert_exact(client: &Client, rpc: &Rpc, chain_id: i64, first: u64, last: u64) -> usize {
    let (chain, database) = (on_chain(rpc, first, last).await, stored(client, chain_id, first, last).await);
    if chain != database {
        let lost = chain.iter().find(|row| !database.contains(row));
        let invented = database.iter().find(|row| !chain.contains(row));
        panic!("{} logs on chain, {} stored; lost: {lost:?}; invented: {invented:?}", chain.len(), database.len());
    }
    assert_transfers(client, chain_id).await;
    let gaps = "SELECT count(*) FROM (SELECT from_block, lag(to_block) OVER (ORDER BY from_block) AS below FROM dalp_indexed.coverage \
                WHERE chain_id = $1) c WHERE below IS NOT NULL AND from_block <> below + 1";
    let gaps: i64 = client.query_one(gaps, &[&chain_id]).await.expect("coverage is read").get(0);
    assert_eq!(gaps, 0, "coverage has gaps or overlaps");
    let state = "SELECT s.tail_number, max(c.to_block), (SELECT hash FROM dalp_indexed.blocks b WHERE b.chain_id = $1 AND b.number = s.tail_number) = s.tail_hash \
                 FROM dalp_indexed.chain_state s JOIN dalp_indexed.coverage c USING (chain_id) WHERE s.chain_id = $1 GROUP BY s.tail_number, s.tail_hash";
    let state = client.query_one(state, &[&chain_id]).await.expect("the state row is read");
    assert_eq!(state.get::<_, i64>(0), state.get::<_, i64>(1), "tail and coverage end at the same block");
    assert!(state.get::<_, bool>(2), "the tail's block is stored");
    chain.len()
}

/// Runs `verify` on all stored blocks, at the chain's strongest level, and asserts that there is no difference.
///
/// # Panics
/// With the command's report.
pub fn full_verify(site: &Site) {
    let output = site.call(&["verify"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "verify:\n{out}\n{err}");
}

/// The typed rows equal the rows that SQL decodes from the raw logs; this SQL is independent of the indexer's code.
async fn assert_transfers(client: &Client, chain_id: i64) {
    let decoded = "SELECT chain_id, block_time, block_number, log_index, address, substr(topic1, 13), substr(topic2, 13), \
                     (SELECT sum(get_byte(data, i)::numeric * 256::numeric ^ (31 - i)) FROM generate_series(0, 31) i)::numeric(78,0), tx_hash \
                   FROM dalp_indexed.logs WHERE chain_id = $1 AND topic3 IS NULL AND topic2 IS NOT NULL AND length(data) = 32 \
                     AND substr(topic1, 1, 12) = '\\x000000000000000000000000' AND substr(topic2, 1, 12) = '\\x000000000000000000000000' \
                     AND topic0 = '\\xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef'";
    let typed = "SELECT chain_id, block_time, block_number, log_index, token, from_address, to_address, value, tx_hash \
                 FROM dalp_indexed.erc20_transfer WHERE chain_id = $1";
    let difference =
        format!("SELECT count(*) FROM (({decoded} EXCEPT ALL {typed}) UNION ALL ({typed} EXCEPT ALL {decoded})) d");
    let difference: i64 = client.query_one(&difference, &[&chain_id]).await.expect("transfers are compared").get(0);
    assert_eq!(difference, 0, "typed rows differ from the raw logs");
}
