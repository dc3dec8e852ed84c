//! From the bytes of an answer to the bytes of a COPY, stage by stage, in nanoseconds a log: no node, no database, one
//! thread. Each figure is the least of many runs, since whatever else runs can only add to it.
//!
//! `cargo bench -p dalp-indexer --bench decode`; a number after `--` is how many runs.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use alloy::hex;
use alloy::primitives::{Address, B256, U256, keccak256};
use dalp_indexer::chain::batch::{BlockBatch, Logs};
use dalp_indexer::chain::block::{BlockRange, Header, TimeSource};
use dalp_indexer::chain::filter::Filter;
use dalp_indexer::events::erc20;
use dalp_indexer::source::logs;
use dalp_indexer::source::rpc::{Answer, Call, decode};
use dalp_indexer::store::rows::Rows;
use serde_json::json;

const BLOCKS: u64 = 100;
const LOGS_PER_BLOCK: u64 = 100;
const LOGS: u64 = BLOCKS * LOGS_PER_BLOCK;
const RUNS: usize = 200;

fn main() {
    // cargo says `--bench` to it.
    let runs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(RUNS);
    let answer = answer("");
    let body = body(&answer);
    println!("{LOGS} transfers in {BLOCKS} blocks; a log is {} bytes; least of {runs} runs", body.len() as u64 / LOGS);
    stage("body -> logs", runs, || body.clone(), read);
    let odd = self::body(&self::answer(r#","odd":{}"#));
    stage("body -> logs, as no node writes them", runs, || odd.clone(), read);
    stage("of which text -> logs", runs, || (), |()| parse(&answer));
    let (logs, filter) = (read(body), watched(1));
    stage("logs -> batch, all logs wanted", runs, || logs.clone(), |logs| batch(logs, &Filter::default()));
    stage("logs -> batch, one contract wanted", runs, || logs.clone(), |logs| batch(logs, &filter));
    let many = watched(1000);
    stage("logs -> batch, 1,000 contracts wanted", runs, || logs.clone(), |logs| batch(logs, &many));
    let batch = batch(logs, &filter);
    stage("batch -> rows, typed", runs, || (), |()| Rows::encode(1, &batch, false));
    stage("batch -> rows, raw and typed", runs, || (), |()| Rows::encode(1, &batch, true));
}

fn stage<I, O>(name: &str, runs: usize, input: impl Fn() -> I, work: impl Fn(I) -> O) {
    let time = |_| {
        let input = input();
        let began = Instant::now();
        let output = black_box(work(input));
        let took = began.elapsed();
        drop(output);
        took
    };
    let least: Duration = (0..runs).map(time).min().unwrap_or_default();
    println!("{name:<40} {:>7.1} ns/log", least.as_nanos() as f64 / LOGS as f64);
}

fn calls() -> [Call; 3] {
    let header = || Call::new("eth_getBlockByNumber", json!([]));
    [header(), header(), Call::new("eth_getLogs", json!([]))]
}

fn read(body: Vec<u8>) -> Logs {
    let answers = decode(body, 1, &calls()).expect("answers");
    match answers.into_iter().next_back() {
        Some(Ok(Answer::Logs(logs))) => logs,
        Some(Ok(Answer::Text(text))) => parse(&text),
        other => panic!("no logs: {other:?}"),
    }
}

fn parse(text: &str) -> Logs {
    let mut logs = Logs::default();
    logs::parse(text, &mut logs).expect("logs");
    logs
}

fn batch(logs: Logs, filter: &Filter) -> BlockBatch {
    let header = |number| Header {
        number,
        hash: block_hash(number),
        parent: None,
        time: 1_700_000_000 + number as i64,
        time_source: TimeSource::Log,
        bloom: None,
    };
    let range = BlockRange { first: 1, last: BLOCKS };
    BlockBatch::new(range, (1..=BLOCKS).map(header).collect(), logs, filter).expect("a batch")
}

/// A filter of the token and of `count - 1` contracts that emit nothing here.
fn watched(count: u64) -> Filter {
    let addresses = (0..count).map(|other| Address::from_word(word("contract", other)));
    Filter { addresses: addresses.collect(), topics: vec![erc20::TRANSFER], ..Filter::default() }
}

fn body(logs: &str) -> Vec<u8> {
    let header = json!({ "number": "0x1", "logsBloom": hex::encode_prefixed([0; 256]) });
    let result = |id: u64, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let header = header.to_string();
    format!("[{},{},{}]", result(1, &header), result(2, &header), result(3, logs)).into_bytes()
}

/// The logs as Anvil writes them; `more` ends each.
fn answer(more: &str) -> String {
    let mut text = String::from("[");
    for at in 0..LOGS {
        let number = 1 + at / LOGS_PER_BLOCK;
        let topic = |who: &str| B256::left_padding_from(&word(who, at)[12..]);
        // From dust to tokens of 18 decimals.
        let value = B256::from(U256::from_be_bytes(word("value", at).0) >> (160 + at % 64) as usize);
        let token = Address::from_word(word("contract", 0));
        let comma = if at == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"address":"{token:#x}","topics":["{}","{}","{}"],"data":"{value}","blockHash":"{}","blockNumber":"{number:#x}","blockTimestamp":"{:#x}","transactionHash":"{}","transactionIndex":"{:#x}","logIndex":"{:#x}","removed":false{more}}}"#,
            erc20::TRANSFER,
            topic("from"),
            topic("to"),
            block_hash(number),
            1_700_000_000 + number,
            word("transaction", at / 10),
            at % LOGS_PER_BLOCK / 10,
            at % LOGS_PER_BLOCK,
        )
        .expect("text");
    }
    text.push(']');
    text
}

fn block_hash(number: u64) -> B256 {
    word("block", number)
}

fn word(what: &str, number: u64) -> B256 {
    keccak256(format!("{what} {number}"))
}
