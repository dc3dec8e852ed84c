//! The path from the bytes of an answer to the bytes of a COPY, in stages, for a measurement by clock, allocator or instructions.
//! The same logs each time; no node, no database, one thread.

use std::alloc::System;
use std::fmt::Write;

use alloy::hex;
use alloy::primitives::{Address, B256, U256, keccak256};
use dalp_indexer::chain::batch::BlockBatch;
use dalp_indexer::chain::block::{BlockRange, Header};
use dalp_indexer::chain::filter::Filter;
use dalp_indexer::chain::logs::Logs;
use dalp_indexer::chain::source::Source;
use dalp_indexer::dataset::rows::Rows;
use dalp_indexer::dataset::{Datasets, Emitters, Floors, Known};
use dalp_indexer::events::TRANSFER;
use dalp_indexer::nodes::logs;
use dalp_indexer::nodes::rpc::{Answer, Call, decode};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

/// Counts, and leaves the rest to the system's.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Logs of each block.
pub const LOGS_PER_BLOCK: u64 = 100;

/// A measurement of stages.
pub trait Ruler {
    /// Measures `work` on the result of `input`.
    fn stage<I, O>(&mut self, name: &'static str, input: impl Fn() -> I, work: impl Fn(I) -> O);
}

/// Calls on `ruler` for all stages with the logs of so many blocks, and for the whole way.
pub fn walk(blocks: u64, ruler: &mut impl Ruler) {
    let answer = answer(blocks, "");
    let body = body(&answer);
    let odd = self::body(&self::answer(blocks, r#","odd":{}"#));
    let logs = read(body.clone());
    let (all, typed, raw, many) = (Source::default(), watched(1, false), watched(1, true), watched(1000, true));
    let batch = |logs, source: &Source| self::batch(blocks, logs, source);
    let (wanted_typed, wanted_raw) = (batch(logs.clone(), &typed), batch(logs.clone(), &raw));
    let (datasets, floors) = (Datasets::own(), Floors::default());
    let none = Emitters::default();
    let rows = |batch: &BlockBatch| Rows::encode(&datasets, Known::new(&none, &none), 1, batch, &floors);
    let whole = |body, source| rows(&batch(read(body), source));
    ruler.stage("body → logs", || body.clone(), read);
    ruler.stage("body → logs, as no node writes them", || odd.clone(), read);
    ruler.stage("of which text → logs", || (), |()| parse(&answer));
    ruler.stage("logs → batch, all logs wanted", || logs.clone(), |logs| batch(logs, &all));
    ruler.stage("logs → batch, one contract wanted", || logs.clone(), |logs| batch(logs, &raw));
    ruler.stage("logs → batch, 1,000 contracts wanted", || logs.clone(), |logs| batch(logs, &many));
    ruler.stage("batch → rows, typed", || (), |()| rows(&wanted_typed));
    ruler.stage("batch → rows, raw and typed", || (), |()| rows(&wanted_raw));
    ruler.stage("**body → rows, typed**", || body.clone(), |body| whole(body, &typed));
    ruler.stage("**body → rows, raw and typed**", || body.clone(), |body| whole(body, &raw));
}

/// The allocator's calls during `work`, of all threads.
pub fn allocated<O>(work: impl FnOnce() -> O) -> (O, Stats) {
    let region = Region::new(ALLOCATOR);
    let output = work();
    (output, region.change())
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

fn batch(blocks: u64, logs: Logs, source: &Source) -> BlockBatch {
    let header = |number| Header {
        number,
        hash: block_hash(number),
        parent: None,
        time: 1_700_000_000 + number as i64,
        bloom: None,
    };
    let range = BlockRange { first: 1, last: blocks };
    BlockBatch::new(range, (1..=blocks).map(header).collect(), logs, source).expect("a batch")
}

/// The token and `count - 1` contracts that emit nothing here, with raw logs or without.
fn watched(count: u64, raw: bool) -> Source {
    let addresses = (0..count).map(|other| Address::from_word(word("contract", other)));
    Source::new(Filter { addresses: addresses.collect(), topics: vec![TRANSFER], raw })
}

fn body(logs: &str) -> Vec<u8> {
    let header = json!({ "number": "0x1", "logsBloom": hex::encode_prefixed([0; 256]) });
    let result = |id: u64, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let header = header.to_string();
    format!("[{},{},{}]", result(1, &header), result(2, &header), result(3, logs)).into_bytes()
}

/// The logs of so many blocks as Anvil writes them; `more` ends each.
fn answer(blocks: u64, more: &str) -> String {
    let mut text = String::from("[");
    for at in 0..blocks * LOGS_PER_BLOCK {
        let number = 1 + at / LOGS_PER_BLOCK;
        let topic = |who: &str| B256::left_padding_from(&word(who, at)[12..]);
        // From dust to tokens of 18 decimals.
        let value = B256::from(U256::from_be_bytes(word("value", at).0) >> (160 + at % 64) as usize);
        let token = Address::from_word(word("contract", 0));
        let comma = if at == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"address":"{token:#x}","topics":["{}","{}","{}"],"data":"{value}","blockHash":"{}","blockNumber":"{number:#x}","blockTimestamp":"{:#x}","transactionHash":"{}","transactionIndex":"{:#x}","logIndex":"{:#x}","removed":false{more}}}"#,
            TRANSFER,
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
