//! The distance of a tail from a head that moves five times a second, while the node fails in every way that says nothing about
//! its chain.
//!
//! `cargo bench --profile dev --workspace --bench faults -- [--seconds N] [--share PERCENT]` runs it with a real Anvil behind a
//! faulty node, and a real PostgreSQL: first without faults, then with this share of each. It prints Markdown, and judges only
//! the stored rows.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dalp_fixtures::contracts::Burst;
use dalp_fixtures::faulty::{Fault, Injection, Rule, Script};
use dalp_fixtures::{Anvil, Deployed, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, head, stage};
use dalp_tests::traffic::caught_up;
use dalp_tests::truth::assert_exact;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use serde_json::json;

const USAGE: &str = "options: --seconds N (of each of the two runs, 60 unless said), --share PERCENT (of each fault, 2 unless said), \
                     --smoke (five seconds each), --help";

const BLOCK_TIME: Duration = Duration::from_millis(200);
const LOGS_A_BLOCK: u64 = 5;
/// Between two looks at how far behind the tail is.
const LOOK: Duration = Duration::from_millis(50);
const CHAIN: i64 = 31_337;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some((seconds, share)) = options(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    dalp_tests::run(measure(seconds, share));
    ExitCode::SUCCESS
}

fn options(arguments: &[String]) -> Option<(u64, f64)> {
    let (mut seconds, mut share) = (60, 2.0);
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "--smoke" => seconds = 5,
            "--seconds" => seconds = arguments.next()?.parse().ok().filter(|seconds| *seconds > 0)?,
            "--share" => share = arguments.next()?.parse().ok().filter(|share| (0.0..=100.0).contains(share))?,
            "--help" => {}
            _ => return None,
        }
    }
    Some((seconds, share))
}

/// The faults, by the names under which they are told. Those of logs strike `eth_getLogs` and receipts alike.
fn faults() -> Vec<(&'static str, Fault)> {
    let status = |status, html| Fault::Status { status, retry_after: None, html };
    vec![
        ("null", Fault::Null),
        ("an error", Fault::Refused { code: -32_603, message: "internal error".to_owned() }),
        ("503", status(503, false)),
        ("502 with a page", status(502, true)),
        ("a page with 200", Fault::Html),
        ("half a second late", Fault::Delay { ms: 500 }),
        ("no logs", Fault::LogsEmpty),
        ("a batch refused", Fault::BatchFailed),
        ("an answer of a batch missing", Fault::BatchItemMissing),
        ("an answer of a batch an error", Fault::BatchItemFailed),
        ("a wrong id", Fault::WrongId),
        ("the connection reset", Fault::Reset),
        ("the body cut", Fault::Truncated),
        ("no JSON", Fault::Malformed),
    ]
}

async fn measure(seconds: u64, share: f64) {
    println!(
        "A block each {} ms with {LOGS_A_BLOCK} logs, for {seconds} s; the tail is looked at each {} ms. The node is polled for its head each \
         100 ms.\n\n\
         | each fault | blocks | lag in blocks: median | 99 of 100 | most | more than 5 | requests a block | of them for blocks |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|",
        BLOCK_TIME.as_millis(),
        LOOK.as_millis()
    );
    for share in [0.0, share] {
        eprintln!("{share} % of each fault …");
        let scene = Scene::set().await;
        let injections = scene.fail(share / 100.0);
        println!("{}", scene.play(share, seconds).await);
        scene.end(&injections).await;
        if share > 0.0 {
            let struck = faults().into_iter().zip(&injections);
            let struck: Vec<_> = struck.map(|((name, _), rule)| format!("{name} {}", rule.count())).collect();
            println!("\nHow often each struck: {}.", struck.join(", "));
        }
    }
}

struct Scene {
    database: Database,
    anvil: Anvil,
    deployed: Deployed,
    node: FaultyNode,
    /// Strikes nothing, and counts the requests for blocks that were announced.
    counter: Arc<Injection>,
    service: Service,
}

impl Scene {
    /// An indexer that is at the head of its chain.
    async fn set() -> Self {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.expect("the contracts are deployed");
        let node = FaultyNode::start(&[anvil.http_url()]).await.expect("a port is free");
        node.follow(Script { seed: 7, rules: Vec::new() });
        let of_blocks = ["eth_getLogs", "eth_getBlockReceipts", "eth_getBlockByHash"];
        let counter = node.inject(of_blocks.into_iter().fold(Rule::new(Fault::Delay { ms: 0 }), Rule::on));
        let service = Service::start(&Site::new(&database, &node.url()).config()).await;
        let service = service.unwrap_or_else(|error| panic!("{error}"));
        caught_up(&database, &anvil).await;
        Self { database, anvil, deployed, node, counter, service }
    }

    fn fail(&self, share: f64) -> Vec<Arc<Injection>> {
        let rules = faults().into_iter().map(|(_, fault)| Rule::new(fault).probability(share));
        rules.map(|rule| self.node.inject(rule)).collect()
    }

    /// A row of the table.
    async fn play(&self, share: f64, seconds: u64) -> String {
        let (first, requests, fetches) = (head(self.anvil.rpc()).await, self.node.requests(), self.counter.matched());
        let end = Instant::now() + Duration::from_secs(seconds);
        let ((), mut lags) = tokio::join!(self.mine(end), self.look(end));
        let blocks = head(self.anvil.rpc()).await - first;
        lags.sort_unstable();
        let at = |share: f64| lags[((lags.len() - 1) as f64 * share).round() as usize];
        let late = lags.iter().filter(|lag| **lag > 5).count() as f64 * 100.0 / lags.len() as f64;
        let a_block = |count: u64| count as f64 / blocks.max(1) as f64;
        format!(
            "| {share} % | {blocks} | {} | {} | {} | {late:.1} % | {:.2} | {:.2} |",
            at(0.5),
            at(0.99),
            at(1.0),
            a_block(self.node.requests() - requests),
            a_block(self.counter.matched() - fetches)
        )
    }

    /// A block per interval, regardless of the time of earlier ones.
    async fn mine(&self, end: Instant) {
        let mut ticks = interval(BLOCK_TIME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut seed = 0;
        while ticks.tick().await < end {
            seed += 1;
            let call = Burst::burstCall { n: U256::from(LOGS_A_BLOCK), seed: U256::from(seed) };
            let data = Bytes::from(call.abi_encode());
            let transaction = json!([{ "from": self.deployed.agents[0], "to": self.deployed.burst, "data": data, "gas": "0x1c9c380" }]);
            let sent = self.anvil.rpc().call::<alloy::primitives::B256>("eth_sendTransaction", transaction).await;
            sent.expect("the node takes the transaction");
        }
    }

    /// How many blocks the tail was behind, at each look.
    async fn look(&self, end: Instant) -> Vec<u64> {
        let (status, mut lags) = (self.service.status(), Vec::new());
        let mut next = Instant::now();
        while next < end {
            let newest = head(self.anvil.rpc()).await;
            lags.push(newest.saturating_sub(status.borrow()[0].tail.unwrap_or(0)));
            next += LOOK;
            sleep_until(next).await;
        }
        lags
    }

    /// Without faults everything is stored, as it was emitted.
    async fn end(self, injections: &[Arc<Injection>]) {
        injections.iter().for_each(|rule| rule.off());
        caught_up(&self.database, &self.anvil).await;
        let last = head(self.anvil.rpc()).await;
        assert_exact(&self.database.superuser().await, self.anvil.rpc(), CHAIN, 0, last).await;
        self.service.stop().await;
    }
}
