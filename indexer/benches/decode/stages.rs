//! The stages between the bytes of an answer and the bytes of a COPY: nanoseconds and allocations of each, a log. No node,
//! no database, one thread. Each time is the least of many runs, since whatever else runs can only add to it; the number of allocations
//! is the same each time.

use std::alloc::System;
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
use dalp_indexer::store::Floors;
use dalp_indexer::store::rows::Rows;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts, and leaves the rest to the system's.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BLOCKS: u64 = 100;
const LOGS_PER_BLOCK: u64 = 100;
const LOGS: u64 = BLOCKS * LOGS_PER_BLOCK;
/// How often each stage is run, unless said otherwise.
pub const RUNS: usize = 200;

/// What one stage costs.
pub struct Stage {
    /// From what to what.
    pub name: &'static str,
    /// Nanoseconds a log.
    pub nanoseconds: f64,
    /// Allocations a log, with those that grow one.
    pub allocations: f64,
}

/// All stages, and the whole way.
pub fn measure(runs: usize) -> Vec<Stage> {
    let answer = answer("");
    let body = body(&answer);
    let odd = self::body(&self::answer(r#","odd":{}"#));
    let (logs, filter, many) = (read(body.clone()), watched(1), watched(1000));
    let wanted = batch(logs.clone(), &filter);
    let whole = |body, raw| Rows::encode(1, &batch(read(body), &filter), raw, Floors::default());
    vec![
        stage("body → logs", runs, || body.clone(), read),
        stage("body → logs, as no node writes them", runs, || odd.clone(), read),
        stage("of which text → logs", runs, || (), |()| parse(&answer)),
        stage("logs → batch, all logs wanted", runs, || logs.clone(), |logs| batch(logs, &Filter::default())),
        stage("logs → batch, one contract wanted", runs, || logs.clone(), |logs| batch(logs, &filter)),
        stage("logs → batch, 1,000 contracts wanted", runs, || logs.clone(), |logs| batch(logs, &many)),
        stage("batch → rows, typed", runs, || (), |()| Rows::encode(1, &wanted, false, Floors::default())),
        stage("batch → rows, raw and typed", runs, || (), |()| Rows::encode(1, &wanted, true, Floors::default())),
        stage("**body → rows, typed**", runs, || body.clone(), |body| whole(body, false)),
        stage("**body → rows, raw and typed**", runs, || body.clone(), |body| whole(body, true)),
    ]
}

/// The stages as a table, a line each.
pub fn markdown(stages: &[Stage]) -> String {
    let mut text =
        format!("| {LOGS} logs in {BLOCKS} blocks, one thread | ns a log | allocations a log |\n|---|---:|---:|\n");
    for Stage { name, nanoseconds, allocations } in stages {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {nanoseconds:.1} | {allocations:.4} |");
    }
    text
}

fn stage<I, O>(name: &'static str, runs: usize, input: impl Fn() -> I, work: impl Fn(I) -> O) -> Stage {
    let time = |_| {
        let input = input();
        let began = Instant::now();
        let output = black_box(work(input));
        let took = began.elapsed();
        drop(output);
        took
    };
    let least: Duration = (0..runs).map(time).min().unwrap_or_default();
    let given = input();
    let region = Region::new(ALLOCATOR);
    let output = black_box(work(given));
    let counted = region.change();
    drop(output);
    let allocations = counted.allocations + counted.reallocations;
    let a_log = |total: f64| total / LOGS as f64;
    Stage { name, nanoseconds: a_log(least.as_nanos() as f64), allocations: a_log(allocations as f64) }
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
